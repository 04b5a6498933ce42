//! meshd as a process.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::envtest::Process;

/// A meshd that is ready.
pub(crate) struct Meshd {
    _process: Process,
    addresses: Value,
}

impl Meshd {
    /// Starts one on ports of its own, and waits until it is ready.
    pub(crate) async fn start(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meshd"));
        command
            .args(["--print-addrs", "--grpc-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0"])
            .arg("--monitoring-addr=127.0.0.1:0")
            .args(args)
            .env("RUST_LOG", "off")
            .stdout(Stdio::piped());
        let mut process = Process(command.spawn().unwrap());
        let out = process.0.stdout.take().unwrap();
        let line = tokio::task::spawn_blocking(move || BufReader::new(out).lines().next().unwrap().unwrap());
        Self { _process: process, addresses: serde_json::from_str(&line.await.unwrap()).unwrap() }
    }

    /// Where it listens: `grpc`, `http`, …
    pub(crate) fn address(&self, of: &str) -> &str {
        self.addresses[of].as_str().unwrap()
    }
}
