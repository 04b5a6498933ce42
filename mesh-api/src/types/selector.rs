//! Ways to point at workloads, ports and other objects that more than one API group shares.

use std::collections::BTreeMap;

use super::message;

message! {
    /// Chooses workloads by the labels of their pods (or WorkloadEntries). Empty, it chooses every workload of its scope.
    pub struct WorkloadSelector {
        /// Labels that a workload must all bear.
        pub match_labels: BTreeMap<String, String>,
    }
}

message! {
    /// Chooses a port of a service.
    pub struct PortSelector {
        /// The service's port number.
        pub number: u32,
    }
}

message! {
    /// Attaches a policy to one object instead of to workloads by label: a Gateway, GatewayClass, Service or ServiceEntry.
    pub struct PolicyTargetReference {
        /// API group of the object; empty is the core group.
        pub group: String,
        /// Kind of the object.
        pub kind: String,
        /// Name of the object.
        pub name: String,
        /// Namespace of the object; only the policy's own namespace is supported, which is also the default.
        pub namespace: String,
    }
}
