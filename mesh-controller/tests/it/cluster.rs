//! meshd over a real apiserver: what a proxy is sent is the same, byte for byte, from a cluster as from a folder.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use mesh_api::{Object, document};
use mesh_controller::source::{Event, Files, Kube, Remotes};
use mesh_controller::store::{Debounce, Published};
use mesh_controller::{Source, Store};
use mesh_xds::model::Settings;
use mesh_xds::{Builder, Proxy, ResourceSet, TypeUrl};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::envtest::{Cluster, Process};
use crate::{corpus, samples};

/// Bookinfo as it is in a cluster: its manifests, and the pods and slices that controllers would make of them.
fn bookinfo(samples: &Path) -> (Vec<Value>, Vec<Value>) {
    let files = [
        "platform/kube/bookinfo.yaml",
        "networking/bookinfo-gateway.yaml",
        "networking/destination-rule-all.yaml",
        "networking/virtual-service-reviews-90-10.yaml",
    ];
    let texts = files.map(|file| std::fs::read_to_string(samples.join("bookinfo").join(file)).unwrap());
    let (made, proxies) = samples::cluster(&texts);
    let mut objects = Vec::new();
    for text in &texts {
        objects.extend(document::raw(&"bookinfo".into(), text).into_iter().map(|raw| raw.unwrap().node.to_json()));
    }
    // Made of the objects above, and nothing that the mesh reads.
    objects.retain(|object| !matches!(object["kind"].as_str(), Some("Deployment" | "ServiceAccount")));
    objects.extend(made);
    for (index, object) in objects.iter_mut().enumerate() {
        object["metadata"]["namespace"] = "default".into();
        match object["kind"].as_str() {
            // An apiserver gives out an address; a folder has none to give.
            Some("Service") => object["spec"]["clusterIP"] = format!("10.96.7.{index}").into(),
            Some("Pod") => object["spec"] = json!({"containers": [{"name": "app", "image": "app"}]}),
            _ => {}
        }
    }
    (objects, proxies)
}

async fn published(source: impl Source + 'static) -> Arc<Published> {
    let mut store = Store::new(Settings::default(), Debounce::default());
    store.source(source);
    let (states, mut synced) = (store.snapshots(), store.synced());
    let stop = CancellationToken::new();
    let running = tokio::spawn(store.run(stop.clone()));
    synced.wait_for(|synced| *synced).await.unwrap();
    stop.cancel();
    running.await.unwrap();
    states.borrow().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_and_a_folder_with_the_same_manifests_are_the_same_to_a_proxy() {
    let Some(samples) = corpus::folder("cluster and folder", "samples") else { return };
    let Some(cluster) = Cluster::start("cluster and folder").await else { return };
    for definition in mesh_api::crds() {
        cluster.define(&serde_json::to_value(definition).unwrap()).await;
    }
    let (mut objects, proxies) = bookinfo(&samples);
    let folder = tempfile::tempdir().unwrap();
    for object in &objects {
        cluster.apply(object).await;
    }
    // The apiserver's own service is in every cluster.
    for (api_version, kind) in [("v1", "Service"), ("discovery.k8s.io/v1", "EndpointSlice")] {
        let own = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "kubernetes"}});
        objects.push(cluster.get(&own).await);
    }
    for (index, object) in objects.iter().enumerate() {
        std::fs::write(folder.path().join(format!("{index}.json")), object.to_string()).unwrap();
    }
    let from_cluster = published(Kube::new(cluster.client()).namespaces(["default".into()])).await;
    let from_folder = published(Files::new([folder.path().into()])).await;
    assert!(proxies.len() > 5, "{proxies:?}");
    for proxy in proxies {
        let proxy = Arc::new(Proxy::from_json(&proxy.to_string()).unwrap());
        for kind in TypeUrl::ALL {
            let sent = |state: &Published| Builder::default().build(&state.snapshot, &proxy, kind);
            let (cluster, folder) = (sent(&from_cluster), sent(&from_folder));
            assert_eq!(bytes(&cluster), bytes(&folder), "{kind:?} of {proxy:?}");
        }
    }
}

fn bytes(resources: &ResourceSet) -> Vec<(String, Vec<u8>)> {
    resources.iter().map(|resource| (resource.name().to_string(), resource.value().to_vec())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn meshd_follows_the_settings_of_its_cluster() {
    let Some(cluster) = Cluster::start("meshd over a cluster").await else { return };
    let settings = |namespaces: &str| {
        let mesh = format!("discoverySelectors: [{{matchLabels: {{kubernetes.io/metadata.name: {namespaces}}}}}]\n");
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio-test", "namespace": "istio-system"},
               "data": {"mesh": mesh}})
    };
    cluster.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system"}})).await;
    cluster.apply(&settings("none")).await;
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, cluster.kubeconfig().to_string()).unwrap();
    let meshd = Command::new(env!("CARGO_BIN_EXE_meshd"))
        .args(["--print-addrs", "--revision=test", "--grpc-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0"])
        .args(["--monitoring-addr=127.0.0.1:0", "--kubeconfig"])
        .arg(&kubeconfig)
        .stdout(Stdio::piped())
        .spawn();
    let mut meshd = Process(meshd.unwrap());
    let out = meshd.0.stdout.take().unwrap();
    let line = tokio::task::spawn_blocking(move || BufReader::new(out).lines().next().unwrap().unwrap()).await.unwrap();
    let addresses: Value = serde_json::from_str(&line).unwrap();
    let registry = || {
        let address = addresses["http"].as_str().unwrap().to_owned();
        tokio::task::spawn_blocking(move || crate::commands::get(&address, "/debug/registryz"))
    };
    assert!(!registry().await.unwrap().contains("kubernetes.default.svc"), "its namespace is not selected");
    cluster.apply(&settings("default")).await;
    let start = tokio::time::Instant::now();
    while !registry().await.unwrap().contains("kubernetes.default.svc") {
        assert!(start.elapsed().as_secs() < 20, "the settings are followed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What each cluster's pods of one service are called by now.
async fn pods(source: &mut Remotes, pods: &mut BTreeSet<String>, want: &[&str]) {
    while !pods.iter().eq(want) {
        let batch = tokio::time::timeout(Duration::from_secs(20), source.next()).await;
        for event in batch.unwrap_or_else(|_| panic!("{want:?} was never told, but {pods:?}")).unwrap() {
            match event {
                Event::Upsert { object: Object::Pod(pod), .. } => drop(pods.insert(pod.metadata.name.clone().unwrap())),
                Event::Delete(key) if key.kind == "Pod" => assert!(pods.remove(key.name.as_str())),
                _ => {}
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_come_and_go_by_their_secrets() {
    let Some(cluster) = Cluster::start("several clusters").await else { return };
    let secret = |name: &str, cluster: &str, kubeconfig: &Value| {
        json!({"apiVersion": "v1", "kind": "Secret",
               "metadata": {"name": name, "namespace": "default", "labels": {"istio/multiCluster": "true"}},
               "stringData": {cluster: kubeconfig.to_string()}})
    };
    let pod = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
               "spec": {"containers": [{"name": "app", "image": "app"}]}, "status": {"podIP": "10.0.0.1"}})
    };
    let here = cluster.kubeconfig();
    let mut nowhere = here.clone();
    nowhere["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1".into();
    cluster.apply(&pod("one")).await;
    cluster.apply(&secret("east", "east", &here)).await;
    cluster.apply(&secret("far", "far", &nowhere)).await;

    let remotes = Remotes::new(cluster.client(), "default", "own".into());
    let (mut source, mut seen) = (remotes.patience(Duration::from_secs(3)), BTreeSet::new());
    pods(&mut source, &mut seen, &["one@east"]).await;
    while !source.next().await.unwrap().contains(&Event::Synced) {}

    cluster.apply(&secret("west", "west", &here)).await;
    pods(&mut source, &mut seen, &["one@east", "one@west"]).await;
    let mut rotated = here.clone();
    rotated["users"][0]["name"] = "other".into();
    rotated["contexts"][0]["context"]["user"] = "other".into();
    cluster.apply(&secret("east", "east", &rotated)).await;
    cluster.apply(&pod("two")).await;
    pods(&mut source, &mut seen, &["one@east", "one@west", "two@east", "two@west"]).await;
    cluster.delete(&secret("west", "west", &here)).await;
    pods(&mut source, &mut seen, &["one@east", "two@east"]).await;
}
