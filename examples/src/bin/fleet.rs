//! Measures a control plane under a fleet of proxies: time until all are warm, latency from an edit to its receipt, bytes,
//! and the server's CPU and memory. `cargo fleet --services 1000 --proxies 500`.

#![allow(clippy::print_stdout, reason = "the figures are what this program is for")]

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use mesh_examples::fleet::process::{cpu_seconds, memory_mib};
use mesh_examples::fleet::stream::{Event, Fleet, Protocol};
use mesh_examples::fleet::world::World;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

#[derive(Parser)]
#[command(about = "Measure a control plane under a fleet of proxies")]
struct Args {
    /// Services in the input
    #[arg(long, default_value_t = 1000)]
    services: usize,
    /// Proxies, each with a connection and a stream of its own
    #[arg(long, default_value_t = 500)]
    proxies: usize,
    /// Protocol
    #[arg(long, value_enum, default_value = "sotw")]
    protocol: Protocol,
    /// A root Sidecar: each proxy sees only its own namespace
    #[arg(long)]
    scoped: bool,
    /// Pushes of each kind that are timed, after one that is not
    #[arg(short, default_value_t = 3)]
    k: usize,
    /// PILOT_DEBOUNCE_AFTER of the server
    #[arg(long, default_value = "1ms")]
    debounce: String,
    /// The server; default: meshd beside this program
    #[arg(long)]
    meshd: Option<PathBuf>,
    /// Fail when the server's CPU for a push exceeds this
    #[arg(long)]
    max_push_cpu: Option<f64>,
}

/// The server needs no more than this long to do nothing: after it a push is over.
const SILENCE: Duration = Duration::from_millis(400);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let folder = tempfile::tempdir()?;
    let world = World::write(folder.path(), args.services, args.scoped)?;
    let start = Instant::now();
    let (server, address) = serve(&args, folder.path()).await?;
    let pid = server.id().context("meshd has ended")?;
    let boot = start.elapsed();
    println!(
        "S={} N={} {:?}{}: boot {:.3} s, {:.2} CPU-s, {:.0} MiB",
        args.services,
        args.proxies,
        args.protocol,
        if args.scoped { ", scoped" } else { "" },
        boot.as_secs_f64(),
        cpu_seconds(pid)?,
        memory_mib(pid)?.0
    );

    let (marker, watch) = watch::channel::<Arc<[u8]>>(Arc::from(&b""[..]));
    let (events, mut received) = mpsc::unbounded_channel();
    let fleet = Fleet { server: format!("http://{address}"), protocol: args.protocol, marker: watch, events };
    let before = cpu_seconds(pid)?;
    let start = Instant::now();
    for n in 0..args.proxies {
        tokio::spawn(fleet.clone().proxy(n, format!("ns-{}", n % world.namespaces())));
    }
    let (mut warm, mut bytes) = (0, 0);
    while warm < args.proxies {
        match timeout(Duration::from_secs(180), received.recv()).await.context("not all proxies are warm")? {
            Some(Event::Warm) => warm += 1,
            Some(Event::Received { bytes: n, .. }) => bytes += n,
            Some(Event::Ended(why)) => bail!("a stream has ended: {why}"),
            None => bail!("all streams have ended"),
        }
    }
    let all_warm = start.elapsed();
    quiet(&mut received).await?;
    let cpu = cpu_seconds(pid)? - before;
    let (rss, peak) = memory_mib(pid)?;
    println!(
        "warm: {:.3} s, {:.2} CPU-s, {:.2} ms/proxy, {:.0} KB/proxy, RSS {rss:.0} MiB, peak {peak:.0} MiB",
        all_warm.as_secs_f64(),
        cpu,
        cpu * 1000.0 / args.proxies as f64,
        bytes as f64 / 1000.0 / args.proxies as f64,
    );

    let affected = if args.scoped { args.proxies.div_ceil(world.namespaces()) } else { args.proxies };
    let mut worst: f64 = 0.0;
    for kind in ["EDS", "VS"] {
        let (mut latencies, mut cpus, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=args.k {
            let text = if kind == "EDS" {
                format!("10.250.{}.{}", 1 + round, 10 + round)
            } else {
                format!("marker-{round}-x")
            };
            marker.send_replace(Arc::from(text.as_bytes()));
            let before = cpu_seconds(pid)?;
            let start = Instant::now();
            if kind == "EDS" {
                world.edit_endpoint(&text)?
            } else {
                world.edit_route(&text)?
            }
            let push =
                one_push(&mut received, affected, start).await.with_context(|| format!("{kind} push {round}"))?;
            let cpu = cpu_seconds(pid)? - before;
            if round > 0 {
                latencies.extend(push.latencies);
                cpus.push(cpu);
                sizes.push(push.bytes as f64 / 1e6);
            }
        }
        latencies.sort();
        let at = |q: f64| {
            latencies.get(((latencies.len() - 1) as f64 * q) as usize).copied().unwrap_or_default().as_secs_f64()
                * 1000.0
        };
        let cpu = median(&mut cpus);
        worst = worst.max(cpu);
        println!(
            "{kind} push: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms, {cpu:.3} CPU-s, {:.2} MB",
            at(0.5),
            at(0.99),
            at(1.0),
            median(&mut sizes)
        );
    }
    let idle = cpu_seconds(pid)?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (rss, peak) = memory_mib(pid)?;
    println!("idle: {:.0} mcore, RSS {rss:.0} MiB, peak {peak:.0} MiB", (cpu_seconds(pid)? - idle) * 500.0);
    drop(server);
    if args.max_push_cpu.is_some_and(|max| worst > max) {
        bail!("a push took {worst:.3} CPU-s");
    }
    Ok(())
}

async fn serve(args: &Args, folder: &std::path::Path) -> anyhow::Result<(Child, String)> {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("meshd"));
    let meshd = args.meshd.clone().or_else(beside).context("where is meshd?")?;
    let mut child = Command::new(&meshd)
        .arg("--config-dir")
        .arg(folder)
        .args(["--grpc-addr", "127.0.0.1:0"])
        .args(["--http-addr", "127.0.0.1:0"])
        .args(["--monitoring-addr", "127.0.0.1:0"])
        .env("PILOT_DEBOUNCE_AFTER", &args.debounce)
        .arg("--print-addrs")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| {
            format!("can't start {}; build it: cargo build --release -p mesh-controller", meshd.display())
        })?;
    let stdout = child.stdout.take().context("no output")?;
    let line = timeout(Duration::from_secs(60), BufReader::new(stdout).lines().next_line()).await??;
    let addresses: serde_json::Value = serde_json::from_str(&line.context("meshd ended before it was ready")?)?;
    let grpc = addresses.get("grpc").and_then(|a| a.as_str());
    Ok((child, grpc.with_context(|| format!("no xDS address in {addresses}"))?.to_owned()))
}

struct Push {
    latencies: Vec<Duration>,
    bytes: usize,
}

/// Collects a push until every affected proxy has the marker and nothing more comes.
async fn one_push(
    received: &mut mpsc::UnboundedReceiver<Event>,
    affected: usize,
    start: Instant,
) -> anyhow::Result<Push> {
    let mut push = Push { latencies: Vec::new(), bytes: 0 };
    loop {
        let patience = if push.latencies.len() < affected { Duration::from_secs(60) } else { SILENCE };
        match timeout(patience, received.recv()).await {
            Ok(Some(Event::Received { bytes, found })) => {
                push.bytes += bytes;
                push.latencies.extend(found.map(|at| at.duration_since(start)));
            }
            Ok(Some(Event::Warm)) => {}
            Ok(Some(Event::Ended(why))) => bail!("a stream has ended: {why}"),
            Ok(None) => bail!("all streams have ended"),
            Err(_) if push.latencies.len() >= affected => return Ok(push),
            Err(_) => bail!("only {} of {affected} proxies got the change", push.latencies.len()),
        }
    }
}

async fn quiet(received: &mut mpsc::UnboundedReceiver<Event>) -> anyhow::Result<()> {
    while let Ok(event) = timeout(SILENCE, received.recv()).await {
        if let Some(Event::Ended(why)) = event {
            bail!("a stream has ended: {why}");
        }
    }
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
