//! The definitions of all kinds against those that Istio ships: each path, type, enum, list, rule and column.

use std::collections::BTreeSet;

use mesh_api::document;
use serde_json::{Value, json};

use crate::corpus;

/// What differs between two definitions, apart from descriptions, the order of names and what a rule's message says.
fn differences(path: &str, ours: &Value, reference: &Value, out: &mut Vec<String>) {
    let (Value::Object(our_map), Value::Object(reference_map)) = (ours, reference) else {
        let (ours, reference) = (comparable(path, ours), comparable(path, reference));
        if ours != reference {
            out.push(format!("{path}: {ours} instead of {reference}"));
        }
        return;
    };
    let names: BTreeSet<&String> = our_map.keys().chain(reference_map.keys()).collect();
    for name in names {
        let inner = format!("{path}.{name}");
        let (ours, reference) = (&ours[name.as_str()], &reference[name.as_str()]);
        if !is_text(path, name) && !is_explained(&inner) {
            differences(&inner, ours, reference, out);
        }
    }
}

/// True for what says something to people only. A property may have that name, too.
fn is_text(path: &str, name: &str) -> bool {
    matches!(name, "description" | "message") && !path.ends_with(".properties")
}

/// Where we leave out what Istio says twice: that an integer or text is an integer or a text, and the addresses in
/// ServiceEntry's status, which is open anyway.
fn is_explained(path: &str) -> bool {
    path.ends_with("observedGeneration.anyOf") || path.ends_with("status.properties.addresses")
}

/// Rules that we put more plainly: Istio's, and ours that is true of the same objects.
const PLAINER: &[(&str, &str)] = &[
    (
        r#"(has(self.credentialName) ? 1 : 0) + (has(self.credentialNames) ? 1 : 0) <= 1"#,
        "!(has(self.credentialName) && has(self.credentialNames))",
    ),
    (
        r#"(has(self.credentialNames) ? 1 : 0) + (has(self.tlsCertificates) ? 1 : 0) <= 1"#,
        "!(has(self.credentialNames) && has(self.tlsCertificates))",
    ),
    (
        r#"(has(self.tlsCertificates) ? 1 : 0) + (has(self.credentialNames) ? 1 : 0) <= 1"#,
        "!(has(self.credentialNames) && has(self.tlsCertificates))",
    ),
    (
        r#"(has(self.workloadSelector) ? 1 : 0) + (has(self.endpoints) ? 1 : 0) <= 1"#,
        "!(has(self.workloadSelector) && has(self.endpoints))",
    ),
    (
        r#"!((has(self.addresses) ? self.addresses : []).exists(k, k.contains("/")) && !((has(self.resolution) ? self.resolution : "NONE") in ["STATIC", "NONE"]))"#,
        r#"!has(self.addresses) || !self.addresses.exists(a, a.contains("/")) || !has(self.resolution) || self.resolution in ["NONE", "STATIC"]"#,
    ),
    (
        r#"((has(self.resolution) ? self.resolution : "NONE") == "NONE") ? !has(self.endpoints) : true"#,
        r#"(has(self.resolution) && self.resolution != "NONE") || !has(self.endpoints)"#,
    ),
    (
        r#"((has(self.resolution) ? self.resolution : "") == "DNS_ROUND_ROBIN") ? ((has(self.endpoints) ? self.endpoints : []).size() <= 1) : true"#,
        r#"!has(self.resolution) || self.resolution != "DNS_ROUND_ROBIN" || !has(self.endpoints) || self.endpoints.size() <= 1"#,
    ),
    (
        r#"(has(self.address) ? self.address : "").startsWith("unix://") ? !has(self.ports) : true"#,
        r#"!has(self.address) || !self.address.startsWith("unix://") || !has(self.ports)"#,
    ),
    (
        r#"self.startsWith("unix://") ? (self.substring(7, 8) == "/" || self.substring(7, 8) == "@") : true"#,
        r#"!self.startsWith("unix://") || self.substring(7, 8) in ["/", "@"]"#,
    ),
    (
        r#"self.startsWith("unix://") ? !self.endsWith("/") : true"#,
        r#"!self.startsWith("unix://") || !self.endsWith("/")"#,
    ),
    (
        r#"has(self.context) ? ((self.context == "WAYPOINT") ? has(self.waypoint) : !has(self.waypoint)) : !has(self.waypoint)"#,
        r#"has(self.waypoint) == (has(self.context) && self.context == "WAYPOINT")"#,
    ),
];

/// A rule in one spelling.
fn expression(rule: &str) -> String {
    let rule = rule.replace('\'', "\"").split_whitespace().collect::<Vec<_>>().join(" ");
    PLAINER.iter().find(|(theirs, _)| *theirs == rule).map_or(rule, |(_, ours)| (*ours).to_owned())
}

/// A value without its texts, in one order, and expressions in one spelling.
fn comparable(path: &str, value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(|item| comparable(path, item)).collect();
            items.sort_by_key(Value::to_string);
            items.dedup();
            items.into()
        }
        Value::Object(map) => {
            let said = map.iter().filter(|(name, _)| !is_text(path, name));
            said.map(|(name, value)| (name.clone(), comparable(&format!("{path}.{name}"), value))).collect()
        }
        Value::String(rule) if path.ends_with("x-kubernetes-validations.rule") => expression(rule).into(),
        Value::Number(number) => number.as_f64().into(),
        other => other.clone(),
    }
}

fn ours() -> Vec<Value> {
    let Value::Array(crds) = serde_json::to_value(mesh_api::crds()).unwrap() else { panic!("a list") };
    crds
}

#[test]
fn the_definitions_are_those_of_istio() {
    let Some(reference) = corpus::folder("the_definitions_are_those_of_istio", "reference") else { return };
    let text = std::fs::read(reference.join("crd-all.gen.yaml")).unwrap();
    let reference: Vec<Value> = document::raw(&"crd-all.gen.yaml".into(), &text)
        .into_iter()
        .map(|document| document.unwrap().node.to_json())
        .filter(Value::is_object)
        .collect();
    let named = |crds: &[Value]| -> Vec<Value> { crds.iter().map(|crd| crd["metadata"]["name"].clone()).collect() };
    let ours = ours();
    assert_eq!(named(&ours), named(&reference));
    let mut out = Vec::new();
    for (ours, reference) in ours.iter().zip(&reference) {
        let kind = reference["spec"]["names"]["kind"].as_str().unwrap();
        let parts = |crd: &Value| {
            let mut spec = crd["spec"].clone();
            let versions = spec.as_object_mut().unwrap().remove("versions").unwrap();
            (spec, versions.as_array().unwrap().clone())
        };
        let ((ours, our_versions), (reference, reference_versions)) = (parts(ours), parts(reference));
        differences(kind, &ours, &reference, &mut out);
        let names = |versions: &[Value]| versions.iter().map(|version| version["name"].clone()).collect::<Value>();
        differences(&format!("{kind} versions"), &names(&our_versions), &names(&reference_versions), &mut out);
        for (ours, reference) in our_versions.iter().zip(&reference_versions) {
            differences(&format!("{kind} {}", reference["name"]), ours, reference, &mut out);
        }
    }
    assert!(out.is_empty(), "{} differences:\n{}", out.len(), out.join("\n"));
}

/// Calls `see` for a schema and every schema inside, with their paths.
fn visit(path: &str, schema: &Value, see: &mut impl FnMut(&str, &Value)) {
    see(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        visit(&format!("{path}.{name}"), property, see);
    }
    for (name, inner) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[name].is_object() {
            visit(&format!("{path}{inner}"), &schema[name], see);
        }
    }
}

#[test]
fn everything_is_described() {
    let mut silent = Vec::new();
    for crd in ours() {
        for version in crd["spec"]["versions"].as_array().unwrap() {
            let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
            visit(kind, &version["schema"]["openAPIV3Schema"], &mut |path, schema| {
                let of_a_list = path.ends_with(['}', ']']);
                let says = |key| schema[key].as_str().is_some_and(|text: &str| !text.is_empty());
                if !of_a_list && !says("description") {
                    silent.push(path.to_owned());
                }
                for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
                    if rule["message"].as_str().is_none_or(str::is_empty) {
                        silent.push(format!("{path}: {}", rule["rule"]));
                    }
                }
            });
            for column in version["additionalPrinterColumns"].as_array().into_iter().flatten() {
                assert_ne!(column["description"], json!(null), "{kind} {}", column["name"]);
            }
        }
    }
    assert!(silent.is_empty(), "{} without a description:\n{}", silent.len(), silent.join("\n"));
}
