//! A cluster in the making: the message, and the HTTP options beside it that are packed at the end.

use envoy_types::pb::envoy::config::cluster::v3::{Cluster, cluster};
use envoy_types::pb::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions as CommonHttpOptions, TypedExtensionConfig,
    UpstreamHttpProtocolOptions, http1_protocol_options,
};
use envoy_types::pb::envoy::extensions::clusters::common::dns::v3 as dns_common;
use envoy_types::pb::envoy::extensions::clusters::dns::v3::DnsCluster;
use envoy_types::pb::envoy::extensions::clusters::dynamic_forward_proxy::v3::{
    ClusterConfig as ForwardConfig, cluster_config::ClusterImplementationSpecifier,
};
use envoy_types::pb::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;
use envoy_types::pb::envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig;
use envoy_types::pb::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use envoy_types::pb::envoy::extensions::upstreams::http::v3::{
    HttpProtocolOptions,
    http_protocol_options::{
        ExplicitHttpConfig, UpstreamProtocolOptions, UseDownstreamHttpConfig, explicit_http_config::ProtocolConfig,
    },
};
use mesh_api::Hostname;
use mesh_api::types::Duration;

use super::{Defaults, Discovery, IpFamily, Traits, effective_locality, wire};
use crate::build::pack;
use crate::model::Protocol;
use crate::model::destination_rule::{ConnectionPool, H2Upgrade, TrafficPolicy};
use crate::proxy::ProxyType;

/// The key of HTTP options in a cluster.
const HTTP_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Lets the bootstrap's tag extraction find the end of a name with dots in it.
pub(super) const STAT_NAME_END: &str = ";";

/// A cluster in the making.
pub(crate) struct Draft {
    pub(crate) cluster: Cluster,
    http: Option<HttpProtocolOptions>,
    /// Hosts are resolved as requests name them.
    pub(crate) forwards: bool,
}

impl Draft {
    pub(crate) fn new(name: String, stat_name: Option<&str>) -> Self {
        let alt_stat_name = format!("{}{STAT_NAME_END}", stat_name.unwrap_or(&name));
        let cluster = Cluster {
            name,
            alt_stat_name,
            common_lb_config: Some(cluster::CommonLbConfig::default()),
            ..Cluster::default()
        };
        Self { cluster, http: None, forwards: false }
    }

    pub(crate) fn set_type(&mut self, discovery: cluster::DiscoveryType) {
        self.cluster.cluster_discovery_type = Some(cluster::ClusterDiscoveryType::Type(discovery as i32));
    }

    fn set_custom_type<M: prost::Message + prost::Name>(&mut self, name: &str, config: &M) {
        let custom = cluster::CustomClusterType { name: name.to_owned(), typed_config: Some(pack(config)) };
        self.cluster.cluster_discovery_type = Some(cluster::ClusterDiscoveryType::ClusterType(custom));
    }

    pub(crate) fn is_original_dst(&self) -> bool {
        self.cluster.cluster_discovery_type
            == Some(cluster::ClusterDiscoveryType::Type(cluster::DiscoveryType::OriginalDst as i32))
    }

    pub(super) fn common_lb(&mut self) -> &mut cluster::CommonLbConfig {
        self.cluster.common_lb_config.get_or_insert_default()
    }

    /// Envoy resolves names itself. `logical`: one name, one answer at a time.
    pub(crate) fn resolve_names(&mut self, logical: bool, traits: &Traits, defaults: &Defaults) {
        let resolver = CaresDnsResolverConfig { udp_max_queries: Some(wire::uint32(100)), ..Default::default() };
        let dns = DnsCluster {
            dns_refresh_rate: Some(wire::duration(defaults.dns_refresh_rate)),
            dns_jitter: Some(wire::duration(Duration::from_millis(100))),
            respect_dns_ttl: true,
            dns_lookup_family: match traits.ip_family {
                IpFamily::V4 => dns_common::DnsLookupFamily::V4Only,
                IpFamily::V6 => dns_common::DnsLookupFamily::V6Only,
                IpFamily::Dual => dns_common::DnsLookupFamily::All,
            } as i32,
            typed_dns_resolver_config: Some(TypedExtensionConfig {
                name: "envoy.network.dns_resolver.cares".to_owned(),
                typed_config: Some(pack(&resolver)),
            }),
            all_addresses_in_single_endpoint: logical,
            ..DnsCluster::default()
        };
        self.set_custom_type("envoy.cluster.dns", &dns);
    }

    /// Envoy resolves the host that a request names.
    pub(crate) fn forward(&mut self, host: &Hostname, traits: &Traits) {
        let config = ForwardConfig {
            // Without TLS nothing verifies names; with it `tls` asks for that.
            allow_insecure_cluster_options: true,
            cluster_implementation_specifier: Some(ClusterImplementationSpecifier::DnsCacheConfig(dns_cache(
                host, traits,
            ))),
            ..ForwardConfig::default()
        };
        self.set_custom_type("envoy.clusters.dynamic_forward_proxy", &config);
        self.cluster.lb_policy = cluster::LbPolicy::ClusterProvided as i32;
        self.forwards = true;
    }

    pub(super) fn http(&mut self) -> &mut HttpProtocolOptions {
        self.http.get_or_insert_default()
    }

    /// What is spoken upstream, by the port's protocol.
    pub(crate) fn protocol(&mut self, protocol: Protocol, traits: &Traits) {
        if protocol.is_http2() {
            return self.http2();
        }
        if protocol.is_http_or_sniffed() && traits.preserve_header_case {
            self.http().upstream_protocol_options =
                Some(explicit(ProtocolConfig::HttpProtocolOptions(preserve_case())));
        }
        // A gateway negotiates HTTP/2 with its callers whatever the service speaks, so there only users can ask for it.
        if protocol.is_sniffed() && traits.kind != ProxyType::Router {
            self.as_downstream();
        }
    }

    fn http2(&mut self) {
        let options = &mut self.http().upstream_protocol_options;
        if options.is_none() {
            *options = Some(explicit(ProtocolConfig::Http2ProtocolOptions(Http2ProtocolOptions::default())));
        }
    }

    pub(super) fn http2_options(&mut self) -> Option<&mut Http2ProtocolOptions> {
        match self.http.as_mut()?.upstream_protocol_options.as_mut()? {
            UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
                protocol_config: Some(ProtocolConfig::Http2ProtocolOptions(options)),
            }) => Some(options),
            _ => None,
        }
    }

    /// True when HTTP/2 is spoken whatever the caller speaks.
    pub(crate) fn is_http2(&mut self) -> bool {
        self.http2_options().is_some()
    }

    /// Upstream as the caller speaks.
    pub(super) fn as_downstream(&mut self) {
        let http1 = match self.http().upstream_protocol_options.take() {
            Some(UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig {
                protocol_config: Some(ProtocolConfig::HttpProtocolOptions(options)),
            })) => options,
            _ => Http1ProtocolOptions::default(),
        };
        self.http().upstream_protocol_options = Some(downstream(http1));
    }

    /// HTTP/1.1 callers are upgraded: by the rule on any port, by the mesh on HTTP ports.
    pub(crate) fn h2_upgrade(&mut self, protocol: Protocol, pool: Option<&ConnectionPool>, by_mesh: bool) {
        let http = pool.map(|p| &p.http);
        if http.is_some_and(|h| h.use_client_protocol) {
            return;
        }
        let upgrade = match http.map_or(H2Upgrade::Unspecified, |h| h.h2_upgrade) {
            H2Upgrade::Upgrade => true,
            H2Upgrade::DoNotUpgrade => false,
            H2Upgrade::Unspecified => protocol.is_http() && by_mesh,
        };
        if upgrade {
            self.http2();
        }
    }

    pub(super) fn common_http(&mut self) -> &mut CommonHttpOptions {
        self.http().common_http_protocol_options.get_or_insert_default()
    }

    pub(super) fn upstream_http(&mut self) -> &mut UpstreamHttpProtocolOptions {
        self.http().upstream_http_protocol_options.get_or_insert_default()
    }

    /// Everything but names, endpoints and TLS: what is spoken, limits, balancing.
    pub(super) fn shape(
        &mut self,
        protocol: Protocol,
        policy: Option<&TrafficPolicy>,
        discovery: Discovery,
        distribution: Option<&str>,
        defaults: &Defaults,
        traits: &Traits,
    ) {
        self.protocol(protocol, traits);
        let pool = policy.and_then(|p| p.connection_pool.as_deref());
        self.h2_upgrade(protocol, pool, defaults.h2_upgrade);
        self.connection_pool(pool, policy.and_then(|p| p.retry_budget), defaults);
        self.outlier_detection(policy.and_then(|p| p.outlier_detection.as_deref()), distribution.is_some());
        let balancer = policy.and_then(|p| p.load_balancer.as_deref());
        let of_rule = policy.and_then(TrafficPolicy::locality);
        let locality = effective_locality(defaults.locality.as_ref(), of_rule, distribution);
        let only_healthy = defaults.send_unhealthy || distribution.is_some();
        self.load_balancer(balancer, locality.as_ref(), only_healthy, discovery);
    }

    /// The finished cluster.
    pub(crate) fn build(mut self) -> Cluster {
        if self.is_original_dst() {
            self.cluster.lb_policy = cluster::LbPolicy::ClusterProvided as i32;
        }
        if let Some(mut http) = self.http {
            http.upstream_protocol_options
                .get_or_insert_with(|| explicit(ProtocolConfig::HttpProtocolOptions(Http1ProtocolOptions::default())));
            self.cluster.typed_extension_protocol_options.insert(HTTP_OPTIONS.to_owned(), pack(&http));
        }
        self.cluster
    }
}

/// The cache of resolved names that a forwarding cluster and the HTTP filter in front of it share.
pub(crate) fn dns_cache(host: &Hostname, traits: &Traits) -> DnsCacheConfig {
    DnsCacheConfig {
        name: format!("{host}_dfp_dns_cache"),
        dns_lookup_family: match traits.ip_family {
            IpFamily::V4 => cluster::DnsLookupFamily::V4Only,
            IpFamily::V6 => cluster::DnsLookupFamily::V6Only,
            IpFamily::Dual => cluster::DnsLookupFamily::All,
        } as i32,
        ..DnsCacheConfig::default()
    }
}

fn explicit(config: ProtocolConfig) -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::ExplicitHttpConfig(ExplicitHttpConfig { protocol_config: Some(config) })
}

fn downstream(http1: Http1ProtocolOptions) -> UpstreamProtocolOptions {
    UpstreamProtocolOptions::UseDownstreamProtocolConfig(UseDownstreamHttpConfig {
        http_protocol_options: Some(http1),
        http2_protocol_options: Some(Http2ProtocolOptions::default()),
        ..UseDownstreamHttpConfig::default()
    })
}

fn preserve_case() -> Http1ProtocolOptions {
    let formatter = TypedExtensionConfig {
        name: "preserve_case".to_owned(),
        typed_config: Some(pack(&PreserveCaseFormatterConfig::default())),
    };
    Http1ProtocolOptions {
        header_key_format: Some(http1_protocol_options::HeaderKeyFormat {
            header_format: Some(http1_protocol_options::header_key_format::HeaderFormat::StatefulFormatter(formatter)),
        }),
        ..Http1ProtocolOptions::default()
    }
}

impl Draft {
    /// What clusters that pass connections through speak: as the caller, letting go of idle connections.
    pub(super) fn pass_through(&mut self, traits: &Traits) {
        let http1 = if traits.preserve_header_case { preserve_case() } else { Http1ProtocolOptions::default() };
        self.common_http().idle_timeout = Some(wire::duration(Duration::from_secs(5 * 60)));
        self.http().upstream_protocol_options = Some(downstream(http1));
    }
}
