//! Which object of the user stands behind a resource.
//!
//! Builders leave it in `filter_metadata.istio`: `config` in Istio's form
//! `/apis/networking.istio.io/v1/namespaces/NS/virtual-service/NAME`, and `path`, the field inside the object. Where there
//! is none, the names of clusters and virtual hosts still tell the service. Nothing here may be guessed beyond that.

use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use serde::{Deserialize, Serialize};
use std::fmt;

/// An object of the user and the field inside that mattered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectAt {
    /// Kind, e.g. `VirtualService`.
    pub kind: String,
    /// Namespace, empty when it is not known.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Field path, e.g. `spec.http[0]`; empty for the whole object.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub path: String,
}

impl fmt::Display for ObjectAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)?;
        if self.path.is_empty() { Ok(()) } else { write!(f, " {}", self.path) }
    }
}

fn istio(metadata: Option<&Metadata>) -> Option<&Struct> {
    metadata?.filter_metadata.get("istio")
}

fn text<'a>(fields: &'a Struct, key: &str) -> Option<&'a str> {
    match fields.fields.get(key)?.kind.as_ref()? {
        Kind::StringValue(s) => Some(s),
        _ => None,
    }
}

/// The object that a builder named in the metadata.
pub(super) fn written(metadata: Option<&Metadata>) -> Option<ObjectAt> {
    let fields = istio(metadata)?;
    let mut object = parse(text(fields, "config")?)?;
    object.path = text(fields, "path").unwrap_or_default().to_owned();
    Some(object)
}

/// `/apis/GROUP/VERSION/namespaces/NS/virtual-service/NAME`.
fn parse(config: &str) -> Option<ObjectAt> {
    let mut parts = config.split('/').skip_while(|p| *p != "namespaces").skip(1);
    let (namespace, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
    Some(ObjectAt { kind: camel(kind), namespace: namespace.to_owned(), name: name.to_owned(), path: String::new() })
}

fn camel(kebab: &str) -> String {
    let word = |w: &str| match w {
        "http" | "grpc" | "tcp" | "tls" | "udp" => w.to_uppercase(),
        _ => {
            let mut chars = w.chars();
            chars.next().map(|first| first.to_uppercase().chain(chars).collect::<String>()).unwrap_or_default()
        }
    };
    kebab.split('-').map(word).collect()
}

/// The parts of a cluster's name `direction|port|subset|host`.
pub(super) struct ClusterName<'a> {
    pub(super) port: &'a str,
    pub(super) subset: &'a str,
    pub(super) host: &'a str,
}

impl<'a> ClusterName<'a> {
    pub(super) fn parse(name: &'a str) -> Option<Self> {
        let mut parts = name.splitn(4, '|');
        let direction = parts.next()?;
        let (port, subset, host) = (parts.next()?, parts.next()?, parts.next()?);
        matches!(direction, "outbound" | "inbound" | "outbound_" | "inbound-vip").then_some(Self { port, subset, host })
    }
}

/// The service behind a cluster: as the metadata lists it, else as its name tells.
pub(super) fn service(name: &str, metadata: Option<&Metadata>) -> Option<ObjectAt> {
    let parsed = ClusterName::parse(name);
    let port = parsed.as_ref().map(|c| c.port).unwrap_or_default();
    let listed = istio(metadata).and_then(|fields| match fields.fields.get("services")?.kind.as_ref()? {
        Kind::ListValue(list) => list.values.first().cloned(),
        _ => None,
    });
    if let Some(Value { kind: Some(Kind::StructValue(first)) }) = &listed {
        let (host, name) = (text(first, "host").unwrap_or_default(), text(first, "name").unwrap_or_default());
        let known = host_object(host, port).filter(|o| o.kind == "Service").unwrap_or_else(|| ObjectAt {
            kind: "ServiceEntry".to_owned(),
            namespace: text(first, "namespace").unwrap_or_default().to_owned(),
            name: if name.is_empty() { host } else { name }.to_owned(),
            path: port_path(port),
        });
        return Some(known);
    }
    host_object(parsed?.host, port)
}

fn port_path(port: &str) -> String {
    if port.is_empty() { String::new() } else { format!("spec.ports[port={port}]") }
}

/// `reviews.default.svc.cluster.local` is the Service `default/reviews`; other hosts name no object.
pub(super) fn host_object(host: &str, port: &str) -> Option<ObjectAt> {
    let mut labels = host.split('.');
    let (name, namespace, svc) = (labels.next()?, labels.next()?, labels.next()?);
    (svc == "svc").then(|| ObjectAt {
        kind: "Service".to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        path: port_path(port),
    })
}

/// The policy behind a rule of an RBAC filter: `ns[NAMESPACE]-policy[NAME]-rule[INDEX]`, perhaps with more around it.
pub(super) fn policy_object(rule: &str) -> Option<ObjectAt> {
    let (_, rest) = rule.split_once("ns[")?;
    let (namespace, rest) = rest.split_once("]-policy[")?;
    let (name, rest) = rest.split_once("]-rule[")?;
    let (index, _) = rest.split_once(']')?;
    Some(ObjectAt {
        kind: "AuthorizationPolicy".to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        path: format!("spec.rules[{index}]"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_object() {
        let object = parse("/apis/networking.istio.io/v1/namespaces/bookinfo/virtual-service/reviews").unwrap();
        assert_eq!(object.to_string(), "VirtualService bookinfo/reviews");
        assert_eq!(parse("/apis/gateway.networking.k8s.io/v1/namespaces/a/http-route/b").unwrap().kind, "HTTPRoute");
        let service = service("outbound|9080|v1|reviews.bookinfo.svc.cluster.local", None).unwrap();
        assert_eq!(service.to_string(), "Service bookinfo/reviews spec.ports[port=9080]");
        let policy = policy_object("istio-ext-authz-p-ns[foo]-policy[a]-rule[2]").unwrap();
        assert_eq!(policy.to_string(), "AuthorizationPolicy foo/a spec.rules[2]");
        assert_eq!(policy_object("custom"), None);
        assert_eq!(super::service("PassthroughCluster", None), None);
        assert_eq!(super::service("outbound|443||api.example.com", None), None);
    }
}
