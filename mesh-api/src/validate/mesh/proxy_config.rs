//! How a proxy is started: addresses, ports and limits.

use super::port;
use crate::mesh::{
    AcceleratorSettings, AuthenticationPolicy, ConnectionSettings, PrivateKeyAccelerator, ProxyConfig, Tracer, Tracing,
};
use crate::types::Duration;
use crate::validate::at::{At, Check};
use crate::validate::numbers::whole_millis;
use crate::validate::{net, tls};

pub(super) fn check(at: &At<'_>, config: &ProxyConfig) {
    for (field, text, message) in [
        ("configPath", &config.config_path, "config path must be set"),
        ("binaryPath", &config.binary_path, "binary path must be set"),
        ("discoveryAddress", &config.discovery_address, "discovery address must be set to the proxy discovery service"),
    ] {
        at.field(field).refuse(text.is_empty(), "MissingValue", message);
    }
    at.field("serviceCluster").refuse(
        config.service_cluster.is_empty() && config.tracing_service_name.is_none(),
        "MissingName",
        "oneof service cluster or tracing service name must be specified",
    );
    at.field("drainDuration").check("InvalidDuration", drain_duration(config.drain_duration));
    addresses(at, config);
    if let Some(written) = &config.tracing {
        tracing(&at.field("tracing"), written);
    }
    if config.proxy_metadata.contains_key("ISTIO_META_DNS_AUTO_ALLOCATE") {
        at.field("proxyMetadata").field("ISTIO_META_DNS_AUTO_ALLOCATE").warning(
            "DeprecatedField",
            "'ISTIO_META_DNS_AUTO_ALLOCATE' is deprecated; remove it: addresses are allocated by the control plane, see \
             https://istio.io/latest/docs/ops/configuration/traffic-management/dns-proxy/#dns-auto-allocation-v2",
        );
    }
    port(at, "proxyAdminPort", "proxy admin port", config.proxy_admin_port);
    port(at, "statusPort", "status port", config.status_port);
    at.field("controlPlaneAuthPolicy").refuse(
        config.control_plane_auth_policy == AuthenticationPolicy::Inherit,
        "InvalidMode",
        "unrecognized control plane auth policy INHERIT; write NONE or MUTUAL_TLS",
    );
    if let Some(provider) = &config.private_key_provider {
        private_keys(&at.field("privateKeyProvider"), provider.provider.as_ref());
    }
    if let Some(settings) = &config.connection_settings {
        connections(&at.field("connectionSettings"), settings);
    }
}

fn drain_duration(duration: Duration) -> Check {
    whole_millis(duration).map_err(|why| format!("invalid drain duration: {why}"))?;
    match duration.subsec_nanos() {
        0 => Ok(()),
        _ => Err(format!("drain time only supports durations to seconds precision; round {duration}")),
    }
}

fn addresses(at: &At<'_>, config: &ProxyConfig) {
    let service = |service: &Option<crate::mesh::RemoteService>| {
        service.as_ref().map_or_else(String::new, |service| service.address.clone())
    };
    for (field, words, text) in [
        ("discoveryAddress", "discovery address", config.discovery_address.clone()),
        ("statsdUdpAddress", "statsd udp address", config.statsd_udp_address.clone()),
        ("envoyMetricsServiceAddress", "envoy metrics service address", config.envoy_metrics_service_address.clone()),
        ("envoyMetricsService", "envoy metrics service address", service(&config.envoy_metrics_service)),
        ("envoyAccessLogService", "envoy access log service address", service(&config.envoy_access_log_service)),
    ] {
        if let Err(why) = net::proxy_address(&text)
            && !text.is_empty()
        {
            at.field(field).error("InvalidAddress", format!("invalid {words} {text:?}: {why}"));
        }
    }
}

fn tracing(at: &At<'_>, tracing: &Tracing) {
    /// A name that the proxy replaces by the address of its node.
    const NODE: &str = "$(HOST_IP)";
    let (field, address) = match &tracing.tracer {
        Some(Tracer::Zipkin(tracer)) => ("zipkin", tracer.address.replacen(NODE, "127.0.0.1", 1)),
        Some(Tracer::Datadog(tracer)) => ("datadog", tracer.address.replacen(NODE, "127.0.0.1", 1)),
        Some(Tracer::Lightstep(tracer)) => {
            at.field("lightstep").field("accessToken").refuse(
                tracer.access_token.is_empty(),
                "MissingToken",
                "invalid lightstep config: access token is required",
            );
            ("lightstep", tracer.address.clone())
        }
        _ => ("", String::new()),
    };
    if !field.is_empty() {
        let result = net::proxy_address(&address).map_err(|why| format!("invalid {field} config: {why}"));
        at.field(field).field("address").check("InvalidAddress", result);
    }
    tls::client(at, "tlsSettings", tracing.tls_settings.as_ref(), "");
}

fn private_keys(at: &At<'_>, provider: Option<&PrivateKeyAccelerator>) {
    let (field, settings) = match provider {
        Some(PrivateKeyAccelerator::Cryptomb(settings)) => ("cryptomb", settings),
        Some(PrivateKeyAccelerator::Qat(settings)) => ("qat", settings),
        None => {
            return at.error("MissingProvider", "private key provider configuration is required; add cryptomb or qat");
        }
    };
    let AcceleratorSettings { poll_delay, .. } = settings;
    let message = match poll_delay {
        None => "pollDelay is required; add it",
        Some(delay) if delay.is_zero() => "pollDelay must be non zero",
        Some(_) => return,
    };
    at.field(field).field("pollDelay").error("InvalidDuration", message);
}

fn connections(at: &At<'_>, settings: &ConnectionSettings) {
    for (field, value, least) in [
        ("listenerPerConnectionBufferLimitBytes", settings.listener_per_connection_buffer_limit_bytes, 0),
        ("clusterPerConnectionBufferLimitBytes", settings.cluster_per_connection_buffer_limit_bytes, 0),
        ("httpMaxConcurrentStreams", settings.http_max_concurrent_streams, 1),
        ("http2InitialStreamWindowSize", settings.http2_initial_stream_window_size, 65535),
        ("http2InitialConnectionWindowSize", settings.http2_initial_connection_window_size, 65535),
        ("listenerConnectionLimit", settings.listener_connection_limit, 1),
        ("globalDownstreamConnectionLimit", settings.global_downstream_connection_limit, 1),
    ] {
        if let Some(value) = value.filter(|value| *value < least) {
            at.field(field).error("InvalidNumber", format!("{field} must be at least {least}, not {value}"));
        }
    }
    for (field, value) in [
        ("httpIdleTimeout", settings.http_idle_timeout),
        ("httpMaxConnectionDuration", settings.http_max_connection_duration),
        ("httpDrainTimeout", settings.http_drain_timeout),
        ("httpRequestTimeout", settings.http_request_timeout),
        ("httpRequestHeadersTimeout", settings.http_request_headers_timeout),
        ("httpStreamIdleTimeout", settings.http_stream_idle_timeout),
        ("httpMaxStreamDuration", settings.http_max_stream_duration),
    ] {
        if let Some(value) = value.filter(|value| value.is_negative()) {
            at.field(field).error("InvalidDuration", format!("{field} must be non-negative, not {value}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::mesh::ProxyConfig;
    use crate::validate::testing::problems;

    #[test]
    fn settings_of_proxies() {
        for (text, expected) in [
            ("configPath: ''", "E configPath: config path must be set"),
            ("binaryPath: ''", "E binaryPath: binary path must be set"),
            ("serviceCluster: ''", "E serviceCluster: oneof service cluster"),
            ("tracingServiceName: CANONICAL_NAME_ONLY", ""),
            ("drainDuration: 0s", "E drainDuration: invalid drain duration: duration 0s"),
            ("drainDuration: 1.5s", "E drainDuration: drain time only supports"),
            ("discoveryAddress: ''", "E discoveryAddress: discovery address must be set"),
            ("discoveryAddress: '10.0.0.100'", "E discoveryAddress: invalid discovery address"),
            ("statsdUdpAddress: 10.0.0.100", "E statsdUdpAddress: invalid statsd udp address"),
            ("envoyMetricsService: {address: metrics-service}", "E envoyMetricsService: invalid envoy metrics service"),
            (
                "envoyAccessLogService: {address: accesslog-service}",
                "E envoyAccessLogService: invalid envoy access log",
            ),
            ("tracing: {zipkin: {address: '$(HOST_IP):9411'}}", ""),
            ("tracing: {zipkin: {address: a}}", "E tracing.zipkin.address: invalid zipkin config"),
            ("tracing: {lightstep: {address: 'a:80'}}", "E tracing.lightstep.accessToken: invalid lightstep"),
            ("tracing: {tlsSettings: {mode: MUTUAL, clientCertificate: /c}}", "E tracing.tlsSettings.privateKey"),
            ("proxyMetadata: {ISTIO_META_DNS_AUTO_ALLOCATE: 'true'}", "W proxyMetadata.ISTIO_META_DNS_AUTO_ALLOCATE"),
            ("proxyAdminPort: 0", "E proxyAdminPort: invalid proxy admin port"),
            ("controlPlaneAuthPolicy: INHERIT", "E controlPlaneAuthPolicy: unrecognized"),
            ("privateKeyProvider: {}", "E privateKeyProvider: private key provider configuration is required"),
            ("privateKeyProvider: {cryptomb: {}}", "E privateKeyProvider.cryptomb.pollDelay: pollDelay is required"),
            (
                "privateKeyProvider: {qat: {pollDelay: 0s}}",
                "E privateKeyProvider.qat.pollDelay: pollDelay must be non zero",
            ),
            ("connectionSettings: {httpMaxConcurrentStreams: 0}", "E connectionSettings.httpMaxConcurrentStreams"),
            (
                "connectionSettings: {http2InitialStreamWindowSize: 65534}",
                "E connectionSettings.http2InitialStreamWindowSize",
            ),
            ("connectionSettings: {httpIdleTimeout: -1s}", "E connectionSettings.httpIdleTimeout"),
            ("connectionSettings: {httpIdleTimeout: 0s}", ""),
        ] {
            let (config, told) = ProxyConfig::default().apply(&"f".into(), text);
            assert!(told.is_empty(), "{text}: {told:?}");
            let found = problems(&config).join("\n");
            assert!(found.starts_with(expected) && found.is_empty() == expected.is_empty(), "{text}: {found}");
        }
    }
}
