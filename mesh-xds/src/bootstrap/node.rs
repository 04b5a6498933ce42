//! Who the proxy is, as it tells the control plane: the node of the bootstrap. Names of metadata are pilot-agent's,
//! because the control plane, dashboards and EnvoyFilters read them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde_json::{Map, Value};

use super::ProxyConfig;

/// The Istio version that we are on a par with; the control plane decides features by it.
pub const ISTIO_VERSION: &str = "1.31.0";

/// What the proxy is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// Beside an application; its traffic is intercepted.
    Sidecar,
    /// A gateway; clients address it.
    Router,
    /// A gateway inside of an ambient mesh.
    Waypoint,
}

impl Role {
    /// The word in the node's id.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Router => "router",
            Self::Waypoint => "waypoint",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "sidecar" => Ok(Self::Sidecar),
            "router" => Ok(Self::Router),
            "waypoint" => Ok(Self::Waypoint),
            _ => Err(format!("{text:?} is no proxy type; use sidecar, router or waypoint")),
        }
    }
}

/// Envoy's node: id, cluster, locality and metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What the proxy is there for; the first part of the id.
    pub role: Role,
    /// The pod's addresses, the one it is known by first.
    pub ips: Vec<IpAddr>,
    /// `pod.namespace`.
    pub id: String,
    /// `namespace.svc.cluster.local`, where short host names are looked up.
    pub dns_domain: String,
    /// `region/zone/subzone`, any part may be missing.
    pub locality: String,
    /// `NAMESPACE`, `LABELS`, ... by Istio's names.
    pub metadata: Map<String, Value>,
}

impl Node {
    /// `type~ip~pod.namespace~domain`, as Envoy sends it.
    pub fn service_node(&self) -> String {
        let ip = self.ips.first().map(IpAddr::to_string).unwrap_or_default();
        format!("{}~{ip}~{}~{}", self.role, self.id, self.dns_domain)
    }

    /// Envoy's `node.cluster`: what ProxyConfig says, else the app and namespace.
    pub fn cluster(&self, config: &ProxyConfig) -> String {
        let text = |key: &str| self.metadata.get(key).and_then(Value::as_str).filter(|t| !t.is_empty());
        if !config.service_cluster.is_empty() && config.service_cluster != "istio-proxy" {
            return config.service_cluster.clone();
        }
        let label = |key: &str| self.metadata.get("LABELS")?.get(key)?.as_str();
        let name = label("app.kubernetes.io/name").or(label("app")).or(text("WORKLOAD_NAME"));
        match (name, text("NAMESPACE")) {
            (Some(name), namespace) => format!("{name}.{}", namespace.unwrap_or_default()),
            (None, Some(namespace)) => format!("istio-proxy.{namespace}"),
            (None, None) => "istio-proxy".into(),
        }
    }
}
