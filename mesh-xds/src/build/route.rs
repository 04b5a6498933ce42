//! From the rules of a VirtualService to Envoy routes.
//!
//! A rule becomes one route for each of its matches that can hold for this proxy and port; matches on what the proxy *is*
//! (its labels, its namespace, its gateways, the port that it listens on) are decided here and never sent. Sidecars and
//! gateways share all of it. Nothing here fails: what Envoy would refuse was set aside when the rule was lowered.

mod action;
mod encoded;
mod filters;
mod headers;
pub mod l4;
mod matches;
pub mod retry;

use envoy_types::pb::envoy::config::core::v3::Metadata;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::{ClusterSpecifier, HashPolicy, MaxStreamDuration};
use envoy_types::pb::envoy::config::route::v3::{Decorator, Route, RouteAction};
use envoy_types::pb::google::protobuf::{Duration, Struct, Value, value::Kind};
use mesh_api::{Hostname, Name};

use crate::build::cluster::hash_policy;
use crate::model::Labels;
use crate::model::destination_rule::{HashKey, Origin};
use crate::model::virtual_service::{Destination, HttpMatch, Retries, Semantics, Source, VirtualService};

pub use encoded::{EncodedRoutes, http_routes};
pub(crate) use matches::is_claim;
pub use matches::string_matcher;

/// The name of routes that no VirtualService asked for.
pub const DEFAULT_ROUTE: &str = "default";

/// The limit that a route configuration must set for direct responses (`max_direct_response_body_size_bytes`).
pub const MAX_DIRECT_RESPONSE_BODY: u32 = 1024 * 1024;

/// The cluster of a destination without a host: a Gateway API backend that doesn't exist.
const UNKNOWN_SERVICE: &str = "UnknownService";

/// What a route needs to know of the services that it leads to.
pub trait Lookup {
    /// The service of that host, when the proxy sees one.
    fn service(&self, host: &Hostname) -> Option<Target>;
    /// What requests to the destination are hashed by, where its rules ask for that and it is called on this port.
    fn hash_key(&self, destination: &Destination, called: u16) -> Option<HashKey>;
}

/// A service as the target of a route.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Target {
    /// The host of its clusters: another one than asked for when the service is an alias (`ExternalName`).
    pub host: Hostname,
    /// Its port, when it has just one.
    pub only_port: Option<u16>,
}

/// The place that routes are built for.
#[derive(Clone, Copy)]
pub struct RouteContext<'a> {
    /// The namespace of the proxy.
    pub namespace: &'a Name,
    /// The labels of the proxy.
    pub labels: &'a Labels,
    /// The gateways in force: `mesh` for a sidecar, else `namespace/name`.
    pub gateways: &'a [Name],
    /// The port that clients call.
    pub port: u16,
    /// True where TLS is terminated.
    pub tls: bool,
    /// `defaultHttpRetryPolicy` of the mesh; `None` when not said.
    pub default_retries: Option<&'a Retries>,
    /// Whether a changed authority is told in `X-Forwarded-Host`.
    pub append_x_forwarded_host: bool,
    /// The services.
    pub lookup: &'a dyn Lookup,
}

impl RouteContext<'_> {
    /// The cluster that a destination means when called on this port.
    pub fn cluster(&self, destination: &Destination) -> String {
        cluster_of(destination, self.lookup.service(&destination.host).as_ref(), self.port)
    }

    /// How requests to a destination are hashed when called on this port.
    fn hash_policy(&self, destination: &Destination) -> Option<HashPolicy> {
        hash_policy(&self.lookup.hash_key(destination, self.port)?)
    }

    /// True when an HTTP match may hold for this proxy and port. As in Istio, named gateways count instead of labels and
    /// namespace.
    fn admits_http(&self, m: &HttpMatch) -> bool {
        let source = &m.source;
        m.port.is_none_or(|port| port == self.port)
            && if source.gateways.is_empty() { self.admits_workload(source) } else { self.admits_gateways(source) }
    }
    fn admits_workload(&self, source: &Source) -> bool {
        crate::model::selects(&source.labels, self.labels)
            && (source.namespace.is_empty() || source.namespace == *self.namespace)
    }
    fn admits_gateways(&self, source: &Source) -> bool {
        source.gateways.iter().any(|g| self.gateways.contains(g))
    }
}

/// `outbound|port|subset|host`: the port asked for, else the only one of the service, else the one that was called.
pub fn cluster_of(destination: &Destination, service: Option<&Target>, called: u16) -> String {
    if destination.host.as_str().is_empty() {
        return UNKNOWN_SERVICE.to_owned();
    }
    let host = service.map_or(&destination.host, |s| &s.host);
    let port = destination.port.or_else(|| service.and_then(|s| s.only_port)).unwrap_or(called);
    format!("outbound|{port}|{}|{host}", destination.subset)
}

/// The route to a service that no VirtualService speaks of. `operation` is `host:port/*`.
pub fn default_route(cluster: &str, operation: &str, retries: Option<&Retries>, hash: Option<HashPolicy>) -> Route {
    let mut action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        retry_policy: retry::outbound(retries, false),
        hash_policy: hash.into_iter().collect(),
        ..RouteAction::default()
    };
    action::set_timeout(&mut action, None);
    plain_route(operation, action)
}

/// The route of an inbound port to its cluster: no timeouts, and retries only where the request can't have been seen.
pub fn inbound_route(cluster: &str, operation: &str, grpc: bool, retries: Option<&Retries>) -> Route {
    let none = Some(Duration::default());
    let action = RouteAction {
        cluster_specifier: Some(ClusterSpecifier::Cluster(cluster.to_owned())),
        timeout: none,
        max_stream_duration: Some(MaxStreamDuration {
            max_stream_duration: none,
            grpc_timeout_header_max: none,
            ..MaxStreamDuration::default()
        }),
        retry_policy: if grpc { None } else { retry::inbound(retries) },
        ..RouteAction::default()
    };
    plain_route(operation, action)
}

fn plain_route(operation: &str, action: RouteAction) -> Route {
    Route {
        name: DEFAULT_ROUTE.to_owned(),
        r#match: Some(matches::route_match(None, Semantics::Istio)),
        decorator: Some(Decorator { operation: operation.to_owned(), propagate: None }),
        action: Some(Action::Route(action)),
        ..Route::default()
    }
}

/// An object of `networking.istio.io` as Istio names it in metadata.
fn config_path(kind: &str, namespace: &str, name: &str) -> String {
    format!("/apis/networking.istio.io/v1/namespaces/{namespace}/{kind}/{name}")
}

/// Istio's mark of the VirtualService behind a filter chain, and the path of the rule in it.
pub fn vs_metadata(vs: &VirtualService, path: &str) -> Metadata {
    config_metadata("virtual-service", &vs.namespace, &vs.name, path)
}

/// `filter_metadata.istio.config` names an object of `networking.istio.io` as Istio does; `path` is the field in it.
pub fn config_metadata(kind: &str, namespace: &str, name: &str, path: &str) -> Metadata {
    named(config_path(kind, namespace, name), path)
}

/// The same mark for the kinds that stand behind inbound connections.
pub fn origin_metadata(origin: &Origin) -> Metadata {
    let (group, kind) = match origin.object.kind.as_str() {
        "PeerAuthentication" => ("apis/security.istio.io", "peer-authentication"),
        "Service" => ("api", "service"),
        "ServiceEntry" => ("apis/networking.istio.io", "service-entry"),
        _ => ("apis/networking.istio.io", "sidecar"),
    };
    let (namespace, name) = (&origin.object.namespace, &origin.object.name);
    named(format!("/{group}/v1/namespaces/{namespace}/{kind}/{name}"), origin.path.as_str())
}

fn named(config: String, path: &str) -> Metadata {
    let text = |t: String| Value { kind: Some(Kind::StringValue(t)) };
    let mut fields = std::collections::HashMap::from([("config".to_owned(), text(config))]);
    if !path.is_empty() {
        fields.insert("path".to_owned(), text(path.to_owned()));
    }
    Metadata { filter_metadata: [("istio".to_owned(), Struct { fields })].into(), ..Metadata::default() }
}

#[cfg(test)]
mod tests;
