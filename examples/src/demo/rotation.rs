//! A steady load over mTLS while the root of the mesh is replaced by one with a new key: another authority is put into the
//! control plane's folder, and the control plane leads it in. Connections are renewed all the time, and a pod starts in the
//! middle. Not one request may fail, and not one handshake. Told to, the show kills the control plane in every phase.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use clap::Args;
use mesh_ca::{Authority, Lifetimes, RootOptions};
use serde_json::Value;

use super::mesh::{self, Mesh};
use super::{Place, Progress, duration, loaded, say, verdict};
use crate::nodelet;
use crate::sandbox;

/// What the user asks for.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// How long a certificate lives; so long both roots are trusted after the switch
    #[arg(long, value_parser = duration, default_value = "20s")]
    cert_ttl: Duration,
    /// How long all must have trusted both roots before the switch
    #[arg(long, value_parser = duration, default_value = "5s")]
    settle: Duration,
    /// Requests a second
    #[arg(long, default_value_t = 1000.0)]
    rate: f64,
    /// Kill the control plane in every phase, and start it again
    #[arg(long)]
    kill: bool,
}

/// In this order a rotation goes.
const PHASES: [&str; 4] = ["distributing", "draining", "retiring", "stable"];
/// The pod that starts when the new root signs.
const LATE: &str = "late-0";

/// Shows it.
///
/// # Errors
/// A request or handshake that failed, a rotation that did not come to its end, or what could not be done.
pub(super) async fn show(place: &Place, options: &Options, progress: Progress) -> Result<(), String> {
    // What an earlier show has left there may be half of a rotation.
    let _ = std::fs::remove_dir_all(mesh::authority(place));
    let lives = format!("{}s", options.cert_ttl.as_secs());
    let mut mesh = Mesh::start(place, "load", &[("SECRET_TTL", lives.clone())], progress).await?;
    let timing = [("SETTLE", format!("{}s", options.settle.as_secs())), ("LONGEST", lives)];
    let timing = timing.map(|(name, value)| format!("--env=ROOT_ROTATION_{name}={value}"));
    mesh.meshd.restart_with(&mesh.nodelet, timing).await?;
    let load = loaded::start(&mut mesh, options.rate).await?;
    progress.say(&format!("{} requests a second; certificates live {:?}", options.rate, options.cert_ttl));
    tokio::time::sleep(Duration::from_secs(1)).await;

    let mut problems = Vec::new();
    let rotation = Rotation::begin(place, &mut mesh, options.kill, progress).await?;
    rotation.run(&mut mesh, options, progress, &mut problems).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    // One of the old root, and one of the new at least.
    loaded::end(&mut mesh, load, 2, &mut problems).await?;
    verdict("The mesh has a new root with a new key, and no request failed.", &problems)
}

/// A rotation that was begun.
struct Rotation {
    /// The folder of the authority.
    folder: PathBuf,
    old: String,
    new: String,
}

impl Rotation {
    /// Puts another authority into the folder; if `kill`, while nobody looks.
    async fn begin(place: &Place, mesh: &mut Mesh, kill: bool, progress: Progress) -> Result<Self, String> {
        let folder = mesh::authority(place);
        let old = read(&folder.join("root-cert.pem"))?;
        let new = Authority::self_signed(&RootOptions::default(), Lifetimes::default(), SystemTime::now());
        let new = new.map_err(|error| error.to_string())?;
        if kill {
            mesh.meshd.kill().await?;
            progress.say("meshd is killed before it sees the new root");
        }
        for (name, text) in new.entries().map_err(|error| error.to_string())? {
            write(&folder.join(name), &text)?;
        }
        progress.say("another authority is in the folder");
        if kill {
            mesh.meshd.restart(&mesh.nodelet).await?;
        }
        Ok(Self { folder, old, new: new.roots_pem().to_string() })
    }

    /// Follows the rotation to its end, and does what is due in each phase.
    async fn run(
        &self,
        mesh: &mut Mesh,
        options: &Options,
        progress: Progress,
        problems: &mut Vec<String>,
    ) -> Result<(), String> {
        let patience = options.settle * 2 + options.cert_ttl + mesh::PATIENCE;
        let began = Instant::now();
        for phase in PHASES {
            self.reach(phase, patience.saturating_sub(began.elapsed())).await?;
            progress.say(&format!("the rotation is {phase}"));
            if options.kill {
                mesh.meshd.kill().await?;
                mesh.meshd.restart(&mesh.nodelet).await?;
                progress.say("meshd was killed and is back");
            }
            match phase {
                "distributing" => Self::publish(mesh, &format!("{}{}", self.old, self.new))?,
                "draining" => start_late(mesh, problems).await?,
                "stable" => Self::publish(mesh, &self.new)?,
                _ => {}
            }
        }
        say(&format!("\n  the root was replaced in {:.1} s", began.elapsed().as_secs_f64()))
    }

    /// Waits until the rotation is in this phase or in a later one.
    async fn reach(&self, phase: &str, patience: Duration) -> Result<(), String> {
        let at = PHASES.iter().position(|known| *known == phase).unwrap_or_default();
        let file = self.folder.join("rotation-status.json");
        let mut last = String::new();
        let reached = async {
            loop {
                last = read(&file).unwrap_or_default();
                let status: Value = serde_json::from_str(&last).unwrap_or_default();
                let word = status.pointer("/phase").and_then(Value::as_str).unwrap_or_default();
                let now = PHASES.iter().position(|known| *known == word);
                // Before it begins it is stable as well.
                let has_begun = word != "stable" || at > 0;
                if has_begun && now.is_some_and(|now| now >= at) {
                    return Ok(());
                }
                if word == "aborted" {
                    return Err(format!("the rotation was given up: {last}"));
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let reached = tokio::time::timeout(patience, reached).await;
        reached.unwrap_or_else(|_| Err(format!("the rotation is not {phase} in time: {last}")))
    }

    /// What meshd does in a cluster, and then the kubelet: the ConfigMap with the roots, in every pod's volume.
    fn publish(mesh: &mut Mesh, roots: &str) -> Result<(), String> {
        const FILE: &str = "root-cert.pem";
        for volume in volumes_with(&Path::new(sandbox::INSIDE).join("pods"), FILE)? {
            write(&volume.join(FILE), roots)?;
        }
        let map = mesh.sources.config_maps.entry("istio-ca-root-cert".to_owned()).or_default();
        map.insert(FILE.to_owned(), roots.to_owned());
        Ok(())
    }
}

/// Starts a pod; its certificate is of the new root, and those of before take it.
async fn start_late(mesh: &mut Mesh, problems: &mut Vec<String>) -> Result<(), String> {
    mesh.start_pods_where(|pod| pod.name() == LATE).await?;
    loaded::reaches(mesh, LATE, problems).await
}

/// The folders two levels below that have this file: the volumes of pods.
fn volumes_with(pods: &Path, file: &str) -> Result<BTreeSet<PathBuf>, String> {
    let list = |folder: &Path| {
        let read = std::fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok::<Vec<PathBuf>, String>(
            read.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect(),
        )
    };
    let mut found = BTreeSet::new();
    for pod in list(pods)? {
        found.extend(list(&pod)?.into_iter().filter(|volume| volume.join(file).is_file()));
    }
    Ok(found)
}

fn read(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    nodelet::replace(file, text).map_err(|error| format!("{}: {error}", file.display()))
}
