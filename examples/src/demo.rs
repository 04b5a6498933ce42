//! What the demo can show, each show on a mesh of real Envoys in a box of its own ([`sandbox`]). A show believes nothing: it
//! says what it expects, counts what it sees, and ends well only if both agree.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use mesh_api::Object;
use mesh_api::mesh::MeshConfig;
use mesh_webhook::{Config, Injector};

use crate::sandbox;

pub mod bookinfo;
pub mod load;
mod loaded;
pub mod matrix;
pub mod mesh;
pub mod outage;
mod policy;
pub mod rotation;
pub mod soak;
pub mod traffic;

/// Where a show runs, and with what.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// A folder for logs and for the configuration that is served and edited
    #[arg(long)]
    pub folder: PathBuf,
    /// Envoy
    #[arg(long)]
    pub envoy: PathBuf,
    /// There is one user only in this box
    #[arg(long, global = true)]
    pub one_user: bool,
}

/// What there is to see.
#[derive(Clone, Debug, Subcommand)]
pub enum Show {
    /// Bookinfo on seven Envoys: requests through the ingress gateway, a live edit, an access policy
    Bookinfo(bookinfo::Options),
    /// Who reaches a server, and how: every mTLS mode, client, protocol and way of interception
    Matrix,
    /// A steady load while certificates come and go
    Soak(soak::Options),
    /// A steady load while the control plane is away, and pods that start meanwhile
    Outage(outage::Options),
    /// A steady load while the root of the mesh is replaced
    Rotation(rotation::Options),
}

impl Show {
    /// Its name on the command line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Bookinfo(_) => "bookinfo",
            Self::Matrix => "matrix",
            Self::Soak(_) => "soak",
            Self::Outage(_) => "outage",
            Self::Rotation(_) => "rotation",
        }
    }
}

/// Runs a show inside its box, to its end or until told to end.
///
/// # Errors
/// What was not as expected, or could not be done.
pub async fn run(place: &Place, show: &Show) -> Result<(), String> {
    let progress = Progress(Instant::now());
    let shown = async {
        match show {
            Show::Bookinfo(options) => bookinfo::show(place, options, progress).await,
            Show::Matrix => matrix::show(place, progress).await,
            Show::Soak(options) => soak::show(place, options, progress).await,
            Show::Outage(options) => outage::show(place, options, progress).await,
            Show::Rotation(options) => rotation::show(place, options, progress).await,
        }
    };
    tokio::select! {
        done = shown => done,
        () = sandbox::told_to_end() => Err("interrupted; the kernel takes everything away with this process".into()),
    }
}

/// A folder of manifests that comes with the demo.
pub fn manifests(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The settings of the mesh, for the control plane and the injector.
fn mesh_config() -> PathBuf {
    manifests("mesh.yaml")
}

/// The injector with the mesh's settings and sidecars as Kubernetes knows them. `environment` is added to that of every
/// proxy.
///
/// # Errors
/// The settings cannot be read.
pub fn injector(environment: &[(&str, String)]) -> Result<Injector, String> {
    let file = mesh_config();
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let (mut mesh, told) = MeshConfig::from_yaml(&text);
    let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
    mesh.default_config.proxy_metadata.extend(environment);
    let (mut config, problems) = Config::new(serde_json::Value::Null, mesh);
    if let Some(problem) = told.iter().chain(&problems).next() {
        return Err(problem.to_string());
    }
    config.native_sidecars = true.into();
    Ok(Injector::new(config))
}

fn yaml_files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let read = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<PathBuf> = read.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    Ok(files)
}

/// The objects of a folder's manifests, in order of the files' names.
///
/// # Errors
/// A file that cannot be read, or anything wrong in one: the demo's own manifests are right.
pub fn objects(folder: &Path) -> Result<Vec<Object>, String> {
    let mut objects = Vec::new();
    for file in yaml_files(folder)? {
        let text = std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let parsed = mesh_api::document::parse(&file.display().to_string().as_str().into(), &text);
        if let Some(diagnostic) = parsed.diagnostics().next() {
            return Err(format!("{}: {diagnostic:?}", file.display()));
        }
        objects.extend(parsed.objects().cloned());
    }
    Ok(objects)
}

/// A duration as Istio's kinds write it: `60s`, `5m`, `1h30m`.
///
/// # Errors
/// It is none.
pub fn duration(text: &str) -> Result<Duration, String> {
    let duration: mesh_api::types::Duration =
        text.parse().map_err(|_| format!("{text:?} is no duration such as 5m"))?;
    Ok(duration.to_std())
}

/// Says what happens, with the time since the beginning.
#[derive(Clone, Copy, Debug)]
pub struct Progress(Instant);

impl Progress {
    /// Says it.
    pub fn say(self, text: &str) {
        eprintln!("[{:6.2}s] {text}", self.0.elapsed().as_secs_f64());
    }
}

/// Well only if nothing was wrong.
fn verdict(well: &str, problems: &[String]) -> Result<(), String> {
    match problems {
        [] => say(&format!("\n{well}")),
        problems => Err(format!("not as expected:\n- {}", problems.join("\n- "))),
    }
}

/// Says a result: these go to standard output, progress to standard error.
///
/// # Errors
/// Nobody listens.
pub fn say(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|error| format!("standard output: {error}"))
}
