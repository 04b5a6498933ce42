//! The corpus' workloads: what they are made of after injection, fact by fact, and that a second injection changes nothing.

use std::fs;
use std::path::Path;

use mesh_api::document;
use mesh_api::mesh::MeshConfig;
use mesh_webhook::{Config, Injector};
use serde_json::Value;

use crate::{corpus, facts};

/// Facts in each category that must not fall; see the README of the corpus.
const FLOORS: &str = "\
inject annotations 43
inject appContainers 44
inject containers 44
inject decision 46
inject env 43
inject errors 2
inject initContainers 43
inject initSecurityContext 43
inject interception 43
inject labels 45
inject lifecycle 46
inject mounts 1
inject nativeSidecar 46
inject podSecurityContext 1
inject probes 44
inject prometheus 42
inject proxyPorts 43
inject proxyProbes 46
inject proxySecurityContext 43
inject pullPolicy 46
inject resources 46
inject rest 46
inject twice is once 45
inject volumes 43
";

pub(crate) fn documents(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    document::raw(&"corpus".into(), &text).into_iter().map(|document| document.unwrap().node.to_json()).collect()
}

pub(crate) fn lay(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                lay(base.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

/// The injector of a case.
pub(crate) fn injector(folder: &Path, case: &Value) -> Injector {
    let mut values = documents(&folder.join("../values.yaml")).remove(0);
    lay(&mut values, &case["values"]);
    let (mesh, told) = MeshConfig::from_yaml(&fs::read_to_string(folder.join("mesh.yaml")).unwrap());
    assert_eq!(told, []);
    let (mut config, told) = Config::new(values, mesh);
    assert_eq!(told, []);
    config.native_sidecars = (case["nativeSidecars"] == true).into();
    Injector::new(config)
}

/// The documents injected, or why not.
pub(crate) fn inject(injector: &Injector, documents: &[Value]) -> Result<Vec<Value>, String> {
    let mut documents = documents.to_vec();
    for document in &mut documents {
        injector.inject_document(document).map_err(|error| error.to_string())?;
    }
    Ok(documents)
}

/// The cases, each with its folder, in order.
pub(crate) fn cases(test: &str) -> Vec<(std::path::PathBuf, Value)> {
    let Some(folder) = corpus::folder(test, "inject") else { return Vec::new() };
    let mut folders: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.retain(|path| path.is_dir());
    folders.sort();
    folders
        .into_iter()
        .map(|folder| {
            let case = serde_json::from_str(&fs::read_to_string(folder.join("case.json")).unwrap()).unwrap();
            (folder, case)
        })
        .collect()
}

#[test]
fn workloads() {
    let mut score = corpus::Score::default();
    for (folder, case) in cases("workloads") {
        let id = case["id"].as_str().unwrap();
        let input = documents(&folder.join("input.yaml"));
        let injector = injector(&folder, &case);
        let got = inject(&injector, &input);
        let error = case["error"].as_str().unwrap();
        if !error.is_empty() {
            let told = got.as_ref().is_err_and(|why| why.to_lowercase().contains(error));
            score.check("inject errors", id, if told { Ok(()) } else { Err(format!("{got:?}")) });
            continue;
        }
        let got = got.unwrap_or_else(|why| panic!("{id}: {why}"));
        let twice = inject(&injector, &got).unwrap();
        score.check("inject twice is once", id, facts::same(&Value::from(twice), &Value::from(got.clone())));
        let want = documents(&folder.join("want.yaml"));
        for (fact, result) in facts::compare(&input, &got, &want) {
            score.check(&format!("inject {fact}"), &format!("{id}: {fact}"), result);
        }
    }
    score.finish(FLOORS);
}
