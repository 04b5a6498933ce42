//! What Istio's validation says of single objects, against ours: the verdict, and whether there is a warning.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mesh_api::{Diagnostic, Severity, Validate, document};
use serde::Deserialize;
use serde_json::Value;

use crate::samples::manifests;

#[derive(Deserialize)]
struct Case {
    id: String,
    name: String,
    valid: bool,
    warn: Option<bool>,
    obj: Value,
}

/// Lines `kind passes`: what must not fall.
const FLOORS: &str = include_str!("semantic.score");

fn corpus(test: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("MESH_CORPUS").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("SKIPPED {test}: MESH_CORPUS is not set");
    }
    folder
}

/// Whether the object is valid, and what is said of it.
fn judge(object: &Value) -> (bool, bool, Vec<String>) {
    let parsed = document::parse(&"case.json".into(), object.to_string().as_bytes());
    let mut told: Vec<_> = parsed.diagnostics().cloned().collect();
    told.extend(parsed.objects().flat_map(|object| object.validate()));
    let has = |severity| told.iter().any(|problem| problem.severity == severity);
    (!has(Severity::Error), has(Severity::Warning), told.iter().map(ToString::to_string).collect())
}

/// EnvoyFilters whose mistake lies in Envoy's messages, which this crate doesn't know.
fn needs_envoy(case: &Case) -> bool {
    case.obj["spec"].to_string().contains("\"value\"") && case.obj["kind"] == "EnvoyFilter" && !case.valid
}

#[test]
fn verdicts_are_those_of_istio() {
    let Some(corpus) = corpus("verdicts_are_those_of_istio") else { return };
    let text = std::fs::read_to_string(corpus.join("validation/semantic.jsonl")).unwrap();
    let (mut score, mut failures) = (BTreeMap::<String, (usize, usize)>::new(), Vec::new());
    for case in text.lines().map(|line| serde_json::from_str::<Case>(line).unwrap()) {
        if needs_envoy(&case) {
            continue;
        }
        let (valid, warns, told) = judge(&case.obj);
        let fits = valid == case.valid && case.warn.is_none_or(|warn| warn == warns);
        let kind = case.obj["kind"].as_str().unwrap_or_default().to_owned();
        let counts = score.entry(kind).or_default();
        counts.0 += usize::from(fits);
        counts.1 += 1;
        if !fits {
            let Case { id, name, valid, warn, obj } = case;
            failures.push(format!(
                "FAIL {id} {name}: valid {valid}, warn {warn:?}\n  {:.500}\n  {told:#?}",
                obj["spec"].to_string()
            ));
        }
    }
    println!("{}", failures.join("\n"));
    for (kind, (passed, all)) in &score {
        println!("{kind}: {passed} of {all}");
    }
    for line in FLOORS.lines() {
        let (kind, floor) = line.split_once(' ').expect("a floor is `kind passes`");
        let (passed, _) = score.get(kind).copied().unwrap_or_default();
        assert!(passed >= floor.parse().unwrap(), "{kind} fell from {floor} to {passed}");
    }
}

#[test]
fn samples_are_accepted_without_a_false_warning() {
    let Some(corpus) = corpus("samples_are_accepted_without_a_false_warning") else { return };
    let mut files = Vec::new();
    manifests(&corpus.join("samples"), &mut files);
    let mut told = Vec::new();
    for file in &files {
        told.extend(problems(file));
    }
    assert!(told.is_empty(), "{}", told.join("\n"));
}

fn problems(file: &Path) -> Vec<String> {
    let text = std::fs::read(file).unwrap();
    let parsed = document::parse(&file.to_string_lossy().as_ref().into(), &text);
    let told = parsed.objects().flat_map(|object| object.validate());
    told.filter(|problem| !is_true(problem)).map(|problem| format!("{}: {problem}", file.display())).collect()
}

/// What Istio warns of, too: it does so for every EnvoyFilter, and bookinfo has a rule that is never reached.
fn is_true(problem: &Diagnostic) -> bool {
    let never_reached = "VirtualService default/details spec.http[1]: virtualService rule #1 not used";
    problem.code == "InternalApi" || problem.to_string().starts_with(never_reached)
}
