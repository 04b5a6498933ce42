//! Connection pools, which rules, Sidecars and the mesh's default policy all write alike; and the checks of numbers and
//! durations that every block shares.

use mesh_api::FieldPath;
use mesh_api::networking as written;
use mesh_api::types::Duration;

use super::super::Told;
use crate::model::destination_rule::{ConnectionPool, H2Upgrade, HttpPool, Keepalive, TcpKeepalive, TcpPool};

/// What a pool means. Limits of zero mean not said, as in Istio.
pub(crate) fn connection_pool(
    pool: &written::ConnectionPoolSettings,
    path: &FieldPath,
    told: &mut Told<'_>,
) -> ConnectionPool {
    let tcp = pool.tcp.as_ref().map_or_else(TcpPool::default, |tcp| {
        let path = path.field("tcp");
        TcpPool {
            max_connections: limit(tcp.max_connections, &path.field("maxConnections"), told),
            connect_timeout: positive(tcp.connect_timeout, &path.field("connectTimeout"), told),
            keepalive: tcp.tcp_keepalive.as_ref().map(|k| tcp_keepalive(k, &path.field("tcpKeepalive"), told)),
            max_connection_duration: positive(tcp.max_connection_duration, &path.field("maxConnectionDuration"), told),
            idle_timeout: not_negative(tcp.idle_timeout, &path.field("idleTimeout"), told),
        }
    });
    let http = pool.http.as_ref().map_or_else(HttpPool::default, |http| http_pool(http, &path.field("http"), told));
    ConnectionPool { tcp, http }
}

fn http_pool(http: &written::HttpSettings, path: &FieldPath, told: &mut Told<'_>) -> HttpPool {
    if http.use_client_protocol && http.h2_upgrade_policy == written::H2UpgradePolicy::Upgrade {
        told.warning(
            "IgnoredField",
            path.field("h2UpgradePolicy").as_str(),
            "useClientProtocol keeps the caller's protocol, so nothing is upgraded; remove one of the two fields",
        );
    }
    HttpPool {
        max_pending_requests: limit(http.http1_max_pending_requests, &path.field("http1MaxPendingRequests"), told),
        max_requests: limit(http.http2_max_requests, &path.field("http2MaxRequests"), told),
        max_requests_per_connection: limit(
            http.max_requests_per_connection,
            &path.field("maxRequestsPerConnection"),
            told,
        ),
        max_retries: limit(http.max_retries, &path.field("maxRetries"), told),
        idle_timeout: not_negative(http.idle_timeout, &path.field("idleTimeout"), told),
        h2_upgrade: match http.h2_upgrade_policy {
            written::H2UpgradePolicy::Default => H2Upgrade::Unspecified,
            written::H2UpgradePolicy::DoNotUpgrade => H2Upgrade::DoNotUpgrade,
            written::H2UpgradePolicy::Upgrade => H2Upgrade::Upgrade,
        },
        use_client_protocol: http.use_client_protocol,
        max_concurrent_streams: limit(http.max_concurrent_streams, &path.field("maxConcurrentStreams"), told),
        http2_keepalive: http.http2_keep_alive.as_ref().map(|k| {
            let path = path.field("http2KeepAlive");
            Keepalive {
                interval: positive(k.interval, &path.field("interval"), told),
                timeout: positive(k.timeout, &path.field("timeout"), told),
            }
        }),
    }
}

/// What TCP keepalive means; the mesh has one too.
pub(crate) fn tcp_keepalive(written: &written::TcpKeepalive, path: &FieldPath, told: &mut Told<'_>) -> TcpKeepalive {
    let mut seconds = |duration: Option<Duration>, field: &str| {
        let duration = positive(duration, &path.field(field), told)?;
        match u32::try_from(duration.seconds()) {
            Ok(seconds) if seconds > 0 => Some(seconds),
            _ => {
                told.error(
                    "InvalidDuration",
                    path.field(field).as_str(),
                    "must be at least one second; the field is ignored",
                );
                None
            }
        }
    };
    TcpKeepalive {
        time: seconds(written.time, "time"),
        interval: seconds(written.interval, "interval"),
        probes: Some(written.probes).filter(|probes| *probes > 0),
    }
}

/// A limit; zero means not said.
fn limit(value: i32, path: &FieldPath, told: &mut Told<'_>) -> Option<u32> {
    match u32::try_from(value) {
        Ok(0) => None,
        Ok(value) => Some(value),
        Err(_) => {
            told.error(
                "NegativeNumber",
                path.as_str(),
                format!("{value} is negative; the field is ignored, give a positive number"),
            );
            None
        }
    }
}

/// A duration that must be there to mean something.
pub(super) fn positive(value: Option<Duration>, path: &FieldPath, told: &mut Told<'_>) -> Option<Duration> {
    let value = not_negative(value, path, told)?;
    if value < Duration::from_millis(1) {
        told.error(
            "InvalidDuration",
            path.as_str(),
            format!("{value} is too short; the field is ignored, give at least 1ms"),
        );
        return None;
    }
    Some(value)
}

/// A duration of which zero has a meaning of its own.
pub(super) fn not_negative(value: Option<Duration>, path: &FieldPath, told: &mut Told<'_>) -> Option<Duration> {
    let value = value?;
    if value.is_negative() {
        told.error(
            "InvalidDuration",
            path.as_str(),
            format!("{value} is negative; the field is ignored, give a positive duration"),
        );
        return None;
    }
    Some(value)
}
