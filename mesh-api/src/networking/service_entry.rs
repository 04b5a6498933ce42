//! ServiceEntry: a service that the cluster's own registry doesn't know, added to the mesh's registry.

use kube::CustomResource;

use super::{WorkloadEntrySpec, WorkloadSelector};
use crate::types::{AnalysisMessageBase, IstioCondition, IstioStatus, enumeration, message, schema};

message! {
    /// A service added to the mesh's registry: an external one, or one that runs outside Kubernetes.
    ///
    /// ```
    /// use mesh_api::document;
    /// use mesh_api::networking::{Location, Resolution, ServiceEntry, ServiceEntrySpec, ServicePort};
    /// // An API on the internet, found by DNS.
    /// let yaml = "
    /// apiVersion: networking.istio.io/v1
    /// kind: ServiceEntry
    /// metadata: {name: api, namespace: bookinfo}
    /// spec:
    ///   hosts: [api.example.com]
    ///   location: MESH_EXTERNAL
    ///   ports:
    ///   - {number: 443, name: tls, protocol: TLS}
    ///   resolution: DNS
    /// ";
    /// let spec = ServiceEntrySpec {
    ///     hosts: vec!["api.example.com".into()],
    ///     location: Location::MeshExternal,
    ///     ports: vec![ServicePort { number: 443, name: "tls".into(), protocol: "TLS".into(), ..Default::default() }],
    ///     resolution: Resolution::Dns,
    ///     ..Default::default()
    /// };
    /// assert_eq!(document::one::<ServiceEntry>(yaml)?.spec, spec);
    /// # Ok::<(), mesh_api::Diagnostic>(())
    /// ```
    #[derive(CustomResource)]
    #[kube(
        group = "networking.istio.io",
        version = "v1",
        kind = "ServiceEntry",
        plural = "serviceentries",
        shortname = "se",
        category = "istio-io",
        category = "networking-istio-io",
        namespaced,
        status = "ServiceEntryStatus",
        derive = "PartialEq",
        derive = "Default",
        doc = "A service added to the mesh's registry.",
        printcolumn(name = "Hosts", type_ = "string", json_path = ".spec.hosts", description = "Hosts of the service."),
        printcolumn(name = "Location", type_ = "string", json_path = ".spec.location", description = "Whether it is part of the mesh (MESH_EXTERNAL or MESH_INTERNAL)."),
        printcolumn(name = "Resolution", type_ = "string", json_path = ".spec.resolution", description = "How its endpoints are found (NONE, STATIC or a kind of DNS)."),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Time since the object was created.")
    )]
    #[schemars(extend("required" = ["hosts"]))]
    #[schemars(extend("x-kubernetes-validations" = schema::rules(&[
        ("only one of workloadSelector and endpoints can be set", "!(has(self.workloadSelector) && has(self.endpoints))"),
        ("CIDR addresses are allowed only with resolution NONE or STATIC", "!has(self.addresses) || !self.addresses.exists(a, a.contains('/')) || !has(self.resolution) || self.resolution in ['NONE', 'STATIC']"),
        ("resolution NONE cannot have endpoints", "(has(self.resolution) && self.resolution != 'NONE') || !has(self.endpoints)"),
        ("resolution DNS_ROUND_ROBIN cannot have more than one endpoint", "!has(self.resolution) || self.resolution != 'DNS_ROUND_ROBIN' || !has(self.endpoints) || self.endpoints.size() <= 1"),
    ])))]
    pub struct ServiceEntrySpec {
        /// Names of the service: DNS names, which may begin with `*.`.
        #[schemars(length(min = 1, max = 256), extend("items" = schema::host()))]
        pub hosts: Vec<String>,
        /// Virtual addresses of the service, as addresses or in CIDR form. Default: assigned by the mesh, or none.
        #[schemars(length(max = 256), inner(length(max = 64)))]
        pub addresses: Vec<String>,
        /// Ports of the service.
        #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"], "x-kubernetes-validations" = schema::rules(&[("a port number cannot be given twice", "self.all(l1, self.exists_one(l2, l1.number == l2.number))")])))]
        pub ports: Vec<ServicePort>,
        /// Whether the service is part of the mesh.
        pub location: Location,
        /// How a proxy finds the service's addresses.
        pub resolution: Resolution,
        /// The workloads that make up the service. Excludes `workload_selector`.
        #[schemars(length(max = 4096))]
        pub endpoints: Vec<WorkloadEntrySpec>,
        /// Pods and WorkloadEntries of this namespace that make up the service.
        pub workload_selector: Option<WorkloadSelector>,
        /// Namespaces that see the service: `.` this one, `*` all, or names. Default: the mesh's default, mostly `*`.
        pub export_to: Vec<String>,
        /// Names of which the server's certificate must bear one.
        pub subject_alt_names: Vec<String>,
    }
}

message! {
    /// A port of a service.
    #[schemars(extend("required" = ["number", "name"]))]
    pub struct ServicePort {
        /// Its number.
        #[schemars(extend("x-kubernetes-validations" = schema::port()))]
        pub number: u32,
        /// HTTP, HTTPS, GRPC, HTTP2, MONGO, TCP or TLS. Default: as the name says, otherwise TCP.
        #[schemars(length(max = 256))]
        pub protocol: String,
        /// Its name.
        #[schemars(length(max = 256))]
        pub name: String,
        /// Port of the endpoints. Default: `number`.
        #[schemars(extend("x-kubernetes-validations" = schema::port()))]
        pub target_port: u32,
    }
}

enumeration! {
    /// Whether a service is part of the mesh.
    pub enum Location {
        /// Outside: no mutual TLS by the mesh's certificates, and metrics are the client's.
        #[default]
        MeshExternal,
        /// Inside, though it doesn't run as pods of this cluster.
        MeshInternal,
    }
}

enumeration! {
    /// How a proxy finds the addresses of a service.
    pub enum Resolution {
        /// It doesn't: it connects to the address that the client asked for.
        #[default]
        None,
        /// By the endpoints given.
        Static,
        /// By DNS, all answers of which are used.
        Dns,
        /// By DNS, with one answer at a time for each new connection.
        DnsRoundRobin,
        /// By DNS, of the name in each request; for hosts with a leading `*.`.
        DynamicDns,
    }
}

message! {
    /// The status of a ServiceEntry.
    pub struct ServiceEntryStatus {
        /// The current conditions, at most one of each type.
        pub conditions: Vec<IstioCondition>,
        /// What analysis found wrong with the object.
        pub validation_messages: Vec<AnalysisMessageBase>,
        /// The `metadata.generation` of which all of this speaks.
        #[schemars(schema_with = "schema::int_or_string")]
        pub observed_generation: i64,
        /// Virtual addresses that the mesh assigned.
        pub addresses: Vec<ServiceEntryAddress>,
    }
}

message! {
    /// A virtual address that the mesh assigned.
    pub struct ServiceEntryAddress {
        /// The address.
        pub value: String,
        /// The host that it stands for.
        pub host: String,
    }
}

impl From<ServiceEntryStatus> for IstioStatus {
    /// The part that all kinds share.
    fn from(status: ServiceEntryStatus) -> Self {
        Self {
            conditions: status.conditions,
            validation_messages: status.validation_messages,
            observed_generation: status.observed_generation,
        }
    }
}
