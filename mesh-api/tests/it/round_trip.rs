//! Whatever is valid is read, and what was read is written and read again as the same, as JSON and as YAML.

use std::path::Path;

use mesh_api::object::{KINDS, Object};
use mesh_api::{document, yaml};
use serde_json::Value;

use crate::corpus;
use crate::samples::manifests;

/// Rows that call valid what is not: bytes that are no base64.
const MISTAKEN: &[&str] = &["TestValidateHTTPDirectResponse/8"];

/// A text of the corpus: its name, what it says, and whether all of its objects are valid.
struct Text {
    name: String,
    text: String,
    valid: bool,
}

fn texts(corpus: &Path) -> Vec<Text> {
    let mut files = Vec::new();
    for folder in ["samples", "analyze", "simulation", "gateway-api", "authz"] {
        manifests(&corpus.join(folder), &mut files);
    }
    let mut out = Vec::new();
    for file in files {
        let name = file.to_string_lossy().into_owned();
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        if file.extension().is_some_and(|e| e == "json") {
            let scenario: Value = serde_json::from_str(&text).unwrap();
            for part in ["config", "kube"].into_iter().filter_map(|part| scenario.get(part)?.as_str()) {
                out.push(Text { name: name.clone(), text: part.to_owned(), valid: true });
            }
        } else {
            out.push(Text { name, text, valid: true });
        }
    }
    for layer in ["crd", "semantic"] {
        let rows = std::fs::read_to_string(corpus.join(format!("validation/{layer}.jsonl"))).unwrap();
        for row in rows.lines() {
            let row: Value = serde_json::from_str(row).unwrap();
            let text = row["yaml"].as_str().map_or_else(|| row["obj"].to_string(), str::to_owned);
            let name = row["id"].as_str().unwrap().to_owned();
            let valid = row["valid"] == true && !MISTAKEN.contains(&name.as_str());
            out.push(Text { name, text, valid });
        }
    }
    out
}

fn is_istio(kind: &str) -> bool {
    KINDS.iter().any(|known| known.name == kind && known.group.ends_with(".istio.io"))
}

fn read_again(name: &str, text: &str, want: &Object) {
    let parsed = document::parse(&name.into(), text);
    let told: Vec<_> = parsed.diagnostics().map(ToString::to_string).collect();
    let mut objects = parsed.objects();
    assert_eq!((objects.next(), objects.next()), (Some(want), None), "{name}: {told:?} in\n{text}");
    assert!(told.is_empty(), "{name}: {told:?} in\n{text}");
}

#[test]
fn what_is_valid_is_read_and_reads_back_as_written() {
    let Some(corpus) = corpus::folder("what_is_valid_is_read_and_reads_back_as_written", "") else { return };
    let (mut istio, mut all, mut refused) = (0, 0, Vec::new());
    for Text { name, text, valid } in texts(&corpus) {
        let parsed = document::parse(&name.as_str().into(), &text);
        for refusal in parsed.documents.iter().filter_map(|document| document.as_ref().err()) {
            if valid && refusal.object.as_ref().is_some_and(|object| is_istio(&object.kind)) {
                refused.push(refusal.to_string());
            }
        }
        for object in parsed.objects() {
            let json = object.to_json().unwrap();
            read_again(&name, &json.to_string(), object);
            read_again(&name, &yaml::to_string(&json), object);
            all += 1;
            istio += usize::from(is_istio(&object.kind_name()));
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(istio > 500 && all > 1000, "only {istio} of Istio's objects among {all}");
}
