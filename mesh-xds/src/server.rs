//! The server that proxies call: ADS in both forms, and tonic's services beside it on the same port.
//!
//! It knows nothing of meshes. A [`Backend`] says who a client is and what it should have at one snapshot; snapshots come
//! through a `watch` channel, so that whoever is slow sees only the newest. Every stream is a [`crate::ads::Session`];
//! this module gives it a socket, a clock and a place in the list of clients. It never rejects a connection for there
//! being many: a stream costs little until it is its turn to be written.
//!
//! ```no_run
//! use std::sync::Arc;
//! use mesh_xds::server::{Backend, Caller, Server};
//! use mesh_xds::{ResourceSet, TypeUrl};
//! use tokio::sync::watch;
//!
//! struct Fixed(watch::Sender<Arc<ResourceSet>>);
//! impl Backend for Fixed {
//!     type Snapshot = ResourceSet;
//!     type Client = ();
//!     fn snapshots(&self) -> watch::Receiver<Arc<ResourceSet>> {
//!         self.0.subscribe()
//!     }
//!     fn connect(&self, _: &envoy_types::pb::envoy::config::core::v3::Node, _: &Caller<'_>) -> Result<(), tonic::Status> {
//!         Ok(())
//!     }
//!     fn resources(&self, clusters: &ResourceSet, _: &(), ty: TypeUrl) -> ResourceSet {
//!         if ty == TypeUrl::Cluster { clusters.clone() } else { ResourceSet::default() }
//!     }
//! }
//! # async fn run() -> std::io::Result<()> {
//! let (clusters, _) = watch::channel(Arc::new(ResourceSet::default()));
//! let server = Server::builder(Fixed(clusters)).build();
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:15010").await?;
//! server.serve(listener, std::future::pending()).await
//! # }
//! ```

mod clients;
mod grpc;
mod metrics;
mod pages;
mod preface;
mod reflection;
mod stream;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::Node;
use futures::{Stream, StreamExt};
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::server::TcpConnectInfo;
use tower::{Service, ServiceExt};

pub use clients::{Clients, Connection};
pub use metrics::{Counts, Metrics, Total};

use crate::ads;
use crate::ads::Face;
use crate::resource::{ResourceSet, TypeUrl};
use preface::Prompt;
use stream::AdsBody;

/// The service's name in gRPC.
pub const SERVICE: &str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
const SOTW_PATH: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
const DELTA_PATH: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// Who clients are and what they should have.
pub trait Backend: Send + Sync + 'static {
    /// One consistent state of everything.
    type Snapshot: Send + Sync + 'static;
    /// A client, as read from its node.
    type Client: Send + Sync + 'static;

    /// The snapshots; each receiver may miss some, never the newest.
    fn snapshots(&self) -> watch::Receiver<Arc<Self::Snapshot>>;

    /// Finds out who opens a stream, before anything of it is read: what it then is admitted as, as
    /// [`Peer::identities`]. By default that is what its connection proved.
    ///
    /// # Errors
    /// The status with which the stream is closed: `Unauthenticated`, or `Unavailable` while it can't be found out.
    fn authenticate(&self, caller: &Caller<'_>) -> impl Future<Output = Result<Arc<[String]>, tonic::Status>> + Send {
        std::future::ready(Ok(caller.peer.identities.clone()))
    }

    /// Admits a client on the first request of its stream.
    ///
    /// # Errors
    /// The status with which the stream is closed: `InvalidArgument` for a node that makes no sense, `Unauthenticated`
    /// or `PermissionDenied`, `Unavailable` while nothing can be served.
    fn connect(&self, node: &Node, caller: &Caller<'_>) -> Result<Self::Client, tonic::Status>;

    /// All that a client should have of a type at a snapshot. Runs on the thread of the stream: what is expensive is
    /// expected to be remembered.
    fn resources(&self, snapshot: &Self::Snapshot, client: &Self::Client, ty: TypeUrl) -> ResourceSet;

    /// When the first change that led to this snapshot was seen, for `pilot_proxy_convergence_time`.
    fn changed_at(&self, _snapshot: &Self::Snapshot) -> Option<Instant> {
        None
    }
    /// True once `/ready` may say so.
    fn is_ready(&self) -> bool {
        true
    }
    /// How much there is of what.
    fn counts(&self, _snapshot: &Self::Snapshot) -> Option<Counts> {
        None
    }
    /// What is remembered for the next build, for `/debug/cachez`.
    fn cachez(&self) -> serde_json::Value {
        serde_json::Value::Object(serde_json::Map::new())
    }
    /// The objects of a snapshot as Kubernetes would show them, for `/debug/configz`.
    fn configz(&self, _snapshot: &Self::Snapshot) -> serde_json::Value {
        serde_json::Value::Array(Vec::new())
    }
    /// The services of a snapshot, for `/debug/registryz`.
    fn registryz(&self, _snapshot: &Self::Snapshot) -> serde_json::Value {
        serde_json::Value::Array(Vec::new())
    }
}

/// The other end of a connection.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Peer {
    /// Where it connects from.
    pub address: Option<SocketAddr>,
    /// Who it proved to be, such as SPIFFE ids of its certificate.
    pub identities: Arc<[String]>,
    /// It came over TLS: who it is must be proved.
    pub encrypted: bool,
}

impl Peer {
    /// A peer at an address, with what its certificate proved.
    pub fn new(address: Option<SocketAddr>, identities: impl Into<Arc<[String]>>) -> Self {
        Self { address, identities: identities.into(), encrypted: false }
    }

    /// A peer that came over TLS, with what its certificate proved, if it showed one.
    pub fn over_tls(address: SocketAddr, identities: impl Into<Arc<[String]>>) -> Self {
        Self { encrypted: true, ..Self::new(Some(address), identities) }
    }
}

/// Who opens a stream.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Caller<'a> {
    /// The connection's other end.
    pub peer: &'a Peer,
    /// The metadata of the stream, such as `authorization`.
    pub headers: &'a HeaderMap,
}

impl<'a> Caller<'a> {
    /// Who opens a stream over a connection with this other end, with this metadata.
    pub fn new(peer: &'a Peer, headers: &'a HeaderMap) -> Self {
        Self { peer, headers }
    }
}

/// How a server behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Of each stream.
    pub session: Arc<ads::Options>,
    /// The largest request that is read, in bytes.
    pub max_request: usize,
    /// How long a connection may take to say that it speaks HTTP/2.
    pub preface_timeout: Duration,
    /// How often a silent connection is pinged.
    pub keepalive_interval: Duration,
    /// How long a ping may stay unanswered.
    pub keepalive_timeout: Duration,
    /// How long streams may take to end on shutdown.
    pub drain_timeout: Duration,
    /// What we call our version, in metrics and pages.
    pub version: String,
    /// Debug pages answer others than the local host too.
    pub remote_debug: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            session: Arc::default(),
            max_request: 4 << 20,
            preface_timeout: Duration::from_secs(10),
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(5),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            remote_debug: false,
        }
    }
}

/// What all streams of a server share.
struct Shared<B: Backend> {
    backend: B,
    newest: RwLock<Arc<B::Snapshot>>,
    options: Options,
    clients: Clients<B::Client>,
    metrics: Metrics,
    started: Instant,
}

impl<B: Backend> Shared<B> {
    /// Runs `f` at the newest snapshot; it is told whether `seen` hadn't seen that. While it runs nobody is at a newer one:
    /// a backend that remembers results for one snapshot is never asked to go back. Must not be called within itself.
    fn at_newest<T>(
        &self,
        seen: &mut watch::Receiver<Arc<B::Snapshot>>,
        f: impl FnOnce(&Arc<B::Snapshot>, bool) -> T,
    ) -> T {
        let mut changed = false;
        let mut look = || {
            let newest = seen.borrow_and_update();
            changed |= newest.has_changed();
            newest.clone()
        };
        let newest = look();
        let stale = !Arc::ptr_eq(&self.newest.read().unwrap_or_else(PoisonError::into_inner), &newest);
        if stale {
            *self.newest.write().unwrap_or_else(PoisonError::into_inner) = look();
        }
        f(&self.newest.read().unwrap_or_else(PoisonError::into_inner), changed)
    }
}

/// Collects what a server serves.
pub struct Builder<B: Backend> {
    backend: B,
    options: Options,
    routes: Routes,
    descriptors: Vec<&'static [u8]>,
    names: Vec<&'static str>,
}

impl<B: Backend> Builder<B> {
    /// Replaces the defaults.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Serves a tonic service on the same port. Its requests carry [`Peer`] and tonic's `TcpConnectInfo` as extensions.
    #[must_use]
    pub fn add_service<S>(mut self, service: S) -> Self
    where
        S: Service<Request<tonic::body::Body>, Response = Response<tonic::body::Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.names.push(S::NAME);
        self.routes = self.routes.add_service(service);
        self
    }

    /// Lets reflection show more services: an encoded `FileDescriptorSet`.
    #[must_use]
    pub fn file_descriptor_set(mut self, encoded: &'static [u8]) -> Self {
        self.descriptors.push(encoded);
        self
    }

    /// The server, with health and reflection.
    pub fn build(self) -> Server<B> {
        let (health, service) = tonic_health::server::health_reporter();
        let mut routes = self.routes.add_service(service);
        match reflection::service(&self.descriptors) {
            Ok(service) => routes = routes.add_service(service),
            Err(error) => tracing::error!(%error, "no gRPC reflection"),
        }
        let metrics = Metrics::new(&self.options.version);
        let names = self.names.into_iter().chain([SERVICE]).collect();
        Server {
            shared: Arc::new(Shared {
                newest: RwLock::new(self.backend.snapshots().borrow().clone()),
                backend: self.backend,
                options: self.options,
                clients: Clients::default(),
                metrics,
                started: Instant::now(),
            }),
            routes: routes.prepare(),
            health,
            names,
        }
    }
}

/// An xDS server. Cloning shares it: one server may serve several listeners.
pub struct Server<B: Backend> {
    shared: Arc<Shared<B>>,
    routes: Routes,
    health: tonic_health::server::HealthReporter,
    names: Arc<[&'static str]>,
}

impl<B: Backend> Clone for Server<B> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            routes: self.routes.clone(),
            health: self.health.clone(),
            names: self.names.clone(),
        }
    }
}

impl<B: Backend> Server<B> {
    /// A server of what `backend` has.
    pub fn builder(backend: B) -> Builder<B> {
        Builder {
            backend,
            options: Options::default(),
            routes: Routes::default(),
            descriptors: Vec::new(),
            names: Vec::new(),
        }
    }

    /// The backend.
    pub fn backend(&self) -> &B {
        &self.shared.backend
    }
    /// Who is connected.
    pub fn clients(&self) -> &Clients<B::Client> {
        &self.shared.clients
    }
    /// What is counted.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Serves gRPC in plaintext until `shutdown`, then ends the streams and returns.
    ///
    /// # Errors
    /// None of a single connection; reserved for those of the listener.
    pub async fn serve(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let incoming = futures::stream::unfold(listener, |listener| async move {
            let (io, address) = accept(&listener).await;
            Some(((io, Peer::new(Some(address), [])), listener))
        });
        self.serve_incoming(incoming, shutdown).await
    }

    /// Serves gRPC on connections that something else accepted, such as a TLS acceptor, until `shutdown` or their end.
    ///
    /// # Errors
    /// None of a single connection; reserved for those of the source of connections.
    pub async fn serve_incoming<I, IO>(&self, incoming: I, shutdown: impl Future<Output = ()>) -> io::Result<()>
    where
        I: Stream<Item = (IO, Peer)>,
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        for name in self.names.iter() {
            self.health.set_service_status(*name, tonic_health::ServingStatus::Serving).await;
        }
        let (drain, draining) = watch::channel(false);
        let mut connections = JoinSet::new();
        let (mut incoming, mut shutdown) = (pin!(incoming), pin!(shutdown));
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                next = incoming.next() => match next {
                    Some((io, peer)) => { connections.spawn(self.clone().connection(io, peer, draining.clone())); }
                    None => break,
                },
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
            }
        }
        for name in self.names.iter() {
            self.health.set_service_status(*name, tonic_health::ServingStatus::NotServing).await;
        }
        drain.send_replace(true);
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.shared.options.drain_timeout, all).await.is_err() {
            tracing::warn!(left = connections.len(), "connections did not end in time");
            connections.shutdown().await;
        }
        Ok(())
    }

    /// Serves `/ready`, `/metrics` and `/debug/…` over HTTP/1 until `shutdown`.
    ///
    /// # Errors
    /// None of a single connection; reserved for those of the listener.
    pub async fn serve_http(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            let (io, address) = tokio::select! {
                () = &mut shutdown => return Ok(()),
                next = accept(&listener) => next,
                Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            };
            let (server, peer) = (self.clone(), Peer::new(Some(address), []));
            connections.spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let response = pages::respond(&server.shared, request.method(), request.uri(), &peer);
                    std::future::ready(Ok::<_, Infallible>(response))
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .serve_connection(TokioIo::new(io), service)
                    .await;
            });
        }
    }

    /// Answers one request of the pages, without a socket.
    pub fn page(&self, path_and_query: &str) -> Response<String> {
        let uri = path_and_query.parse().unwrap_or_default();
        let local = Peer::new(Some(([127, 0, 0, 1], 0).into()), []);
        pages::respond(&self.shared, &Method::GET, &uri, &local)
    }

    async fn connection<IO>(self, io: IO, peer: Peer, mut draining: watch::Receiver<bool>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let options = &self.shared.options;
        let mut http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        http2
            .timer(TokioTimer::new())
            .keep_alive_interval(options.keepalive_interval)
            .keep_alive_timeout(options.keepalive_timeout)
            // What waits in HTTP/2 waits in memory: this much of each stream, and no more.
            .max_send_buf_size(64 * 1024)
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(1024 * 1024);
        let (server, drain) = (self.clone(), draining.clone());
        let from = peer.address;
        let service = service_fn(move |request: Request<Incoming>| {
            let (server, peer, drain) = (server.clone(), peer.clone(), drain.clone());
            async move { Ok::<_, Infallible>(server.request(request, peer, drain).await) }
        });
        let io = Prompt::new(io, options.preface_timeout, self.shared.metrics.silent());
        let mut connection = pin!(http2.serve_connection(TokioIo::new(io), service));
        let told = async {
            let _ = draining.wait_for(|draining| *draining).await;
        };
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = told => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(?from, %error, "connection ended");
        }
    }

    async fn request(
        &self,
        mut request: Request<Incoming>,
        mut peer: Peer,
        drain: watch::Receiver<bool>,
    ) -> Response<Reply<B>> {
        let face = match request.uri().path() {
            SOTW_PATH => Face::Sotw,
            DELTA_PATH => Face::Delta,
            _ => {
                let info = TcpConnectInfo { local_addr: None, remote_addr: peer.address };
                request.extensions_mut().insert(info);
                request.extensions_mut().insert(peer);
                return match self.routes.clone().oneshot(request).await {
                    Ok(response) => response.map(Reply::Other),
                    Err(never) => match never {},
                };
            }
        };
        let grpc = |v: &http::HeaderValue| v.as_bytes().starts_with(b"application/grpc");
        let mut response = Response::new(Reply::Other(tonic::body::Body::empty()));
        if request.method() != Method::POST {
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            return response;
        }
        if !request.headers().get(header::CONTENT_TYPE).is_some_and(grpc) {
            *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
            return response;
        }
        let (parts, body) = request.into_parts();
        match self.shared.backend.authenticate(&Caller { peer: &peer, headers: &parts.headers }).await {
            Ok(identities) => peer.identities = identities,
            Err(status) => return status.into_http::<tonic::body::Body>().map(Reply::Other),
        }
        let body = AdsBody::new(self.shared.clone(), face, peer, parts.headers, body, drain);
        *response.body_mut() = Reply::Ads(Box::new(body));
        response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/grpc"));
        response
    }
}

/// The next connection and where it comes from. A listener that fails is asked again until it works.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((io, address)) => {
                let _ = io.set_nodelay(true);
                return (io, address);
            }
            Err(error) => {
                // Out of descriptors, mostly: they come back as connections end.
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// The body of a response: ours or tonic's.
enum Reply<B: Backend> {
    Ads(Box<AdsBody<B>>),
    Other(tonic::body::Body),
}

impl<B: Backend> Body for Reply<B> {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        match self.get_mut() {
            Reply::Ads(body) => Pin::new(body).poll_frame(cx).map(|f| f.map(|f| f.map_err(|never| match never {}))),
            Reply::Other(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Reply::Ads(_) => false,
            Reply::Other(body) => body.is_end_stream(),
        }
    }
}
