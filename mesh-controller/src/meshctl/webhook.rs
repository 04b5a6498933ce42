//! `meshctl webhook`: one AdmissionReview in, one out, as the webhook would answer it.

use std::io::Read;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};
use mesh_api::Object;
use mesh_api::mesh::MeshConfig;
use mesh_webhook::Webhook as Hook;
use mesh_webhook::inject::{Config, Injector};

use super::inject::Injection;
use crate::cli::{Verdict, complain};
use crate::source::{Event, files};

/// Answers an AdmissionReview from standard input
#[derive(Args, Clone, Debug)]
pub(super) struct Webhook {
    #[command(subcommand)]
    hook: Which,
}

#[derive(Subcommand, Clone, Debug)]
enum Which {
    /// Whether and how a pod is injected
    Inject(Inject),
}

#[derive(Args, Clone, Debug)]
struct Inject {
    /// Objects that the webhook would look up: the ConfigMaps istio-sidecar-injector (config, values) and istio (mesh)
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// The path that the review is sent to
    #[arg(long, default_value = "/inject")]
    path: String,
    #[command(flatten)]
    injection: Injection,
}

impl Webhook {
    pub(super) fn run(&self) -> anyhow::Result<(String, Verdict)> {
        let (hook, path) = match &self.hook {
            Which::Inject(inject) => (Hook::new().route("/inject", inject.injector()?), &inject.path),
        };
        let mut body = Vec::new();
        std::io::stdin().read_to_end(&mut body)?;
        let answer = hook.answer(path, &body).with_context(|| format!("--path {path}: no webhook is there"))?;
        Ok((format!("{:#}\n", serde_json::to_value(&answer)?), Verdict::Ok))
    }
}

impl Inject {
    /// The injector as the ConfigMaps in the root namespace have it; a flag is stronger than a ConfigMap.
    fn injector(&self) -> anyhow::Result<Injector> {
        let (settings, told) = self.injection.mesh.settings()?;
        told.iter().for_each(complain);
        let mut maps = Vec::new();
        for event in files::read(self.files.iter().cloned()) {
            match event {
                Event::Upsert { object: Object::ConfigMap(map), .. } => maps.push(map),
                Event::Problems { problems, .. } => problems.iter().for_each(complain),
                _ => {}
            }
        }
        let named = |name: &str| {
            let name = match self.injection.revision.as_deref() {
                None | Some("" | "default") => name.to_owned(),
                Some(revision) => format!("{name}-{revision}"),
            };
            maps.iter().find(|map| {
                map.metadata.name.as_ref() == Some(&name)
                    && map.metadata.namespace.as_deref() == Some(settings.root_namespace.as_str())
            })
        };
        let mut mesh = MeshConfig::clone(&settings.mesh);
        let of_cluster = named("istio").and_then(|map| map.data.as_ref()?.get("mesh"));
        if let Some(text) = of_cluster.filter(|_| self.injection.mesh.mesh_config.is_none()) {
            let (read, told) = mesh.apply(&"ConfigMap istio".into(), text);
            told.iter().for_each(complain);
            mesh = read;
        }
        let data = named("istio-sidecar-injector").and_then(|map| map.data.clone()).unwrap_or_default();
        Ok(self.injection.injector(Config::from_config_map(&data, mesh)))
    }
}
