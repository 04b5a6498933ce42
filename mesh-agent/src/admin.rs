//! A client of Envoy's admin port on loopback: draining, ending, and the few statistics that readiness and draining read.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::Empty;
use hyper::{Method, Request};

use crate::client::{self, ClientError, Peer};

/// Why Envoy's admin port did not answer as it should. Usually Envoy is still starting or already gone.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// No answer.
    #[error("Envoy's admin port: {0}")]
    Silent(#[from] ClientError),
    /// Not a 200.
    #[error("Envoy's admin port answered {0} to {1}")]
    Status(http::StatusCode, String),
}

/// Envoy's admin port.
#[derive(Clone, Copy, Debug)]
pub struct Admin {
    address: SocketAddr,
}

const PATIENCE: Duration = Duration::from_secs(3);
/// A dump of the configuration of a large mesh is some megabytes.
const MAX_ANSWER: usize = 256 * 1024 * 1024;

impl Admin {
    /// The admin port at this address; nothing is opened yet.
    pub fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Sends one request and returns the answer's body.
    pub async fn call(&self, method: Method, path: &str) -> Result<String, AdminError> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap_or_default();
        request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_static("localhost"));
        let exchange = async {
            let answer = Peer::new(self.address).send(request).await?;
            Ok((answer.status(), client::body(answer.into_body(), MAX_ANSWER).await?))
        };
        match client::within(PATIENCE, exchange).await? {
            (status, body) if status == 200 => Ok(String::from_utf8_lossy(&body).into_owned()),
            (status, _) => Err(AdminError::Status(status, path.to_owned())),
        }
    }

    /// Statistics whose names match, by name; those without a number are left out.
    pub async fn stats(&self, filter: &str) -> Result<HashMap<String, u64>, AdminError> {
        let text = self.call(Method::GET, &format!("/stats?usedonly&filter={filter}")).await?;
        Ok(parse_stats(&text))
    }

    /// Asks Envoy to stop taking new connections and to tell the old ones so. Draining a sidecar leaves its outbound
    /// listeners open, because the application may still need others while it ends.
    pub async fn drain(&self, inbound_only: bool) -> Result<(), AdminError> {
        let only = if inbound_only { "inboundonly&" } else { "" };
        self.call(Method::POST, &format!("/drain_listeners?{only}graceful")).await.map(drop)
    }
}

fn parse_stats(text: &str) -> HashMap<String, u64> {
    let line = |line: &str| {
        let (name, value) = line.rsplit_once(": ")?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// Connections from outside that are still open, of the statistics `downstream_cx_active`; `None` where none is kept.
/// Envoy's own listeners (admin, probes, metrics, internal ones) and the counts per worker do not count.
pub fn active_connections(stats: &HashMap<String, u64>, own_ports: &[u16]) -> Option<u64> {
    if stats.is_empty() {
        return None;
    }
    let own = |name: &str| {
        name.starts_with("listener.admin.")
            || name.starts_with("listener.envoy_internal_")
            || name.contains("worker_")
            || own_ports.iter().any(|port| {
                name.strip_suffix(".downstream_cx_active").is_some_and(|n| n.ends_with(&format!("_{port}")))
            })
    };
    let counted = stats.iter().filter(|(name, _)| name.starts_with("listener.") && !own(name));
    Some(counted.map(|(_, value)| value).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_connections_of_clients_count() {
        let text = "http.inbound.downstream_cx_active: 9\nlistener.0.0.0.0_15006.downstream_cx_active: 2\n\
                    listener.0.0.0.0_15006.worker_0.downstream_cx_active: 2\nlistener.0.0.0.0_15021.downstream_cx_active: 1\n\
                    listener.[__]_15090.downstream_cx_active: 1\nlistener.admin.main_thread.downstream_cx_active: 1\n\
                    listener.envoy_internal_x.downstream_cx_active: 4\nlistener.x.y: No recorded values\n";
        assert_eq!(active_connections(&parse_stats(text), &[15021, 15090]), Some(2));
        assert_eq!(active_connections(&parse_stats(""), &[]), None);
        assert_eq!(active_connections(&parse_stats("listener.admin.downstream_cx_active: 1"), &[]), Some(0));
    }
}
