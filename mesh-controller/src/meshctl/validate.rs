//! `meshctl validate`: whether documents are what they should be, each on its own.
//!
//! The layer `crd` is what an apiserver with our definitions would say; the layer `semantic` is what reading an object
//! finds and what it says of itself by the rules of Istio's webhook. What we do not support is not told here.

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use mesh_api::document::{self, Document, Node, Raw, Value};
use mesh_api::schema::Validator;
use mesh_api::{Diagnostic, Location, Name, Object, ObjectRef, Severity, Validate as _};
use mesh_xds::envoy_filter;
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
        told.iter().chain(&settings.mesh.validate()).for_each(complain);
        let judge = Judge::new(self.layer);
        let style = Style::of_stdout();
        let mut findings = Vec::new();
        let mut report = String::new();
        for input in files::inputs(self.files.iter().cloned())? {
            let from = findings.len();
            for document in document::raw(&input.name, &input.bytes) {
                findings.extend(judge.document(document));
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

/// What is asked of each document.
struct Judge {
    /// For the layers that an apiserver is part of.
    apiserver: Option<Validator>,
    /// Whether meaning is part of the layer.
    semantic: bool,
}

impl Judge {
    fn new(layer: Layer) -> Self {
        Self { apiserver: (layer != Layer::Semantic).then(Validator::new), semantic: layer != Layer::Crd }
    }

    /// What is said of a document, or of each object of a list.
    fn document(&self, document: Result<Raw<'_>, Diagnostic>) -> Vec<Finding> {
        let raw = match document {
            Ok(raw) => raw,
            Err(problem) => return vec![Finding::new(problem.object.clone(), vec![problem])],
        };
        let is_list = raw.node.get("kind").and_then(Node::as_str).is_some_and(|kind| kind.ends_with("List"));
        let nodes = match raw.node.get("items") {
            Some(Node { value: Value::Sequence(items), .. }) if is_list => items.iter().collect(),
            _ => vec![&raw.node],
        };
        raw.objects().into_iter().zip(nodes).map(|(read, node)| self.object(&raw, node, read)).collect()
    }

    fn object(&self, raw: &Raw<'_>, node: &Node<'_>, read: Result<Document, Diagnostic>) -> Finding {
        let text = |key| node.get(key).and_then(Node::as_str).unwrap_or_default();
        let apiserver = self.apiserver.as_ref().filter(|server| server.knows(text("apiVersion"), text("kind")));
        let mut told = apiserver.map_or_else(Vec::new, |server| server.validate(&node.to_json()));
        for problem in &mut told {
            let mark = node.locate(problem.path.as_str());
            problem.location = Some(Location { file: raw.file.clone(), line: mark.line, column: mark.column });
        }
        let object = match &read {
            Ok(document) => Some(document.object.object_ref()),
            Err(problem) => problem.object.clone(),
        };
        // What an apiserver refuses, or accepts, is not said again in our words.
        let said = match (&read, apiserver) {
            (_, Some(_)) => !self.semantic || (read.is_err() && !told.is_empty()),
            _ => false,
        };
        if !said {
            told.extend(self.meaning(raw, read).into_iter().filter(|problem| {
                // An unknown field is told once.
                apiserver.is_none() || problem.code != "UnknownField"
            }));
        }
        Finding::new(object, told)
    }

    /// What reading the object finds and, if that is asked for, what it says of itself.
    fn meaning(&self, raw: &Raw<'_>, read: Result<Document, Diagnostic>) -> Vec<Diagnostic> {
        let document = match read {
            Ok(document) => document,
            Err(problem) => return vec![problem],
        };
        let mut problems = document.diagnostics;
        for problem in problems.iter_mut().filter(|problem| is_top_level(problem)) {
            // A field below `spec` is pruned; beside `spec` it is a misspelt `spec`.
            problem.severity = Severity::Error;
        }
        if self.semantic {
            problems.extend(document.object.validate());
            if let Object::EnvoyFilter(filter) = &document.object {
                problems.extend(envoy_filter::check_patches(filter));
            }
        }
        for problem in problems.iter_mut().filter(|problem| problem.location.is_none()) {
            problem.location = Some(raw.locate(&document.at.join(&problem.path)));
        }
        problems
    }
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
        Judge::new(layer).document(document).remove(0)
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

    #[test]
    fn an_apiserver_would_say_so() {
        let text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  http:\n  - \
                    timeout: 0s\n    rout: []\n";
        let finding = check(text, Layer::Crd);
        assert_eq!(
            (finding.kind.as_str(), finding.namespace.as_str(), finding.name.as_str()),
            ("VirtualService", "default", "a")
        );
        assert_eq!(
            finding.errors,
            [
                "f.yaml:7:11: spec.http[0].rout: unknown field \"spec.http[0].rout\" [UnknownField]",
                "f.yaml:6:14: spec.http[0].timeout: Invalid value: \"0s\": a duration of at least 1ms is needed \
                 [FieldValueInvalid]",
            ]
        );
        let all = check(text, Layer::All).errors;
        assert!(finding.errors.iter().all(|error| all.contains(error)), "{all:?}");
        let semantic = check(text, Layer::Semantic).errors;
        assert!(finding.errors.iter().all(|error| !semantic.contains(error)), "{semantic:?}");
        let list = format!("kind: List\napiVersion: v1\nitems:\n- {}", text.trim_end().replace('\n', "\n  "));
        assert_eq!(check(&list, Layer::Crd).errors.len(), 2);
    }

    #[test]
    fn the_semantic_layer_knows_the_meaning() {
        let gateway = "{apiVersion: networking.istio.io/v1, kind: Gateway, metadata: {name: a}, spec: {servers: []}}";
        assert!(check(gateway, Layer::Crd).valid);
        let finding = check(gateway, Layer::Semantic);
        assert!(finding.errors[0].starts_with("f.yaml:1:"), "{finding:?}");
        assert!(finding.errors[0].contains("gateway must have at least one server"), "{finding:?}");
        let filter = "{apiVersion: networking.istio.io/v1alpha3, kind: EnvoyFilter, metadata: {name: a}, spec: {configPatches: \
            [{applyTo: CLUSTER, patch: {operation: ADD, value: {name: false}}}]}}";
        assert!(!check(filter, Layer::All).valid);
    }
}
