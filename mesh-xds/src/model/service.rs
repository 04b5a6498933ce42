//! Services as meant: one row per defining object and host.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use mesh_api::{Hostname, Name, ObjectRef};

use super::{HostKey, Labels, Visibility};

/// A service as one object defines it: a Kubernetes Service, or one host of a ServiceEntry.
#[derive(Clone, PartialEq, Debug)]
pub struct Service {
    /// The fully qualified host, or a wildcard host of a ServiceEntry.
    pub hostname: Hostname,
    /// The namespace of the defining object.
    pub namespace: Name,
    /// `metadata.name` of a Kubernetes Service; for a ServiceEntry its host.
    pub name: Name,
    /// The defining object.
    pub source: ObjectRef,
    /// Where it comes from.
    pub registry: Registry,
    /// `metadata.creationTimestamp` in seconds; ages decide conflicts, an unknown age is the oldest.
    pub created: i64,
    /// Virtual IPs (or CIDRs of a ServiceEntry); empty for headless services and for hosts without an address.
    pub addresses: Vec<Name>,
    /// In the order of the object.
    pub ports: Vec<Port>,
    /// How a client finds endpoints.
    pub resolution: Resolution,
    /// `location: MESH_EXTERNAL`, and ExternalName services.
    pub mesh_external: bool,
    /// `exportTo`, or the annotation `networking.istio.io/exportTo`.
    pub export_to: Visibility,
    /// Pods behind a Kubernetes Service, or `workloadSelector` of a ServiceEntry; empty means none.
    pub selector: Labels,
    /// Endpoints are sent before they are ready.
    pub publish_not_ready: bool,
    /// `internalTrafficPolicy: Local`.
    pub node_local: bool,
    /// `spec.trafficDistribution`, or its annotation.
    pub traffic_distribution: Option<Name>,
    /// Extra subject names that its certificates may bear.
    pub subject_alt_names: Vec<Name>,
    /// Accounts of its namespace that serve it, besides those of its endpoints.
    pub service_accounts: Vec<Name>,
    /// The object's labels, for metadata and for selecting by label.
    pub labels: Labels,
}

impl Service {
    /// What clients know it by.
    pub fn key(&self) -> HostKey {
        HostKey { host: self.hostname.clone(), namespace: self.namespace.clone() }
    }
    /// The port of that number.
    pub fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|p| p.number == number)
    }
    /// The port of that name.
    pub fn port_by_name(&self, name: &str) -> Option<&Port> {
        self.ports.iter().find(|p| p.name == name)
    }
    /// Kubernetes: no cluster IP. Clients then connect to pods directly.
    pub fn is_headless(&self) -> bool {
        self.registry == Registry::Kubernetes && self.addresses.is_empty() && self.resolution == Resolution::Passthrough
    }
    /// The alias target of an ExternalName service.
    pub fn alias(&self) -> Option<&Hostname> {
        match &self.resolution {
            Resolution::Alias(host) => Some(host),
            _ => None,
        }
    }
    /// Addresses that are plain IPs (a ServiceEntry may also list CIDRs).
    pub fn ips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().filter_map(|a| a.parse().ok())
    }
    /// Istio's order wherever objects compete: older first, then namespace, then name.
    pub fn age_order(&self) -> (i64, &Name, &Name) {
        (self.created, &self.namespace, &self.source.name)
    }
}

/// Where a service comes from. Kubernetes wins where a host is ambiguous.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Registry {
    /// A Kubernetes Service.
    Kubernetes,
    /// A ServiceEntry.
    External,
}

/// How a client finds the endpoints of a service.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Resolution {
    /// The control plane knows the endpoints (EDS).
    ClientSideLb,
    /// Envoy resolves each endpoint's name and balances over all answers.
    DnsLb,
    /// Envoy resolves one name and uses one answer at a time.
    DnsRoundRobinLb,
    /// Envoy resolves whatever host a request names (wildcard hosts).
    DynamicDns,
    /// To where the client was going anyway.
    Passthrough,
    /// Another name of that host (ExternalName).
    Alias(Hostname),
}

/// One port of a service.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Port {
    /// 1 to 65535.
    pub number: u16,
    /// Unique in the service; may be empty when there is just one port.
    pub name: Name,
    /// By port name or `appProtocol`; [`Protocol::Unsupported`] means that Envoy sniffs.
    pub protocol: Protocol,
    /// Where the workload listens.
    pub target: TargetPort,
}

/// Where the workload listens.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum TargetPort {
    /// On this port.
    Number(u16),
    /// On its container port of this name.
    Named(Name),
}

/// What is spoken on a port, Istio's `protocol.Instance`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[allow(missing_docs)]
pub enum Protocol {
    Tcp,
    Udp,
    Http,
    Http2,
    HttpProxy,
    Grpc,
    GrpcWeb,
    Https,
    Tls,
    Mongo,
    Redis,
    MySql,
    /// Not said: HTTP or bytes, as the connection shows.
    Unsupported,
}

impl Protocol {
    /// Reads a protocol name; unknown ones are [`Protocol::Unsupported`].
    pub fn parse(text: &str) -> Self {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Self::Tcp,
            "udp" => Self::Udp,
            "grpc" => Self::Grpc,
            "grpc-web" => Self::GrpcWeb,
            "http" => Self::Http,
            "http_proxy" => Self::HttpProxy,
            "http2" => Self::Http2,
            "https" => Self::Https,
            "tls" => Self::Tls,
            "mongo" => Self::Mongo,
            "redis" => Self::Redis,
            "mysql" => Self::MySql,
            _ => Self::Unsupported,
        }
    }

    /// The protocol of a Kubernetes Service port: `appProtocol`, else the prefix of the port's name, else sniffing,
    /// but bytes on ports where the server speaks first (SMTP, DNS, MySQL, MongoDB).
    pub fn of_port(number: u16, name: &str, transport: Option<&str>, app_protocol: Option<&str>) -> Self {
        if transport == Some("UDP") {
            return Self::Udp;
        }
        match app_protocol {
            Some("kubernetes.io/h2c") => return Self::Http2,
            Some("kubernetes.io/ws") => return Self::Http,
            Some("kubernetes.io/wss") => return Self::Https,
            _ => {}
        }
        let name = app_protocol.unwrap_or(name);
        if name.get(..8).is_some_and(|prefix| prefix.eq_ignore_ascii_case("grpc-web")) {
            return Self::GrpcWeb;
        }
        match Self::parse(name.split('-').next().unwrap_or(name)) {
            Self::Unsupported if matches!(number, 25 | 53 | 3306 | 27017) => Self::Tcp,
            protocol => protocol,
        }
    }

    /// HTTP of any version in plaintext.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::HttpProxy | Self::Grpc | Self::GrpcWeb)
    }
    /// HTTP/2 prior knowledge.
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }
    /// Bytes.
    pub fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp | Self::Https | Self::Tls | Self::Mongo | Self::Redis | Self::MySql)
    }
    /// TLS that is not terminated here.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Tls)
    }
    /// Envoy decides by looking at the first bytes.
    pub fn is_sniffed(self) -> bool {
        self == Self::Unsupported
    }
    /// HTTP, or perhaps HTTP.
    pub fn is_http_or_sniffed(self) -> bool {
        self.is_http() || self.is_sniffed()
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Http => "HTTP",
            Self::Http2 => "HTTP2",
            Self::HttpProxy => "HTTP_PROXY",
            Self::Grpc => "GRPC",
            Self::GrpcWeb => "GRPC-Web",
            Self::Https => "HTTPS",
            Self::Tls => "TLS",
            Self::Mongo => "Mongo",
            Self::Redis => "Redis",
            Self::MySql => "MySQL",
            Self::Unsupported => "UnsupportedProtocol",
        })
    }
}

/// Labels as `BTreeMap<String, String>` become shared names.
pub(crate) fn labels(from: Option<&BTreeMap<String, String>>) -> Labels {
    from.into_iter().flatten().map(|(k, v)| (Name::from(k.as_str()), Name::from(v.as_str()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_selection_follows_names_and_app_protocol() {
        for (number, name, transport, app, want) in [
            (80, "http", None, None, Protocol::Http),
            (80, "http-web", Some("TCP"), None, Protocol::Http),
            (80, "HTTP2-x", None, None, Protocol::Http2),
            (80, "grpc-web-x", None, None, Protocol::GrpcWeb),
            (80, "web", None, None, Protocol::Unsupported),
            (3306, "web", None, None, Protocol::Tcp),
            (3306, "http", None, None, Protocol::Http),
            (80, "http", Some("UDP"), None, Protocol::Udp),
            (80, "tcp", None, Some("kubernetes.io/h2c"), Protocol::Http2),
            (80, "tcp", None, Some("https"), Protocol::Https),
        ] {
            assert_eq!(Protocol::of_port(number, name, transport, app), want, "{number} {name} {app:?}");
        }
    }
}
