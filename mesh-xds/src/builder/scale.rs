//! How much runs when something changes among 1,000 services: the counts, which do not depend on the machine, where the
//! benches say the times.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Builder;
use crate::testing::objects;
use crate::{Change, Proxy, Snapshot, TypeUrl};

#[path = "../../../examples/src/fleet/world.rs"]
#[allow(dead_code, unreachable_pub, reason = "the fleet client uses the rest")]
mod world;

struct Fleet {
    folder: tempfile::TempDir,
    world: world::World,
    builder: Builder,
    snapshot: Snapshot,
    proxies: Vec<Arc<Proxy>>,
}

impl Fleet {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let world = world::World::write(folder.path(), 1_000, false).unwrap();
        let files = std::fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path());
        let text: String = files.map(|file| std::fs::read_to_string(file).unwrap()).collect();
        let snapshot = Snapshot::default().apply(objects(&text).into_iter().map(Change::Upsert));
        let proxies =
            ["ns-0", "ns-1", "ns-2"].map(|ns| Arc::new(Proxy::sidecar(format!("a.{ns}"), ns, [11, 0, 0, 1].into())));
        let mut fleet =
            Self { folder, world, builder: Builder::default(), snapshot: Snapshot::default(), proxies: proxies.into() };
        fleet.runs(snapshot);
        fleet
    }

    /// The world after the edit of a file.
    fn edited(&self, file: &str) -> Snapshot {
        self.with(&std::fs::read_to_string(self.folder.path().join(file)).unwrap())
    }

    fn with(&self, yaml: &str) -> Snapshot {
        let next = self.snapshot.apply(objects(yaml).into_iter().map(Change::Upsert));
        assert_ne!(next.revision(), self.snapshot.revision());
        next
    }

    /// What runs so that all proxies have all types at this snapshot.
    fn runs(&mut self, snapshot: Snapshot) -> BTreeMap<&'static str, u64> {
        let before = self.builder.stats().runs;
        for proxy in &self.proxies {
            for kind in TypeUrl::ALL {
                self.builder.build(&snapshot, proxy, kind);
            }
        }
        self.snapshot = snapshot;
        let after = self.builder.stats().runs.into_iter();
        after.map(|(name, n)| (name, n - before.get(name).copied().unwrap_or(0))).filter(|(_, n)| *n > 0).collect()
    }
}

#[test]
fn a_change_among_1000_services_runs_only_what_reads_it() {
    let mut fleet = Fleet::new();
    fleet.world.edit_endpoint("10.250.0.2").unwrap();
    let ran = fleet.runs(fleet.edited("edited-endpoints.yaml"));
    // The endpoints of one service once for all, and who serves it; the list of each of the three namespaces.
    assert_eq!(
        ran.into_iter().collect::<Vec<_>>(),
        [("ClientEndpoints", 3), ("EndpointsOf", 1), ("ResourcesOf", 3), ("ServerNames", 1), ("ServiceEndpoints", 1)]
    );

    fleet.world.edit_route("another").unwrap();
    let ran = fleet.runs(fleet.edited("edited-route.yaml"));
    for unread in ["ServiceClusters", "ServiceEndpoints", "OutboundClusters", "ClientEndpoints", "BuiltListener"] {
        assert_eq!(ran.get(unread), None, "{unread} in {ran:?}");
    }
    // Its routes once for all, in the hosts of its own namespace and in those of the others.
    assert_eq!((ran.get("VirtualServiceRoutes"), ran.get("VirtualHostGroup")), (Some(&1), Some(&2)), "{ran:?}");
    assert!(ran.values().sum::<u64>() < 60, "{ran:?}");

    let unread = fleet.with("apiVersion: v1\nkind: Namespace\nmetadata: {name: x, labels: {a: b}}\n");
    assert_eq!(fleet.runs(unread), BTreeMap::new());
}

#[test]
fn classes_hold_little_of_their_own() {
    /// Bytes that are held for what a proxy is sent, by their address: what is shared counts once.
    fn hold(fleet: &Fleet, proxy: &Arc<Proxy>, held: &mut BTreeMap<*const u8, usize>) {
        for kind in TypeUrl::ALL {
            for resource in fleet.builder.build(&fleet.snapshot, proxy, kind).iter() {
                let parts = std::iter::once(resource.delta_head()).chain(resource.rest().iter().cloned());
                held.extend(parts.map(|part| (part.as_ptr(), part.len())));
            }
        }
    }
    let fleet = Fleet::new();
    let mut held = BTreeMap::new();
    hold(&fleet, &fleet.proxies[0], &mut held);
    let first: usize = held.values().sum();
    assert!(first > 2_000_000, "{first}");
    for namespace in 10..20 {
        let name = format!("ns-{namespace}");
        let proxy = Proxy::sidecar(format!("a.{name}"), name.as_str(), [11, 0, 0, 1].into());
        hold(&fleet, &Arc::new(proxy), &mut held);
    }
    let more = held.values().sum::<usize>() - first;
    // Its inbound side, and the groups of virtual hosts that its own namespace's services are in.
    assert!(more / 10 < first / 40, "{first} bytes for the first class, {more} for ten more");
    // The routes of 100 virtual services are the same for all.
    assert_eq!(fleet.builder.stats().held.get("VirtualServiceRoutes"), Some(&100));
}
