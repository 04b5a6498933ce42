//! Secrets that the control plane serves: certificates from Secrets, authorities from Secrets and ConfigMaps.
//!
//! Rule 15 of Istio's semantics: a proxy gets what a Gateway of its own names, from its own namespace. Nothing here may
//! hand a key to a proxy of another namespace; authorities from ConfigMaps are public.

use std::collections::BTreeSet;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::{DataSource, data_source};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret,
};
use mesh_api::Name;

use super::{MergedGateway, Router, tls};
use crate::Resource;
use crate::memo::Query;
use crate::model::InNamespace;
use crate::model::secret::TlsSecret;
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

/// The secrets that a router may have.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct GatewaySecrets(pub Router);

impl Query for GatewaySecrets {
    type Out = Vec<Arc<Resource>>;

    fn run(&self, view: &View<'_>) -> Self::Out {
        let own = &self.0.client.namespace;
        let merged = view.get(&MergedGateway(self.0.clone()));
        let mut names: BTreeSet<Name> = BTreeSet::new();
        for bound in merged.ports.iter().flat_map(|p| &p.servers) {
            let Some(tls) = bound.server.tls.as_ref() else { continue };
            for name in tls::secret_names(tls) {
                let may_have = match place(&name, own) {
                    Some(Place::Kubernetes(key)) => key.namespace == *own,
                    Some(Place::KubernetesGateway(key)) => key.namespace == *own && bound.gateway.namespace == *own,
                    Some(Place::ConfigMap(_)) => true,
                    None => false,
                };
                if may_have {
                    names.insert(name.into());
                }
            }
        }
        let build = |name| (*view.get(&SecretResource { name, namespace: own.clone() })).clone();
        names.into_iter().filter_map(build).collect()
    }
}

/// A secret by its resource name, as a proxy of that namespace means it. Who may have it is for the asker to know.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct SecretResource {
    pub(crate) name: Name,
    pub(crate) namespace: Name,
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
