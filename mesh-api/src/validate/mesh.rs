//! MeshConfig, the mesh's ProxyConfig and MeshNetworks: settings as they are in force, defaults included.

mod networks;
mod providers;
mod proxy_config;

use super::Validate;
use super::at::{At, Check, Findings};
use super::numbers::{millis_precision, whole_millis};
use super::virtual_service::http;
use super::{hosts, net, tls, traffic_policy};
use crate::Diagnostic;
use crate::mesh::{MeshConfig, MeshNetworks, ProxyConfig};
use crate::networking::HttpRetry;
use crate::types::Duration;

impl Validate for MeshConfig {
    fn validate(&self) -> Vec<Diagnostic> {
        settings(|at| mesh(at, self))
    }
}

impl Validate for ProxyConfig {
    fn validate(&self) -> Vec<Diagnostic> {
        settings(|at| proxy_config::check(at, self))
    }
}

impl Validate for MeshNetworks {
    fn validate(&self) -> Vec<Diagnostic> {
        settings(|at| networks::check(at, self))
    }
}

/// Settings are no objects: what is found in them has no name.
fn settings(check: impl FnOnce(&At<'_>)) -> Vec<Diagnostic> {
    let findings = Findings::default();
    check(&At::root(&findings));
    findings.about(|| None)
}

fn mesh(at: &At<'_>, mesh: &MeshConfig) {
    port(at, "proxyListenPort", "proxy listen port", mesh.proxy_listen_port);
    at.field("connectTimeout").check("InvalidDuration", connect_timeout(mesh.connect_timeout));
    let detection = millis_precision(mesh.protocol_detection_timeout);
    at.field("protocolDetectionTimeout").check("InvalidDuration", detection);
    proxy_config::check(&at.field("defaultConfig"), &mesh.default_config);
    // Mesh-wide, the preference for zones takes the place of localities, which the defaults turn on.
    traffic_policy::locality(at, mesh.locality_lb_setting.as_ref(), true);
    traffic_policy::zone_aware(at, mesh.zone_aware_lb_setting.as_ref(), true);
    at.each("serviceSettings", &mesh.service_settings, |at, settings| {
        at.each("hosts", &settings.hosts, |at, host| at.check("InvalidHost", hosts::wildcard_domain(host)));
    });
    at.field("trustDomain").check("InvalidTrustDomain", hosts::trust_domain(&mesh.trust_domain));
    at.each("trustDomainAliases", &mesh.trust_domain_aliases, |at, domain| {
        at.check("InvalidTrustDomain", hosts::trust_domain(domain));
    });
    providers::check(at, &mesh.extension_providers);
    at.field("meshMTLS").field("ecdhCurves").refuse(
        mesh.mesh_mtls.as_ref().is_some_and(|limits| !limits.ecdh_curves.is_empty()),
        "NotSupported",
        "mesh TLS does not support ECDH curves configuration; set tlsDefaults.ecdhCurves",
    );
    if let Some(limits) = &mesh.tls_defaults {
        tls::known_once(
            &at.field("tlsDefaults"),
            "ecdhCurves",
            &limits.ecdh_curves,
            ("ECDH curves", "detected unrecognized"),
            is_curve,
        );
    }
    inbound_retries(at, mesh.default_inbound_http_retry_policy.as_ref());
    if let Some(policy) = &mesh.default_traffic_policy {
        let at = at.field("defaultTrafficPolicy");
        traffic_policy::connection_pool(&at, "connectionPool", policy.connection_pool.as_ref());
        traffic_policy::outlier_detection(&at, policy.outlier_detection.as_ref());
    }
}

/// Inbound there is one destination, the application beside the proxy: nothing that chooses another means anything.
fn inbound_retries(at: &At<'_>, policy: Option<&HttpRetry>) {
    http::retries(at, "defaultInboundHttpRetryPolicy", policy);
    let Some(policy) = policy else { return };
    let at = at.field("defaultInboundHttpRetryPolicy");
    at.refuse(
        policy.attempts == 0 && policy.backoff.is_some(),
        "ConflictingFields",
        "backoff configured when attempts are set to 0 (disabled); set attempts",
    );
    for (field, said) in [
        ("perTryTimeout", policy.per_try_timeout.is_some()),
        ("retryRemoteLocalities", policy.retry_remote_localities.is_some()),
        ("retryIgnorePreviousHosts", policy.retry_ignore_previous_hosts.is_some()),
    ] {
        if said {
            let message = format!("{field} is ignored by the default inbound http retry policy; remove it");
            at.field(field).warning("IgnoredField", message);
        }
    }
}

fn is_curve(name: &str) -> bool {
    matches!(name, "" | "P-224" | "P-256" | "P-384" | "P-521" | "X25519" | "X25519Kyber768Draft00" | "X25519MLKEM768")
}

fn connect_timeout(timeout: Duration) -> Check {
    whole_millis(timeout)?;
    if timeout > Duration::from_secs(3600) { Err(format!("time {timeout} must be >1ms and <1h")) } else { Ok(()) }
}

fn port(at: &At<'_>, field: &str, words: &str, number: i32) {
    at.field(field).check("InvalidPort", net::port(number).map_err(|why| format!("invalid {words}: {why}")));
}

#[cfg(test)]
mod tests {
    use crate::mesh::{MeshConfig, MeshNetworks};
    use crate::validate::testing::problems;

    #[test]
    fn the_defaults_are_right() {
        assert_eq!(problems(&MeshConfig::default()), [""; 0]);
        assert_eq!(problems(&MeshNetworks::default()), [""; 0]);
    }

    #[test]
    fn settings_of_the_mesh() {
        for (text, expected) in [
            ("proxyListenPort: 0", "E proxyListenPort: invalid proxy listen port: port number 0"),
            ("connectTimeout: 2h", "E connectTimeout: time 7200s must be >1ms and <1h"),
            ("connectTimeout: 1us", "E connectTimeout: duration 0.000001s must be greater than 1ms"),
            ("protocolDetectionTimeout: 1.5ms", "E protocolDetectionTimeout: only durations to ms precision"),
            ("localityLbSetting: {failover: [{from: a, to: a}]}", "E localityLbSetting.failover[0]: failover settings"),
            (
                "zoneAwareLbSetting: {failoverPriority: [topology.kubernetes.io/zone]}",
                "E zoneAwareLbSetting.failoverPriority[0]",
            ),
            ("serviceSettings: [{hosts: [a_b]}]", "E serviceSettings[0].hosts[0]: domain name"),
            ("trustDomain: ''", "E trustDomain: an empty domain name"),
            ("trustDomainAliases: [a_b]", "E trustDomainAliases[0]: trust domain name"),
            ("meshMTLS: {ecdhCurves: [P-256]}", "E meshMTLS.ecdhCurves: mesh TLS does not support"),
            ("tlsDefaults: {ecdhCurves: [P-1]}", "W tlsDefaults.ecdhCurves: detected unrecognized ECDH curves: P-1"),
            (
                "defaultTrafficPolicy: {connectionPool: {}}",
                "E defaultTrafficPolicy.connectionPool: connection pool must",
            ),
            (
                "defaultTrafficPolicy: {outlierDetection: {maxEjectionPercent: 101}}",
                "E defaultTrafficPolicy.outlierDetection.maxEjectionPercent",
            ),
            (
                "defaultInboundHttpRetryPolicy: {attempts: 3, retryOn: \"503,nothing\"}",
                "E defaultInboundHttpRetryPolicy.retryOn: \"nothing\" is not a valid",
            ),
            (
                "defaultInboundHttpRetryPolicy: {attempts: -1}",
                "E defaultInboundHttpRetryPolicy.attempts: attempts cannot",
            ),
            ("defaultInboundHttpRetryPolicy: {retryOn: reset}", "E defaultInboundHttpRetryPolicy: http retry policy"),
            ("defaultInboundHttpRetryPolicy: {backoff: 1s}", "E defaultInboundHttpRetryPolicy: backoff configured"),
            (
                "defaultInboundHttpRetryPolicy: {attempts: 1, perTryTimeout: 1s}",
                "W defaultInboundHttpRetryPolicy.perTryTimeout: perTryTimeout is ignored",
            ),
            (
                "defaultInboundHttpRetryPolicy: {attempts: 1, retryRemoteLocalities: true}",
                "W defaultInboundHttpRetryPolicy.retryRemoteLocalities",
            ),
            (
                "defaultInboundHttpRetryPolicy: {attempts: 1, retryIgnorePreviousHosts: false}",
                "W defaultInboundHttpRetryPolicy.retryIgnorePreviousHosts",
            ),
            ("defaultConfig: {statusPort: 0}", "E defaultConfig.statusPort: invalid status port: port number 0"),
        ] {
            let (mesh, told) = MeshConfig::from_yaml(text);
            assert!(told.is_empty(), "{text}: {told:?}");
            let found = problems(&mesh);
            assert!(found.len() == 1 && found[0].starts_with(expected), "{text}: {found:?}");
        }
    }
}
