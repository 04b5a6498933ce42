//! Several clusters as one. Pure: what each of them tells comes in, what the mesh has by that goes out.
//!
//! A service is the same in all clusters; what is beneath it, its slices, pods and nodes, bears the name of its cluster,
//! for two clusters may well use a name twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_api::{Name, Object, ObjectRef};

use crate::source::{Batch, Event};

#[derive(Default)]
pub(super) struct Merge {
    /// What each cluster says of an object; the first one counts.
    claims: BTreeMap<ObjectRef, BTreeMap<Name, Object>>,
    /// What clusters that tell everything anew have told so far.
    fresh: BTreeMap<Name, BTreeSet<ObjectRef>>,
}

impl Merge {
    /// The cluster tells everything, perhaps anew; what it does not tell until it is synced is gone.
    pub(super) fn begin(&mut self, cluster: &Name) {
        self.fresh.insert(cluster.clone(), BTreeSet::new());
    }

    /// Takes in what a cluster tells.
    pub(super) fn hear(&mut self, cluster: &Name, batch: Batch, out: &mut Batch) {
        for event in batch {
            match event {
                Event::Upsert { object, .. } => {
                    let Some(object) = placed(object, cluster) else { continue };
                    let key = object.object_ref();
                    if let Some(fresh) = self.fresh.get_mut(cluster) {
                        fresh.insert(key.clone());
                    }
                    self.claim(key, out, |claims| drop(claims.insert(cluster.clone(), object)));
                }
                Event::Delete(key) => {
                    let key = placed_key(key, cluster);
                    self.claim(key, out, |claims| drop(claims.remove(cluster)));
                }
                Event::Problems { part, problems } => {
                    out.push(Event::Problems { part: format!("cluster {cluster}: {part}").into(), problems });
                }
                Event::Synced => {
                    let fresh = self.fresh.remove(cluster).unwrap_or_default();
                    self.sweep(cluster, &fresh, out);
                }
            }
        }
    }

    /// The cluster belongs to the mesh no longer.
    pub(super) fn remove(&mut self, cluster: &Name, out: &mut Batch) {
        self.fresh.remove(cluster);
        self.sweep(cluster, &BTreeSet::new(), out);
    }

    fn sweep(&mut self, cluster: &Name, keep: &BTreeSet<ObjectRef>, out: &mut Batch) {
        let has = |(key, claims): &(&ObjectRef, &BTreeMap<Name, Object>)| {
            claims.contains_key(cluster) && !keep.contains(*key)
        };
        let gone: Vec<ObjectRef> = self.claims.iter().filter(has).map(|(key, _)| key.clone()).collect();
        for key in gone {
            self.claim(key, out, |claims| drop(claims.remove(cluster)));
        }
    }

    fn claim(&mut self, key: ObjectRef, out: &mut Batch, change: impl FnOnce(&mut BTreeMap<Name, Object>)) {
        let claims = self.claims.entry(key.clone()).or_default();
        let before = claims.values().next().cloned();
        change(claims);
        let after = claims.values().next().cloned();
        if claims.is_empty() {
            self.claims.remove(&key);
        }
        match after {
            _ if before == after => {}
            Some(object) => out.push(Event::Upsert { object, location: None }),
            None => out.push(Event::Delete(key)),
        }
    }
}

/// The object as one of its cluster; none where only the control plane's own cluster counts.
fn placed(object: Object, cluster: &Name) -> Option<Object> {
    let rename = |name: &mut Option<String>| {
        if let Some(name) = name {
            *name = in_cluster(name, cluster);
        }
    };
    match object {
        Object::Service(_) => Some(object),
        Object::Pod(mut pod) => {
            let own = Arc::make_mut(&mut pod);
            rename(&mut own.metadata.name);
            if let Some(spec) = &mut own.spec {
                rename(&mut spec.node_name);
            }
            Some(Object::Pod(pod))
        }
        Object::Node(mut node) => {
            rename(&mut Arc::make_mut(&mut node).metadata.name);
            Some(Object::Node(node))
        }
        Object::EndpointSlice(mut slice) => {
            let own = Arc::make_mut(&mut slice);
            rename(&mut own.metadata.name);
            for endpoint in own.endpoints.iter_mut().flatten() {
                rename(&mut endpoint.node_name);
                if let Some(target) = &mut endpoint.target_ref {
                    rename(&mut target.name);
                }
            }
            Some(Object::EndpointSlice(slice))
        }
        _ => None,
    }
}

fn placed_key(mut key: ObjectRef, cluster: &Name) -> ObjectRef {
    if matches!(key.kind.as_str(), "Pod" | "Node" | "EndpointSlice") {
        key.name = in_cluster(&key.name, cluster).into();
    }
    key
}

/// No object of an apiserver has such a name.
fn in_cluster(name: &str, cluster: &Name) -> String {
    format!("{name}@{cluster}")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn upsert(value: &Value) -> Event {
        Event::Upsert { object: Object::from_value(value).unwrap(), location: None }
    }

    fn service(port: u16) -> Event {
        upsert(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "n"},
                       "spec": {"ports": [{"port": port}]}}))
    }

    fn pod(name: &str) -> Event {
        upsert(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "n"},
                       "spec": {"containers": [], "nodeName": "node"}}))
    }

    fn key(kind: &str, name: &str) -> ObjectRef {
        ObjectRef::new(kind, "n", name)
    }

    /// `+` for told with the first port where there is one, `-` for taken back.
    fn told(merge: &mut Merge, cluster: &str, events: impl IntoIterator<Item = Event>) -> Vec<String> {
        let mut out = Batch::new();
        merge.hear(&cluster.into(), events.into_iter().collect(), &mut out);
        short(out)
    }

    fn short(batch: Batch) -> Vec<String> {
        let short = |event| match event {
            Event::Upsert { object: Object::Service(service), .. } => {
                format!("+s:{}", service.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].port)
            }
            Event::Upsert { object, .. } => format!("+{}", object.object_ref().name),
            Event::Delete(key) => format!("-{}", key.name),
            other => format!("{other:?}"),
        };
        batch.into_iter().map(short).collect()
    }

    #[test]
    fn services_are_shared_and_pods_are_not() {
        let mut merge = Merge::default();
        assert_eq!(told(&mut merge, "west", [service(2), pod("p")]), ["+s:2", "+p@west"]);
        assert_eq!(told(&mut merge, "east", [service(1), pod("p")]), ["+s:1", "+p@east"], "the first by name counts");
        assert_eq!(told(&mut merge, "west", [service(3)]), [""; 0]);
        let mut out = Batch::new();
        merge.remove(&"east".into(), &mut out);
        assert_eq!(short(out), ["-p@east", "+s:3"], "what the other has stays");
        assert_eq!(told(&mut merge, "west", [Event::Delete(key("Pod", "p"))]), ["-p@west"]);
    }

    #[test]
    fn a_cluster_that_tells_anew_loses_only_what_is_gone() {
        let (mut merge, west) = (Merge::default(), Name::from("west"));
        merge.begin(&west);
        told(&mut merge, "west", [pod("a"), pod("b"), Event::Synced]);
        merge.begin(&west);
        assert_eq!(told(&mut merge, "west", [pod("a")]), [""; 0], "until all is told, what was stays");
        assert_eq!(told(&mut merge, "west", [pod("c"), Event::Synced]), ["+c@west", "-b@west"]);
    }

    #[test]
    fn what_belongs_together_is_renamed_together() {
        let slice = upsert(&json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "s-1", "namespace": "n"},
            "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": "node", "targetRef": {"kind": "Pod", "name": "p"}}],
        }));
        let mut out = Batch::new();
        Merge::default().hear(&"west".into(), vec![slice, pod("p")], &mut out);
        let objects: Vec<Value> = out
            .iter()
            .map(|event| match event {
                Event::Upsert { object, .. } => object.to_json().unwrap(),
                other => panic!("{other:?}"),
            })
            .collect();
        let (slice, pod) = (&objects[0], &objects[1]);
        assert_eq!(slice["endpoints"][0]["targetRef"]["name"], pod["metadata"]["name"]);
        assert_eq!(slice["endpoints"][0]["nodeName"], pod["spec"]["nodeName"]);
    }
}
