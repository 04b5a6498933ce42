//! A server of the control plane as the agent calls it: where it is, by which authority and name it is known, and how we
//! prove who we are. Roots, certificates and tokens are read anew for each connection, because the kubelet replaces them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;

/// How long a connection may take to be there.
const PATIENCE: Duration = Duration::from_secs(10);
/// A stream on which nothing came for this long is asked whether the server is still there: its node may have died.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long the server may take to say so.
pub(crate) const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Where systems keep the authorities that they trust.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A server of the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Endpoint {
    /// `host:port`.
    pub address: String,
    /// `None`: in plaintext, and then no token is sent either.
    pub tls: Option<Tls>,
    /// The cluster of which we are, sent along so that a control plane of several clusters asks the right one about the token.
    pub cluster: Option<String>,
}

/// How the two sides know each other.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tls {
    /// The name that the server's certificate must bear.
    pub server_name: String,
    /// Whom we trust.
    pub roots: Roots,
    /// What we show.
    pub proof: Proof,
}

/// Authorities that are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Roots {
    /// Those of the system.
    System,
    /// Those of a file in PEM.
    File(PathBuf),
}

impl Roots {
    /// The text in PEM.
    ///
    /// # Errors
    /// When there is no such file.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        match self {
            Self::File(file) => std::fs::read(file),
            Self::System => {
                let found = SYSTEM_ROOTS.iter().find_map(|file| std::fs::read(file).ok());
                found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the system has no file of authorities"))
            }
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::File(file) => file,
            Self::System => Path::new(SYSTEM_ROOTS[0]),
        }
    }
}

/// What we show of ourselves.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Proof {
    /// The token in this file.
    Token(PathBuf),
    /// The certificate in these files.
    Certificate {
        /// Our certificate and what leads from it to a root.
        chain: PathBuf,
        /// Its key.
        key: PathBuf,
    },
    /// Nothing.
    None,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nobody answers there.
    #[error("{address} cannot be reached: {source}; check that the control plane runs and that its address is right")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of ours is missing or is not what it should be.
    #[error("{what} {file:?}: {why}; check the volumes of the pod")]
    File {
        /// What is in the file.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The server's name is no name.
    #[error("{0:?} is no name of a server; check CA_ADDR, discoveryAddress and ISTIOD_SAN")]
    Name(String),
    /// The handshake failed: the two sides do not trust each other.
    #[error("TLS with {address} as {name:?} failed: {source}; do both have the same root?")]
    Tls {
        /// Where.
        address: String,
        /// The name that was expected.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// gRPC could not begin.
    #[error("{address} speaks no HTTP/2: {source}")]
    Http {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// A stream of bytes to a server.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection, for hyper.
pub type Connection = TokioIo<Box<dyn Stream>>;

impl Endpoint {
    /// A server at this address, in plaintext.
    pub fn plain(address: impl Into<String>) -> Self {
        Self { address: address.into(), tls: None, cluster: None }
    }

    /// The host of the address.
    pub fn host(&self) -> &str {
        let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(&self) -> Result<Connection, ConnectError> {
        let late = |_| ConnectError::Unreachable {
            address: self.address.clone(),
            source: io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {PATIENCE:?}")),
        };
        tokio::time::timeout(PATIENCE, self.open()).await.map_err(late)?.map(TokioIo::new)
    }

    async fn open(&self) -> Result<Box<dyn Stream>, ConnectError> {
        let address = || self.address.clone();
        let tls = self.tls.as_ref().map(|tls| tls.connector()).transpose()?;
        let unreachable = |source| ConnectError::Unreachable { address: address(), source };
        let stream = TcpStream::connect(&self.address).await.map_err(unreachable)?;
        // Requests are short and the other side waits for them.
        stream.set_nodelay(true).map_err(unreachable)?;
        let Some((connector, name)) = tls else { return Ok(Box::new(stream)) };
        let failed = |source| ConnectError::Tls { address: address(), name: name.to_str().into_owned(), source };
        Ok(Box::new(connector.connect(name.clone(), stream).await.map_err(failed)?))
    }

    /// A gRPC channel over one new connection.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn channel(&self) -> Result<Channel, ConnectError> {
        let mut connection = Some(self.connect().await?);
        let once = tower::service_fn(move |_| {
            let again = || io::Error::new(io::ErrorKind::NotConnected, "the connection is gone");
            std::future::ready(connection.take().ok_or_else(again))
        });
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let failed = |source| ConnectError::Http { address: self.address.clone(), source: Box::new(source) };
        let endpoint =
            tonic::transport::Endpoint::from_shared(format!("{scheme}://{}", self.address)).map_err(failed)?;
        let endpoint = endpoint.http2_keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        // The connector ends TLS; tonic must not try to.
        endpoint.connect_with_connector(once).await.map_err(failed)
    }

    /// A call for a channel, with the headers that say who we are.
    ///
    /// # Errors
    /// When the token cannot be read.
    pub fn request<T>(&self, message: T) -> Result<tonic::Request<T>, ConnectError> {
        let mut request = tonic::Request::new(message);
        for (name, value) in self.headers()? {
            if let Ok(value) = MetadataValue::try_from(value.as_bytes()) {
                request.metadata_mut().insert(name, value);
            }
        }
        Ok(request)
    }

    /// The headers that say who we are.
    ///
    /// # Errors
    /// When the token cannot be read.
    pub fn headers(&self) -> Result<Vec<(&'static str, HeaderValue)>, ConnectError> {
        let mut headers = Vec::new();
        if let Some(Tls { proof: Proof::Token(file), .. }) = &self.tls {
            let wrong = |why: String| ConnectError::File { what: "token", file: file.clone(), why };
            let token = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.trim()))
                .map_err(|_| wrong("it holds no token".into()))?;
            value.set_sensitive(true);
            headers.push(("authorization", value));
        }
        let cluster = self.cluster.as_ref().and_then(|cluster| HeaderValue::try_from(cluster).ok());
        headers.extend(cluster.map(|cluster| ("clusterid", cluster)));
        Ok(headers)
    }
}

impl Tls {
    fn connector(&self) -> Result<(TlsConnector, ServerName<'static>), ConnectError> {
        let name = ServerName::try_from(self.server_name.clone());
        let name = name.map_err(|_| ConnectError::Name(self.server_name.clone()))?;
        let unusable = |what, file: &Path, why: String| ConnectError::File { what, file: file.to_owned(), why };
        let of_roots = |why: String| unusable("root certificates", self.roots.path(), why);
        let mut roots = RootCertStore::empty();
        let pem = self.roots.read().map_err(|error| of_roots(error.to_string()))?;
        for certificate in certificates(&pem).map_err(of_roots)? {
            // Of a system's authorities some may be of a kind that nobody uses any more.
            let _ = roots.add(certificate);
        }
        if roots.is_empty() {
            return Err(of_roots("it holds none".into()));
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| of_roots(error.to_string()))?
            .with_root_certificates(roots);
        let mut config = match &self.proof {
            Proof::Certificate { chain, key } => {
                let read = |file: &Path| std::fs::read(file).map_err(|e| unusable("certificate", file, e.to_string()));
                let certificates = certificates(&read(chain)?).map_err(|why| unusable("certificate", chain, why))?;
                let of_key = |why: String| unusable("key", key, why);
                let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|e| of_key(e.to_string()))?;
                builder.with_client_auth_cert(certificates, private).map_err(|error| of_key(error.to_string()))?
            }
            Proof::Token(_) | Proof::None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok((TlsConnector::from(Arc::new(config)), name))
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_told_from_the_port() {
        for (address, host) in
            [("istiod.istio-system.svc:15012", "istiod.istio-system.svc"), ("[::1]:1", "::1"), ("a", "a")]
        {
            assert_eq!(Endpoint::plain(address).host(), host);
        }
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let tls = |roots: &str| Tls {
            server_name: "istiod.istio-system.svc".into(),
            roots: Roots::File(roots.into()),
            proof: Proof::Token("/nonexistent/token".into()),
        };
        let endpoint = Endpoint { tls: Some(tls("/nonexistent/root.pem")), ..Endpoint::plain("127.0.0.1:1") };
        let error = endpoint.connect().await.err().unwrap().to_string();
        assert!(error.contains("/nonexistent/root.pem") && error.contains("volumes"), "{error}");
        let error = endpoint.headers().unwrap_err().to_string();
        assert!(error.contains("/nonexistent/token"), "{error}");
        let error = Endpoint::plain("127.0.0.1:1").connect().await.err().unwrap().to_string();
        assert!(error.starts_with("127.0.0.1:1 cannot be reached"), "{error}");
        assert_eq!(Endpoint::plain("x:1").headers().unwrap(), []);
    }
}
