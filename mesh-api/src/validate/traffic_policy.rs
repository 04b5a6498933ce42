//! Traffic policies: connections, health and balancing, of a DestinationRule, a Sidecar or the mesh.

mod load_balancer;

use super::at::At;
use super::numbers::{duration, percent};
use super::{hosts, net, tls};
use crate::networking::{
    ConnectionPoolSettings, H2UpgradePolicy, HttpSettings, OutlierDetection, PortTrafficPolicy, TcpSettings,
    TrafficPolicy, TunnelSettings,
};

pub(super) use load_balancer::{locality, zone_aware};

/// The field `trafficPolicy`.
pub(super) fn check(at: &At<'_>, policy: Option<&TrafficPolicy>, namespace: &str) {
    let Some(policy) = policy else { return };
    let at = at.field("trafficPolicy");
    if *policy == TrafficPolicy::default() {
        return at.error("EmptyPolicy", "traffic policy must have at least one field; remove it, or say something");
    }
    if policy.tunnel.is_some() && policy.proxy_protocol.is_some() {
        return at.error("ConflictingFields", "tunnel and proxyProtocol must not be set together; remove one of them");
    }
    outlier_detection(&at, policy.outlier_detection.as_ref());
    connection_pool(&at, "connectionPool", policy.connection_pool.as_ref());
    load_balancer::check(&at, policy.load_balancer.as_ref(), policy.outlier_detection.as_ref());
    tls::client(&at, "tls", policy.tls.as_ref(), namespace);
    at.each("portLevelSettings", &policy.port_level_settings, |at, policy| port_policy(at, policy, namespace));
    if let Some(written) = &policy.tunnel {
        tunnel(&at.field("tunnel"), written);
    }
}

fn port_policy(at: &At<'_>, policy: &PortTrafficPolicy, namespace: &str) {
    if policy.port.is_none() {
        at.error("MissingPort", "portTrafficPolicy must have valid port; add port.number");
    }
    let PortTrafficPolicy { load_balancer: balancer, connection_pool: pool, outlier_detection: outlier, tls, .. } =
        policy;
    if balancer.is_none() && pool.is_none() && outlier.is_none() && tls.is_none() {
        at.error("EmptyPolicy", "port traffic policy must have at least one field; remove it, or say something");
    }
    outlier_detection(at, outlier.as_ref());
    connection_pool(at, "connectionPool", pool.as_ref());
    load_balancer::check(at, balancer.as_ref(), outlier.as_ref());
    tls::client(at, "tls", tls.as_ref(), namespace);
}

fn tunnel(at: &At<'_>, tunnel: &TunnelSettings) {
    if !matches!(tunnel.protocol.as_str(), "" | "CONNECT" | "POST") {
        let message = format!("tunnel protocol must be \"CONNECT\" or \"POST\", not {:?}", tunnel.protocol);
        at.field("protocol").error("InvalidProtocol", message);
    }
    if let Err(why) = hosts::fqdn(&tunnel.target_host)
        && !net::is_ip(&tunnel.target_host)
    {
        at.field("targetHost")
            .error("InvalidHost", format!("tunnel target host must be valid FQDN or IP address: {why}"));
    }
    let port = net::port(tunnel.target_port).map_err(|why| format!("tunnel target port is invalid: {why}"));
    at.field("targetPort").check("InvalidPort", port);
}

/// The field `outlierDetection`.
pub(super) fn outlier_detection(at: &At<'_>, detection: Option<&OutlierDetection>) {
    let Some(detection) = detection else { return };
    let at = at.field("outlierDetection");
    if detection.consecutive_errors != 0 {
        at.field("consecutiveErrors").warning(
            "DeprecatedField",
            "outlier detection consecutive errors is deprecated, use consecutiveGatewayErrors or consecutive5xxErrors instead",
        );
    }
    if !detection.split_external_local_origin_errors && detection.consecutive_local_origin_failures > Some(0) {
        at.field("consecutiveLocalOriginFailures").error(
            "ConflictingFields",
            "outlier detection consecutive local origin failures is specified, but split external local origin errors is set to \
             false; set splitExternalLocalOriginErrors",
        );
    }
    duration(&at, "baseEjectionTime", detection.base_ejection_time);
    duration(&at, "interval", detection.interval);
    at.field("maxEjectionPercent").check("InvalidPercentage", percent(detection.max_ejection_percent));
    at.field("minHealthPercent").check("InvalidPercentage", percent(detection.min_health_percent));
}

/// Limits on connections and requests.
pub(super) fn connection_pool(at: &At<'_>, field: &str, pool: Option<&ConnectionPoolSettings>) {
    let Some(pool) = pool else { return };
    let at = at.field(field);
    if pool.http.is_none() && pool.tcp.is_none() {
        return at.error("EmptyPolicy", "connection pool must have at least one field; add http or tcp");
    }
    if let Some(settings) = &pool.http {
        http(&at.field("http"), settings);
    }
    if let Some(settings) = &pool.tcp {
        tcp(&at.field("tcp"), settings);
    }
}

fn http(at: &At<'_>, settings: &HttpSettings) {
    for (field, words, value) in [
        ("http1MaxPendingRequests", "http1 max pending requests", settings.http1_max_pending_requests),
        ("http2MaxRequests", "http2 max requests", settings.http2_max_requests),
        ("maxRequestsPerConnection", "max requests per connection", settings.max_requests_per_connection),
        ("maxRetries", "max retries", settings.max_retries),
        ("maxConcurrentStreams", "max concurrent streams", settings.max_concurrent_streams),
    ] {
        not_negative(at, field, words, value);
    }
    duration(at, "idleTimeout", settings.idle_timeout);
    if settings.h2_upgrade_policy == H2UpgradePolicy::Upgrade && settings.use_client_protocol {
        at.field("useClientProtocol").error(
            "ConflictingFields",
            "use client protocol must not be true when H2UpgradePolicy is UPGRADE; remove one of them",
        );
    }
    if let Some(ping) = &settings.http2_keep_alive {
        let at = at.field("http2KeepAlive");
        for (field, value) in [("interval", ping.interval), ("timeout", ping.timeout)] {
            if value.is_none() {
                at.field(field).error("MissingDuration", format!("http2 keepalive {field} is required; add it"));
            }
            duration(&at, field, value);
        }
    }
}

fn tcp(at: &At<'_>, settings: &TcpSettings) {
    not_negative(at, "maxConnections", "max connections", settings.max_connections);
    duration(at, "connectTimeout", settings.connect_timeout);
    duration(at, "maxConnectionDuration", settings.max_connection_duration);
    // Nothing, which is less than a millisecond too, turns the timeout off.
    duration(at, "idleTimeout", settings.idle_timeout.filter(|timeout| timeout.as_nanos() / 1_000_000 != 0));
    if let Some(keepalive) = &settings.tcp_keepalive {
        let at = at.field("tcpKeepalive");
        duration(&at, "time", keepalive.time);
        duration(&at, "interval", keepalive.interval);
    }
}

fn not_negative(at: &At<'_>, field: &str, words: &str, value: i32) {
    if value < 0 {
        at.field(field).error("InvalidNumber", format!("{words} must be non-negative, not {value}"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::networking::DestinationRule;
    use crate::validate::testing::check;

    fn with(policy: Value) -> Value {
        json!({"host": "a", "trafficPolicy": policy})
    }

    #[test]
    fn policies() {
        check::<DestinationRule>(&[
            (with(json!({})), &["E spec.trafficPolicy: traffic policy must have at least one field"]),
            (with(json!({"proxyProtocol": {"version": "V2"}})), &[]),
            (with(json!({"proxyProtocol": {}, "tunnel": {}})), &["tunnel and proxyProtocol must not be set together"]),
            (with(json!({"tunnel": {"targetHost": "a.b", "targetPort": 80, "protocol": "POST"}})), &[]),
            (with(json!({"tunnel": {"targetHost": "2001:db8::1", "targetPort": 80}})), &[]),
            (
                with(json!({"tunnel": {"targetHost": "a_b", "protocol": "GET"}})),
                &[
                    "tunnel.protocol: tunnel protocol",
                    "tunnel.targetHost: tunnel target host",
                    "tunnel.targetPort: tunnel target port",
                ],
            ),
            (
                with(json!({"portLevelSettings": [{}]})),
                &["portLevelSettings[0]: portTrafficPolicy must have valid port", "at least one field"],
            ),
            (with(json!({"portLevelSettings": [{"port": {"number": 80}, "tls": {}}]})), &[]),
            (
                with(json!({"portLevelSettings": [{"port": {"number": 80}, "connectionPool": {}}]})),
                &["portLevelSettings[0].connectionPool: connection pool must have"],
            ),
        ]);
    }

    #[test]
    fn connections() {
        let pool = |pool: Value| with(json!({"connectionPool": pool}));
        check::<DestinationRule>(&[
            (pool(json!({})), &["E spec.trafficPolicy.connectionPool: connection pool must have at least one field"]),
            (pool(json!({"http": {}, "tcp": {}})), &[]),
            (
                pool(json!({"http": {"http1MaxPendingRequests": -1, "maxRetries": -2}})),
                &["http1 max pending requests must be non-negative", "max retries"],
            ),
            (
                pool(json!({"http": {"idleTimeout": "0s", "maxConcurrentStreams": -1}})),
                &["maxConcurrentStreams", "idleTimeout"],
            ),
            (
                pool(json!({"http": {"h2UpgradePolicy": "UPGRADE", "useClientProtocol": true}})),
                &["use client protocol must not be true"],
            ),
            (
                pool(json!({"http": {"http2KeepAlive": {"interval": "1us"}}})),
                &["interval: duration", "http2 keepalive timeout is required"],
            ),
            (
                pool(json!({"tcp": {"maxConnections": -1, "connectTimeout": "0s"}})),
                &["max connections", "connectTimeout"],
            ),
            (pool(json!({"tcp": {"idleTimeout": "0s", "maxConnectionDuration": "1ms"}})), &[]),
            (
                pool(json!({"tcp": {"idleTimeout": "-1s", "tcpKeepalive": {"time": "0s", "interval": "1.5ms"}}})),
                &["idleTimeout", "time", "interval"],
            ),
        ]);
    }

    #[test]
    fn health() {
        let outlier = |outlier: Value| with(json!({"outlierDetection": outlier}));
        check::<DestinationRule>(&[
            (outlier(json!({"interval": "2s", "baseEjectionTime": "2s", "maxEjectionPercent": 50})), &[]),
            (
                outlier(json!({"consecutiveErrors": 1})),
                &["W spec.trafficPolicy.outlierDetection.consecutiveErrors: outlier detection"],
            ),
            (
                outlier(json!({"consecutiveLocalOriginFailures": 1})),
                &["E spec.trafficPolicy.outlierDetection.consecutiveLocalOriginFailures"],
            ),
            (outlier(json!({"consecutiveLocalOriginFailures": 1, "splitExternalLocalOriginErrors": true})), &[]),
            (
                outlier(
                    json!({"interval": "0s", "baseEjectionTime": "0s", "maxEjectionPercent": 105, "minHealthPercent": -1}),
                ),
                &["baseEjectionTime", "interval", "percentage 105", "percentage -1"],
            ),
        ]);
    }
}
