//! What Istio's validation says of single objects, against ours: the verdict, and whether there is a warning.

use std::collections::BTreeSet;
use std::path::Path;

use mesh_api::{Diagnostic, Severity, Validate, document};
use serde::Deserialize;
use serde_json::Value;

use crate::corpus::{self, Score};
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
    let Some(cases) = corpus::folder("verdicts_are_those_of_istio", "validation") else { return };
    let text = std::fs::read_to_string(cases.join("semantic.jsonl")).unwrap();
    let (mut score, mut kinds) = (Score::default(), BTreeSet::new());
    for case in text.lines().map(|line| serde_json::from_str::<Case>(line).unwrap()) {
        if needs_envoy(&case) {
            continue;
        }
        let (valid, warns, told) = judge(&case.obj);
        let fits = valid == case.valid && case.warn.is_none_or(|warn| warn == warns);
        let Case { id, name, valid, warn, obj } = case;
        let why = || format!("valid {valid}, warn {warn:?}\n  {:.500}\n  {told:#?}", obj["spec"].to_string());
        let kind = obj["kind"].as_str().unwrap_or_default();
        score.check(kind, &format!("{id} {name}"), if fits { Ok(()) } else { Err(why()) });
        kinds.insert(kind.to_owned());
    }
    let missing = FLOORS.lines().find(|line| line.split_once(' ').is_none_or(|(kind, _)| !kinds.contains(kind)));
    assert_eq!(missing, None, "a kind has no cases any more");
    score.finish(FLOORS);
}

#[test]
fn samples_are_accepted_without_a_false_warning() {
    let Some(samples) = corpus::folder("samples_are_accepted_without_a_false_warning", "samples") else { return };
    let mut files = Vec::new();
    manifests(&samples, &mut files);
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
