//! What an apiserver with our definitions would say, against the verdicts of the corpus and on all of its samples.

use mesh_api::document;
use mesh_api::schema::Validator;
use serde_json::Value;

use crate::corpus;
use crate::samples::manifests;

/// Verdicts of the layer `crd` that must not be lost.
const FLOOR: usize = 74;

/// The objects of a text.
fn objects(name: &str, text: &[u8]) -> Vec<Value> {
    document::raw(&name.into(), text).into_iter().map(|document| document.unwrap().node.to_json()).collect()
}

#[test]
fn verdicts_are_those_of_the_corpus() {
    let Some(cases) = corpus::folder("verdicts_are_those_of_the_corpus", "validation") else { return };
    let rows = std::fs::read_to_string(cases.join("crd.jsonl")).unwrap();
    let validator = Validator::new();
    let (mut right, mut wrong) = (0, Vec::new());
    for row in rows.lines() {
        let row: Value = serde_json::from_str(row).unwrap();
        let id = row["id"].as_str().unwrap();
        let told: Vec<String> = objects(id, row["yaml"].as_str().unwrap().as_bytes())
            .iter()
            .flat_map(|object| validator.validate(object))
            .map(|told| format!("{}: {}", told.path, told.message))
            .collect();
        if told.is_empty() == (row["valid"] == true) {
            right += 1;
        } else {
            wrong.push(format!("{id} ({}): {}", row["errSubstr"], told.join("; ")));
        }
    }
    println!("validation crd: {right} of {}", right + wrong.len());
    assert!(right >= FLOOR, "{right} of {FLOOR}:\n{}", wrong.join("\n"));
}

#[test]
fn samples_are_valid() {
    let Some(samples) = corpus::folder("samples_are_valid", "samples") else { return };
    let mut files = Vec::new();
    manifests(&samples, &mut files);
    let validator = Validator::new();
    let (mut judged, mut told) = (0, Vec::new());
    for file in files {
        let name = file.to_string_lossy().into_owned();
        for object in objects(&name, &std::fs::read(&file).unwrap()) {
            let text = |key| object[key].as_str().unwrap_or_default();
            judged += usize::from(validator.knows(text("apiVersion"), text("kind")));
            told.extend(validator.validate(&object).iter().map(|problem| format!("{name}: {problem}")));
        }
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
    assert!(judged > 50, "only {judged} objects of Istio's kinds");
}
