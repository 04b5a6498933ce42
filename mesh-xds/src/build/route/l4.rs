//! TCP and TLS rules: which of them hold for a proxy and port, and the TCP proxy that they ask for. Listeners make filter
//! chains of them; a sidecar's and a gateway's differ in how, so that is not decided here.

use std::sync::Arc;

use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, TunnelingConfig, WeightedCluster, weighted_cluster::ClusterWeight,
};
use envoy_types::pb::envoy::r#type::v3::HashPolicy;
use envoy_types::pb::envoy::r#type::v3::hash_policy::{PolicySpecifier, SourceIp};
use mesh_api::types::Duration;
use mesh_api::{Hostname, Name};

use super::RouteContext;
use crate::build::cluster::wire;
use crate::model::destination_rule::{DestinationRule, HashKey, TrafficPolicy, Tunnel, TunnelProtocol};
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

/// What a TCP proxy does besides finding a cluster, by the rule for the destination.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct TcpPolicy {
    /// Ends idle connections; `None` leaves Envoy's default.
    pub idle: Option<Duration>,
    /// Ends connections of that age.
    pub max_age: Option<Duration>,
    /// Callers are kept on one endpoint by their address.
    pub by_source_ip: bool,
    /// Connections go through a tunnel.
    pub tunnel: Option<Arc<Tunnel>>,
}

impl TcpPolicy {
    /// What a rule asks for. Times hold for the whole host. A subset may be hashed in another way than the whole, and only
    /// the tunnel that it names itself is its own.
    pub fn of(rule: &DestinationRule, subset: &str) -> Self {
        let whole = rule.policy.as_deref();
        let part = rule.subset(subset).and_then(|s| s.policy.as_deref());
        let pool = whole.and_then(|policy| policy.connection_pool.as_ref()).map(|pool| &pool.tcp);
        let balanced = part.filter(|policy| policy.load_balancer.is_some()).or(whole);
        let hash = balanced.and_then(TrafficPolicy::consistent_hash);
        let tunnelled = if subset.is_empty() { whole } else { part };
        Self {
            idle: pool.and_then(|pool| pool.idle_timeout),
            max_age: pool.and_then(|pool| pool.max_connection_duration),
            by_source_ip: hash.is_some_and(|hash| hash.key == HashKey::SourceIp),
            tunnel: tunnelled.and_then(|policy| policy.tunnel.clone()),
        }
    }

    /// A TCP proxy that does so.
    pub fn proxy(&self, stat_prefix: String, to: ClusterSpecifier) -> TcpProxy {
        let source_ip = || HashPolicy { policy_specifier: Some(PolicySpecifier::SourceIp(SourceIp::default())) };
        TcpProxy {
            stat_prefix,
            cluster_specifier: Some(to),
            idle_timeout: self.idle.map(wire::duration),
            max_downstream_connection_duration: self.max_age.map(wire::duration),
            hash_policy: self.by_source_ip.then(source_ip).into_iter().collect(),
            tunneling_config: self.tunnel.as_deref().map(tunneling),
            ..TcpProxy::default()
        }
    }
}

/// The request by which a proxy is asked for a tunnel.
fn tunneling(tunnel: &Tunnel) -> TunnelingConfig {
    let Tunnel { protocol, target_host: host, target_port: port } = tunnel;
    TunnelingConfig {
        hostname: if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") },
        use_post: *protocol == TunnelProtocol::Post,
        ..TunnelingConfig::default()
    }
}

/// The TCP proxy to the clusters of a rule. Statistics are by cluster for a single one, else by `name.namespace`. Of several
/// destinations the first one's host decides on the policy, and their subsets have no say.
pub fn tcp_proxy(
    chain: &L4Chain<'_>,
    ctx: &RouteContext<'_>,
    policy: impl Fn(&Hostname, &str) -> TcpPolicy,
) -> TcpProxy {
    if let [only] = chain.route {
        let (to, cluster) = (&only.destination, ctx.cluster(&only.destination));
        return policy(&to.host, &to.subset).proxy(cluster.clone(), ClusterSpecifier::Cluster(cluster));
    }
    let weighted = chain.route.iter().filter(|d| d.weight > 0);
    let clusters = weighted.map(|d| ClusterWeight {
        name: ctx.cluster(&d.destination),
        weight: d.weight,
        ..ClusterWeight::default()
    });
    let clusters = ClusterSpecifier::WeightedClusters(WeightedCluster { clusters: clusters.collect() });
    let policy = chain.route.first().map(|first| policy(&first.destination.host, "")).unwrap_or_default();
    policy.proxy(format!("{}.{}", chain.vs.name, chain.vs.namespace), clusters)
}

#[cfg(test)]
mod tests;
