//! The command line: the one place that reads files, interfaces and signals, and hands them on as values.

mod proxy;

use std::ffi::OsString;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use hyper::Method;
use tracing::level_filters::LevelFilter;
use tracing::warn;

use crate::Environment;
use crate::admin::Admin;
use crate::dns::Resolv;
use crate::environment::parse_bool;
use crate::init::apply::Tools;
use crate::init::validate::{EXIT_CODE, Validation};
use crate::init::{self, rules};
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
    Proxy(Box<proxy::ProxyArgs>),
    /// Set the rules that bring the pod's traffic to Envoy
    Init(Box<init::Options>),
    /// Ask Envoy's admin port, and print the answer
    Request(RequestArgs),
    /// Wait until the proxy is ready
    Wait(wait::Options),
}

#[derive(Debug, clap::Args)]
struct RequestArgs {
    /// GET or POST
    method: Method,
    /// Such as stats, clusters or drain_listeners?graceful
    path: String,
    /// Envoy's admin port
    #[arg(long = "debug-port", default_value_t = 15000, value_name = "PORT")]
    port: u16,
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
        Command::Proxy(args) => proxy::proxy(*args, &env),
        Command::Init(options) => initialise(&options, &env),
        Command::Request(args) => request(&args).map(|()| ExitCode::SUCCESS),
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
        Some("none" | "off") => LevelFilter::OFF,
        Some("fatal" | "error") => LevelFilter::ERROR,
        Some("warning" | "warn") => LevelFilter::WARN,
        Some("debug") => LevelFilter::DEBUG,
        Some("trace") => LevelFilter::TRACE,
        _ => LevelFilter::INFO,
    };
    let to = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(level).with_ansi(false);
    // Whoever calls us as a library may have a subscriber already; then that one is right.
    let _ = if json { to.json().try_init() } else { to.try_init() };
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout().write_all(text.as_bytes()).context("writing to standard output")
}

fn request(args: &RequestArgs) -> anyhow::Result<()> {
    let admin = Admin::new((Ipv4Addr::LOCALHOST, args.port).into());
    let path = format!("/{}", args.path.trim_start_matches('/'));
    print(&runtime()?.block_on(admin.call(args.method.clone(), &path))?)
}

fn initialise(options: &init::Options, env: &Environment) -> anyhow::Result<ExitCode> {
    let (config, warnings) = init::Config::new(options, env, pod(options, env)?)?;
    warnings.iter().for_each(|warning| warn!("{warning}"));
    let rules = rules::rules(&config);
    if options.dry_run {
        print(&config.render(&rules))?;
        return Ok(ExitCode::SUCCESS);
    }
    if !options.skip_rule_apply && !env.flag("SKIP_RULE_APPLY", false) {
        let cleanup = options.cleanup_only || env.flag("CLEANUP_ONLY", false);
        let reconcile = options.reconcile || env.flag("RECONCILE", false);
        Tools::new(options).apply(&config, &rules, reconcile, cleanup)?;
    }
    if options.run_validation || env.flag("RUN_VALIDATION", false) {
        let v6 = own_addresses().first().is_some_and(IpAddr::is_ipv6);
        let validation = Validation::new(options, env, &config, v6)?;
        if let Err(error) = runtime()?.block_on(validation.run()) {
            tracing::error!("{error}");
            return Ok(ExitCode::from(EXIT_CODE));
        }
    }
    Ok(ExitCode::SUCCESS)
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
        for server in resolv_conf()?.servers {
            let family = if server.is_ipv4() { &mut pod.dns_v4 } else { &mut pod.dns_v6 };
            family.push(server.to_string());
        }
    }
    Ok(pod)
}

fn resolv_conf() -> anyhow::Result<Resolv> {
    let text = std::fs::read_to_string("/etc/resolv.conf").context("reading /etc/resolv.conf for its DNS servers")?;
    let (resolv, wrong) = Resolv::parse(&text);
    wrong.iter().for_each(|server| warn!("nameserver {server} in /etc/resolv.conf is no IP address"));
    Ok(resolv)
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

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")
}

#[cfg(test)]
mod tests {
    use super::*;

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
