//! One fetch: from a URL, or from an issuer by OpenID discovery, to a JSON Web Key Set.
//!
//! The answer ends up in the configuration of proxies, where people read it. So nothing but a key set is ever passed on, and
//! no redirect is followed: whatever else the URL leads to stays where it is.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use mesh_api::Name;
use mesh_xds::model::request_authentication::{KeySource, is_key_set};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;

use super::guard::Guard;

/// Key sets have some kilobytes; more is no key set, or an attack on memory.
const LONGEST: usize = 1 << 20;

/// Asks servers of keys.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) guard: Guard,
    pub(super) tls: TlsConnector,
}

impl Client {
    /// The keys, or why there are none.
    pub(super) async fn keys(&self, source: &KeySource, timeout: Duration) -> Result<Name, String> {
        let fetch = async {
            match source {
                KeySource::Url(url) => self.get(url).await,
                KeySource::Issuer(issuer) => self.get(&self.discover(issuer).await?).await,
            }
        };
        let text = tokio::time::timeout(timeout, fetch)
            .await
            .map_err(|_| format!("nothing came within {} ms", timeout.as_millis()))??;
        match is_key_set(&text) {
            true => Ok(text.into()),
            false => Err("the answer is no JSON Web Key Set, an object with a list of `keys`".to_owned()),
        }
    }

    /// The URL of an issuer's keys.
    async fn discover(&self, issuer: &str) -> Result<String, String> {
        let url = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let text = self.get(&url).await.map_err(|why| format!("{url}: {why}"))?;
        let found: Result<serde_json::Value, _> = serde_json::from_str(&text);
        let found = found.ok().and_then(|config| config.get("jwks_uri")?.as_str().map(str::to_owned));
        found.ok_or_else(|| format!("{url} names no `jwks_uri`"))
    }

    async fn get(&self, url: &str) -> Result<String, String> {
        let uri: Uri = url.parse().map_err(|error| format!("{url:?} is no URL: {error}"))?;
        let host = uri.host().ok_or_else(|| format!("{url:?} names no server"))?;
        match uri.scheme_str() {
            Some("http") => ask(self.dial(host, uri.port_u16().unwrap_or(80)).await?, &uri).await,
            Some("https") => {
                let stream = self.dial(host, uri.port_u16().unwrap_or(443)).await?;
                let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
                    .map_err(|_| format!("{host:?} is no name of a server"))?;
                let stream = self.tls.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))?;
                ask(stream, &uri).await
            }
            _ => Err(format!("{url:?} begins with neither http:// nor https://")),
        }
    }

    /// The first address of the host that may be dialled and answers.
    async fn dial(&self, host: &str, port: u16) -> Result<TcpStream, String> {
        let name = host.trim_matches(['[', ']']);
        let found = lookup_host((name, port)).await.map_err(|error| format!("cannot resolve {name}: {error}"))?;
        let mut why = format!("{name} has no address");
        for address in found {
            if !self.guard.allows(address.ip()) {
                why = format!("{} must not be asked (see BLOCKED_CIDRS_IN_JWKS_URIS)", address.ip());
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => why = format!("cannot connect to {address}: {error}"),
            }
        }
        Err(why)
    }
}

/// A GET over a connection that is used for nothing else.
async fn ask<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S, uri: &Uri) -> Result<String, String> {
    let told = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
    let request = http::Request::get(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(http::header::HOST, uri.authority().map_or("", |authority| authority.as_str()))
        .header(http::header::ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(told)?;
        if !response.status().is_success() {
            return Err(format!("the server answers {}", response.status()));
        }
        let body = Limited::new(response.into_body(), LONGEST).collect().await.map_err(|error| error.to_string())?;
        String::from_utf8(body.to_bytes().into()).map_err(|_| "the answer is not text".to_owned())
    };
    // The connection moves only while it is waited for. When it ends, the answer knows: it is there, or it never comes.
    let connection = async {
        drop(connection.await);
        std::future::pending().await
    };
    tokio::select! {
        answer = answer => answer,
        never = connection => never,
    }
}

/// TLS that trusts the system's authorities, and those of a file if it is there.
pub(super) fn tls(more: &std::path::Path) -> Result<TlsConnector, rustls::Error> {
    use rustls_pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    if let Ok(extra) = rustls_pki_types::CertificateDer::pem_file_iter(more) {
        roots.add_parsable_certificates(extra.flatten());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}
