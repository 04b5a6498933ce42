//! How long meshd takes to know a large cluster, and how much memory it needs for it. The bar: 10,000 Services with 50,000
//! endpoints and 10,000 Pods within 20 s on two cores, below 400 MiB. Runs meshd as a process against a simulated
//! apiserver; prints one line.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench that cannot make its input has nothing to measure"
)]
#![allow(clippy::disallowed_methods, reason = "it asks the clock, and runs a server")]

use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

#[path = "shared/apiserver.rs"]
mod apiserver;
#[path = "shared/manifests.rs"]
mod manifests;

const SIZE: manifests::Size = manifests::Size { services: 10_000, pods: 10_000, endpoints: 5, nodes: 500 };
const PATIENCE: Duration = Duration::from_secs(300);
/// After the sync: what was needed only for it is given back by then.
const REST: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() {
    let objects = manifests::cluster(SIZE);
    let bytes: usize = objects.values().flatten().map(String::len).sum();
    let pod = objects["pods"].iter().map(String::len).sum::<usize>() / SIZE.pods;
    let address = apiserver::serve(objects).await;

    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "bench",
                        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
                        "clusters": [{"name": "bench", "cluster": {"server": format!("http://{address}")}}],
                        "users": [{"name": "bench", "user": {}}]});
    std::fs::write(&kubeconfig, config.to_string()).unwrap();

    let start = Instant::now();
    let mut meshd = Command::new(env!("CARGO_BIN_EXE_meshd"))
        .args(["--print-addrs", "--grpc-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0", "--monitoring-addr=127.0.0.1:0"])
        .arg("--kubeconfig")
        .arg(&kubeconfig)
        .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or("warn".into()))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let pid = meshd.id().unwrap();
    let mut lines = BufReader::new(meshd.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
    let ready = start.elapsed();
    let (rss, cpu) = (memory_mib(pid, "VmRSS:"), cpu_seconds(pid));
    let addresses: Value = serde_json::from_str(&line).unwrap();
    tokio::time::sleep(REST).await;
    let (later, peak) = (memory_mib(pid, "VmRSS:"), memory_mib(pid, "VmHWM:"));
    let known = services(addresses["monitoring"].as_str().unwrap()).await;
    assert_eq!(known, SIZE.services, "services that meshd knows of");
    println!(
        "sync of {} Services, {} endpoints, {} Pods of {pod} bytes ({:.0} MB in all): ready after {:.2} s ({cpu:.2} CPU-s), \
         RSS {rss:.0} MiB, {later:.0} MiB after {} s, peak {peak:.0} MiB",
        SIZE.services,
        SIZE.services * SIZE.endpoints,
        SIZE.pods,
        bytes as f64 / 1e6,
        ready.as_secs_f64(),
        REST.as_secs(),
    );
}

/// How many services the metrics tell of.
async fn services(address: &str) -> usize {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: meshd\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix("pilot_services ")).unwrap();
    value.parse().unwrap()
}

/// What the kernel says of a process's memory.
fn memory_mib(pid: u32, key: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// The processor time of a process, user and system.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name may hold spaces: fields are counted behind its closing bracket.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    [11, 12].iter().map(|i| fields[*i].parse::<f64>().unwrap()).sum::<f64>() / 100.0
}
