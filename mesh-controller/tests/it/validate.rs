//! `meshctl validate` against the verdicts of the corpus: what the command says is what the library says, and for the
//! patches of EnvoyFilters more.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::corpus::{self, Score};

/// Lines `category passes`: what must not fall.
const FLOORS: &str = include_str!("validate.score");

/// What is put behind each case, so that its findings can be told from those of the next.
const END: &str = "EndOfCase";

/// The findings of each case, from one call of the command.
fn findings(layer: &str, cases: &[Value], text: impl Fn(&Value) -> String) -> Vec<Vec<Value>> {
    let mut all = String::new();
    for case in cases {
        let _ = write!(all, "{}\n---\n{{apiVersion: v1, kind: {END}, metadata: {{name: end}}}}\n---\n", text(case));
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("cases.yaml"), all).unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_meshctl"))
        .args(["validate", "-f", "cases.yaml", "--layer", layer, "-o", "json"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let told: Vec<Value> = serde_json::from_slice(&out.stdout).unwrap();
    let mut of_cases = told.split(|finding| finding["kind"] == END).map(<[Value]>::to_vec).collect::<Vec<_>>();
    assert_eq!(of_cases.pop(), Some(Vec::new()), "nothing comes after the last case");
    of_cases
}

fn cases(folder: &Path, layer: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join(layer).with_extension("jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_command_says_what_istio_says() {
    let Some(folder) = corpus::folder("the_command_says_what_istio_says", "validation") else { return };
    let mut score = Score::default();
    for layer in ["crd", "semantic"] {
        let cases = cases(&folder, layer);
        let found = findings(layer, &cases, |case| match case["yaml"].as_str() {
            Some(text) => text.to_owned(),
            None => case["obj"].to_string(),
        });
        assert_eq!(found.len(), cases.len());
        for (case, found) in cases.iter().zip(found) {
            let valid = !found.is_empty() && found.iter().all(|finding| finding["valid"] == true);
            let warns = found.iter().any(|finding| finding["warnings"] != Value::Array(Vec::new()));
            let fits = case["valid"] == valid && (case["warn"].is_null() || case["warn"] == warns);
            let why = || format!("{} {}, found {found:?}", case["valid"], case["errSubstr"]);
            let what = format!("{layer} {} {}", case["id"], case["name"]);
            score.check(layer, &what, if fits { Ok(()) } else { Err(why()) });
        }
    }
    score.finish(FLOORS);
}
