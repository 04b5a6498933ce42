//! An application that answers who asked, in six protocols on as many ports. It knows nothing of a mesh: it tells the address
//! that a connection came from and, where a request has headers, what was added to them about the caller's certificate. So
//! its answers prove how a request came.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Status;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

pub mod client;

/// What a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 in plaintext, with prior knowledge.
    Http2,
    /// gRPC: the health service.
    Grpc,
    /// Lines, where the client speaks first.
    Tcp,
    /// Lines, where the server speaks first; the port is declared as TCP.
    ServerFirst,
    /// The same on a port that declares nothing: proxies look at the first bytes to find out.
    Undeclared,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Http1, Self::Http2, Self::Grpc, Self::Tcp, Self::ServerFirst, Self::Undeclared];

    /// Where the application listens.
    pub fn port(self) -> u16 {
        match self {
            Self::Http1 => 8001,
            Self::Http2 => 8002,
            Self::Grpc => 8003,
            Self::Tcp => 8004,
            Self::ServerFirst => 8005,
            Self::Undeclared => 8006,
        }
    }

    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1",
            Self::Http2 => "HTTP/2",
            Self::Grpc => "gRPC",
            Self::Tcp => "TCP",
            Self::ServerFirst => "server first",
            Self::Undeclared => "undeclared",
        }
    }

    /// Whether requests have headers.
    pub fn has_headers(self) -> bool {
        matches!(self, Self::Http1 | Self::Http2 | Self::Grpc)
    }

    /// Whether the server speaks first.
    pub fn server_first(self) -> bool {
        matches!(self, Self::ServerFirst | Self::Undeclared)
    }
}

/// Where the server's proxy writes about the caller's certificate.
const FORWARDED: &str = "x-forwarded-client-cert";
/// The answer of gRPC is in its metadata under this name.
const SEEN: &str = "x-seen";

/// Who asked, as the application sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The address that the connection came from.
    pub peer: IpAddr,
    /// What the header `x-forwarded-client-cert` says; `None` where there is none.
    pub certificate: Option<String>,
}

impl Seen {
    /// The caller's SPIFFE ID.
    pub fn principal(&self) -> Option<&str> {
        self.field("URI=")
    }

    /// The hash of the caller's certificate.
    pub fn hash(&self) -> Option<&str> {
        self.field("Hash=")
    }

    /// A field of the last element, which the nearest proxy added.
    fn field(&self, name: &str) -> Option<&str> {
        let last = self.certificate.as_deref()?.rsplit(',').next()?;
        last.split(';').find_map(|field| field.strip_prefix(name))
    }

    fn of(peer: IpAddr, forwarded: Option<&str>) -> Self {
        Self { peer: peer.to_canonical(), certificate: forwarded.map(str::to_owned) }
    }

    fn to_json(&self) -> String {
        // An address and a text can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Serves all protocols on an address until the process ends.
///
/// # Errors
/// A port cannot be had.
pub async fn serve(ip: Ipv4Addr) -> std::io::Result<()> {
    let grpc = TcpListenerStream::new(listen(ip, Protocol::Grpc).await?);
    let grpc = tonic::transport::Server::builder().add_service(HealthServer::new(Witness)).serve_with_incoming(grpc);
    tokio::try_join!(
        accept(ip, Protocol::Http1, |stream, peer| Box::pin(http1(stream, peer))),
        accept(ip, Protocol::Http2, |stream, peer| Box::pin(http2(stream, peer))),
        accept(ip, Protocol::Tcp, |stream, peer| Box::pin(lines(stream, peer, false))),
        accept(ip, Protocol::ServerFirst, |stream, peer| Box::pin(lines(stream, peer, true))),
        accept(ip, Protocol::Undeclared, |stream, peer| Box::pin(lines(stream, peer, true))),
        async { grpc.await.map_err(std::io::Error::other) },
    )?;
    Ok(())
}

async fn listen(ip: Ipv4Addr, protocol: Protocol) -> std::io::Result<TcpListener> {
    TcpListener::bind((ip, protocol.port())).await
}

/// One connection, to its end. A client that hangs up ends its own only.
type Connection = Pin<Box<dyn Future<Output = ()> + Send>>;

async fn accept(
    ip: Ipv4Addr,
    protocol: Protocol,
    serve: impl Fn(TcpStream, IpAddr) -> Connection,
) -> std::io::Result<()> {
    let listener = listen(ip, protocol).await?;
    loop {
        let (stream, peer) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(serve(stream, peer.ip()));
    }
}

async fn http1(stream: TcpStream, peer: IpAddr) {
    let service = service_fn(move |request| answer(request, peer));
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn http2(stream: TcpStream, peer: IpAddr) {
    let service = service_fn(move |request| answer(request, peer));
    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(request: Request<Incoming>, peer: IpAddr) -> Result<Response<Full<Bytes>>, Infallible> {
    let forwarded = request.headers().get(FORWARDED).and_then(|value| value.to_str().ok());
    Ok(Response::new(Full::from(Seen::of(peer, forwarded).to_json())))
}

/// Says who asked, at once or after the client's first line, and repeats each line.
async fn lines(stream: TcpStream, peer: IpAddr, server_first: bool) {
    let mut stream = BufStream::new(stream);
    let mut said = format!("{}\n", Seen::of(peer, None).to_json());
    let exchange = async {
        if server_first {
            stream.write_all(std::mem::take(&mut said).as_bytes()).await?;
            stream.flush().await?;
        }
        let mut line = String::new();
        while stream.read_line(&mut line).await? > 0 {
            stream.write_all((std::mem::take(&mut said) + &line).as_bytes()).await?;
            stream.flush().await?;
            line.clear();
        }
        std::io::Result::Ok(())
    };
    let _ = exchange.await;
}

/// The health service, whose answers have in their metadata who asked.
struct Witness;

#[tonic::async_trait]
impl Health for Witness {
    async fn check(
        &self,
        request: tonic::Request<HealthCheckRequest>,
    ) -> Result<tonic::Response<HealthCheckResponse>, Status> {
        let peer = request.remote_addr().ok_or_else(|| Status::internal("the connection has no address"))?;
        let forwarded = request.metadata().get(FORWARDED).and_then(|value| value.to_str().ok());
        let mut response = tonic::Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() });
        let seen = Seen::of(peer.ip(), forwarded).to_json();
        response.metadata_mut().insert(SEEN, seen.parse().map_err(|_| Status::internal("no metadata"))?);
        Ok(response)
    }

    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn watch(&self, _: tonic::Request<HealthCheckRequest>) -> Result<tonic::Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("ask by Check"))
    }
}

#[cfg(test)]
mod tests {
    use super::client::{Call, Outcome};
    use super::*;

    #[test]
    fn the_caller_is_in_the_nearest_proxys_element() {
        let seen = |text: &str| Seen::of(Ipv4Addr::LOCALHOST.into(), Some(text));
        let one = seen("By=spiffe://t/ns/a/sa/b;Hash=12;Subject=\"\";URI=spiffe://t/ns/a/sa/c");
        assert_eq!((one.principal(), one.hash()), (Some("spiffe://t/ns/a/sa/c"), Some("12")));
        let two = seen("Hash=1;URI=spiffe://t/ns/a/sa/forged,By=spiffe://t/ns/a/sa/b;Hash=2;URI=spiffe://t/ns/a/sa/d");
        assert_eq!((two.principal(), two.hash()), (Some("spiffe://t/ns/a/sa/d"), Some("2")));
        assert_eq!(Seen::of(Ipv4Addr::LOCALHOST.into(), None).principal(), None);
    }

    #[tokio::test]
    async fn every_protocol_answers_who_asked() {
        // An address of this process's own, as tests of several may run at once.
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let ip = Ipv4Addr::new(127, 100, high, low);
        let serving = tokio::spawn(serve(ip));
        for protocol in Protocol::ALL {
            let seen = loop {
                match client::call(&ip.to_string(), protocol).await {
                    Call { outcome: Outcome::Answered(seen), hung: false, .. } => break seen,
                    // Not yet listening.
                    _ if !serving.is_finished() => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
                    other => panic!("{protocol:?}: {other:?}"),
                }
            };
            assert_eq!(seen, Seen::of(Ipv4Addr::LOCALHOST.into(), None), "{protocol:?}");
        }
    }
}
