//! Secrets that the control plane serves: certificates from Secrets, authorities from Secrets and ConfigMaps.
//!
//! Rule 15 of Istio's semantics: a proxy gets what its own configuration names, from its own namespace or as a ReferenceGrant
//! allows. Nothing here may hand any other key to a proxy of another namespace; authorities from ConfigMaps are public. That
//! a proxy is of the namespace that it says is for the server to have seen.

use std::collections::BTreeSet;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::{DataSource, data_source};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret,
};
use mesh_api::Name;

use crate::Resource;
use crate::build::cluster::credential_name;
use crate::build::destination::Rules;
use crate::class::Client;
use crate::memo::Query;
use crate::model::InNamespace;
use crate::model::destination_rule::{DestinationRule, TlsMode};
use crate::model::secret::TlsSecret;
use crate::scope::{ScopeOf, ServicesOf};
use crate::view::View;

const CA_SUFFIX: &str = "-cacert";

/// Where a secret's name says that it is.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Place {
    /// `kubernetes://name` (of the proxy's namespace) or `kubernetes://namespace/name`.
    Kubernetes(InNamespace),
    /// `kubernetes-gateway://namespace/name`.
    KubernetesGateway(InNamespace),
    /// `configmap://namespace/name`.
    ConfigMap(InNamespace),
}

fn place(name: &str, proxy_namespace: &Name) -> Option<Place> {
    let full = |text: &str| {
        let (namespace, name) = text.split_once('/')?;
        (!namespace.is_empty() && !name.is_empty()).then(|| InNamespace::new(namespace, name))
    };
    if let Some(rest) = name.strip_prefix("kubernetes://") {
        let own = || Some(InNamespace::new(proxy_namespace.clone(), rest));
        let key = if rest.contains('/') { full(rest) } else { own() };
        key.map(Place::Kubernetes)
    } else if let Some(rest) = name.strip_prefix("kubernetes-gateway://") {
        full(rest).map(Place::KubernetesGateway)
    } else {
        name.strip_prefix("configmap://").and_then(full).map(Place::ConfigMap)
    }
}

/// True when a proxy of `own` may have the secret: one of its own namespace, one that a ReferenceGrant of its namespace lets
/// Gateways of `own` use, or authorities of a ConfigMap. A Gateway API credential also needs a Gateway of that namespace,
/// which is for the caller to see to.
pub(crate) fn may_have(view: &View<'_>, name: &str, own: &Name) -> bool {
    match place(name, own) {
        Some(Place::Kubernetes(key)) => key.namespace == *own,
        Some(Place::KubernetesGateway(key)) => {
            let secret = without_suffix(&key.name);
            let mut grants = view.bucket(|s| &s.reference_grants, &key.namespace);
            key.namespace == *own || grants.any(|(_, grant)| grant.allows(&secret, own))
        }
        Some(Place::ConfigMap(_)) => true,
        None => false,
    }
}

/// True for a credential of the Gateway API.
pub(crate) fn is_of_gateway_api(name: &str) -> bool {
    name.starts_with("kubernetes-gateway://")
}

/// The resources for these names, in their order; what doesn't exist is left out, and Envoy waits for it.
pub(crate) fn resources(view: &View<'_>, names: BTreeSet<Name>, own: &Name) -> Vec<Arc<Resource>> {
    let build = |name| (*view.get(&SecretResource { name, namespace: own.clone() })).clone();
    names.into_iter().filter_map(build).collect()
}

/// The secrets for TLS that a client originates with credentials of its DestinationRules.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ClientSecrets(pub Client);

impl Query for ClientSecrets {
    type Out = Vec<Arc<Resource>>;

    fn run(&self, view: &View<'_>) -> Self::Out {
        let own = &self.0.namespace;
        let services = view.get(&ServicesOf(ScopeOf::client(&self.0)));
        let rules = Rules::new(view, &self.0);
        let mut names: BTreeSet<Name> = BTreeSet::new();
        for service in services.iter() {
            if let Some(rule) = rules.outbound(service) {
                names.extend(names_of(&rule).into_iter().filter(|name| may_have(view, name, own)));
            }
        }
        resources(view, names, own)
    }
}

/// The secrets that a rule's policies name, for all ports and subsets.
fn names_of(rule: &DestinationRule) -> Vec<Name> {
    let policies = rule.policy.iter().chain(rule.subsets.iter().filter_map(|s| s.policy.as_ref()));
    let ports = policies.clone().flat_map(|policy| policy.ports.iter().map(|p| &p.policy));
    let mut out = Vec::new();
    for tls in policies.chain(ports).filter_map(|policy| policy.tls.as_ref()) {
        let credential = tls.credential_name.as_str();
        if credential.is_empty() || matches!(tls.mode, TlsMode::Disable | TlsMode::IstioMutual) {
            continue;
        }
        out.push(credential_name(credential).into());
        out.push(credential_name(&format!("{credential}{CA_SUFFIX}")).into());
    }
    out
}

/// A secret by its resource name, as a proxy of that namespace means it. Who may have it is for the asker to know.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct SecretResource {
    name: Name,
    namespace: Name,
}

impl Query for SecretResource {
    type Out = Option<Arc<Resource>>;

    fn run(&self, view: &View<'_>) -> Self::Out {
        let kind = match place(&self.name, &self.namespace)? {
            Place::ConfigMap(key) => {
                let key = InNamespace { name: without_suffix(&key.name), ..key };
                authorities(view.row(|s| &s.ca_config_maps, &key)?)?
            }
            Place::Kubernetes(key) | Place::KubernetesGateway(key) if key.name.ends_with(CA_SUFFIX) => {
                let alone = view.row(|s| &s.secrets, &key);
                let beside = InNamespace { name: without_suffix(&key.name), ..key.clone() };
                authorities(alone.or_else(|| view.row(|s| &s.secrets, &beside))?)?
            }
            // A `caCertCredentialName` may name a Secret of authorities alone.
            Place::Kubernetes(key) | Place::KubernetesGateway(key) => {
                let secret = view.row(|s| &s.secrets, &key)?;
                certificate(secret).or_else(|| authorities(secret))?
            }
        };
        let message = Secret { name: self.name.to_string(), r#type: Some(kind) };
        Some(Arc::new(Resource::encode(self.name.clone(), &message)))
    }
}

fn without_suffix(name: &Name) -> Name {
    name.strip_suffix(CA_SUFFIX).map_or_else(|| name.clone(), Name::from)
}

fn inline(bytes: &[u8]) -> Option<DataSource> {
    (!bytes.is_empty()).then(|| DataSource {
        specifier: Some(data_source::Specifier::InlineBytes(bytes.to_vec())),
        ..DataSource::default()
    })
}

fn certificate(from: &TlsSecret) -> Option<secret::Type> {
    from.has_certificate().then(|| {
        secret::Type::TlsCertificate(TlsCertificate {
            certificate_chain: inline(&from.chain),
            private_key: inline(&from.key),
            ocsp_staple: inline(&from.staple),
            ..TlsCertificate::default()
        })
    })
}

fn authorities(from: &TlsSecret) -> Option<secret::Type> {
    let trusted_ca = inline(&from.authorities)?;
    Some(secret::Type::ValidationContext(CertificateValidationContext {
        trusted_ca: Some(trusted_ca),
        crl: inline(&from.revoked),
        ..CertificateValidationContext::default()
    }))
}
