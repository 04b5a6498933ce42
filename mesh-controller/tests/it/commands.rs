//! The commands as users call them: exit codes, standard output, signals.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const MANIFESTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: details, namespace: default}
spec:
  clusterIP: 10.0.0.9
  ports: [{name: http, port: 9080}]
";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("manifests")).unwrap();
    fs::write(folder.path().join("manifests/details.yaml"), MANIFESTS).unwrap();
    let proxy = json!({"type": "sidecar", "id": "app.default", "ips": ["10.1.0.1"], "namespace": "default"});
    fs::write(folder.path().join("proxy.json"), proxy.to_string()).unwrap();
    folder
}

fn meshctl(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_meshctl")).args(args).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn xds_shows_what_a_proxy_is_sent() {
    let folder = folder();
    let run = |args: &[&str]| {
        let mut all = vec!["xds", "-f", "manifests", "--proxy", "proxy.json"];
        all.extend(args);
        let out = meshctl(folder.path(), &all);
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
        text(&out.stdout).to_owned()
    };
    let dump: Value = serde_json::from_str(&run(&[])).unwrap();
    let names = |list: &str, key: &str| -> Vec<String> {
        let all = dump[list].as_array().unwrap().iter();
        all.map(|resource| resource[key].as_str().unwrap().to_owned()).collect()
    };
    assert!(names("listeners", "name").contains(&"virtualOutbound".to_owned()));
    assert!(names("clusters", "name").contains(&"outbound|9080||details.default.svc.cluster.local".to_owned()));
    assert!(names("routes", "name").contains(&"9080".to_owned()));
    assert_eq!(run(&[]), run(&[]), "the same input, the same bytes");

    let only: Value = serde_json::from_str(&run(&["--type", "cds"])).unwrap();
    assert_eq!((&only["clusters"], &only["listeners"]), (&dump["clusters"], &json!([])));
    assert!(run(&["-o", "short"]).contains("\n  virtualOutbound\n"));
    let yaml = mesh_api::document::raw(&"out".into(), &run(&["-o", "yaml"])).remove(0).unwrap().node.to_json();
    assert_eq!(yaml, dump);
}

#[test]
fn explain_follows_a_request() {
    let folder = folder();
    let request = json!({"address": "10.0.0.9", "port": 9080, "host": "details:9080"});
    fs::write(folder.path().join("request.json"), request.to_string()).unwrap();
    let args = ["explain", "-f", "manifests", "--proxy", "proxy.json", "--request", "request.json"];
    let out = meshctl(folder.path(), &[&args[..], &["-o", "json"]].concat());
    let explanation: Value = serde_json::from_str(text(&out.stdout)).unwrap();
    assert_eq!(explanation["cluster"], "outbound|9080||details.default.svc.cluster.local", "{explanation:#}");
    let out = meshctl(folder.path(), &args);
    assert!(text(&out.stdout).contains("outbound|9080||details"), "{}", text(&out.stdout));
}

#[test]
fn bootstrap_is_what_the_agent_writes() {
    let folder = folder();
    let args = ["bootstrap", "--proxy", "proxy.json", "--discovery-address", "10.0.0.1:15010"];
    let out = meshctl(folder.path(), &args);
    let bootstrap: Value = serde_json::from_str(text(&out.stdout)).unwrap();
    assert_eq!(bootstrap["node"]["id"], "sidecar~10.1.0.1~app.default~default.svc.cluster.local");
    assert_eq!(bootstrap["dynamic_resources"]["ads_config"]["api_type"], "DELTA_GRPC");
    let out = meshctl(folder.path(), &[&args[..4], &["nonsense"]].concat());
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("nonsense"), "{}", text(&out.stderr));
}

#[test]
fn validate_judges_each_document() {
    let folder = folder();
    let out = meshctl(folder.path(), &["validate", "-f", "manifests", "-o", "json"]);
    assert_eq!(out.status.code(), Some(0));
    let good: Value = serde_json::from_str(text(&out.stdout)).unwrap();
    let want = json!([{"kind": "Service", "namespace": "default", "name": "details", "valid": true, "errors": [], "warnings": []}]);
    assert_eq!(good, want);

    fs::write(folder.path().join("bad.yaml"), "kind: A\nkind: B\n---\napiVersion: v1\nkind: Pod\nmetadata: 5\n")
        .unwrap();
    let out = meshctl(folder.path(), &["validate", "-f", "bad.yaml", "-f", "manifests", "-o", "json"]);
    assert_eq!(out.status.code(), Some(1));
    let mixed: Value = serde_json::from_str(text(&out.stdout)).unwrap();
    let verdicts: Vec<bool> = mixed.as_array().unwrap().iter().map(|finding| finding["valid"] == true).collect();
    assert_eq!(verdicts, [false, false, true], "in the order of the input");
    assert!(mixed[0]["errors"][0].as_str().unwrap().starts_with("bad.yaml:2"), "{mixed}");

    let out = meshctl(folder.path(), &["validate", "-f", "bad.yaml", "-f", "manifests"]);
    let shown = text(&out.stdout);
    assert!(shown.contains(" --> bad.yaml:6:11\n  |\n6 | metadata: 5\n  |           ^ metadata\n"), "{shown}");
    assert!(shown.ends_with("3 documents: 2 invalid, 0 warnings\n"), "{shown}");
}

#[test]
fn wrong_usage_and_unreadable_input_are_told_apart_from_a_no() {
    let folder = folder();
    let xds = |more: &[&str]| meshctl(folder.path(), &[&["xds", "--proxy", "proxy.json"], more].concat());
    for (what, out, told) in [
        ("no such command", meshctl(folder.path(), &["nothing"]), "unrecognized subcommand"),
        ("a flag is missing", meshctl(folder.path(), &["xds", "-f", "manifests"]), "--proxy"),
        ("no such file", xds(&["-f", "nowhere"]), "nowhere"),
        ("no such type", xds(&["-f", "manifests", "--type", "xyz"]), "xyz"),
        ("no such mesh config", xds(&["-f", "manifests", "--mesh-config", "mesh.yaml"]), "mesh.yaml"),
        ("a variable without a value", xds(&["-f", "manifests", "--env", "X"]), "NAME=VALUE"),
        ("validate: no such file", meshctl(folder.path(), &["validate", "-f", "nowhere"]), "nowhere"),
    ] {
        assert_eq!(out.status.code(), Some(2), "{what}");
        assert!(text(&out.stderr).contains(told), "{what}: {}", text(&out.stderr));
    }
    fs::write(folder.path().join("manifests/broken.yaml"), "a: 1\nb: [\n").unwrap();
    let out = xds(&["-f", "manifests"]);
    assert_eq!(out.status.code(), Some(2));
    assert!(text(&out.stderr).contains("manifests/broken.yaml:"), "{}", text(&out.stderr));
    assert!(text(&out.stdout).contains("details.default"), "what could be read is shown");
}

#[test]
fn standard_input_is_a_file_like_any_other() {
    let folder = folder();
    let mut child = Command::new(env!("CARGO_BIN_EXE_meshctl"))
        .args(["validate", "-f", "-", "-o", "json"])
        .current_dir(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"kind: [\n").unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stdout).contains("\"-:"), "{}", text(&out.stdout));
}

pub(crate) fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: meshd\r\nConnection: close\r\n\r\n").unwrap();
    let mut out = String::new();
    stream.read_to_string(&mut out).unwrap();
    out
}

#[test]
fn meshd_serves_a_folder_until_it_is_told_to_end() {
    let folder = folder();
    fs::write(folder.path().join("mesh.yaml"), "rootNamespace: mesh\n").unwrap();
    let mut meshd = Command::new(env!("CARGO_BIN_EXE_meshd"))
        .args(["--config-dir", "manifests", "--print-addrs", "--mesh-config", "mesh.yaml"])
        .args(["--grpc-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0", "--monitoring-addr=127.0.0.1:0"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(meshd.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let addresses: Value = serde_json::from_str(&line).unwrap();
    let address = |key: &str| addresses[key].as_str().unwrap();
    TcpStream::connect(address("grpc")).unwrap();
    TcpStream::connect(address("https")).unwrap();
    assert!(get(address("http"), "/ready").starts_with("HTTP/1.1 200"));
    assert!(get(address("monitoring"), "/metrics").contains("pilot_services 1"));
    assert!(get(address("http"), "/debug/registryz").contains("details.default.svc.cluster.local"));
    assert!(get(address("http"), "/debug/cachez").contains("resultsHeld"));

    fs::write(folder.path().join("manifests/more.yaml"), MANIFESTS.replace("details", "ratings")).unwrap();
    let start = Instant::now();
    while !get(address("http"), "/debug/registryz").contains("ratings.default.svc") {
        assert!(start.elapsed() < Duration::from_secs(10), "the folder is followed");
        std::thread::sleep(Duration::from_millis(5));
    }

    assert!(Command::new("kill").arg(meshd.id().to_string()).status().unwrap().success());
    let status = meshd.wait().unwrap();
    assert_eq!(status.code(), Some(0), "SIGTERM is a good end");
}

#[test]
fn meshd_refuses_what_it_cannot_serve() {
    let folder = folder();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let grpc = format!("--grpc-addr={}", taken.local_addr().unwrap());
    for (args, told) in [
        (vec!["--config-dir", "nowhere"], "nowhere"),
        (vec![], "--config-dir"),
        (
            vec!["--config-dir", "manifests", "--http-addr=:0", "--monitoring-addr=:0", &grpc],
            "cannot listen on 127.0.0.1",
        ),
    ] {
        // No cluster either, wherever the test runs.
        let out = Command::new(env!("CARGO_BIN_EXE_meshd"))
            .args(&args)
            .current_dir(folder.path())
            .env("KUBECONFIG", folder.path().join("nowhere"))
            .env("HOME", folder.path())
            .env_remove("KUBERNETES_SERVICE_HOST")
            .output()
            .unwrap();
        assert_eq!(out.status.code(), Some(2), "{args:?}");
        assert!(text(&out.stderr).contains(told), "{args:?}: {}", text(&out.stderr));
    }
}

fn meshctl_with_input(folder: &Path, args: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshctl"));
    let command =
        command.args(args).current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn inject_changes_workloads_and_nothing_else() {
    let folder = folder();
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: app, image: 'a:1'}]}}\n";
    let on_the_node = pod.replace("name: p}", "name: q}").replace("spec: {", "spec: {hostNetwork: true, ");
    fs::write(folder.path().join("all.yaml"), format!("{MANIFESTS}---\n{pod}---\n{on_the_node}")).unwrap();
    fs::write(folder.path().join("values.yaml"), "global: {hub: example.com, tag: '1'}").unwrap();
    let args =
        ["inject", "-f", "all.yaml", "--values", "values.yaml", "--set", "global.tag=2", "--native-sidecars=true"];
    let out = meshctl(folder.path(), &args);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
    assert!(text(&out.stderr).contains("Pod q is not injected: it has host networking"), "{}", text(&out.stderr));
    let read = |text: &str| -> Vec<Value> {
        mesh_api::document::raw(&"out".into(), text)
            .into_iter()
            .map(|document| document.unwrap().node.to_json())
            .collect()
    };
    let (before, after) = (read(&fs::read_to_string(folder.path().join("all.yaml")).unwrap()), read(text(&out.stdout)));
    assert_eq!((&after[0], &after[2]), (&before[0], &before[2]));
    let proxy = &after[1]["spec"]["initContainers"][1];
    assert_eq!((&proxy["name"], &proxy["image"]), (&json!("istio-proxy"), &json!("example.com/mesh-agent:2")));
    let again = meshctl_with_input(
        folder.path(),
        &["inject", "-f", "-", "--values", "values.yaml", "--set", "global.tag=2", "--native-sidecars"],
        text(&out.stdout),
    );
    assert_eq!(text(&again.stdout), text(&out.stdout), "twice is once");

    let bad = pod.replace("name: p}", "name: p, annotations: {sidecar.istio.io/interceptionMode: ALL}}");
    let out = meshctl_with_input(folder.path(), &["inject", "-f", "-"], &bad);
    assert_eq!((out.status.code(), text(&out.stdout)), (Some(1), ""));
    assert!(text(&out.stderr).contains("interceptionMode"), "{}", text(&out.stderr));
}

#[test]
fn the_webhook_answers_reviews() {
    let folder = folder();
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio-sidecar-injector", "namespace": "istio-system"},
        "data": {"config": "policy: disabled\nalwaysInjectSelector: [{matchLabels: {app: a}}]"},
    });
    fs::write(folder.path().join("map.json"), map.to_string()).unwrap();
    let args = ["webhook", "inject", "-f", "map.json", "--path", "/inject/cluster/c1/net/n1"];
    let ask = |labels: Value| -> Value {
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "7", "namespace": "shop",
            "object": {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app"}]}}}});
        let out = meshctl_with_input(folder.path(), &args, &review.to_string());
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
        serde_json::from_slice(&out.stdout).unwrap()
    };
    assert_eq!(ask(json!({"app": "b"}))["response"], json!({"uid": "7", "allowed": true}));
    let injected = ask(json!({"app": "a"}));
    assert_eq!((&injected["response"]["uid"], &injected["response"]["patchType"]), (&json!("7"), &json!("JSONPatch")));

    let out = meshctl_with_input(folder.path(), &args, "{}");
    let answer: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&answer["response"]["allowed"], &answer["response"]["status"]["code"]), (&json!(false), &json!(400)));
}

#[test]
fn the_webhook_looks_up_the_users_of_an_openshift_namespace() {
    use base64::Engine;
    let folder = folder();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": "shop", "annotations": {"openshift.io/sa.scc.uid-range": "1000620000/10000"}}});
    fs::write(folder.path().join("namespace.json"), namespace.to_string()).unwrap();
    let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "7", "namespace": "shop", "object": {"metadata": {}, "spec": {"containers": [{"name": "app"}]}}}});
    let patch = |args: &[&str]| {
        let args = [&["webhook", "inject", "-f", "namespace.json"], args].concat();
        let out = meshctl_with_input(folder.path(), &args, &review.to_string());
        let answer: Value = serde_json::from_slice(&out.stdout).unwrap();
        let patch = base64::prelude::BASE64_STANDARD.decode(answer["response"]["patch"].as_str().unwrap()).unwrap();
        String::from_utf8(patch).unwrap()
    };
    assert!(patch(&["--env", "PLATFORM=openshift"]).contains(r#""runAsUser":1000629999"#));
    assert!(patch(&[]).contains(r#""runAsUser":1337"#));
}

#[test]
fn the_webhook_answers_reviews_of_istio_objects() {
    let folder = folder();
    let ask = |args: &[&str], host: &str, to: &str| -> Value {
        let object = json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "v"},
                            "spec": {"hosts": [host], "http": [{"route": [{"destination": {"host": to}}]}]}});
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "7", "operation": "CREATE", "namespace": "default", "object": object}});
        let out = meshctl_with_input(folder.path(), &[&["webhook", "validate"], args].concat(), &review.to_string());
        assert_eq!(out.status.code(), Some(0), "{}", text(&out.stderr));
        serde_json::from_slice::<Value>(&out.stdout).unwrap()["response"].clone()
    };
    assert_eq!(ask(&[], "details", "elsewhere"), json!({"uid": "7", "allowed": true}));
    let refused = ask(&[], "a..b", "details");
    assert_eq!(refused["allowed"], false);
    assert!(refused["status"]["message"].as_str().unwrap().contains("spec.hosts"), "{refused:#}");
    let world = &["-f", "manifests"][..];
    assert_eq!(ask(world, "details", "details"), json!({"uid": "7", "allowed": true}));
    let warned = ask(world, "details", "elsewhere");
    assert!(warned["allowed"] == true && warned["warnings"].to_string().contains("nothing serves"), "{warned:#}");
    let denied = ask(&[world, &["--deny-conflicts"]].concat(), "details", "elsewhere");
    assert!(denied["allowed"] == false && denied["status"].to_string().contains("nothing serves"), "{denied:#}");
}
