//! Envoy and the control plane are two bare ends of HTTP/2: whatever passes between them is theirs.

use std::path::Path;
use std::time::SystemTime;

use futures::Stream;
use http_body_util::{BodyExt, StreamBody};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::*;

/// A control plane that sends back what it gets, and the headers with which it is called.
async fn echo(listener: TcpListener) -> (JoinHandle<()>, mpsc::UnboundedReceiver<http::HeaderMap>) {
    let (told, headers) = mpsc::unbounded_channel();
    let serving = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let told = told.clone();
            let echo = service_fn(move |request: Request<Incoming>| {
                let _ = told.send(request.headers().clone());
                std::future::ready(Ok::<_, Infallible>(Response::new(request.into_body())))
            });
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            connections.spawn(async move { drop(http.serve_connection(TokioIo::new(stream), echo).await) });
        }
    });
    (serving, headers)
}

type Frames = StreamBody<std::pin::Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>>;

/// One call over the socket: where to write, and the answer to come.
async fn call(socket: &Path, path: &str) -> (mpsc::Sender<Bytes>, JoinHandle<hyper::Result<Response<Incoming>>>) {
    let stream = UnixStream::connect(socket).await.unwrap();
    let (mut sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(driver);
    let (write, written) = mpsc::channel::<Bytes>(8);
    let frames = futures::stream::unfold(written, |mut written| async {
        Some((Ok(Frame::data(written.recv().await?)), written))
    });
    let frames: Frames = StreamBody::new(Box::pin(frames));
    let request = Request::post(format!("http://agent{path}")).header(TE, "trailers").header("x-own", "1");
    let request = request.body(frames).unwrap();
    (write, tokio::spawn(async move { sender.send_request(request).await }))
}

async fn next(body: &mut Incoming) -> Option<Bytes> {
    body.frame().await?.ok()?.into_data().ok()
}

const ADS: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

#[tokio::test]
async fn a_call_waits_for_the_control_plane_and_passes_through() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("XDS");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let metrics = Metrics::default();
    let relay = Relay::new(Endpoint::plain(address.to_string()), metrics.clone());
    let relaying = tokio::spawn(relay.serve(Socket::bind(&socket).unwrap()));

    let (write, answer) = call(&socket, ADS).await;
    write.send(Bytes::from_static(b"first")).await.unwrap();
    while metrics.text(SystemTime::now()).contains("istiod_connection_failures_total 0") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (serving, mut headers) = echo(TcpListener::bind(address).await.unwrap()).await;
    let mut body = answer.await.unwrap().unwrap().into_body();
    assert_eq!(next(&mut body).await.unwrap(), "first", "what was sent while nobody was there has arrived");
    let headers = headers.recv().await.unwrap();
    assert_eq!(headers[TE], "trailers");
    assert_eq!((headers.get("x-own"), headers.get("authorization")), (None, None));
    assert!(metrics.text(SystemTime::now()).contains("istio_agent_istiod_connections 1"));
    // More than both sides hold back: it flows as it is read.
    let large = Bytes::from(vec![7; 3 * 1024 * 1024]);
    write.send(large.clone()).await.unwrap();
    let mut received = 0;
    while received < large.len() {
        received += next(&mut body).await.unwrap().len();
    }

    serving.abort();
    assert_eq!(next(&mut body).await, None, "Envoy sees the break");
    while !metrics.text(SystemTime::now()).contains("istio_agent_istiod_connections 0") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    relaying.abort();
}

#[tokio::test]
async fn nothing_else_is_passed_on() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("XDS");
    let relay = Relay::new(Endpoint::plain("127.0.0.1:1"), Metrics::default());
    let relaying = tokio::spawn(relay.serve(Socket::bind(&socket).unwrap()));
    let (_write, answer) = call(&socket, "/istio.v1.auth.IstioCertificateService/CreateCertificate").await;
    assert_eq!(answer.await.unwrap().unwrap().headers()["grpc-status"], "12");
    relaying.abort();
}
