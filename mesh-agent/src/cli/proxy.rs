//! `mesh-agent proxy`: from the environment to a running sidecar. First everything is read and decided, then everything
//! starts together and stays until Envoy ends.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use envoy_types::pb::envoy::config::core::v3 as core;
use mesh_xds::TypeUrl;
use mesh_xds::bootstrap::{Node, ProxyConfig, Role, Settings, bootstrap};
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::{own_addresses, print, resolv_conf, runtime};
use crate::Environment;
use crate::admin::Admin;
use crate::dns::names::{MAX_TABLE, Names};
use crate::dns::{self, Forwarder, Table, Tables};
use crate::endpoint::Endpoint;
use crate::identity::{Identity, Options, Source};
use crate::metrics::Metrics;
use crate::node::{self, PodInfo, of_pod};
use crate::relay::Relay;
use crate::sds;
use crate::status::{Probes, Readiness, Scrape, Status};
use crate::subscription::Subscription;
use crate::supervise::{Drain, Envoy, Order, exit_code};
use crate::trust::{Bundle, MAX_BUNDLE, Trust};
use crate::unix::{Socket, is_served};

#[derive(Debug, Args)]
pub(super) struct ProxyArgs {
    /// sidecar, router or waypoint
    #[arg(default_value = "sidecar", value_name = "TYPE")]
    role: Role,
    /// Where short host names are looked up (default: NAMESPACE.svc.cluster.local)
    #[arg(long, default_value = "")]
    domain: String,
    /// Envoy's program (default: ENVOY_PATH, else ProxyConfig's binaryPath)
    #[arg(long, value_name = "FILE")]
    proxy_binary: Option<PathBuf>,
    /// Envoy's log level, with scopes: warning,upstream:debug
    #[arg(long = "proxyLogLevel", default_value = "warning", value_name = "LEVELS")]
    log_level: String,
    /// Envoy's log levels by component
    #[arg(long = "proxyComponentLogLevel", default_value = "", value_name = "LEVELS")]
    component_log_level: String,
    /// Envoy's worker threads, 0 for as many as there are CPUs
    #[arg(long)]
    concurrency: Option<u32>,
    /// Envoy's node.cluster
    #[arg(long = "serviceCluster", value_name = "NAME")]
    service_cluster: Option<String>,
    /// Mark Envoy's own connections; goes with init's --proxy-mark
    #[arg(long, value_name = "MARK")]
    proxy_mark: Option<u32>,
    /// Print the bootstrap and start nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn proxy(args: ProxyArgs, env: &Environment) -> anyhow::Result<ExitCode> {
    let mut config = env.get("PROXY_CONFIG").map(ProxyConfig::from_json).transpose()?.unwrap_or_default();
    if let Some(concurrency) = args.concurrency.or_else(|| env.get("ISTIO_CPU_LIMIT")?.parse().ok()) {
        config.concurrency = Some(concurrency);
    }
    if let Some(cluster) = args.service_cluster.as_ref().filter(|cluster| !cluster.is_empty()) {
        config.service_cluster.clone_from(cluster);
    }
    let identity = identity(env, &config)?;
    let node = node(&args, env, &config, identity.is_some());
    let settings = settings(&args, env, &config, identity.as_ref());
    let text = format!("{:#}\n", bootstrap(&node, &settings)?);
    if args.dry_run {
        print(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let file = Path::new(&config.config_path).join("envoy-rev.json");
    std::fs::create_dir_all(&config.config_path)
        .with_context(|| format!("making the folder {}", config.config_path))?;
    std::fs::write(&file, text).with_context(|| format!("writing the bootstrap {}", file.display()))?;

    let v6_only = node.ips.iter().all(IpAddr::is_ipv6);
    let (localhost, wildcard): (IpAddr, IpAddr) = match v6_only {
        true => (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::UNSPECIFIED.into()),
        false => (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::UNSPECIFIED.into()),
    };
    let admin = Admin::new(SocketAddr::new(localhost, config.proxy_admin_port));
    let upstream = identity.as_ref().map_or_else(|| Endpoint::plain(&config.discovery_address), |it| it.xds.clone());
    let dns = Dns::new(&args, env, &node, &config, upstream)?;
    let readiness = Readiness::new(admin).with_names(dns.as_ref().map(|dns| dns.tables.clone()));
    let readiness = Arc::new(readiness);
    let skip_deprecated = env.flag("ENVOY_SKIP_DEPRECATED_LOGS", true);
    let levels = (args.log_level.as_str(), args.component_log_level.as_str());
    let arguments = envoy_arguments(&file, &config, v6_only, levels, skip_deprecated);
    let binary = args.proxy_binary.or_else(|| env.get("ENVOY_PATH").map(PathBuf::from));
    let binary = binary.unwrap_or_else(|| PathBuf::from(&config.binary_path));
    let envoy = Envoy::new(binary, arguments, args.role, admin, drain(env, &settings)?, readiness.clone());
    let status_port = SocketAddr::new(wildcard, config.status_port);
    let probers = env.get("ISTIO_KUBE_APP_PROBERS");
    let pod = node.ips.first().copied().unwrap_or(localhost);
    let probes = Probes::new(probers, pod, env.flag("REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION", false))?;
    // A gateway's port is open to its clients, so only sidecars tell the application's metrics.
    let annotations = env.get("ISTIO_PROMETHEUS_ANNOTATIONS").filter(|_| args.role == Role::Sidecar);
    let scrape = Scrape::new(settings.prometheus_port, annotations, config.status_port)?;
    let metrics = Metrics::default();
    // Istio's agent does so only when told to; a root can be replaced in a mesh whose agents do.
    let told = env.flag("PROXY_CONFIG_XDS_AGENT", true).then(|| node::message(&node, &config));

    let ended = runtime()?.block_on(async {
        let (orders, ordered) = mpsc::channel(8);
        signals(&orders).context("listening for signals")?;
        let status = Status::new(readiness, probes, scrape, metrics.clone(), orders);
        let status = status.serve(status_port).await.with_context(|| format!("opening the port {status_port}"))?;
        // Whoever is in the set ends with it.
        let mut beside = JoinSet::new();
        if let (Some(identity), Some(socket)) = (identity, &settings.xds_socket) {
            start(&mut beside, identity, told, socket, &metrics)?;
        }
        if let Some(dns) = dns {
            dns.start(&mut beside, &metrics).await?;
        }
        tokio::select! {
            ended = envoy.run(ordered) => Ok::<_, anyhow::Error>(ended?),
            () = status => anyhow::bail!("the port for probes closed"),
            Some(ended) = beside.join_next() => anyhow::bail!("a part of the agent ended: {ended:?}"),
        }
    })?;
    Ok(ExitCode::from(exit_code(ended)))
}

/// What the pod's identity is to be, if it is to have one.
fn identity(env: &Environment, config: &ProxyConfig) -> anyhow::Result<Option<Options>> {
    let Some(mut options) = Options::new(env, config, &Path::is_file)? else {
        info!("no CA_ADDR and no mounted certificates: Envoy speaks to the control plane itself, in plaintext");
        return Ok(None);
    };
    if is_served(&options.socket) {
        info!(socket = ?options.socket, "secrets are served by another process");
        options.source = Source::Elsewhere;
    }
    Ok(Some(options))
}

/// Starts what serves Envoy: identity, secrets, configuration; and follows, as this node, what is told of trust.
fn start(
    beside: &mut JoinSet<()>,
    identity: Options,
    told: Option<core::Node>,
    xds_socket: &str,
    metrics: &Metrics,
) -> anyhow::Result<()> {
    let bind = |path: &Path| Socket::bind(path).with_context(|| format!("opening the socket {}", path.display()));
    let xds = bind(Path::new(xds_socket))?;
    let relay = Relay::new(identity.xds.clone(), metrics.clone());
    beside.spawn(relay.serve(xds));
    if identity.source != Source::Elsewhere {
        let socket = bind(&identity.socket)?;
        let told = told.filter(|_| matches!(identity.source, Source::Authority(_)));
        let (publish, bundle) = watch::channel(Bundle::new());
        let (own, workloads) = Identity::new(identity.source, bundle, metrics.clone());
        let server = sds::Server::new(workloads.clone());
        if let Some(node) = told {
            let kind = TypeUrl::ProxyConfig;
            let subscription = Subscription { upstream: identity.xds, node, kind, longest: MAX_BUNDLE };
            let trust = Trust { subscription, publish, workloads, acceptance: server.acceptance() };
            beside.spawn(async { match trust.run().await {} });
        }
        beside.spawn(async { match own.run().await {} });
        beside.spawn(server.serve(socket));
    }
    Ok(())
}

/// The DNS server to be.
struct Dns {
    addresses: Vec<SocketAddr>,
    forward: Forwarder,
    names: Names,
    publish: watch::Sender<Option<Arc<Table>>>,
    tables: Tables,
}

impl Dns {
    /// `None` where nobody asks for it.
    fn new(
        args: &ProxyArgs,
        env: &Environment,
        node: &Node,
        config: &ProxyConfig,
        upstream: Endpoint,
    ) -> anyhow::Result<Option<Self>> {
        let captures = args.role == Role::Sidecar && env.flag("ISTIO_META_DNS_CAPTURE", false);
        if !captures && !env.flag("ISTIO_META_ENABLE_DNS_SERVER", false) {
            return Ok(None);
        }
        let resolv = resolv_conf()?;
        let address = env.get("DNS_PROXY_ADDR").unwrap_or("localhost:15053");
        let addresses = dns::addresses(address, &resolv);
        let addresses = addresses.with_context(|| format!("DNS_PROXY_ADDR {address:?} is no address with a port"))?;
        let mut forward = Forwarder::new(resolv.servers.iter().map(|ip| SocketAddr::new(*ip, 53)).collect());
        forward.parallel = env.flag("DNS_FORWARD_PARALLEL", false);
        if let Some(patience) = env.get("DNS_FORWARD_TIMEOUT") {
            forward.patience = patience.parse::<mesh_api::types::Duration>().context("DNS_FORWARD_TIMEOUT")?.to_std();
        }
        let names = Names {
            subscription: Subscription {
                upstream,
                node: node::message(node, config),
                kind: TypeUrl::NameTable,
                longest: MAX_TABLE,
            },
            namespace: env.get("POD_NAMESPACE").unwrap_or_default().to_owned(),
            dns_domain: node.dns_domain.clone(),
            search: resolv.search.into_iter().next(),
        };
        let (publish, tables) = watch::channel(None);
        Ok(Some(Self { addresses, forward, names, publish, tables }))
    }

    async fn start(self, beside: &mut JoinSet<()>, metrics: &Metrics) -> anyhow::Result<()> {
        let server = dns::Server::bind(&self.addresses, self.tables, self.forward, metrics.clone()).await;
        let server = server.with_context(|| format!("opening {:?} for DNS", self.addresses))?;
        beside.spawn(server.run());
        beside.spawn(async { match self.names.run(self.publish).await {} });
        Ok(())
    }
}

fn node(args: &ProxyArgs, env: &Environment, config: &ProxyConfig, has_identity: bool) -> Node {
    let mut ips: Vec<IpAddr> = env.get("INSTANCE_IP").and_then(|ip| ip.parse().ok()).into_iter().collect();
    for ip in own_addresses() {
        if !ips.contains(&ip) {
            ips.push(ip);
        }
    }
    if ips.is_empty() {
        ips.push(Ipv4Addr::LOCALHOST.into());
    }
    let read = |name: &str| std::fs::read_to_string(Path::new("./etc/istio/pod").join(name)).ok();
    let info = PodInfo { labels: read("labels"), annotations: read("annotations") };
    let (mut node, problems) = of_pod(args.role, ips, &args.domain, env, &info, config);
    problems.iter().for_each(|problem| warn!("{problem}"));
    if !has_identity {
        // Nobody serves certificates of the mesh: without this, Envoy would wait for them for ever.
        node.metadata.entry("MESH_MTLS").or_insert_with(|| "false".into());
    }
    node
}

fn settings(args: &ProxyArgs, env: &Environment, config: &ProxyConfig, identity: Option<&Options>) -> Settings {
    let mut settings = Settings::new(config.clone());
    let port = |name: &str, default| env.get(name).and_then(|text| text.parse().ok()).unwrap_or(default);
    settings.status_port = port("ENVOY_STATUS_PORT", settings.status_port);
    settings.prometheus_port = port("ENVOY_PROMETHEUS_PORT", settings.prometheus_port);
    settings.watch_connections = env.flag("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", false);
    settings.upstream_mark = args.proxy_mark;
    if let Some(identity) = identity {
        settings.xds_socket = Some(config.xds_socket());
        settings.sds_socket = identity.socket.to_string_lossy().into_owned();
    }
    settings
}

fn drain(env: &Environment, settings: &Settings) -> anyhow::Result<Drain> {
    let minimum = env.get("MINIMUM_DRAIN_DURATION").unwrap_or("5s");
    let minimum = minimum.parse::<mesh_api::types::Duration>().context("MINIMUM_DRAIN_DURATION")?.to_std();
    Ok(Drain {
        termination: settings.config.termination_drain_duration,
        on_zero: settings.watch_connections.then_some(minimum),
        own_ports: vec![settings.status_port, settings.prometheus_port],
    })
}

fn envoy_arguments(
    file: &Path,
    config: &ProxyConfig,
    v6_only: bool,
    (levels, component_levels): (&str, &str),
    skip_deprecated: bool,
) -> Vec<OsString> {
    // Istio allows both in one flag: "warning,upstream:debug".
    let (scoped, plain): (Vec<&str>, Vec<&str>) =
        levels.split(',').filter(|l| !l.is_empty()).partition(|l| l.contains(':'));
    let components = if scoped.is_empty() { component_levels.to_owned() } else { scoped.join(",") };
    let seconds = config.drain_duration.max(Duration::from_secs(1)).as_secs();
    let mut arguments: Vec<OsString> = vec!["-c".into(), file.into()];
    let mut add = |name: &str, value: String| arguments.extend([name.into(), value.into()]);
    add("--drain-time-s", seconds.to_string());
    add("--drain-strategy", "immediate".into());
    add("--local-address-ip-version", if v6_only { "v6" } else { "v4" }.into());
    add("--file-flush-interval-msec", "1000".into());
    if let Some(level) = plain.last() {
        add("--log-level", (*level).into());
    }
    if !components.is_empty() {
        add("--component-log-level", components);
    }
    if let Some(threads) = config.concurrency.filter(|threads| *threads > 0) {
        add("--concurrency", threads.to_string());
    }
    arguments.push("--disable-hot-restart".into());
    if skip_deprecated {
        arguments.push("--skip-deprecated-logs".into());
    }
    arguments
}

/// The signals that matter to Envoy become orders. The runtime ends with the process, and the readers with it.
fn signals(orders: &mpsc::Sender<Order>) -> std::io::Result<()> {
    let kinds = [
        (SignalKind::terminate(), Signal::TERM),
        (SignalKind::interrupt(), Signal::INT),
        (SignalKind::hangup(), Signal::HUP),
        (SignalKind::user_defined1(), Signal::USR1),
    ];
    for (kind, name) in kinds {
        let (mut stream, orders) = (signal(kind)?, orders.clone());
        let order = Order::Signal(name);
        tokio::spawn(async move { while stream.recv().await.is_some() && orders.send(order).await.is_ok() {} });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_levels_in_one_flag_are_told_apart() {
        let of = |levels: &str, components: &str| {
            let arguments = envoy_arguments(Path::new("f"), &ProxyConfig::default(), false, (levels, components), true);
            arguments.join(std::ffi::OsStr::new(" ")).into_string().unwrap()
        };
        let all = of("warning,upstream:debug,misc:error", "ignored:info");
        assert!(all.contains("--log-level warning --component-log-level upstream:debug,misc:error"), "{all}");
        assert!(of("info", "misc:error").contains("--log-level info --component-log-level misc:error"));
        assert!(all.contains("--drain-time-s 45") && all.contains("--skip-deprecated-logs"));
    }
}
