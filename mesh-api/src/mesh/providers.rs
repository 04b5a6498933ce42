//! Extension providers: the services that traces, logs, metrics and authorization requests go to, by name.

use super::*;

settings! {
    /// A service that extends the mesh. Policies refer to it by name.
    #[derive(Default)]
    pub struct ExtensionProvider {
        /// Its name.
        pub name: String,
        oneof {
            /// What it is.
            pub provider: Provider {
                /// Authorization over HTTP.
                envoy_ext_authz_http => EnvoyExtAuthzHttp(EnvoyExternalAuthorizationHttpProvider),
                /// Authorization over gRPC.
                envoy_ext_authz_grpc => EnvoyExtAuthzGrpc(EnvoyExternalAuthorizationGrpcProvider),
                /// Traces for Zipkin.
                zipkin => Zipkin(ZipkinTracingProvider),
                /// Traces for Lightstep. Deprecated.
                lightstep => Lightstep(LightstepTracingProvider),
                /// Traces for Datadog.
                datadog => Datadog(DatadogTracingProvider),
                /// Traces, logs and metrics for Google Cloud.
                stackdriver => Stackdriver(StackdriverProvider),
                /// Traces for OpenCensus. Deprecated.
                opencensus => Opencensus(OpenCensusAgentTracingProvider),
                /// Traces for SkyWalking.
                skywalking => Skywalking(SkyWalkingTracingProvider),
                /// Traces for OpenTelemetry.
                opentelemetry => Opentelemetry(OpenTelemetryTracingProvider),
                /// Metrics for Prometheus.
                prometheus => Prometheus(PrometheusMetricsProvider),
                /// Access logs in a file.
                envoy_file_access_log => EnvoyFileAccessLog(EnvoyFileAccessLogProvider),
                /// HTTP access logs over gRPC.
                envoy_http_als => EnvoyHttpAls(EnvoyHttpGrpcV3LogProvider),
                /// TCP access logs over gRPC.
                envoy_tcp_als => EnvoyTcpAls(EnvoyTcpGrpcV3LogProvider),
                /// Access logs for OpenTelemetry.
                envoy_otel_als => EnvoyOtelAls(EnvoyOpenTelemetryLogProvider),
                /// Certificates from a server of others.
                sds => Sds(SdsProvider),
            }
        }
    }
}

settings! {
    /// How much of a request's body the authorization service sees.
    #[derive(Default)]
    pub struct EnvoyExternalAuthorizationRequestBody {
        /// Most bytes that are held back.
        pub max_request_bytes: u32,
        /// Whether a longer body is cut (otherwise the request is refused).
        pub allow_partial_message: bool,
        /// Whether it is sent as bytes (otherwise as UTF-8).
        pub pack_as_bytes: bool,
    }
}

settings! {
    /// An authorization service that speaks HTTP.
    #[derive(Default)]
    pub struct EnvoyExternalAuthorizationHttpProvider {
        /// `[namespace/]host` of the service.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// How long it may take. Default: 600 s.
        pub timeout: Option<Duration>,
        /// Put before the path of the request.
        pub path_prefix: String,
        /// Whether requests pass when the service fails.
        pub fail_open: bool,
        /// Whether the route is chosen again afterwards.
        pub clear_route_cache: bool,
        /// Status for the client when the service fails. Default: 403.
        pub status_on_error: String,
        /// Deprecated for `include_request_headers_in_check`.
        pub include_headers_in_check: Vec<String>,
        /// Headers of the request that the service sees; `*` may begin or end a name.
        pub include_request_headers_in_check: Vec<String>,
        /// Headers added to the check.
        pub include_additional_headers_in_check: BTreeMap<String, String>,
        /// How much of the body it sees. Default: nothing.
        pub include_request_body_in_check: Option<EnvoyExternalAuthorizationRequestBody>,
        /// Headers of its answer that go on to the service behind.
        pub headers_to_upstream_on_allow: Vec<String>,
        /// Headers of its answer that the client gets on refusal. Default: all.
        pub headers_to_downstream_on_deny: Vec<String>,
        /// Headers of its answer that the client gets on success.
        pub headers_to_downstream_on_allow: Vec<String>,
    }
}

settings! {
    /// An authorization service that speaks gRPC.
    #[derive(Default)]
    pub struct EnvoyExternalAuthorizationGrpcProvider {
        /// `[namespace/]host` of the service.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// How long it may take. Default: 600 s.
        pub timeout: Option<Duration>,
        /// Whether requests pass when the service fails.
        pub fail_open: bool,
        /// Whether the route is chosen again afterwards.
        pub clear_route_cache: bool,
        /// Status for the client when the service fails. Default: 403.
        pub status_on_error: String,
        /// How much of the body it sees. Default: nothing.
        pub include_request_body_in_check: Option<EnvoyExternalAuthorizationRequestBody>,
    }
}

settings! {
    /// Traces for Zipkin.
    #[derive(Default)]
    pub struct ZipkinTracingProvider {
        /// `[namespace/]host` of the service.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// Longest tag; 0 is Istio's choice.
        pub max_tag_length: u32,
        /// Whether trace ids have 64 bits (otherwise 128).
        pub enable_64bit_trace_id: bool,
        /// Path of the collector. Default: `/api/v2/spans`.
        pub path: String,
        /// Which headers carry the trace.
        pub trace_context_option: TraceContextOption,
        /// How long the collector may take.
        pub timeout: Option<Duration>,
        /// Headers for the collector.
        pub headers: Vec<ProviderHttpHeader>,
    }
}

enumeration! {
    /// Headers that carry a trace.
    pub enum TraceContextOption {
        /// B3 alone.
        #[default]
        UseB3,
        /// B3 and W3C's.
        #[serde(rename = "USE_B3_WITH_W3C_PROPAGATION")]
        UseB3WithW3cPropagation,
    }
}

settings! {
    /// Traces for Lightstep.
    #[derive(Default)]
    pub struct LightstepTracingProvider {
        /// `[namespace/]host` of the service.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// Token for it.
        pub access_token: String,
        /// Longest tag; 0 is Istio's choice.
        pub max_tag_length: u32,
    }
}

settings! {
    /// Traces for Datadog.
    #[derive(Default)]
    pub struct DatadogTracingProvider {
        /// `[namespace/]host` of the service.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// Longest tag; 0 is Istio's choice.
        pub max_tag_length: u32,
    }
}

settings! {
    /// Traces for SkyWalking.
    #[derive(Default)]
    pub struct SkyWalkingTracingProvider {
        /// `[namespace/]host` of the service.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// Token for it.
        pub access_token: String,
    }
}

settings! {
    /// Traces, logs and metrics for Google Cloud.
    #[derive(Default)]
    pub struct StackdriverProvider {
        /// Deprecated.
        pub debug: bool,
        /// Deprecated.
        pub max_number_of_attributes: Option<i64>,
        /// Deprecated.
        pub max_number_of_annotations: Option<i64>,
        /// Deprecated.
        pub max_number_of_message_events: Option<i64>,
        /// Longest tag; 0 is Istio's choice.
        pub max_tag_length: u32,
        /// Settings for logs.
        pub logging: Option<StackdriverLogging>,
    }
}

settings! {
    /// Settings for logs in Google Cloud.
    #[derive(Default)]
    pub struct StackdriverLogging {
        /// Labels for each line, as CEL expressions.
        pub labels: BTreeMap<String, String>,
    }
}

settings! {
    /// Traces for OpenCensus.
    #[derive(Default)]
    pub struct OpenCensusAgentTracingProvider {
        /// `[namespace/]host` of the service.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// Which headers carry the trace.
        pub context: Vec<OpenCensusTraceContext>,
        /// Longest tag; 0 is Istio's choice.
        pub max_tag_length: u32,
    }
}

enumeration! {
    /// Headers that carry a trace.
    pub enum OpenCensusTraceContext {
        /// Not said.
        #[default]
        Unspecified,
        /// W3C's.
        #[serde(rename = "W3C_TRACE_CONTEXT")]
        W3cTraceContext,
        /// gRPC's binary ones.
        GrpcBin,
        /// Google Cloud's.
        CloudTraceContext,
        /// B3.
        B3,
    }
}

settings! {
    /// Metrics that Prometheus fetches.
    #[derive(Default)]
    pub struct PrometheusMetricsProvider {}
}

settings! {
    /// Access logs in a file.
    #[derive(Default)]
    pub struct EnvoyFileAccessLogProvider {
        /// The file.
        pub path: String,
        /// Form of a line. Default: Istio's.
        pub log_format: Option<FileLogFormat>,
        /// Whether operators without a value are left out.
        pub omit_empty_values: bool,
    }
}

settings! {
    /// Form of a line in a file.
    #[derive(Default)]
    pub struct FileLogFormat {
        oneof {
            /// Which.
            pub log_format: LogFormatKind {
                /// Text with Envoy's operators.
                text => Text(String),
                /// A JSON object whose values hold Envoy's operators.
                labels => Labels(serde_json::Map<String, serde_json::Value>),
            }
        }
    }
}

settings! {
    /// HTTP access logs over gRPC.
    #[derive(Default)]
    pub struct EnvoyHttpGrpcV3LogProvider {
        /// `[namespace/]host` of the service.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// Name of the log. Default: `http_envoy_accesslog`.
        pub log_name: String,
        /// Filter state to log.
        pub filter_state_objects_to_log: Vec<String>,
        /// Further headers of the request.
        pub additional_request_headers_to_log: Vec<String>,
        /// Further headers of the response.
        pub additional_response_headers_to_log: Vec<String>,
        /// Further trailers of the response.
        pub additional_response_trailers_to_log: Vec<String>,
    }
}

settings! {
    /// TCP access logs over gRPC.
    #[derive(Default)]
    pub struct EnvoyTcpGrpcV3LogProvider {
        /// `[namespace/]host` of the service.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// Name of the log. Default: `tcp_envoy_accesslog`.
        pub log_name: String,
        /// Filter state to log.
        pub filter_state_objects_to_log: Vec<String>,
    }
}

settings! {
    /// Access logs for OpenTelemetry.
    #[derive(Default)]
    pub struct EnvoyOpenTelemetryLogProvider {
        /// `[namespace/]host` of the service.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// Name of the log. Default: `otel_envoy_accesslog`.
        pub log_name: String,
        /// Form of an entry.
        pub log_format: Option<OpenTelemetryLogFormat>,
    }
}

settings! {
    /// Form of an entry for OpenTelemetry; both may be given.
    #[derive(Default)]
    pub struct OpenTelemetryLogFormat {
        /// Its body, with Envoy's operators.
        pub text: String,
        /// Its attributes, whose values hold Envoy's operators.
        pub labels: serde_json::Map<String, serde_json::Value>,
    }
}

settings! {
    /// Traces for OpenTelemetry.
    #[derive(Default)]
    pub struct OpenTelemetryTracingProvider {
        /// `[namespace/]host` of the service.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// Longest tag; 0 is Istio's choice.
        pub max_tag_length: u32,
        /// Export over HTTP.
        pub http: Option<ProviderHttpService>,
        /// Export over gRPC, with settings.
        pub grpc: Option<ProviderGrpcService>,
        /// Where attributes of the resource come from.
        pub resource_detectors: Option<ResourceDetectors>,
        /// How services are named in spans.
        pub service_attribute_enrichment: ServiceAttributeEnrichment,
        oneof {
            /// Which requests are traced. Default: by the sampling rate.
            pub sampling: OpenTelemetrySampling {
                /// As Dynatrace says.
                dynatrace_sampler => DynatraceSampler(DynatraceSampler),
            }
        }
    }
}

enumeration! {
    /// How services are named in spans.
    pub enum ServiceAttributeEnrichment {
        /// By Istio's canonical names.
        #[default]
        IstioCanonical,
        /// By OpenTelemetry's conventions.
        OtelSemanticConventions,
    }
}

settings! {
    /// Sampling as Dynatrace says.
    #[derive(Default)]
    pub struct DynatraceSampler {
        /// Tenant.
        pub tenant: String,
        /// Cluster id.
        pub cluster_id: i32,
        /// Traces started a minute. Default: 1000.
        pub root_spans_per_minute: u32,
        /// Where sampling rates are fetched.
        pub http_service: Option<DynatraceApi>,
    }
}

settings! {
    /// Dynatrace's API.
    #[derive(Default)]
    pub struct DynatraceApi {
        /// `[namespace/]host` of the service.
        pub service: String,
        /// Its port.
        pub port: u32,
        /// Path, headers and timeout.
        pub http: Option<ProviderHttpService>,
    }
}

settings! {
    /// A server of certificates.
    #[derive(Default)]
    pub struct SdsProvider {
        /// Prefix of the credential names that it serves.
        pub name: String,
        /// `[namespace/]host` of the service.
        pub service: String,
        /// Its port.
        pub port: u32,
    }
}

settings! {
    /// How a provider is called over HTTP.
    #[derive(Default)]
    pub struct ProviderHttpService {
        /// Path.
        pub path: String,
        /// How long it may take.
        pub timeout: Option<Duration>,
        /// Headers.
        pub headers: Vec<ProviderHttpHeader>,
    }
}

settings! {
    /// How a provider is called over gRPC.
    #[derive(Default)]
    pub struct ProviderGrpcService {
        /// How long it may take.
        pub timeout: Option<Duration>,
        /// Metadata of each call.
        pub initial_metadata: Vec<ProviderHttpHeader>,
    }
}

settings! {
    /// A header.
    #[derive(Default)]
    pub struct ProviderHttpHeader {
        /// Its name.
        pub name: String,
        oneof {
            /// Its value.
            pub header_value: HeaderValue {
                /// The value.
                value => Value(String),
                /// The proxy's environment variable that holds it.
                env_name => EnvName(String),
            }
        }
    }
}

settings! {
    /// Where attributes of the resource come from.
    #[derive(Default)]
    pub struct ResourceDetectors {
        /// `OTEL_RESOURCE_ATTRIBUTES`.
        pub environment: Option<EnvironmentResourceDetector>,
        /// Dynatrace's files.
        pub dynatrace: Option<DynatraceResourceDetector>,
    }
}

settings! {
    /// Attributes from the environment.
    #[derive(Default)]
    pub struct EnvironmentResourceDetector {}
}

settings! {
    /// Attributes from Dynatrace's files.
    #[derive(Default)]
    pub struct DynatraceResourceDetector {}
}
