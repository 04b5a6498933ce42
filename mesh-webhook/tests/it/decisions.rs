//! The corpus' decisions: whether a pod gets a proxy, asked as the apiserver asks.

use std::collections::BTreeMap;
use std::fs;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use mesh_api::mesh::MeshConfig;
use mesh_webhook::{Config, Injector, Webhook};
use serde_json::{Value, json};

use crate::corpus;

#[test]
fn decisions() {
    let Some(folder) = corpus::folder("decisions", "inject") else { return };
    let mut score = corpus::Score::default();
    for line in fs::read_to_string(folder.join("decisions.jsonl")).unwrap().lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let got = injected(&case);
        let result = if Some(got) == case["inject"].as_bool() { Ok(()) } else { Err(format!("injected: {got}")) };
        score.check("inject decisions", case["id"].as_str().unwrap(), result);
    }
    score.finish("inject decisions 20\n");
}

fn injected(case: &Value) -> bool {
    let (always, never) = (&case["alwaysInjectSelector"], &case["neverInjectSelector"]);
    let config = json!({"policy": case["policy"], "alwaysInjectSelector": always, "neverInjectSelector": never});
    let values = json!({
        "global": {"proxy": {"autoInject": case["policy"]}},
        "sidecarInjectorWebhook": {"alwaysInjectSelector": always, "neverInjectSelector": never},
    });
    let data = BTreeMap::from([("config".to_owned(), config.to_string()), ("values".to_owned(), values.to_string())]);
    let (config, told) = Config::from_config_map(&data, MeshConfig::default());
    assert_eq!(told, []);
    let hook = Webhook::new().route("/inject", Injector::new(config));
    let namespace = &case["namespace"]["metadata"]["name"];
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {"uid": "1", "operation": "CREATE", "namespace": namespace, "object": case["pod"]},
    });
    let response = hook.answer("/inject", review.to_string().as_bytes()).unwrap().response.unwrap();
    assert!(response.allowed && response.uid == "1", "{response:?}");
    let Some(patch) = response.patch else { return false };
    let mut pod = case["pod"].clone();
    let patch: json_patch::Patch = serde_json::from_slice(&BASE64_STANDARD.decode(patch).unwrap()).unwrap();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod.to_string().contains("\"istio-proxy\"")
}
