//! Connection pools and outlier detection: limits, timeouts, and when an endpoint is taken out.

use envoy_types::pb::envoy::config::cluster::v3::{
    CircuitBreakers, OutlierDetection as PbOutlierDetection, UpstreamConnectionOptions,
    circuit_breakers::{Thresholds, thresholds},
};
use envoy_types::pb::envoy::config::common::matcher::v3::{
    HttpHeadersMatch, MatchPredicate,
    match_predicate::{MatchSet, Rule},
};
use envoy_types::pb::envoy::config::core::v3::{KeepaliveSettings, TcpKeepalive as PbTcpKeepalive};
use envoy_types::pb::envoy::config::route::v3::{HeaderMatcher, header_matcher::HeaderMatchSpecifier};
use envoy_types::pb::envoy::extensions::upstreams::http::v3::http_protocol_options;
use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
use envoy_types::pb::envoy::r#type::v3::Percent;

use super::{Defaults, Draft, wire};
use crate::model::destination_rule::{ConnectionPool, OutlierDetection, RetryBudget, TcpKeepalive};

impl Draft {
    /// Limits and timeouts. Where nothing is said there is no limit, but always a connect timeout.
    pub(crate) fn connection_pool(
        &mut self,
        pool: Option<&ConnectionPool>,
        retry_budget: Option<RetryBudget>,
        defaults: &Defaults,
    ) {
        let unlimited = ConnectionPool::default();
        let ConnectionPool { tcp, http } = pool.unwrap_or(&unlimited);
        let most = |limit: Option<u32>| Some(wire::uint32(limit.unwrap_or(u32::MAX)));
        let thresholds = Thresholds {
            max_connections: most(tcp.max_connections),
            max_pending_requests: most(http.max_pending_requests),
            max_requests: most(http.max_requests),
            max_retries: most(http.max_retries),
            track_remaining: true,
            retry_budget: retry_budget.map(|budget| thresholds::RetryBudget {
                budget_percent: Some(Percent { value: budget.percent }),
                budget_interval: budget.interval.map(wire::duration),
                min_retry_concurrency: Some(wire::uint32(budget.min_retry_concurrency)),
            }),
            ..Thresholds::default()
        };
        self.cluster.circuit_breakers =
            Some(CircuitBreakers { thresholds: vec![thresholds], ..CircuitBreakers::default() });
        self.cluster.connect_timeout = Some(wire::duration(tcp.connect_timeout.unwrap_or(defaults.connect_timeout)));
        self.keepalive(defaults.keepalive, tcp.keepalive);

        if let Some(idle) = http.idle_timeout.or(tcp.idle_timeout) {
            self.common_http().idle_timeout = Some(wire::duration(idle));
        }
        if let Some(most) = http.max_requests_per_connection {
            self.common_http().max_requests_per_connection = Some(wire::uint32(most));
        }
        if let Some(most) = tcp.max_connection_duration {
            self.common_http().max_connection_duration = Some(wire::duration(most));
        }
        if let Some(http2) = self.http2_options() {
            http2.max_concurrent_streams = http.max_concurrent_streams.map(wire::uint32);
            http2.connection_keepalive = http.http2_keepalive.map(|keepalive| KeepaliveSettings {
                interval: keepalive.interval.map(wire::duration),
                timeout: keepalive.timeout.map(wire::duration),
                ..KeepaliveSettings::default()
            });
        }
        if http.use_client_protocol {
            self.as_downstream();
        }
    }

    /// The mesh's keepalive, what the rule says over it.
    fn keepalive(&mut self, mesh: Option<TcpKeepalive>, rule: Option<TcpKeepalive>) {
        if mesh.is_none() && rule.is_none() {
            return;
        }
        let (mesh, rule) = (mesh.unwrap_or_default(), rule.unwrap_or_default());
        self.cluster.upstream_connection_options = Some(UpstreamConnectionOptions {
            tcp_keepalive: Some(PbTcpKeepalive {
                keepalive_probes: rule.probes.or(mesh.probes).map(wire::uint32),
                keepalive_time: rule.time.or(mesh.time).map(wire::uint32),
                keepalive_interval: rule.interval.or(mesh.interval).map(wire::uint32),
            }),
            ..UpstreamConnectionOptions::default()
        });
    }

    /// When an endpoint is taken out. Only consecutive failures count: success rates are switched off.
    pub(super) fn outlier_detection(&mut self, outlier: Option<&OutlierDetection>, distributed: bool) {
        let Some(outlier) = outlier else { return };
        let enforcing = |errors: Option<u32>| errors.map(|n| wire::uint32(if n > 0 { 100 } else { 0 }));
        let local = outlier.consecutive_local_origin_failures.filter(|_| outlier.split_local_origin);
        self.cluster.outlier_detection = Some(PbOutlierDetection {
            enforcing_success_rate: Some(wire::uint32(0)),
            consecutive_5xx: outlier.consecutive_5xx.map(wire::uint32),
            enforcing_consecutive_5xx: enforcing(outlier.consecutive_5xx),
            consecutive_gateway_failure: outlier.consecutive_gateway_errors.map(wire::uint32),
            enforcing_consecutive_gateway_failure: enforcing(outlier.consecutive_gateway_errors),
            interval: outlier.interval.map(wire::duration),
            base_ejection_time: outlier.base_ejection_time.map(wire::duration),
            max_ejection_percent: outlier.max_ejection_percent.map(wire::uint32),
            split_external_local_origin_errors: outlier.split_local_origin,
            consecutive_local_origin_failure: local.map(wire::uint32),
            enforcing_consecutive_local_origin_failure: enforcing(local),
            enforcing_local_origin_success_rate: outlier.split_local_origin.then(|| wire::uint32(0)),
            ..PbOutlierDetection::default()
        });
        if let Some(percent) = outlier.min_health_percent {
            // Endpoints that are not ready must never serve, however few others there are.
            let percent = if distributed { 0 } else { percent };
            self.common_lb().healthy_panic_threshold = Some(Percent { value: percent.into() });
        }
        if !outlier.http_error_codes.is_empty() {
            self.http().outlier_detection = Some(http_protocol_options::OutlierDetection {
                error_matcher: Some(any_status(&outlier.http_error_codes)),
            });
        }
    }
}

fn any_status(codes: &[u32]) -> MatchPredicate {
    let mut rules: Vec<MatchPredicate> = codes.iter().map(|code| status(*code)).collect();
    match (rules.pop(), rules.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            rules.extend(last);
            MatchPredicate { rule: Some(Rule::OrMatch(MatchSet { rules })) }
        }
    }
}

fn status(code: u32) -> MatchPredicate {
    let exact =
        StringMatcher { match_pattern: Some(MatchPattern::Exact(code.to_string())), ..StringMatcher::default() };
    let header = HeaderMatcher {
        name: ":status".to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(exact)),
        ..HeaderMatcher::default()
    };
    MatchPredicate { rule: Some(Rule::HttpResponseHeadersMatch(HttpHeadersMatch { headers: vec![header] })) }
}
