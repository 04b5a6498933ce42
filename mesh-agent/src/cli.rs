//! The command line: the one place that reads files, interfaces and signals, and hands them on as values.

use std::ffi::OsString;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use mesh_xds::bootstrap::{ProxyConfig, Role, Settings, bootstrap};
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::warn;

use crate::Environment;
use crate::admin::Admin;
use crate::environment::parse_bool;
use crate::init::{self, apply::Tools, rules};
use crate::node::{PodInfo, of_pod};
use crate::status::{self, Readiness};
use crate::supervise::{Drain, Envoy, exit_code};
use crate::wait;

/// What runs beside Envoy in a pod.
#[derive(Debug, Parser)]
#[command(name = "mesh-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Log levels, as scope:level or level alone (Istio's spelling)
    #[arg(long = "log_output_level", global = true, default_value = "info", value_name = "LEVELS")]
    log: String,
    /// Log as JSON lines
    #[arg(long = "log_as_json", global = true)]
    log_as_json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write the bootstrap, start Envoy, and stay until it ends
    Proxy(Box<ProxyArgs>),
    /// Set the rules that bring the pod's traffic to Envoy
    Init(Box<init::Options>),
    /// Wait until the proxy is ready
    Wait(wait::Options),
}

#[derive(Debug, Args)]
struct ProxyArgs {
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

/// Runs the agent with these arguments, the first being the program's name, and this environment.
pub fn main(arguments: impl IntoIterator<Item = OsString>, env: Environment) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Nothing can be done where even the usage cannot be printed.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    log_to_stderr(&cli.log, cli.log_as_json);
    let done = match cli.command {
        Command::Proxy(args) => proxy(*args, &env),
        Command::Init(options) => initialise(&options, &env).map(|()| ExitCode::SUCCESS),
        Command::Wait(options) => {
            runtime().and_then(|runtime| runtime.block_on(wait::wait(&options))).map(|()| ExitCode::SUCCESS)
        }
    };
    done.unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        ExitCode::FAILURE
    })
}

/// Istio's `default:info,ads:debug` becomes our scopes; what is no level at all counts as info.
fn log_to_stderr(levels: &str, json: bool) {
    let level = levels.split(',').find_map(|part| match part.split_once(':') {
        Some(("default" | "all", level)) => Some(level),
        Some(_) => None,
        None => Some(part),
    });
    let level = match level {
        Some("none") => "off",
        Some("fatal") => "error",
        Some("warning") => "warn",
        Some(level @ ("off" | "error" | "warn" | "info" | "debug" | "trace")) => level,
        _ => "info",
    };
    let to = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(level).with_ansi(false);
    // Whoever calls us as a library may have a subscriber already; then that one is right.
    let _ = if json { to.json().try_init() } else { to.try_init() };
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("writing to standard output")
}

fn initialise(options: &init::Options, env: &Environment) -> anyhow::Result<()> {
    let (config, warnings) = init::Config::new(options, env, pod(options, env)?)?;
    warnings.iter().for_each(|warning| warn!("{warning}"));
    let rules = rules::rules(&config);
    if options.dry_run {
        return print(&(rules::render(&rules.v4) + &rules::render(&rules.v6)));
    }
    if options.skip_rule_apply {
        return Ok(());
    }
    let cleanup = options.cleanup_only || env.flag("CLEANUP_ONLY", false);
    let reconcile = options.reconcile || env.flag("RECONCILE", false);
    Ok(Tools::new(options).apply(&config, &rules, reconcile, cleanup)?)
}

/// What the pod says of itself. Where the environment says any of it, it says all.
fn pod(options: &init::Options, env: &Environment) -> anyhow::Result<init::Pod> {
    let words = |text: &str| text.split([',', ' ']).filter(|w| !w.is_empty()).map(str::to_owned).collect();
    let told = ["ENABLE_INBOUND_IPV6", "DNS_SERVERS_V4", "DNS_SERVERS_V6"].map(|name| env.get_even_empty(name));
    if let [ipv6, dns_v4, dns_v6] = told
        && told.iter().any(Option::is_some)
    {
        let ipv6 = ipv6.and_then(parse_bool).unwrap_or(false);
        return Ok(init::Pod { ipv6, dns_v4: words(dns_v4.unwrap_or("")), dns_v6: words(dns_v6.unwrap_or("")) });
    }
    let dual = options.dual_stack || env.flag("DUAL_STACK", false) || env.flag("ISTIO_DUAL_STACK", false);
    let addresses = own_addresses();
    let ipv6 =
        if dual { addresses.iter().any(IpAddr::is_ipv6) } else { addresses.first().is_some_and(IpAddr::is_ipv6) };
    let mut pod = init::Pod { ipv6, ..Default::default() };
    let wants_dns =
        options.redirect_dns || env.flag("REDIRECT_DNS", false) || env.flag("ISTIO_META_DNS_CAPTURE", false);
    if wants_dns && !options.capture_all_dns && !env.flag("CAPTURE_ALL_DNS", false) {
        let text =
            std::fs::read_to_string("/etc/resolv.conf").context("reading /etc/resolv.conf for its DNS servers")?;
        for server in text.lines().filter_map(|line| line.strip_prefix("nameserver")) {
            match server.trim().parse() {
                Ok(IpAddr::V4(server)) => pod.dns_v4.push(server.to_string()),
                Ok(IpAddr::V6(server)) => pod.dns_v6.push(server.to_string()),
                Err(_) => warn!("nameserver {server} in /etc/resolv.conf is no IP address"),
            }
        }
    }
    Ok(pod)
}

/// The addresses that this host would speak from, IPv4 first. Choosing a route sends nothing.
fn own_addresses() -> Vec<IpAddr> {
    let towards = |from: IpAddr, to: IpAddr| {
        let socket = UdpSocket::bind((from, 0)).ok()?;
        socket.connect((to, 9)).ok()?;
        socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
    };
    let v4 = towards(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::new(192, 0, 2, 1).into());
    let v6 = towards(Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into());
    v4.into_iter().chain(v6).collect()
}

fn proxy(args: ProxyArgs, env: &Environment) -> anyhow::Result<ExitCode> {
    let mut config = env.get("PROXY_CONFIG").map(ProxyConfig::from_json).transpose()?.unwrap_or_default();
    if let Some(concurrency) = args.concurrency.or_else(|| env.get("ISTIO_CPU_LIMIT")?.parse().ok()) {
        config.concurrency = Some(concurrency);
    }
    if let Some(cluster) = args.service_cluster.filter(|cluster| !cluster.is_empty()) {
        config.service_cluster = cluster;
    }
    if config.discovery_address.ends_with(":15012") {
        warn!(
            "discoveryAddress {} asks for mTLS, which is not supported yet; speaking plaintext",
            config.discovery_address
        );
    }
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
    let (node, problems) = of_pod(args.role, ips, &args.domain, env, &info, &config);
    problems.iter().for_each(|problem| warn!("{problem}"));

    let mut settings = Settings::new(config.clone());
    let port = |name: &str, default| env.get(name).and_then(|text| text.parse().ok()).unwrap_or(default);
    settings.status_port = port("ENVOY_STATUS_PORT", settings.status_port);
    settings.prometheus_port = port("ENVOY_PROMETHEUS_PORT", settings.prometheus_port);
    settings.watch_connections = env.flag("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", false);
    settings.upstream_mark = args.proxy_mark;
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
    let localhost: IpAddr = if v6_only { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
    let minimum = || {
        let text = env.get("MINIMUM_DRAIN_DURATION").unwrap_or("5s");
        let parsed = text.parse::<mesh_api::types::Duration>().context("MINIMUM_DRAIN_DURATION")?;
        anyhow::Ok(parsed.to_std())
    };
    let drain = Drain {
        termination: config.termination_drain_duration,
        on_zero: if settings.watch_connections { Some(minimum()?) } else { None },
        own_ports: vec![settings.status_port, settings.prometheus_port],
    };
    let admin = Admin::new(SocketAddr::new(localhost, config.proxy_admin_port));
    let readiness = Arc::new(Readiness::new(admin));
    let binary = args.proxy_binary.or_else(|| env.get("ENVOY_PATH").map(PathBuf::from));
    let binary = binary.unwrap_or_else(|| PathBuf::from(&config.binary_path));
    let skip_deprecated = env.flag("ENVOY_SKIP_DEPRECATED_LOGS", true);
    let levels = (args.log_level.as_str(), args.component_log_level.as_str());
    let arguments = envoy_arguments(&file, &config, v6_only, levels, skip_deprecated);
    let envoy = Envoy::new(binary, arguments, args.role, admin, drain, readiness.clone());
    let status_port = SocketAddr::new(
        if v6_only { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() },
        config.status_port,
    );

    let status = runtime()?.block_on(async {
        let probes = status::serve(status_port, readiness)
            .await
            .with_context(|| format!("opening the port {status_port} for probes"))?;
        let signals = signals().context("listening for signals")?;
        tokio::select! {
            status = envoy.run(signals) => Ok::<_, anyhow::Error>(status?),
            () = probes => anyhow::bail!("the port for probes closed"),
        }
    })?;
    Ok(ExitCode::from(exit_code(status)))
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")
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

/// The signals that matter to Envoy, as they come. The runtime ends with the process, and the readers with it.
fn signals() -> std::io::Result<mpsc::Receiver<Signal>> {
    let (sender, receiver) = mpsc::channel(8);
    let kinds = [
        (SignalKind::terminate(), Signal::TERM),
        (SignalKind::interrupt(), Signal::INT),
        (SignalKind::hangup(), Signal::HUP),
        (SignalKind::user_defined1(), Signal::USR1),
    ];
    for (kind, name) in kinds {
        let (mut stream, sender) = (signal(kind)?, sender.clone());
        tokio::spawn(async move { while stream.recv().await.is_some() && sender.send(name).await.is_ok() {} });
    }
    Ok(receiver)
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

    #[test]
    fn a_told_pod_is_not_looked_up() {
        let options = init::Options { redirect_dns: true, ..Default::default() };
        let env = Environment::from_iter([("ENABLE_INBOUND_IPV6", "true"), ("DNS_SERVERS_V4", "1.1.1.1,2.2.2.2")]);
        let want = init::Pod { ipv6: true, dns_v4: vec!["1.1.1.1".into(), "2.2.2.2".into()], dns_v6: vec![] };
        assert_eq!(pod(&options, &env).unwrap(), want);
        let silent = Environment::from_iter([("DNS_SERVERS_V4", "")]);
        assert_eq!(pod(&options, &silent).unwrap(), init::Pod::default());
    }

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
        assert_eq!(main(["mesh-agent".into(), "teapot".into()], Environment::default()), ExitCode::from(2));
    }
}
