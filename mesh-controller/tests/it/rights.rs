//! The chart gives meshd every right that it needs: it runs as its chart starts it, and as its chart's account.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kube::api::{ApiResource, GroupVersionKind};
use mesh_api::object::KINDS;
use mesh_controller::install::Plan;
use mesh_controller::operator::{Cluster as Objects, Owner, changes, desired};
use serde_json::{Value, json};

use crate::envtest::{Cluster, Process};

fn minimal() -> Plan {
    Plan::of(&json!({"metadata": {"name": "rights", "namespace": "istio-system"}, "spec": {"profile": "minimal"}}))
        .unwrap()
}

/// What a plan installs.
pub(crate) fn objects(mut plan: Plan) -> Vec<Value> {
    let rendered = plan.render().unwrap();
    desired(&plan, rendered)
}

/// Installs them, all of the owner `rights`.
pub(crate) async fn install(cluster: &Cluster, objects: &[Value]) -> Objects {
    for definition in objects.iter().filter(|object| object["kind"] == "CustomResourceDefinition") {
        cluster.define(definition).await;
    }
    let installed = Objects::new(cluster.client());
    let outcome = installed.carry_out(&changes(objects, &[], &owner()), |_| {}).await;
    assert!(outcome.failed.is_empty(), "{outcome:?}");
    installed
}

fn owner() -> Owner {
    Owner { name: "rights".into(), namespace: "istio-system".into() }
}

/// A kubeconfig of the account that meshd has in a cluster.
pub(crate) fn kubeconfig_of_istiod(cluster: &Cluster) -> Value {
    let mut access = cluster.kubeconfig();
    access["users"][0]["user"]["as"] = "system:serviceaccount:istio-system:istiod".into();
    access["users"][0]["user"]["as-groups"] = json!(["system:serviceaccounts", "system:authenticated"]);
    access
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// What is read, held against the rules alone: every kind that the source follows.
#[test]
fn the_chart_lets_meshd_read_every_kind_that_it_follows() {
    let objects = objects(minimal());
    let role =
        objects.iter().find(|o| o["kind"] == "ClusterRole" && o["metadata"]["labels"]["app"] == "istiod").unwrap();
    let grants = |group: &str, resource: &str, verb: &str| {
        role["rules"].as_array().unwrap().iter().any(|rule| {
            let has = |field: &str, what: &str| texts(&rule[field]).contains(&what);
            has("apiGroups", group) && has("resources", resource) && has("verbs", verb)
        })
    };
    // Controllers of pods and their accounts are read from files only.
    let unused = ["ServiceAccount", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "CronJob"];
    let kinds = KINDS.iter().filter(|kind| !unused.contains(&kind.name)).map(|kind| {
        let gvk = GroupVersionKind::gvk(kind.group, kind.versions[0], kind.kind);
        (kind.group, ApiResource::from_gvk(&gvk).plural)
    });
    let definitions = ("apiextensions.k8s.io", "customresourcedefinitions".to_owned());
    for (group, resource) in kinds.chain([definitions]) {
        for verb in ["get", "list", "watch"] {
            assert!(grants(group, &resource, verb), "{verb} {resource} of {group:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn meshd_needs_no_right_that_the_chart_does_not_give() {
    let Some(cluster) = Cluster::start("the rights of meshd").await else { return };
    let objects = objects(minimal());
    let installed = install(&cluster, &objects).await;

    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    fs::write(&kubeconfig, kubeconfig_of_istiod(&cluster).to_string()).unwrap();
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let log = folder.path().join("log");
    let meshd = Command::new(env!("CARGO_BIN_EXE_meshd"))
        .args(texts(&container["args"]))
        .args(["--print-addrs", "--grpc-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0", "--monitoring-addr=127.0.0.1:0"])
        .arg("--kubeconfig")
        .arg(&kubeconfig)
        .envs([("REVISION", "default"), ("POD_NAME", "istiod-0"), ("POD_NAMESPACE", "istio-system")])
        .stdout(Stdio::piped())
        .stderr(fs::File::create(&log).unwrap())
        .spawn();
    let mut meshd = Process(meshd.unwrap());
    let said = || fs::read_to_string(&log).unwrap();
    let out = meshd.0.stdout.take().unwrap();
    let ready = tokio::task::spawn_blocking(move || BufReader::new(out).lines().next());
    let ready = tokio::time::timeout(Duration::from_secs(60), ready).await;
    assert!(ready.is_ok_and(|line| line.unwrap().is_some()), "meshd becomes ready:\n{}", said());

    // What it writes: its root, the root's certificate for each namespace, the webhooks' trust in it, its Lease.
    let object = |api_version: &str, kind: &str, namespace: &str, name: &str| json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": namespace}});
    for (what, field) in [
        (object("v1", "Secret", "istio-system", "istio-ca-secret"), "/data/ca-cert.pem"),
        (object("v1", "Secret", "istio-system", "istio-ca-rotation"), "/data/rotation.json"),
        (object("v1", "ConfigMap", "default", "istio-ca-root-cert"), "/data/root-cert.pem"),
        (
            object("coordination.k8s.io/v1", "Lease", "istio-system", "istio-namespace-controller-election"),
            "/spec/holderIdentity",
        ),
    ] {
        let start = Instant::now();
        while cluster.find(&what).await.is_none_or(|found| found.pointer(field).is_none()) {
            assert!(start.elapsed() < Duration::from_secs(60), "{what}: {}", said());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let start = Instant::now();
    loop {
        let observed = installed.observe().await.unwrap();
        let hooks = observed.iter().filter(|object| object["kind"].as_str().unwrap().ends_with("WebhookConfiguration"));
        let trusting = |hook: &Value| hook.pointer("/clientConfig/caBundle").is_some();
        if hooks.clone().count() >= 3 && hooks.flat_map(|o| o["webhooks"].as_array().unwrap()).all(trusting) {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "the webhooks' bundles: {}", said());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // What others own of our objects is no drift.
    let observed = installed.observe().await.unwrap();
    assert!(changes(&objects, &observed, &owner()).is_empty());
    assert!(!said().to_lowercase().contains("forbidden"), "{}", said());
}
