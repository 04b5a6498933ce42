//! `meshctl inject`: workloads with a proxy in them, as the webhook would make their pods.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use mesh_api::mesh::MeshConfig;
use mesh_api::{Diagnostic, document};
use mesh_webhook::inject::{Config, Injector, Policy};
use serde_json::{Map, Value};

use super::setting::{set, setting};
use crate::cli::{self, MeshFlags, Verdict, complain};
use crate::source::files;
use crate::yaml;

/// Manifests with a proxy injected into their workloads
#[derive(Args, Clone, Debug)]
pub(super) struct Inject {
    /// Manifests: a file, a folder (searched for *.yaml, *.yml, *.json) or - for standard input; may be repeated
    #[arg(short = 'f', long = "filename", required = true, value_name = "PATH")]
    files: Vec<PathBuf>,
    /// Values of the chart (YAML); what it doesn't say is as by default
    #[arg(long, value_name = "FILE")]
    values: Option<PathBuf>,
    /// Sets one value, over the file; may be repeated
    #[arg(long = "set", value_name = "PATH=VALUE", value_parser = setting)]
    set: Vec<(String, Value)>,
    #[command(flatten)]
    injection: Injection,
}

/// Flags about injection that commands share.
#[derive(Args, Clone, Debug)]
pub(super) struct Injection {
    /// Revision of the control plane
    #[arg(long)]
    pub(super) revision: Option<String>,
    /// Inject the proxy as an init container that runs on (Kubernetes 1.29 and newer)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", action = clap::ArgAction::Set)]
    native_sidecars: bool,
    #[command(flatten)]
    pub(super) mesh: MeshFlags,
}

impl Injection {
    /// The injector that a configuration makes with the flags over it. What is wrong with the configuration is said.
    pub(super) fn injector(&self, (mut config, told): (Config, Vec<Diagnostic>)) -> Injector {
        told.iter().for_each(complain);
        config.native_sidecars = self.native_sidecars.into();
        if let Some(revision) = &self.revision {
            config.revision.clone_from(revision);
        }
        Injector::new(config)
    }
}

impl Inject {
    pub(super) fn run(&self) -> anyhow::Result<(String, Verdict)> {
        let injector = self.injector()?;
        let mut out = Vec::new();
        for input in files::inputs(self.files.iter().cloned())? {
            for document in document::raw(&input.name, &input.bytes) {
                let document = match document {
                    Ok(document) => document,
                    Err(problem) => bail!("{problem}"),
                };
                let mut value = document.node.to_json();
                match injector.inject_document(&mut value) {
                    Ok(skipped) => skipped.iter().for_each(complain),
                    Err(error) => {
                        complain(format_args!("error: {}: {error}", document.location()));
                        return Ok((String::new(), Verdict::Negative));
                    }
                }
                out.push(yaml::to_string(&value));
            }
        }
        Ok((out.join("---\n"), Verdict::Ok))
    }

    fn injector(&self) -> anyhow::Result<Injector> {
        let (settings, told) = self.injection.mesh.settings()?;
        told.iter().for_each(complain);
        let mut values = match &self.values {
            Some(path) => read_yaml(path)?,
            None => Value::Object(Map::new()),
        };
        for (path, value) in &self.set {
            set(&mut values, path, value.clone());
        }
        let (mut config, told) = Config::new(values, MeshConfig::clone(&settings.mesh));
        // Who asks by this command wants it.
        config.policy = Policy::Enabled;
        Ok(self.injection.injector((config, told)))
    }
}

fn read_yaml(path: &std::path::Path) -> anyhow::Result<Value> {
    let text = cli::read(path)?;
    match document::raw(&cli::name_of(path), &text).into_iter().next() {
        Some(Ok(document)) if document.node.to_json().is_object() => Ok(document.node.to_json()),
        Some(Ok(_)) => Err(anyhow::anyhow!("not a mapping of values")).with_context(|| path.display().to_string()),
        Some(Err(problem)) => bail!("{problem}"),
        None => Ok(Value::Object(Map::new())),
    }
}
