//! The client of the application: one exchange in each protocol, each on a connection of its own.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::{Protocol, SEEN, Seen};

/// A server that speaks first is waited for this long; then the client speaks.
const PATIENCE: Duration = Duration::from_secs(2);
/// Who has not answered after this long will not.
const LIMIT: Duration = Duration::from_secs(5);

/// A call and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// By which protocol.
    pub protocol: Protocol,
    /// The server should have spoken first, but was not heard before the client spoke.
    pub hung: bool,
    /// What came in the end.
    pub outcome: Outcome,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The application answered.
    Answered(Seen),
    /// The connection ended, or somebody else answered.
    Refused(String),
    /// Nobody said anything.
    Silent,
}

/// Calls the application on a host by all protocols at once.
pub async fn call_all(host: &str) -> Vec<Call> {
    futures::future::join_all(Protocol::ALL.map(|protocol| call(host, protocol))).await
}

/// Calls the application on a host by one of its protocols.
pub async fn call(host: &str, protocol: Protocol) -> Call {
    let address = format!("{host}:{}", protocol.port());
    let mut hung = false;
    let asked = async {
        match protocol {
            Protocol::Http1 => http1(&address).await,
            Protocol::Http2 => http2(&address).await,
            Protocol::Grpc => grpc(&address).await,
            Protocol::Tcp => lines(&address, None).await.map_err(text),
            Protocol::ServerFirst | Protocol::Undeclared => lines(&address, Some(&mut hung)).await.map_err(text),
        }
    };
    let outcome = match tokio::time::timeout(LIMIT, asked).await {
        Ok(Ok(seen)) => Outcome::Answered(seen),
        Ok(Err(why)) => Outcome::Refused(why),
        Err(_) => Outcome::Silent,
    };
    Call { protocol, hung, outcome }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

async fn http1(address: &str) -> Result<Seen, String> {
    let stream = TcpStream::connect(address).await.map_err(text)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let connection = tokio::spawn(connection);
    let request = Request::get("/").header("host", address).body(Empty::<Bytes>::new()).map_err(text)?;
    let seen = seen(sender.send_request(request).await.map_err(text)?).await;
    connection.abort();
    seen
}

async fn http2(address: &str) -> Result<Seen, String> {
    let stream = TcpStream::connect(address).await.map_err(text)?;
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(text)?;
    let connection = tokio::spawn(connection);
    let request = Request::get(format!("http://{address}/")).body(Empty::<Bytes>::new()).map_err(text)?;
    let seen = seen(sender.send_request(request).await.map_err(text)?).await;
    connection.abort();
    seen
}

async fn seen(response: hyper::Response<Incoming>) -> Result<Seen, String> {
    let status = response.status();
    let body = response.into_body().collect().await.map_err(text)?.to_bytes();
    if status != 200 {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&body)));
    }
    serde_json::from_slice(&body).map_err(text)
}

async fn grpc(address: &str) -> Result<Seen, String> {
    let endpoint = tonic::transport::Endpoint::new(format!("http://{address}")).map_err(text)?;
    let mut client = HealthClient::new(endpoint.connect().await.map_err(text)?);
    let answer = client.check(HealthCheckRequest::default()).await.map_err(text)?;
    let seen = answer.metadata().get(SEEN).ok_or("the answer does not say who asked")?;
    serde_json::from_str(seen.to_str().map_err(text)?).map_err(text)
}

/// An exchange in both directions: the server's word, and a line that comes back. Where the server speaks first, it is told
/// in `hung` whether its word was waited for in vain.
async fn lines(address: &str, hung: Option<&mut bool>) -> std::io::Result<Seen> {
    let mut stream = BufStream::new(TcpStream::connect(address).await?);
    let mut word = String::new();
    if let Some(hung) = hung {
        *hung = tokio::time::timeout(PATIENCE, stream.read_line(&mut word)).await.is_err();
    }
    stream.write_all(b"hello\n").await?;
    stream.flush().await?;
    if word.is_empty() {
        stream.read_line(&mut word).await?;
    }
    let mut back = String::new();
    stream.read_line(&mut back).await?;
    if back != "hello\n" {
        return Err(std::io::Error::other("the connection ended"));
    }
    Ok(serde_json::from_str(&word)?)
}
