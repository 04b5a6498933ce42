//! Why a request goes where it goes, read off the resources that an Envoy would have.
//!
//! The evaluation follows Envoy's rules on plain Envoy messages and knows nothing of how they were built: so it can judge
//! our own builders, and a wrong builder cannot explain itself away. Which object of the user stands behind a step
//! is read from the resource's metadata, where builders leave it in Istio's form, or from its name.
//!
//! It is a pure function of resources and request. It must never look at the model, and never guess what is not in the
//! resources: what cannot be known beforehand (which of the weighted clusters, runtime fractions) is listed instead.

mod authz;
mod cluster;
mod connection;
mod matching;
mod origin;
mod render;
mod route;
#[cfg(test)]
#[cfg(feature = "json")] // the tests write resources as JSON
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use serde::{Deserialize, Serialize};

use crate::{ResourceSet, TypeUrl};
pub use origin::ObjectAt;
pub use render::render;

/// What an Envoy was sent, decoded.
#[derive(Debug, Clone, Default)]
pub struct Resources {
    /// LDS.
    pub listeners: Vec<Listener>,
    /// CDS.
    pub clusters: Vec<Cluster>,
    /// RDS.
    pub routes: Vec<RouteConfiguration>,
    /// EDS.
    pub endpoints: Vec<ClusterLoadAssignment>,
}

impl Resources {
    /// Decodes built resources; sets of other types are passed over.
    ///
    /// # Errors
    /// When a resource is not of its type, which is a fault of a builder.
    pub fn decode(sets: &[(TypeUrl, ResourceSet)]) -> Result<Self, prost::DecodeError> {
        fn all<M: prost::Message + Default>(set: &ResourceSet) -> Result<Vec<M>, prost::DecodeError> {
            set.iter().map(|r| r.decode()).collect()
        }
        let mut out = Self::default();
        for (type_url, set) in sets {
            match type_url {
                TypeUrl::Listener => out.listeners = all(set)?,
                TypeUrl::Cluster => out.clusters = all(set)?,
                TypeUrl::Route => out.routes = all(set)?,
                TypeUrl::Endpoint => out.endpoints = all(set)?,
                TypeUrl::Secret | TypeUrl::ExtensionConfig | TypeUrl::NameTable | TypeUrl::ProxyConfig => {}
            }
        }
        Ok(out)
    }
}

/// How the connection reaches the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The workload calls out; the connection was redirected to 15001 unless a listener has its address.
    #[default]
    Outbound,
    /// Someone calls the workload; the connection was redirected to 15006.
    Inbound,
    /// Someone calls a gateway: no redirection.
    Gateway,
}

/// What is spoken on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.1 in plaintext.
    #[default]
    Http,
    /// HTTP/2 in plaintext.
    Http2,
    /// Bytes in plaintext.
    Tcp,
    /// TLS without a client certificate: HTTP inside if the ALPN is `h2` or `http/1.1`, else bytes.
    Tls,
    /// HTTP over the mesh's mutual TLS.
    MtlsHttp,
    /// Bytes over the mesh's mutual TLS.
    MtlsTcp,
}

/// A request, or a connection if no HTTP is spoken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Request {
    /// How it reaches the proxy.
    pub direction: Direction,
    /// The original destination.
    pub address: IpAddr,
    /// The original destination port.
    pub port: u16,
    /// What is spoken.
    pub protocol: Protocol,
    /// The `Host` header (`:authority`), with or without a port.
    pub host: String,
    /// Path and query.
    pub path: String,
    /// HTTP method.
    pub method: String,
    /// Other headers; names in any letter case.
    pub headers: BTreeMap<String, String>,
    /// TLS server name; absent means the host.
    pub sni: Option<String>,
    /// TLS application protocol; absent or empty means the usual one for mutual TLS, none for TLS.
    pub alpn: String,
    /// Identity of the client, `spiffe://…` or without the scheme.
    pub source_principal: String,
    /// Address of the client, empty when it does not matter.
    pub source_ip: String,
    /// The SDS secret that counts as mesh identity on the filter chain; empty means `default`.
    pub mtls_secret: String,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            direction: Direction::default(),
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: 80,
            protocol: Protocol::default(),
            host: String::new(),
            path: "/".to_owned(),
            method: "GET".to_owned(),
            headers: BTreeMap::new(),
            sni: None,
            alpn: String::new(),
            source_principal: String::new(),
            source_ip: String::new(),
            mtls_secret: String::new(),
        }
    }
}

/// Why a request ends at the proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// Nothing listens there and there is no `virtualOutbound`.
    NoListener,
    /// No filter chain matches and there is no default one.
    NoFilterChain,
    /// More than one filter chain matches equally well.
    MultipleFilterChains,
    /// Plaintext to a chain that terminates TLS.
    TlsError,
    /// TLS without client certificate to a mesh mTLS chain, or mesh mTLS to a chain that terminates other TLS.
    MtlsError,
    /// The chain speaks HTTP, the bytes do not.
    ProtocolError,
    /// No virtual host has the request's host, or the route configuration is missing.
    NoVirtualHost,
    /// The virtual host has no route for the request.
    NoRoute,
    /// The virtual host demands TLS of a plaintext request.
    TlsRedirect,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoListener => "no_listener",
            Self::NoFilterChain => "no_filter_chain",
            Self::MultipleFilterChains => "multiple_filter_chains",
            Self::TlsError => "tls_error",
            Self::MtlsError => "mtls_error",
            Self::ProtocolError => "protocol_error",
            Self::NoVirtualHost => "no_virtual_host",
            Self::NoRoute => "no_route",
            Self::TlsRedirect => "tls_redirect",
        })
    }
}

/// The TLS that a filter chain terminates.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// The first SDS secret of the chain.
    pub secret: String,
    /// Whether the client must show a certificate.
    pub require_client_certificate: bool,
}

/// The TLS with which the proxy calls on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamTls {
    /// Name of the transport socket, or of the transport socket match that the endpoints select.
    pub transport_socket: String,
    /// SDS secret shown as client certificate.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub secret: String,
    /// Server name sent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sni: String,
    /// Application protocols offered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alpn: Vec<String>,
}

/// One of several clusters that a route chooses from by chance, or a mirror.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Share {
    /// Name of the cluster.
    pub cluster: String,
    /// Percent of requests, 0 to 100.
    pub percent: f64,
}

/// Where a cluster's traffic may go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// The cluster that it belongs to.
    pub cluster: String,
    /// `address:port`, a socket path, or the name of an internal listener.
    pub address: String,
    /// Weight among its locality's endpoints.
    pub weight: u32,
    /// `healthy`, `degraded`, `draining`, `unhealthy` or `timeout`.
    pub health: String,
    /// `region/zone/subzone`, empty when unknown.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub locality: String,
    /// Failover priority, 0 first.
    pub priority: u32,
}

/// An answer that the proxy gives itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnAnswer {
    /// HTTP status.
    pub status: u32,
    /// Where a redirect points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// The body of a direct response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

/// What the RBAC filters say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Authz {
    /// Whether the request may pass all of them.
    pub allowed: bool,
    /// The policy that decided, empty when none matched.
    pub policy: String,
    /// Whether an external authorizer is asked besides.
    pub asks_external: bool,
}

/// One decision on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// What was decided: `listener`, `filterChain`, `tls`, `authz`, `routeConfig`, `virtualHost`, `route`, `cluster`,
    /// `trafficPolicy`, `endpoint`.
    pub step: String,
    /// The name of what was chosen.
    pub name: String,
    /// The reason, in words.
    pub because: String,
    /// The user's object behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<ObjectAt>,
}

/// The way of one request.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Explanation {
    /// Why it ends at the proxy, if it does.
    pub error: Option<ErrorKind>,
    /// Name of the listener.
    pub listener: Option<String>,
    /// Name of the filter chain.
    pub filter_chain: Option<String>,
    /// The TLS that the chain terminates.
    pub tls: Option<Tls>,
    /// Verdict of the authorization filters, absent when there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authz: Option<Authz>,
    /// The RDS name, absent for inline routes.
    pub route_config: Option<String>,
    /// Name of the virtual host.
    pub virtual_host: Option<String>,
    /// Name of the route.
    pub route: Option<String>,
    /// The cluster, when there is one and no choice by chance.
    pub cluster: Option<String>,
    /// The clusters, when there is a choice by chance.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub weighted_clusters: Vec<Share>,
    /// Clusters that get a copy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<Share>,
    /// A redirect or direct response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<OwnAnswer>,
    /// The TLS with which the proxy calls on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_tls: Option<UpstreamTls>,
    /// Endpoints of the cluster or clusters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Endpoint>,
    /// The decisions, in order.
    pub steps: Vec<Step>,
}

impl Explanation {
    fn step(&mut self, step: &str, name: &str, because: impl Into<String>, object: Option<ObjectAt>) {
        self.steps.push(Step { step: step.to_owned(), name: name.to_owned(), because: because.into(), object });
    }
    fn fail(&mut self, error: ErrorKind, step: &str, because: impl Into<String>) {
        self.error = Some(error);
        self.step(step, &error.to_string(), because, None);
    }
}

/// Follows a request through the resources.
///
/// ```
/// use mesh_xds::explain::{ErrorKind, Request, Resources, explain};
/// let nobody_listens = explain(&Resources::default(), &Request::default());
/// assert_eq!(nobody_listens.error, Some(ErrorKind::NoListener));
/// ```
pub fn explain(resources: &Resources, request: &Request) -> Explanation {
    let mut out = Explanation::default();
    if let Some(chain) = connection::accept(resources, request, &mut out) {
        authz::judge_network(chain.filters, request, &mut out);
        match &chain.terminal {
            connection::Terminal::Http(hcm) => route::follow(resources, request, hcm, &mut out),
            connection::Terminal::Tcp(proxy) => cluster::forward_tcp(resources, request, proxy, &mut out),
            connection::Terminal::None => {
                let why = "the filter chain ends in neither an HTTP connection manager nor a TCP proxy";
                out.step("filterChain", &chain.name, why, None);
            }
        }
    }
    out
}

impl Request {
    fn is_tls(&self) -> bool {
        matches!(self.protocol, Protocol::Tls | Protocol::MtlsHttp | Protocol::MtlsTcp)
    }
    fn is_mtls(&self) -> bool {
        matches!(self.protocol, Protocol::MtlsHttp | Protocol::MtlsTcp)
    }
    fn is_http(&self) -> bool {
        match self.protocol {
            Protocol::Http | Protocol::Http2 | Protocol::MtlsHttp => true,
            Protocol::Tcp | Protocol::MtlsTcp => false,
            Protocol::Tls => matches!(self.alpn.as_str(), "h2" | "http/1.1"),
        }
    }
    /// The header's value; pseudo-headers and `host` are computed. Names in lower case.
    fn header(&self, name: &str) -> Option<&str> {
        match name {
            ":authority" | "host" if !self.host.is_empty() => Some(&self.host),
            ":path" => Some(&self.path),
            ":method" => Some(&self.method),
            ":scheme" => Some(if self.is_tls() { "https" } else { "http" }),
            _ => self.headers.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()),
        }
    }
    fn authority(&self) -> &str {
        self.header(":authority").or_else(|| self.header("host")).unwrap_or_default()
    }
    /// The TLS server name, empty without TLS.
    fn server_name(&self) -> &str {
        match &self.sni {
            _ if !self.is_tls() => "",
            Some(sni) => sni,
            None => connection::host_without_port(&self.host),
        }
    }
    /// The client's identity as it stands in its certificate, `None` without mutual TLS.
    fn principal(&self) -> Option<String> {
        let scheme = if self.source_principal.starts_with("spiffe://") { "" } else { "spiffe://" };
        (self.is_mtls() && !self.source_principal.is_empty()).then(|| format!("{scheme}{}", self.source_principal))
    }
    fn path_only(&self) -> &str {
        self.path.split(['?', '#']).next().unwrap_or_default()
    }
}
