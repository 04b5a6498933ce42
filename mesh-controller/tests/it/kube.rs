//! The Kube source over a real apiserver: the suite that every source passes, and what only a cluster can do to it.

use std::time::Duration;

use kube::Client;
use mesh_api::{Object, ObjectRef};
use mesh_controller::source::{Batch, Event, Kube, Next, Source};
use serde_json::{Value, json};

use self::conformance::{Seen, Subject};
use crate::envtest::Cluster;
use crate::wire::Wire;

#[path = "../../src/source/conformance.rs"]
mod conformance;

/// Only what the suite puts in: an apiserver is never empty.
struct Ours(Kube);

impl Source for Ours {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn next(&mut self) -> Next<'_> {
        let ours = |key: &ObjectRef| key.kind == "Namespace" && key.name.len() == 1;
        Box::pin(async move {
            loop {
                let mut batch = self.0.next().await?;
                batch.retain(|event| match event {
                    Event::Upsert { object, .. } => ours(&object.object_ref()),
                    Event::Delete(key) => ours(key),
                    _ => true,
                });
                if !batch.is_empty() {
                    return Some(batch);
                }
            }
        })
    }
}

struct InCluster(Cluster);

impl InCluster {
    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(work))
    }
}

impl Subject for InCluster {
    fn source(&self) -> Box<dyn Source> {
        Box::new(Ours(Kube::new(self.0.client())))
    }
    fn put(&self, name: &str, value: &str) {
        self.wait(self.0.apply(&conformance::object(name, value).to_json().unwrap()));
    }
    fn delete(&self, name: &str) {
        self.wait(self.0.delete(&conformance::object(name, "").to_json().unwrap()));
    }
    fn spoil(&self, _: &str) -> bool {
        false
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kube_conforms() {
    let Some(cluster) = Cluster::start("conformance of the Kube source").await else { return };
    for definition in mesh_api::crds() {
        cluster.define(&serde_json::to_value(definition).unwrap()).await;
    }
    conformance::check(&InCluster(cluster)).await;
}

/// A definition that lets anything pass, as an old one may.
fn lax(kind: &str, plural: &str, versions: &[&str]) -> Value {
    let version = |(index, name): (usize, &&str)| {
        let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
        json!({"name": name, "served": true, "storage": index == 0, "schema": schema})
    };
    let group = "networking.istio.io";
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": "Namespaced", "names": {"kind": kind, "plural": plural},
                 "versions": versions.iter().enumerate().map(version).collect::<Value>()},
    })
}

fn virtual_service(name: &str, hosts: Value) -> Value {
    json!({"apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService",
           "metadata": {"name": name, "namespace": "default"}, "spec": {"hosts": hosts}})
}

fn service(name: &str, port: u16) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
           "spec": {"ports": [{"name": "http", "port": port, "protocol": "TCP"}]}})
}

fn key(kind: &str, name: &str) -> ObjectRef {
    ObjectRef::new(kind, "default", name)
}

fn port(seen: &Seen, name: &str) -> Option<i32> {
    match &seen.objects.get(&key("Service", name))?.0 {
        Object::Service(service) => Some(service.spec.as_ref()?.ports.as_ref()?.first()?.port),
        other => panic!("{other:?}"),
    }
}

async fn synced(client: Client) -> (Kube, Seen) {
    let (mut source, mut seen) = (Kube::new(client), Seen::default());
    seen.until(&mut source, "the initial sync", |seen| seen.synced).await;
    (source, seen)
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_come_and_go() {
    let Some(cluster) = Cluster::start("CustomResourceDefinitions that come and go").await else { return };
    let (mut source, mut seen) = synced(cluster.client()).await;
    let one = key("VirtualService", "one");

    let definition = lax("VirtualService", "virtualservices", &["v1beta1", "v1alpha3"]);
    cluster.define(&definition).await;
    cluster.apply(&virtual_service("one", json!(["one.com"]))).await;
    seen.until(&mut source, "an object of a new kind", |seen| seen.objects.contains_key(&one)).await;

    cluster.apply(&virtual_service("one", json!(7))).await;
    seen.until(&mut source, "a problem", |seen| !seen.problems.is_empty()).await;
    let problem = seen.problems.values().flatten().next().unwrap();
    assert_eq!((problem.object.as_ref(), problem.path.as_str()), (Some(&one), "spec.hosts"), "{problem}");
    let hosts = |seen: &Seen| match &seen.objects[&one].0 {
        Object::VirtualService(service) => service.spec.hosts.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(hosts(&seen), ["one.com"], "the last good version stays");
    cluster.apply(&virtual_service("one", json!(["two.com"]))).await;
    seen.until(&mut source, "the end of the problem", |seen| seen.problems.is_empty()).await;
    assert_eq!(hosts(&seen), ["two.com"]);

    cluster.delete(&definition).await;
    seen.until(&mut source, "the end of a kind", |seen| !seen.objects.contains_key(&one)).await;
    cluster.define(&lax("VirtualService", "virtualservices", &["v1", "v1beta1"])).await;
    cluster.apply(&virtual_service("two", json!(["two.com"]))).await;
    let two = key("VirtualService", "two");
    seen.until(&mut source, "an object of a kind that is back", |seen| seen.objects.contains_key(&two)).await;
}

/// Listens for a while in which nothing must be told.
async fn silent(source: &mut Kube, what: &str) {
    if let Ok(batch) = tokio::time::timeout(Duration::from_millis(500), source.next()).await {
        panic!("{what}: {:?}", batch.map(|batch: Batch| batch));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost() {
    let Some(mut cluster) = Cluster::start("cuts of the Kube source").await else { return };
    let wire = Wire::to(cluster.port()).await;
    for name in ["stays", "changes", "goes"] {
        cluster.apply(&service(name, 1)).await;
    }
    let (mut source, mut seen) = synced(Client::try_from(cluster.config_at(wire.port)).unwrap()).await;

    // A cut that is shorter than the apiserver's memory: the watch goes on from where it was.
    wire.cut().await;
    cluster.apply(&service("changes", 2)).await;
    silent(&mut source, "a cut is no news").await;
    wire.mend();
    seen.until(&mut source, "a change during a cut", |seen| port(seen, "changes") == Some(2)).await;

    // One that is longer: everything is listed anew.
    wire.cut().await;
    cluster.apply(&service("changes", 3)).await;
    cluster.delete(&service("goes", 1)).await;
    cluster.apply(&service("comes", 3)).await;
    cluster.kill();
    cluster.revive().await;
    cluster.compact().await;
    wire.mend();
    seen.until(&mut source, "all that happened before a compaction", |seen| {
        port(seen, "changes") == Some(3) && port(seen, "comes") == Some(3) && port(seen, "goes").is_none()
    })
    .await;

    // An apiserver that is not there says nothing, so nothing is deleted.
    cluster.kill();
    silent(&mut source, "an apiserver that is killed is no news").await;
    cluster.revive().await;
    cluster.apply(&service("comes", 4)).await;
    seen.until(&mut source, "a change after a restart", |seen| port(seen, "comes") == Some(4)).await;
    let told: Vec<_> = seen.history[&key("Service", "stays")].iter().collect();
    assert_eq!(told.len(), 1, "what never changed was told once: {told:?}");
    assert_eq!(port(&seen, "stays"), Some(1));
}
