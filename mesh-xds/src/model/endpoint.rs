//! Where services are served: workloads (pods, workload entries), slices of a Service, and endpoints as clients get them.

use std::fmt;
use std::sync::Arc;

use mesh_api::{Name, ObjectRef};

use super::Labels;

/// `region/zone/subzone`, each part possibly empty.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Locality {
    /// The cloud region.
    pub region: Name,
    /// The zone within the region.
    pub zone: Name,
    /// The part of the zone.
    pub subzone: Name,
}

impl Locality {
    /// Reads `region/zone/subzone`; Istio's label form with dots instead of slashes counts too.
    pub fn parse(text: &str) -> Self {
        let separator = if text.contains('/') { '/' } else { '.' };
        let mut parts = text.split(separator);
        let mut next = || Name::from(parts.next().unwrap_or_default());
        Self { region: next(), zone: next(), subzone: next() }
    }
    /// True when nothing is known.
    pub fn is_empty(&self) -> bool {
        self.region.is_empty() && self.zone.is_empty() && self.subzone.is_empty()
    }
}

impl fmt::Display for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.region)?;
        if !self.zone.is_empty() || !self.subzone.is_empty() {
            write!(f, "/{}", self.zone)?;
        }
        if !self.subzone.is_empty() {
            write!(f, "/{}", self.subzone)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Locality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What an endpoint can be sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub enum Health {
    /// Ready.
    #[default]
    Healthy,
    /// Known but not ready.
    Unhealthy,
    /// Terminating, still serving.
    Draining,
}

/// One address that serves one port of a service.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Endpoint {
    /// An IP, a DNS name (ServiceEntry), or `unix:///path`.
    pub address: Name,
    /// The port at the address; 0 for Unix sockets.
    pub port: u16,
    /// The name of the service port that it serves.
    pub service_port: Name,
    /// Labels of the workload: subsets select by them.
    pub labels: Arc<Labels>,
    /// Where it runs.
    pub locality: Locality,
    /// Relative weight; 0 means not said, which is 1.
    pub weight: u32,
    /// Readiness.
    pub health: Health,
    /// The workload's namespace.
    pub namespace: Name,
    /// The workload's name (Deployment or the like), for metadata.
    pub workload: Name,
    /// The workload's Kubernetes service account; empty when nothing is known of it.
    pub service_account: Name,
    /// The network that the address is reachable in; empty for the default one.
    pub network: Name,
    /// The node, for `internalTrafficPolicy: Local`.
    pub node: Name,
    /// `istio` when the workload terminates mesh mTLS (label `security.istio.io/tlsMode`), else empty.
    pub tls_mode: Name,
    /// The first labels of the DNS name that a pod of a headless Service has of its own: `hostname.subdomain`.
    pub pod_name: Name,
    /// The cluster that it runs in; empty for the control plane's own.
    pub cluster: Name,
}

/// Something that serves: a pod or a WorkloadEntry.
#[derive(Clone, PartialEq, Debug)]
pub struct Workload {
    /// The pod or WorkloadEntry.
    pub source: ObjectRef,
    /// IPs; for a WorkloadEntry its address, which may be a DNS name or a Unix socket.
    pub addresses: Vec<Name>,
    /// Its labels.
    pub labels: Labels,
    /// Its service account; empty for a WorkloadEntry that names none.
    pub service_account: Name,
    /// The node of a pod.
    pub node: Name,
    /// The locality of a WorkloadEntry; a pod has its node's.
    pub locality: Locality,
    /// The network, from the label `topology.istio.io/network` or the WorkloadEntry.
    pub network: Name,
    /// The weight of a WorkloadEntry.
    pub weight: u32,
    /// Name to number: named container ports, or `ports` of a WorkloadEntry.
    pub ports: Vec<(Name, u16)>,
    /// The controller's name (Deployment, StatefulSet, …).
    pub workload: Name,
    /// `hostname.subdomain` of a pod that has a DNS name of its own.
    pub pod_name: Name,
    /// `metadata.creationTimestamp` in seconds.
    pub created: i64,
    /// False for pods that are not ready.
    pub ready: bool,
}

impl Workload {
    /// The number behind a named port.
    pub fn named_port(&self, name: &str) -> Option<u16> {
        self.ports.iter().find(|(n, _)| n == name).map(|(_, p)| *p)
    }
    /// `istio` when the workload terminates mesh mTLS: by its label, and a WorkloadEntry also when it names an account.
    pub fn tls_mode(&self) -> Name {
        let by_account = self.source.kind != "Pod" && !self.service_account.is_empty();
        let unlabelled = || if by_account { "istio".into() } else { Name::default() };
        self.labels.get("security.istio.io/tlsMode").cloned().unwrap_or_else(unlabelled)
    }
    /// The cluster, which the names of pods of other clusters end in (`pod@cluster`); empty for the control plane's own.
    pub fn cluster(&self) -> &str {
        self.source.name.split_once('@').map_or("", |(_, cluster)| cluster)
    }
}

/// An EndpointSlice (or an Endpoints object) of a Kubernetes Service.
#[derive(Clone, PartialEq, Debug)]
pub struct Slice {
    /// Ports by name; every endpoint serves all of them.
    pub ports: Vec<(Name, u16)>,
    /// Addresses with their conditions.
    pub endpoints: Vec<SliceEndpoint>,
}

/// One entry of a slice.
#[derive(Clone, PartialEq, Debug)]
pub struct SliceEndpoint {
    /// IPs.
    pub addresses: Vec<Name>,
    /// Readiness.
    pub health: Health,
    /// The pod, as `targetRef` says.
    pub pod: Option<super::InNamespace>,
    /// The node.
    pub node: Name,
    /// The zone that the slice names.
    pub zone: Name,
}
