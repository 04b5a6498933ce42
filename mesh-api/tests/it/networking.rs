//! The networking kinds against the whole corpus: everything valid is read, and what is written reads back as it was.

use std::path::{Path, PathBuf};

use mesh_api::document;
use mesh_api::object::{KINDS, Object};
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
