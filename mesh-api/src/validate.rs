//! What is wrong with an object, seen for itself: the rules of Istio's validating webhook.
//!
//! A schema says which form an object has; here is what its fields mean together: that a host is a host, that a rule can
//! be reached, that what excludes each other isn't there twice. Errors are what Istio refuses, warnings what it accepts
//! and yet warns of. Nothing here looks at another object, at the cluster or at a clock, so a webhook, a command and a
//! test say the same of the same text.
//!
//! Each kind has a file; so has each sort of value that kinds share. A rule that needs Envoy's own messages (whether the
//! patch of an EnvoyFilter fits them) cannot be here: this crate doesn't know Envoy.

mod at;
mod authorization_policy;
mod destination_rule;
mod envoy_filter;
mod extensions;
mod gateway;
mod headers;
mod hosts;
mod labels;
mod mesh;
mod metadata;
mod net;
mod numbers;
mod peer_authentication;
mod protocol;
mod proxy_config;
mod request_authentication;
mod service_entry;
mod sidecar;
mod telemetry;
#[cfg(test)]
mod testing;
mod tls;
mod traffic_policy;
mod url;
mod virtual_service;
mod workload;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::names::ObjectRef;
use crate::object::DEFAULT_NAMESPACE;
use crate::security::AuthorizationPolicy;
use crate::telemetry::Telemetry;
use crate::{Diagnostic, Name, Object, networking, security};
use at::{At, Findings};

/// Something that can say what is wrong with it.
///
/// ```
/// use mesh_api::{Severity, Validate, networking::VirtualService};
/// let reviews: VirtualService = serde_json::from_value(serde_json::json!({
///     "apiVersion": "networking.istio.io/v1",
///     "kind": "VirtualService",
///     "metadata": {"name": "reviews", "namespace": "bookinfo"},
///     "spec": {"hosts": ["reviews"], "http": [{"route": [{"destination": {"host": "reviews", "port": {"number": 0}}}]}]},
/// }))?;
/// let problems = reviews.validate();
/// assert_eq!(problems[0].severity, Severity::Error);
/// assert_eq!(problems[0].path.as_str(), "spec.http[0].route[0].destination.port.number");
/// assert_eq!(problems[0].message, "port number 0 must be in the range 1..65535");
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// A webhook of one's own says the same, before an object is stored:
/// ```
/// use mesh_api::{Diagnostic, Object, Severity, Validate};
/// use serde_json::{Value, json};
///
/// fn review(request: &Value) -> Value {
///     let told = match Object::from_value(&request["object"]) {
///         Ok(object) => object.validate(),
///         Err(wrong) => vec![Diagnostic::error(wrong.code, wrong.message).at(wrong.path)],
///     };
///     let (errors, warnings): (Vec<_>, Vec<_>) = told.iter().partition(|problem| problem.severity == Severity::Error);
///     let texts = |problems: Vec<&Diagnostic>| problems.iter().map(ToString::to_string).collect::<Vec<_>>();
///     json!({
///         "uid": request["uid"],
///         "allowed": errors.is_empty(),
///         "status": {"message": texts(errors).join("; ")},
///         "warnings": texts(warnings),
///     })
/// }
///
/// let response = review(&json!({
///     "uid": "1",
///     "object": {
///         "apiVersion": "networking.istio.io/v1",
///         "kind": "Gateway",
///         "metadata": {"name": "front", "namespace": "shop"},
///         "spec": {"servers": [{"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": []}]},
///     },
/// }));
/// assert_eq!(response["allowed"], false);
/// assert!(response["status"]["message"].as_str().is_some_and(|text| text.starts_with("Gateway shop/front spec.servers[0]")));
/// ```
pub trait Validate {
    /// All that is wrong, the most general first; empty for what is as it should be. An object with an error should not
    /// be stored, one with warnings may be.
    fn validate(&self) -> Vec<Diagnostic>;
}

/// Most kinds: what is true of all metadata, then the rules of the spec.
macro_rules! kinds {
    ($($name:literal: $kind:ty => $check:path;)*) => {$(
        impl Validate for $kind {
            fn validate(&self) -> Vec<Diagnostic> {
                validate($name, &self.metadata, |at| {
                    if metadata::check(at, &self.metadata) {
                        $check(&at.field("spec"), &self.metadata, &self.spec);
                    }
                })
            }
        }
    )*};
}

kinds! {
    "DestinationRule": networking::DestinationRule => destination_rule::check;
    "EnvoyFilter": networking::EnvoyFilter => envoy_filter::check;
    "Gateway": networking::Gateway => gateway::check;
    "PeerAuthentication": security::PeerAuthentication => peer_authentication::check;
    "ProxyConfig": networking::ProxyConfig => proxy_config::check;
    "RequestAuthentication": security::RequestAuthentication => request_authentication::check;
    "ServiceEntry": networking::ServiceEntry => service_entry::check;
    "Sidecar": networking::Sidecar => sidecar::check;
    "Telemetry": Telemetry => telemetry::check;
    "TrafficExtension": crate::extensions::TrafficExtension => extensions::traffic_extension;
    "VirtualService": networking::VirtualService => virtual_service::check;
    "WasmPlugin": crate::extensions::WasmPlugin => extensions::wasm_plugin;
    "WorkloadEntry": networking::WorkloadEntry => workload::entry;
    "WorkloadGroup": networking::WorkloadGroup => workload::group;
}

impl Validate for AuthorizationPolicy {
    fn validate(&self) -> Vec<Diagnostic> {
        validate("AuthorizationPolicy", &self.metadata, |at| {
            if metadata::check_policy(at, &self.metadata, self.spec.action) {
                authorization_policy::check(&at.field("spec"), &self.spec);
            }
        })
    }
}

impl Validate for Object {
    /// What the object says of itself if it is one of Istio's kinds, nothing for the others.
    fn validate(&self) -> Vec<Diagnostic> {
        match self {
            Self::AuthorizationPolicy(object) => object.validate(),
            Self::DestinationRule(object) => object.validate(),
            Self::EnvoyFilter(object) => object.validate(),
            Self::Gateway(object) => object.validate(),
            Self::PeerAuthentication(object) => object.validate(),
            Self::ProxyConfig(object) => object.validate(),
            Self::RequestAuthentication(object) => object.validate(),
            Self::ServiceEntry(object) => object.validate(),
            Self::Sidecar(object) => object.validate(),
            Self::Telemetry(object) => object.validate(),
            Self::TrafficExtension(object) => object.validate(),
            Self::VirtualService(object) => object.validate(),
            Self::WasmPlugin(object) => object.validate(),
            Self::WorkloadEntry(object) => object.validate(),
            Self::WorkloadGroup(object) => object.validate(),
            _ => Vec::new(),
        }
    }
}

fn validate(kind: &'static str, metadata: &ObjectMeta, check: impl FnOnce(&At<'_>)) -> Vec<Diagnostic> {
    let findings = Findings::default();
    check(&At::root(&findings));
    findings.about(|| {
        let name = Name::from(metadata.name.as_deref().unwrap_or_default());
        Some(ObjectRef { kind: kind.into(), namespace: namespace(metadata).into(), name })
    })
}

/// The namespace that an object is in.
fn namespace(metadata: &ObjectMeta) -> &str {
    metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or(DEFAULT_NAMESPACE)
}
