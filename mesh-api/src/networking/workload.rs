//! WorkloadEntry and WorkloadGroup: workloads that are not pods, such as virtual machines, singly and by template.

use std::collections::BTreeMap;

use kube::CustomResource;

use crate::types::{IstioStatus, message, schema};

message! {
    /// A workload that is not a pod, as an endpoint of the services that select its labels.
    ///
    /// ```
    /// use mesh_api::document;
    /// use mesh_api::networking::{WorkloadEntry, WorkloadEntrySpec};
    /// // A virtual machine that a ServiceEntry can select by `app: details`.
    /// let yaml = "
    /// apiVersion: networking.istio.io/v1
    /// kind: WorkloadEntry
    /// metadata: {name: details-vm, namespace: bookinfo}
    /// spec:
    ///   address: 10.1.2.3
    ///   ports: {http: 8080}
    ///   labels: {app: details}
    ///   serviceAccount: details
    /// ";
    /// let spec = WorkloadEntrySpec {
    ///     address: "10.1.2.3".into(),
    ///     ports: [("http".into(), 8080)].into(),
    ///     labels: [("app".into(), "details".into())].into(),
    ///     service_account: "details".into(),
    ///     ..Default::default()
    /// };
    /// assert_eq!(document::one::<WorkloadEntry>(yaml)?.spec, spec);
    /// # Ok::<(), mesh_api::Diagnostic>(())
    /// ```
    #[derive(CustomResource)]
    #[kube(
        group = "networking.istio.io",
        version = "v1",
        kind = "WorkloadEntry",
        plural = "workloadentries",
        shortname = "we",
        category = "istio-io",
        category = "networking-istio-io",
        namespaced,
        status = "IstioStatus",
        derive = "PartialEq",
        derive = "Default",
        doc = "A workload that is not a pod.",
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Time since the object was created."),
        printcolumn(name = "Address", type_ = "string", json_path = ".spec.address", description = "Address of the workload.")
    )]
    #[schemars(extend("x-kubernetes-validations" = schema::rules(&[
        ("an address is needed unless a network is given", "has(self.address) || has(self.network)"),
        ("a Unix socket has no ports", "!has(self.address) || !self.address.startsWith('unix://') || !has(self.ports)"),
    ])))]
    pub struct WorkloadEntrySpec {
        /// IP address, DNS name (if the service resolves by DNS) or Unix socket (`unix:///path`). May be empty only in
        /// another network, where the gateway of that network stands in.
        #[schemars(length(max = 256))]
        #[schemars(extend("x-kubernetes-validations" = schema::rules(&[
            ("a Unix socket must be an absolute path or an abstract name", "!self.startsWith('unix://') || self.substring(7, 8) in ['/', '@']"),
            ("a Unix socket cannot be a folder", "!self.startsWith('unix://') || !self.endsWith('/')"),
        ])))]
        pub address: String,
        /// Ports of the workload by the names of the service's ports. Default: the service's target port or number.
        #[schemars(extend("maxProperties" = 128))]
        #[schemars(extend("additionalProperties" = schema::ports()))]
        #[schemars(extend("x-kubernetes-validations" = schema::rules(&[
            ("a port name has at most 62 letters, digits and -, which it neither begins nor ends with", "self.all(key, size(key) < 63 && key.matches('^[a-zA-Z0-9](?:[-a-zA-Z0-9]*[a-zA-Z0-9])?$'))"),
        ])))]
        pub ports: BTreeMap<String, u32>,
        /// Labels of the workload.
        #[schemars(extend("maxProperties" = 256))]
        pub labels: BTreeMap<String, String>,
        /// Network that the workload is in; between networks traffic goes through gateways. Default: the mesh's.
        #[schemars(length(max = 2048))]
        pub network: String,
        /// Where the workload runs, as `region/zone/subzone`.
        #[schemars(length(max = 2048))]
        pub locality: String,
        /// Share of the load in proportion to the other endpoints. Default: 1, which 0 stands for too.
        pub weight: u32,
        /// Service account in this namespace whose identity the workload has.
        #[schemars(length(max = 253))]
        pub service_account: String,
    }
}

message! {
    /// A template for workloads that register themselves.
    ///
    /// ```
    /// use mesh_api::document;
    /// use mesh_api::networking::{HealthCheckMethod, HttpHealthCheckConfig, ReadinessProbe, WorkloadEntrySpec};
    /// use mesh_api::networking::{WorkloadGroup, WorkloadGroupMetadata, WorkloadGroupSpec};
    /// // Machines that join as `details` and count as healthy while /health answers.
    /// let yaml = "
    /// apiVersion: networking.istio.io/v1
    /// kind: WorkloadGroup
    /// metadata: {name: details, namespace: bookinfo}
    /// spec:
    ///   metadata:
    ///     labels: {app: details}
    ///   template: {serviceAccount: details}
    ///   probe:
    ///     periodSeconds: 5
    ///     httpGet: {path: /health, port: 8080}
    /// ";
    /// let health = HttpHealthCheckConfig { path: "/health".into(), port: 8080, ..Default::default() };
    /// let spec = WorkloadGroupSpec {
    ///     metadata: Some(WorkloadGroupMetadata {
    ///         labels: [("app".into(), "details".into())].into(),
    ///         ..Default::default()
    ///     }),
    ///     template: Some(WorkloadEntrySpec { service_account: "details".into(), ..Default::default() }),
    ///     probe: Some(ReadinessProbe {
    ///         period_seconds: 5,
    ///         health_check_method: Some(HealthCheckMethod::HttpGet(health)),
    ///         ..Default::default()
    ///     }),
    ///     ..Default::default()
    /// };
    /// assert_eq!(document::one::<WorkloadGroup>(yaml)?.spec, spec);
    /// # Ok::<(), mesh_api::Diagnostic>(())
    /// ```
    #[derive(CustomResource)]
    #[kube(
        group = "networking.istio.io",
        version = "v1",
        kind = "WorkloadGroup",
        plural = "workloadgroups",
        shortname = "wg",
        category = "istio-io",
        category = "networking-istio-io",
        namespaced,
        status = "IstioStatus",
        derive = "PartialEq",
        derive = "Default",
        doc = "A template for workloads that register themselves.",
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Time since the object was created.")
    )]
    #[schemars(extend("required" = ["template"]))]
    pub struct WorkloadGroupSpec {
        /// Labels and annotations of the WorkloadEntries made from the template.
        pub metadata: Option<WorkloadGroupMetadata>,
        /// What the WorkloadEntries say, address aside.
        #[schemars(extend("x-kubernetes-validations" = schema::rules(&[
            ("a Unix socket has no ports", "!has(self.address) || !self.address.startsWith('unix://') || !has(self.ports)"),
        ])))]
        pub template: Option<WorkloadEntrySpec>,
        /// How a workload's agent finds out whether it is healthy. Default: it always is.
        pub probe: Option<ReadinessProbe>,
    }
}

message! {
    /// Labels and annotations of the objects made from a template.
    pub struct WorkloadGroupMetadata {
        /// Labels.
        #[schemars(extend("maxProperties" = 256))]
        pub labels: BTreeMap<String, String>,
        /// Annotations.
        #[schemars(extend("maxProperties" = 256))]
        pub annotations: BTreeMap<String, String>,
    }
}

message! {
    /// How it is found out whether a workload is healthy.
    pub struct ReadinessProbe {
        /// Seconds before the first check. Default: 0.
        #[schemars(range(min = 0))]
        pub initial_delay_seconds: i32,
        /// Seconds that a check may take. Default: 1, which 0 stands for too.
        #[schemars(range(min = 0))]
        pub timeout_seconds: i32,
        /// Seconds between checks. Default: 10, which 0 stands for too.
        #[schemars(range(min = 0))]
        pub period_seconds: i32,
        /// Successes in a row after which an unhealthy workload is healthy. Default: 1, which 0 stands for too.
        #[schemars(range(min = 0))]
        pub success_threshold: i32,
        /// Failures in a row after which a healthy workload is unhealthy. Default: 3, which 0 stands for too.
        #[schemars(range(min = 0))]
        pub failure_threshold: i32,
        oneof {
            /// The way to check.
            pub health_check_method: HealthCheckMethod {
                /// A GET request that must be answered with 200 to 399.
                http_get => HttpGet(HttpHealthCheckConfig),
                /// A TCP connection that must be accepted.
                tcp_socket => TcpSocket(TcpHealthCheckConfig),
                /// A command that must exit with 0.
                exec => Exec(ExecHealthCheckConfig),
                /// A call of `grpc.health.v1.Health/Check` that must answer SERVING.
                grpc => Grpc(GrpcHealthCheckConfig),
            }
        }
    }
}

message! {
    /// A health check by HTTP.
    #[schemars(extend("required" = ["port"]))]
    pub struct HttpHealthCheckConfig {
        /// Path to ask for. Default: `/`.
        pub path: String,
        /// Port to ask.
        #[schemars(extend("x-kubernetes-validations" = schema::port()))]
        pub port: u32,
        /// Host to ask, and to name in the request. Default: the workload's own address.
        pub host: String,
        /// `HTTP` or `HTTPS`. Default: `HTTP`.
        #[schemars(extend("x-kubernetes-validations" = schema::rules(&[
            ("HTTP or HTTPS", "self in ['', 'HTTP', 'HTTPS']"),
        ])))]
        pub scheme: String,
        /// Further headers, repetitions allowed.
        pub http_headers: Vec<HttpHeader>,
    }
}

message! {
    /// A header of a health check.
    pub struct HttpHeader {
        /// Its name.
        #[schemars(regex(pattern = "^[-_A-Za-z0-9]+$"))]
        pub name: String,
        /// Its value.
        pub value: String,
    }
}

message! {
    /// A health check by TCP.
    #[schemars(extend("required" = ["port"]))]
    pub struct TcpHealthCheckConfig {
        /// Host to connect to. Default: localhost.
        pub host: String,
        /// Port to connect to.
        #[schemars(extend("x-kubernetes-validations" = schema::port()))]
        pub port: u32,
    }
}

message! {
    /// A health check by command.
    #[schemars(extend("required" = ["command"]))]
    pub struct ExecHealthCheckConfig {
        /// The command and its arguments; no shell in between.
        #[schemars(inner(length(min = 1)))]
        pub command: Vec<String>,
    }
}

message! {
    /// A health check by gRPC.
    pub struct GrpcHealthCheckConfig {
        /// Port to ask.
        #[schemars(extend("x-kubernetes-validations" = schema::port()))]
        pub port: u32,
        /// Service to ask about. Default: the server as a whole.
        pub service: String,
    }
}
