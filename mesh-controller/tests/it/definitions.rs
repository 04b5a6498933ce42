//! The definitions of Istio's kinds before a real apiserver: it must say of the corpus' documents what Istio's own
//! definitions say, and so must `mesh_api::schema::Validator`, which says it without an apiserver.

use mesh_api::document;
use mesh_api::schema::Validator;
use serde_json::{Value, json};

use crate::corpus;
use crate::envtest::Cluster;

const WHAT: &str = "definitions before a real apiserver";

/// The object of a text, in a namespace that there is and with a name.
fn object(id: &str, text: &str) -> Value {
    let documents = document::raw(&id.into(), text.as_bytes());
    let [Ok(document)] = documents.as_slice() else { panic!("{id}: one document") };
    let mut object = document.node.to_json();
    object["metadata"]["namespace"] = json!("default");
    if object["metadata"]["name"].is_null() {
        object["metadata"]["name"] = json!("unnamed");
    }
    object
}

#[tokio::test]
async fn an_apiserver_judges_as_the_corpus_and_the_validator() {
    let Some(cases) = corpus::folder(WHAT, "validation") else { return };
    let Some(cluster) = Cluster::start(WHAT).await else { return };
    for definition in mesh_api::crds() {
        cluster.define(&serde_json::to_value(definition).unwrap()).await;
    }
    let validator = Validator::new();
    let rows = std::fs::read_to_string(cases.join("crd.jsonl")).unwrap();
    let mut wrong = Vec::new();
    for row in rows.lines() {
        let row: Value = serde_json::from_str(row).unwrap();
        let id = row["id"].as_str().unwrap();
        let object = object(id, row["yaml"].as_str().unwrap());
        let (said, told) = (cluster.would_create(&object).await, validator.validate(&object));
        if [said.is_ok(), told.is_empty()] != [row["valid"] == true; 2] {
            wrong.push(format!("{id} ({}): the apiserver says {said:?}, the validator {told:?}", row["errSubstr"]));
        }
    }
    println!("validation apiserver: {} of {}", rows.lines().count() - wrong.len(), rows.lines().count());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
