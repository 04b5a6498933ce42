//! `meshctl webhook`: one AdmissionReview in, one out, as the webhook would answer it.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Subcommand};
use mesh_api::Object;
use mesh_api::mesh::MeshConfig;
use mesh_webhook::inject::{Config, Injector, ProxyConfigs};
use mesh_webhook::{Admit, Validator, Webhook as Hook};
use mesh_xds::{Change, Snapshot};

use super::inject::Injection;
use crate::cli::{MeshFlags, Verdict, complain};
use crate::mesh_config::of_revision;
use crate::source::{Event, files};
use crate::webhooks::{self, CONFIG_MAP};

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
    /// Whether an object may be stored
    Validate(Validate),
}

#[derive(Args, Clone, Debug)]
struct Inject {
    /// Objects that the webhook would look up: the ConfigMaps istio-sidecar-injector (config, values) and istio (mesh), ProxyConfigs,
    /// and with --env PLATFORM=openshift Namespaces
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// The path that the review is sent to
    #[arg(long, default_value = "/inject")]
    path: String,
    #[command(flatten)]
    injection: Injection,
}

#[derive(Args, Clone, Debug)]
struct Validate {
    /// Objects that are there already; without them the object is looked at by itself
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// The path that the review is sent to
    #[arg(long, default_value = "/validate")]
    path: String,
    /// Refuse an object that is at odds with others, instead of warning
    #[arg(long)]
    deny_conflicts: bool,
    #[command(flatten)]
    mesh: MeshFlags,
}

impl Webhook {
    pub(super) fn run(&self) -> anyhow::Result<(String, Verdict)> {
        match &self.hook {
            Which::Inject(inject) => answer("/inject", &inject.path, inject.injector()?),
            Which::Validate(validate) => answer("/validate", &validate.path, validate.validator()?),
        }
    }
}

fn answer(route: &str, path: &str, admit: impl Admit) -> anyhow::Result<(String, Verdict)> {
    let mut body = Vec::new();
    std::io::stdin().read_to_end(&mut body)?;
    let answer = Hook::new().route(route, admit).answer(path, &body);
    let answer = answer.with_context(|| format!("--path {path}: no webhook is there"))?;
    Ok((format!("{:#}\n", serde_json::to_value(&answer)?), Verdict::Ok))
}

/// The objects of the files that could be read; what could not is said.
fn objects(files: &[PathBuf]) -> Vec<Object> {
    let mut objects = Vec::new();
    for event in files::read(files.iter().cloned()) {
        match event {
            Event::Upsert { object, .. } => objects.push(object),
            Event::Problems { problems, .. } => problems.iter().for_each(complain),
            _ => {}
        }
    }
    objects
}

impl Inject {
    /// The injector as the ConfigMaps in the root namespace have it; a flag is stronger than a ConfigMap.
    fn injector(&self) -> anyhow::Result<Injector> {
        let (settings, told) = self.injection.mesh.settings()?;
        told.iter().for_each(complain);
        let objects = objects(&self.files);
        let root = settings.root_namespace.as_str();
        let named = |name: &str| {
            let name = of_revision(name, self.injection.revision.as_deref().unwrap_or_default());
            let maps = objects.iter().filter_map(|object| match object {
                Object::ConfigMap(map) => Some(map),
                _ => None,
            });
            maps.into_iter().find(|map| {
                map.metadata.name.as_ref() == Some(&name) && map.metadata.namespace.as_deref() == Some(root)
            })
        };
        let mut mesh = MeshConfig::clone(&settings.mesh);
        let of_cluster = named("istio").and_then(|map| map.data.as_ref()?.get("mesh"));
        if let Some(text) = of_cluster.filter(|_| self.injection.mesh.mesh_config.is_none()) {
            let (read, told) = mesh.apply(&"ConfigMap istio".into(), text);
            told.iter().for_each(complain);
            mesh = read;
        }
        let data = named(CONFIG_MAP).and_then(|map| map.data.clone()).unwrap_or_default();
        let (mut config, told) = Config::from_config_map(&data, mesh);
        let proxy_configs = objects.iter().filter_map(|object| match object {
            Object::ProxyConfig(config) => Some(Arc::clone(config)),
            _ => None,
        });
        config.proxy_configs = ProxyConfigs::new(root, proxy_configs);
        config.openshift = webhooks::openshift(&settings.features, &objects);
        Ok(self.injection.injector((config, told)))
    }
}

impl Validate {
    fn validator(&self) -> anyhow::Result<Validator> {
        let (settings, told) = self.mesh.settings()?;
        told.iter().for_each(complain);
        if self.files.is_empty() {
            return Ok(webhooks::validator());
        }
        let world = Snapshot::new(settings).apply(objects(&self.files).into_iter().map(Change::Upsert));
        let deny = self.deny_conflicts;
        Ok(webhooks::validator().also(move |object| webhooks::conflicts_of(&world, object, deny)))
    }
}
