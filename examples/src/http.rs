//! One request and its answer: no pool, no redirects, no TLS.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Asks once on a connection of its own and returns status and body.
///
/// # Errors
/// The URL is no URL, or the exchange failed.
pub async fn get(url: &str) -> Result<(u16, Bytes), String> {
    send(Request::get(url), Bytes::new()).await
}

/// Sends a request for a whole URL on a connection of its own and returns status and body.
///
/// # Errors
/// The URL or a header is none, or the exchange failed.
pub async fn send(request: http::request::Builder, body: Bytes) -> Result<(u16, Bytes), String> {
    let mut request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
    let uri: Uri = std::mem::take(request.uri_mut());
    let authority = uri.authority().ok_or_else(|| format!("{uri} names no host"))?.as_str();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|error| format!("{uri}: {error}"))?;
    let host = authority.parse().map_err(|error| format!("{uri}: {error}"))?;
    request.headers_mut().insert(http::header::HOST, host);

    let failed = |error: hyper::Error| error.to_string();
    let stream = TcpStream::connect(authority).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let exchange = async move {
        let answer = sender.send_request(request).await.map_err(failed)?;
        let status = answer.status().as_u16();
        Ok((status, answer.into_body().collect().await.map_err(failed)?.to_bytes()))
    };
    let (answer, _) = tokio::join!(exchange, connection);
    answer
}
