//! `meshctl manifest generate`: the objects that an IstioOperator asks for.

use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use mesh_api::document;
use serde_json::{Map, Value, json};

use super::setting::setting;
use crate::cli::{self, Verdict, complain};
use crate::install::{Plan, lay, path, text};
use crate::yaml;

/// The name of an IstioOperator that has none.
const NAME: &str = "installed-state";

/// The objects of an installation
#[derive(Args, Clone, Debug)]
pub(super) struct Manifest {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Prints the objects that an IstioOperator asks for, as YAML
    Generate(Generate),
}

#[derive(Args, Clone, Debug)]
struct Generate {
    #[command(flatten)]
    wanted: Wanted,
}

/// Flags that say what is to be installed.
#[derive(Args, Clone, Debug)]
pub(super) struct Wanted {
    /// An IstioOperator; may be repeated, later files go before earlier ones
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Sets one field of the spec, such as profile=minimal or values.global.tag=1.0, over the files; may be repeated
    #[arg(short = 's', long = "set", value_name = "PATH=VALUE", value_parser = setting)]
    set: Vec<(String, Value)>,
    /// Revision of the control plane
    #[arg(short = 'r', long)]
    revision: Option<String>,
}

impl Wanted {
    /// The IstioOperator that the flags describe.
    pub(super) fn operator(&self) -> anyhow::Result<Value> {
        let mut operator = json!({
            "apiVersion": "install.istio.io/v1alpha1",
            "kind": "IstioOperator",
            "metadata": {"name": NAME, "namespace": "istio-system"},
            "spec": {},
        });
        for file in &self.files {
            lay(&mut operator, read(file)?);
        }
        if !operator.get("spec").is_some_and(Value::is_object) {
            operator = with_spec(operator);
        }
        for (path, value) in &self.set {
            path::write(&mut operator, &format!("spec.{path}"), value.clone())
                .map_err(|why| anyhow!("--set {path}: {why}"))?;
        }
        if let Some(revision) = &self.revision {
            lay(&mut operator, json!({"spec": {"revision": revision}}));
        }
        // Installations of several revisions are told apart by their names, if nobody named them.
        let revision = text(&operator, "/spec/revision").to_owned();
        if text(&operator, "/metadata/name") == NAME && !revision.is_empty() {
            lay(&mut operator, json!({"metadata": {"name": format!("{NAME}-{revision}")}}));
        }
        Ok(operator)
    }

    /// What is to be installed.
    pub(super) fn plan(&self) -> anyhow::Result<Plan> {
        Ok(Plan::of(&self.operator()?)?)
    }
}

/// `spec:` without anything below is as good as none.
fn with_spec(operator: Value) -> Value {
    let Value::Object(mut fields) = operator else { return operator };
    fields.insert("spec".to_owned(), Value::Object(Map::new()));
    Value::Object(fields)
}

fn read(path: &std::path::Path) -> anyhow::Result<Value> {
    let text = cli::read(path)?;
    let mut documents = document::raw(&cli::name_of(path), &text).into_iter();
    let (document, None) = (documents.next(), documents.next()) else {
        bail!("{}: more than one document; name one IstioOperator for each file", path.display());
    };
    let value = match document {
        Some(Ok(document)) => document.node.to_json(),
        Some(Err(problem)) => bail!("{problem}"),
        None => json!({}),
    };
    let said = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    if !said("apiVersion").starts_with("install.istio.io/") || said("kind") != "IstioOperator" {
        bail!("{}: not an IstioOperator of install.istio.io", path.display());
    }
    Ok(value)
}

impl Manifest {
    pub(super) fn run(&self) -> anyhow::Result<(String, Verdict)> {
        let Command::Generate(Generate { wanted }) = &self.command;
        let mut plan = wanted.plan()?;
        let objects = plan.render().context("the charts do not take these values")?;
        plan.told.iter().for_each(complain);
        let documents: Vec<String> = objects.iter().flatten().map(yaml::to_string).collect();
        Ok((documents.join("---\n"), Verdict::Ok))
    }
}
