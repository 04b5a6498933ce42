//! Who asks: a proxy as its node says it is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use mesh_api::Name;
use serde::Deserialize;

use crate::model::{Labels, Locality};

/// What a proxy is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub enum ProxyType {
    /// Beside an application.
    #[default]
    Sidecar,
    /// A gateway.
    Router,
    /// A waypoint of an ambient mesh.
    Waypoint,
}

impl ProxyType {
    /// Istio's word in node ids.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Router => "router",
            Self::Waypoint => "waypoint",
        }
    }
    fn parse(text: &str) -> Option<Self> {
        [Self::Sidecar, Self::Router, Self::Waypoint].into_iter().find(|t| t.as_str() == text)
    }
}

/// A proxy, read from its xDS node or from the command line's proxy file.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub struct Proxy {
    /// Sidecar, gateway or waypoint.
    pub kind: ProxyType,
    /// `pod.namespace`.
    pub id: Name,
    /// Its addresses, the first being the primary one.
    pub ips: Vec<IpAddr>,
    /// Its namespace.
    pub namespace: Name,
    /// Its pod's labels.
    pub labels: Labels,
    /// `default.svc.cluster.local`.
    pub dns_domain: Name,
    /// `1.31.0`; empty when unknown.
    pub version: Name,
    /// Its locality.
    pub locality: Locality,
    /// Its cluster; empty means the control plane's own.
    pub cluster_id: Name,
    /// Its network; empty for the default one.
    pub network: Name,
    /// Metadata that consists of plain text, numbers and booleans, by key.
    pub metadata: BTreeMap<Name, Name>,
}

/// Why a node is no proxy of ours. All of these are the client's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The id has another form.
    #[error("node id {0:?} is not of the form type~ip~name.namespace~domain; check the proxy's --service-node")]
    Id(String),
    /// The type is unknown.
    #[error("node type {0:?} is none of sidecar, router, waypoint")]
    Type(String),
    /// The address does not parse.
    #[error("node address {0:?} is not an IP address")]
    Address(String),
}

impl Proxy {
    /// A sidecar with nothing known but its namespace and address; fill in what matters.
    pub fn sidecar(id: impl Into<Name>, namespace: impl Into<Name>, ip: IpAddr) -> Self {
        let namespace = namespace.into();
        Self {
            kind: ProxyType::Sidecar,
            id: id.into(),
            ips: vec![ip],
            dns_domain: format!("{namespace}.svc.cluster.local").into(),
            namespace,
            labels: Labels::new(),
            version: Name::default(),
            locality: Locality::default(),
            cluster_id: Name::default(),
            network: Name::default(),
            metadata: BTreeMap::new(),
        }
    }

    /// Reads an xDS node: id `type~ip~pod.namespace~domain` and pilot-agent's metadata.
    ///
    /// # Errors
    /// When the id has another form, or names no address or type of ours.
    pub fn from_node(node: &Node) -> Result<Self, NodeError> {
        let parts: Vec<&str> = node.id.split('~').collect();
        let [kind, ip, id, domain] = parts.as_slice() else { return Err(NodeError::Id(node.id.clone())) };
        let kind = ProxyType::parse(kind).ok_or_else(|| NodeError::Type((*kind).to_owned()))?;
        let metadata = node.metadata.as_ref();
        let mut ips = Vec::new();
        for ip in std::iter::once(*ip).chain(text(metadata, "INSTANCE_IPS").unwrap_or_default().split(',')) {
            if !ip.is_empty() {
                let ip: IpAddr = ip.trim().parse().map_err(|_| NodeError::Address(ip.to_owned()))?;
                if !ips.contains(&ip) {
                    ips.push(ip);
                }
            }
        }
        let (_, id_namespace) = id.rsplit_once('.').unwrap_or((id, ""));
        let namespace = text(metadata, "NAMESPACE").filter(|ns| !ns.is_empty()).unwrap_or(id_namespace);
        let labels = match field(metadata, "LABELS") {
            Some(Kind::StructValue(labels)) => scalars(Some(labels)),
            _ => Labels::new(),
        };
        let locality = match &node.locality {
            Some(l) => Locality {
                region: l.region.as_str().into(),
                zone: l.zone.as_str().into(),
                subzone: l.sub_zone.as_str().into(),
            },
            None => Locality::default(),
        };
        Ok(Self {
            kind,
            id: Name::from(*id),
            ips,
            namespace: namespace.into(),
            labels,
            dns_domain: Name::from(*domain),
            version: text(metadata, "ISTIO_VERSION").unwrap_or_default().into(),
            locality,
            cluster_id: text(metadata, "CLUSTER_ID").unwrap_or_default().into(),
            network: text(metadata, "NETWORK").unwrap_or_default().into(),
            metadata: scalars(metadata),
        })
    }

    /// Reads the command line's proxy file (`P.json` of the contract).
    ///
    /// # Errors
    /// When the text is not such a file; the error names the line.
    pub fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        let file: ProxyFile = serde_json::from_str(json)?;
        let labels = if file.labels.is_empty() {
            match file.metadata.get("LABELS") {
                Some(serde_json::Value::Object(labels)) => plain(labels),
                _ => Labels::new(),
            }
        } else {
            file.labels.iter().map(|(k, v)| (Name::from(k.as_str()), Name::from(v.as_str()))).collect()
        };
        let metadata = plain(&file.metadata);
        let of = |key: &str| metadata.get(key).cloned().unwrap_or_default();
        Ok(Self {
            kind: file.kind,
            id: file.id.as_str().into(),
            ips: file.ips,
            namespace: file.namespace.as_str().into(),
            labels,
            dns_domain: if file.dns_domain.is_empty() {
                format!("{}.svc.cluster.local", file.namespace).into()
            } else {
                file.dns_domain.as_str().into()
            },
            version: file.istio_version.as_str().into(),
            locality: Locality::parse(&file.locality),
            cluster_id: of("CLUSTER_ID"),
            network: of("NETWORK"),
            metadata,
        })
    }

    /// A metadata entry, empty when absent.
    pub fn metadata(&self, key: &str) -> &str {
        self.metadata.get(key).map_or("", Name::as_str)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ProxyFile {
    #[serde(rename = "type", default)]
    kind: ProxyType,
    id: String,
    #[serde(default)]
    ips: Vec<IpAddr>,
    namespace: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    metadata: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    dns_domain: String,
    #[serde(default)]
    istio_version: String,
    #[serde(default)]
    locality: String,
}

impl<'de> Deserialize<'de> for ProxyType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::unknown_variant(&text, &["sidecar", "router", "waypoint"]))
    }
}

fn plain(map: &serde_json::Map<String, serde_json::Value>) -> BTreeMap<Name, Name> {
    map.iter()
        .filter_map(|(k, v)| {
            let text: Name = match v {
                serde_json::Value::String(s) => s.as_str().into(),
                serde_json::Value::Number(n) => n.to_string().into(),
                serde_json::Value::Bool(b) => b.to_string().into(),
                _ => return None,
            };
            Some((Name::from(k.as_str()), text))
        })
        .collect()
}

fn field<'a>(metadata: Option<&'a Struct>, key: &str) -> Option<&'a Kind> {
    metadata?.fields.get(key)?.kind.as_ref()
}

fn text<'a>(metadata: Option<&'a Struct>, key: &str) -> Option<&'a str> {
    match field(metadata, key)? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

fn scalars(metadata: Option<&Struct>) -> BTreeMap<Name, Name> {
    let scalar = |value: &Value| -> Option<Name> {
        match value.kind.as_ref()? {
            Kind::StringValue(s) => Some(s.as_str().into()),
            Kind::BoolValue(b) => Some(b.to_string().into()),
            Kind::NumberValue(n) => Some(n.to_string().into()),
            _ => None,
        }
    };
    metadata
        .into_iter()
        .flat_map(|m| m.fields.iter())
        .filter_map(|(k, v)| Some((Name::from(k.as_str()), scalar(v)?)))
        .collect()
}
