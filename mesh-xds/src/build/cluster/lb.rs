//! Load balancing: the algorithm, warming up, and how localities count.

use envoy_types::pb::envoy::config::cluster::v3::cluster::{
    LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig, RoundRobinLbConfig, SlowStartConfig,
    common_lb_config,
};
use envoy_types::pb::envoy::config::core::v3::RuntimeDouble;
use envoy_types::pb::envoy::config::route::v3::route_action::{
    HashPolicy,
    hash_policy::{self, PolicySpecifier},
};
use envoy_types::pb::envoy::r#type::v3::Percent;

use super::{Discovery, Draft, needs_failover, wire};
use crate::model::destination_rule::{
    Algorithm, ConsistentHash, HashKey, HashTable, LoadBalancer, LocalityLb, Warmup, ZoneAware,
};

impl Draft {
    /// The algorithm, and how localities count.
    pub(super) fn load_balancer(
        &mut self,
        balancer: Option<&LoadBalancer>,
        locality: Option<&LocalityLb>,
        only_healthy: bool,
        discovery: Discovery,
    ) {
        if discovery == Discovery::Forward {
            return;
        }
        if only_healthy {
            self.common_lb().healthy_panic_threshold.get_or_insert(Percent { value: 0.0 });
        }
        let failover = self.cluster.outlier_detection.is_some();
        self.common_lb().locality_config_specifier = locality.and_then(|l| specifier(l, failover));
        if discovery == Discovery::OriginalDst {
            self.cluster.lb_policy = LbPolicy::ClusterProvided as i32;
            return;
        }
        let warmup = balancer.and_then(|lb| lb.warmup).map(slow_start);
        let algorithm = balancer.map_or(&Algorithm::Unspecified, |lb| &lb.algorithm);
        let (policy, config) = match algorithm {
            Algorithm::Unspecified | Algorithm::LeastRequest => (
                LbPolicy::LeastRequest,
                warmup.map(|w| {
                    LbConfig::LeastRequestLbConfig(LeastRequestLbConfig {
                        slow_start_config: Some(w),
                        ..LeastRequestLbConfig::default()
                    })
                }),
            ),
            Algorithm::RoundRobin => (
                LbPolicy::RoundRobin,
                warmup.map(|w| LbConfig::RoundRobinLbConfig(RoundRobinLbConfig { slow_start_config: Some(w) })),
            ),
            Algorithm::Random => (LbPolicy::Random, None),
            Algorithm::Passthrough => (LbPolicy::ClusterProvided, None),
            Algorithm::ConsistentHash(ConsistentHash { table: HashTable::Maglev(size), .. }) => (
                LbPolicy::Maglev,
                size.map(|size| LbConfig::MaglevLbConfig(MaglevLbConfig { table_size: Some(wire::uint64(size)) })),
            ),
            Algorithm::ConsistentHash(ConsistentHash { table: HashTable::RingHash(size), .. }) => (
                LbPolicy::RingHash,
                size.map(|size| {
                    LbConfig::RingHashLbConfig(RingHashLbConfig {
                        minimum_ring_size: Some(wire::uint64(size)),
                        ..RingHashLbConfig::default()
                    })
                }),
            ),
        };
        self.cluster.lb_policy = policy as i32;
        self.cluster.lb_config = config;
    }
}

fn specifier(locality: &LocalityLb, outlier: bool) -> Option<common_lb_config::LocalityConfigSpecifier> {
    match locality {
        LocalityLb::Off => None,
        // Weights between localities disturb the algorithm, so they are on only where somebody has asked for them.
        LocalityLb::Locality(settings) => {
            let asked = !settings.failover.is_empty() || !settings.failover_priority.is_empty();
            (!settings.distribute.is_empty() || (asked && needs_failover(locality, outlier))).then(|| {
                common_lb_config::LocalityConfigSpecifier::LocalityWeightedLbConfig(
                    common_lb_config::LocalityWeightedLbConfig::default(),
                )
            })
        }
        LocalityLb::ZoneAware(ZoneAware { enabled, min_cluster_size, .. }) => {
            Some(common_lb_config::LocalityConfigSpecifier::ZoneAwareLbConfig(common_lb_config::ZoneAwareLbConfig {
                routing_enabled: (!enabled).then_some(Percent { value: 0.0 }),
                min_cluster_size: min_cluster_size.map(wire::uint64),
                ..common_lb_config::ZoneAwareLbConfig::default()
            }))
        }
    }
}

fn slow_start(warmup: Warmup) -> SlowStartConfig {
    SlowStartConfig {
        slow_start_window: Some(wire::duration(warmup.duration)),
        // The key is required and never set: there is no runtime layer for it.
        aggression: warmup
            .curve
            .map(|(_, aggression)| RuntimeDouble { default_value: aggression, runtime_key: "(".to_owned() }),
        min_weight_percent: warmup.curve.map(|(percent, _)| Percent { value: percent }),
    }
}

/// How a route's requests are kept on one endpoint: what is hashed, for the route's action. `None` where nothing is.
pub fn hash_policy(key: &HashKey) -> Option<HashPolicy> {
    let specifier = match key {
        HashKey::Header(name) => PolicySpecifier::Header(hash_policy::Header {
            header_name: name.to_string(),
            ..hash_policy::Header::default()
        }),
        HashKey::Cookie { name, path, ttl, attributes } => PolicySpecifier::Cookie(hash_policy::Cookie {
            name: name.to_string(),
            path: path.to_string(),
            ttl: ttl.map(wire::duration),
            attributes: attributes
                .iter()
                .map(|(name, value)| hash_policy::CookieAttribute { name: name.to_string(), value: value.to_string() })
                .collect(),
        }),
        HashKey::SourceIp => {
            PolicySpecifier::ConnectionProperties(hash_policy::ConnectionProperties { source_ip: true })
        }
        HashKey::QueryParameter(name) => {
            PolicySpecifier::QueryParameter(hash_policy::QueryParameter { name: name.to_string() })
        }
        HashKey::None => return None,
    };
    Some(HashPolicy { policy_specifier: Some(specifier), ..HashPolicy::default() })
}
