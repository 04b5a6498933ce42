//! VirtualService: where the requests for a host go. Order matters here: the first rule that matches decides.

use std::collections::BTreeMap;

use kube::CustomResource;

use crate::types::{Duration, IstioStatus, PortSelector, StringMatch, message};

mod http;
pub use http::*;

message! {
    /// Rules for the traffic to one or more hosts.
    ///
    /// ```
    /// use mesh_api::document;
    /// use mesh_api::networking::{Destination, HttpRoute, HttpRouteDestination, VirtualService, VirtualServiceSpec};
    /// use mesh_api::types::Duration;
    /// // Four of five requests go to v1, the rest to v2; nobody waits longer than two seconds.
    /// let yaml = "
    /// apiVersion: networking.istio.io/v1
    /// kind: VirtualService
    /// metadata: {name: reviews, namespace: bookinfo}
    /// spec:
    ///   hosts: [reviews]
    ///   http:
    ///   - timeout: 2s
    ///     route:
    ///     - destination: {host: reviews, subset: v1}
    ///       weight: 80
    ///     - destination: {host: reviews, subset: v2}
    ///       weight: 20
    /// ";
    /// let to = |subset: &str, weight| HttpRouteDestination {
    ///     destination: Destination { host: "reviews".into(), subset: subset.into(), ..Default::default() },
    ///     weight,
    ///     ..Default::default()
    /// };
    /// let spec = VirtualServiceSpec {
    ///     hosts: vec!["reviews".into()],
    ///     http: vec![HttpRoute {
    ///         timeout: Some(Duration::from_secs(2)),
    ///         route: vec![to("v1", 80), to("v2", 20)],
    ///         ..Default::default()
    ///     }],
    ///     ..Default::default()
    /// };
    /// assert_eq!(document::one::<VirtualService>(yaml)?.spec, spec);
    /// # Ok::<(), mesh_api::Diagnostic>(())
    /// ```
    #[derive(CustomResource)]
    #[kube(
        group = "networking.istio.io",
        version = "v1",
        kind = "VirtualService",
        plural = "virtualservices",
        shortname = "vs",
        category = "istio-io",
        category = "networking-istio-io",
        namespaced,
        status = "IstioStatus",
        derive = "PartialEq",
        derive = "Default",
        doc = "Rules for the traffic to one or more hosts.",
        printcolumn(name = "Gateways", type_ = "string", json_path = ".spec.gateways", description = "Gateways and sidecars that apply these routes."),
        printcolumn(name = "Hosts", type_ = "string", json_path = ".spec.hosts", description = "Hosts whose traffic is routed."),
        printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", description = "Time since the object was created.")
    )]
    pub struct VirtualServiceSpec {
        /// Hosts whose traffic is routed: DNS names, names with a leading `*.`, short names of services in this object's
        /// namespace, or IP addresses. Empty makes the object a delegate that only other VirtualServices can use.
        pub hosts: Vec<String>,
        /// Gateways that apply the rules, as `namespace/name` or `name`; `mesh` stands for all sidecars. Default: `mesh`.
        pub gateways: Vec<String>,
        /// Rules for HTTP, HTTP/2 and gRPC, tried in order.
        pub http: Vec<HttpRoute>,
        /// Rules for TLS that is not terminated, tried in order.
        pub tls: Vec<TlsRoute>,
        /// Rules for any other TCP, tried in order.
        pub tcp: Vec<TcpRoute>,
        /// Namespaces in which the rules apply: `.` this one, `*` all, or names. Default: the mesh's default, mostly `*`.
        pub export_to: Vec<String>,
    }
}

message! {
    /// A service, or a subset of its workloads, that traffic is sent to.
    #[schemars(extend("required" = ["host"]))]
    pub struct Destination {
        /// Name of the service as in the registry; a short name is completed with this object's namespace.
        pub host: String,
        /// Name of a subset that a DestinationRule of the host defines. Default: all workloads.
        pub subset: String,
        /// Port of the service. Needed only if it has more than one.
        pub port: Option<PortSelector>,
    }
}

message! {
    /// A rule for TLS connections, decided by the server name (SNI) in the client's hello.
    #[schemars(extend("required" = ["match"]))]
    pub struct TlsRoute {
        /// When the rule applies: any one of these.
        pub r#match: Vec<TlsMatchAttributes>,
        /// Where connections go, by weight.
        pub route: Vec<RouteDestination>,
    }
}

message! {
    /// A rule for TCP connections.
    pub struct TcpRoute {
        /// When the rule applies: any one of these, always if empty.
        pub r#match: Vec<L4MatchAttributes>,
        /// Where connections go, by weight.
        pub route: Vec<RouteDestination>,
    }
}

message! {
    /// What is known of a TCP connection. All that is given must hold.
    pub struct L4MatchAttributes {
        /// Address ranges of the destination, as an address or in CIDR form.
        pub destination_subnets: Vec<String>,
        /// Port of the destination service.
        pub port: u32,
        /// Address range of the client. Read, but never applied, as in Istio.
        pub source_subnet: String,
        /// Labels of the client's workload; only sidecars know them.
        pub source_labels: BTreeMap<String, String>,
        /// Gateways at which the match holds, instead of the VirtualService's own list.
        pub gateways: Vec<String>,
        /// Namespace of the client's workload.
        pub source_namespace: String,
    }
}

message! {
    /// What is known of a TLS connection. All that is given must hold.
    #[schemars(extend("required" = ["sniHosts"]))]
    pub struct TlsMatchAttributes {
        /// Server names, which may begin with `*.`; each must lie within the hosts of the VirtualService.
        pub sni_hosts: Vec<String>,
        /// Address ranges of the destination, as an address or in CIDR form.
        pub destination_subnets: Vec<String>,
        /// Port of the destination service.
        pub port: u32,
        /// Labels of the client's workload; only sidecars know them.
        pub source_labels: BTreeMap<String, String>,
        /// Gateways at which the match holds, instead of the VirtualService's own list.
        pub gateways: Vec<String>,
        /// Namespace of the client's workload.
        pub source_namespace: String,
    }
}

message! {
    /// A share of TCP or TLS connections.
    #[schemars(extend("required" = ["destination"]))]
    pub struct RouteDestination {
        /// Where they go.
        pub destination: Destination,
        /// Share in proportion to the sum of all weights. The only destination of a rule needs none.
        pub weight: i32,
    }
}
