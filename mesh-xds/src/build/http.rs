//! The HTTP connection manager: one place for what all HTTP filter chains share, so that sidecars and gateways differ
//! only in what they say here.

use envoy_types::pb::envoy::config::core::v3::{
    AggregatedConfigSource, ApiVersion, ConfigSource, Http1ProtocolOptions, config_source::ConfigSourceSpecifier,
};
use envoy_types::pb::envoy::config::listener::v3::Filter;
use envoy_types::pb::envoy::config::route::v3::RouteConfiguration;
use envoy_types::pb::envoy::extensions::filters::http::{cors, fault, grpc_stats, grpc_web, router};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds,
    http_connection_manager::{
        ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier, ServerHeaderTransformation,
        SetCurrentClientCertDetails, UpgradeConfig,
    },
};
use mesh_api::mesh::{MeshConfig, PathNormalization};

use super::{access_log, bool_value, duration, network_filter, pack};
use crate::model::{Protocol, Settings};

/// The name of the HTTP connection manager filter.
pub const HTTP_CONNECTION_MANAGER: &str = "envoy.filters.network.http_connection_manager";

/// Where the routes of a connection manager come from.
#[derive(Clone, Debug)]
pub enum Routes {
    /// By name, over RDS.
    Rds(String),
    /// Written into the listener.
    Inline(Box<RouteConfiguration>),
}

/// Who talks to the listener.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The sidecar's own application.
    Outbound,
    /// Other workloads, to the sidecar's application.
    Inbound,
    /// Anybody, to a gateway.
    Gateway,
}

/// What differs between connection managers.
#[derive(Clone, Debug)]
pub struct Http {
    /// The prefix of its statistics, e.g. `outbound_0.0.0.0_80`; a delimiter is appended.
    pub stat_prefix: String,
    /// Where routes come from.
    pub routes: Routes,
    /// Who talks to it.
    pub side: Side,
    /// What the port speaks.
    pub protocol: Protocol,
    /// Trust the connection's address rather than `X-Forwarded-For`.
    pub use_remote_address: bool,
    /// How many proxies in front are trusted with `X-Forwarded-For`.
    pub xff_num_trusted_hops: u32,
    /// What becomes of `X-Forwarded-Client-Cert`; `None` keeps Envoy's default (sanitize).
    pub forward_client_cert: Option<ForwardClientCertDetails>,
    /// Accept HTTP/1.0.
    pub http10: bool,
    /// Security filters, first in the chain.
    pub filters: Vec<HttpFilter>,
}

impl Http {
    /// A connection manager with the defaults of its side.
    pub fn new(side: Side, stat_prefix: impl Into<String>, routes: Routes, protocol: Protocol) -> Self {
        Self {
            stat_prefix: stat_prefix.into(),
            routes,
            side,
            protocol,
            use_remote_address: false,
            xff_num_trusted_hops: 0,
            forward_client_cert: None,
            http10: false,
            filters: Vec::new(),
        }
    }

    /// The network filter.
    pub fn filter(self, settings: &Settings) -> Filter {
        network_filter(HTTP_CONNECTION_MANAGER, &self.connection_manager(settings))
    }

    /// The connection manager itself.
    pub fn connection_manager(self, settings: &Settings) -> HttpConnectionManager {
        let mesh = &settings.mesh;
        let (normalize, merge, escaped) = normalization(mesh);
        let route_specifier = match self.routes {
            Routes::Rds(name) => RouteSpecifier::Rds(Rds { config_source: Some(ads(0)), route_config_name: name }),
            Routes::Inline(config) => RouteSpecifier::RouteConfig(*config),
        };
        let http_protocol_options = (self.http10 || settings.features.flag("PILOT_HTTP10", false))
            .then(|| Http1ProtocolOptions { accept_http_10: true, ..Default::default() });
        let set_current_client_cert_details = self.forward_client_cert.map(|_| SetCurrentClientCertDetails {
            subject: bool_value(true),
            cert: self.side == Side::Gateway,
            dns: true,
            uri: true,
            ..Default::default()
        });
        let mut http_filters = self.filters;
        http_filters.extend(tail(self.protocol));
        HttpConnectionManager {
            stat_prefix: format!("{};", self.stat_prefix),
            route_specifier: Some(route_specifier),
            http_filters,
            access_log: access_log::http(mesh),
            http_protocol_options,
            normalize_path: bool_value(normalize),
            merge_slashes: merge,
            path_with_escaped_slashes_action: escaped as i32,
            use_remote_address: bool_value(self.use_remote_address),
            xff_num_trusted_hops: self.xff_num_trusted_hops,
            forward_client_cert_details: self.forward_client_cert.unwrap_or_default() as i32,
            set_current_client_cert_details,
            server_name: "istio-envoy".into(),
            server_header_transformation: match self.side {
                Side::Inbound => ServerHeaderTransformation::PassThrough as i32,
                Side::Outbound | Side::Gateway => ServerHeaderTransformation::Overwrite as i32,
            },
            upgrade_configs: vec![UpgradeConfig { upgrade_type: "websocket".into(), ..Default::default() }],
            // Streams live as long as both ends want them; routes have timeouts of their own.
            stream_idle_timeout: duration(0),
            proxy_100_continue: true,
            ..Default::default()
        }
    }
}

/// The filters that every chain ends with, the router last.
fn tail(protocol: Protocol) -> Vec<HttpFilter> {
    let mut out = Vec::new();
    if protocol == Protocol::GrpcWeb {
        out.push(http_filter("envoy.filters.http.grpc_web", &grpc_web::v3::GrpcWeb::default()));
    }
    let stats = grpc_stats::v3::FilterConfig {
        emit_filter_state: true,
        per_method_stat_specifier: Some(grpc_stats::v3::filter_config::PerMethodStatSpecifier::StatsForAllMethods(
            envoy_types::pb::google::protobuf::BoolValue { value: false },
        )),
        ..Default::default()
    };
    out.push(http_filter("envoy.filters.http.grpc_stats", &stats));
    out.push(http_filter("envoy.filters.http.fault", &fault::v3::HttpFault::default()));
    out.push(http_filter("envoy.filters.http.cors", &cors::v3::Cors::default()));
    out.push(http_filter("envoy.filters.http.router", &router::v3::Router::default()));
    out
}

/// An HTTP filter with its configuration.
pub fn http_filter<M: prost::Message + prost::Name>(name: &str, config: &M) -> HttpFilter {
    use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
    HttpFilter { name: name.into(), config_type: Some(ConfigType::TypedConfig(pack(config))), ..Default::default() }
}

/// "From the ADS stream", with the time in seconds that a listener or cluster waits for it before going on without; 0 waits
/// for ever.
pub fn ads(initial_fetch_timeout: i64) -> ConfigSource {
    ConfigSource {
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        initial_fetch_timeout: duration(initial_fetch_timeout),
        resource_api_version: ApiVersion::V3 as i32,
        ..Default::default()
    }
}

fn normalization(mesh: &MeshConfig) -> (bool, bool, PathWithEscapedSlashesAction) {
    let keep = PathWithEscapedSlashesAction::KeepUnchanged;
    match mesh.path_normalization.as_ref().map(|p| p.normalization).unwrap_or_default() {
        PathNormalization::None => (false, false, keep),
        PathNormalization::Default | PathNormalization::Base => (true, false, keep),
        PathNormalization::MergeSlashes => (true, true, keep),
        PathNormalization::DecodeAndMergeSlashes => (true, true, PathWithEscapedSlashesAction::UnescapeAndForward),
    }
}
