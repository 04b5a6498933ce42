//! Whether a cluster's nodes run native sidecars: init containers that run on beside the application.

use std::collections::BTreeMap;

use serde_json::Value;

use super::pod::Pod;

/// The first Kubernetes 1.x whose kubelet is trusted with them: there they are stable.
const SINCE: u32 = 33;

/// Whether the proxy is a native sidecar, where the pod doesn't choose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NativeSidecars {
    /// It is an ordinary container.
    #[default]
    Off,
    /// It is. Every node must know Kubernetes 1.29 or newer.
    On,
    /// It is where the pod's node, or every node it may come to, has Kubernetes 1.33 or newer.
    Auto(Kubelets),
}

impl From<bool> for NativeSidecars {
    fn from(on: bool) -> Self {
        if on { Self::On } else { Self::Off }
    }
}

impl NativeSidecars {
    pub(super) fn of(&self, pod: &Pod) -> bool {
        match self {
            Self::Off => false,
            Self::On => true,
            Self::Auto(kubelets) => kubelets.are_able(pod.spec.get("nodeName").and_then(Value::as_str)),
        }
    }
}

/// Which nodes can run native sidecars.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kubelets {
    able: BTreeMap<String, bool>,
    all: bool,
}

impl Kubelets {
    /// The nodes of a cluster by name, each with the version that its kubelet tells, such as `v1.33.4-gke.1`.
    pub fn new<'a>(nodes: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let able: BTreeMap<_, _> =
            nodes.into_iter().map(|(name, version)| (name.to_owned(), is_able(version))).collect();
        // Of a cluster without nodes nothing is known.
        Self { all: !able.is_empty() && able.values().all(|able| *able), able }
    }

    fn are_able(&self, node: Option<&str>) -> bool {
        node.and_then(|node| self.able.get(node).copied()).unwrap_or(self.all)
    }
}

/// A version that can't be read is none.
fn is_able(version: &str) -> bool {
    let mut parts = version.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let minor = minor.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    match (major.parse::<u32>(), minor.parse::<u32>()) {
        (Ok(1), Ok(minor)) => minor >= SINCE,
        (Ok(major), Ok(_)) => major > 1,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_of_kubelets() {
        for (version, able) in [
            ("v1.33.0", true),
            ("v1.34.2-gke.100", true),
            ("v1.33+", true),
            ("1.40", true),
            ("v2.0.0", true),
            ("v1.32.9", false),
            ("v1", false),
            ("", false),
        ] {
            assert_eq!(is_able(version), able, "{version}");
        }
    }

    #[test]
    fn the_pods_node_counts_or_else_all() {
        let on = |node: &str| Pod::read(json!({"spec": {"nodeName": node}})).unwrap();
        let nowhere = Pod::default();
        let mixed = NativeSidecars::Auto(Kubelets::new([("new", "v1.34.0"), ("old", "v1.30.0")]));
        assert_eq!([mixed.of(&on("new")), mixed.of(&on("old")), mixed.of(&nowhere)], [true, false, false]);
        let new = NativeSidecars::Auto(Kubelets::new([("new", "v1.34.0")]));
        assert_eq!([new.of(&on("unheard-of")), new.of(&nowhere)], [true, true]);
        assert!(!NativeSidecars::Auto(Kubelets::default()).of(&nowhere));
        assert!(NativeSidecars::from(true).of(&nowhere) && !NativeSidecars::from(false).of(&nowhere));
    }
}
