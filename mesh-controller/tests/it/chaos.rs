//! What may happen to a control plane in its cluster, all over one apiserver: leaders are killed, definitions go and come
//! back, the apiserver is killed, connections are cut, and etcd forgets. Meanwhile a proxy of the meshd that survives must
//! be told of every change in time, and lose nothing that is still there.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mesh_xds::TypeUrl;
use serde_json::{Value, json};

use crate::daemon::Meshd;
use crate::envtest::{Cluster, Process};
use crate::proxy::{Held, Proxy};
use crate::wire::Wire;

/// A Lease lasts 15 s, and whoever stands for it looks every 2 s.
const LEASE: Duration = Duration::from_secs(15);
/// How late anything may be.
const LATE: Duration = Duration::from_secs(30);

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

fn service(name: &str) -> Value {
    let index = name.bytes().map(u32::from).sum::<u32>() % 250;
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
           "spec": {"clusterIP": format!("10.96.9.{index}"), "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}})
}

fn slice(name: &str, address: &str) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
           "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": name}},
           "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
           "endpoints": [{"addresses": [address], "conditions": {"ready": true}}]})
}

fn virtual_service(path: &str) -> Value {
    let route = json!({"match": [{"uri": {"prefix": path}}], "route": [{"destination": {"host": "stays"}}]});
    json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
           "metadata": {"name": "stays", "namespace": "default"}, "spec": {"hosts": ["stays"], "http": [route]}})
}

fn gateway(replicas: u32) -> Value {
    let k8s = json!({"hpaSpec": {"minReplicas": replicas}});
    json!({"apiVersion": "install.istio.io/v1alpha1", "kind": "IstioOperator",
           "metadata": {"name": "edge", "namespace": "istio-system"},
           "spec": {"profile": "empty",
                    "components": {"ingressGateways": [{"name": "istio-edge", "enabled": true, "k8s": k8s}]}}})
}

fn reference(api_version: &str, kind: &str, namespace: &str, name: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": namespace}})
}

fn root_of(namespace: &str) -> Value {
    reference("v1", "ConfigMap", namespace, "istio-ca-root-cert")
}

/// The cluster of a service, as proxies call it.
fn cluster_of(service: &str) -> String {
    format!("outbound|80||{service}.default.svc.cluster.local")
}

fn sends_to(held: &Held, service: &str, address: &str) -> bool {
    held.says(TypeUrl::Endpoint, &cluster_of(service), address)
}

fn has(held: &Held, service: &str) -> bool {
    held.resources.contains_key(&(TypeUrl::Cluster.as_str(), cluster_of(service)))
}

/// The cluster in which all happens, the wire over which the control planes reach it, and their kubeconfig.
struct Stage {
    cluster: Cluster,
    wire: Wire,
    folder: tempfile::TempDir,
}

impl Stage {
    async fn new(cluster: Cluster) -> Self {
        let wire = Wire::to(cluster.port()).await;
        let folder = tempfile::tempdir().unwrap();
        let mut config = cluster.kubeconfig();
        config["clusters"][0]["cluster"]["server"] = format!("https://127.0.0.1:{}", wire.port).into();
        std::fs::write(folder.path().join("kubeconfig"), config.to_string()).unwrap();
        Self { cluster, wire, folder }
    }

    fn kubeconfig(&self) -> String {
        format!("--kubeconfig={}", self.folder.path().join("kubeconfig").display())
    }

    async fn meshd(&self, name: &str) -> Meshd {
        Meshd::start([self.kubeconfig(), format!("--pod-name={name}")]).await
    }

    fn operator(&self, name: &str) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meshctl"));
        command
            .args(["operator", "--http-addr=127.0.0.1:0", "--monitoring-addr=127.0.0.1:0"])
            .args([self.kubeconfig(), format!("--pod-name={name}")])
            .env("RUST_LOG", "off")
            .stdout(Stdio::null());
        Process(command.spawn().unwrap())
    }

    /// Waits until an object, or that there is none, satisfies.
    async fn until(&self, what: &str, patience: Duration, object: &Value, holds: impl Fn(Option<Value>) -> bool) {
        let start = Instant::now();
        while !holds(self.cluster.find(object).await) {
            assert!(start.elapsed() < patience, "{what} did not come within {patience:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn holds(&self, lease: &str, replica: &str) {
        let lease = reference("coordination.k8s.io/v1", "Lease", "istio-system", lease);
        self.until("a leader", LATE, &lease, |lease| lease.is_some_and(|l| l["spec"]["holderIdentity"] == replica))
            .await;
    }

    /// Those who lead are killed. What they alone do, the others go on with once the Leases have run out.
    async fn leaders_are_killed(&self, leaders: (Meshd, Process)) {
        drop(leaders);
        self.cluster.apply(&namespace("late")).await;
        self.cluster.apply(&gateway(2)).await;
        let (root, made) = (root_of("late"), reference("apps/v1", "Deployment", "istio-system", "istio-edge"));
        tokio::join!(
            self.until("the root of the mesh", LEASE + LATE, &root, |map| map.is_some()),
            self.until("the gateway", LEASE + LATE, &made, |made| made.is_some()),
        );
    }

    /// A definition goes, and its objects with it; both come back. Nothing else changes.
    async fn a_definition_goes_and_comes_back(&self, definition: &Value, proxy: &Proxy) {
        let routes = |held: &Held, path: &str| held.says(TypeUrl::Route, "80", path);
        self.cluster.delete(definition).await;
        proxy.until("the route without its VirtualService", |held| !routes(held, "/first")).await;
        self.cluster.define(definition).await;
        self.cluster.apply(&virtual_service("/second")).await;
        proxy.until("the route of the VirtualService that is back", |held| routes(held, "/second")).await;
    }

    async fn an_endpoint_moves(&self, proxy: &Proxy, address: &str) {
        self.cluster.apply(&slice("changes", address)).await;
        proxy.until("the endpoint's new address", |held| sends_to(held, "changes", address)).await;
    }

    /// The apiserver is killed. When it is back, the control planes are cut off until etcd has forgotten what they knew last.
    async fn the_apiserver_is_killed_and_etcd_forgets(&mut self, proxy: &Proxy) {
        let before = proxy.held();
        self.cluster.kill();
        self.wire.cut().await;
        self.cluster.revive().await;
        assert!(proxy.held().keeps(&before), "an apiserver that is not there deletes nothing");
        self.cluster.apply(&slice("changes", "10.1.0.3")).await;
        self.cluster.delete(&service("goes")).await;
        self.cluster.delete(&slice("goes", "")).await;
        self.cluster.apply(&service("comes")).await;
        self.cluster.apply(&slice("comes", "10.1.0.4")).await;
        self.cluster.compact().await;
        self.cluster.delete(&root_of("late")).await;
        self.cluster.apply(&gateway(3)).await;
        assert!(proxy.held().keeps(&before), "a connection that is cut deletes nothing");
        self.wire.mend();
        let root = root_of("late");
        let scaler = reference("autoscaling/v2", "HorizontalPodAutoscaler", "istio-system", "istio-edge");
        tokio::join!(
            proxy.until("all that happened meanwhile", |held| {
                sends_to(held, "changes", "10.1.0.3") && sends_to(held, "comes", "10.1.0.4") && !has(held, "goes")
            }),
            self.until("the root of the mesh", LATE, &root, |map| map.is_some()),
            self.until("the gateway's new size", LATE, &scaler, |scaler| {
                scaler.is_some_and(|scaler| scaler["spec"]["minReplicas"] == 3)
            }),
        );
    }

    /// The folder with the manifests of all that is in the cluster for the mesh.
    async fn manifests(&self) -> String {
        let folder = self.folder.path().join("manifests");
        std::fs::create_dir(&folder).unwrap();
        let mut objects = vec![service("stays"), service("changes"), service("comes"), virtual_service("/second")];
        objects.extend([slice("stays", "10.1.0.1"), slice("changes", "10.1.0.3"), slice("comes", "10.1.0.4")]);
        for (api_version, kind) in [("v1", "Service"), ("discovery.k8s.io/v1", "EndpointSlice")] {
            // The apiserver's own.
            objects.push(self.cluster.get(&reference(api_version, kind, "default", "kubernetes")).await);
        }
        let edge = reference("v1", "Service", "istio-system", "istio-edge");
        objects.push(self.cluster.get(&edge).await);
        for (index, object) in objects.iter().enumerate() {
            std::fs::write(folder.join(format!("{index}.json")), object.to_string()).unwrap();
        }
        format!("--config-dir={}", folder.display())
    }
}

/// The definition of a kind of ours.
fn definition(kind: &str) -> Value {
    let all = mesh_api::crds().into_iter().chain(mesh_api::install::crds());
    let all = all.map(|definition| serde_json::to_value(definition).unwrap());
    let mut found = all.filter(|definition| definition["spec"]["names"]["kind"] == kind);
    found.next().unwrap_or_else(|| panic!("no definition of {kind}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_unaffected_by_what_happens_to_the_control_plane() {
    let Some(cluster) = Cluster::start("chaos").await else { return };
    let mut stage = Stage::new(cluster).await;
    let virtual_services = definition("VirtualService");
    for definition in [&virtual_services, &definition("IstioOperator")] {
        stage.cluster.define(definition).await;
    }
    stage.cluster.apply(&namespace("istio-system")).await;
    for name in ["stays", "changes", "goes"] {
        stage.cluster.apply(&service(name)).await;
        stage.cluster.apply(&slice(name, "10.1.0.1")).await;
    }
    stage.cluster.apply(&virtual_service("/first")).await;

    let first = stage.meshd("first").await;
    let first_operator = stage.operator("first");
    tokio::join!(stage.holds("istio-namespace-controller-election", "first"), stage.holds("mesh-operator", "first"),);
    let second = stage.meshd("second").await;
    let _second_operator = stage.operator("second");
    let proxy = Proxy::sidecar(second.address("grpc")).await;
    proxy
        .until("all at the start", |held| {
            ["stays", "changes", "goes"].iter().all(|name| sends_to(held, name, "10.1.0.1"))
                && held.says(TypeUrl::Route, "80", "/first")
        })
        .await;

    tokio::join!(
        stage.leaders_are_killed((first, first_operator)),
        stage.a_definition_goes_and_comes_back(&virtual_services, &proxy),
        stage.an_endpoint_moves(&proxy, "10.1.0.2"),
    );
    assert!(proxy.held().removed.is_empty(), "nothing that a proxy was sent has gone by now");
    stage.the_apiserver_is_killed_and_etcd_forgets(&proxy).await;
    assert_eq!(proxy.held().removed, [cluster_of("goes")].into(), "what was deleted, and nothing else, has gone");

    // No object was lost, and none is stale: whoever begins now, from the cluster or from a folder with the same manifests,
    // is sent the same to the byte.
    let third = stage.meshd("third").await;
    let of_folder = Meshd::start([stage.manifests().await]).await;
    for meshd in [third, of_folder] {
        let other = Proxy::sidecar(meshd.address("grpc")).await;
        let want = proxy.held().resources;
        other.until("the same", |held| held.resources == want).await;
    }
}
