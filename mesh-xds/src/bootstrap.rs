//! Envoy's bootstrap: who it is, where its control plane is, which ports it opens for the kubelet and for Prometheus, and
//! which of its statistics it keeps. A pure function, so `meshctl bootstrap` shows exactly what a pod would run with.
//!
//! It must be taken by a stock Envoy: no extension of Istio's own build is named here. The cluster names (`xds-grpc`,
//! `sds-grpc`, `prometheus_stats`, `agent`) are Istio's, since resources of the control plane refer to them.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

mod node;
mod proxy_config;
mod stats;

pub use node::{ISTIO_VERSION, Node, Role};
pub use proxy_config::{NotAProxyConfig, ProxyConfig, StatsMatcher};

/// What the bootstrap needs beyond the node and its ProxyConfig.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// The settings of the proxy.
    pub config: ProxyConfig,
    /// Where the kubelet asks for `/healthz/ready`.
    pub status_port: u16,
    /// Where Prometheus reads `/stats/prometheus`.
    pub prometheus_port: u16,
    /// Keep the statistics that draining looks at (`EXIT_ON_ZERO_ACTIVE_CONNECTIONS`).
    pub watch_connections: bool,
    /// The Unix socket on which the agent passes configuration on; `None`: Envoy speaks to the control plane itself, in plaintext.
    pub xds_socket: Option<String>,
    /// The Unix socket on which the agent, or another process, serves secrets.
    pub sds_socket: String,
    /// A firewall mark for Envoy's own connections, where the rules tell them by mark and not by owner.
    pub upstream_mark: Option<u32>,
}

impl Settings {
    /// Settings with Istio's ports.
    pub fn new(config: ProxyConfig) -> Self {
        Self {
            config,
            status_port: 15021,
            prometheus_port: 15090,
            watch_connections: false,
            xds_socket: None,
            sds_socket: "./var/run/secrets/workload-spiffe-uds/socket".into(),
            upstream_mark: None,
        }
    }
}

/// Why no bootstrap could be made. The fault is in ProxyConfig or in what was given as the proxy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootstrapError {
    /// The control plane's address is not `host:port`.
    #[error("discoveryAddress {0:?} is not host:port; check PROXY_CONFIG or --discovery-address")]
    DiscoveryAddress(String),
    /// A proxy description (P.json) lacks or misspells something.
    #[error("the proxy's description: {0}")]
    Description(String),
}

/// The bootstrap, in Envoy's JSON form.
///
/// # Errors
/// When the control plane's address is not `host:port`.
pub fn bootstrap(node: &Node, settings: &Settings) -> Result<Value, BootstrapError> {
    let config = &settings.config;
    let net = Net::of(&node.ips);
    let admin = socket(net.localhost, config.proxy_admin_port);
    let mut bootstrap = json!({
        "node": {
            "id": node.service_node(),
            "cluster": node.cluster(config),
            "locality": locality(&node.locality),
            "metadata": node.metadata,
        },
        "layered_runtime": { "layers": [
            { "name": "global config", "static_layer": runtime(config) },
            { "name": "admin", "admin_layer": {} },
        ]},
        "bootstrap_extensions": [{
            "name": "envoy.bootstrap.internal_listener",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
                "buffer_size_kb": 64,
            },
        }],
        "stats_config": stats::config(node, settings),
        "admin": {
            "access_log": [{
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": "/dev/null",
                },
            }],
            "address": admin,
        },
        "dynamic_resources": {
            // No timeout for the first configuration: an Envoy that gives up waiting would count as ready with nothing.
            "lds_config": { "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" },
            "cds_config": { "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" },
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "set_node_on_first_message_only": true,
                "transport_api_version": "V3",
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "xds-grpc" } }],
            },
        },
        "static_resources": {
            "clusters": [
                local_cluster("prometheus_stats", admin.clone()),
                local_cluster("agent", socket(net.localhost, config.status_port)),
                sds_cluster(&settings.sds_socket),
                xds_cluster(settings, net)?,
            ],
            "listeners": [
                listener(net, settings.prometheus_port, "stats", "/stats/prometheus", "prometheus_stats"),
                listener(net, settings.status_port, "agent", "/healthz/ready", "agent"),
            ],
        },
        "overload_manager": { "resource_monitors": [{
            "name": "envoy.resource_monitors.global_downstream_max_connections",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                "max_active_downstream_connections": max_connections(config),
            },
        }]},
    });
    if let (Some(mark), Some(root)) = (settings.upstream_mark, bootstrap.as_object_mut()) {
        root.insert("cluster_manager".into(), json!({ "upstream_bind_config": { "socket_options": [so_mark(mark)] } }));
    }
    Ok(bootstrap)
}

/// The bootstrap of a proxy described as `meshctl` describes one (P.json): `type`, `id` (`pod.namespace`), `ips`,
/// `namespace`, `labels`, `metadata`, `dnsDomain`, `istioVersion`, `locality`. A given `discovery_address` wins over the
/// one in `metadata.PROXY_CONFIG`.
///
/// # Errors
/// When the description misspells something, or as [`bootstrap`].
pub fn for_description(proxy: &Value, discovery_address: Option<&str>) -> Result<Value, BootstrapError> {
    let wrong = |text: String| BootstrapError::Description(text);
    let text = |key: &str| proxy.get(key).and_then(Value::as_str).unwrap_or_default();
    let role = if text("type").is_empty() { "sidecar" } else { text("type") };
    let mut ips = Vec::new();
    for ip in proxy.get("ips").and_then(Value::as_array).into_iter().flatten() {
        let ip = ip.as_str().unwrap_or_default();
        ips.push(ip.parse::<IpAddr>().map_err(|_| wrong(format!("{ip:?} in ips is no IP address")))?);
    }
    let mut metadata = proxy.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut config: ProxyConfig = match metadata.get("PROXY_CONFIG") {
        Some(value) => {
            serde_json::from_value(value.clone()).map_err(|e| wrong(format!("metadata.PROXY_CONFIG: {e}")))?
        }
        None => ProxyConfig::default(),
    };
    if let Some(address) = discovery_address {
        config.discovery_address = address.to_owned();
    }
    // The port says whether the agent stands between, with certificates, or Envoy speaks plaintext itself.
    let secure = config.discovery_address.ends_with(":15012");
    let namespace = if text("namespace").is_empty() { "default" } else { text("namespace") };
    let name = text("id").strip_suffix(&format!(".{namespace}")).unwrap_or(text("id"));
    let mut entry = |key: &str, value: Value| {
        metadata.entry(key).or_insert(value);
    };
    entry("NAMESPACE", namespace.into());
    if !secure {
        entry("MESH_MTLS", "false".into());
    }
    entry("NAME", name.into());
    entry("INSTANCE_IPS", ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",").into());
    entry("ISTIO_VERSION", if text("istioVersion").is_empty() { ISTIO_VERSION } else { text("istioVersion") }.into());
    if let Some(labels) = proxy.get("labels").filter(|labels| labels.as_object().is_some_and(|l| !l.is_empty())) {
        entry("LABELS", labels.clone());
    }
    metadata.insert("PROXY_CONFIG".into(), config.to_value());
    let dns_domain = match text("dnsDomain") {
        "" => format!("{namespace}.svc.cluster.local"),
        domain => domain.to_owned(),
    };
    let id = text("id").to_owned();
    let locality = text("locality").to_owned();
    let node = Node { role: role.parse().map_err(wrong)?, ips, id, dns_domain, locality, metadata };
    let mut settings = Settings::new(config);
    settings.xds_socket = secure.then(|| settings.config.xds_socket());
    bootstrap(&node, &settings)
}

/// Which addresses to bind, by the families of the pod's addresses.
#[derive(Clone, Copy)]
struct Net {
    localhost: &'static str,
    wildcard: &'static str,
    second_wildcard: Option<&'static str>,
    lookup: &'static str,
}

impl Net {
    fn of(ips: &[IpAddr]) -> Self {
        let first_v6 = ips.first().is_some_and(IpAddr::is_ipv6);
        let mixed = ips.iter().any(|ip| ip.is_ipv6() != first_v6);
        match (first_v6, mixed) {
            (false, false) => {
                Self { localhost: "127.0.0.1", wildcard: "0.0.0.0", second_wildcard: None, lookup: "V4_ONLY" }
            }
            (true, false) => Self { localhost: "::1", wildcard: "::", second_wildcard: None, lookup: "V6_ONLY" },
            (false, true) => {
                Self { localhost: "127.0.0.1", wildcard: "0.0.0.0", second_wildcard: Some("::"), lookup: "ALL" }
            }
            (true, true) => Self { localhost: "::1", wildcard: "::", second_wildcard: Some("0.0.0.0"), lookup: "ALL" },
        }
    }
}

fn socket(address: &str, port: u16) -> Value {
    json!({ "socket_address": { "protocol": "TCP", "address": address, "port_value": port } })
}

fn so_mark(mark: u32) -> Value {
    // SOL_SOCKET and SO_MARK of Linux.
    json!({ "description": "mark", "level": 1, "name": 36, "int_value": mark, "state": "STATE_PREBIND" })
}

fn locality(text: &str) -> Value {
    let parts = text.splitn(3, '/').zip(["region", "zone", "sub_zone"]).filter(|(part, _)| !part.is_empty());
    Value::Object(parts.map(|(part, key)| (key.to_owned(), part.into())).collect())
}

fn runtime(config: &ProxyConfig) -> Map<String, Value> {
    let mut flags = Map::new();
    flags.insert("re2.max_program_size.error_level".into(), "32768".into());
    flags.insert("envoy.reloadable_features.http_reject_path_with_fragment".into(), false.into());
    for (name, value) in &config.runtime_values {
        let value = match value.as_str() {
            "true" => true.into(),
            "false" => false.into(),
            text => text.into(),
        };
        flags.insert(name.clone(), value);
    }
    flags
}

fn max_connections(config: &ProxyConfig) -> i32 {
    let metadata = config.proxy_metadata.get("ISTIO_META_GLOBAL_DOWNSTREAM_MAX_CONNECTIONS");
    let runtime = config.runtime_values.get("overload.global_downstream_max_connections");
    metadata.or(runtime).and_then(|text| text.parse().ok()).unwrap_or(i32::MAX)
}

fn http2() -> Value {
    json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": { "http2_protocol_options": {
            // A control plane that vanished without closing (its node died) is noticed within this.
            "connection_keepalive": { "interval": "30s", "timeout": "10s" },
        }},
    }})
}

fn cluster(name: &str, kind: &str, timeout: &str, address: Value) -> Value {
    json!({
        "name": name,
        "type": kind,
        "connect_timeout": timeout,
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }],
        },
    })
}

fn local_cluster(name: &str, address: Value) -> Value {
    cluster(name, "STATIC", "0.250s", address)
}

fn pipe(path: &str) -> Value {
    json!({ "pipe": { "path": path } })
}

fn sds_cluster(path: &str) -> Value {
    let mut cluster = cluster("sds-grpc", "STATIC", "1s", pipe(path));
    extend(&mut cluster, json!({ "typed_extension_protocol_options": http2() }));
    cluster
}

fn xds_cluster(settings: &Settings, net: Net) -> Result<Value, BootstrapError> {
    let mut cluster = match &settings.xds_socket {
        Some(path) => cluster("xds-grpc", "STATIC", "1s", pipe(path)),
        None => discovery_cluster(&settings.config.discovery_address, net)?,
    };
    let limits = |priority: &str| {
        json!({
            "priority": priority, "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000,
        })
    };
    extend(
        &mut cluster,
        json!({
            "circuit_breakers": { "thresholds": [limits("DEFAULT"), limits("HIGH")] },
            "typed_extension_protocol_options": http2(),
        }),
    );
    Ok(cluster)
}

fn discovery_cluster(discovery_address: &str, net: Net) -> Result<Value, BootstrapError> {
    let wrong = || BootstrapError::DiscoveryAddress(discovery_address.to_owned());
    let (host, port) = discovery_address.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().map_err(|_| wrong())?;
    if host.is_empty() {
        return Err(wrong());
    }
    let kind = if host.parse::<IpAddr>().is_ok() { "STATIC" } else { "STRICT_DNS" };
    let mut cluster = cluster("xds-grpc", kind, "1s", socket(host, port));
    if kind == "STRICT_DNS" {
        extend(&mut cluster, json!({ "dns_lookup_family": net.lookup }));
    }
    extend(&mut cluster, json!({ "upstream_connection_options": { "tcp_keepalive": { "keepalive_time": 300 } } }));
    Ok(cluster)
}

fn extend(object: &mut Value, more: Value) {
    if let (Some(object), Value::Object(more)) = (object.as_object_mut(), more) {
        object.extend(more);
    }
}

fn listener(net: Net, port: u16, stat_prefix: &str, path: &str, cluster: &str) -> Value {
    let mut listener = json!({
        "address": socket(net.wildcard, port),
        // A pod at its connection limit must still answer the kubelet.
        "ignore_global_conn_limit": true,
        "filter_chains": [{ "filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "codec_type": "AUTO",
                "stat_prefix": stat_prefix,
                "route_config": { "virtual_hosts": [{
                    "name": "backend",
                    "domains": ["*"],
                    "routes": [{ "match": { "prefix": path }, "route": { "cluster": cluster } }],
                }]},
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
                }],
            },
        }]}],
    });
    if let Some(second) = net.second_wildcard {
        extend(&mut listener, json!({ "additional_addresses": [{ "address": socket(second, port) }] }));
    }
    listener
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests are told by the environment where an Envoy is")]
mod tests;
