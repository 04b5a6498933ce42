//! The server, called with a real TLS client.

use std::net::SocketAddr;
use std::time::Duration;

use http::StatusCode;
use mesh_webhook::MAX_BODY;
use mesh_webhook::review::Review;
use mesh_webhook::server::{Options, Server, ServingCertificate};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use self::https::{Caller, certificate, connect};
use crate::reviews;

#[path = "../../benches/shared/https.rs"]
mod https;

/// A server that runs until it is told to end.
struct Running {
    address: SocketAddr,
    certificates: watch::Sender<Option<ServingCertificate>>,
    trusted: CertificateDer<'static>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Running {
    async fn start(options: Options) -> Self {
        let (serving, trusted) = certificate(0);
        let (certificates, certificate) = watch::channel(Some(serving));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = Server::new(reviews::hook(), certificate).options(options);
        let task = tokio::spawn(server.serve(listener, async { drop(stopped.await) }));
        Self { address, certificates, trusted, stop, task }
    }

    async fn caller(&self, protocol: &str) -> Caller {
        Caller::new(self.address, &self.trusted, protocol).await.unwrap()
    }
}

async fn is_patched(caller: &mut Caller) -> bool {
    let (status, body) = caller.post("/inject/net/n1", reviews::review().to_string()).await.unwrap();
    let review: Review = serde_json::from_slice(&body).unwrap();
    status == StatusCode::OK && review.response.is_some_and(|response| response.patch.is_some() && response.uid == "7")
}

#[tokio::test]
async fn reviews_are_answered_over_both_protocols_until_the_end() {
    let server = Running::start(Options::default()).await;
    let mut callers = Vec::new();
    for protocol in ["http/1.1", "h2"] {
        let mut caller = server.caller(protocol).await;
        assert!(is_patched(&mut caller).await, "{protocol}");
        assert_eq!(caller.post("/elsewhere", "{}").await.unwrap().0, StatusCode::NOT_FOUND);
        let (status, body) = caller.post("/validate", reviews::validation().to_string()).await.unwrap();
        assert!(status == StatusCode::OK && body.ends_with(br#""response":{"uid":"7","allowed":true}}"#), "{body:?}");
        callers.push(caller);
    }
    server.stop.send(()).unwrap();
    server.task.await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn the_certificate_is_replaced_under_live_connections() {
    let server = Running::start(Options::default()).await;
    let mut before = server.caller("h2").await;
    assert!(is_patched(&mut before).await);
    let (serving, trusted) = certificate(1);
    server.certificates.send_replace(Some(serving));
    assert!(is_patched(&mut before).await, "who was there stays");
    assert!(connect(server.address, &server.trusted, "h2").await.is_err(), "the old one is shown no more");
    assert!(is_patched(&mut Caller::new(server.address, &trusted, "h2").await.unwrap()).await);
    server.certificates.send_replace(None);
    assert!(connect(server.address, &trusted, "h2").await.is_err());
    assert!(is_patched(&mut before).await);
}

#[tokio::test]
async fn connections_that_stall_cost_nobody_else_a_place() {
    let mut options = Options::default();
    options.max_connections = 4;
    let server = Running::start(options).await;
    let mut caller = server.caller("h2").await;
    assert!(is_patched(&mut caller).await);
    let mut stalled = Vec::new();
    for _ in 0..20 {
        // Without a handshake, and with one but without a request.
        stalled.push(TcpStream::connect(server.address).await.unwrap());
        drop(connect(server.address, &server.trusted, "http/1.1").await);
    }
    assert!(is_patched(&mut caller).await, "who brought a request before stays");
    assert!(is_patched(&mut server.caller("http/1.1").await).await, "and who comes finds a place");
    let mut first = stalled.remove(0);
    assert_eq!(first.read(&mut [0]).await.unwrap_or(0), 0, "the first that stalled was sent away");
}

#[tokio::test]
async fn whoever_is_slow_is_not_waited_for() {
    let mut options = Options::default();
    options.handshake_timeout = Duration::from_millis(200);
    options.header_timeout = Duration::from_millis(200);
    options.request_timeout = Duration::from_millis(400);
    let server = Running::start(options).await;
    let mut silent = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(silent.read(&mut [0]).await.unwrap_or(0), 0, "no handshake");

    let mut half = connect(server.address, &server.trusted, "http/1.1").await.unwrap();
    half.write_all(b"POST /inject HTTP/1.1\r\nHost:").await.unwrap();
    let mut answer = Vec::new();
    let _ = half.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "half a head");

    let mut drip = connect(server.address, &server.trusted, "http/1.1").await.unwrap();
    let head = "POST /inject HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    drip.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    drip.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408", "half a body");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_told_so() {
    let server = Running::start(Options::default()).await;
    for protocol in ["http/1.1", "h2"] {
        let mut caller = server.caller(protocol).await;
        let (status, body) = caller.post("/validate", vec![b' '; MAX_BODY + 1]).await.unwrap();
        assert_eq!((status, body.starts_with(b"a review has at most")), (StatusCode::PAYLOAD_TOO_LARGE, true));
        assert!(is_patched(&mut caller).await, "{protocol}: the connection is still good");
    }
}

#[test]
fn whatever_comes_over_the_socket_is_answered() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(Running::start(Options::default()));
    // All over two connections: a dropped one would fail the test.
    let mut callers = runtime.block_on(async { [server.caller("h2").await, server.caller("http/1.1").await] });
    let mut turn = 0;
    reviews::answer_all(|path, body| {
        turn += 1;
        let (status, answer) = runtime
            .block_on(callers[turn % 2].post(path, body.to_vec()))
            .unwrap_or_else(|error| panic!("{turn} {error:?}"));
        assert_eq!(status, StatusCode::OK);
        serde_json::from_slice(&answer).unwrap()
    });
}
