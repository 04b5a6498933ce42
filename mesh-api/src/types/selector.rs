//! Ways to point at workloads, ports and other objects that more than one API group shares.

use std::collections::BTreeMap;

use super::{message, schema};

message! {
    /// Chooses workloads by the labels of their pods (or WorkloadEntries). Empty, it chooses every workload of its scope.
    pub struct WorkloadSelector {
        /// Labels that a workload must all bear.
        #[schemars(extend("maxProperties" = 4096))]
        #[schemars(extend("additionalProperties" = schema::selector_value()))]
        #[schemars(extend("x-kubernetes-validations" = schema::rules(&[
            ("a label key cannot hold *", "self.all(key, !key.contains('*'))"),
            ("a label key cannot be empty", "self.all(key, key.size() != 0)"),
        ])))]
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
    #[schemars(extend("required" = ["kind", "name"]))]
    pub struct PolicyTargetReference {
        /// API group of the object; empty is the core group.
        #[schemars(length(max = 253), regex(pattern = r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"))]
        pub group: String,
        /// Kind of the object.
        #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"))]
        pub kind: String,
        /// Name of the object.
        #[schemars(length(min = 1, max = 253))]
        pub name: String,
        /// Namespace of the object; only the policy's own namespace is supported, which is also the default.
        #[schemars(extend("x-kubernetes-validations" = schema::rules(&[
            ("only objects of the same namespace can be referred to", "self.size() == 0"),
        ])))]
        pub namespace: String,
    }
}
