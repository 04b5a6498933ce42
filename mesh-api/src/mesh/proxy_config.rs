//! ProxyConfig as the mesh has it: how a proxy is started and how it treats all its traffic.

use super::*;
use crate::networking::ReadinessProbe;

settings! {
    /// How a proxy is started and how it treats all its traffic. [`ProxyConfig::default`] is what istiod assumes.
    pub struct ProxyConfig {
        /// Folder for generated configuration.
        pub config_path: String,
        /// The Envoy binary.
        pub binary_path: String,
        /// Service that the proxy counts itself to. Empty when `tracing_service_name` is given.
        pub service_cluster: String,
        /// How the proxy names itself in traces.
        pub tracing_service_name: Option<TracingServiceName>,
        /// How long connections are drained after a listener has gone.
        pub drain_duration: Duration,
        /// Address of the control plane.
        pub discovery_address: String,
        /// Deprecated and without effect.
        pub discovery_refresh_delay: Option<Duration>,
        /// Address of Zipkin. Deprecated for `tracing`.
        pub zipkin_address: String,
        /// Address of statsd.
        pub statsd_udp_address: String,
        /// Deprecated for `envoy_metrics_service`.
        pub envoy_metrics_service_address: String,
        /// Envoy's admin port.
        pub proxy_admin_port: i32,
        /// Deprecated.
        pub availability_zone: String,
        /// How the control plane is authenticated.
        pub control_plane_auth_policy: AuthenticationPolicy,
        /// A bootstrap file in place of the generated one.
        pub custom_config_file: String,
        /// Longest name in statistics.
        pub stat_name_length: i32,
        /// Envoy's threads; 0 means all cores. Default: by the CPU limit.
        pub concurrency: Option<i32>,
        /// A bootstrap template in place of the built-in one.
        pub proxy_bootstrap_template_path: String,
        /// How inbound traffic gets to the proxy.
        pub interception_mode: InboundInterceptionMode,
        /// Tracing.
        pub tracing: Option<Tracing>,
        /// Deprecated.
        pub sds: Option<Sds>,
        /// Where access logs go.
        pub envoy_access_log_service: Option<RemoteService>,
        /// Where metrics go.
        pub envoy_metrics_service: Option<RemoteService>,
        /// Environment of the proxy; what begins with `ISTIO_META_` becomes node metadata.
        pub proxy_metadata: BTreeMap<String, String>,
        /// Envoy's runtime settings.
        pub runtime_values: BTreeMap<String, String>,
        /// Port of the agent's probes and merged metrics.
        pub status_port: i32,
        /// Further tags that are taken out of statistics' names.
        pub extra_stat_tags: Vec<String>,
        /// What is in front of gateways.
        pub gateway_topology: Option<Topology>,
        /// How long the proxy drains when it is told to end.
        pub termination_drain_duration: Duration,
        /// Id of the mesh. Default: its trust domain.
        pub mesh_id: String,
        /// How a workload outside Kubernetes is checked.
        pub readiness_probe: Option<ReadinessProbe>,
        /// Further statistics to keep.
        pub proxy_stats_matcher: Option<ProxyStatsMatcher>,
        /// Whether the application waits for the proxy.
        pub hold_application_until_proxy_starts: Option<bool>,
        /// Further roots, in PEM.
        pub ca_certificates_pem: Vec<String>,
        /// The proxy's image.
        pub image: Option<ProxyImage>,
        /// Acceleration of private key operations.
        pub private_key_provider: Option<PrivateKeyProvider>,
        /// Which headers the proxy adds.
        pub proxy_headers: Option<ProxyHeaders>,
        /// How often log files are flushed.
        pub file_flush_interval: Option<Duration>,
        /// At how many KiB log files are flushed.
        pub file_flush_min_size_kb: u32,
        /// Whether metrics are compressed.
        pub stats_compression: Option<bool>,
        /// Limits and timeouts of connections.
        pub connection_settings: Option<ConnectionSettings>,
    }
}

enumeration! {
    /// How a proxy names itself in traces.
    pub enum TracingServiceName {
        /// `app` label and namespace.
        #[default]
        AppLabelAndNamespace,
        /// Canonical name.
        CanonicalNameOnly,
        /// Canonical name and namespace.
        CanonicalNameAndNamespace,
    }
}

enumeration! {
    /// How the control plane is authenticated.
    pub enum AuthenticationPolicy {
        /// Not at all.
        #[default]
        None,
        /// By mutual TLS.
        MutualTls,
        /// As the level above says.
        Inherit = 1000,
    }
}

enumeration! {
    /// How inbound traffic gets to the proxy.
    pub enum InboundInterceptionMode {
        /// By NAT; the client's address is lost.
        #[default]
        Redirect,
        /// By TPROXY; the client's address is kept.
        Tproxy,
        /// Not at all.
        None,
    }
}

settings! {
    /// Tracing.
    #[derive(Default)]
    pub struct Tracing {
        /// Further tags of a span.
        pub custom_tags: BTreeMap<String, TracingCustomTag>,
        /// Longest path in a span; 0 is Istio's choice.
        pub max_path_tag_length: u32,
        /// Per cent of requests that are traced.
        pub sampling: f64,
        /// TLS towards the tracer.
        pub tls_settings: Option<ClientTlsSettings>,
        /// Whether spans have Istio's tags. Default: yes.
        pub enable_istio_tags: Option<bool>,
        oneof {
            /// Where traces go.
            pub tracer: Tracer {
                /// Zipkin.
                zipkin => Zipkin(TracerAddress),
                /// Lightstep.
                lightstep => Lightstep(LightstepTracer),
                /// Datadog.
                datadog => Datadog(TracerAddress),
                /// Google Cloud.
                stackdriver => Stackdriver(StackdriverTracer),
                /// OpenCensus.
                open_census_agent => OpenCensusAgent(OpenCensusTracer),
            }
        }
    }
}

settings! {
    /// A tracer's address.
    #[derive(Default)]
    pub struct TracerAddress {
        /// `host:port`.
        pub address: String,
    }
}

settings! {
    /// Lightstep.
    #[derive(Default)]
    pub struct LightstepTracer {
        /// `host:port`.
        pub address: String,
        /// Token for it.
        pub access_token: String,
    }
}

settings! {
    /// Google Cloud.
    #[derive(Default)]
    pub struct StackdriverTracer {
        /// Whether spans are also printed.
        pub debug: bool,
        /// Most attributes of a span.
        pub max_number_of_attributes: Option<i64>,
        /// Most annotations of a span.
        pub max_number_of_annotations: Option<i64>,
        /// Most message events of a span.
        pub max_number_of_message_events: Option<i64>,
    }
}

settings! {
    /// OpenCensus.
    #[derive(Default)]
    pub struct OpenCensusTracer {
        /// `host:port`.
        pub address: String,
        /// Which headers carry the trace.
        pub context: Vec<OpenCensusTraceContext>,
    }
}

settings! {
    /// A tag of a span.
    #[derive(Default)]
    pub struct TracingCustomTag {
        oneof {
            /// Where its value comes from.
            pub r#type: TracingTagSource {
                /// It is always the same.
                literal => Literal(TagLiteral),
                /// From the proxy's environment.
                environment => Environment(TagLookup),
                /// From a header of the request.
                header => Header(TagLookup),
            }
        }
    }
}

settings! {
    /// A tag that is always the same.
    #[derive(Default)]
    pub struct TagLiteral {
        /// Its value.
        pub value: String,
    }
}

settings! {
    /// A tag that is looked up by name.
    #[derive(Default)]
    pub struct TagLookup {
        /// Name of the variable or header.
        pub name: String,
        /// Value where it is absent.
        pub default_value: String,
    }
}

settings! {
    /// Secret discovery. Deprecated.
    #[derive(Default)]
    pub struct Sds {
        /// Deprecated.
        pub enabled: bool,
        /// Deprecated.
        pub k8s_sa_jwt_path: String,
    }
}

settings! {
    /// What is in front of gateways.
    #[derive(Default)]
    pub struct Topology {
        /// How many proxies there are trusted.
        pub num_trusted_proxies: u32,
        /// What happens to `x-forwarded-client-cert`.
        pub forward_client_cert_details: ForwardClientCertDetails,
        /// Expect a PROXY protocol header.
        pub proxy_protocol: Option<ProxyProtocolConfiguration>,
    }
}

settings! {
    /// Settings of the PROXY protocol: none so far.
    #[derive(Default)]
    pub struct ProxyProtocolConfiguration {}
}

enumeration! {
    /// What happens to `x-forwarded-client-cert`.
    pub enum ForwardClientCertDetails {
        /// Not said.
        #[default]
        Undefined,
        /// It is removed.
        Sanitize,
        /// It is passed on where the client used mutual TLS.
        ForwardOnly,
        /// The client's certificate is added to it.
        AppendForward,
        /// The client's certificate takes its place.
        SanitizeSet,
        /// It is always passed on.
        AlwaysForwardOnly,
    }
}

settings! {
    /// Acceleration of private key operations.
    #[derive(Default)]
    pub struct PrivateKeyProvider {
        oneof {
            /// By what.
            pub provider: PrivateKeyAccelerator {
                /// Vector instructions.
                cryptomb => Cryptomb(AcceleratorSettings),
                /// A QAT card.
                qat => Qat(AcceleratorSettings),
            }
        }
    }
}

settings! {
    /// Settings of an accelerator.
    #[derive(Default)]
    pub struct AcceleratorSettings {
        /// How long it waits for more to do.
        pub poll_delay: Option<Duration>,
        /// Whether plain computation stands in where it is missing.
        pub fallback: Option<bool>,
    }
}

settings! {
    /// A service of the mesh's operators.
    #[derive(Default)]
    pub struct RemoteService {
        /// `host:port`.
        pub address: String,
        /// TLS towards it.
        pub tls_settings: Option<ClientTlsSettings>,
        /// TCP keepalive towards it.
        pub tcp_keepalive: Option<TcpKeepalive>,
    }
}

settings! {
    /// Statistics to keep besides Istio's.
    #[derive(Default)]
    pub struct ProxyStatsMatcher {
        /// By the beginning of their names.
        pub inclusion_prefixes: Vec<String>,
        /// By the end of their names.
        pub inclusion_suffixes: Vec<String>,
        /// By a regular expression.
        pub inclusion_regexps: Vec<String>,
    }
}

settings! {
    /// The proxy's image.
    #[derive(Default)]
    pub struct ProxyImage {
        /// `default`, `debug`, `distroless`.
        pub image_type: String,
    }
}

settings! {
    /// Which headers the proxy adds.
    #[derive(Default)]
    pub struct ProxyHeaders {
        /// What happens to `x-forwarded-client-cert`.
        pub forwarded_client_cert: ForwardClientCertDetails,
        /// Which parts of the client's certificate it tells.
        pub set_current_client_cert_details: Option<SetCurrentClientCertDetails>,
        /// `x-request-id`.
        pub request_id: Option<DisabledHeader>,
        /// `server`.
        pub server: Option<ServerHeader>,
        /// `x-envoy-attempt-count`.
        pub attempt_count: Option<DisabledHeader>,
        /// Envoy's own headers.
        pub envoy_debug_headers: Option<DisabledHeader>,
        /// `x-envoy-peer-metadata`.
        pub metadata_exchange_headers: Option<MetadataExchangeHeaders>,
        /// Whether headers of HTTP/1 keep their letter case.
        pub preserve_http1_header_case: Option<bool>,
        /// `x-forwarded-host`.
        pub x_forwarded_host: Option<EnabledHeader>,
        /// `x-forwarded-port`.
        pub x_forwarded_port: Option<EnabledHeader>,
    }
}

impl ProxyHeaders {
    /// Takes over those of the five older parts that are not said here.
    pub(super) fn inherit(&mut self, before: &Self) {
        if self.forwarded_client_cert == ForwardClientCertDetails::Undefined {
            self.forwarded_client_cert = before.forwarded_client_cert;
        }
        for (own, old) in [
            (&mut self.request_id, &before.request_id),
            (&mut self.attempt_count, &before.attempt_count),
            (&mut self.envoy_debug_headers, &before.envoy_debug_headers),
        ] {
            if own.is_none() {
                own.clone_from(old);
            }
        }
        if self.server.is_none() {
            self.server.clone_from(&before.server);
        }
    }
}

settings! {
    /// Which parts of the client's certificate are told.
    #[derive(Default)]
    pub struct SetCurrentClientCertDetails {
        /// Subject. Default: yes.
        pub subject: Option<bool>,
        /// The certificate.
        pub cert: Option<bool>,
        /// Its chain.
        pub chain: Option<bool>,
        /// DNS names. Default: yes.
        pub dns: Option<bool>,
        /// URIs. Default: yes.
        pub uri: Option<bool>,
    }
}

settings! {
    /// A header that can be turned off.
    #[derive(Default)]
    pub struct DisabledHeader {
        /// Whether it is off.
        pub disabled: Option<bool>,
    }
}

settings! {
    /// A header that can be turned on.
    #[derive(Default)]
    pub struct EnabledHeader {
        /// Whether it is on.
        pub enabled: Option<bool>,
    }
}

settings! {
    /// The header `server`.
    #[derive(Default)]
    pub struct ServerHeader {
        /// Whether it is left as the application sent it.
        pub disabled: Option<bool>,
        /// Its value. Default: `istio-envoy`.
        pub value: String,
    }
}

settings! {
    /// When `x-envoy-peer-metadata` is sent.
    #[derive(Default)]
    pub struct MetadataExchangeHeaders {
        /// When.
        pub mode: MetadataExchangeMode,
    }
}

enumeration! {
    /// When `x-envoy-peer-metadata` is sent.
    pub enum MetadataExchangeMode {
        /// Always.
        #[default]
        Undefined,
        /// To services of the mesh.
        InMesh,
    }
}

settings! {
    /// Limits and timeouts of connections.
    #[derive(Default)]
    pub struct ConnectionSettings {
        /// The defaults of the rest.
        pub profile: ConnectionProfile,
        /// Buffer of a listener's connection.
        pub listener_per_connection_buffer_limit_bytes: Option<i32>,
        /// Buffer of a cluster's connection.
        pub cluster_per_connection_buffer_limit_bytes: Option<i32>,
        /// After so long without requests a connection is closed.
        pub http_idle_timeout: Option<Duration>,
        /// A connection lives no longer.
        pub http_max_connection_duration: Option<Duration>,
        /// How long a connection drains.
        pub http_drain_timeout: Option<Duration>,
        /// How long a request may take to arrive.
        pub http_request_timeout: Option<Duration>,
        /// How long its headers may take to arrive.
        pub http_request_headers_timeout: Option<Duration>,
        /// How long a stream may be silent.
        pub http_stream_idle_timeout: Option<Duration>,
        /// A stream lives no longer.
        pub http_max_stream_duration: Option<Duration>,
        /// Most streams at once.
        pub http_max_concurrent_streams: Option<i32>,
        /// HTTP/2 window of a stream.
        pub http2_initial_stream_window_size: Option<i32>,
        /// HTTP/2 window of a connection.
        pub http2_initial_connection_window_size: Option<i32>,
        /// What happens to headers with underscores.
        pub http_headers_with_underscores_action: HeadersWithUnderscoresAction,
        /// Whether slashes are joined.
        pub http_merge_slashes: Option<bool>,
        /// What happens to paths with escaped slashes.
        pub http_path_with_escaped_slashes_action: PathWithEscapedSlashesAction,
        /// Most connections of a listener.
        pub listener_connection_limit: Option<i32>,
        /// Most connections of the proxy.
        pub global_downstream_connection_limit: Option<i32>,
    }
}

enumeration! {
    /// Where a proxy stands.
    pub enum ConnectionProfile {
        /// Beside a workload.
        #[default]
        Sidecar,
        /// At the edge of the mesh, before clients that nobody trusts.
        Edge,
    }
}

enumeration! {
    /// What happens to headers with underscores.
    pub enum HeadersWithUnderscoresAction {
        /// By the profile.
        #[default]
        HeadersWithUnderscoresUnspecified,
        /// They are kept.
        HeadersWithUnderscoresAllow,
        /// The request is refused.
        HeadersWithUnderscoresRejectRequest,
        /// They are dropped.
        HeadersWithUnderscoresDropHeader,
    }
}

enumeration! {
    /// What happens to paths with escaped slashes.
    pub enum PathWithEscapedSlashesAction {
        /// By the profile.
        #[default]
        PathWithEscapedSlashesUnspecified,
        /// They are kept.
        KeepUnchanged,
        /// The request is refused.
        RejectRequest,
        /// The client is redirected to the plain path.
        UnescapeAndRedirect,
        /// The plain path is used.
        UnescapeAndForward,
    }
}
