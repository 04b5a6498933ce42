//! Whether workloads accept plaintext, mesh mTLS or both, and how the policies of mesh, namespace and workload add up.

use std::collections::BTreeMap;

use mesh_api::{FieldPath, Name, ObjectRef};

use super::destination_rule::Origin;
use super::{Labels, selects};

/// What servers accept.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub enum MtlsMode {
    /// Nothing is known, as of hosts outside the mesh.
    #[default]
    Unknown,
    /// Plaintext only.
    Disable,
    /// Both.
    Permissive,
    /// Mesh mTLS only.
    Strict,
}

/// A PeerAuthentication.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PeerAuthentication {
    /// The object.
    pub source: ObjectRef,
    /// `metadata.creationTimestamp` in seconds: of several policies of one scope the oldest holds.
    pub created: i64,
    /// The workloads that are meant; empty: all of the namespace, or of the mesh in the root namespace.
    pub selector: Labels,
    /// `None`: as the wider scope says.
    pub mode: Option<MtlsMode>,
    /// What differs by the workload's port; `None`: as the policy itself says.
    pub ports: BTreeMap<u16, Option<MtlsMode>>,
}

/// What a workload accepts.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Accepts {
    /// On every port that is not named.
    pub mode: MtlsMode,
    /// The policy that says so; `None`: none does.
    pub by: Option<ObjectRef>,
    /// By the workload's port.
    pub ports: BTreeMap<u16, MtlsMode>,
    /// The policy that names ports.
    pub ports_by: Option<ObjectRef>,
}

impl Accepts {
    /// On a port; 0 is any port that is not named.
    pub fn on(&self, port: u16) -> MtlsMode {
        self.ports.get(&port).copied().unwrap_or(self.mode)
    }

    /// The field that decides what is accepted on a port; `None`: no policy does.
    pub fn decided_by(&self, port: u16) -> Option<Origin> {
        let (policy, path) = if self.ports.contains_key(&port) {
            (&self.ports_by, format!("spec.portLevelMtls[{port}].mode"))
        } else {
            (&self.by, "spec.mtls.mode".to_owned())
        };
        Some(Origin { object: policy.clone()?, path: FieldPath::new(path) })
    }

    /// What a workload accepts by the policies of its namespace and of the root namespace: the narrowest scope that says
    /// something decides; of one scope the oldest policy counts. Ports only count in a policy that selects workloads.
    pub fn compose<'p>(
        policies: impl IntoIterator<Item = &'p PeerAuthentication>,
        root: &Name,
        labels: &Labels,
    ) -> Self {
        let (mut mesh, mut namespace, mut workload) = (None, None, None);
        for policy in policies {
            let in_root = policy.source.namespace == *root;
            let scope = match (policy.selector.is_empty(), in_root) {
                (true, true) => &mut mesh,
                (true, false) => &mut namespace,
                (false, false) if selects(&policy.selector, labels) => &mut workload,
                (false, _) => continue,
            };
            if scope.is_none_or(|held: &PeerAuthentication| order(policy) < order(held)) {
                *scope = Some(policy);
            }
        }
        let source = |policy: &PeerAuthentication| policy.source.clone();
        let deciding = [workload, namespace, mesh].into_iter().flatten().find(|policy| policy.mode.is_some());
        let mode = deciding.and_then(|policy| policy.mode).unwrap_or(MtlsMode::Permissive);
        let ports = workload.into_iter().flat_map(|p| &p.ports).map(|(port, own)| (*port, own.unwrap_or(mode)));
        Self { mode, by: deciding.map(source), ports: ports.collect(), ports_by: workload.map(source) }
    }
}

fn order(policy: &PeerAuthentication) -> (i64, &Name) {
    (policy.created, &policy.source.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(namespace: &str, name: &str, app: Option<&str>, mode: Option<MtlsMode>) -> PeerAuthentication {
        PeerAuthentication {
            source: ObjectRef::new("PeerAuthentication", namespace, name),
            created: 0,
            selector: app.map(|app| [("app".into(), app.into())].into()).unwrap_or_default(),
            mode,
            ports: BTreeMap::new(),
        }
    }

    fn accepts(policies: &[PeerAuthentication]) -> Accepts {
        Accepts::compose(policies, &"root".into(), &[("app".into(), "a".into())].into())
    }

    #[test]
    fn the_narrowest_scope_decides_and_unset_inherits() {
        use MtlsMode::{Disable, Permissive, Strict};
        let mesh = || policy("root", "mesh", None, Some(Strict));
        assert_eq!(accepts(&[]).mode, Permissive);
        assert_eq!(accepts(&[mesh()]).mode, Strict);
        assert_eq!(accepts(&[mesh(), policy("ns", "ns", None, None)]).mode, Strict);
        assert_eq!(accepts(&[mesh(), policy("ns", "ns", None, Some(Disable))]).mode, Disable);
        assert_eq!(accepts(&[mesh(), policy("ns", "w", Some("a"), Some(Permissive))]).mode, Permissive);
        assert_eq!(accepts(&[mesh(), policy("ns", "w", Some("b"), Some(Permissive))]).mode, Strict);
        assert_eq!(
            accepts(&[policy("root", "w", Some("a"), Some(Strict))]).mode,
            Permissive,
            "no selector at the root"
        );
    }

    #[test]
    fn the_oldest_of_a_scope_holds_and_ports_need_a_selector() {
        use MtlsMode::{Disable, Permissive, Strict};
        let young = PeerAuthentication { created: 2, ..policy("ns", "a", None, Some(Strict)) };
        let old = PeerAuthentication { created: 1, ..policy("ns", "b", None, Some(Disable)) };
        assert_eq!(accepts(&[young, old]).mode, Disable);
        let ports: BTreeMap<u16, Option<MtlsMode>> = [(80, Some(Strict)), (81, None)].into();
        let wide = PeerAuthentication { ports: ports.clone(), ..policy("ns", "ns", None, None) };
        assert_eq!(accepts(&[wide]).on(80), Permissive);
        let narrow = PeerAuthentication { ports, ..policy("ns", "w", Some("a"), Some(Disable)) };
        let found = accepts(&[narrow]);
        assert_eq!((found.on(80), found.on(81), found.on(82)), (Strict, Disable, Disable));
        let decided = |port| found.decided_by(port).map(|origin| format!("{} {}", origin.object.name, origin.path));
        assert_eq!(decided(80).as_deref(), Some("w spec.portLevelMtls[80].mode"));
        assert_eq!(decided(82).as_deref(), Some("w spec.mtls.mode"));
        assert_eq!(accepts(&[]).decided_by(80), None);
    }
}
