//! `meshctl validate`: whether documents are what they should be, each on its own.
//!
//! The layer `crd` is what reading an object finds; the layer `semantic` adds what lowering it finds. What we do not support
//! is no mistake of the user and is not told here.

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use mesh_api::document::{self, Document};
use mesh_api::{Diagnostic, Name, Severity};
use mesh_xds::model::Settings;
use mesh_xds::{Change, Snapshot};
use serde::Serialize;

use crate::cli::{Form, MeshFlags, Verdict, complain};
use crate::source::files;

/// Whether documents are valid, one by one
#[derive(Args, Clone, Debug)]
pub(super) struct Validate {
    /// Documents: a file, a folder (searched for *.yaml, *.yml, *.json) or - for standard input; may be repeated
    #[arg(short = 'f', long = "filename", required = true, value_name = "PATH")]
    files: Vec<PathBuf>,
    /// What to look at
    #[arg(long, value_enum, default_value_t = Layer::All)]
    layer: Layer,
    #[command(flatten)]
    mesh: MeshFlags,
    /// The form of the output
    #[arg(short, long, value_enum, default_value_t = Form::Short)]
    output: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Layer {
    /// Schema
    Crd,
    /// Meaning
    Semantic,
    /// Both
    All,
}

/// What is said of one document.
#[derive(Debug, Serialize)]
struct Finding {
    kind: Name,
    namespace: Name,
    name: Name,
    valid: bool,
    errors: Vec<String>,
    warnings: Vec<String>,
    #[serde(skip)]
    place: String,
}

impl Validate {
    pub(super) fn run(&self) -> anyhow::Result<(String, Verdict)> {
        let (settings, told) = self.mesh.settings()?;
        told.iter().for_each(complain);
        let mut findings = Vec::new();
        for input in files::inputs(self.files.iter().cloned())? {
            for outcome in document::parse(&input.name, &input.bytes).documents {
                findings.push(look(outcome, self.layer, &settings));
            }
        }
        let verdict = if findings.iter().all(|finding| finding.valid) { Verdict::Ok } else { Verdict::Negative };
        let value = serde_json::to_value(&findings)?;
        Ok((self.output.render(&value, || short(&findings)), verdict))
    }
}

fn look(outcome: Result<Document, Diagnostic>, layer: Layer, settings: &Settings) -> Finding {
    let (object, place, problems) = match outcome {
        Err(problem) => (problem.object.clone(), problem.location.clone(), vec![problem]),
        Ok(document) => {
            let object = document.object.object_ref();
            let mut problems = document.diagnostics;
            for problem in problems.iter_mut().filter(|problem| is_top_level(problem)) {
                // A field below `spec` is pruned; beside `spec` it is a misspelt `spec`.
                problem.severity = Severity::Error;
            }
            if layer != Layer::Crd {
                let lowered = Snapshot::new(settings.clone()).apply([Change::Upsert(document.object)]);
                problems.extend(lowered.diagnostics_of(&object).iter().cloned());
            }
            (Some(object), Some(document.location), problems)
        }
    };
    let of = |severity: Severity| -> Vec<String> {
        let ours = |problem: &&Diagnostic| problem.severity == severity && !problem.code.starts_with("Unsupported");
        problems.iter().filter(ours).map(words).collect()
    };
    let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
    let place = place.map(|place| place.to_string()).unwrap_or_default();
    let (kind, namespace, name) = object.map(|o| (o.kind, o.namespace, o.name)).unwrap_or_default();
    Finding { kind, namespace, name, valid: errors.is_empty(), errors, warnings, place }
}

fn is_top_level(problem: &Diagnostic) -> bool {
    problem.code == "UnknownField" && !problem.path.as_str().contains(['.', '['])
}

/// The problem with its place and field, without the object that is named beside it.
fn words(problem: &Diagnostic) -> String {
    let mut out = String::new();
    if let Some(location) = &problem.location {
        let _ = write!(out, "{location}: ");
    }
    if !problem.path.is_empty() {
        let _ = write!(out, "{}: ", problem.path);
    }
    let _ = write!(out, "{} [{}]", problem.message, problem.code);
    out
}

fn short(findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        let name = match (finding.kind.as_str(), finding.namespace.as_str()) {
            ("", _) => format!("document at {}", finding.place),
            (kind, "") => format!("{kind} {}", finding.name),
            (kind, namespace) => format!("{kind} {namespace}/{}", finding.name),
        };
        let _ = writeln!(out, "{name}: {}", if finding.valid { "valid" } else { "invalid" });
        for (what, problems) in [("error", &finding.errors), ("warning", &finding.warnings)] {
            for problem in problems {
                let _ = writeln!(out, "  {what}: {problem}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, layer: Layer) -> Finding {
        let outcome = document::parse(&"f.yaml".into(), text).documents.remove(0);
        look(outcome, layer, &Settings::default())
    }

    #[test]
    fn verdicts() {
        for (text, valid, warns) in [
            ("{apiVersion: v1, kind: Namespace, metadata: {name: a}}", true, false),
            ("{apiVersion: example.com/v1, kind: Thing, metadata: {name: a}, what: ever}", true, false),
            ("{apiVersion: v1, kind: Namespace, metadata: {name: a}, specs: {}}", false, false),
            ("{apiVersion: v1, kind: Namespace, metadata: {name: a}, spec: {finalisers: []}}", true, true),
            ("{apiVersion: v1, kind: Namespace, metadata: {name: a, name: b}}", false, false),
            ("{apiVersion: v1, kind: Namespace, metadata: {name: 5}}", false, false),
            ("kind: [", false, false),
        ] {
            let finding = check(text, Layer::Crd);
            assert_eq!((finding.valid, !finding.warnings.is_empty()), (valid, warns), "{text}: {finding:?}");
            assert!(finding.errors.iter().all(|error| error.starts_with("f.yaml:")), "{finding:?}");
        }
    }
}
