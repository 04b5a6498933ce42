//! The operator against a real apiserver: an IstioOperator brings up every object, drift is repaired, and with the
//! IstioOperator all goes.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kube::Client;
use kube::api::{Api, DynamicObject, ListParams};
use kube::config::Config;
use mesh_controller::install::Plan;
use mesh_controller::operator::changes::{Key, Owner};
use mesh_controller::operator::{Cluster as Objects, Operator, Options, changes, desired};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::envtest::Cluster;

const PATIENCE: Duration = Duration::from_secs(60);

fn installation(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "install.istio.io/v1alpha1", "kind": "IstioOperator",
           "metadata": {"name": name, "namespace": "istio-system"}, "spec": spec})
}

fn wanted(operator: &Value) -> Vec<Value> {
    let mut plan = Plan::of(operator).unwrap();
    let rendered = plan.render().unwrap();
    desired(&plan, rendered)
}

fn keys(objects: &[Value], keep: impl Fn(&Value) -> bool) -> BTreeSet<String> {
    objects.iter().filter(|object| keep(object)).map(|object| Key::of(object).to_string()).collect()
}

fn owned(name: &'static str) -> impl Fn(&Value) -> bool {
    move |object| Owner::of(object).is_some_and(|owner| owner.name == name)
}

/// Waits until the objects that are there satisfy.
async fn until(objects: &Objects, what: &str, holds: impl Fn(&[Value]) -> bool) {
    let start = Instant::now();
    loop {
        let observed = objects.observe().await.unwrap();
        if holds(&observed) {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: {:?}", keys(&observed, |_| true));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut found = objects.iter().filter(|o| o["kind"] == kind && o["metadata"]["name"] == name);
    found.next().unwrap_or_else(|| panic!("no {kind} {name}"))
}

/// A client of the account that the chart makes for the operator.
fn as_account(cluster: &Cluster, account: &str) -> Client {
    let mut config: Config = cluster.config();
    config.auth_info.impersonate = Some(format!("system:serviceaccount:istio-system:{account}"));
    config.auth_info.impersonate_groups =
        Some(["system:serviceaccounts", "system:authenticated"].map(str::to_owned).to_vec());
    Client::try_from(config).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_istiooperator_brings_up_all_and_takes_it_along() {
    let Some(cluster) = Cluster::start("the operator").await else { return };
    for definition in mesh_api::install::crds() {
        cluster.define(&serde_json::to_value(definition).unwrap()).await;
    }
    // The operator runs as the chart has it, with the rights that the chart gives it.
    let base = installation(
        "base",
        json!({"profile": "empty", "components": {"base": {"enabled": true}},
                                           "values": {"operator": {"enabled": true}}}),
    );
    for namespace in ["istio-system", "edge"] {
        cluster.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})).await;
    }
    let objects = Objects::new(cluster.client());
    let first = changes(
        &wanted(&base),
        &objects.observe().await.unwrap(),
        &Owner { name: "base".into(), namespace: "istio-system".into() },
    );
    let outcome = objects.carry_out(&first, |_| {}).await;
    assert!(outcome.failed.is_empty(), "{outcome:?}");
    let end = CancellationToken::new();
    let operator = Operator::new(as_account(&cluster, "mesh-operator"), Options::new("istio-system", "test"));
    let running = tokio::spawn(operator.run(end.clone().cancelled_owned()));

    let demo = installation(
        "demo",
        json!({"profile": "demo", "components": {"base": {"enabled": false}},
                                           "values": {"revisionTags": ["prod"]}, "nothingSuch": true}),
    );
    cluster.apply(&demo).await;
    let want = keys(&wanted(&demo), |_| true);
    until(&objects, "everything is made", |there| keys(there, owned("demo")) == want).await;
    let observed = objects.observe().await.unwrap();
    let owner = Owner { name: "demo".into(), namespace: "istio-system".into() };
    let still = changes(&wanted(&demo), &observed, &owner);
    assert!(
        still.is_empty(),
        "what the apiserver makes of the objects is no drift: {:?}",
        keys(&still.apply, |_| true)
    );

    // Drift: a deleted object comes back, an edited one is put right, and what others add stays.
    cluster.delete(find(&observed, "Service", "istiod")).await;
    let mut edited = find(&observed, "ConfigMap", "istio").clone();
    edited["metadata"] = json!({"name": "istio", "namespace": "istio-system", "annotations": {"mine": "stays"}});
    edited["data"] = json!({"mesh": "rootNamespace: other"});
    cluster.apply(&edited).await;
    until(&objects, "drift is repaired", |there| {
        changes(&wanted(&demo), there, &owner).is_empty() && keys(there, owned("demo")) == want
    })
    .await;
    let map = objects.observe().await.unwrap();
    assert_eq!(find(&map, "ConfigMap", "istio")["metadata"]["annotations"]["mine"], "stays");

    // The status says how far it is, and what is not supported. Nobody runs pods here.
    let status = cluster.get(&demo).await["status"].clone();
    assert_eq!(status["status"], "RECONCILING", "{status}");
    assert_eq!(status["observedGeneration"], 1);
    let condition = |name: &str| {
        let conditions = status["conditions"].as_array().unwrap();
        conditions.iter().find(|condition| condition["type"] == name).unwrap().clone()
    };
    assert_eq!(condition("Reconciled")["status"], "True");
    assert_eq!(condition("Supported")["status"], "False");
    assert!(condition("Supported")["message"].as_str().unwrap().contains("spec.nothingSuch"), "{status}");
    assert_eq!(status["componentStatus"]["Pilot"]["status"], "RECONCILING");

    // Fewer parts: what is no longer wanted goes. A plan that can't be made changes nothing.
    let mut smaller = demo.clone();
    smaller["spec"] = json!({"profile": "minimal", "components": {"base": {"enabled": false}}});
    cluster.apply(&smaller).await;
    let want = keys(&wanted(&smaller), |_| true);
    until(&objects, "what is no longer wanted goes", |there| keys(there, owned("demo")) == want).await;
    let mut wrong = demo.clone();
    wrong["spec"] = json!({"profile": "no-such"});
    cluster.apply(&wrong).await;
    let start = Instant::now();
    while cluster.get(&demo).await["status"]["status"] != "ERROR" {
        assert!(start.elapsed() < PATIENCE, "a mistake is told");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(keys(&objects.observe().await.unwrap(), owned("demo")), want);

    // A second revision beside it.
    let canary = installation("canary", json!({"profile": "minimal", "revision": "canary"}));
    cluster.apply(&canary).await;
    until(&objects, "the second revision comes", |there| {
        keys(there, owned("canary")).contains("Deployment istio-system/istiod-canary")
    })
    .await;
    assert_eq!(keys(&objects.observe().await.unwrap(), owned("demo")), want, "the first stays as it is");

    // Removal, of one and then of the other.
    cluster.delete(&demo).await;
    until(&objects, "all of it goes", |there| keys(there, owned("demo")).is_empty()).await;
    assert!(keys(&objects.observe().await.unwrap(), owned("canary")).contains("Service istio-system/istiod-canary"));
    let events: Api<DynamicObject> = Api::namespaced_with(
        cluster.client(),
        "istio-system",
        &kube::api::ApiResource::from_gvk(&kube::api::GroupVersionKind::gvk("events.k8s.io", "v1", "Event")),
    );
    let events = events.list(&ListParams::default()).await.unwrap().items;
    assert!(events.iter().any(|event| event.data["reason"] == "Reconciled"), "{events:?}");
    end.cancel();
    running.await.unwrap();
}

/// The commands do the same once.
#[tokio::test(flavor = "multi_thread")]
async fn meshctl_installs_and_uninstalls() {
    let Some(cluster) = Cluster::start("meshctl install").await else { return };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("kubeconfig"), cluster.kubeconfig().to_string()).unwrap();
    let meshctl = |args: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_meshctl"))
            .args(args)
            .args(["--kubeconfig", "kubeconfig"])
            .current_dir(folder.path())
            .output()
            .unwrap();
        (out.status.code().unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    let install = |args: &[&str]| meshctl(&[&["install", "--skip-wait"], args].concat());
    let objects = Objects::new(cluster.client());
    let there = || async { keys(&objects.observe().await.unwrap(), |object| Owner::of(object).is_some()) };

    let (code, said) = install(&["--dry-run"]);
    assert!(code == 0 && said.contains("would apply Deployment istio-system/istiod\n"), "{said}");
    assert!(there().await.is_empty());
    let (code, said) = install(&[]);
    assert!(code == 0 && said.contains("applied Deployment istio-system/istio-ingressgateway\n"), "{said}");
    assert_eq!(install(&[]), (0, "nothing has to change\n".to_owned()));
    let (code, said) = install(&["--set", "profile=minimal"]);
    assert!(code == 0 && said.contains("deleted Deployment istio-system/istio-ingressgateway\n"), "{said}");
    // A second revision has a name of its own; what both share stays with the first.
    let (code, said) = install(&["--revision", "canary", "--set", "profile=minimal"]);
    assert!(code == 0 && said.contains("belongs to IstioOperator istio-system/installed-state"), "{said}");

    let (code, said) = meshctl(&["uninstall", "--revision", "other"]);
    assert!(code == 2 && said.contains("installed are: IstioOperator istio-system/installed-state"), "{said}");
    let (code, said) = meshctl(&["uninstall", "--revision", "canary"]);
    assert!(code == 0 && said.contains("deleted Deployment istio-system/istiod-canary\n"), "{said}");
    assert!(there().await.contains("Deployment istio-system/istiod"));
    assert_eq!(meshctl(&["uninstall", "--purge"]).0, 0);
    assert!(there().await.is_empty(), "{:?}", there().await);
    assert_eq!(keys(&objects.observe().await.unwrap(), |_| true).len(), 16, "the definitions stay");

    // The operator as a process: it acts, and ends when it is told to.
    let mut operator = Command::new(env!("CARGO_BIN_EXE_meshctl"))
        .args(["operator", "--kubeconfig", "kubeconfig", "--http-addr=127.0.0.1:0", "--monitoring-addr=127.0.0.1:0"])
        .current_dir(folder.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mesh = installation("mesh", json!({"profile": "minimal"}));
    cluster.apply(&mesh).await;
    until(&objects, "the operator acts", |there| keys(there, owned("mesh")).contains("Deployment istio-system/istiod"))
        .await;
    cluster.delete(&mesh).await;
    assert!(there().await.is_empty(), "the IstioOperator goes last");
    let pid = rustix::process::Pid::from_child(&operator);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let ended = tokio::task::spawn_blocking(move || operator.wait()).await.unwrap().unwrap();
    assert!(ended.success(), "{ended}");
}
