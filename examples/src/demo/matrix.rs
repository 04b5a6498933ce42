//! Who reaches a server, and how: {STRICT, PERMISSIVE, DISABLE} x {sidecar, plain client} x protocols x {REDIRECT, TPROXY}.
//!
//! What should happen is a table of Istio's documentation (`expected`, `hangs`). What did happen has witnesses
//! ([`witness`]), so that no cell is right by chance.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::mesh::Mesh;
use super::{Place, Progress, say, verdict};
use crate::echo::Protocol;
use crate::echo::client::{self, Call};
use crate::nodelet::network::NODE;
use crate::nodelet::plan::Pod;

pub mod witness;

use witness::{Called, Fate};

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

/// How a call is answered, as Istio documents it for the modes of PeerAuthentication.
fn expected(mode: Mode, client: Client) -> Fate {
    match (mode, client) {
        // Clients follow the server's mode by themselves: auto mTLS.
        (Mode::Strict | Mode::Permissive, Client::Sidecar) => Fate::Mtls,
        (Mode::Strict, Client::Plain) => Fate::Refused,
        (Mode::Permissive, Client::Plain) | (Mode::Disable, _) => Fate::Plaintext,
    }
}

/// Whether a server that speaks first is heard only after the client has spoken, as Istio documents it for such protocols.
///
/// A proxy that looks at the first bytes of a connection waits for them, by default without end. The client's proxy looks
/// where the port declares no protocol. The server's looks where it must tell TLS from plaintext, or again where nothing is
/// declared; TLS itself is never hung, as there the client speaks first.
fn hangs(mode: Mode, client: Client, protocol: Protocol) -> bool {
    match (protocol, client) {
        (Protocol::Undeclared, _) => true,
        (Protocol::ServerFirst, Client::Plain) => mode != Mode::Disable,
        _ => false,
    }
}

/// One call, how it came and what came of it.
#[derive(Clone, Debug)]
struct Cell {
    mode: Mode,
    interception: Interception,
    client: Client,
    call: Call,
    fate: Fate,
}

impl Cell {
    fn seen(&self) -> String {
        told(self.call.hung, &self.fate)
    }

    fn expected(&self) -> String {
        told(hangs(self.mode, self.client, self.call.protocol), &expected(self.mode, self.client))
    }

    fn is_right(&self) -> bool {
        self.seen() == self.expected()
    }
}

fn told(hung: bool, fate: &Fate) -> String {
    format!("{}{fate}", if hung { "hangs, " } else { "" })
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
        progress.say(&format!("{mode:?} was seen {:.1} s after the edit", edited.elapsed().as_secs_f64()));
        mesh.all_alive()?;
    }
    mesh.judge_rejections(&mut problems).await?;
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

impl Client {
    fn name(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Plain => "plain",
        }
    }
}

impl Interception {
    const ALL: [Self; 2] = [Self::Redirect, Self::Tproxy];

    /// The pod of this way of interception that plays a role.
    fn pod<'a>(self, mesh: &'a Mesh, role: &str) -> Result<&'a Pod, String> {
        let name = format!("{role}-{}", self.name());
        mesh.nodelet.plan().pod_with("app", &name).ok_or_else(|| format!("there is no pod {name}"))
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
        let server = interception.pod(mesh, "echo")?;
        let caller = interception.pod(mesh, "client")?;
        let address = server.ip.to_string();
        let (proxied, plain) = tokio::join!(from_pod(mesh, caller, server), client::call_all(&address));

        let account = caller.spec().service_account_name.as_deref().unwrap_or_default();
        let principal = format!("spiffe://cluster.local/ns/default/sa/{account}");
        let from = interception.peer(caller.ip.into());
        let proxied = proxied?.into_iter().map(|called| called.proves(&principal, from));
        let from = interception.peer(NODE.into());
        let plain = plain.into_iter().map(|call| {
            let fate = witness::plain(&call, from);
            (call, fate)
        });
        let cell = |client| move |(call, fate)| Cell { mode, interception, client, call, fate };
        Ok::<_, String>(proxied.map(cell(Client::Sidecar)).chain(plain.map(cell(Client::Plain))).collect::<Vec<_>>())
    });
    Ok(futures::future::try_join_all(all).await?.concat())
}

/// Calls the Service of a server from a pod, by its name.
async fn from_pod(mesh: &Mesh, pod: &Pod, server: &Pod) -> Result<Vec<Called>, String> {
    let host = server.labels().get("app").ok_or("the server has no name")?;
    let done = mesh.nodelet.within(pod).args(["call", host]).output().await.map_err(|error| error.to_string())?;
    serde_json::from_slice(&done.stdout)
        .map_err(|_| format!("pod {}: {}", pod.name(), String::from_utf8_lossy(&done.stderr).trim()))
}

fn heading() -> Result<(), String> {
    let protocols: String =
        Protocol::ALL.map(|protocol| format!("  {:<width$}", protocol.name(), width = width(protocol))).concat();
    say(&format!(
        "\n\"hangs\": the server speaks first, and is not heard before the client has spoken\n\n\
         {:<11} {:<12} {:<8}{}",
        "mode",
        "interception",
        "client",
        protocols.trim_end()
    ))
}

/// Of a column.
fn width(protocol: Protocol) -> usize {
    if protocol.server_first() { 19 } else { 12 }
}

/// Shows a mode's cells in lines: what was seen, and whether that is what is expected.
fn tell(cells: &[Cell], problems: &mut Vec<String>) -> Result<(), String> {
    for line in cells.chunks(Protocol::ALL.len()) {
        let Some(Cell { mode, interception, client, .. }) = line.first() else { continue };
        let mode = format!("{mode:?}").to_uppercase();
        let name = format!("{mode:<11} {:<12} {:<8}", interception.name(), client.name());
        let seen = line.iter().map(|cell| {
            let text = format!("{} {}", cell.seen(), if cell.is_right() { "ok" } else { "WRONG" });
            format!("  {text:<width$}", width = width(cell.call.protocol))
        });
        say(format!("{name}{}", seen.collect::<String>()).trim_end())?;
        for cell in line.iter().filter(|cell| !cell.is_right()) {
            let (seen, expected) = (cell.seen(), cell.expected());
            problems.push(format!("{name} {}: {seen}; expected: {expected}", cell.call.protocol.name()));
        }
    }
    Ok(())
}
