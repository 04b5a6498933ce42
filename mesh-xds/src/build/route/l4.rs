//! TCP and TLS rules: which of them hold for a proxy and port, and the TCP proxy that they ask for. Listeners make filter
//! chains of them; a sidecar's and a gateway's differ in how, so that is not decided here.

use std::time;

use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, WeightedCluster, weighted_cluster::ClusterWeight,
};
use mesh_api::{Hostname, Name};

use super::RouteContext;
use crate::model::virtual_service::{L4Destination, Source, TcpMatch, TlsMatch, VirtualService};

impl RouteContext<'_> {
    /// True when a TCP or TLS match may hold for this proxy: unlike for HTTP, all parts of it count.
    fn admits_l4(&self, source: &Source, port: Option<u16>) -> bool {
        port.is_none_or(|p| p == self.port)
            && (source.gateways.is_empty() || self.admits_gateways(source))
            && self.admits_workload(source)
    }
    /// True when a TLS match may hold for this proxy and port.
    pub fn admits_tls(&self, m: &TlsMatch) -> bool {
        self.admits_l4(&m.source, m.port)
    }
    /// True when a TCP match may hold for this proxy and port.
    pub fn admits_tcp(&self, m: &TcpMatch) -> bool {
        self.admits_l4(&m.source, m.port)
    }
}

/// What a TLS or TCP rule asks a listener for.
#[derive(Clone, PartialEq, Debug)]
pub struct L4Chain<'a> {
    /// The VirtualService.
    pub vs: &'a VirtualService,
    /// Server names; empty for TCP.
    pub sni_hosts: &'a [Hostname],
    /// Addresses called, as CIDRs; empty for any.
    pub destination_subnets: Vec<&'a Name>,
    /// Where the connections go.
    pub route: &'a [L4Destination],
    /// The field path of the rule or match behind it.
    pub path: String,
}

/// The TLS matches that hold. Of matches with equal server names and subnets only the first can ever be reached, so only
/// the first is there.
pub fn tls_chains<'a>(
    services: impl IntoIterator<Item = &'a VirtualService>,
    ctx: &RouteContext<'_>,
) -> Vec<L4Chain<'a>> {
    let mut out: Vec<L4Chain<'a>> = Vec::new();
    for vs in services {
        for (rule, m) in vs.tls.iter().flat_map(|rule| rule.matches.iter().map(move |m| (rule, m))) {
            let subnets: Vec<_> = m.destination_subnets.iter().collect();
            let known = |c: &L4Chain<'_>| c.sni_hosts == m.sni_hosts && c.destination_subnets == subnets;
            if ctx.admits_tls(m) && !out.iter().any(known) {
                out.push(L4Chain {
                    vs,
                    sni_hosts: &m.sni_hosts,
                    destination_subnets: subnets,
                    route: &rule.route,
                    path: rule.path.text("tls", Some(m.index)),
                });
            }
        }
    }
    out
}

/// The TCP rules that hold, in the order in which they are tried. One for any address is the last.
pub fn tcp_chains<'a>(
    services: impl IntoIterator<Item = &'a VirtualService>,
    ctx: &RouteContext<'_>,
) -> Vec<L4Chain<'a>> {
    let mut out = Vec::new();
    for vs in services {
        for rule in &vs.tcp {
            let chain = |matched: Option<usize>, subnets| L4Chain {
                vs,
                sni_hosts: &[],
                destination_subnets: subnets,
                route: &rule.route,
                path: rule.path.text("tcp", matched),
            };
            if rule.matches.is_empty() {
                out.push(chain(None, Vec::new()));
                return out;
            }
            let holding = || rule.matches.iter().filter(|m| ctx.admits_tcp(m));
            if let Some(any) = holding().find(|m| m.destination_subnets.is_empty()) {
                out.push(chain(Some(any.index), Vec::new()));
                return out;
            }
            if let Some(first) = holding().next() {
                out.push(chain(Some(first.index), holding().flat_map(|m| &m.destination_subnets).collect()));
            }
        }
    }
    out
}

/// Times that a TCP proxy keeps, from the destination's connection pool.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TcpTimes {
    /// Ends idle connections; `None` leaves Envoy's default.
    pub idle: Option<time::Duration>,
    /// Ends connections of that age.
    pub max_age: Option<time::Duration>,
}

/// The TCP proxy to the clusters of a rule. Statistics are by cluster for a single one, else by `name.namespace`.
pub fn tcp_proxy(chain: &L4Chain<'_>, times: TcpTimes, ctx: &RouteContext<'_>) -> TcpProxy {
    let clusters = if let [only] = chain.route {
        ClusterSpecifier::Cluster(ctx.cluster(&only.destination))
    } else {
        let weighted = chain.route.iter().filter(|d| d.weight > 0);
        let clusters = weighted.map(|d| ClusterWeight {
            name: ctx.cluster(&d.destination),
            weight: d.weight,
            ..ClusterWeight::default()
        });
        ClusterSpecifier::WeightedClusters(WeightedCluster { clusters: clusters.collect() })
    };
    let stat_prefix = match &clusters {
        ClusterSpecifier::Cluster(cluster) => cluster.clone(),
        ClusterSpecifier::WeightedClusters(_) => format!("{}.{}", chain.vs.name, chain.vs.namespace),
    };
    TcpProxy {
        stat_prefix,
        cluster_specifier: Some(clusters),
        idle_timeout: times.idle.map(super::duration),
        max_downstream_connection_duration: times.max_age.map(super::duration),
        ..TcpProxy::default()
    }
}
