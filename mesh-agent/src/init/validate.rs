//! Whether traffic is redirected, for pods whose rules somebody else sets: a CNI plugin that was not there yet leaves a pod whose
//! traffic passes its proxy by.
//!
//! A connection to Envoy's own source address and a port where nobody listens can only succeed by the rules; that it arrives
//! at one of Envoy's ports, on which we listen for once, is the proof.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use futures::future::select_all;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::{Config, InitError, Options, value};
use crate::Environment;
use crate::client::Peer;

/// The exit code that says so; the repair controller of Istio's CNI looks for it.
pub const EXIT_CODE: u8 = 126;
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);
/// For one attempt.
const ATTEMPT: Duration = Duration::from_secs(1);

/// A test of the rules to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validation {
    /// From where, and where the rules lead.
    own: IpAddr,
    /// To where: no rule lets this pass.
    to: SocketAddr,
    ports: Vec<u16>,
    patience: Duration,
}

/// Why the pod cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ValidationError {
    /// Nothing to listen on.
    #[error("the ports {0:?} are all taken: {1}; the rules can be validated only before the proxy runs")]
    Listen(Vec<u16>, #[source] io::Error),
    /// No redirection.
    #[error(
        "traffic is not redirected after {0:?}: the rules have not been set. With a CNI plugin this happens where a pod came \
         before its node was ready; delete the pod, so that it is scheduled anew"
    )]
    NotRedirected(Duration),
}

impl Validation {
    /// What was asked for; `v6` says that the pod has no IPv4 address.
    ///
    /// # Errors
    /// When a port or the time is none.
    pub fn new(options: &Options, env: &Environment, config: &Config, v6: bool) -> Result<Self, InitError> {
        let port = |name, text: &str| text.parse::<u16>().map_err(|_| value(name, text, "is no number of a port"));
        let text = |flag: &Option<String>, variable: &str, default: &str| {
            flag.as_deref().or(env.get(variable)).unwrap_or(default).to_owned()
        };
        let probe = text(&options.iptables_probe_port, "IPTABLES_PROBE_PORT", "15002");
        let patience = text(&options.probe_timeout, "PROBE_TIMEOUT", "5s");
        let patience: mesh_api::types::Duration =
            patience.parse().map_err(|_| value("probe-timeout", &patience, "is no duration such as 5s"))?;
        let (own, envoy): (IpAddr, IpAddr) = match v6 {
            true => (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::from(6u128).into()),
            false => (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::new(127, 0, 0, 6).into()),
        };
        Ok(Self {
            own,
            to: SocketAddr::new(envoy, port("iptables-probe-port", &probe)?),
            ports: vec![
                port("envoy-port", &config.outbound_port)?,
                port("inbound-capture-port", &config.inbound_port)?,
            ],
            patience: patience.to_std(),
        })
    }

    /// Returns once a connection was redirected.
    ///
    /// # Errors
    /// When none was in time.
    pub async fn run(&self) -> Result<(), ValidationError> {
        let (mut listeners, mut taken) = (Vec::new(), None);
        for port in &self.ports {
            match TcpListener::bind((self.own, *port)).await {
                Ok(listener) => listeners.push(listener),
                Err(error) => taken = Some(error),
            }
        }
        if let (true, Some(error)) = (listeners.is_empty(), taken) {
            return Err(ValidationError::Listen(self.ports.clone(), error));
        }
        let redirected = async {
            // Rules that are not there yet may come.
            while !matches!(timeout(ATTEMPT, self.attempt(&listeners)).await, Ok(Ok(()))) {
                sleep(PAUSE).await;
            }
        };
        timeout(self.patience, redirected).await.map_err(|_| ValidationError::NotRedirected(self.patience))
    }

    async fn attempt(&self, listeners: &[TcpListener]) -> io::Result<()> {
        let from = Some(self.own);
        let client = Peer { from, ..Peer::new(self.to) }.connect().await?.local_addr()?;
        // Others may connect as well.
        while accept(listeners).await?.1 != client {}
        Ok(())
    }
}

async fn accept(listeners: &[TcpListener]) -> io::Result<(TcpStream, SocketAddr)> {
    select_all(listeners.iter().map(|listener| Box::pin(listener.accept()))).await.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::Pod;

    fn validation(env: &[(&str, &str)], v6: bool) -> Result<Validation, InitError> {
        let (options, env) = (Options::default(), Environment::from_iter(env.iter().copied()));
        Validation::new(&options, &env, &Config::new(&options, &env, Pod::default())?.0, v6)
    }

    #[test]
    fn it_asks_beyond_what_rules_let_pass() {
        let v4 = validation(&[], false).unwrap();
        assert_eq!((v4.to.to_string().as_str(), v4.ports.as_slice()), ("127.0.0.6:15002", [15001, 15006].as_slice()));
        assert_eq!(validation(&[], true).unwrap().to.to_string(), "[::6]:15002");
        for (name, text) in [("IPTABLES_PROBE_PORT", "x"), ("PROBE_TIMEOUT", "soon"), ("ENVOY_PORT", "1:2")] {
            assert!(validation(&[(name, text)], false).is_err(), "{name}");
        }
    }

    #[tokio::test]
    async fn without_rules_it_gives_up() {
        let env = [("PROBE_TIMEOUT", "50ms"), ("ENVOY_PORT", "0"), ("INBOUND_CAPTURE_PORT", "0")];
        let error = validation(&env, false).unwrap().run().await.unwrap_err();
        assert!(matches!(error, ValidationError::NotRedirected(_)), "{error}");
        let held = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = held.local_addr().unwrap().port().to_string();
        let env = [("ENVOY_PORT", port.as_str()), ("INBOUND_CAPTURE_PORT", port.as_str())];
        let error = validation(&env, false).unwrap().run().await.unwrap_err();
        assert!(matches!(error, ValidationError::Listen(..)), "{error}");
    }
}
