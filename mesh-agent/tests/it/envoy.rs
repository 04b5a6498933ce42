//! `mesh-agent proxy` with a real Envoy and no control plane: it starts, is not ready, says why, and ends as told.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::network::{Ended, get};

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

#[test]
fn runs_an_envoy_to_its_end() {
    for on_zero in [false, true] {
        run(on_zero);
    }
}

/// `on_zero`: drain until no client is connected, rather than for a time that here would be too long for the test.
fn run(on_zero: bool) {
    let Some(envoy) = std::env::var_os("ENVOY_PATH") else {
        eprintln!("SKIPPED runs_an_envoy_to_its_end: ENVOY_PATH names no Envoy");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (admin, status) = (free_port(), free_port());
    let config = serde_json::json!({
        "configPath": folder.path(), "proxyAdminPort": admin, "statusPort": status, "terminationDrainDuration": if on_zero { "3600s" } else { "0.1s" },
        "discoveryAddress": format!("127.0.0.1:{}", free_port()), "concurrency": 1,
    });
    let mut agent = Command::new(env!("CARGO_BIN_EXE_mesh-agent"))
        .args(["proxy", "sidecar", "--proxyLogLevel", "error"])
        .current_dir(folder.path())
        .env("ENVOY_PATH", envoy)
        .env("PROXY_CONFIG", config.to_string())
        .env("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", on_zero.to_string())
        .env("MINIMUM_DRAIN_DURATION", "0.2s")
        .env("POD_NAME", "a")
        .env("POD_NAMESPACE", "b")
        .env("ENVOY_STATUS_PORT", free_port().to_string())
        .env("ENVOY_PROMETHEUS_PORT", free_port().to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map(Ended)
        .unwrap();
    let began = Instant::now();
    let answer = loop {
        assert!(began.elapsed() < Duration::from_secs(30), "Envoy does not start");
        assert!(agent.0.try_wait().unwrap().is_none(), "the agent ended");
        match get(([127, 0, 0, 1], status), "/healthz/ready") {
            Some(answer) if answer.contains("no configuration") => break answer,
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    };
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    let info = get(([127, 0, 0, 1], admin), "/server_info").unwrap();
    assert!(info.contains("PRE_INITIALIZING") && info.contains("~a.b~"), "{info}");

    let (pid, asked) = (agent.0.id().to_string(), Instant::now());
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let ended = agent.0.wait().unwrap();
    assert_eq!(ended.code(), Some(0), "Envoy ends well on SIGTERM, and so do we");
    let least = Duration::from_millis(if on_zero { 200 } else { 100 });
    assert!(asked.elapsed() >= least, "it ended without draining");
    assert!(get(([127, 0, 0, 1], admin), "/").is_none(), "Envoy is gone");
}
