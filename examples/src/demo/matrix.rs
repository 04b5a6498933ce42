//! Who reaches a server, and how: {STRICT, PERMISSIVE, DISABLE} x {sidecar, plain client} x protocols x {REDIRECT, TPROXY}.
//!
//! What should happen is a table of Istio's documentation ([`expected`]). That something did happen *as it should* has
//! witnesses: the address that the application saw tells the way of interception; over HTTP and gRPC the header that the
//! server's proxy adds tells the caller's identity; for bare TCP the client's proxy counts connections and handshakes. A
//! client without a proxy speaks no TLS, so what it is answered came in plaintext.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::mesh::{self, Mesh};
use super::{Place, Progress, say, verdict};
use crate::echo::client::{self, Outcome};
use crate::echo::{Protocol, Seen};
use crate::nodelet::network::NODE;
use crate::nodelet::plan::Pod;
use crate::{http, nodelet};

/// A mode must hold everywhere within this.
const LIMIT: Duration = Duration::from_secs(15);
/// Where a proxy connects to its application from, where it does not pretend to be the caller.
const PROXY: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 6));

/// A mode of PeerAuthentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Strict,
    Permissive,
    Disable,
}

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    /// A pod with a proxy.
    Sidecar,
    /// The node, which has none.
    Plain,
}

/// How the server's proxy gets its connections, and the client's too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Interception {
    Redirect,
    Tproxy,
}

/// What happens to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// It is answered over mTLS, by which the caller is known.
    Mtls,
    /// It is answered in plaintext.
    Plaintext,
    /// The connection ends without an answer.
    Refused,
    /// The connection stays open and nobody says anything: each side waits for the other's first bytes.
    Hangs,
    /// Anything else.
    Odd(String),
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Mtls => "mTLS",
            Self::Plaintext => "plaintext",
            Self::Refused => "refused",
            Self::Hangs => "hangs",
            Self::Odd(what) => what,
        })
    }
}

/// What Istio documents.
///
/// A proxy that looks at the first bytes of a connection waits for them, by default without end, while a server that speaks
/// first waits for nobody. So such a server hangs where a proxy looks: at the client, if the port declares no protocol; at
/// the server, if mTLS is to be told from plaintext or demanded and the client does not speak TLS, or again if nothing is
/// declared.
fn expected(mode: Mode, client: Client, protocol: Protocol) -> Fate {
    match (mode, client) {
        _ if protocol == Protocol::Undeclared => Fate::Hangs,
        (Mode::Strict | Mode::Permissive, Client::Plain) if protocol.server_first() => Fate::Hangs,
        (Mode::Strict, Client::Plain) => Fate::Refused,
        // Clients follow the server's mode by themselves: auto mTLS.
        (Mode::Strict | Mode::Permissive, Client::Sidecar) => Fate::Mtls,
        (Mode::Permissive, Client::Plain) | (Mode::Disable, _) => Fate::Plaintext,
    }
}

/// One call and what came of it.
#[derive(Clone, Debug)]
struct Cell {
    mode: Mode,
    interception: Interception,
    client: Client,
    protocol: Protocol,
    seen: Fate,
}

impl Cell {
    fn expected(&self) -> Fate {
        expected(self.mode, self.client, self.protocol)
    }

    fn is_right(&self) -> bool {
        self.seen == self.expected()
    }
}

/// A call from a pod with a proxy, as its own process tells it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Called {
    protocol: Protocol,
    outcome: Outcome,
    /// How many connections the proxy made meanwhile to the server's port.
    connections: u64,
    /// On how many of them TLS was agreed.
    handshakes: u64,
}

/// Calls a host by all protocols at once, from a pod with a proxy.
///
/// # Errors
/// The proxy does not tell its counters.
pub async fn call_all(host: &str) -> Result<Vec<Called>, String> {
    let before = counters(host).await?;
    let outcomes = futures::future::join_all(Protocol::ALL.map(|protocol| client::call(host, protocol))).await;
    let after = counters(host).await?;
    let grown = |protocol: Protocol, counter: &str| {
        let of =
            |counters: &Counters| counters.get(&(protocol.port(), counter.to_owned())).copied().unwrap_or_default();
        of(&after).saturating_sub(of(&before))
    };
    let called = Protocol::ALL.into_iter().zip(outcomes).map(|(protocol, outcome)| Called {
        protocol,
        outcome,
        connections: grown(protocol, "upstream_cx_total"),
        handshakes: grown(protocol, "ssl.handshake"),
    });
    Ok(called.collect())
}

/// By port and name.
type Counters = BTreeMap<(u16, String), u64>;

/// What a proxy has counted for the ports of a host. The pods' manifests ask for these counters.
async fn counters(host: &str) -> Result<Counters, String> {
    let (_, stats) = http::get("http://127.0.0.1:15000/stats?filter=outbound").await?;
    let stats = String::from_utf8_lossy(&stats);
    Ok(stats.lines().filter_map(|line| counter(line, host)).collect())
}

/// Reads `cluster.outbound|8004||echo.default.svc.cluster.local;.ssl.handshake: 2`.
fn counter(line: &str, host: &str) -> Option<((u16, String), u64)> {
    let (name, value) = line.strip_prefix("cluster.outbound|")?.rsplit_once(": ")?;
    let (port, name) = name.split_once("||")?;
    let name = name.strip_prefix(host)?.strip_prefix(".default.svc.cluster.local")?.trim_start_matches([';', '.']);
    Some(((port.parse().ok()?, name.to_owned()), value.parse().ok()?))
}

/// Shows it.
///
/// # Errors
/// A cell that was not as documented, or what could not be done.
pub(super) async fn show(place: &Place, progress: Progress) -> Result<(), String> {
    if place.one_user {
        return Err("TPROXY wants root: in a user namespace the proxy cannot be told by its group".into());
    }
    let mut mesh = Mesh::start(place, "matrix", &[], progress).await?;
    mesh.start_pods().await?;
    let mut problems = Vec::new();
    heading()?;
    for mode in [Mode::Permissive, Mode::Strict, Mode::Disable] {
        mesh.write("mode.yaml", &mode.policy())?;
        let edited = Instant::now();
        let mut cells = calls(&mesh, mode).await?;
        while !cells.iter().all(Cell::is_right) && edited.elapsed() < LIMIT {
            cells = calls(&mesh, mode).await?;
        }
        tell(&cells, &mut problems)?;
        progress.say(&format!("{mode:?} held everywhere within {:.1} s", edited.elapsed().as_secs_f64()));
        mesh.all_alive()?;
    }
    mesh::judge_rejections(&mut problems).await?;
    verdict("Every cell is as Istio documents it.", &problems)
}

impl Mode {
    fn policy(self) -> String {
        let mode = format!("{self:?}").to_uppercase();
        format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: default}}\n\
             spec:\n  mtls: {{mode: {mode}}}\n"
        )
    }
}

impl Interception {
    const ALL: [Self; 2] = [Self::Redirect, Self::Tproxy];

    /// The pod of this way of interception that plays a role.
    fn pod(self, mesh: &Mesh, role: &str) -> Result<Pod, String> {
        let name = format!("{role}-{}", self.name());
        mesh.nodelet.plan().pod_with("app", &name).cloned().ok_or_else(|| format!("there is no pod {name}"))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Redirect => "redirect",
            Self::Tproxy => "tproxy",
        }
    }

    /// The address that the application sees when this one calls.
    fn peer(self, caller: IpAddr) -> IpAddr {
        match self {
            Self::Redirect => PROXY,
            Self::Tproxy => caller,
        }
    }
}

/// All calls in a mode, at once.
async fn calls(mesh: &Mesh, mode: Mode) -> Result<Vec<Cell>, String> {
    let all = Interception::ALL.map(|interception| async move {
        let cell = |client, protocol, seen| Cell { mode, interception, client, protocol, seen };
        let server = interception.pod(mesh, "echo")?;
        let caller = interception.pod(mesh, "client")?;
        let address = server.ip.to_string();
        let (called, plain) = tokio::join!(
            from_pod(&mesh.nodelet, &caller, server.labels()),
            futures::future::join_all(Protocol::ALL.map(|protocol| client::call(&address, protocol))),
        );
        let account = caller.spec().service_account_name.as_deref().unwrap_or_default();
        let principal = format!("spiffe://cluster.local/ns/default/sa/{account}");
        let from = interception.peer(caller.ip.into());
        let called =
            called?.into_iter().map(|called| cell(Client::Sidecar, called.protocol, called.fate(&principal, from)));
        let from = interception.peer(NODE.into());
        let plain = Protocol::ALL.into_iter().zip(plain);
        let plain = plain.map(|(protocol, outcome)| cell(Client::Plain, protocol, plain_fate(outcome, from)));
        Ok::<_, String>(called.chain(plain).collect::<Vec<_>>())
    });
    Ok(futures::future::try_join_all(all).await?.concat())
}

/// Calls the Service of a server from a pod.
async fn from_pod(
    nodelet: &nodelet::Nodelet,
    pod: &Pod,
    server: &BTreeMap<String, String>,
) -> Result<Vec<Called>, String> {
    let host = server.get("app").ok_or("the server has no name")?;
    let done = nodelet.within(pod).args(["call", host]).output().await.map_err(|error| error.to_string())?;
    serde_json::from_slice(&done.stdout)
        .map_err(|_| format!("pod {}: {}", pod.name(), String::from_utf8_lossy(&done.stderr).trim()))
}

impl Called {
    /// What it proves, where the caller is `principal` and the application should see it come from an address.
    fn fate(self, principal: &str, from: IpAddr) -> Fate {
        let Self { protocol, outcome, connections, handshakes } = self;
        let bare = matches!(protocol, Protocol::Tcp | Protocol::ServerFirst | Protocol::Undeclared);
        witnessed(outcome, from, |seen| match seen.principal() {
            Some(caller) if caller == principal => Fate::Mtls,
            Some(other) => Fate::Odd(format!("came as {other}")),
            None if !bare => Fate::Plaintext,
            None if connections > 0 && handshakes == connections => Fate::Mtls,
            None if connections > 0 && handshakes == 0 => Fate::Plaintext,
            None => Fate::Odd(format!("{handshakes} handshakes on {connections} connections")),
        })
    }
}

/// What the call of a client without a proxy proves.
fn plain_fate(outcome: Outcome, from: IpAddr) -> Fate {
    witnessed(outcome, from, |seen| match &seen.certificate {
        None => Fate::Plaintext,
        Some(text) => Fate::Odd(format!("without a certificate, but came with {text}")),
    })
}

fn witnessed(outcome: Outcome, from: IpAddr, how: impl FnOnce(&Seen) -> Fate) -> Fate {
    match outcome {
        Outcome::Refused(_) => Fate::Refused,
        Outcome::Silent => Fate::Hangs,
        Outcome::Answered(seen) if seen.peer != from => Fate::Odd(format!("came from {}, not {from}", seen.peer)),
        Outcome::Answered(seen) => how(&seen),
    }
}

fn heading() -> Result<(), String> {
    let protocols: String = Protocol::ALL.iter().map(|protocol| format!("{:<14}", protocol.name())).collect();
    say(&format!("\n{:<11} {:<12} {:<8} {protocols}", "mode", "interception", "client"))
}

/// Shows a mode's cells in lines: what was seen, and what is expected where that is something else.
fn tell(cells: &[Cell], problems: &mut Vec<String>) -> Result<(), String> {
    for line in cells.chunks(Protocol::ALL.len()) {
        let Some(Cell { mode, interception, client, .. }) = line.first() else { continue };
        let name = format!(
            "{:<11} {:<12} {:<8}",
            format!("{mode:?}").to_uppercase(),
            interception.name(),
            format!("{client:?}")
        );
        let seen: String = line
            .iter()
            .map(|cell| {
                let mark = if cell.is_right() { "ok" } else { "WRONG" };
                format!("{:<14}", format!("{} {mark}", cell.seen))
            })
            .collect();
        say(&format!("{name} {}", seen.trim_end()))?;
        for cell in line.iter().filter(|cell| !cell.is_right()) {
            let protocol = cell.protocol.name();
            problems.push(format!("{name} {protocol}: {}; expected: {}", cell.seen, cell.expected()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_told_by_host_and_port() {
        let line = "cluster.outbound|8004||echo-redirect.default.svc.cluster.local;.ssl.handshake: 2";
        assert_eq!(counter(line, "echo-redirect"), Some(((8004, "ssl.handshake".into()), 2)));
        assert_eq!(counter(&line.replace(';', ""), "echo-redirect"), Some(((8004, "ssl.handshake".into()), 2)));
        assert_eq!(counter(line, "echo"), None);
        assert_eq!(counter("cluster.outbound|8004||echo.default.svc.cluster.local;.x: P0(1,2)", "echo"), None);
    }

    #[test]
    fn an_answer_is_believed_only_with_its_witnesses() {
        let from = IpAddr::from(NODE);
        let fate = |protocol, certificate: Option<&str>, connections, handshakes| {
            let outcome = Outcome::Answered(Seen { peer: from, certificate: certificate.map(str::to_owned) });
            Called { protocol, outcome, connections, handshakes }.fate("spiffe://a", from)
        };
        assert_eq!(fate(Protocol::Http1, Some("Hash=1;URI=spiffe://a"), 0, 0), Fate::Mtls);
        assert!(matches!(fate(Protocol::Http1, Some("Hash=1;URI=spiffe://b"), 0, 0), Fate::Odd(_)));
        assert_eq!(fate(Protocol::Grpc, None, 1, 1), Fate::Plaintext, "no certificate was shown to the server");
        assert_eq!(fate(Protocol::Tcp, None, 1, 1), Fate::Mtls);
        assert_eq!(fate(Protocol::Tcp, None, 1, 0), Fate::Plaintext);
        assert!(matches!(fate(Protocol::Tcp, None, 0, 0), Fate::Odd(_)), "nobody saw it");
        let elsewhere = Outcome::Answered(Seen { peer: PROXY, certificate: None });
        assert!(matches!(plain_fate(elsewhere, from), Fate::Odd(_)));
        assert_eq!(plain_fate(Outcome::Silent, from), Fate::Hangs);
    }
}
