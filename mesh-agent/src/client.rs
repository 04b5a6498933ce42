//! One HTTP/1 request to somebody in the pod: Envoy's admin port, the application's probes and metrics.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

/// Whom to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it listens.
    pub address: SocketAddr,
    /// The address to come from, if it matters.
    pub from: Option<IpAddr>,
    /// Whether it speaks TLS; who it is is not checked, as the kubelet does not.
    pub tls: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No connection.
    #[error("{0} cannot be reached: {1}")]
    Connect(SocketAddr, #[source] io::Error),
    /// The exchange broke off.
    #[error("the exchange broke off: {0}")]
    Http(#[from] hyper::Error),
    /// Nothing in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// An answer that is longer than anything sensible.
    #[error("the answer has more than {0} bytes")]
    TooLong(usize),
    /// The answer broke off.
    #[error("the answer broke off: {0}")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Peer {
    /// Somebody at this address, without TLS.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, from: None, tls: false }
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// When there is nobody.
    pub async fn connect(&self) -> io::Result<TcpStream> {
        let socket = if self.address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
        if let Some(from) = self.from {
            socket.bind((from, 0).into())?;
        }
        socket.connect(self.address).await
    }

    /// Sends a request; returns when the head of the answer is there.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn send(&self, request: Request<Empty<Bytes>>) -> Result<Response<Incoming>, ClientError> {
        let failed = |error| ClientError::Connect(self.address, error);
        let stream = self.connect().await.map_err(failed)?;
        if !self.tls {
            return exchange(stream, request).await;
        }
        let name = ServerName::from(self.address.ip());
        let connector = connector().map_err(|error| failed(io::Error::other(error)))?;
        exchange(connector.connect(name, stream).await.map_err(failed)?, request).await
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    request: Request<Empty<Bytes>>,
) -> Result<Response<Incoming>, ClientError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends when the body is read or dropped, as nobody can send on it any more.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender.send_request(request).await?)
}

/// The whole body.
///
/// # Errors
/// When it breaks off or has more than `most` bytes.
pub async fn body(incoming: Incoming, most: usize) -> Result<Bytes, ClientError> {
    let collected = Limited::new(incoming, most).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() { ClientError::TooLong(most) } else { ClientError::Body(error) }
    });
    Ok(collected?.to_bytes())
}

/// Gives up after a time.
///
/// # Errors
/// What the exchange says, or that it took too long.
pub async fn within<T>(
    time: Duration,
    exchange: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    tokio::time::timeout(time, exchange).await.map_err(|_| ClientError::Timeout(time))?
}

fn connector() -> Result<TlsConnector, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let anybody = Arc::new(Anybody(provider.signature_verification_algorithms));
    let config = builder(provider)?.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn builder(
    provider: Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, rustls::Error> {
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
}

/// Takes every certificate, if its owner has the key: probes of the kubelet do the same, since applications certify themselves.
#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
