//! meshd says in the status of Istio's objects what is wrong with them: as its chart starts it, with its chart's rights.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mesh_controller::install::Plan;
use mesh_controller::status::{CONDITION, MANAGER};
use serde_json::{Value, json};

use crate::envtest::{Cluster, Process};
use crate::rights;

/// What the chart makes where the status is wanted.
fn objects() -> Vec<Value> {
    let spec = json!({"profile": "minimal", "values": {"pilot": {"env": {"PILOT_ENABLE_ANALYSIS": "true"}}}});
    let operator = json!({"metadata": {"name": "rights", "namespace": "istio-system"}, "spec": spec});
    rights::objects(Plan::of(&operator).unwrap())
}

fn virtual_service(host: &str) -> Value {
    json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
           "metadata": {"name": "cart", "namespace": "default"},
           "spec": {"hosts": ["cart.example"], "http": [{"route": [{"destination": {"host": host}}]}]}})
}

/// The object, once it is as wanted.
async fn until(cluster: &Cluster, object: &Value, wanted: impl Fn(&Value) -> bool, said: impl Fn() -> String) -> Value {
    let start = Instant::now();
    loop {
        let found = cluster.get(object).await;
        if wanted(&found) {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{found:#}\n{}", said());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_in_the_objects_status_until_it_is_mended() {
    let Some(cluster) = Cluster::start("the status of Istio's objects").await else { return };
    let objects = objects();
    // Its webhooks are for a server that nobody reaches here.
    let is_hook = |object: &&Value| object["kind"].as_str().unwrap().ends_with("WebhookConfiguration");
    let wanted: Vec<Value> = objects.iter().filter(|object| !is_hook(object)).cloned().collect();
    rights::install(&cluster, &wanted).await;

    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    fs::write(&kubeconfig, rights::kubeconfig_of_istiod(&cluster).to_string()).unwrap();
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let args = deployment["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap();
    let log = folder.path().join("log");
    let meshd = Command::new(env!("CARGO_BIN_EXE_meshd"))
        .args(args.iter().map(|arg| arg.as_str().unwrap()))
        .args(["--grpc-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0", "--monitoring-addr=127.0.0.1:0"])
        .arg("--kubeconfig")
        .arg(&kubeconfig)
        .envs([("REVISION", "default"), ("POD_NAME", "istiod-0"), ("POD_NAMESPACE", "istio-system")])
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn();
    let _meshd = Process(meshd.unwrap());
    let said = || fs::read_to_string(&log).unwrap();

    let lost = virtual_service("nowhere.example");
    cluster.apply(&lost).await;
    let has_condition = |found: &Value| {
        found["status"]["conditions"].as_array().is_some_and(|all| all.iter().any(|one| one["type"] == CONDITION))
    };
    let found = until(&cluster, &lost, has_condition, said).await;
    assert_eq!(found["status"]["validationMessages"][0]["type"]["code"], "UnservedHost");
    assert_eq!(found["status"]["validationMessages"][0]["level"], "WARNING");
    assert_eq!(found["status"]["observedGeneration"], found["metadata"]["generation"]);
    assert!(found["status"]["conditions"][0]["message"].as_str().unwrap().contains("nowhere.example"));
    let managers = found["metadata"]["managedFields"].as_array().unwrap();
    let ours = managers.iter().find(|entry| entry["manager"] == MANAGER).unwrap();
    assert_eq!((&ours["operation"], &ours["subresource"]), (&json!("Apply"), &json!("status")));

    // A change that mends nothing is seen, and nothing else is written.
    let mut still_lost = lost.clone();
    still_lost["spec"]["http"][0]["name"] = "named".into();
    cluster.apply(&still_lost).await;
    let seen = |found: &Value| {
        let generation = &found["metadata"]["generation"];
        *generation != 1 && found["status"]["observedGeneration"] == *generation
    };
    let again = until(&cluster, &lost, seen, said).await;
    assert_eq!(
        again["status"]["conditions"][0]["lastTransitionTime"],
        found["status"]["conditions"][0]["lastTransitionTime"]
    );

    let entry = json!({"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
                       "metadata": {"name": "nowhere", "namespace": "default"},
                       "spec": {"hosts": ["nowhere.example"], "location": "MESH_EXTERNAL", "resolution": "DNS",
                                "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}]}});
    cluster.apply(&entry).await;
    let mended = until(&cluster, &lost, |found| !has_condition(found), said).await;
    assert!(mended["status"]["validationMessages"].is_null(), "{mended:#}");
    assert!(cluster.get(&entry).await["status"].is_null(), "nothing is said of what is right");

    // What was written is heard of, and nothing is written in answer to it.
    let version = mended["metadata"]["resourceVersion"].clone();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(cluster.get(&lost).await["metadata"]["resourceVersion"], version);
    assert!(!said().to_lowercase().contains("forbidden"), "{}", said());
}
