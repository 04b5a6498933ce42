//! Sidecar: what the proxies beside workloads listen to and which part of the mesh they get to know.

use std::collections::BTreeMap;

use kube::CustomResource;

use super::{ConnectionPoolSettings, Destination, ServerTlsSettings};
use crate::types::{IstioStatus, enumeration, message, schema};

message! {
    /// What the sidecars of some workloads accept and which services they can reach. Without it: everything exported.
    ///
    /// ```
    /// use mesh_api::document;
    /// use mesh_api::networking::{IstioEgressListener, Sidecar, SidecarSpec};
    /// // Workloads of this namespace get to know their neighbours and the shared infrastructure only.
    /// let yaml = "
    /// apiVersion: networking.istio.io/v1
    /// kind: Sidecar
    /// metadata: {name: default, namespace: bookinfo}
    /// spec:
    ///   egress:
    ///   - hosts: [./*, istio-system/*]
    /// ";
    /// let known = IstioEgressListener { hosts: vec!["./*".into(), "istio-system/*".into()], ..Default::default() };
    /// let spec = SidecarSpec { egress: vec![known], ..Default::default() };
    /// assert_eq!(document::one::<Sidecar>(yaml)?.spec, spec);
    /// # Ok::<(), mesh_api::Diagnostic>(())
    /// ```
    #[derive(CustomResource)]
    #[kube(
        group = "networking.istio.io",
        version = "v1",
        kind = "Sidecar",
        plural = "sidecars",
        category = "istio-io",
        category = "networking-istio-io",
        namespaced,
        status = "IstioStatus",
        derive = "PartialEq",
        derive = "Default",
        doc = "What the sidecars of some workloads accept and which services they can reach."
    )]
    pub struct SidecarSpec {
        /// Workloads of this namespace that it is for. Default: all that no other Sidecar selects; in the root namespace
        /// those of every namespace that has no Sidecar of its own.
        pub workload_selector: Option<WorkloadSelector>,
        /// What is accepted from others. Default: as the workload's services and pod say.
        pub ingress: Vec<IstioIngressListener>,
        /// What is sent to others. Default: as the namespace's default Sidecar, or everything exported.
        pub egress: Vec<IstioEgressListener>,
        /// Limits on connections and requests from others, unless an ingress listener has its own.
        pub inbound_connection_pool: Option<ConnectionPoolSettings>,
        /// What happens to traffic for destinations that the proxy doesn't know. Default: the mesh's policy.
        pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    }
}

message! {
    /// A port on which a sidecar accepts traffic for its workload.
    #[schemars(extend("required" = ["port"]))]
    pub struct IstioIngressListener {
        /// The port.
        pub port: SidecarPort,
        /// IP address to bind. Default: every address.
        pub bind: String,
        /// How traffic gets to the listener.
        pub capture_mode: CaptureMode,
        /// Where the workload listens: `127.0.0.1:port`, `[::1]:port`, `0.0.0.0:port`, `[::]:port` or `unix:///path`.
        /// Default: the same port.
        pub default_endpoint: String,
        /// TLS towards clients outside the mesh, in place of the mesh's own.
        pub tls: Option<ServerTlsSettings>,
        /// Limits on connections and requests that come in here.
        pub connection_pool: Option<ConnectionPoolSettings>,
    }
}

message! {
    /// Services that a sidecar makes reachable, on one port or on all.
    #[schemars(extend("required" = ["hosts"]))]
    pub struct IstioEgressListener {
        /// The port to listen on. Default: each service's own ports.
        pub port: Option<SidecarPort>,
        /// IP address or Unix socket (`unix:///path`) to bind; needs `port`. Default: each service's own address, or
        /// 127.0.0.1 when nothing is captured.
        pub bind: String,
        /// How traffic gets to the listener.
        pub capture_mode: CaptureMode,
        /// Services as `namespace/host`: the namespace may be `*`, `.` (this one) or `~` (none), the host may be `*` or begin
        /// with `*.`.
        pub hosts: Vec<String>,
    }
}

message! {
    /// Chooses workloads by labels. Empty, it chooses every workload of its scope.
    pub struct WorkloadSelector {
        /// Labels that a workload must all bear.
        #[schemars(extend("maxProperties" = 256))]
        #[schemars(extend("additionalProperties" = schema::selector_value()))]
        pub labels: BTreeMap<String, String>,
    }
}

message! {
    /// What happens to traffic for destinations that a proxy doesn't know.
    pub struct OutboundTrafficPolicy {
        /// Whether it is let through.
        pub mode: OutboundTrafficPolicyMode,
        /// Service that all of it is sent to; with `ALLOW_ANY` only.
        pub egress_proxy: Option<Destination>,
    }
}

enumeration! {
    /// Whether traffic for unknown destinations is let through.
    pub enum OutboundTrafficPolicyMode {
        /// It isn't.
        #[default]
        RegistryOnly,
        /// It goes where it wanted to.
        AllowAny,
    }
}

enumeration! {
    /// How traffic gets to a listener.
    pub enum CaptureMode {
        /// As the environment does it.
        #[default]
        Default,
        /// By redirection of the pod's traffic.
        Iptables,
        /// By clients that address the listener themselves.
        None,
    }
}

message! {
    /// A port of a sidecar.
    pub struct SidecarPort {
        /// Its number.
        pub number: u32,
        /// HTTP, HTTPS, GRPC, HTTP2, MONGO, TCP or TLS.
        pub protocol: String,
        /// Its name.
        pub name: String,
        /// Port of the workload. Deprecated, without effect.
        pub target_port: u32,
    }
}
