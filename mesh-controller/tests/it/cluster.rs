//! meshd over a real apiserver: what a proxy is sent is the same, byte for byte, from a cluster as from a folder.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use mesh_api::object::group_and_version;
use mesh_api::{Kind, Object, document};
use mesh_controller::source::{Event, Files, Kube, Remotes};
use mesh_controller::store::{Debounce, Published};
use mesh_controller::{Source, Store};
use mesh_xds::model::Settings;
use mesh_xds::{Builder, Proxy, ResourceSet, TypeUrl};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::daemon::Meshd;
use crate::envtest::Cluster;
use crate::simulation::{self, Scenario};
use crate::{corpus, pipeline, samples};

/// A mesh, and proxies of it.
struct Scene {
    name: String,
    settings: Settings,
    objects: Vec<Value>,
    proxies: Vec<Value>,
}

/// An apiserver refused an object of a scene.
struct Refused(String);

impl Scene {
    /// Bookinfo with the pods and slices that controllers would make of it.
    fn bookinfo(samples: &Path) -> Self {
        let files = [
            "platform/kube/bookinfo.yaml",
            "networking/bookinfo-gateway.yaml",
            "networking/destination-rule-all.yaml",
            "networking/virtual-service-reviews-90-10.yaml",
        ];
        let texts = files.map(|file| std::fs::read_to_string(samples.join("bookinfo").join(file)).unwrap());
        let (made, proxies) = samples::cluster(&texts);
        let mut objects = documents(texts.iter().map(String::as_str));
        objects.extend(made);
        Self::new("bookinfo", Settings::default(), objects, proxies)
    }

    fn simulation(scenario: &Scenario) -> Self {
        let settings = pipeline::settings(&scenario.mesh_config, &scenario.env);
        let texts = scenario.input().documents;
        let objects = documents(texts.iter().map(|(_, text)| text.as_str()));
        Self::new(&scenario.id, settings, objects, vec![scenario.proxy.clone()])
    }

    fn new(name: &str, settings: Settings, mut objects: Vec<Value>, proxies: Vec<Value>) -> Self {
        let kind = |object: &Value| {
            let (group, _) = group_and_version(object["apiVersion"].as_str()?);
            Kind::find(group, object["kind"].as_str()?)
        };
        // The others are not ours, or nothing that the mesh reads.
        objects.retain(|object| kind(object).is_some_and(|kind| !matches!(kind.name, "Deployment" | "ServiceAccount")));
        for (index, object) in objects.iter_mut().enumerate() {
            if kind(object).is_some_and(|kind| kind.namespaced) && object["metadata"]["namespace"].is_null() {
                object["metadata"]["namespace"] = "default".into();
            }
            as_an_apiserver_takes_it(object, index);
        }
        Self { name: name.to_owned(), settings, objects, proxies }
    }

    /// Puts it into a cluster. Its objects learn when they were made: the elder wins, and a folder has no clock.
    async fn apply(&mut self, cluster: &Cluster) -> Result<(), Refused> {
        let namespaces: BTreeSet<&str> =
            self.objects.iter().filter_map(|object| object["metadata"]["namespace"].as_str()).collect();
        for name in namespaces {
            cluster.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await;
        }
        let applied = join_all(self.objects.iter().map(|object| cluster.try_apply(object))).await;
        for (object, applied) in self.objects.iter_mut().zip(applied) {
            let applied = applied.map_err(|error| match error {
                kube::Error::Api(status) => Refused(status.message),
                other => panic!("{object}: {other}"),
            })?;
            object["metadata"]["creationTimestamp"] = json!(applied.metadata.creation_timestamp);
        }
        Ok(())
    }

    /// Takes it out again. Namespaces stay, as if nobody had said anything of them.
    async fn remove(&self, cluster: &Cluster) {
        let remove = |object: &Value| {
            let bare =
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": object["metadata"]["name"]}});
            let object = object.clone();
            async move {
                match object["kind"] == "Namespace" {
                    true => cluster.apply(&bare).await,
                    false => cluster.delete_only(&object).await,
                }
            }
        };
        join_all(self.objects.iter().map(remove)).await;
    }

    /// What its proxies are sent must be the same from the cluster as from a folder with these objects and `others`.
    async fn check(&self, cluster: &Cluster, others: &[Value]) {
        let folder = tempfile::tempdir().unwrap();
        for (index, object) in self.objects.iter().chain(others).enumerate() {
            std::fs::write(folder.path().join(format!("{index}.json")), object.to_string()).unwrap();
        }
        let from_cluster = published(Kube::new(cluster.client()), &self.settings).await;
        let from_folder = published(Files::new([folder.path().into()]), &self.settings).await;
        for proxy in &self.proxies {
            let proxy = Arc::new(Proxy::from_json(&proxy.to_string()).unwrap());
            for kind in TypeUrl::ALL {
                let sent = |state: &Published| Builder::default().build(&state.snapshot, &proxy, kind);
                let (cluster, folder) = (sent(&from_cluster), sent(&from_folder));
                assert!(
                    bytes(&cluster) == bytes(&folder),
                    "{}: {kind:?} of {proxy:?}: {cluster:?}\n{folder:?}",
                    self.name
                );
            }
        }
    }
}

fn documents<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<Value> {
    let objects = |text| document::raw(&"scene".into(), text).into_iter().map(|raw| raw.unwrap().node.to_json());
    texts.flat_map(|text| objects(text).collect::<Vec<_>>()).collect()
}

/// An apiserver gives services addresses of its own range, and wants to know what runs in a pod.
fn as_an_apiserver_takes_it(object: &mut Value, index: usize) {
    match object["kind"].as_str() {
        Some("Service") => {
            let spec = &mut object["spec"];
            if spec["clusterIP"] != "None" && spec["type"] != "ExternalName" {
                spec["clusterIP"] = format!("10.96.7.{index}").into();
            }
        }
        Some("Pod") => {
            let containers = &mut object["spec"]["containers"];
            match containers.as_array_mut() {
                Some(containers) if !containers.is_empty() => {
                    containers.iter_mut().for_each(|container| container["image"] = "app".into());
                }
                _ => *containers = json!([{"name": "app", "image": "app"}]),
            }
        }
        _ => {}
    }
}

async fn published(source: impl Source + 'static, settings: &Settings) -> Arc<Published> {
    let mut store = Store::new(settings.clone(), Debounce::default());
    store.source(source);
    let (states, mut synced) = (store.snapshots(), store.synced());
    let stop = CancellationToken::new();
    let running = tokio::spawn(store.run(stop.clone()));
    synced.wait_for(|synced| *synced).await.unwrap();
    stop.cancel();
    running.await.unwrap();
    states.borrow().clone()
}

fn bytes(resources: &ResourceSet) -> Vec<(String, Vec<u8>)> {
    resources.iter().map(|resource| (resource.name().to_string(), resource.value().to_vec())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_and_a_folder_with_the_same_manifests_are_the_same_to_a_proxy() {
    let Some(samples) = corpus::folder("cluster and folder", "samples") else { return };
    let Some(simulation) = corpus::folder("cluster and folder", "simulation") else { return };
    let Some(cluster) = Cluster::start("cluster and folder").await else { return };
    for definition in mesh_api::crds() {
        cluster.define(&serde_json::to_value(definition).unwrap()).await;
    }
    // The apiserver's own service is in every cluster.
    let mut own = Vec::new();
    for (api_version, kind) in [("v1", "Service"), ("discovery.k8s.io/v1", "EndpointSlice")] {
        let of = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "kubernetes"}});
        own.push(cluster.get(&of).await);
    }
    let mut scenes = vec![Scene::bookinfo(&samples)];
    scenes.extend(simulation::scenarios(&simulation).iter().filter(|scenario| scenario.valid).map(Scene::simulation));
    let (mut same, mut refused) = (0, Vec::new());
    for mut scene in scenes {
        match scene.apply(&cluster).await {
            Ok(()) => {
                scene.check(&cluster, &own).await;
                same += 1;
            }
            // It is not all there then, and what is can't be compared.
            Err(Refused(why)) => refused.push(format!("{}: {why}", scene.name)),
        }
        scene.remove(&cluster).await;
    }
    println!("{same} scenes are the same from a cluster and from a folder; the apiserver refuses {refused:#?}");
    assert!(same > 40, "{same}");
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
    let meshd = Meshd::start(["--revision=test".into(), format!("--kubeconfig={}", kubeconfig.display())]).await;
    let registry = || {
        let address = meshd.address("http").to_owned();
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
