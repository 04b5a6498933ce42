//! From a cluster to its endpoints, and the TLS with which they are called.

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::core::v3::envoy_internal_address::AddressNameSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    Address, HealthStatus, Metadata, TransportSocket, address, socket_address, transport_socket,
};
use envoy_types::pb::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use envoy_types::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, LbEndpoint};
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;

use super::connection::unpack;
use super::origin::{ClusterName, service, written};
use super::{Endpoint, Explanation, Request, Resources, Share, UpstreamTls};

pub(super) fn forward_tcp(resources: &Resources, request: &Request, proxy: &TcpProxy, out: &mut Explanation) {
    match &proxy.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => forward(resources, request, name, out),
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            let weights = weighted.clusters.iter().map(|c| (c.name.as_str(), c.weight));
            forward_weighted(resources, request, weights.collect(), out);
        }
        None => out.step("cluster", "", "the TCP proxy names no cluster", None),
    }
}

/// One cluster, no choice.
pub(super) fn forward(resources: &Resources, request: &Request, name: &str, out: &mut Explanation) {
    out.cluster = Some(name.to_owned());
    into_cluster(resources, request, name, "the route leads there".to_owned(), out);
}

/// Several clusters: a choice by chance.
pub(super) fn forward_weighted(
    resources: &Resources,
    request: &Request,
    weights: Vec<(&str, u32)>,
    out: &mut Explanation,
) {
    let total: u64 = weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
    for (name, weight) in weights {
        let percent = if total == 0 { 0.0 } else { f64::from(weight) * 100.0 / total as f64 };
        out.weighted_clusters.push(Share { cluster: name.to_owned(), percent });
        into_cluster(resources, request, name, format!("{percent} % of requests"), out);
    }
}

fn into_cluster(resources: &Resources, request: &Request, name: &str, because: String, out: &mut Explanation) {
    let Some(cluster) = resources.clusters.iter().find(|c| c.name == name) else {
        let object = service(name, None);
        out.step("cluster", name, format!("{because}, but the proxy has no such cluster: Envoy answers 503"), object);
        return;
    };
    let metadata = cluster.metadata.as_ref();
    out.step("cluster", name, because, service(name, metadata));
    if let Some(policy) = written(metadata) {
        let subset = ClusterName::parse(name).map(|c| c.subset).filter(|s| !s.is_empty());
        let because = match subset {
            Some(subset) => format!("the cluster is its subset {subset}"),
            None => "the cluster follows its traffic policy".to_owned(),
        };
        out.step("trafficPolicy", name, because, Some(policy));
    }
    let (found, source) = endpoints(resources, request, cluster);
    if found.is_empty() {
        out.step("endpoint", name, format!("{source}: none, Envoy answers 503"), None);
    } else {
        let usable = found.iter().filter(|(e, _)| matches!(e.health.as_str(), "healthy" | "degraded")).count();
        out.step("endpoint", name, format!("{source}: {usable} of {} usable", found.len()), None);
    }
    if out.upstream_tls.is_none() {
        out.upstream_tls = upstream_tls(cluster, found.first().and_then(|(_, metadata)| metadata.as_ref()));
    }
    out.endpoints.extend(found.into_iter().map(|(endpoint, _)| endpoint));
}

type Found = Vec<(Endpoint, Option<Metadata>)>;

fn endpoints(resources: &Resources, request: &Request, cluster: &Cluster) -> (Found, &'static str) {
    let kind = match &cluster.cluster_discovery_type {
        Some(ClusterDiscoveryType::Type(t)) => DiscoveryType::try_from(*t).ok(),
        Some(ClusterDiscoveryType::ClusterType(t)) if t.name == "envoy.clusters.dns" => Some(DiscoveryType::StrictDns),
        Some(ClusterDiscoveryType::ClusterType(_)) => None,
        None => Some(DiscoveryType::Static),
    };
    let inline = || cluster.load_assignment.as_ref().map(|a| listed(&cluster.name, a)).unwrap_or_default();
    match kind {
        Some(DiscoveryType::Eds) => {
            let named = cluster.eds_cluster_config.as_ref().map(|e| e.service_name.as_str()).unwrap_or_default();
            let wanted = if named.is_empty() { cluster.name.as_str() } else { named };
            let assignment = resources.endpoints.iter().find(|a| a.cluster_name == wanted);
            (assignment.map(|a| listed(&cluster.name, a)).unwrap_or_default(), "endpoints over EDS")
        }
        Some(DiscoveryType::OriginalDst) => {
            let endpoint = Endpoint {
                cluster: cluster.name.clone(),
                address: socket(&request.address.to_string(), u32::from(request.port)),
                weight: 1,
                health: "healthy".to_owned(),
                locality: String::new(),
                priority: 0,
            };
            (vec![(endpoint, None)], "the original destination")
        }
        Some(DiscoveryType::Static) => (inline(), "endpoints in the cluster"),
        Some(DiscoveryType::StrictDns | DiscoveryType::LogicalDns) => (inline(), "names that Envoy resolves"),
        None => (inline(), "endpoints that an extension finds"),
    }
}

fn listed(cluster: &str, assignment: &ClusterLoadAssignment) -> Found {
    let mut found = Vec::new();
    for group in &assignment.endpoints {
        let locality = group.locality.as_ref().map(|l| format!("{}/{}/{}", l.region, l.zone, l.sub_zone));
        let locality = locality.map(|l| l.trim_end_matches('/').to_owned()).unwrap_or_default();
        for endpoint in &group.lb_endpoints {
            let one = Endpoint {
                cluster: cluster.to_owned(),
                address: endpoint_address(endpoint),
                weight: endpoint.load_balancing_weight.as_ref().map_or(1, |w| w.value),
                health: health(endpoint.health_status).to_owned(),
                locality: locality.clone(),
                priority: group.priority,
            };
            found.push((one, endpoint.metadata.clone()));
        }
    }
    found
}

fn health(status: i32) -> &'static str {
    match HealthStatus::try_from(status) {
        Ok(HealthStatus::Unhealthy) => "unhealthy",
        Ok(HealthStatus::Draining) => "draining",
        Ok(HealthStatus::Timeout) => "timeout",
        Ok(HealthStatus::Degraded) => "degraded",
        // Unknown counts as healthy until a health check says otherwise.
        _ => "healthy",
    }
}

fn endpoint_address(endpoint: &LbEndpoint) -> String {
    match &endpoint.host_identifier {
        Some(HostIdentifier::Endpoint(e)) => e.address.as_ref().map(address_text).unwrap_or_default(),
        Some(HostIdentifier::EndpointName(name)) => name.clone(),
        None => String::new(),
    }
}

/// `address:port`, a socket path, or the name of an internal listener.
pub(super) fn address_text(a: &Address) -> String {
    match &a.address {
        Some(address::Address::SocketAddress(s)) => match &s.port_specifier {
            Some(socket_address::PortSpecifier::PortValue(port)) => socket(&s.address, *port),
            Some(socket_address::PortSpecifier::NamedPort(port)) => format!("{}:{port}", s.address),
            None => s.address.clone(),
        },
        Some(address::Address::Pipe(pipe)) => pipe.path.clone(),
        Some(address::Address::EnvoyInternalAddress(internal)) => match &internal.address_name_specifier {
            Some(AddressNameSpecifier::ServerListenerName(name)) => name.clone(),
            None => internal.endpoint_id.clone(),
        },
        None => String::new(),
    }
}

fn socket(address: &str, port: u32) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// The transport socket: the first match whose labels the endpoint bears, else the cluster's own.
fn upstream_tls(cluster: &Cluster, endpoint: Option<&Metadata>) -> Option<UpstreamTls> {
    let labels = endpoint.and_then(|m| m.filter_metadata.get("envoy.transport_socket_match"));
    let chosen = cluster.transport_socket_matches.iter().find(|m| {
        let wanted = m.r#match.iter().flat_map(|s| &s.fields);
        wanted.into_iter().all(|(key, value)| labels.and_then(|l| l.fields.get(key)) == Some(value))
    });
    let (name, socket) = match (chosen, &cluster.transport_socket) {
        (Some(m), _) => (m.name.clone(), m.transport_socket.as_ref()?),
        (None, Some(socket)) => (socket.name.clone(), socket),
        (None, None) => return None,
    };
    let mut out = UpstreamTls { transport_socket: name, ..UpstreamTls::default() };
    if let Some(context) = upstream_context(socket) {
        out.sni = context.sni;
        if let Some(common) = context.common_tls_context {
            out.alpn = common.alpn_protocols;
            out.secret =
                common.tls_certificate_sds_secret_configs.into_iter().next().map(|s| s.name).unwrap_or_default();
        }
    }
    Some(out)
}

fn upstream_context(socket: &TransportSocket) -> Option<UpstreamTlsContext> {
    match socket.config_type.as_ref()? {
        transport_socket::ConfigType::TypedConfig(any) => unpack(any),
    }
}
