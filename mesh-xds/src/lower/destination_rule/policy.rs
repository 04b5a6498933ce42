//! Traffic policies: load balancing, outlier detection, TLS and the rest.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_api::networking as written;
use mesh_api::{FieldPath, Name};

use super::super::Told;
use super::pool::{connection_pool, not_negative, positive};
use crate::model::destination_rule::{
    Algorithm, ClientTls, ConsistentHash, Distribute, HashKey, HashTable, LoadBalancer, LocalityLb, LocalitySettings,
    OutlierDetection, PortPolicy, ProxyProtocol, RetryBudget, TlsMode, TrafficPolicy, Tunnel, TunnelProtocol, Warmup,
    ZoneAware,
};

fn name(text: &str) -> Name {
    Name::from(text)
}

/// What a policy means, ports included.
pub(super) fn traffic_policy(
    policy: &written::TrafficPolicy,
    path: &FieldPath,
    told: &mut Told<'_>,
) -> Arc<TrafficPolicy> {
    let mut lowered = TrafficPolicy::empty(super::origin(told, path));
    lowered.load_balancer =
        policy.load_balancer.as_ref().map(|lb| load_balancer(lb, &path.field("loadBalancer"), told));
    lowered.connection_pool =
        policy.connection_pool.as_ref().map(|p| Arc::new(connection_pool(p, &path.field("connectionPool"), told)));
    lowered.outlier_detection = policy
        .outlier_detection
        .as_ref()
        .map(|o| Arc::new(outlier_detection(o, &path.field("outlierDetection"), told)));
    lowered.tls = policy.tls.as_ref().map(|t| client_tls(t, &path.field("tls"), told));
    lowered.tunnel = policy.tunnel.as_ref().and_then(|t| tunnel(t, &path.field("tunnel"), told));
    lowered.proxy_protocol = policy.proxy_protocol.as_ref().map(|p| match p.version {
        written::ProxyProtocolVersion::V1 => ProxyProtocol::V1,
        written::ProxyProtocolVersion::V2 => ProxyProtocol::V2,
    });
    lowered.retry_budget = policy.retry_budget.as_ref().map(|b| retry_budget(b, &path.field("retryBudget"), told));
    let mut seen = BTreeSet::new();
    for (i, port) in policy.port_level_settings.iter().enumerate() {
        let path = path.field("portLevelSettings").index(i);
        let number = port.port.as_ref().map_or(0, |p| p.number);
        let Some(number) = u16::try_from(number).ok().filter(|n| *n > 0) else {
            let message = format!("{number} is no port, so these settings hold nowhere; give a port of the service");
            told.error("InvalidPort", path.field("port").field("number").as_str(), message);
            continue;
        };
        if !seen.insert(number) {
            let message = format!("port {number} has settings above already, which hold; merge these into them");
            told.error("DuplicatePort", path.as_str(), message);
            continue;
        }
        let mut policy = TrafficPolicy::empty(super::origin(told, &path));
        policy.load_balancer =
            port.load_balancer.as_ref().map(|lb| load_balancer(lb, &path.field("loadBalancer"), told));
        policy.connection_pool =
            port.connection_pool.as_ref().map(|p| Arc::new(connection_pool(p, &path.field("connectionPool"), told)));
        policy.outlier_detection = port
            .outlier_detection
            .as_ref()
            .map(|o| Arc::new(outlier_detection(o, &path.field("outlierDetection"), told)));
        policy.tls = port.tls.as_ref().map(|t| client_tls(t, &path.field("tls"), told));
        lowered.ports.push(PortPolicy { port: number, policy: Arc::new(policy) });
    }
    Arc::new(lowered)
}

fn load_balancer(lb: &written::LoadBalancerSettings, path: &FieldPath, told: &mut Told<'_>) -> Arc<LoadBalancer> {
    let algorithm = match &lb.lb_policy {
        None => Algorithm::Unspecified,
        Some(written::LbPolicy::Simple(simple)) => match simple {
            written::SimpleLb::Unspecified => Algorithm::Unspecified,
            written::SimpleLb::LeastConn => {
                told.warning(
                    "DeprecatedField",
                    path.field("simple").as_str(),
                    "LEAST_CONN is deprecated and done as LEAST_REQUEST; write LEAST_REQUEST",
                );
                Algorithm::LeastRequest
            }
            written::SimpleLb::LeastRequest => Algorithm::LeastRequest,
            written::SimpleLb::Random => Algorithm::Random,
            written::SimpleLb::Passthrough => Algorithm::Passthrough,
            written::SimpleLb::RoundRobin => Algorithm::RoundRobin,
        },
        Some(written::LbPolicy::ConsistentHash(hash)) => {
            Algorithm::ConsistentHash(consistent_hash(hash, &path.field("consistentHash"), told))
        }
        Some(written::LbPolicy::BackendUtilization(_)) => {
            told.error(
                "UnsupportedField",
                path.field("backendUtilization").as_str(),
                "balancing by utilisation is not supported; LEAST_REQUEST is used, choose one of `simple`",
            );
            Algorithm::Unspecified
        }
    };
    if lb.zone_aware_lb_setting.is_some() && lb.locality_lb_setting.is_some() {
        told.error(
            "IgnoredField",
            path.field("localityLbSetting").as_str(),
            "zoneAwareLbSetting takes precedence, so this is ignored; remove one of the two",
        );
    }
    let locality = match (&lb.zone_aware_lb_setting, &lb.locality_lb_setting) {
        (Some(zone), _) => Some(LocalityLb::ZoneAware(zone_aware(zone))),
        (None, Some(locality)) => Some(locality_settings(locality, &path.field("localityLbSetting"), told)),
        (None, None) => None,
    };
    Arc::new(LoadBalancer { algorithm, locality, warmup: warmup(lb, path, told) })
}

fn warmup(lb: &written::LoadBalancerSettings, path: &FieldPath, told: &mut Told<'_>) -> Option<Warmup> {
    if let Some(warmup) = &lb.warmup {
        let path = path.field("warmup");
        let Some(duration) = positive(warmup.duration, &path.field("duration"), told) else {
            if warmup.duration.is_none() {
                told.error("MissingDuration", path.as_str(), "warming up needs a duration; the block is ignored");
            }
            return None;
        };
        let percent = in_range(warmup.minimum_percent.unwrap_or(10.0), 0.0, 100.0, &path.field("minimumPercent"), told);
        let aggression = in_range(warmup.aggression.unwrap_or(1.0), 1.0, f64::MAX, &path.field("aggression"), told);
        return Some(Warmup { duration, curve: Some((percent, aggression)) });
    }
    let duration = positive(lb.warmup_duration_secs, &path.field("warmupDurationSecs"), told)?;
    Some(Warmup { duration, curve: None })
}

fn in_range(value: f64, least: f64, most: f64, path: &FieldPath, told: &mut Told<'_>) -> f64 {
    if value.is_nan() || value < least || value > most {
        let message = format!("{value} is out of range; the nearest allowed value is used, give {least} to {most}");
        told.error("OutOfRange", path.as_str(), message);
        return if value > most { most } else { least };
    }
    value
}

fn consistent_hash(hash: &written::ConsistentHashLb, path: &FieldPath, told: &mut Told<'_>) -> ConsistentHash {
    let key = match &hash.hash_key {
        Some(written::HashKey::HttpHeaderName(header)) => HashKey::Header(name(header)),
        Some(written::HashKey::HttpCookie(cookie)) => HashKey::Cookie {
            name: name(&cookie.name),
            path: name(&cookie.path),
            ttl: not_negative(cookie.ttl, &path.field("httpCookie").field("ttl"), told),
            attributes: cookie.attributes.iter().map(|a| (name(&a.name), name(&a.value))).collect(),
        },
        Some(written::HashKey::UseSourceIp(true)) => HashKey::SourceIp,
        Some(written::HashKey::HttpQueryParameterName(parameter)) => HashKey::QueryParameter(name(parameter)),
        Some(written::HashKey::UseSourceIp(false)) | None => {
            told.error(
                "MissingHashKey",
                path.as_str(),
                "without a key requests go anywhere; name a header, a cookie, a query parameter or useSourceIp: true",
            );
            HashKey::None
        }
    };
    let said = |size: u64| Some(size).filter(|size| *size > 0);
    let table = match &hash.hash_algorithm {
        Some(written::HashAlgorithm::RingHash(ring)) => {
            HashTable::RingHash(ring_size(said(ring.minimum_ring_size), &path.field("ringHash"), told))
        }
        Some(written::HashAlgorithm::Maglev(maglev)) => {
            HashTable::Maglev(maglev_size(said(maglev.table_size), &path.field("maglev"), told))
        }
        // The older field has a default of its own.
        None => {
            let size = said(hash.minimum_ring_size).unwrap_or(1024);
            HashTable::RingHash(ring_size(Some(size), path, told))
        }
    };
    ConsistentHash { key, table }
}

fn ring_size(size: Option<u64>, path: &FieldPath, told: &mut Told<'_>) -> Option<u64> {
    const MOST: u64 = 8 * 1024 * 1024;
    let size = size?;
    if size > MOST {
        let message = format!("{size} is more than the data plane's {MOST}, which is used instead");
        told.error("OutOfRange", path.field("minimumRingSize").as_str(), message);
    }
    Some(size.min(MOST))
}

fn maglev_size(size: Option<u64>, path: &FieldPath, told: &mut Told<'_>) -> Option<u64> {
    let size = size?;
    let prime = size > 1 && size <= 5_000_011 && (2..).take_while(|d| d * d <= size).all(|d| !size.is_multiple_of(d));
    if !prime {
        let message = format!("{size} is not a prime up to 5000011; the data plane's default is used");
        told.error("OutOfRange", path.field("tableSize").as_str(), message);
        return None;
    }
    Some(size)
}

/// What locality settings mean; the mesh has some too.
pub(crate) fn locality_settings(
    settings: &written::LocalityLoadBalancerSetting,
    path: &FieldPath,
    told: &mut Told<'_>,
) -> LocalityLb {
    if settings.enabled == Some(false) {
        return LocalityLb::Off;
    }
    let fails_over = !settings.failover.is_empty() || !settings.failover_priority.is_empty();
    if !settings.distribute.is_empty() && fails_over {
        told.error(
            "IgnoredField",
            path.field("distribute").as_str(),
            "with distribute there is no failover, so failover and failoverPriority are ignored; remove one of them",
        );
    }
    let distribute = settings.distribute.iter().enumerate().map(|(i, d)| {
        let total: u64 = d.to.values().map(|weight| u64::from(*weight)).sum();
        if total != 100 {
            let path = path.field("distribute").index(i).field("to");
            told.warning("WeightSum", path.as_str(), format!("weights add up to {total}; they should add up to 100"));
        }
        Distribute { from: name(&d.from), to: d.to.iter().map(|(k, v)| (name(k), *v)).collect() }
    });
    LocalityLb::Locality(LocalitySettings {
        distribute: distribute.collect(),
        failover: failover(&settings.failover),
        failover_priority: settings.failover_priority.iter().map(|label| name(label)).collect(),
        force: false,
    })
}

/// What zone awareness means; the mesh has some too.
pub(crate) fn zone_aware(settings: &written::ZoneAwareLoadBalancerSetting) -> ZoneAware {
    ZoneAware {
        enabled: settings.enabled.unwrap_or(true),
        failover: failover(&settings.failover),
        failover_priority: settings.failover_priority.iter().map(|label| name(label)).collect(),
        min_cluster_size: settings.min_cluster_size,
    }
}

fn failover(list: &[written::Failover]) -> Vec<(Name, Name)> {
    list.iter().map(|f| (name(&f.from), name(&f.to))).collect()
}

/// What outlier detection means; the mesh has a default too.
pub(crate) fn outlier_detection(
    written: &written::OutlierDetection,
    path: &FieldPath,
    told: &mut Told<'_>,
) -> OutlierDetection {
    if written.consecutive_errors != 0 {
        told.error(
            "DeprecatedField",
            path.field("consecutiveErrors").as_str(),
            "has no effect any more; write consecutive5xxErrors or consecutiveGatewayErrors",
        );
    }
    if written.consecutive_local_origin_failures.is_some() && !written.split_external_local_origin_errors {
        told.warning(
            "IgnoredField",
            path.field("consecutiveLocalOriginFailures").as_str(),
            "counts only with splitExternalLocalOriginErrors: true",
        );
    }
    let percent = |value: i32, field: &str, told: &mut Told<'_>| {
        if !(0..=100).contains(&value) {
            let message = format!("{value} is no percentage and is ignored; give 0 to 100");
            told.error("OutOfRange", path.field(field).as_str(), message);
        }
        u32::try_from(value).ok().filter(|value| *value <= 100)
    };
    OutlierDetection {
        consecutive_5xx: written.consecutive_5xx_errors,
        consecutive_gateway_errors: written.consecutive_gateway_errors,
        split_local_origin: written.split_external_local_origin_errors,
        consecutive_local_origin_failures: written.consecutive_local_origin_failures.filter(|n| *n > 0),
        interval: positive(written.interval, &path.field("interval"), told),
        base_ejection_time: positive(written.base_ejection_time, &path.field("baseEjectionTime"), told),
        max_ejection_percent: percent(written.max_ejection_percent, "maxEjectionPercent", told).filter(|p| *p > 0),
        min_health_percent: percent(written.min_health_percent, "minHealthPercent", told),
        http_error_codes: written.outlier_detection_http_error_codes.clone(),
    }
}

fn client_tls(tls: &written::ClientTlsSettings, path: &FieldPath, told: &mut Told<'_>) -> Arc<ClientTls> {
    let mode = match tls.mode {
        written::ClientTlsMode::Disable => TlsMode::Disable,
        written::ClientTlsMode::Simple => TlsMode::Simple,
        written::ClientTlsMode::Mutual => TlsMode::Mutual,
        written::ClientTlsMode::IstioMutual => TlsMode::IstioMutual,
    };
    let without_files = tls.client_certificate.is_empty() || tls.private_key.is_empty();
    if mode == TlsMode::Mutual && tls.credential_name.is_empty() && without_files {
        told.error(
            "MissingCertificate",
            path.as_str(),
            "MUTUAL needs clientCertificate and privateKey, or a credentialName; until then connections are in plaintext",
        );
    }
    if mode == TlsMode::Simple && !(tls.client_certificate.is_empty() && tls.private_key.is_empty()) {
        told.warning(
            "IgnoredField",
            path.as_str(),
            "SIMPLE shows no client certificate; remove the files, or write MUTUAL",
        );
    }
    let own_files =
        !(tls.client_certificate.is_empty() && tls.private_key.is_empty() && tls.ca_certificates.is_empty());
    if mode == TlsMode::IstioMutual && own_files {
        told.warning(
            "IgnoredField",
            path.as_str(),
            "ISTIO_MUTUAL uses the mesh's certificates; remove the files, or write MUTUAL",
        );
    }
    Arc::new(ClientTls {
        mode,
        client_certificate: name(&tls.client_certificate),
        private_key: name(&tls.private_key),
        ca_certificates: name(&tls.ca_certificates),
        credential_name: name(&tls.credential_name),
        subject_alt_names: tls.subject_alt_names.iter().map(|san| name(san)).collect(),
        sni: name(&tls.sni),
        insecure_skip_verify: tls.insecure_skip_verify.unwrap_or(false),
        ca_crl: name(&tls.ca_crl),
    })
}

fn tunnel(tunnel: &written::TunnelSettings, path: &FieldPath, told: &mut Told<'_>) -> Option<Arc<Tunnel>> {
    let protocol = match tunnel.protocol.as_str() {
        "" | "CONNECT" => TunnelProtocol::Connect,
        "POST" => TunnelProtocol::Post,
        other => {
            let message = format!("{other:?} is neither CONNECT nor POST; connections are not tunnelled");
            told.error("InvalidValue", path.field("protocol").as_str(), message);
            return None;
        }
    };
    let Some(target_port) = u16::try_from(tunnel.target_port).ok().filter(|port| *port > 0) else {
        let message = format!("{} is no port; connections are not tunnelled", tunnel.target_port);
        told.error("InvalidPort", path.field("targetPort").as_str(), message);
        return None;
    };
    if tunnel.target_host.is_empty() {
        told.error(
            "MissingHost",
            path.field("targetHost").as_str(),
            "a tunnel needs a target; connections are not tunnelled",
        );
        return None;
    }
    Some(Arc::new(Tunnel { protocol, target_host: name(&tunnel.target_host), target_port }))
}

fn retry_budget(budget: &written::RetryBudget, path: &FieldPath, told: &mut Told<'_>) -> RetryBudget {
    RetryBudget {
        percent: in_range(budget.percent.unwrap_or(20.0), 0.0, 100.0, &path.field("percent"), told),
        min_retry_concurrency: if budget.min_retry_concurrency > 0 { budget.min_retry_concurrency } else { 3 },
        interval: positive(budget.budget_interval, &path.field("budgetInterval"), told),
    }
}
