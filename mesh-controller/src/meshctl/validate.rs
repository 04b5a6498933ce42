//! `meshctl validate`: whether documents are what they should be, each on its own.
//!
//! The layer `crd` is what reading an object finds; the layer `semantic` adds what lowering it finds. What we do not support
//! is no mistake of the user and is not told here.

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use mesh_api::document::{self, Document, Raw};
use mesh_api::{Diagnostic, Name, ObjectRef, Severity};
use mesh_xds::model::Settings;
use mesh_xds::{Change, Snapshot};
use serde::Serialize;

use crate::cli::{Form, MeshFlags, Verdict, complain};
use crate::source::files;

mod snippet;

use snippet::{Shown, Style};

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
    /// All of them, with their places.
    #[serde(skip)]
    problems: Vec<Diagnostic>,
}

impl Validate {
    pub(super) fn run(&self) -> anyhow::Result<(String, Verdict)> {
        let (settings, told) = self.mesh.settings()?;
        told.iter().for_each(complain);
        let style = Style::of_stdout();
        let mut findings = Vec::new();
        let mut report = String::new();
        for input in files::inputs(self.files.iter().cloned())? {
            let from = findings.len();
            for document in document::raw(&input.name, &input.bytes) {
                findings.extend(judge(document, self.layer, &settings));
            }
            let shown = Shown::new(&input.bytes, style);
            for problem in findings.iter().skip(from).flat_map(|finding| &finding.problems) {
                report.push_str(&shown.problem(problem));
            }
        }
        let verdict = if findings.iter().all(|finding| finding.valid) { Verdict::Ok } else { Verdict::Negative };
        let value = serde_json::to_value(&findings)?;
        Ok((self.output.render(&value, || report + &summary(&findings)), verdict))
    }
}

/// What is said of a document, or of each object of a list.
fn judge(document: Result<Raw<'_>, Diagnostic>, layer: Layer, settings: &Settings) -> Vec<Finding> {
    match document {
        Err(problem) => vec![Finding::new(problem.object.clone(), vec![problem])],
        Ok(raw) => raw.objects().into_iter().map(|outcome| look(&raw, outcome, layer, settings)).collect(),
    }
}

fn look(raw: &Raw<'_>, outcome: Result<Document, Diagnostic>, layer: Layer, settings: &Settings) -> Finding {
    let document = match outcome {
        Ok(document) => document,
        Err(problem) => return Finding::new(problem.object.clone(), vec![problem]),
    };
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
    problems.retain(|problem| !problem.code.starts_with("Unsupported"));
    for problem in problems.iter_mut().filter(|problem| problem.location.is_none()) {
        problem.location = Some(raw.locate(&document.at.join(&problem.path)));
    }
    Finding::new(Some(object), problems)
}

impl Finding {
    fn new(object: Option<ObjectRef>, problems: Vec<Diagnostic>) -> Self {
        let of = |severity: Severity| -> Vec<String> {
            problems.iter().filter(|problem| problem.severity == severity).map(words).collect()
        };
        let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
        let (kind, namespace, name) = object.map(|o| (o.kind, o.namespace, o.name)).unwrap_or_default();
        Self { kind, namespace, name, valid: errors.is_empty(), errors, warnings, problems }
    }
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

fn summary(findings: &[Finding]) -> String {
    let invalid = findings.iter().filter(|finding| !finding.valid).count();
    let warnings: usize = findings.iter().map(|finding| finding.warnings.len()).sum();
    format!("{} documents: {invalid} invalid, {warnings} warnings\n", findings.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, layer: Layer) -> Finding {
        let document = document::raw(&"f.yaml".into(), text).remove(0);
        judge(document, layer, &Settings::default()).remove(0)
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
