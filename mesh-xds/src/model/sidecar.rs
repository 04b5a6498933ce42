//! The Sidecar resource as meant: what a group of workloads may see and how it is reached.

use std::sync::Arc;

use mesh_api::{Hostname, Name, ObjectRef, networking};

use super::Labels;

/// A Sidecar.
#[derive(Clone, PartialEq, Debug)]
pub struct Sidecar {
    /// The object.
    pub source: ObjectRef,
    /// Age, for picking the oldest.
    pub created: i64,
    /// Empty: all workloads of the namespace (of the mesh, in the root namespace).
    pub selector: Labels,
    /// What the workloads may call; empty means everything that is exported to them.
    pub egress: Vec<EgressListener>,
    /// The resource as written, for the fields that builders read directly (ingress, policies).
    pub spec: Arc<networking::SidecarSpec>,
}

/// One egress listener.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct EgressListener {
    /// Absent: the catch-all listener.
    pub port: Option<super::Port>,
    /// An IP or `unix://` path; empty means chosen by the control plane.
    pub bind: Name,
    /// `captureMode: NONE`.
    pub no_capture: bool,
    /// Which services and virtual services of which namespaces.
    pub hosts: Vec<HostSelector>,
}

/// One entry `namespace/host` of an egress listener.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HostSelector {
    /// A namespace, or `*`. `.` is kept: a Sidecar of the root namespace means the namespace of the proxy.
    pub namespace: Name,
    /// A host, possibly with a wildcard.
    pub host: Hostname,
    /// `~ns/host`: takes away what others select.
    pub exclude: bool,
}

impl HostSelector {
    /// Everything: `*/*`.
    pub fn everything() -> Self {
        Self { namespace: "*".into(), host: "*".into(), exclude: false }
    }
    /// Reads `namespace/host`; `None` when it is not of that form.
    pub fn parse(text: &str) -> Option<Self> {
        let (namespace, host) = text.split_once('/')?;
        if host.is_empty() || host.contains('/') {
            return None;
        }
        match namespace.strip_prefix('~') {
            Some(excluded) if excluded.is_empty() && host == "*" => {
                // `~/*`: nothing at all, written without anything to take it from.
                Some(Self { namespace: "~".into(), host: host.into(), exclude: false })
            }
            Some("") => Some(Self { namespace: "*".into(), host: host.into(), exclude: true }),
            Some(ns) => Some(Self { namespace: ns.into(), host: host.into(), exclude: true }),
            None => Some(Self { namespace: namespace.into(), host: host.into(), exclude: false }),
        }
    }
}
