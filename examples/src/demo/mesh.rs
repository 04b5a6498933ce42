//! A mesh for a show: the control plane and the pods of a folder of manifests, on a node inside the box.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Place, Progress, injector, manifests, mesh_config, objects, say, yaml_files};
use crate::nodelet::accounts::{self, Accounts};
use crate::nodelet::plan::Pod;
use crate::nodelet::volumes::Sources;
use crate::nodelet::{self, Nodelet, Process, plan};
use crate::{http, sandbox};

/// The ports of the control plane on the node: xDS in plaintext and over TLS.
const XDS_PORTS: [u16; 2] = [15010, 15012];
/// Where the control plane counts what proxies refused.
const METRICS: &str = "http://127.0.0.1:15014/metrics";
/// A pod must be ready within this.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A mesh that runs. Dropping it ends its processes.
#[derive(Debug)]
pub struct Mesh {
    /// The node with its pods.
    pub nodelet: Nodelet,
    /// The control plane.
    pub meshd: Meshd,
    /// The folder that the control plane follows.
    pub config: PathBuf,
    /// What pods' volumes are made of.
    pub sources: Sources,
    progress: Progress,
}

impl Mesh {
    /// Starts the control plane on a copy of these manifests; no pod runs yet. `environment` is added to that of every proxy.
    ///
    /// # Errors
    /// What the kernel or a tool refused.
    pub async fn start(
        place: &Place,
        folder: &str,
        environment: &[(&str, String)],
        progress: Progress,
    ) -> Result<Self, String> {
        let folder = manifests(folder);
        let plan = plan::plan(&objects(&folder)?, &injector(environment)?)?;
        let (config, authority) = (place.folder.join("config"), authority(place));
        serve_a_copy(&folder, &config)?;
        let accounts = Accounts::new()?;
        let jwks = place.folder.join("jwks.json");
        std::fs::write(&jwks, accounts.jwks()?).map_err(|error| format!("{}: {error}", jwks.display()))?;

        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let paths = sandbox::furnish(&[&program, &place.envoy], &plan.hosts())?;
        let [program, envoy] = paths.as_slice() else { return Err("the programs are not inside".into()) };
        let nodelet = Nodelet::new(
            plan,
            nodelet::Options {
                program: program.clone(),
                envoy: envoy.clone(),
                pods: Path::new(sandbox::INSIDE).join("pods"),
                logs: place.folder.join("logs"),
                config: config.clone(),
                one_user: place.one_user,
            },
        )?;
        progress.say(&format!("the node is up ({})", if place.one_user { "in a user namespace" } else { "as root" }));
        let meshd = Meshd::start(&nodelet, meshd_arguments(&config, &authority, &jwks)).await?;
        progress.say(&format!("meshd serves {}", config.display()));
        let roots = authority.join("root-cert.pem");
        let roots = std::fs::read_to_string(&roots).map_err(|error| format!("{}: {error}", roots.display()))?;
        let roots = BTreeMap::from([("root-cert.pem".to_owned(), roots)]);
        let sources = Sources { accounts, config_maps: BTreeMap::from([("istio-ca-root-cert".to_owned(), roots)]) };
        Ok(Self { nodelet, meshd, config, sources, progress })
    }

    /// Starts all pods and returns when they are ready.
    ///
    /// # Errors
    /// What the kernel or a tool refused, a process that ended, or a pod that was not ready in time; says which and why.
    pub async fn start_pods(&mut self) -> Result<(), String> {
        self.start_pods_where(|_| true).await
    }

    /// Starts some of the pods and returns when they are ready.
    ///
    /// # Errors
    /// As [`Mesh::start_pods`].
    pub async fn start_pods_where(&mut self, which: impl Fn(&Pod) -> bool) -> Result<(), String> {
        let running = self.nodelet.start(which, &self.sources, PATIENCE, |text| self.progress.say(text)).await?;
        self.nodelet.add(running)
    }

    /// Fails when a process has ended, with the end of its log: none should before the mesh does.
    ///
    /// # Errors
    /// Names it.
    pub fn all_alive(&mut self) -> Result<(), String> {
        self.meshd.process.is_alive()?;
        self.nodelet.all_alive()
    }

    /// Writes a manifest into the folder that the control plane follows.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, file: &str, text: &str) -> Result<(), String> {
        let path = self.config.join(file);
        nodelet::replace(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Says how many of the control plane's responses proxies refused, killed control planes included; none should be.
    ///
    /// # Errors
    /// The control plane does not tell its counters.
    pub(super) async fn judge_rejections(&self, problems: &mut Vec<String>) -> Result<(), String> {
        let rejected = self.meshd.rejected + rejected_since_start().await?;
        if rejected > 0 {
            problems.push(format!("{rejected} responses were rejected by an Envoy; meshd.log says which and why"));
        }
        say(&format!("\n{rejected} of the control plane's responses were rejected by an Envoy"))
    }
}

/// The control plane as a process of the node.
#[derive(Debug)]
pub struct Meshd {
    arguments: Vec<String>,
    process: Process,
    /// How many responses proxies refused before it was killed last.
    rejected: u64,
}

impl Meshd {
    /// Starts it and waits until it is ready.
    async fn start(nodelet: &Nodelet, arguments: Vec<String>) -> Result<Self, String> {
        let mut process = nodelet.run("meshd", &arguments)?;
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(20) {
            process.is_alive()?;
            if let Ok((200, _)) = http::get("http://127.0.0.1:8080/ready").await {
                return Ok(Self { arguments, process, rejected: 0 });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err("meshd does not become ready; its log is meshd.log".into())
    }

    /// Kills it, as by SIGKILL: it has no time to say goodbye.
    ///
    /// # Errors
    /// It had ended by itself.
    pub async fn kill(&mut self) -> Result<(), String> {
        self.process.is_alive()?;
        self.rejected += rejected_since_start().await?;
        self.process.kill().await
    }

    /// Starts it anew with these arguments besides.
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn restart_with(
        &mut self,
        nodelet: &Nodelet,
        arguments: impl IntoIterator<Item = String>,
    ) -> Result<(), String> {
        self.kill().await?;
        self.arguments.extend(arguments);
        self.restart(nodelet).await
    }

    /// Starts it again after it was killed, and waits until it is ready.
    ///
    /// # Errors
    /// It does not become ready.
    pub async fn restart(&mut self, nodelet: &Nodelet) -> Result<(), String> {
        let started = Self::start(nodelet, self.arguments.clone()).await?;
        *self = Self { rejected: self.rejected, ..started };
        Ok(())
    }
}

/// The folder of the control plane's authority.
pub(super) fn authority(place: &Place) -> PathBuf {
    place.folder.join("ca")
}

fn meshd_arguments(config: &Path, authority: &Path, jwks: &Path) -> Vec<String> {
    // Bound by IPv4 addresses, since not every kernel has IPv6.
    let [grpc, secure] = XDS_PORTS.map(|port| format!("0.0.0.0:{port}"));
    let [config, authority, jwks, mesh_config] =
        [config, authority, jwks, &mesh_config()].map(|path| path.display().to_string());
    [
        ["meshd", "--config-dir", &config, "--mesh-config", &mesh_config].as_slice(),
        &["--ca-dir", &authority, "--jwks", &jwks, "--jwt-issuer", accounts::ISSUER],
        &["--grpc-addr", &grpc, "--secure-grpc-addr", &secure],
        &["--http-addr", "127.0.0.1:8080", "--monitoring-addr", "127.0.0.1:15014"],
    ]
    .concat()
    .into_iter()
    .map(str::to_owned)
    .collect()
}

/// Copies manifests to where they may be edited.
fn serve_a_copy(folder: &Path, config: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", config.display());
    if config.exists() {
        std::fs::remove_dir_all(config).map_err(failed)?;
    }
    std::fs::create_dir_all(config).map_err(failed)?;
    for file in yaml_files(folder)? {
        std::fs::copy(&file, config.join(file.file_name().unwrap_or_default())).map_err(failed)?;
    }
    Ok(())
}

/// How many responses proxies refused, as the control plane that runs counts them.
async fn rejected_since_start() -> Result<u64, String> {
    let (_, metrics) = http::get(METRICS).await?;
    Ok(rejected(&String::from_utf8_lossy(&metrics)))
}

/// How many responses proxies refused, by the control plane's metrics.
fn rejected(metrics: &str) -> u64 {
    let samples = metrics.lines().filter(|line| line.starts_with("pilot_total_xds_rejects"));
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejections_are_summed_over_types() {
        let metrics = "# TYPE pilot_total_xds_rejects counter\npilot_total_xds_rejects{type=\"rds\"} 2\n\
                       pilot_total_xds_rejects{type=\"lds\"} 1\npilot_xds_pushes{type=\"rds\"} 13\n";
        assert_eq!((rejected(metrics), rejected("")), (3, 0));
    }
}
