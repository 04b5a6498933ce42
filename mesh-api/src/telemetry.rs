//! Telemetry of `telemetry.istio.io` as users write it: which traces, metrics and access logs workloads report, and to whom.

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResource;

use crate::object::served;
use crate::types::{
    Duration, IstioStatus, PolicyTargetReference, Serving, WorkloadSelector, crd, enumeration, message, schema,
};

served! {
    /// The kind as `telemetry.istio.io/v1alpha1` serves it.
    v1alpha1 = V1Alpha1: Telemetry
}

/// The definitions of all kinds of this group, for an apiserver.
pub fn crds() -> Vec<CustomResourceDefinition> {
    vec![crd::<Telemetry>(Serving { older: &["v1alpha1"], stored: Some("v1alpha1"), ..Serving::default() })]
}

message! {
    /// What workloads report, laid over what their namespace and the mesh say.
    ///
    /// ```
    /// use mesh_api::document;
    /// use mesh_api::telemetry::{AccessLogging, Telemetry, TelemetrySpec, Tracing};
    /// // No access logs; a trace of every tenth request.
    /// let yaml = "
    /// apiVersion: telemetry.istio.io/v1
    /// kind: Telemetry
    /// metadata: {name: quiet, namespace: bookinfo}
    /// spec:
    ///   accessLogging:
    ///   - disabled: true
    ///   tracing:
    ///   - randomSamplingPercentage: 10
    /// ";
    /// let spec = TelemetrySpec {
    ///     access_logging: vec![AccessLogging { disabled: Some(true), ..Default::default() }],
    ///     tracing: vec![Tracing { random_sampling_percentage: Some(10.0), ..Default::default() }],
    ///     ..Default::default()
    /// };
    /// assert_eq!(document::one::<Telemetry>(yaml)?.spec, spec);
    /// # Ok::<(), mesh_api::Diagnostic>(())
    /// ```
    #[derive(CustomResource)]
    #[kube(
        group = "telemetry.istio.io",
        version = "v1",
        kind = "Telemetry",
        plural = "telemetries",
        shortname = "telemetry",
        category = "istio-io",
        category = "telemetry-istio-io",
        namespaced,
        status = "IstioStatus",
        derive = "PartialEq",
        derive = "Default",
        doc = "What workloads report.",
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Time since the object was created.")
    )]
    #[schemars(extend("x-kubernetes-validations" = schema::one_target()))]
    pub struct TelemetrySpec {
        /// The workloads. Default: all of the namespace; in the root namespace, of the mesh.
        pub selector: Option<WorkloadSelector>,
        /// The object that it is attached to instead. Superseded by `target_refs`.
        pub target_ref: Option<PolicyTargetReference>,
        /// The objects that it is attached to instead.
        #[schemars(length(max = 16))]
        pub target_refs: Vec<PolicyTargetReference>,
        /// Traces.
        pub tracing: Vec<Tracing>,
        /// Metrics.
        pub metrics: Vec<Metrics>,
        /// Access logs.
        pub access_logging: Vec<AccessLogging>,
    }
}

message! {
    /// Settings of traces.
    pub struct Tracing {
        /// Which spans are meant.
        pub r#match: Option<TracingSelector>,
        /// Where they go; one provider at most.
        pub providers: Vec<ProviderRef>,
        /// Per cent of requests that are traced, 0.0 to 100.0. Default: as the level above says.
        #[schemars(range(min = 0, max = 100))]
        pub random_sampling_percentage: Option<f64>,
        /// Whether spans stay unreported; the context is passed on all the same.
        pub disable_span_reporting: Option<bool>,
        /// Further tags, by name.
        pub custom_tags: BTreeMap<String, CustomTag>,
        /// Whether the request id decides on sampling. Default: yes.
        pub use_request_id_for_trace_sampling: Option<bool>,
        /// Whether spans have Istio's tags. Default: yes.
        pub enable_istio_tags: Option<bool>,
        /// Whether the context is kept from the services behind.
        pub disable_context_propagation: Option<bool>,
    }
}

message! {
    /// Chooses spans.
    pub struct TracingSelector {
        /// By the proxy's role.
        pub mode: WorkloadMode,
    }
}

message! {
    /// Names a provider.
    #[schemars(extend("required" = ["name"]))]
    pub struct ProviderRef {
        /// Its name among the mesh's `extensionProviders`.
        #[schemars(length(min = 1))]
        pub name: String,
    }
}

message! {
    /// A tag of a span.
    pub struct CustomTag {
        oneof {
            /// Where its value comes from.
            pub r#type: CustomTagSource {
                /// It is always the same.
                literal => Literal(TagText),
                /// From the proxy's environment.
                environment => Environment(TagLookup),
                /// From a header of the request.
                header => Header(TagLookup),
                /// From Envoy's log operators.
                formatter => Formatter(TagText),
            }
        }
    }
}

message! {
    /// A tag's value, or the operators that give it.
    #[schemars(extend("required" = ["value"]))]
    pub struct TagText {
        /// The text.
        #[schemars(length(min = 1))]
        pub value: String,
    }
}

message! {
    /// A tag that is looked up by name.
    #[schemars(extend("required" = ["name"]))]
    pub struct TagLookup {
        /// Name of the variable or header.
        #[schemars(length(min = 1))]
        pub name: String,
        /// Value where it is absent.
        pub default_value: String,
    }
}

message! {
    /// Settings of metrics.
    pub struct Metrics {
        /// Where they go.
        pub providers: Vec<ProviderRef>,
        /// Changes to single metrics, in order.
        pub overrides: Vec<MetricsOverrides>,
        /// How often TCP metrics are updated. Default: 5 s.
        #[schemars(extend("x-kubernetes-validations" = schema::at_least_a_millisecond()))]
        pub reporting_interval: Option<Duration>,
    }
}

enumeration! {
    /// The proxy's role in an exchange.
    pub enum WorkloadMode {
        /// Either.
        #[default]
        ClientAndServer,
        /// It sends the request.
        Client,
        /// It takes the request.
        Server,
    }
}

message! {
    /// A change to some metrics.
    pub struct MetricsOverrides {
        /// Which. Default: all.
        pub r#match: Option<MetricSelector>,
        /// Whether they are off.
        pub disabled: Option<bool>,
        /// Changes to their tags, by name.
        pub tag_overrides: BTreeMap<String, TagOverride>,
    }
}

message! {
    /// Chooses metrics.
    pub struct MetricSelector {
        /// By the proxy's role.
        pub mode: WorkloadMode,
        oneof {
            /// By name.
            pub metric_match: MetricMatch {
                /// One of Istio's.
                metric => Metric(IstioMetric),
                /// Another one.
                #[schemars(extend("minLength" = 1))]
                custom_metric => CustomMetric(String),
            }
        }
    }
}

enumeration! {
    /// Istio's metrics.
    pub enum IstioMetric {
        /// Each of them.
        #[default]
        AllMetrics,
        /// `istio_requests_total`.
        RequestCount,
        /// `istio_request_duration_milliseconds`.
        RequestDuration,
        /// `istio_request_bytes`.
        RequestSize,
        /// `istio_response_bytes`.
        ResponseSize,
        /// `istio_tcp_connections_opened_total`.
        TcpOpenedConnections,
        /// `istio_tcp_connections_closed_total`.
        TcpClosedConnections,
        /// `istio_tcp_sent_bytes_total`.
        TcpSentBytes,
        /// `istio_tcp_received_bytes_total`.
        TcpReceivedBytes,
        /// `istio_request_messages_total`.
        GrpcRequestMessages,
        /// `istio_response_messages_total`.
        GrpcResponseMessages,
    }
}

message! {
    /// A change to a tag.
    #[schemars(extend("x-kubernetes-validations" = schema::rules(&[
        (
            "operation UPSERT needs a value",
            "((has(self.operation) ? self.operation : '') == 'UPSERT') ? (self.value != '') : true",
        ),
        (
            "operation REMOVE takes no value",
            "((has(self.operation) ? self.operation : '') == 'REMOVE') ? !has(self.value) : true",
        ),
    ])))]
    pub struct TagOverride {
        /// What is done.
        pub operation: TagOperation,
        /// CEL expression of the new value.
        pub value: String,
    }
}

enumeration! {
    /// What is done to a tag.
    pub enum TagOperation {
        /// It gets the value.
        #[default]
        Upsert,
        /// It goes away.
        Remove,
    }
}

message! {
    /// Settings of access logs.
    pub struct AccessLogging {
        /// Which exchanges are meant.
        pub r#match: Option<LogSelector>,
        /// Where the logs go.
        pub providers: Vec<ProviderRef>,
        /// Whether they are off.
        pub disabled: Option<bool>,
        /// Which exchanges are logged. Default: all.
        pub filter: Option<LogFilter>,
    }
}

message! {
    /// Chooses exchanges.
    pub struct LogSelector {
        /// By the proxy's role.
        pub mode: WorkloadMode,
    }
}

message! {
    /// Which exchanges are logged.
    pub struct LogFilter {
        /// CEL expression that must be true.
        pub expression: String,
    }
}
