//! TLS for the secure port: our certificate is of the mesh's own authority and renewed as time passes; callers may show one.
//!
//! Handshakes run side by side and have a deadline: whoever connects and then says nothing is waited for alone.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use futures::stream::{self, Stream, StreamExt};
use mesh_ca::{Authority, Certificate, Chain, Current, PrivateKey, reconcile};
use mesh_xds::server::{Peer, accept};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateRevocationListDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a handshake may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How many may be under way; beyond that, callers wait to be accepted.
const HANDSHAKES: usize = 4096;

/// Accepts TLS.
pub(crate) struct Acceptor {
    authority: Arc<Current>,
    hosts: Vec<String>,
    serving: Mutex<Option<Serving>>,
}

/// A certificate in use.
struct Serving {
    of: Arc<Authority>,
    chain: Chain,
    config: Arc<ServerConfig>,
}

impl Acceptor {
    /// With a certificate for these hosts.
    pub(crate) fn new(authority: Arc<Current>, hosts: Vec<String>) -> Self {
        Self { authority, hosts, serving: Mutex::default() }
    }

    /// The connections of a listener that came through their handshake.
    pub(crate) fn incoming(self: Arc<Self>, listener: TcpListener) -> impl Stream<Item = (TlsStream<TcpStream>, Peer)> {
        let accepted = stream::unfold(listener, |listener| async move { Some((accept(&listener).await, listener)) });
        let handshakes = accepted.map(move |(io, address)| {
            let acceptor = self.clone();
            async move {
                let shaken = tokio::time::timeout(DEADLINE, acceptor.handshake(io, address)).await;
                match shaken.map_err(io::Error::from).flatten() {
                    Ok(connection) => Some(connection),
                    Err(error) => {
                        tracing::debug!(%address, %error, "no TLS");
                        None
                    }
                }
            }
        });
        handshakes.buffer_unordered(HANDSHAKES).filter_map(std::future::ready)
    }

    async fn handshake(&self, io: TcpStream, address: SocketAddr) -> io::Result<(TlsStream<TcpStream>, Peer)> {
        let config = self.config(SystemTime::now())?;
        let io = TlsAcceptor::from(config).accept(io).await?;
        let certificates = io.get_ref().1.peer_certificates();
        let leaf = certificates.and_then(|chain| Certificate::from_der(chain.first()?).ok());
        let identities = leaf.map(|leaf| leaf.uris()).unwrap_or_default();
        Ok((io, Peer::over_tls(address, identities)))
    }

    /// How to accept now: the certificate is renewed when it has passed half of its life, or the authority is another.
    fn config(&self, now: SystemTime) -> io::Result<Arc<ServerConfig>> {
        let authority = self.authority.get();
        let mut serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(serving) = &*serving
            && Arc::ptr_eq(&serving.of, &authority)
            && !reconcile::needs_renewal(&serving.chain, &authority, &self.hosts, now)
        {
            return Ok(serving.config.clone());
        }
        let (key, chain) =
            authority.serving(&self.hosts, authority.lifetimes().default, now).map_err(io::Error::other)?;
        let config = Arc::new(server_config(&authority, &chain, &key).map_err(io::Error::other)?);
        *serving = Some(Serving { of: authority, chain, config: config.clone() });
        Ok(config)
    }
}

fn server_config(authority: &Authority, chain: &Chain, key: &PrivateKey) -> anyhow::Result<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    for root in authority.roots() {
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
