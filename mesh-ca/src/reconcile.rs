//! What Secrets, ConfigMaps and webhooks should hold of an authority: functions of what is wanted and what is there.
//!
//! They talk to nobody. The caller has read the objects, and writes what comes back; `None` means that all is well. Only the
//! fields that are ours are looked at and set, so that others may own the rest.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::WebhookClientConfig;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::authority::{Authority, Chain, Lifetimes, RootOptions, SignError};
use crate::bundle::{self, BundleError};

/// The Secret of a root that the control plane made.
pub const CA_SECRET: &str = "istio-ca-secret";
/// The Secret of a plugged-in authority.
pub const CACERTS_SECRET: &str = "cacerts";
/// The ConfigMap that carries the roots into every namespace.
pub const ROOT_CONFIG_MAP: &str = "istio-ca-root-cert";
/// The ConfigMap that carries the revocation lists.
pub const CRL_CONFIG_MAP: &str = "istio-ca-crl";
const CA_SECRET_TYPE: &str = "istio.io/ca-root";
/// How istiod marks the ConfigMaps that it keeps.
const OURS: (&str, &str) = ("istio.io/config", "true");
/// Namespaces that hold no workloads of a mesh.
const LEFT_OUT: &[&str] = &["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// Where the control plane's own root comes from.
#[derive(Debug)]
pub enum OwnRoot {
    /// It is there.
    Use(Box<Authority>),
    /// It is not. Create this Secret, and only *create* it: when another replica was quicker, the API server says so; then
    /// read the Secret and ask again. So two replicas that start together agree on one root.
    Create(Box<Secret>),
}

/// Why there is no root of our own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OwnRootError {
    /// The Secret is there, but cannot be used. It is not overwritten: certificates of its root may be about.
    #[error("Secret {CA_SECRET}: {0}; repair it, or delete it for a new root")]
    Secret(#[from] BundleError),
    /// No root could be made.
    #[error(transparent)]
    Sign(#[from] SignError),
}

/// The control plane's own root, of the Secret [`CA_SECRET`] in `namespace` or to be put there.
///
/// # Errors
/// When the Secret is there and damaged, or no key could be made.
pub fn own_root(
    observed: Option<&Secret>,
    namespace: &str,
    options: &RootOptions,
    lifetimes: Lifetimes,
    now: SystemTime,
) -> Result<OwnRoot, OwnRootError> {
    if let Some(secret) = observed {
        let authority = bundle::self_signed(&bundle::entries(secret), lifetimes, now)?;
        return Ok(OwnRoot::Use(Box::new(authority)));
    }
    let authority = Authority::self_signed(options, lifetimes, now)?;
    Ok(OwnRoot::Create(Box::new(ca_secret(&authority, namespace)?)))
}

/// An authority as [`CA_SECRET`] keeps it; istiod can read it.
///
/// # Errors
/// When the key cannot be written.
pub fn ca_secret(authority: &Authority, namespace: &str) -> Result<Secret, SignError> {
    let certificate = authority.certificate().to_pem();
    let data = [
        (bundle::CA_CERT, certificate.clone()),
        (bundle::CA_KEY, authority.key().to_pem()?),
        (bundle::ROOT_CERT, certificate),
    ];
    let data = data.map(|(key, pem)| (key.to_owned(), ByteString(pem.into_bytes())));
    Ok(Secret {
        metadata: named(CA_SECRET, namespace),
        type_: Some(CA_SECRET_TYPE.to_owned()),
        data: Some(data.into()),
        ..Secret::default()
    })
}

fn named(name: &str, namespace: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), namespace: Some(namespace.to_owned()), ..ObjectMeta::default() }
}

/// Whether a self-signed root should get a new certificate of the same key: in the last `percent` of its life, as
/// `CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE` (20) says.
pub fn root_is_old(authority: &Authority, percent: u32, now: SystemTime) -> bool {
    let root = authority.certificate();
    let life = root.not_after().duration_since(root.not_before()).unwrap_or_default();
    now >= root.not_after() - life * percent.min(100) / 100
}

/// Whether a namespace gets [`ROOT_CONFIG_MAP`].
pub fn wants_roots(namespace: &str) -> bool {
    !LEFT_OUT.contains(&namespace)
}

/// [`ROOT_CONFIG_MAP`] as it should be applied in a namespace; none where it is right.
pub fn root_config_map(authority: &Authority, namespace: &str, observed: Option<&ConfigMap>) -> Option<ConfigMap> {
    let wanted = (bundle::ROOT_CERT, authority.roots_pem().as_ref());
    wants_roots(namespace).then(|| config_map(ROOT_CONFIG_MAP, namespace, wanted, observed)).flatten()
}

/// [`CRL_CONFIG_MAP`] as it should be applied in a namespace; none where it is right, or where there are no lists. Where ours
/// has lists that the authority has no longer, it is emptied: proxies check by what is there.
pub fn crl_config_map(authority: &Authority, namespace: &str, observed: Option<&ConfigMap>) -> Option<ConfigMap> {
    let lists = match authority.crl_pem() {
        Some(lists) => &**lists,
        None if observed.is_some_and(is_ours) => "",
        None => return None,
    };
    let wanted = (bundle::CA_CRL, lists);
    wants_roots(namespace).then(|| config_map(CRL_CONFIG_MAP, namespace, wanted, observed)).flatten()
}

fn is_ours(map: &ConfigMap) -> bool {
    map.metadata.labels.as_ref().and_then(|labels| labels.get(OURS.0)).is_some_and(|value| value == OURS.1)
}

fn config_map(
    name: &str,
    namespace: &str,
    (key, value): (&str, &str),
    observed: Option<&ConfigMap>,
) -> Option<ConfigMap> {
    let holds = |map: &ConfigMap| map.data.as_ref().and_then(|data| data.get(key)).is_some_and(|found| found == value);
    if observed.is_some_and(|map| is_ours(map) && holds(map)) {
        return None;
    }
    let labels = BTreeMap::from([(OURS.0.to_owned(), OURS.1.to_owned())]);
    Some(ConfigMap {
        metadata: ObjectMeta { labels: Some(labels), ..named(name, namespace) },
        data: Some(BTreeMap::from([(key.to_owned(), value.to_owned())])),
        ..ConfigMap::default()
    })
}

/// Whether a server needs another certificate: it has passed half of its life, lacks a host, or is of other roots.
pub fn needs_renewal(serving: &Chain, authority: &Authority, hosts: &[String], now: SystemTime) -> bool {
    let leaf = serving.leaf();
    let life = leaf.not_after().duration_since(leaf.not_before()).unwrap_or(Duration::ZERO);
    let names = leaf.hosts();
    now >= leaf.not_before() + life / 2
        || serving.roots_pem() != &**authority.roots_pem()
        || !hosts.iter().all(|host| names.contains(host))
}

/// The Service behind webhooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookService {
    /// Its name, such as `istiod`.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

impl WebhookService {
    fn is_behind(&self, hook: &WebhookClientConfig) -> bool {
        hook.service.as_ref().is_some_and(|called| called.name == self.name && called.namespace == self.namespace)
    }
}

/// The strategic merge patch of a `MutatingWebhookConfiguration` or `ValidatingWebhookConfiguration` whose webhooks, by name,
/// should all trust these roots where they call `service`; none where they do. It touches `caBundle` and nothing else.
pub fn bundle_patch<'a>(
    hooks: impl IntoIterator<Item = (&'a str, &'a WebhookClientConfig)>,
    service: &WebhookService,
    roots_pem: &str,
) -> Option<Value> {
    let bundle = ByteString(roots_pem.as_bytes().to_vec());
    let is_stale = |hook: &WebhookClientConfig| service.is_behind(hook) && hook.ca_bundle.as_ref() != Some(&bundle);
    let stale = hooks.into_iter().filter(|(_, hook)| is_stale(hook));
    let stale: Vec<Value> =
        stale.map(|(name, _)| json!({"name": name, "clientConfig": {"caBundle": bundle}})).collect();
    (!stale.is_empty()).then(|| json!({"webhooks": stale}))
}

#[cfg(test)]
mod tests;
