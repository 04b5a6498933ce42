//! DestinationRule: how a service is reached once a route has chosen it: subsets, balancing, limits, health and TLS.

use std::collections::BTreeMap;

use kube::CustomResource;

use crate::types::{
    Duration, IstioStatus, PortSelector, WorkloadSelector as TypeWorkloadSelector, enumeration, message, schema,
};

mod load_balancer;
pub use load_balancer::*;

message! {
    /// How the traffic to a service is handled after routing.
    ///
    /// ```
    /// use mesh_api::document;
    /// use mesh_api::networking::{DestinationRule, DestinationRuleSpec, LbPolicy, LoadBalancerSettings, SimpleLb, Subset, TrafficPolicy};
    /// // Two subsets of reviews by version; requests go to the endpoint with the fewest in flight.
    /// let yaml = "
    /// apiVersion: networking.istio.io/v1
    /// kind: DestinationRule
    /// metadata: {name: reviews, namespace: bookinfo}
    /// spec:
    ///   host: reviews
    ///   trafficPolicy:
    ///     loadBalancer: {simple: LEAST_REQUEST}
    ///   subsets:
    ///   - {name: v1, labels: {version: v1}}
    ///   - {name: v2, labels: {version: v2}}
    /// ";
    /// let subset = |version: &str| Subset {
    ///     name: version.into(),
    ///     labels: [("version".into(), version.into())].into(),
    ///     ..Default::default()
    /// };
    /// let fewest = LoadBalancerSettings {
    ///     lb_policy: Some(LbPolicy::Simple(SimpleLb::LeastRequest)),
    ///     ..Default::default()
    /// };
    /// let spec = DestinationRuleSpec {
    ///     host: "reviews".into(),
    ///     traffic_policy: Some(TrafficPolicy { load_balancer: Some(fewest), ..Default::default() }),
    ///     subsets: vec![subset("v1"), subset("v2")],
    ///     ..Default::default()
    /// };
    /// assert_eq!(document::one::<DestinationRule>(yaml)?.spec, spec);
    /// # Ok::<(), mesh_api::Diagnostic>(())
    /// ```
    #[derive(CustomResource)]
    #[kube(
        group = "networking.istio.io",
        version = "v1",
        kind = "DestinationRule",
        plural = "destinationrules",
        shortname = "dr",
        category = "istio-io",
        category = "networking-istio-io",
        namespaced,
        status = "IstioStatus",
        derive = "PartialEq",
        derive = "Default",
        doc = "How the traffic to a service is handled after routing.",
        printcolumn(name = "Host", type_ = "string", json_path = ".spec.host", description = "Service that the rule is for."),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Time since the object was created.")
    )]
    #[schemars(extend("required" = ["host"]))]
    pub struct DestinationRuleSpec {
        /// Name of the service as in the registry, or a name with a leading `*.`; a short name is completed with this
        /// object's namespace.
        pub host: String,
        /// How all of the service's traffic is handled.
        pub traffic_policy: Option<TrafficPolicy>,
        /// Named groups of the service's workloads that routes can send to.
        pub subsets: Vec<Subset>,
        /// Namespaces in which the rule applies: `.` this one, `*` all, or names. Default: the mesh's default, mostly `*`.
        pub export_to: Vec<String>,
        /// Client workloads of this namespace that apply the rule. Default: all of them.
        pub workload_selector: Option<TypeWorkloadSelector>,
    }
}

message! {
    /// A named group of a service's workloads.
    #[schemars(extend("required" = ["name"]))]
    pub struct Subset {
        /// Name by which routes refer to it.
        pub name: String,
        /// Labels that its workloads must all bear. Empty: all workloads.
        pub labels: BTreeMap<String, String>,
        /// How its traffic is handled; each part given replaces that part of the rule's policy.
        pub traffic_policy: Option<TrafficPolicy>,
    }
}

message! {
    /// How traffic to a service or subset is handled.
    pub struct TrafficPolicy {
        /// How an endpoint is chosen.
        pub load_balancer: Option<LoadBalancerSettings>,
        /// Limits on connections and requests.
        pub connection_pool: Option<ConnectionPoolSettings>,
        /// When an endpoint that fails is left out for a while.
        pub outlier_detection: Option<OutlierDetection>,
        /// TLS towards the service.
        pub tls: Option<ClientTlsSettings>,
        /// Policies for single ports. The parts above don't pass on to a port that is listed here.
        #[schemars(length(max = 4096))]
        pub port_level_settings: Vec<PortTrafficPolicy>,
        /// Carry TCP through an HTTP tunnel to another host.
        pub tunnel: Option<TunnelSettings>,
        /// Send a PROXY protocol header first.
        pub proxy_protocol: Option<ProxyProtocol>,
        /// Limit on retries in proportion to the requests in flight.
        pub retry_budget: Option<RetryBudget>,
    }
}

message! {
    /// How the traffic to one port of a service is handled.
    pub struct PortTrafficPolicy {
        /// The port.
        pub port: Option<PortSelector>,
        /// How an endpoint is chosen.
        pub load_balancer: Option<LoadBalancerSettings>,
        /// Limits on connections and requests.
        pub connection_pool: Option<ConnectionPoolSettings>,
        /// When an endpoint that fails is left out for a while.
        pub outlier_detection: Option<OutlierDetection>,
        /// TLS towards the service.
        pub tls: Option<ClientTlsSettings>,
    }
}

message! {
    /// An HTTP tunnel for TCP traffic, with the service as the tunnel's near end.
    #[schemars(extend("required" = ["targetHost", "targetPort"]))]
    pub struct TunnelSettings {
        /// `CONNECT` or `POST`. Default: `CONNECT`.
        pub protocol: String,
        /// Host at the far end: a DNS name or an IP address.
        pub target_host: String,
        /// Port at the far end.
        pub target_port: u32,
    }
}

message! {
    /// The PROXY protocol header that precedes each connection.
    pub struct ProxyProtocol {
        /// Which version of the protocol.
        pub version: ProxyProtocolVersion,
    }
}

enumeration! {
    /// A version of the PROXY protocol.
    pub enum ProxyProtocolVersion {
        /// The textual one.
        #[default]
        V1,
        /// The binary one.
        V2,
    }
}

message! {
    /// A limit on retries in proportion to the requests in flight.
    pub struct RetryBudget {
        /// Per cent of active and pending requests that may be retries, 0.0 to 100.0. Default: 20.
        #[schemars(range(min = 0.0, max = 100.0))]
        pub percent: Option<f64>,
        /// So many retries are always allowed. Default: 3, which 0 stands for too.
        pub min_retry_concurrency: u32,
        /// Time over which requests are counted. Default: 0, only those in flight.
        pub budget_interval: Option<Duration>,
    }
}

message! {
    /// Limits on connections and requests to a service.
    pub struct ConnectionPoolSettings {
        /// Limits on connections.
        pub tcp: Option<TcpSettings>,
        /// Limits on HTTP requests.
        pub http: Option<HttpSettings>,
    }
}

message! {
    /// Limits on TCP connections, for HTTP too.
    pub struct TcpSettings {
        /// Connections at once, at most. Default: 2^32 - 1.
        pub max_connections: i32,
        /// Longest time to connect, at least 1 ms. Default: 10 s.
        #[schemars(extend("x-kubernetes-validations" = schema::at_least_a_millisecond()))]
        pub connect_timeout: Option<Duration>,
        /// TCP keepalive on the sockets. Default: off.
        pub tcp_keepalive: Option<TcpKeepalive>,
        /// Longest life of a connection, at least 1 ms. Default: no limit.
        #[schemars(extend("x-kubernetes-validations" = schema::at_least_a_millisecond()))]
        pub max_connection_duration: Option<Duration>,
        /// Longest time without a byte in either direction, after which a connection is closed; 0 is no limit. Default: 1 h.
        pub idle_timeout: Option<Duration>,
    }
}

message! {
    /// TCP keepalive probes.
    pub struct TcpKeepalive {
        /// Probes without an answer before the connection counts as dead. Default: the operating system's, mostly 9.
        pub probes: u32,
        /// Silence before the first probe. Default: the operating system's, mostly 2 h.
        #[schemars(extend("x-kubernetes-validations" = schema::at_least_a_millisecond()))]
        pub time: Option<Duration>,
        /// Time between probes. Default: the operating system's, mostly 75 s.
        #[schemars(extend("x-kubernetes-validations" = schema::at_least_a_millisecond()))]
        pub interval: Option<Duration>,
    }
}

message! {
    /// Limits on HTTP requests.
    pub struct HttpSettings {
        /// Requests that wait for a connection, at most. Default: 2^32 - 1.
        pub http1_max_pending_requests: i32,
        /// Requests in flight, at most, for HTTP/1.1 too. Default: 2^32 - 1.
        pub http2_max_requests: i32,
        /// Requests on one connection before it is closed; 1 turns keep-alive off. Default: 0, no limit.
        pub max_requests_per_connection: i32,
        /// Retries in flight, at most. Default: 2^32 - 1.
        pub max_retries: i32,
        /// Longest time without a request, after which a connection is closed. Default: 1 h.
        #[schemars(extend("x-kubernetes-validations" = schema::at_least_a_millisecond()))]
        pub idle_timeout: Option<Duration>,
        /// Whether HTTP/1.1 is carried over HTTP/2.
        pub h2_upgrade_policy: H2UpgradePolicy,
        /// Speak to the service what the client speaks; `h2_upgrade_policy` is then ignored.
        pub use_client_protocol: bool,
        /// Requests at once on one HTTP/2 connection, at most. Default: 2^31 - 1.
        pub max_concurrent_streams: i32,
        /// Pings on HTTP/2 connections. Default: none.
        pub http2_keep_alive: Option<ConnectionKeepalive>,
    }
}

enumeration! {
    /// Whether HTTP/1.1 is carried over HTTP/2.
    pub enum H2UpgradePolicy {
        /// As the mesh says.
        #[default]
        Default,
        /// Never.
        DoNotUpgrade,
        /// Always.
        Upgrade,
    }
}

message! {
    /// Pings that find out whether an HTTP/2 connection is alive.
    pub struct ConnectionKeepalive {
        /// Time between pings.
        #[schemars(extend("x-kubernetes-validations" = schema::at_least_a_millisecond()))]
        pub interval: Option<Duration>,
        /// Longest time for the answer, after which the connection is closed.
        #[schemars(extend("x-kubernetes-validations" = schema::at_least_a_millisecond()))]
        pub timeout: Option<Duration>,
    }
}

message! {
    /// When an endpoint that fails is left out for a while.
    pub struct OutlierDetection {
        /// Failures in a row. Deprecated for `consecutive_gateway_errors`.
        pub consecutive_errors: i32,
        /// Count failures to connect apart from errors that the service returns.
        pub split_external_local_origin_errors: bool,
        /// Failures to connect, in a row, when they are counted apart. Default: 5.
        pub consecutive_local_origin_failures: Option<u32>,
        /// Responses 502, 503 and 504, in a row; 0 turns it off. Default: off.
        pub consecutive_gateway_errors: Option<u32>,
        /// Responses from 500 to 599, in a row; 0 turns it off. Default: 5.
        pub consecutive_5xx_errors: Option<u32>,
        /// Time between checks, at least 1 ms. Default: 10 s.
        #[schemars(extend("x-kubernetes-validations" = schema::at_least_a_millisecond()))]
        pub interval: Option<Duration>,
        /// How long an endpoint is left out, times how often it was; at least 1 ms. Default: 30 s.
        #[schemars(extend("x-kubernetes-validations" = schema::at_least_a_millisecond()))]
        pub base_ejection_time: Option<Duration>,
        /// Per cent of the endpoints that may be left out. Default: 10.
        pub max_ejection_percent: i32,
        /// Per cent of endpoints that must be healthy for any of this to happen. Default: 0.
        pub min_health_percent: i32,
        /// Status codes that count as failures in place of 5xx, 100 to 599.
        #[schemars(inner(range(min = 100, max = 599)))]
        pub outlier_detection_http_error_codes: Vec<u32>,
    }
}

message! {
    /// TLS towards a service.
    pub struct ClientTlsSettings {
        /// Whether and how TLS is spoken.
        pub mode: ClientTlsMode,
        /// File of the client's certificate chain, in PEM; for `MUTUAL`.
        pub client_certificate: String,
        /// File of the client's private key, in PEM; for `MUTUAL`.
        pub private_key: String,
        /// File of the certificates that the server's is checked against, in PEM. Default: the system's.
        pub ca_certificates: String,
        /// Name of the Secret (or ConfigMap) that holds certificate, key and CA in place of files.
        pub credential_name: String,
        /// Names of which the server's certificate must bear one.
        pub subject_alt_names: Vec<String>,
        /// Server name (SNI) to send. Default: the request's host, if that is a DNS name.
        pub sni: String,
        /// Don't check the server's certificate at all. Default: false, unless the mesh doesn't check by itself.
        pub insecure_skip_verify: Option<bool>,
        /// File of revoked certificates, in PEM.
        pub ca_crl: String,
    }
}

enumeration! {
    /// Whether and how TLS is spoken to a service.
    pub enum ClientTlsMode {
        /// No TLS.
        #[default]
        Disable,
        /// TLS without a client certificate.
        Simple,
        /// TLS with the client certificate given here.
        Mutual,
        /// TLS with the mesh's own certificates.
        IstioMutual,
    }
}
