//! DestinationRules as meant: which policy holds for the connections to a host, and which subsets the host has.
//!
//! A policy is made of blocks that are shared by pointer: merging rules, ports and subsets moves pointers and never copies
//! settings. Each policy remembers the object and field that it was written in. Nothing here knows Envoy or its defaults.

mod index;
mod policy;

use std::sync::Arc;

use mesh_api::{FieldPath, Hostname, Name, ObjectRef};

pub use index::{Level, RuleIndex, lookup, pick};
pub use policy::{
    Algorithm, ClientTls, ConnectionPool, ConsistentHash, Distribute, H2Upgrade, HashKey, HashTable, HttpPool,
    Keepalive, LoadBalancer, LocalityLb, LocalitySettings, OutlierDetection, PortPolicy, ProxyProtocol, RetryBudget,
    TcpKeepalive, TcpPool, TlsMode, TrafficPolicy, Tunnel, TunnelProtocol, Warmup, ZoneAware,
};

use super::{Labels, Visibility};

/// A DestinationRule, or several for one host merged into one.
#[derive(Clone, PartialEq, Debug)]
pub struct DestinationRule {
    /// The object; of merged rules the first.
    pub source: ObjectRef,
    /// The objects that were merged into this rule, `source` aside.
    pub merged: Vec<ObjectRef>,
    /// `metadata.creationTimestamp` in seconds.
    pub created: i64,
    /// The fully qualified host, possibly with a wildcard.
    pub host: Hostname,
    /// Who may use the rule; a rule with a selector belongs to its own namespace alone.
    pub export_to: Visibility,
    /// The workloads whose calls are meant; `None`: all.
    pub selector: Option<Labels>,
    /// The policy for every subset that does not override it.
    pub policy: Option<Arc<TrafficPolicy>>,
    /// In the order of the object, names unique.
    pub subsets: Vec<Arc<Subset>>,
}

impl DestinationRule {
    /// The subset of that name.
    pub fn subset(&self, name: &str) -> Option<&Arc<Subset>> {
        self.subsets.iter().find(|s| s.name == name)
    }

    /// The policy for a port: its port level settings wholesale if there are any, else the rule's policy.
    pub fn policy_for_port(&self, port: u16) -> Option<Arc<TrafficPolicy>> {
        self.policy.as_ref().map(|policy| policy.for_port(port))
    }

    /// The policy for a port of a subset: block by block the subset's, else the rule's; port level settings of the
    /// subset replace its blocks wholesale.
    pub fn policy_for_subset(&self, subset: &Subset, port: u16) -> Option<Arc<TrafficPolicy>> {
        TrafficPolicy::with_subset(self.policy_for_port(port), subset.policy.as_ref(), port)
    }
}

/// A named part of a host's endpoints.
#[derive(Clone, PartialEq, Debug)]
pub struct Subset {
    /// Unique in its rule.
    pub name: Name,
    /// An endpoint belongs to the subset when it bears all of these; empty means every endpoint.
    pub labels: Labels,
    /// What differs from the rule's policy.
    pub policy: Option<Arc<TrafficPolicy>>,
    /// Where it is written.
    pub origin: Origin,
}

/// The object and field that something was written in.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Origin {
    /// The object.
    pub object: ObjectRef,
    /// The field, e.g. `spec.subsets[1].trafficPolicy`.
    pub path: FieldPath,
}
