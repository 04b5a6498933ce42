//! Every field that Istio's MeshConfig and MeshNetworks have, at any depth, is one of ours. The list is made from the proto
//! files: `[]` stands for an element, `{}` for an entry.

use mesh_api::mesh::{MeshConfig, MeshNetworks};
use serde_json::{Value, json};

const FIELDS: &str = include_str!("../golden/mesh-fields.txt");

/// Settings in which nothing is said but a field, and of it something that no field takes.
fn with(path: &str) -> Value {
    let Some((field, rest)) = path.split_once('.') else {
        let (name, around) = kind(path);
        return json!({ name: around(json!({"?": []})) });
    };
    let (name, around) = kind(field);
    json!({ name: around(with(rest)) })
}

/// The name of a field, and what is put around a value of it.
fn kind(field: &str) -> (&str, fn(Value) -> Value) {
    if let Some(name) = field.strip_suffix("[]") {
        (name, |value| json!([value]))
    } else if let Some(name) = field.strip_suffix("{}") {
        (name, |value| json!({ "k": value }))
    } else {
        (field, |value| value)
    }
}

#[test]
fn no_setting_of_istio_is_missing() {
    let mut missing = Vec::new();
    for line in FIELDS.lines() {
        let (message, path) = line.split_once('.').unwrap();
        let text = with(path).to_string();
        let told = match message {
            "MeshConfig" => MeshConfig::from_yaml(&text).1,
            _ => MeshNetworks::from_yaml(&text).1,
        };
        // What a known field is told to be is wrong, so this much is always told.
        assert!(!told.is_empty() || path.ends_with("labels"), "{line} takes anything");
        if told.iter().any(|problem| problem.code == "UnknownField" && !problem.path.as_str().ends_with('?')) {
            missing.push(line);
        }
    }
    assert_eq!(missing, [""; 0]);
    assert!(FIELDS.lines().count() > 500);
}

#[test]
fn a_missing_setting_would_be_found() {
    let (_, told) = MeshConfig::from_yaml(&with("defaultConfig.tracing.zipkins.address").to_string());
    assert_eq!(told.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(), ["defaultConfig.tracing.zipkins"]);
}
