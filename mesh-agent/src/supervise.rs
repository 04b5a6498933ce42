//! Stays with Envoy from its start to its end. Envoy that ends is not started again: its exit status becomes ours.
//! On SIGTERM Envoy drains first; a second SIGTERM ends it at once.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use mesh_xds::bootstrap::Role;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::admin::{Admin, active_connections};
use crate::status::Readiness;

/// Why Envoy could not be run. The fault is in the installation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SuperviseError {
    /// Not started.
    #[error("Envoy {binary:?} cannot be started: {source}; check --proxy-binary and ENVOY_PATH")]
    Start {
        /// The program.
        binary: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Started, then lost.
    #[error("waiting for Envoy failed: {0}")]
    Wait(#[source] std::io::Error),
}

/// What the agent is told while Envoy runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Order {
    /// A signal that our own process got: SIGTERM and SIGINT begin the end, the others are passed on.
    Signal(Signal),
    /// Take no new connections from outside, but stay.
    Drain,
    /// End at once, without draining.
    Quit,
}

impl Order {
    const fn ends(self) -> bool {
        matches!(self, Self::Signal(Signal::TERM | Signal::INT) | Self::Quit)
    }
}

/// How Envoy ends when it is asked to.
#[derive(Clone, Debug)]
pub struct Drain {
    /// Without `on_zero`: how long old connections have.
    pub termination: Duration,
    /// Wait this long, then until no client is connected any more.
    pub on_zero: Option<Duration>,
    /// Ports whose connections don't count: probes and metrics.
    pub own_ports: Vec<u16>,
}

/// One Envoy to be run.
#[derive(Debug)]
#[non_exhaustive]
pub struct Envoy {
    /// The program.
    pub binary: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// What the proxy is there for: a sidecar drains only its inbound side.
    pub role: Role,
    /// Its admin port.
    pub admin: Admin,
    /// How it ends.
    pub drain: Drain,
    /// Told when it begins to end.
    pub readiness: Arc<Readiness>,
}

/// How long Envoy may take to end after its own SIGTERM.
const LAST_GRACE: Duration = Duration::from_secs(5);

impl Envoy {
    /// An Envoy with these arguments.
    pub fn new(
        binary: PathBuf,
        arguments: Vec<OsString>,
        role: Role,
        admin: Admin,
        drain: Drain,
        readiness: Arc<Readiness>,
    ) -> Self {
        Self { binary, arguments, role, admin, drain, readiness }
    }

    /// Runs it to its end.
    pub async fn run(&self, mut orders: mpsc::Receiver<Order>) -> Result<ExitStatus, SuperviseError> {
        // In a process group of its own, so that a Ctrl-C in a terminal reaches Envoy only through us, after draining.
        let mut command = Command::new(&self.binary);
        command.args(&self.arguments).process_group(0).kill_on_drop(true);
        let start = |source| SuperviseError::Start { binary: self.binary.clone(), source };
        let mut child = command.spawn().map_err(start)?;
        info!(pid = child.id(), binary = ?self.binary, "Envoy started");
        loop {
            let order = tokio::select! {
                status = child.wait() => return ended(status),
                Some(order) = orders.recv() => order,
            };
            match order {
                Order::Signal(signal) if !order.ends() => {
                    send(&child, signal);
                    continue;
                }
                Order::Drain => {
                    self.drain().await;
                    continue;
                }
                Order::Signal(_) | Order::Quit => self.readiness.end(),
            }
            if order != Order::Quit {
                info!("draining");
                tokio::select! {
                    status = child.wait() => return ended(status),
                    () = self.drained() => info!("drained"),
                    () = again(&mut orders) => warn!("asked twice, not waiting for connections"),
                }
            }
            send(&child, Signal::TERM);
            tokio::select! {
                status = child.wait() => return ended(status),
                () = tokio::time::sleep(LAST_GRACE) => warn!("Envoy does not end, killing it"),
            }
            child.kill().await.map_err(SuperviseError::Wait)?;
            return ended(child.wait().await);
        }
    }

    async fn drain(&self) {
        if let Err(error) = self.admin.drain(self.role == Role::Sidecar).await {
            warn!(%error, "Envoy could not be told to drain");
        }
    }

    /// Returns when Envoy may end.
    async fn drained(&self) {
        self.drain().await;
        let Some(least) = self.drain.on_zero else {
            return tokio::time::sleep(self.drain.termination).await;
        };
        tokio::time::sleep(least).await;
        let mut errors = 0;
        while errors < 5 {
            match self.admin.stats("downstream_cx_active$").await {
                Ok(stats) => match active_connections(&stats, &self.drain.own_ports) {
                    Some(0) | None => return,
                    Some(active) => info!(active, "waiting for clients"),
                },
                Err(error) => {
                    errors += 1;
                    warn!(%error, "asking for open connections");
                }
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

async fn again(orders: &mut mpsc::Receiver<Order>) {
    loop {
        match orders.recv().await {
            Some(order) if order.ends() => return,
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}

fn send(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(Err(error)) = pid.map(|pid| kill_process(pid, signal)) {
        warn!(%error, ?signal, "Envoy could not be signalled");
    }
}

fn ended(status: std::io::Result<ExitStatus>) -> Result<ExitStatus, SuperviseError> {
    let status = status.map_err(SuperviseError::Wait)?;
    info!(%status, "Envoy ended");
    Ok(status)
}

/// The exit code that tells a process's end: its own, or 128 and the signal's number as shells have it.
pub fn exit_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envoy(script: &str, termination: Duration) -> Envoy {
        // Nothing listens on port 1: draining fails at once, as with an Envoy that hangs.
        let admin = Admin::new(([127, 0, 0, 1], 1).into());
        let readiness = Arc::new(Readiness::new(admin));
        let drain = Drain { termination, on_zero: None, own_ports: vec![] };
        let arguments = vec!["-c".into(), script.into()];
        Envoy::new("/bin/sh".into(), arguments, Role::Sidecar, admin, drain, readiness)
    }

    #[tokio::test]
    async fn its_exit_status_is_ours() {
        let (_keep, signals) = mpsc::channel(1);
        let status = envoy("exit 7", Duration::ZERO).run(signals).await.unwrap();
        assert_eq!(exit_code(status), 7);
        let (_keep, signals) = mpsc::channel(1);
        let status = envoy("kill -KILL $$", Duration::ZERO).run(signals).await.unwrap();
        assert_eq!(exit_code(status), 137);
        let (_keep, signals) = mpsc::channel(1);
        let mut none = envoy("", Duration::ZERO);
        none.binary = "/nonexistent/envoy".into();
        assert!(none.run(signals).await.unwrap_err().to_string().contains("ENVOY_PATH"));
    }

    #[tokio::test]
    async fn it_waits_until_no_client_is_connected() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut envoy = envoy("", Duration::ZERO);
        envoy.admin = Admin::new(listener.local_addr().unwrap());
        envoy.drain.on_zero = Some(Duration::from_millis(1));
        let active = |clients: u8| format!("listener.0.0.0.0_15006.downstream_cx_active: {clients}\n");
        let admin = async {
            for (asked, body) in [
                ("POST /drain_listeners?inboundonly&graceful ", "OK".to_owned()),
                ("GET /stats?usedonly&filter=downstream_cx_active$ ", active(1)),
                ("GET /stats?usedonly&filter=downstream_cx_active$ ", active(0)),
            ] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let length = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..length]);
                assert!(request.starts_with(asked), "{request}");
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).await.unwrap();
            }
        };
        // Who asks for less leaves the admin port waiting.
        let both = async { tokio::join!(envoy.drained(), admin) };
        tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
    }

    #[tokio::test]
    async fn signals_reach_it() {
        let folder = tempfile::tempdir().unwrap();
        let ready = folder.path().join("ready");
        let script =
            format!("trap 'exit 3' USR1; trap 'exit 4' TERM; : > {}; while :; do sleep 0.05; done", ready.display());
        let [usr1, term, int] = [Signal::USR1, Signal::TERM, Signal::INT].map(Order::Signal);
        for (sent, code) in [
            (vec![usr1], 3),
            (vec![term], 4),
            (vec![int, term], 4),
            (vec![Order::Drain, Order::Quit], 4),
            (vec![int, Order::Quit], 4),
        ] {
            let _ = std::fs::remove_file(&ready);
            // The second of two signals must cut a drain short that would last an hour.
            let patience = if sent.len() > 1 { Duration::from_secs(3600) } else { Duration::from_millis(10) };
            let (sender, signals) = mpsc::channel(2);
            let envoy = envoy(&script, patience);
            let feed = async {
                while !ready.exists() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                for order in &sent {
                    sender.send(*order).await.unwrap();
                }
            };
            let (status, ()) = tokio::join!(envoy.run(signals), feed);
            assert_eq!(exit_code(status.unwrap()), code, "{sent:?}");
            let draining = envoy.readiness.check().await.unwrap_err().contains("draining");
            assert_eq!(draining, sent != [usr1]);
        }
    }
}
