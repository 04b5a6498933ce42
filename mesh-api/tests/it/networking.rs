//! The networking kinds against the whole corpus: everything valid is read, what is written reads back as it was, and the
//! schemas are those of Istio's CRDs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use mesh_api::object::{KINDS, Object};
use mesh_api::{document, networking};
use serde_json::Value;

use crate::samples::manifests;

const GROUP: &str = "networking.istio.io";

fn corpus(test: &str) -> Option<PathBuf> {
    let corpus = std::env::var_os("MESH_CORPUS");
    if corpus.is_none() {
        eprintln!("SKIPPED {test}: MESH_CORPUS is not set");
    }
    corpus.map(PathBuf::from)
}

/// Rows that call valid what is not: bytes that are no base64.
const MISTAKEN: &[&str] = &["TestValidateHTTPDirectResponse/8"];

/// The texts of Istio and Kubernetes objects that the corpus holds, and whether all of their objects are valid.
fn texts(corpus: &Path) -> Vec<(String, String, bool)> {
    let mut files = Vec::new();
    for folder in ["samples", "analyze", "simulation"] {
        manifests(&corpus.join(folder), &mut files);
    }
    let mut out = Vec::new();
    for file in files {
        let name = file.to_string_lossy().into_owned();
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        if file.extension().is_some_and(|e| e == "json") {
            let scenario: Value = serde_json::from_str(&text).unwrap();
            if let Some(config) = scenario.get("config").and_then(Value::as_str) {
                out.push((name, config.to_owned(), true));
            }
        } else {
            out.push((name, text, true));
        }
    }
    for layer in ["crd", "semantic"] {
        let rows = std::fs::read_to_string(corpus.join(format!("validation/{layer}.jsonl"))).unwrap();
        for row in rows.lines() {
            let row: Value = serde_json::from_str(row).unwrap();
            let text = row["yaml"].as_str().map_or_else(|| row["obj"].to_string(), str::to_owned);
            let id = row["id"].as_str().unwrap();
            out.push((id.to_owned(), text, row["valid"] == true && !MISTAKEN.contains(&id)));
        }
    }
    out
}

fn as_json(object: &Object) -> Option<Value> {
    let json = match object {
        Object::VirtualService(object) => serde_json::to_value(object),
        Object::DestinationRule(object) => serde_json::to_value(object),
        Object::Gateway(object) => serde_json::to_value(object),
        Object::ServiceEntry(object) => serde_json::to_value(object),
        Object::WorkloadEntry(object) => serde_json::to_value(object),
        Object::WorkloadGroup(object) => serde_json::to_value(object),
        Object::Sidecar(object) => serde_json::to_value(object),
        Object::EnvoyFilter(object) => serde_json::to_value(object),
        Object::ProxyConfig(object) => serde_json::to_value(object),
        _ => return None,
    };
    Some(json.unwrap())
}

#[test]
fn what_is_valid_is_read_and_reads_back_as_written() {
    let Some(corpus) = corpus("what_is_valid_is_read_and_reads_back_as_written") else { return };
    let (mut objects, mut refused) = (0, Vec::new());
    for (file, text, valid) in texts(&corpus) {
        let parsed = document::parse(&file.as_str().into(), &text);
        for refusal in parsed.documents.iter().filter_map(|document| document.as_ref().err()) {
            let kind = refusal.object.as_ref().map(|object| object.kind.as_str());
            if valid && KINDS.iter().any(|k| k.group == GROUP && Some(k.name) == kind) {
                refused.push(refusal.to_string());
            }
        }
        for object in parsed.objects() {
            let Some(json) = as_json(object) else { continue };
            objects += 1;
            let again = Object::from_value(&json).unwrap_or_else(|error| panic!("{file}: {error} in {json}"));
            assert_eq!(&again, object, "{file}");
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(objects > 400, "only {objects} objects");
}

/// What differs between two schemas, apart from texts, the order of names, and how a rule is put.
fn differences(path: &str, ours: &Value, reference: &Value, out: &mut Vec<String>) {
    let (Value::Object(our_map), Value::Object(reference_map)) = (ours, reference) else {
        if comparable(ours) != comparable(reference) {
            out.push(format!("{path}: {ours} instead of {reference}"));
        }
        return;
    };
    let names: BTreeSet<&String> = our_map.keys().chain(reference_map.keys()).collect();
    for name in names {
        let inner = format!("{path}.{name}");
        let none = &Value::Null;
        let (ours, reference) = (our_map.get(name).unwrap_or(none), reference_map.get(name).unwrap_or(none));
        match name.as_str() {
            "description" if !path.ends_with("properties") => {}
            "x-kubernetes-validations" if ours.is_array() == reference.is_array() => {}
            // Where Istio says a second time, or leaves to its status being open, what follows from the rest.
            "anyOf" if path.ends_with("observedGeneration") => {}
            "addresses" if path.ends_with("status.properties") => {}
            "versions" => {}
            _ => differences(&inner, ours, reference, out),
        }
    }
}

fn comparable(value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(comparable).collect();
            items.sort_by_key(Value::to_string);
            items.into()
        }
        Value::Object(map) => {
            let said = map.iter().filter(|(key, _)| *key != "description");
            said.map(|(key, value)| (key.clone(), comparable(value))).collect()
        }
        Value::Number(number) => number.as_f64().into(),
        other => other.clone(),
    }
}

#[test]
fn the_schemas_are_those_of_istio() {
    let Some(corpus) = corpus("the_schemas_are_those_of_istio") else { return };
    let text = std::fs::read(corpus.join("reference/crd-all.gen.yaml")).unwrap();
    let reference: Vec<Value> = document::raw(&"crd-all.gen.yaml".into(), &text)
        .into_iter()
        .map(|document| document.unwrap().node.to_json())
        .filter(|crd| crd["spec"]["group"] == GROUP)
        .collect();
    let ours = serde_json::to_value(networking::crds()).unwrap();
    let ours = ours.as_array().unwrap();
    assert_eq!(ours.len(), reference.len());
    let mut out = Vec::new();
    for (ours, reference) in ours.iter().zip(&reference) {
        let kind = reference["spec"]["names"]["kind"].as_str().unwrap();
        assert_eq!(ours["metadata"]["name"], reference["metadata"]["name"]);
        differences(kind, &ours["spec"], &reference["spec"], &mut out);
        let versions = |crd: &Value| crd["spec"]["versions"].as_array().unwrap().clone();
        for (ours, reference) in versions(ours).iter().zip(&versions(reference)) {
            let version = format!("{kind} {}", reference["name"]);
            differences(&version, ours, reference, &mut out);
        }
    }
    assert!(out.is_empty(), "{} differences:\n{}", out.len(), out.join("\n"));
}
