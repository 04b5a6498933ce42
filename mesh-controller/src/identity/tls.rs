//! TLS for the secure port: our certificate is of the mesh's own authority and renewed as time passes; callers may show one.
//!
//! Handshakes run side by side and have a deadline: whoever connects and then says nothing is waited for alone. When there are
//! too many of these, who has been silent for longest gives way to who has just come: an honest caller needs milliseconds.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures::stream::{self, Stream};
use mesh_ca::{Authority, Certificate, Chain, PrivateKey, reconcile};
use mesh_xds::server::{Peer, accept};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateRevocationListDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::Identity;

/// How long a handshake may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How many may be under way.
const HANDSHAKES: usize = 4096;

/// A connection that came through its handshake.
type Connection = (TlsStream<TcpStream>, Peer);

/// Accepts TLS.
pub(crate) struct Acceptor {
    identity: Identity,
    serving: Mutex<Option<Serving>>,
    failures: Failures,
}

/// How many handshakes failed, and why. Cloning shares it.
#[derive(Clone, Default)]
struct Failures(Family<[(&'static str, &'static str); 1], Counter>);

impl Failures {
    fn count(&self, reason: &'static str) {
        self.0.get_or_create(&[("reason", reason)]).inc();
    }
}

/// A certificate in use.
struct Serving {
    of: Arc<Authority>,
    chain: Chain,
    config: Arc<ServerConfig>,
}

/// Handshakes under way.
struct Handshakes<T> {
    tasks: JoinSet<T>,
    /// The oldest first; some may be over.
    order: VecDeque<AbortHandle>,
}

impl<T: Send + 'static> Handshakes<T> {
    fn new() -> Self {
        Self { tasks: JoinSet::new(), order: VecDeque::new() }
    }

    /// Begins one more, and says whether the oldest gave way for it.
    fn begin(&mut self, handshake: impl Future<Output = T> + Send + 'static, limit: usize) -> bool {
        while self.order.front().is_some_and(AbortHandle::is_finished) {
            self.order.pop_front();
        }
        let oldest = if self.tasks.len() < limit { None } else { self.order.pop_front() };
        if let Some(oldest) = &oldest {
            oldest.abort();
        }
        self.order.push_back(self.tasks.spawn(handshake));
        oldest.is_some()
    }
}

impl Acceptor {
    /// As an authority of the mesh.
    pub(crate) fn new(identity: Identity) -> Self {
        Self { identity, serving: Mutex::default(), failures: Failures::default() }
    }

    /// Adds what is counted to a registry.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "TLS handshakes of callers that failed, by reason";
        registry.register("meshd_tls_handshake_failures", help, self.failures.0.clone());
    }

    /// The connections of a listener that came through their handshake.
    pub(crate) fn incoming(self: Arc<Self>, listener: TcpListener) -> impl Stream<Item = Connection> {
        stream::unfold((listener, Handshakes::new()), move |(listener, mut handshakes)| {
            let acceptor = self.clone();
            async move {
                loop {
                    tokio::select! {
                        Some(over) = handshakes.tasks.join_next() => if let Ok(Some(connection)) = over {
                            return Some((connection, (listener, handshakes)));
                        },
                        (io, address) = accept(&listener) => {
                            let (acceptor, failures) = (acceptor.clone(), acceptor.failures.clone());
                            if handshakes.begin(async move { acceptor.accept(io, address).await }, HANDSHAKES) {
                                failures.count("displaced");
                            }
                        }
                    }
                }
            }
        })
    }

    async fn accept(&self, io: TcpStream, address: SocketAddr) -> Option<Connection> {
        let (reason, error) = match tokio::time::timeout(DEADLINE, self.handshake(io, address)).await {
            Ok(Ok(connection)) => return Some(connection),
            Ok(Err(error)) => ("failed", error),
            Err(late) => ("timeout", late.into()),
        };
        self.failures.count(reason);
        tracing::debug!(%address, %error, "no TLS");
        None
    }

    async fn handshake(&self, io: TcpStream, address: SocketAddr) -> io::Result<Connection> {
        // Nobody gets in then.
        let ours = self.config(SystemTime::now());
        let config = ours.inspect_err(|error| tracing::warn!(%error, "no TLS for anybody; check the authority"))?;
        let io = TlsAcceptor::from(config).accept(io).await?;
        let certificates = io.get_ref().1.peer_certificates();
        let leaf = certificates.and_then(|chain| Certificate::from_der(chain.first()?).ok());
        let identities = leaf.map(|leaf| leaf.uris()).unwrap_or_default();
        Ok((io, Peer::over_tls(address, identities)))
    }

    /// How to accept now: the certificate is renewed when it has passed half of its life, or the authority is another.
    fn config(&self, now: SystemTime) -> io::Result<Arc<ServerConfig>> {
        let Identity { authority, signer_roots, hosts, .. } = &self.identity;
        let authority = authority.get();
        let mut serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(serving) = &*serving
            && Arc::ptr_eq(&serving.of, &authority)
            && !reconcile::needs_renewal(&serving.chain, &authority, hosts, now)
        {
            return Ok(serving.config.clone());
        }
        let (key, chain) = authority.serving(hosts, authority.lifetimes().default, now).map_err(io::Error::other)?;
        let config = server_config(&authority, signer_roots, &chain, &key).map_err(io::Error::other)?;
        let config = Arc::new(config);
        *serving = Some(Serving { of: authority, chain, config: config.clone() });
        Ok(config)
    }
}

fn server_config(
    authority: &Authority,
    signer_roots: &[Certificate],
    chain: &Chain,
    key: &PrivateKey,
) -> anyhow::Result<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for root in authority.roots().iter().chain(signer_roots) {
        roots.add(root.der().clone())?;
    }
    let lists = authority.crl_pem().map_or("", |pem| pem.as_ref());
    let lists = CertificateRevocationListDer::pem_slice_iter(lists.as_bytes()).collect::<Result<Vec<_>, _>>()?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .with_crls(lists)
        .allow_unknown_revocation_status()
        .allow_unauthenticated()
        .build()?;
    let presented = Certificate::all_from_pem(chain.presented_pem().as_bytes())?;
    let presented = presented.iter().map(|certificate| certificate.der().clone()).collect();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(presented, PrivateKeyDer::from_pem_slice(key.to_pem()?.as_bytes())?)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_silent_for_longest_gives_way() {
        let mut handshakes = Handshakes::new();
        let (honest, shaken) = tokio::sync::oneshot::channel();
        assert!(!handshakes.begin(std::future::pending(), 3));
        assert!(!handshakes.begin(async { shaken.await.ok() }, 3));
        assert!(!handshakes.begin(std::future::pending(), 3));
        assert!(handshakes.begin(std::future::pending(), 3), "the first gives way");
        assert!(handshakes.tasks.join_next().await.unwrap().unwrap_err().is_cancelled());
        honest.send("through").unwrap();
        assert_eq!(handshakes.tasks.join_next().await.unwrap().unwrap(), Some("through"));
        assert!(!handshakes.begin(std::future::pending(), 3), "there is room again");
    }
}
