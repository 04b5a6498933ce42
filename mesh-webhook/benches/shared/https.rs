//! A caller of the webhook over HTTPS, and certificates to serve.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_webhook::server::ServingCertificate;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Certificates for `localhost` with their keys, each signed by itself and good for a hundred years; of use in tests alone.
pub(crate) const CERTIFICATES: [(&str, &str); 2] = [
    (include_str!("one.crt.pem"), include_str!("one.key.pem")),
    (include_str!("two.crt.pem"), include_str!("two.key.pem")),
];

/// One of them, and what a caller trusts who believes it alone.
pub(crate) fn certificate(which: usize) -> (ServingCertificate, CertificateDer<'static>) {
    let (certificate, key) = CERTIFICATES[which];
    let serving = ServingCertificate::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap();
    (serving, CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap())
}

/// A TLS connection to a server that shows the trusted certificate.
pub(crate) async fn connect(
    address: SocketAddr,
    trusted: &CertificateDer<'static>,
    protocol: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let io = TcpStream::connect(address).await?;
    io.set_nodelay(true)?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), io).await
}

/// One connection, over which requests are sent.
pub(crate) enum Caller {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl Caller {
    /// Connects with `http/1.1` or `h2`.
    pub(crate) async fn new(
        address: SocketAddr,
        trusted: &CertificateDer<'static>,
        protocol: &str,
    ) -> std::io::Result<Self> {
        let io = TokioIo::new(connect(address, trusted, protocol).await?);
        Ok(if protocol == "h2" {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), io).await.map_err(std::io::Error::other)?;
            tokio::spawn(connection);
            Self::Two(sender)
        } else {
            let (sender, connection) = http1::handshake(io).await.map_err(std::io::Error::other)?;
            tokio::spawn(connection);
            Self::One(sender)
        })
    }

    /// Sends a review and receives its answer.
    pub(crate) async fn post(
        &mut self,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<(StatusCode, Bytes), hyper::Error> {
        let request =
            Request::post(path).header(header::HOST, "localhost").header(header::CONTENT_TYPE, "application/json");
        let request = request.body(Full::new(body.into())).unwrap();
        let response = match self {
            Self::One(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Self::Two(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}
