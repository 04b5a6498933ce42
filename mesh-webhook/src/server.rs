//! The webhook over HTTPS, as the apiserver calls it.
//!
//! Whoever connects has a deadline for everything: for the handshake, for the head of a request, for the whole of it. There are only
//! so many connections at a time; one more takes the place of one that has brought no request yet, the first of them that
//! came, or else of the one whose last request is the longest ago. So connections that stall cost each other their
//! places, and the apiserver's keeps its own.

mod metrics;
mod tls;

use std::collections::HashMap;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub use metrics::Metrics;
pub use tls::{CertificateError, ServingCertificate};

use crate::Webhook;

/// How a server behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Connections at a time.
    pub max_connections: usize,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long the head of a request may take, which is also how long a connection of HTTP/1.1 is kept without one.
    pub header_timeout: Duration,
    /// How long a request may take from its head to its answer. The apiserver itself waits 30 seconds at most.
    pub request_timeout: Duration,
    /// How long what is under way may take to end when the server is to end.
    pub drain_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            max_connections: 1024,
            handshake_timeout: seconds(10),
            header_timeout: seconds(10),
            request_timeout: seconds(30),
            drain_timeout: seconds(5),
        }
    }
}

/// Serves a [`Webhook`] over HTTPS, and `/httpsReady`, which answers 200 as soon as there is a certificate.
///
/// ```no_run
/// use mesh_webhook::server::{Server, ServingCertificate};
/// use mesh_webhook::{Config, Injector, Webhook};
///
/// # async fn run(chain: &[u8], key: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
/// let hook = Webhook::new().route("/inject", Injector::new(Config::default()));
/// let (certificates, certificate) = tokio::sync::watch::channel(Some(ServingCertificate::from_pem(chain, key)?));
/// let listener = tokio::net::TcpListener::bind("[::]:15017").await?;
/// Server::new(hook, certificate).serve(listener, std::future::pending()).await?;
/// # drop(certificates);
/// # Ok(())
/// # }
/// ```
pub struct Server {
    router: Router,
    certificate: watch::Receiver<Option<ServingCertificate>>,
    options: Options,
    metrics: Metrics,
}

/// What all connections share.
struct Shared {
    router: Router,
    options: Options,
    metrics: Metrics,
    tls: TlsAcceptor,
    stop: CancellationToken,
    /// Counts requests, so that each has its place in a row.
    requests: AtomicU64,
}

/// A connection.
struct Open {
    /// Its place among those that were accepted.
    nth: u64,
    /// The place of its last request among all requests; 0 while it has brought none.
    last: Arc<AtomicU64>,
    task: AbortHandle,
}

impl Server {
    /// A server of this webhook. The certificate may change at any time: what connects afterwards sees the new one.
    /// While there is none, no handshake succeeds.
    pub fn new(hook: Webhook, certificate: watch::Receiver<Option<ServingCertificate>>) -> Self {
        let router = Router::new().route("/httpsReady", get(|| async {})).fallback_service(hook);
        Self { router, certificate, options: Options::default(), metrics: Metrics::default() }
    }

    /// How it behaves.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// What it counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Serves until `shutdown`, then lets what is under way end.
    ///
    /// # Errors
    /// When TLS can't be set up at all; no caller can make it fail.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let shared = Arc::new(Shared {
            router: self.router,
            tls: TlsAcceptor::from(Arc::new(tls::config(self.certificate).map_err(io::Error::other)?)),
            metrics: self.metrics,
            options: self.options,
            stop: CancellationToken::new(),
            requests: AtomicU64::new(0),
        });
        let mut shutdown = pin!(shutdown);
        let mut tasks = JoinSet::new();
        let mut open: HashMap<Id, Open> = HashMap::new();
        let mut nth = 0;
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((io, _)) => {
                        make_room(&mut open, shared.options.max_connections);
                        nth += 1;
                        let last = Arc::new(AtomicU64::new(0));
                        let task = tasks.spawn(connection(shared.clone(), io, last.clone()));
                        open.insert(task.id(), Open { nth, last, task });
                    }
                    Err(error) => {
                        // Out of descriptors, mostly: they come back as connections end.
                        tracing::warn!(%error, "cannot accept");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
                Some(ended) = tasks.join_next_with_id() => {
                    open.remove(&ended.map_or_else(|error| error.id(), |(id, ())| id));
                }
                () = &mut shutdown => break,
            }
        }
        drop(listener);
        shared.stop.cancel();
        let drained = async { while tasks.join_next().await.is_some() {} };
        // What hasn't ended by then ends with the set of tasks.
        let _ = timeout(shared.options.drain_timeout, drained).await;
        Ok(())
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let started = Instant::now();
        let path = request.uri().path().to_owned();
        let answer = self.router.clone().oneshot(request.map(Body::new));
        let response = match timeout(self.options.request_timeout, answer).await {
            Ok(Ok(response)) => response,
            Err(_) => {
                let mut response = Response::new(Body::from("the request took too long to arrive"));
                *response.status_mut() = StatusCode::REQUEST_TIMEOUT;
                response
            }
        };
        self.metrics.count(&path, &response, started.elapsed());
        response
    }
}

/// Ends the connection that is missed the least, if there are too many.
fn make_room(open: &mut HashMap<Id, Open>, max: usize) {
    if open.len() < max {
        return;
    }
    let idlest = open.iter().min_by_key(|(_, open)| (open.last.load(Ordering::Relaxed), open.nth)).map(|(id, _)| *id);
    if let Some(idlest) = idlest.and_then(|id| open.remove(&id)) {
        idlest.task.abort();
    }
}

async fn connection(shared: Arc<Shared>, io: TcpStream, last: Arc<AtomicU64>) {
    let _ = io.set_nodelay(true);
    let io = match timeout(shared.options.handshake_timeout, shared.tls.accept(io)).await {
        Ok(Ok(io)) => io,
        Ok(Err(error)) => return tracing::debug!(%error, "no TLS"),
        Err(_) => return tracing::debug!("no TLS in time"),
    };
    let service = service_fn(|request| {
        let (shared, last) = (shared.clone(), last.clone());
        async move {
            let response = shared.answer(request).await;
            last.store(shared.requests.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(shared.options.header_timeout);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(shared.options.header_timeout * 2))
        .keep_alive_timeout(shared.options.header_timeout);
    let mut served = pin!(http.serve_connection(TokioIo::new(io), service));
    let ended = tokio::select! {
        ended = &mut served => ended,
        () = shared.stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "a connection broke");
    }
}
