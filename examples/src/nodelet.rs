//! A nodelet: a small stand-in for a Kubernetes node. It runs each pod of the manifests' Deployments as processes in a
//! network namespace of its own, with a real Envoy beside the application and iptables bringing the traffic to it, and
//! writes down the Pods and EndpointSlices that a cluster would have.
//!
//! It works only inside [`sandbox`](crate::sandbox): everything it makes belongs to namespaces that vanish with the
//! sandbox's first process, so there is nothing to clean up and nothing that could be left behind.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::process::{Child, Command};

pub mod network;
pub mod plan;

use network::{NODE, Uplink};
use plan::{Plan, Pod, Program};

/// The user of the proxy, as Istio's images have it.
pub const PROXY_USER: u32 = 1337;
/// The user of applications.
pub const APP_USER: u32 = 1001;
/// What marks the proxy's packets where there is one user only.
const PROXY_MARK: u32 = 1337;

/// Where things are and how they run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program whose subcommands `mesh-agent` and `app` are run; readable by every user.
    pub program: PathBuf,
    /// Envoy; readable by every user.
    pub envoy: PathBuf,
    /// A folder for the pods' files.
    pub pods: PathBuf,
    /// A folder for logs.
    pub logs: PathBuf,
    /// The folder that the control plane reads; Pods and EndpointSlices are written there.
    pub config: PathBuf,
    /// The control plane's port on the node.
    pub discovery_port: u16,
    /// There is one user only, so the proxy is told by a mark.
    pub one_user: bool,
}

/// A process of a pod, or of the node.
#[derive(Debug)]
struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

/// The node with its running pods. Dropping it kills their processes.
#[derive(Debug)]
pub struct Nodelet {
    options: Options,
    plan: Plan,
    processes: Vec<Process>,
}

impl Nodelet {
    /// A node without pods: its bridge is up.
    ///
    /// # Errors
    /// What the kernel or a tool refused.
    pub fn new(plan: Plan, options: Options) -> Result<Self, String> {
        network::node()?;
        for folder in [&options.pods, &options.logs] {
            std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        let nodelet = Self { options, plan, processes: Vec::new() };
        nodelet.write_manifests(false)?;
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
    pub fn run(&mut self, name: &str, arguments: &[&str]) -> Result<(), String> {
        let mut command = Command::new(&self.options.program);
        // Its log goes into a file.
        command.args(arguments).env("NO_COLOR", "1");
        self.spawn(name, command)
    }

    /// Starts all pods, telling `progress` of each.
    ///
    /// # Errors
    /// What the kernel or a tool refused, with the pod's name.
    pub fn start_pods(&mut self, progress: impl Fn(&str)) -> Result<(), String> {
        for (index, pod) in self.plan.pods.clone().iter().enumerate() {
            progress(&format!("pod {} at {}", pod.name, pod.ip));
            self.start_pod(index, pod).map_err(|error| format!("pod {}: {error}", pod.name))?;
        }
        Ok(())
    }

    fn start_pod(&mut self, index: usize, pod: &Pod) -> Result<(), String> {
        network::pod(Uplink { index, namespace: &pod.name, ip: pod.ip })?;
        let folder = self.options.pods.join(&pod.name);
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        if !self.options.one_user {
            std::os::unix::fs::chown(&folder, Some(PROXY_USER), Some(PROXY_USER)).map_err(|error| error.to_string())?;
        }
        if let Program::App(part) = &pod.program {
            self.intercept(pod)?;
            let mut app = self.enter(pod, APP_USER);
            app.args(["app", part, "--pod", &pod.name]);
            self.spawn(&format!("{}-app", pod.name), app)?;
        }
        let agent = self.agent(pod, &folder);
        self.spawn(&format!("{}-proxy", pod.name), agent)
    }

    /// A command that runs our program in the pod's network namespace, with no environment but a path.
    fn enter(&self, pod: &Pod, user: u32) -> Command {
        let mut command = Command::new("nsenter");
        command.env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.arg(format!("--net={}", network::namespace_file(&pod.name)));
        if user != 0 && !self.options.one_user {
            command.arg(format!("--setuid={user}")).arg(format!("--setgid={user}"));
        }
        command.arg("--").arg(&self.options.program);
        command
    }

    /// Sets the rules that bring the pod's traffic to Envoy, as the injected init container does.
    fn intercept(&self, pod: &Pod) -> Result<(), String> {
        let mut init = self.enter(pod, 0).into_std();
        init.env("ENABLE_INBOUND_IPV6", "false");
        init.args(["mesh-agent", "init", "-p", "15001", "-z", "15006", "-m", "REDIRECT"]);
        init.args(["-i", "*", "-x", "", "-b", "*", "-d", "15090,15021,15020"]);
        match self.options.one_user {
            true => init.arg("--proxy-mark").arg(PROXY_MARK.to_string()),
            false => init.arg("-u").arg(PROXY_USER.to_string()),
        };
        let done = init.output().map_err(|error| format!("nsenter: {error}"))?;
        match done.status.success() {
            true => Ok(()),
            false => Err(format!("setting the rules failed: {}", String::from_utf8_lossy(&done.stderr).trim())),
        }
    }

    /// The agent, with the environment that the injector would have given it.
    fn agent(&self, pod: &Pod, folder: &Path) -> Command {
        let role = match pod.program {
            Program::App(_) => "sidecar",
            Program::Gateway => "router",
        };
        let mut agent = self.enter(pod, PROXY_USER);
        agent.current_dir(folder);
        agent.args(["mesh-agent", "proxy", role, "--domain", &format!("{}.svc.cluster.local", pod.namespace)]);
        if self.options.one_user {
            agent.arg("--proxy-mark").arg(PROXY_MARK.to_string());
        }
        let config = json!({
            "discoveryAddress": format!("{NODE}:{}", self.options.discovery_port),
            "concurrency": 1,
            "terminationDrainDuration": "1s",
        });
        let ports: Vec<_> =
            pod.ports.iter().map(|port| json!({ "containerPort": port.number, "protocol": "TCP" })).collect();
        let owner = format!("kubernetes://apis/apps/v1/namespaces/{}/deployments/{}", pod.namespace, pod.workload);
        agent
            .env("ENVOY_PATH", &self.options.envoy)
            .env("POD_NAME", &pod.name)
            .env("POD_NAMESPACE", &pod.namespace)
            .env("INSTANCE_IP", pod.ip.to_string())
            .env("SERVICE_ACCOUNT", &pod.service_account)
            .env("PROXY_CONFIG", config.to_string())
            .env("ISTIO_META_CLUSTER_ID", "Kubernetes")
            .env("ISTIO_META_MESH_ID", "cluster.local")
            .env("ISTIO_META_WORKLOAD_NAME", &pod.workload)
            .env("ISTIO_META_OWNER", owner)
            .env("ISTIO_META_NODE_NAME", plan::NODE_NAME)
            .env("ISTIO_META_INTERCEPTION_MODE", "REDIRECT")
            .env("ISTIO_META_POD_PORTS", json!(ports).to_string())
            .env("ISTIO_METAJSON_LABELS", json!(pod.labels).to_string());
        agent
    }

    fn spawn(&mut self, name: &str, mut command: Command) -> Result<(), String> {
        let log = self.options.logs.join(format!("{name}.log"));
        let file = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let again = file.try_clone().map_err(|error| error.to_string())?;
        // A process group of its own: a Ctrl-C in the terminal is ours to handle.
        command.stdin(Stdio::null()).stdout(file).stderr(again).process_group(0).kill_on_drop(true);
        let child = command.spawn().map_err(|error| format!("{name} cannot be started: {error}"))?;
        self.processes.push(Process { name: name.to_owned(), child, log });
        Ok(())
    }

    /// Fails when a process has ended, with the end of its log: none should before the node does.
    ///
    /// # Errors
    /// Names it.
    pub fn all_alive(&mut self) -> Result<(), String> {
        for process in &mut self.processes {
            if let Ok(Some(status)) = process.child.try_wait() {
                return Err(format!(
                    "{} ended ({status}); its log {} ends with:\n{}",
                    process.name,
                    process.log.display(),
                    tail(&process.log)
                ));
            }
        }
        Ok(())
    }

    /// Waits until every pod is ready, as a kubelet asks: through Envoy, and the application behind it. Then writes so
    /// into the EndpointSlices.
    ///
    /// # Errors
    /// A process ended, or not all were ready in time; says which and why.
    pub async fn ready(&mut self, patience: Duration, progress: impl Fn(&str)) -> Result<(), String> {
        let began = Instant::now();
        let mut waiting = self.plan.pods.clone();
        while !waiting.is_empty() {
            self.all_alive()?;
            let mut still = Vec::new();
            for pod in waiting {
                match probe(&pod).await {
                    Ok(()) => progress(&format!("pod {} is ready", pod.name)),
                    Err(why) => still.push((pod, why)),
                }
            }
            if let Some((pod, why)) = still.first().filter(|_| began.elapsed() > patience) {
                let log = self.options.logs.join(format!("{}-proxy.log", pod.name));
                return Err(format!(
                    "{} of {} pods are not ready after {patience:?}; {}: {why}\nits log {} ends with:\n{}",
                    still.len(),
                    self.plan.pods.len(),
                    pod.name,
                    log.display(),
                    tail(&log),
                ));
            }
            waiting = still.into_iter().map(|(pod, _)| pod).collect();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self.write_manifests(true)
    }

    /// Pods and EndpointSlices as a file of the control plane's folder, replaced as a whole.
    fn write_manifests(&self, ready: bool) -> Result<(), String> {
        let text = plan::manifests(&self.plan, ready);
        replace(&self.options.config.join("nodelet.yaml"), &text).map_err(|error| format!("writing Pods: {error}"))
    }
}

async fn probe(pod: &Pod) -> Result<(), String> {
    let answers_ok = |port: u16, path: &'static str| async move {
        let url = format!("http://{}:{port}{path}", pod.ip);
        let answer = tokio::time::timeout(Duration::from_secs(2), crate::http::get(&url)).await;
        let (status, body) =
            answer.map_err(|_| format!("{url}: no answer"))?.map_err(|error| format!("{url}: {error}"))?;
        if status == 200 { Ok(()) } else { Err(format!("{url}: {status} {}", String::from_utf8_lossy(&body))) }
    };
    answers_ok(15021, "/healthz/ready").await?;
    match pod.program {
        Program::App(_) => answers_ok(crate::bookinfo::PORT, "/health").await,
        Program::Gateway => Ok(()),
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
