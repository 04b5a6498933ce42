//! What a call proves. The address that the application saw tells the way of interception; over HTTP and gRPC the header that
//! the server's proxy adds tells the caller's identity; for bare TCP the client's proxy counts connections and handshakes. A
//! client without a proxy speaks no TLS, so what it is answered came in plaintext.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::echo::Seen;
use crate::echo::client::{self, Call, Outcome};
use crate::http;

/// What happens to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is answered over mTLS, by which the caller is known.
    Mtls,
    /// It is answered in plaintext.
    Plaintext,
    /// The connection ends without an answer.
    Refused,
    /// Anything else.
    Odd(String),
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mtls => "mTLS",
            Self::Plaintext => "plaintext",
            Self::Refused => "refused",
            Self::Odd(what) => what,
        })
    }
}

/// A call from a pod with a proxy, as the process in the pod tells it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Called {
    call: Call,
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
    let calls = client::call_all(host).await;
    let after = counters(host).await?;
    let grown = |call: &Call, counter: &str| {
        let key = (call.protocol.port(), counter.to_owned());
        let of = |counters: &Counters| counters.get(&key).copied().unwrap_or_default();
        of(&after).saturating_sub(of(&before))
    };
    let called = calls.into_iter().map(|call| Called {
        connections: grown(&call, "upstream_cx_total"),
        handshakes: grown(&call, "ssl.handshake"),
        call,
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

impl Called {
    /// The call, and what it proves if the caller is `principal` and the application should see it come from an address.
    pub(super) fn proves(self, principal: &str, from: IpAddr) -> (Call, Fate) {
        let Self { call, connections, handshakes } = self;
        let fate = answered(&call, from, |seen| match seen.principal() {
            Some(caller) if caller == principal => Fate::Mtls,
            Some(other) => Fate::Odd(format!("came as {other}")),
            None if call.protocol.has_headers() => Fate::Plaintext,
            None if connections > 0 && handshakes == connections => Fate::Mtls,
            None if connections > 0 && handshakes == 0 => Fate::Plaintext,
            None => Fate::Odd(format!("{handshakes} handshakes on {connections} connections")),
        });
        (call, fate)
    }
}

/// What the call of a client without a proxy proves.
pub(super) fn plain(call: &Call, from: IpAddr) -> Fate {
    answered(call, from, |seen| match &seen.certificate {
        None => Fate::Plaintext,
        Some(text) => Fate::Odd(format!("without a certificate, but came with {text}")),
    })
}

fn answered(call: &Call, from: IpAddr, how: impl FnOnce(&Seen) -> Fate) -> Fate {
    match &call.outcome {
        Outcome::Refused(_) => Fate::Refused,
        Outcome::Silent => Fate::Odd("silent".into()),
        Outcome::Answered(seen) if seen.peer != from => Fate::Odd(format!("came from {}, not {from}", seen.peer)),
        Outcome::Answered(seen) => how(seen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::echo::Protocol;

    const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    fn call(protocol: Protocol, peer: IpAddr, certificate: Option<&str>) -> Call {
        let seen = Seen { peer, certificate: certificate.map(str::to_owned) };
        Call { protocol, hung: false, outcome: Outcome::Answered(seen) }
    }

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
        let fate = |protocol, certificate: Option<&str>, connections, handshakes| {
            let call = call(protocol, FROM, certificate);
            Called { call, connections, handshakes }.proves("spiffe://a", FROM).1
        };
        assert_eq!(fate(Protocol::Http1, Some("Hash=1;URI=spiffe://a"), 0, 0), Fate::Mtls);
        assert!(matches!(fate(Protocol::Http1, Some("Hash=1;URI=spiffe://b"), 0, 0), Fate::Odd(_)));
        assert_eq!(fate(Protocol::Grpc, None, 1, 1), Fate::Plaintext, "no certificate was shown to the server");
        assert_eq!(fate(Protocol::Tcp, None, 1, 1), Fate::Mtls);
        assert_eq!(fate(Protocol::Tcp, None, 1, 0), Fate::Plaintext);
        assert!(matches!(fate(Protocol::Tcp, None, 0, 0), Fate::Odd(_)), "nobody saw it");
        let elsewhere = call(Protocol::Tcp, IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), None);
        assert!(matches!(plain(&elsewhere, FROM), Fate::Odd(_)));
        assert_eq!(plain(&call(Protocol::Tcp, FROM, None), FROM), Fate::Plaintext);
        assert!(matches!(plain(&call(Protocol::Http1, FROM, Some("Hash=1")), FROM), Fate::Odd(_)));
    }
}
