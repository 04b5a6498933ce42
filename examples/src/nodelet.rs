//! A nodelet: a small stand-in for a Kubernetes node. It runs each pod of the manifests' Deployments, injected by the real
//! injector, as processes in a network namespace of its own: its init containers, its sidecar with a real Envoy, its
//! application, each with the environment, volumes, tokens and user of its spec; and it writes down the Pods and
//! EndpointSlices that a cluster would have.
//!
//! It works only inside [`sandbox`](crate::sandbox): everything it makes belongs to namespaces that vanish with the
//! sandbox's first process, so there is nothing to clean up and nothing that could be left behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Container;
use tokio::process::{Child, Command};

pub mod accounts;
pub mod container;
pub mod environment;
pub mod network;
pub mod plan;
pub mod volumes;

use network::Uplink;
use plan::{Plan, Pod};
use volumes::Sources;

/// The user of applications, where their pods name none.
pub const APP_USER: i64 = 1001;
/// What marks the proxy's packets where there is one user only.
const PROXY_MARK: u32 = 1337;
/// How often something is looked at again.
const PERIOD: Duration = Duration::from_millis(50);

/// Where things are and how they run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program whose subcommands `mesh-agent` and `app` are run; readable by every user.
    pub program: PathBuf,
    /// Envoy; readable by every user.
    pub envoy: PathBuf,
    /// A folder for the pods' volumes.
    pub pods: PathBuf,
    /// A folder for logs.
    pub logs: PathBuf,
    /// The folder that the control plane reads; Pods and EndpointSlices are written there.
    pub config: PathBuf,
    /// There is one user only, so the proxy is told by a mark.
    pub one_user: bool,
}

/// A process of a pod, or of the node. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// The node with its running pods. Dropping it kills their processes.
#[derive(Debug)]
pub struct Nodelet {
    options: Options,
    plan: Plan,
    /// The names of the pods that are ready.
    ready: BTreeSet<String>,
    processes: Vec<Process>,
}

/// Pods that are ready.
#[derive(Debug, Default)]
pub struct Running {
    pods: BTreeSet<String>,
    processes: Vec<Process>,
}

impl Nodelet {
    /// A node without pods: its bridge is up.
    ///
    /// # Errors
    /// What the kernel or a tool refused.
    pub fn new(plan: Plan, options: Options) -> Result<Self, String> {
        network::node()?;
        // What an earlier run said.
        let _ = std::fs::remove_dir_all(&options.logs);
        for folder in [&options.pods, &options.logs] {
            std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        let nodelet = Self { options, plan, ready: BTreeSet::new(), processes: Vec::new() };
        nodelet.write_manifests()?;
        Ok(nodelet)
    }

    /// What runs here.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Starts a process of the node itself, such as the control plane.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&self, name: &str, arguments: &[String]) -> Result<Process, String> {
        let mut command = Command::new(&self.options.program);
        // Its log goes into a file.
        command.args(arguments).env("NO_COLOR", "1");
        start(&self.options, name, command)
    }

    /// Starts pods side by side and returns when each is ready, as a kubelet asks. Nobody is told of them before they are
    /// [added](Self::add).
    ///
    /// # Errors
    /// What the kernel or a tool refused, a process that ended, or a pod that was not ready in time; says which and why.
    pub async fn start(
        &self,
        which: impl Fn(&Pod) -> bool,
        sources: &Sources,
        patience: Duration,
        progress: impl Fn(&str),
    ) -> Result<Running, String> {
        let chosen = self.plan.pods.iter().enumerate().filter(|(_, pod)| which(pod));
        let chosen: Vec<(usize, &Pod)> = chosen.collect();
        for (index, pod) in &chosen {
            network::pod(Uplink { index: *index, namespace: pod.name(), ip: pod.ip })?;
        }
        let progress = &progress;
        let pods = chosen.iter().map(|(_, pod)| async move {
            progress(&format!("pod {} at {}", pod.name(), pod.ip));
            let processes = run_pod(&self.options, pod, sources, patience).await;
            let processes = processes.map_err(|error| format!("pod {}: {error}", pod.name()))?;
            progress(&format!("pod {} is ready", pod.name()));
            Ok::<_, String>(processes)
        });
        let processes = try_join_all(pods).await?.into_iter().flatten().collect();
        Ok(Running { pods: chosen.iter().map(|(_, pod)| pod.name().to_owned()).collect(), processes })
    }

    /// Keeps started pods, and writes into the EndpointSlices that they are ready.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn add(&mut self, running: Running) -> Result<(), String> {
        self.ready.extend(running.pods);
        self.processes.extend(running.processes);
        self.write_manifests()
    }

    /// Our program as the application of a pod: what it sends goes through the pod's proxy.
    pub fn within(&self, pod: &Pod) -> Command {
        container::enter(&self.options, pod.name(), container::User::of(None), &[])
    }

    /// Lets the application of a pod send a request through its proxy: the status of the answer.
    ///
    /// # Errors
    /// There was no answer.
    pub async fn request(&self, pod: &Pod, url: &str) -> Result<u16, String> {
        let done = self.within(pod).args(["get", url]).output().await.map_err(|error| error.to_string())?;
        let said = String::from_utf8_lossy(&done.stdout);
        said.trim().parse().map_err(|_| String::from_utf8_lossy(&done.stderr).trim().to_owned())
    }

    /// Fails when a process has ended, with the end of its log: none should before the node does.
    ///
    /// # Errors
    /// Names it.
    pub fn all_alive(&mut self) -> Result<(), String> {
        self.processes.iter_mut().try_for_each(Process::is_alive)
    }

    /// Pods and EndpointSlices as a file of the control plane's folder, replaced as a whole.
    fn write_manifests(&self) -> Result<(), String> {
        let text = plan::manifests(&self.plan, |pod| self.ready.contains(pod.name()));
        replace(&self.options.config.join("nodelet.yaml"), &text).map_err(|error| format!("writing Pods: {error}"))
    }
}

impl Process {
    /// Kills it, and waits until it is gone.
    ///
    /// # Errors
    /// It had ended by itself.
    pub async fn kill(&mut self) -> Result<(), String> {
        self.is_alive()?;
        self.child.kill().await.map_err(|error| format!("{}: {error}", self.name))
    }

    /// Fails when it has ended, with the end of its log.
    ///
    /// # Errors
    /// Names it.
    pub fn is_alive(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(format!(
                "{} ended ({status}); its log {} ends with:\n{}",
                self.name,
                self.log.display(),
                tail(&self.log)
            )),
            _ => Ok(()),
        }
    }
}

/// Runs the containers of a pod in the order of its spec: each init container to its end, a sidecar until it has started;
/// then the application. Returns when all are ready.
async fn run_pod(options: &Options, pod: &Pod, sources: &Sources, patience: Duration) -> Result<Vec<Process>, String> {
    let volumes = volumes::make(pod, &options.pods.join(pod.name()), sources)?;
    let mut processes = Vec::new();
    for container in pod.spec().init_containers.iter().flatten() {
        let mut process = start_container(options, pod, container, &volumes)?;
        if !plan::stays(container) {
            let status = process.child.wait().await.map_err(|error| error.to_string())?;
            if !status.success() {
                return Err(format!("{} failed ({status}):\n{}", process.name, tail(&process.log)));
            }
            continue;
        }
        processes.push(process);
        if let Some(probe) = &container.startup_probe {
            until(&mut processes, patience, || container::ask(pod, container, probe)).await?;
        }
    }
    for container in &pod.spec().containers {
        processes.push(start_container(options, pod, container, &volumes)?);
    }
    for container in pod.containers() {
        if let Some(probe) = &container.readiness_probe {
            until(&mut processes, patience, || container::ask(pod, container, probe)).await?;
        }
    }
    Ok(processes)
}

fn start_container(
    options: &Options,
    pod: &Pod,
    container: &Container,
    volumes: &BTreeMap<String, PathBuf>,
) -> Result<Process, String> {
    let name = &container.name;
    let command = container::command(options, pod, container, volumes);
    let command = command.map_err(|error| format!("container {name}: {error}"))?;
    start(options, &format!("{}-{name}", pod.name()), command)
}

/// Starts a process; what it says is added to its log.
fn start(options: &Options, name: &str, mut command: Command) -> Result<Process, String> {
    let log = options.logs.join(format!("{name}.log"));
    let file = OpenOptions::new().create(true).append(true).open(&log);
    let file = file.map_err(|error| format!("{}: {error}", log.display()))?;
    let again = file.try_clone().map_err(|error| error.to_string())?;
    // A process group of its own: a Ctrl-C in the terminal is ours to handle.
    command.stdin(Stdio::null()).stdout(file).stderr(again).process_group(0).kill_on_drop(true);
    let child = command.spawn().map_err(|error| format!("{name} cannot be started: {error}"))?;
    Ok(Process { name: name.to_owned(), child, log })
}

/// Waits until `ask` is content.
async fn until<A: Future<Output = Result<(), String>>>(
    processes: &mut [Process],
    patience: Duration,
    ask: impl Fn() -> A,
) -> Result<(), String> {
    let began = Instant::now();
    loop {
        processes.iter_mut().try_for_each(Process::is_alive)?;
        let Err(why) = ask().await else { return Ok(()) };
        if began.elapsed() > patience {
            let logs: Vec<String> =
                processes.iter().map(|p| format!("{}:\n{}", p.log.display(), tail(&p.log))).collect();
            return Err(format!("not ready after {patience:?}: {why}\n{}", logs.join("\n")));
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Replaces a file so that a reader sees the old text or the new, never a part.
pub fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let beside = path.with_file_name(format!(".{name}.new"));
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, path)
}

/// The last lines of a log.
fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n")
}
