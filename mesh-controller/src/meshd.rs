//! `meshd`: the control plane as a process. Flags become a [`ControlPlane`]; signals end it. Nothing else is decided here.

mod identity;
mod webhooks;

use std::convert::Infallible;
use std::ffi::OsString;
use std::future::pending;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use mesh_api::types::Duration as GoDuration;
use mesh_api::{Diagnostic, Name};
use mesh_ca::Current;
use mesh_ca::reconcile::WebhookService;
use mesh_xds::model::Settings;
use mesh_xds::server;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use crate::cli::{self, MeshFlags, MeshTexts, Verdict};
use crate::control_plane::{ControlPlane, ControlPlaneBuilder};
use crate::identity::{Clients, Rotating, Trust};
use crate::leader::{self, Candidate};
use crate::mesh_config::{MeshConfigMap, of_revision};
use crate::source::files::Unreadable;
use crate::source::{Files, Kube, Remotes};
use crate::status;
use crate::store::Debounce;
use identity::Own;

/// Who keeps the ConfigMaps in the namespaces; istiod's name, as both keep the same.
const NAMESPACES_LEASE: &str = "istio-namespace-controller-election";

/// Who writes the status of Istio's objects; istiod's name, as both write the same fields.
const STATUS_LEASE: &str = "istio-analyze-leader";
/// The feature that has it written.
const ANALYSIS: &str = "PILOT_ENABLE_ANALYSIS";

/// The control plane of a mesh
#[derive(Parser, Debug)]
#[command(name = "meshd", version, max_term_width = 100)]
struct Meshd {
    /// Serve the manifests in this folder instead of a cluster's, and follow its changes; may be repeated, later folders win
    #[arg(long, value_name = "DIR")]
    config_dir: Vec<PathBuf>,
    /// How to reach the cluster; otherwise as KUBECONFIG says, or as a pod of it
    #[arg(long, value_name = "FILE", conflicts_with = "config_dir")]
    kubeconfig: Option<PathBuf>,
    /// The control plane's own namespace, where the ConfigMap `istio` with its settings is
    #[arg(long, env = "POD_NAMESPACE", default_value = "istio-system")]
    namespace: String,
    /// The name of this replica among those of the control plane
    #[arg(long, env = "POD_NAME", default_value_t = replica())]
    pod_name: String,
    /// The control plane's revision: its ConfigMap is `istio-REVISION`
    #[arg(long, env = "REVISION", default_value = "")]
    revision: String,
    #[command(flatten)]
    mesh: MeshFlags,
    /// Where xDS and certificates are served in plaintext; port 0 is any free one
    #[arg(long, alias = "grpcAddr", default_value = ":15010", value_parser = address, value_name = "[HOST]:PORT")]
    grpc_addr: SocketAddr,
    /// Where xDS and certificates are served over TLS; otherwise port 15012 of that host, or any free port if that is any
    #[arg(long, alias = "secureGRPCAddr", value_parser = address, value_name = "[HOST]:PORT")]
    secure_grpc_addr: Option<SocketAddr>,
    #[command(flatten)]
    identity: identity::IdentityFlags,
    #[command(flatten)]
    webhooks: webhooks::WebhookFlags,
    /// Where /ready and /debug are served
    #[arg(long, alias = "httpAddr", default_value = ":8080", value_parser = address, value_name = "[HOST]:PORT")]
    http_addr: SocketAddr,
    /// Where /metrics is served
    #[arg(long, alias = "monitoringAddr", default_value = ":15014", value_parser = address, value_name = "[HOST]:PORT")]
    monitoring_addr: SocketAddr,
    /// Write one line of JSON with the bound addresses to standard output once ready: {"grpc", "secureGrpc", "https", "http", "monitoring"}
    #[arg(long)]
    print_addrs: bool,
    /// Changes that follow one another within this time are published together
    #[arg(long, env = "PILOT_DEBOUNCE_AFTER", default_value = "100ms", value_parser = duration)]
    debounce_after: Duration,
    /// The longest time that a change is held back
    #[arg(long, env = "PILOT_DEBOUNCE_MAX", default_value = "10s", value_parser = duration)]
    debounce_max: Duration,
    /// How long streams may take to end on SIGTERM
    #[arg(long, default_value = "5s", value_parser = duration)]
    drain_timeout: Duration,
    /// Answer /debug to others than the local host
    #[arg(long)]
    remote_debug: bool,
}

/// Runs `meshd` with these arguments, the first being the program's name, until SIGTERM or SIGINT. Exit codes: 0 when it
/// was told to end, 2 for wrong usage, unreadable input or a port that is taken.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let meshd = match Meshd::try_parse_from(args) {
        Ok(meshd) => meshd,
        Err(error) => return cli::usage(&error),
    };
    log_to_stderr();
    cli::end(meshd.run().map(|()| (String::new(), Verdict::Ok)))
}

pub(crate) fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // Fails when the program that embeds us logs already, which is as good.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).try_init();
}

impl Meshd {
    fn run(self) -> anyhow::Result<()> {
        for folder in &self.config_dir {
            std::fs::metadata(folder).with_context(|| format!("--config-dir {}", folder.display()))?;
        }
        allow_many_connections();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut shutdown = pin!(async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            });
            let cluster = if self.config_dir.is_empty() { Some(self.client().await?) } else { None };
            let config_map = cluster.clone().map(|client| MeshConfigMap::new(client, &self.namespace, &self.revision));
            let mut origin = Origin::new(self.mesh.clone(), config_map);
            let texts = tokio::select! {
                texts = origin.first() => texts?,
                () = &mut shutdown => return Ok(()),
            };
            let (settings, told) = self.mesh.settings_of(&texts);
            tell(&told);
            let (new_settings, follow_settings) = watch::channel(Arc::new(settings.clone()));
            let clients = Clients::default();
            let own = cluster.clone().map(|client| Own {
                client,
                cluster: self.mesh.cluster_id.as_str().into(),
                namespace: self.namespace.clone(),
                clients: clients.clone(),
            });
            let (identity, kept) = tokio::select! {
                identity = self.identity.identity(&settings, &self.revision, own) => identity?,
                () = &mut shutdown => return Ok(()),
            };
            let authority = identity.authority.clone();
            let candidate = cluster.clone().map(|client| {
                Candidate::new(client, &self.namespace, NAMESPACES_LEASE, &self.pod_name, leader::Options::default())
            });
            let leads = candidate.as_ref().map(Candidate::leads);
            let trust = cluster.clone().map(|client| self.trust(client, authority.clone(), follow_settings.clone()));
            let keep_trust = keep_trust(trust.clone().zip(candidate));
            let serving = webhooks::Serving::new(&self, &identity, cluster.clone());
            let (webhooks, following) = tokio::select! {
                started = serving.start() => started,
                () = &mut shutdown => return Ok(()),
            };
            let analysed = cluster.clone().filter(|_| settings.features.flag(ANALYSIS, false));
            let mut control_plane = self.control_plane(settings, follow_settings, cluster, clients).identity(identity);
            if let Some(webhooks) = webhooks {
                control_plane = control_plane.serve_webhooks(webhooks);
            }
            let control_plane = control_plane.bind().await?;
            let (addresses, mut ready) = (control_plane.addresses(), control_plane.ready());
            let keep_status = self.keep_status(analysed, &control_plane);
            let announce = async {
                if ready.wait_for(|ready| *ready).await.is_ok() {
                    tracing::info!(?addresses, "ready");
                    if self.print_addrs {
                        let line = serde_json::to_string(&addresses)?;
                        writeln!(io::stdout(), "{line}")?;
                        io::stdout().flush()?;
                    }
                }
                anyhow::Ok(())
            };
            let metrics = control_plane.certificate_metrics();
            let mut rotating = Rotating::new(authority, metrics).proxies(control_plane.proxies());
            if let Some(leads) = leads {
                rotating = rotating.replica(&self.pod_name, leads);
            }
            control_plane.metrics().register(|registry| rotating.register(registry));
            let run = async {
                tokio::select! {
                    ended = control_plane.run_until(shutdown) => ended,
                    never = kept.follow(&rotating, trust.as_ref()) => match never {},
                    never = keep_trust => match never {},
                    never = keep_status => match never {},
                    never = following => match never {},
                    never = follow(origin, told, new_settings) => match never {},
                }
            };
            let (announced, ended) = tokio::join!(announce, run);
            announced.and(ended.map_err(Into::into))
        })
    }

    fn secure_addr(&self) -> SocketAddr {
        let port = if self.grpc_addr.port() == 0 { 0 } else { 15012 };
        self.secure_grpc_addr.unwrap_or_else(|| SocketAddr::new(self.grpc_addr.ip(), port))
    }

    fn control_plane(
        &self,
        settings: Settings,
        follow_settings: watch::Receiver<Arc<Settings>>,
        cluster: Option<Client>,
        clients: Clients,
    ) -> ControlPlaneBuilder {
        let mut options = server::Options::default();
        options.drain_timeout = self.drain_timeout;
        options.remote_debug = self.remote_debug;
        let builder = ControlPlane::builder()
            .settings(settings)
            .follow_settings(follow_settings.clone())
            .debounce(self.debounce())
            .server_options(options)
            .serve_xds(self.grpc_addr)
            .serve_secure(self.secure_addr())
            .serve_http(self.http_addr)
            .serve_metrics(self.monitoring_addr);
        match cluster {
            Some(client) => {
                let own = Name::from(self.mesh.cluster_id.as_str());
                let remotes = Remotes::new(client.clone(), &self.namespace, own).clients(clients);
                builder.source(remotes).source(Kube::new(client).settings(follow_settings))
            }
            None => builder.source(Files::new(self.config_dir.clone())),
        }
    }

    /// The roots of the mesh where a cluster's own read them.
    fn trust(&self, client: Client, authority: Arc<Current>, settings: watch::Receiver<Arc<Settings>>) -> Trust {
        let service = WebhookService { name: of_revision("istiod", &self.revision), namespace: self.namespace.clone() };
        Trust::new(client, authority, settings, service)
    }

    /// In a cluster that wants it: what is wrong with Istio's objects, in their status, by one of all replicas.
    fn keep_status(
        &self,
        cluster: Option<Client>,
        control_plane: &ControlPlane,
    ) -> impl Future<Output = Infallible> + use<> {
        let kept = cluster.map(|client| {
            let lease = leader::Options::default();
            let candidate = Candidate::new(client.clone(), &self.namespace, STATUS_LEASE, &self.pod_name, lease);
            (status::Writer::new(client, control_plane.states(), control_plane.problems()), candidate)
        });
        async move {
            let Some((writer, candidate)) = kept else { return pending().await };
            let leads = candidate.leads();
            tokio::select! {
                never = writer.run(leads) => never,
                () = candidate.run(pending()) => pending().await,
            }
        }
    }

    async fn client(&self) -> anyhow::Result<Client> {
        let config = match &self.kubeconfig {
            Some(file) => {
                let kubeconfig = Kubeconfig::read_from(file)?;
                kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?
            }
            None => {
                let inferred = kube::Config::infer().await;
                inferred.context("no cluster is configured; name its --kubeconfig, or a folder with --config-dir")?
            }
        };
        Ok(Client::try_from(config)?)
    }

    /// `--env` sets what istiod reads from its environment, so it may set these two as well.
    fn debounce(&self) -> Debounce {
        let set = |name: &str, otherwise: Duration| {
            let last = self.mesh.env.iter().rev().find(|(set, _)| set == name);
            last.and_then(|(_, value)| duration(value).ok()).unwrap_or(otherwise)
        };
        Debounce {
            after: set("PILOT_DEBOUNCE_AFTER", self.debounce_after),
            max: set("PILOT_DEBOUNCE_MAX", self.debounce_max),
        }
    }
}

/// Takes as many file descriptors as the machine gives, as every program of Go does: each connection is one.
fn allow_many_connections() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// In a cluster: keeps the roots of the mesh where they are read, the ConfigMaps by one of all replicas.
async fn keep_trust(cluster: Option<(Trust, Candidate)>) -> Infallible {
    let Some((trust, candidate)) = cluster else { return pending().await };
    let leads = candidate.leads();
    tokio::select! {
        never = trust.clone().keep_config_maps(leads) => never,
        never = trust.keep_bundles() => never,
        () = candidate.run(pending()) => pending().await,
    }
}

/// A name for a replica that is no pod.
pub(crate) fn replica() -> String {
    let host = rustix::system::uname();
    format!("{}-{}", host.nodename().to_string_lossy(), std::process::id())
}

fn tell(problems: &[Diagnostic]) {
    for problem in problems {
        tracing::warn!("{problem}");
    }
}

/// Where the mesh's settings come from: files that flags name, and the cluster's ConfigMap, which counts less.
struct Origin {
    flags: MeshFlags,
    config_map: Option<MeshConfigMap>,
    /// What the ConfigMap said last.
    said: MeshTexts,
}

impl Origin {
    fn new(flags: MeshFlags, config_map: Option<MeshConfigMap>) -> Self {
        Self { flags, config_map, said: MeshTexts::default() }
    }

    /// What there is at the start. A cluster is waited for: its proxies must not be sent what its settings do not allow.
    async fn first(&mut self) -> Result<MeshTexts, Unreadable> {
        if let Some(config_map) = &mut self.config_map {
            self.said = texts(config_map).await;
        }
        self.read().await
    }

    /// What there is after the next change of the ConfigMap, or after a second: files change rarely and nobody waits for
    /// them, so they have no watch.
    async fn next(&mut self) -> Result<MeshTexts, Unreadable> {
        let has_files = self.flags.mesh_config.is_some() || self.flags.mesh_networks.is_some();
        let config_map = async {
            match &mut self.config_map {
                Some(config_map) => texts(config_map).await,
                None => pending().await,
            }
        };
        tokio::select! {
            said = config_map => self.said = said,
            () = tokio::time::sleep(Duration::from_secs(1)), if has_files => {}
        }
        self.read().await
    }

    /// What the files say, and what the ConfigMap said of the rest.
    fn read(&self) -> impl Future<Output = Result<MeshTexts, Unreadable>> + use<> {
        let (flags, said) = (self.flags.clone(), self.said.clone());
        async move {
            let files = tokio::task::spawn_blocking(move || flags.texts()).await;
            let files = files.unwrap_or_else(|_| Ok(MeshTexts::default()))?;
            Ok(MeshTexts { mesh: files.mesh.or(said.mesh), networks: files.networks.or(said.networks) })
        }
    }
}

async fn texts(config_map: &mut MeshConfigMap) -> MeshTexts {
    let mut data = config_map.next().await;
    let name = Name::from(config_map.name());
    let mut text = |key| data.remove(key).map(|text| (name.clone(), text));
    MeshTexts { mesh: text("mesh"), networks: text("meshNetworks") }
}

/// Sends the settings on when they differ from those before.
async fn follow(mut origin: Origin, mut told: Vec<Diagnostic>, settings: watch::Sender<Arc<Settings>>) -> Infallible {
    let mut unreadable = String::new();
    loop {
        match origin.next().await {
            Ok(texts) => {
                unreadable.clear();
                let (new, problems) = origin.flags.settings_of(&texts);
                if problems != told {
                    tell(&problems);
                    told = problems;
                }
                settings.send_if_modified(|old| {
                    let differs = **old != new;
                    if differs {
                        tracing::info!("the settings of the mesh have changed");
                        *old = Arc::new(new);
                    }
                    differs
                });
            }
            Err(error) => {
                let error = error.to_string();
                if error != unreadable {
                    tracing::warn!("{error}; the settings of before stay in force");
                    unreadable = error;
                }
            }
        }
    }
}

/// `:15010` (all addresses), `127.0.0.1:0`, `[::1]:15010`, or a port alone.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix(':').unwrap_or(text);
    match port.parse() {
        Ok(port) => Ok(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)),
        Err(_) => text.parse().map_err(|_| "write :PORT or ADDRESS:PORT".to_owned()),
    }
}

/// Go's notation: `100ms`, `1m30s`.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed: GoDuration = text.parse().map_err(|_| "write a duration such as 100ms or 10s".to_owned())?;
    Ok(parsed.to_std())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_durations_are_read_as_istiod_reads_them() {
        for (text, want) in [
            (":15010", Some("[::]:15010")),
            ("0", Some("[::]:0")),
            ("127.0.0.1:8080", Some("127.0.0.1:8080")),
            ("[::1]:1", Some("[::1]:1")),
            ("localhost:1", None),
            (":x", None),
        ] {
            assert_eq!(address(text).ok(), want.map(|want| want.parse().unwrap()), "{text}");
        }
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("100ms"), Ok(Duration::from_millis(100)));
        assert!(duration("100").is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_settings_follow_their_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mesh.yaml");
        let flags = MeshFlags { mesh_config: Some(file.clone()), ..MeshFlags::default() };
        let (sender, mut settings) = watch::channel(Arc::default());
        let following = tokio::spawn(follow(Origin::new(flags, None), Vec::new(), sender));
        for root in ["one", "two"] {
            std::fs::write(&file, format!("rootNamespace: {root}\n")).unwrap();
            settings.wait_for(|settings| settings.root_namespace == root).await.unwrap();
        }
        std::fs::remove_file(&file).unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(settings.borrow().root_namespace, "two", "the last that could be read stays in force");
        following.abort();
    }

    #[test]
    fn a_flag_says_more_than_meshconfig() {
        let texts =
            MeshTexts { mesh: Some(("mesh".into(), "{trustDomain: a, rootNamespace: b}".into())), networks: None };
        let settings = |flags: MeshFlags| flags.settings_of(&texts).0;
        let (given, said) = (Some("given".to_owned()), settings(MeshFlags::default()));
        assert_eq!((said.trust_domain(), &*said.root_namespace), ("a", "b"));
        let said = settings(MeshFlags { trust_domain: given.clone(), root_namespace: given, ..MeshFlags::default() });
        assert_eq!((said.trust_domain(), &*said.root_namespace), ("given", "given"));
    }

    #[test]
    fn env_sets_the_debounce() {
        let args = ["meshd", "--config-dir", "x", "--debounce-after=1s", "--env", "PILOT_DEBOUNCE_MAX=3s"];
        let meshd = Meshd::try_parse_from(args).unwrap();
        assert_eq!(meshd.debounce(), Debounce { after: Duration::from_secs(1), max: Duration::from_secs(3) });
    }
}
