//! Filter chains: how connections to one port are told apart, and what each of them gets.

use envoy_types::pb::envoy::config::listener::v3::{FilterChain, FilterChainMatch};
use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::ForwardClientCertDetails;
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};
use mesh_api::types::Duration;

use super::plan::PlannedPort;
use super::{VIRTUAL_INBOUND, tls};
use crate::build::access::Access;
use crate::build::cluster::{Defaults, stat_name, wire};
use crate::build::http::{Http, Routes, Side};
use crate::build::route::{inbound_route, origin_metadata};
use crate::build::{BLACKHOLE_CLUSTER, TCP_PROXY, access_log, bool_value, network_filter, u32_value};
use crate::class::Server;
use crate::lower::virtual_service::mesh_inbound_retries;
use crate::model::peer_authentication::MtlsMode;
use crate::model::{Protocol, Settings};

/// Mesh mTLS that a client has seen HTTP in.
const MTLS_HTTP: &[&str] = &["istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// Mesh mTLS around bytes.
const MTLS_TCP: &[&str] = &["istio-peer-exchange", "istio"];
/// Any mesh mTLS.
const MTLS_ANY: &[&str] = &["istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// HTTP in plaintext, as the HTTP inspector names it.
const PLAIN_HTTP: &[&str] = &["http/1.1", "h2c"];
const PLAIN_HTTP_10: &[&str] = &["http/1.0", "http/1.1", "h2c"];

/// One way to come in.
struct Way {
    http: bool,
    /// TLS ends here.
    terminates: bool,
    transport: &'static str,
    alpn: &'static [&'static str],
}

const fn way(http: bool, terminates: bool, transport: &'static str, alpn: &'static [&'static str]) -> Way {
    Way { http, terminates, transport, alpn }
}

/// What the chains of a listener share.
pub(super) struct Context<'a> {
    pub(super) settings: &'a Settings,
    pub(super) defaults: &'a Defaults,
    pub(super) server: &'a Server,
    /// What everything that comes in must pass.
    pub(super) access: &'a Access,
}

impl Context<'_> {
    fn http10(&self) -> bool {
        self.settings.features.flag("PILOT_HTTP10", false) || matches!(self.server.metadata("HTTP10"), "1" | "true")
    }

    /// The ways into a port, by what is spoken and what is accepted.
    fn ways(&self, protocol: Protocol, mode: MtlsMode) -> Vec<Way> {
        const TLS: &str = "tls";
        const RAW: &str = "raw_buffer";
        let plain_http = if self.settings.features.flag("PILOT_HTTP10", false) { PLAIN_HTTP_10 } else { PLAIN_HTTP };
        let (http, sniffed) = (protocol.is_http(), protocol.is_sniffed());
        match mode {
            MtlsMode::Strict if http => vec![way(true, true, TLS, &[])],
            MtlsMode::Strict if sniffed => vec![way(true, true, TLS, MTLS_HTTP), way(false, true, TLS, &[])],
            MtlsMode::Strict => vec![way(false, true, TLS, &[])],
            MtlsMode::Permissive if http => vec![way(true, true, TLS, MTLS_ANY), way(true, false, RAW, &[])],
            MtlsMode::Permissive if sniffed => vec![
                way(true, true, TLS, MTLS_HTTP),
                way(true, false, RAW, plain_http),
                way(false, true, TLS, MTLS_TCP),
                way(false, false, RAW, &[]),
                // TLS between the applications themselves.
                way(false, false, TLS, &[]),
            ],
            MtlsMode::Permissive => {
                vec![way(false, true, TLS, MTLS_ANY), way(false, false, TLS, &[]), way(false, false, RAW, &[])]
            }
            MtlsMode::Disable | MtlsMode::Unknown if http => vec![way(true, false, RAW, &[])],
            MtlsMode::Disable | MtlsMode::Unknown if sniffed => {
                vec![way(true, false, RAW, plain_http), way(false, false, RAW, &[])]
            }
            // The application may well end TLS itself.
            MtlsMode::Disable | MtlsMode::Unknown => vec![way(false, false, RAW, &[])],
        }
    }

    /// The chains of a port.
    pub(super) fn chains(&self, port: &PlannedPort) -> Vec<FilterChain> {
        // TLS of the user only where the mesh's does not claim the port.
        if let (Some(own), MtlsMode::Disable) = (&port.tls, port.mtls) {
            let way = way(port.protocol.is_http(), true, "tls", &[]);
            return vec![self.chain(port, &way, Some(tls::user(own, self.settings, self.defaults, self.server)))];
        }
        self.ways(port.protocol, port.mtls)
            .iter()
            .map(|way| {
                self.chain(port, way, way.terminates.then(|| tls::mesh(self.settings, self.defaults, self.server)))
            })
            .collect()
    }

    fn chain(
        &self,
        port: &PlannedPort,
        way: &Way,
        socket: Option<envoy_types::pb::envoy::config::core::v3::TransportSocket>,
    ) -> FilterChain {
        let name = match (port.passthrough, way.http) {
            (true, true) => "virtualInbound-catchall-http".to_owned(),
            (true, false) => VIRTUAL_INBOUND.to_owned(),
            (false, _) => port.listener_name(),
        };
        FilterChain {
            name,
            filter_chain_match: Some(FilterChainMatch {
                destination_port: if port.target > 0 { u32_value(port.target.into()) } else { None },
                transport_protocol: way.transport.to_owned(),
                application_protocols: way.alpn.iter().map(|p| (*p).to_owned()).collect(),
                ..FilterChainMatch::default()
            }),
            filters: if way.http { vec![self.http(port)] } else { self.tcp(port) },
            transport_socket: socket,
            metadata: port.source.as_ref().map(origin_metadata),
            ..FilterChain::default()
        }
    }

    fn http(&self, port: &PlannedPort) -> envoy_types::pb::envoy::config::listener::v3::Filter {
        let stat_prefix =
            if port.passthrough { port.cluster.clone() } else { format!("inbound_{}", port.listener_name()) };
        let routes = Routes::Inline(Box::new(routes(self.settings, port)));
        let mut http = Http::new(Side::Inbound, stat_prefix, routes, port.protocol);
        http.forward_client_cert = Some(ForwardClientCertDetails::AppendForward);
        http.http10 = self.http10();
        http.filters.clone_from(&self.access.http);
        http.filter(self.settings)
    }

    fn tcp(&self, port: &PlannedPort) -> Vec<envoy_types::pb::envoy::config::listener::v3::Filter> {
        let pattern = &self.settings.mesh.inbound_cluster_stat_name;
        let named = port.service.as_ref().filter(|_| !pattern.is_empty());
        let stat_prefix = named
            .and_then(|service| Some(stat_name(pattern, service, service.port(port.number)?, "", port.target)))
            .unwrap_or_else(|| port.cluster.clone());
        let idle = self.server.metadata("IDLE_TIMEOUT").parse::<Duration>().ok();
        let proxy = TcpProxy {
            stat_prefix,
            cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(port.cluster.clone())),
            idle_timeout: idle.map(wire::duration),
            access_log: access_log::tcp(&self.settings.mesh),
            ..TcpProxy::default()
        };
        let mut filters = self.access.tcp.clone();
        filters.push(network_filter(TCP_PROXY, &proxy));
        filters
    }

    /// Nobody may ask for the listener's own port: passed through, such a connection would come back for ever.
    pub(super) fn black_hole(&self) -> FilterChain {
        let proxy = TcpProxy {
            stat_prefix: BLACKHOLE_CLUSTER.to_owned(),
            cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(BLACKHOLE_CLUSTER.to_owned())),
            ..TcpProxy::default()
        };
        FilterChain {
            name: "virtualInbound-blackhole".to_owned(),
            filter_chain_match: Some(FilterChainMatch {
                destination_port: u32_value(self.settings.inbound_port().into()),
                ..FilterChainMatch::default()
            }),
            filters: vec![network_filter(TCP_PROXY, &proxy)],
            ..FilterChain::default()
        }
    }
}

/// One route to the application, without timeouts: the caller's count.
fn routes(settings: &Settings, port: &PlannedPort) -> RouteConfiguration {
    let grpc = matches!(port.protocol, Protocol::Grpc | Protocol::GrpcWeb);
    let operation = format!("{}:{}/*", port.host, port.number);
    let route = inbound_route(&port.cluster, &operation, grpc, mesh_inbound_retries(settings).as_ref());
    RouteConfiguration {
        name: port.cluster.clone(),
        virtual_hosts: vec![VirtualHost {
            name: format!("inbound|http|{}", port.number),
            domains: vec!["*".to_owned()],
            routes: vec![route],
            ..VirtualHost::default()
        }],
        validate_clusters: bool_value(false),
        ..RouteConfiguration::default()
    }
}
