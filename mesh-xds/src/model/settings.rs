//! What holds for the whole mesh.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::Name;
use mesh_api::mesh::MeshConfig;

/// Mesh-wide settings: MeshConfig, and what istiod takes from flags and environment.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// MeshConfig with its defaults.
    pub mesh: Arc<MeshConfig>,
    /// The DNS domain of the cluster, `cluster.local`.
    pub domain: Name,
    /// The namespace of mesh-wide configuration, `istio-system`.
    pub root_namespace: Name,
    /// This cluster's name, `Kubernetes`.
    pub cluster_id: Name,
    /// Control-plane features by their istiod environment names.
    pub features: Features,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mesh: Arc::new(MeshConfig::default()),
            domain: "cluster.local".into(),
            root_namespace: "istio-system".into(),
            cluster_id: "Kubernetes".into(),
            features: Features::default(),
        }
    }
}

impl Settings {
    /// Where captured outbound connections arrive, usually 15001.
    pub fn outbound_port(&self) -> u16 {
        u16::try_from(self.mesh.proxy_listen_port).unwrap_or(15001)
    }
    /// Where captured inbound connections arrive, usually 15006.
    pub fn inbound_port(&self) -> u16 {
        u16::try_from(self.mesh.proxy_inbound_listen_port).unwrap_or(15006)
    }
    /// The port of the forward proxy, 0 for none.
    pub fn http_proxy_port(&self) -> u16 {
        u16::try_from(self.mesh.proxy_http_port).unwrap_or(0)
    }

    /// The mesh's own trust domain.
    pub fn trust_domain(&self) -> &str {
        match self.mesh.trust_domain.as_str() {
            "" => "cluster.local",
            domain => domain,
        }
    }

    /// The host of a Kubernetes Service: `name.namespace.svc.domain`.
    pub fn service_host(&self, name: &str, namespace: &str) -> mesh_api::Hostname {
        format!("{name}.{namespace}.svc.{}", self.domain).into()
    }

    /// Istio's `ResolveShortnameToFQDN`: a host without dots means the Service of that name in the object's namespace.
    pub fn resolve_short_name(&self, host: &str, namespace: &str) -> mesh_api::Hostname {
        if host == "*" || host.contains('.') || host.is_empty() {
            host.into()
        } else {
            self.service_host(host, namespace)
        }
    }
}

/// istiod's feature flags by their environment names. A flag that was not set has the default that its reader names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Features(BTreeMap<String, String>);

impl Features {
    /// Flags as set: `{"PILOT_ENABLE_IP_AUTOALLOCATE": "false"}`.
    pub fn new(set: BTreeMap<String, String>) -> Self {
        Self(set)
    }
    /// A boolean flag, as Go's `strconv.ParseBool` reads it; the default when unset or not a boolean.
    pub fn flag(&self, name: &str, default: bool) -> bool {
        self.0.get(name).and_then(|text| boolean(text)).unwrap_or(default)
    }
    /// A flag as text.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// A boolean as Go's `strconv.ParseBool` reads it.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}
