//! Clusters: how a proxy reaches a service, a subset of it, or the world outside.
//!
//! Pure functions from (service, port, rule, mesh-wide defaults, traits of the proxy) to Envoy's `Cluster`. The traits
//! hold the part of a proxy that can make a difference here, so proxies with equal traits share every cluster. Stock
//! Envoy only: nothing here names an extension that upstream does not have, nor a field that it deprecates.

mod defaults;
mod draft;
mod lb;
mod locality;
mod metadata;
mod plain;
mod pool;
pub(crate) mod special;
pub(crate) mod tls;
pub(crate) mod wire;

use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::cluster;
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint as PbEndpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};
use mesh_api::Name;

pub use defaults::{Compliance, Defaults, TlsDefaults};
pub(crate) use draft::Draft;
pub use lb::hash_policy;
pub use locality::{Caller, Group, effective_locality, needs_failover, prioritize};
pub(crate) use plain::{Plain, Shape};
pub use special::{black_hole, inbound_passthrough, passthrough};

pub use tls::credential_name;
pub(crate) use tls::{FileSource, file_secret, mesh_secret, transport_socket};

use crate::model::destination_rule::{DestinationRule, Subset, TrafficPolicy};
pub use crate::model::peer_authentication::MtlsMode;
use crate::model::{Endpoint, Labels, Locality, Port, Protocol, Registry, Resolution, Service, TargetPort, selects};
use crate::proxy::ProxyType;
use crate::resource::{Resource, TypeUrl, Writer, canonical_bytes};

/// The part of a proxy that makes a difference to clusters.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Traits {
    /// Gateways cannot pass connections through.
    pub kind: ProxyType,
    /// Which addresses names resolve to.
    pub ip_family: IpFamily,
    /// It has certificates of the mesh; without, connections within the mesh are in plaintext.
    pub identity: bool,
    /// HTTP/1 headers keep the case that they were written in.
    pub preserve_header_case: bool,
    /// Files to use instead of the mesh's certificates: `TLS_CLIENT_CERT_CHAIN`, `…_KEY`, `…_ROOT_CERT` of its metadata.
    pub client_files: Option<(Name, Name, Name)>,
    /// A local agent serves credentials (`sds://`).
    pub credential_socket: bool,
    /// A local agent serves files.
    pub file_socket: bool,
    /// Where it runs. Matters for names that Envoy resolves, and only then to be filled in.
    pub locality: Locality,
    /// Its labels, with the same restriction.
    pub labels: Labels,
}

/// Which IP versions a proxy has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum IpFamily {
    /// IPv4, or both without dual stack being switched on.
    #[default]
    V4,
    /// IPv6 alone.
    V6,
    /// Both.
    Dual,
}

/// `outbound|80|v1|reviews.default.svc.cluster.local`.
pub fn outbound_name(port: u16, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// `outbound_.80_.v1_.reviews.default.svc.cluster.local`: the cluster and the server name for TLS that a gateway routes by
/// server name alone.
pub fn sni_dnat_name(port: u16, subset: &str, host: &str) -> String {
    format!("outbound_.{port}_.{subset}_.{host}")
}

/// `inbound|8080||`.
pub fn inbound_name(port: u16) -> String {
    format!("inbound|{port}||")
}

/// For whom the clusters of a service are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Mode {
    /// Clients of the service.
    #[default]
    Client,
    /// Gateways that pass TLS on by server name (AUTO_PASSTHROUGH): no TLS of their own.
    SniDnat,
}

/// One port of a service, as the clusters for it need it.
#[derive(Clone, Copy, Debug)]
pub struct Outbound<'a> {
    /// The service; of several with one host the first.
    pub service: &'a Service,
    /// The port.
    pub port: &'a Port,
    /// The rule that holds for this caller.
    pub rule: Option<&'a DestinationRule>,
    /// The port's endpoints; only looked at where Envoy resolves names.
    pub endpoints: &'a [Endpoint],
    /// Names that the servers' certificates may bear.
    pub subject_alt_names: &'a [Name],
    /// What servers of the service accept.
    pub mtls: MtlsMode,
    /// For whom.
    pub mode: Mode,
    /// Mesh-wide.
    pub defaults: &'a Defaults,
    /// Of the proxy.
    pub traits: &'a Traits,
}

/// How Envoy finds the endpoints of a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Discovery {
    Eds,
    StrictDns,
    LogicalDns,
    OriginalDst,
    Forward,
}

/// How a proxy finds the endpoints of a service; `None` when there is no cluster for it.
pub(crate) fn discovery(service: &Service, kind: ProxyType) -> Option<Discovery> {
    Some(match &service.resolution {
        Resolution::ClientSideLb => Discovery::Eds,
        Resolution::DnsLb => Discovery::StrictDns,
        Resolution::DnsRoundRobinLb => Discovery::LogicalDns,
        Resolution::Passthrough if kind == ProxyType::Router => Discovery::Eds,
        Resolution::Passthrough => Discovery::OriginalDst,
        Resolution::DynamicDns if service.hostname.is_wildcard() => Discovery::Forward,
        Resolution::DynamicDns => Discovery::StrictDns,
        Resolution::Alias(_) => return None,
    })
}

impl Outbound<'_> {
    /// The cluster of the port and those of the rule's subsets. None where Envoy could not resolve a single name.
    /// `plain` answers with what the clusters of a protocol have in common, so that it is encoded once for all services.
    pub(crate) fn clusters(&self, plain: impl Fn(Plain) -> Arc<Shape>) -> Vec<Resource> {
        if self.port.protocol == Protocol::Udp {
            return Vec::new();
        }
        let Some(discovery) = discovery(self.service, self.traits.kind) else { return Vec::new() };
        if self.is_plain(discovery) {
            let shape = plain(Plain { protocol: self.port.protocol, traits: self.traits.clone() });
            return vec![self.plain_cluster(&shape)];
        }
        let base = self.rule.and_then(|rule| rule.policy_for_port(self.port.number));
        let base = self.defaults.policy(base);
        // A whole that cannot be resolved has no parts either.
        let Some(whole) = self.cluster(discovery, None, base.as_ref()) else { return Vec::new() };
        let mut clusters = vec![whole];
        if discovery != Discovery::Forward {
            for subset in self.rule.iter().flat_map(|rule| &rule.subsets) {
                let policy = TrafficPolicy::with_subset(base.clone(), subset.policy.as_ref(), self.port.number);
                clusters.extend(self.cluster(discovery, Some(subset), policy.as_ref()));
            }
        }
        clusters
    }

    fn cluster(
        &self,
        discovery: Discovery,
        subset: Option<&Subset>,
        policy: Option<&Arc<TrafficPolicy>>,
    ) -> Option<Resource> {
        let names = self.names(subset);
        let policy = policy.map(|p| &**p);
        let discovery = match policy {
            Some(policy) if policy.is_passthrough() && discovery != Discovery::Forward => Discovery::OriginalDst,
            _ => discovery,
        };
        let mut draft = Draft::new(names.cluster.clone(), names.statistics.as_deref());
        self.find_endpoints(&mut draft, discovery, subset, policy)?;
        let distribution = self.service.traffic_distribution.as_deref();
        draft.shape(self.port.protocol, policy, discovery, distribution, self.defaults, self.traits);
        if self.mode == Mode::Client {
            let tls = policy.and_then(|p| p.tls.as_deref());
            draft.tls(tls, self, &names.sni, discovery);
            draft.proxy_protocol(policy.and_then(|p| p.proxy_protocol));
        }
        let mut out = Writer::default();
        out.fields(&[&canonical_bytes(&draft.build())]);
        self.own_fields(&mut out, &names.cluster, discovery, subset, policy);
        Some(Resource::from_value(names.cluster.into(), TypeUrl::Cluster.as_str(), &out.into_bytes()))
    }

    /// The cluster's type with what it needs; `None` when there is nothing to resolve.
    fn find_endpoints(
        &self,
        draft: &mut Draft,
        discovery: Discovery,
        subset: Option<&Subset>,
        policy: Option<&TrafficPolicy>,
    ) -> Option<()> {
        match discovery {
            Discovery::Eds => draft.set_type(cluster::DiscoveryType::Eds),
            Discovery::StrictDns | Discovery::LogicalDns => {
                let in_subset = |e: &&Endpoint| subset.is_none_or(|s| selects(&s.labels, &e.labels));
                let chosen: Vec<&Endpoint> = self.endpoints.iter().filter(in_subset).collect();
                let logical = discovery == Discovery::LogicalDns;
                draft.resolve_names(logical, self.traits, self.defaults);
                draft.cluster.load_assignment =
                    Some(self.load_assignment(&draft.cluster.name, &chosen, logical, policy)?);
            }
            Discovery::OriginalDst => {
                draft.set_type(cluster::DiscoveryType::OriginalDst);
                if let TargetPort::Number(target) = self.port.target
                    && self.service.resolution == Resolution::Passthrough
                    // A client of a headless Service knows the pod's own port; one of a ServiceEntry does not.
                    && self.service.registry == Registry::External
                    && target != self.port.number
                {
                    draft.cluster.lb_config =
                        Some(cluster::LbConfig::OriginalDstLbConfig(cluster::OriginalDstLbConfig {
                            upstream_port_override: Some(wire::uint32(target.into())),
                            ..cluster::OriginalDstLbConfig::default()
                        }));
                }
            }
            Discovery::Forward => draft.forward(&self.service.hostname, self.traits),
        }
        Some(())
    }

    /// The names that Envoy resolves, by locality; `None` when there is none.
    fn load_assignment(
        &self,
        cluster: &str,
        endpoints: &[&Endpoint],
        single: bool,
        policy: Option<&TrafficPolicy>,
    ) -> Option<ClusterLoadAssignment> {
        let mut groups: Vec<Group> = Vec::new();
        // A logical name has one endpoint: the data plane accepts no second one.
        for (i, endpoint) in endpoints.iter().enumerate().take(if single { 1 } else { usize::MAX }) {
            match groups.iter_mut().find(|g| g.locality == endpoint.locality) {
                Some(group) => group.endpoints.push(i),
                None => groups.push(Group {
                    locality: endpoint.locality.clone(),
                    priority: 0,
                    weight: 0,
                    endpoints: vec![i],
                }),
            }
        }
        if groups.is_empty() {
            return None;
        }
        groups.sort_by(|a, b| a.locality.cmp(&b.locality));
        for group in &mut groups {
            group.weight = group.endpoints.iter().filter_map(|i| endpoints.get(*i)).map(|e| e.weight.max(1)).sum();
        }
        let locality = effective_locality(
            self.defaults.locality.as_ref(),
            policy.and_then(TrafficPolicy::locality),
            self.service.traffic_distribution.as_deref(),
        );
        let caller = Caller { locality: &self.traits.locality, labels: &self.traits.labels, network: "", node: "" };
        let failover = policy.is_some_and(|p| p.outlier_detection.is_some());
        let groups = match &locality {
            Some(locality) => prioritize(endpoints, groups, locality, &caller, failover),
            None => groups,
        };
        let localities = groups.into_iter().map(|group| LocalityLbEndpoints {
            locality: (!group.locality.is_empty()).then(|| core::Locality {
                region: group.locality.region.to_string(),
                zone: group.locality.zone.to_string(),
                sub_zone: group.locality.subzone.to_string(),
            }),
            lb_endpoints: group.endpoints.iter().filter_map(|i| endpoints.get(*i)).map(|e| lb_endpoint(e)).collect(),
            load_balancing_weight: Some(wire::uint32(group.weight)),
            priority: group.priority,
            ..LocalityLbEndpoints::default()
        });
        Some(ClusterLoadAssignment {
            cluster_name: cluster.to_owned(),
            endpoints: localities.collect(),
            ..ClusterLoadAssignment::default()
        })
    }
}

/// An endpoint with what transport sockets are matched by.
fn lb_endpoint(endpoint: &Endpoint) -> LbEndpoint {
    LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(PbEndpoint {
            address: Some(wire::address(&endpoint.address, endpoint.port)),
            ..PbEndpoint::default()
        })),
        load_balancing_weight: Some(wire::uint32(endpoint.weight.max(1))),
        metadata: metadata::endpoint(endpoint),
        ..LbEndpoint::default()
    }
}

/// The name of a cluster's statistics by a pattern of the mesh (`%SERVICE%_%SERVICE_PORT%`).
pub(crate) fn stat_name(pattern: &str, service: &Service, port: &Port, subset: &str, target_port: u16) -> String {
    let host = service.hostname.as_str();
    let (short, name) = match service.registry {
        Registry::Kubernetes => (format!("{}.{}", service.name, service.namespace), service.name.as_str()),
        Registry::External => (host.to_owned(), host),
    };
    pattern
        .replace("%SERVICE%", &short)
        .replace("%SERVICE_NAME%", name)
        .replace("%SERVICE_FQDN%", host)
        .replace("%SUBSET_NAME%", subset)
        .replace("%TARGET_PORT%", &target_port.to_string())
        .replace("%SERVICE_PORT%", &port.number.to_string())
        .replace("%SERVICE_PORT_NAME%", &port.name)
}

#[cfg(test)]
pub(crate) mod tests;
