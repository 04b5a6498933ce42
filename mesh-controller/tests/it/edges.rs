//! Which crate may know which: arrows point down only.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;

/// Floors from the ground up; a crate may know those below it, and no other.
const FLOORS: [&[&str]; 4] =
    [&["mesh-api"], &["mesh-xds", "mesh-webhook", "mesh-ca"], &["mesh-controller", "mesh-agent"], &["mesh-examples"]];

fn cargo(args: &[&str]) -> String {
    let out = Command::new(env!("CARGO")).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(out.status.success(), "cargo {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn floor(name: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&name))
}

/// The dependencies that our crates declare: name, kind (null, dev, build) and features, by crate.
fn declared() -> BTreeMap<String, Vec<Value>> {
    let metadata: Value =
        serde_json::from_str(&cargo(&["metadata", "--format-version=1", "--no-deps", "--offline"])).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            (package["name"].as_str().unwrap().to_owned(), package["dependencies"].as_array().unwrap().clone())
        })
        .collect()
}

#[test]
fn arrows_point_down_only() {
    let declared = declared();
    assert_eq!(declared.len(), FLOORS.iter().map(|floor| floor.len()).sum::<usize>(), "each crate has its floor");
    for (name, dependencies) in &declared {
        let own = floor(name).unwrap_or_else(|| panic!("{name} has no floor"));
        for dependency in dependencies.iter().filter_map(|dependency| dependency["name"].as_str()) {
            if let Some(below) = floor(dependency) {
                assert!(below < own, "{name} must not know {dependency}");
            }
        }
    }
}

#[test]
fn only_the_controller_calls_the_apiserver() {
    for (name, dependencies) in declared() {
        // Tests and examples stand for somebody else's program.
        let own = dependencies.iter().filter(|dependency| dependency["kind"] != "dev");
        for kube in own.filter(|dependency| dependency["name"] == "kube") {
            assert_eq!(kube["uses_default_features"], false, "{name}: kube's default features include its client");
            for feature in kube["features"].as_array().unwrap() {
                let calls = feature == "client" || feature == "runtime";
                assert!(!calls || name == "mesh-controller", "{name} must not use kube's {feature}");
            }
        }
    }
}

#[test]
fn the_ground_floor_knows_no_runtime() {
    let tree = cargo(&["tree", "--offline", "-p", "mesh-api", "-e", "normal", "--prefix", "none"]);
    assert!(tree.contains("serde "), "the tree lists dependencies: {tree}");
    for banned in ["tokio", "tonic", "hyper", "envoy-types"] {
        let found = tree.lines().find(|line| line.split(' ').next() == Some(banned));
        assert_eq!(found, None, "mesh-api must not see {banned}");
    }
}
