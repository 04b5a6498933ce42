//! One GET, for probes: no pool, no redirects, no TLS.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Asks once on a connection of its own and returns status and body.
///
/// # Errors
/// The URL is no URL, or the exchange failed.
pub async fn get(url: &str) -> Result<(u16, Bytes), String> {
    let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
    let authority = uri.authority().ok_or_else(|| format!("{url} names no host"))?.clone();
    let failed = |error: hyper::Error| error.to_string();
    let stream = TcpStream::connect(authority.as_str()).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path).header("host", authority.as_str()).body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let exchange = async move {
        let answer = sender.send_request(request).await.map_err(failed)?;
        let status = answer.status().as_u16();
        Ok((status, answer.into_body().collect().await.map_err(failed)?.to_bytes()))
    };
    let (answer, _) = tokio::join!(exchange, connection);
    answer
}
