//! Sidecar injection: a pod comes in as written, and goes out with a proxy in it.
//!
//! The journey is: decide (does it get one?), rewrite (templates laid over the pod, the user's own settings over those,
//! then probes, metrics and order), and the difference of the two as a JSON patch. All of it is pure: the same pod and the same
//! [`Config`] give the same patch, and a pod that was injected before comes back as it is.

mod annotations;
mod config;
mod decide;
mod merge;
mod metrics;
mod native;
mod openshift;
mod order;
mod otel;
mod overrides;
mod owner;
mod pod;
mod probes;
mod proxy_configs;
mod quantity;
mod rewrite;
mod settled;
mod template;
mod workload;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

pub use config::{Config, default_values};
pub use decide::{Decision, Policy};
pub use merge::strategic_merge;
pub use native::{Kubelets, NativeSidecars};
pub use openshift::OpenShift;
pub use owner::Owner;
pub use proxy_configs::ProxyConfigs;
pub use template::{template_functions, template_value};
pub use workload::Skipped;

use crate::review::{Outcome as Counted, Request, Response};
use crate::webhook::Admit;
use pod::Pod;
use rewrite::Known;
use settled::Memo;

/// Why a pod could not be injected. The fault is the pod's, except for templates.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InjectError {
    /// An annotation says what it must not.
    #[error("invalid value {value:?} of the annotation {name}: {why}")]
    Annotation {
        /// The annotation.
        name: &'static str,
        /// What it says.
        value: String,
        /// What would be right.
        why: String,
    },
    /// The object is no pod.
    #[error("not a pod: {0}")]
    Malformed(String),
    /// The pod, or the configuration, names a template that isn't there.
    #[error("there is no template {name:?}, check inject.istio.io/templates; there are {known}")]
    UnknownTemplate {
        /// The name.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// A template fails.
    #[error("template {name:?}, check the ConfigMap istio-sidecar-injector: {why}")]
    Template {
        /// Its name.
        name: String,
        /// Where and why.
        why: String,
    },
    /// What a template makes can't be laid over the pod.
    #[error("what the templates make doesn't fit the pod, check the ConfigMap istio-sidecar-injector: {0}")]
    Merge(String),
}

/// What became of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The pod with a proxy.
    Injected(Value),
    /// It stays as it is, for this reason.
    Skipped(Decision),
}

/// Injects proxies into pods.
#[derive(Clone, Debug)]
pub struct Injector {
    config: Config,
    memo: Memo,
}

impl Injector {
    /// An injector with this configuration.
    pub fn new(config: Config) -> Self {
        Self { config, memo: Memo::default() }
    }

    /// Injects a pod, or the template of a pod. `namespace` is where it will be; `variables` are set for the proxy.
    /// Without an `owner`, the pod's own references tell it.
    ///
    /// # Errors
    /// Where the pod can't be injected and must not run without a proxy either.
    pub fn inject(
        &self,
        pod: Value,
        namespace: &str,
        owner: Option<&Owner>,
        variables: BTreeMap<String, String>,
    ) -> Result<Outcome, InjectError> {
        let mut pod = Pod::read(pod)?;
        Ok(match decide::decide(&self.config, &pod, namespace) {
            Decision::Inject => {
                let found;
                let owner = match owner {
                    Some(owner) => owner,
                    None => {
                        found = Owner::of(&pod, namespace);
                        &found
                    }
                };
                annotations::check(&pod)?;
                if self.config.openshift.is_some() {
                    openshift::forget_assigned_user(&mut pod);
                }
                let settled = self.memo.settled(&self.config, &pod, namespace)?;
                let known = Known {
                    owner,
                    settled: &settled,
                    ids: self.config.openshift.as_ref().map(|openshift| openshift.ids(namespace)).unwrap_or_default(),
                    native: self.config.native_sidecars.of(&pod),
                };
                Outcome::Injected(rewrite::rewrite(&self.config, &pod, &known, variables)?.into_value())
            }
            decision => Outcome::Skipped(decision),
        })
    }
}

impl Admit for Injector {
    fn admit(&self, request: &Request, path: &str) -> Response {
        if !request.object.is_object() {
            return Response::deny(400, "the review has no pod in it");
        }
        let pod = without_managed_fields(&request.object);
        let own = pod.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
        let namespace = if own.is_empty() { request.namespace.clone() } else { own.to_owned() };
        match self.inject(Value::clone(&pod), &namespace, None, variables(path)) {
            Ok(Outcome::Injected(injected)) => {
                Response::patched(&json_patch::diff(&pod, &injected)).counted(Counted::Injected)
            }
            Ok(Outcome::Skipped(_)) => Response::allow().counted(Counted::NotInjected),
            Err(error) => {
                Response::deny(if matches!(error, InjectError::Malformed(_)) { 400 } else { 422 }, error.to_string())
            }
        }
    }
}

/// These can be large, and nothing here changes them.
fn without_managed_fields(pod: &Value) -> Cow<'_, Value> {
    let mut pod = Cow::Borrowed(pod);
    if pod.pointer("/metadata/managedFields").is_some()
        && let Some(metadata) = pod.to_mut().get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.remove("managedFields");
    }
    pod
}

/// The variables in a path such as `/cluster/c1/net/n1`: key and value in turn, `--slash--` standing for a slash. Keys other
/// than these two are names of variables.
fn variables(path: &str) -> BTreeMap<String, String> {
    let mut parts = path.trim_matches('/').split('/');
    let mut out = BTreeMap::new();
    while let (Some(key), Some(value)) = (parts.next(), parts.next()) {
        let name = match key {
            "" => continue,
            "cluster" => "ISTIO_META_CLUSTER_ID".to_owned(),
            "net" => "ISTIO_META_NETWORK".to_owned(),
            other => other.to_uppercase(),
        };
        out.insert(name, value.replace("--slash--", "/"));
    }
    out
}

#[cfg(test)]
mod tests;
