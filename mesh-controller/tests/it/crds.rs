//! The definitions that the chart installs are those of the types, one file for each kind.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use mesh_api::document;

fn printed() -> BTreeMap<String, String> {
    let out = Command::new(env!("CARGO_BIN_EXE_meshctl")).arg("crds").output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let named = |document: &str| {
        let read = document::raw(&"meshctl crds".into(), document.as_bytes());
        let [Ok(read)] = read.as_slice() else { panic!("one document: {document}") };
        format!("{}.yaml", read.node.to_json()["metadata"]["name"].as_str().unwrap())
    };
    text.split("---\n").map(|document| (named(document), document.to_owned())).collect()
}

#[test]
fn the_chart_has_the_definitions_of_the_types() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../charts/mesh-base/crds");
    let printed = printed();
    assert_eq!(printed.len(), 16, "Istio's kinds, and IstioOperator");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in &printed {
            fs::write(folder.join(name), text).unwrap();
        }
    }
    let files: BTreeMap<String, String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read_to_string(entry.path()).unwrap()))
        .collect();
    assert_eq!(files.keys().collect::<Vec<_>>(), printed.keys().collect::<Vec<_>>());
    for (name, text) in &printed {
        assert!(
            files[name] == *text,
            "charts/mesh-base/crds/{name} is not what meshctl crds prints; UPDATE_GOLDEN=1 writes it"
        );
    }
}
