//! The composition root: sources, the store and the servers become one thing that runs until it is told to stop.
//!
//! Streams are accepted from the beginning but answered only when every source has told what it had at the start: a proxy
//! that connects early waits, and is never sent half a mesh.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use envoy_types::pb::envoy::config::core::v3::Node;
use mesh_api::{Diagnostic, Kind};
use mesh_webhook::server::Server as WebhookServer;
use mesh_xds::model::Settings;
use mesh_xds::server::{self, Backend, Caller, Counts, Server};
use mesh_xds::{Builder, Class, Proxy, ResourceSet, TypeUrl};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::identity::{Acceptor, Identity, Proxies, observe};
use crate::jwks;
use crate::source::Source;
use crate::store::{self, Debounce, Problems, Published, Store};
use crate::webhooks::Webhooks;

/// A control plane whose ports are open.
///
/// ```no_run
/// use mesh_controller::ControlPlane;
/// use mesh_controller::source::Files;
/// # async fn run(shutdown: impl std::future::Future<Output = ()>) -> std::io::Result<()> {
/// let control_plane = ControlPlane::builder()
///     .source(Files::new(["manifests".into()]))
///     .serve_xds("127.0.0.1:15010".parse().unwrap())
///     .bind()
///     .await?;
/// control_plane.run_until(shutdown).await
/// # }
/// ```
pub struct ControlPlane {
    store: Store,
    keys: jwks::Fetcher,
    server: Server<Mesh>,
    stop: CancellationToken,
    xds: Option<TcpListener>,
    secure: Option<(TcpListener, Arc<Acceptor>)>,
    webhooks: Option<(TcpListener, WebhookServer)>,
    http: Vec<TcpListener>,
    addresses: Addresses,
    ca_metrics: mesh_ca::server::Metrics,
}

/// What a control plane is to consist of.
pub struct ControlPlaneBuilder {
    settings: Settings,
    new_settings: Option<watch::Receiver<Arc<Settings>>>,
    debounce: Debounce,
    server: server::Options,
    sources: Vec<Box<dyn Source>>,
    identity: Option<Identity>,
    xds: Option<SocketAddr>,
    secure: Option<SocketAddr>,
    webhooks: Option<Webhooks>,
    http: Option<SocketAddr>,
    metrics: Option<SocketAddr>,
}

/// Where a control plane listens; none for what it does not serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Addresses {
    /// xDS and certificates in plaintext, istiod's 15010.
    pub grpc: Option<SocketAddr>,
    /// xDS and certificates over TLS, istiod's 15012.
    #[serde(rename = "secureGrpc")]
    pub secure_grpc: Option<SocketAddr>,
    /// Webhooks over HTTPS, istiod's 15017.
    pub https: Option<SocketAddr>,
    /// `/ready` and `/debug/…`, istiod's 8080.
    pub http: Option<SocketAddr>,
    /// `/metrics`, istiod's 15014.
    pub monitoring: Option<SocketAddr>,
}

impl ControlPlane {
    /// A control plane without sources that serves nothing yet.
    pub fn builder() -> ControlPlaneBuilder {
        ControlPlaneBuilder {
            settings: Settings::default(),
            new_settings: None,
            debounce: Debounce::default(),
            server: server::Options::default(),
            sources: Vec::new(),
            identity: None,
            xds: None,
            secure: None,
            webhooks: None,
            http: None,
            metrics: None,
        }
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Becomes true when streams are answered.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.store.synced()
    }

    /// What `/metrics` tells, to which others may add theirs.
    pub fn metrics(&self) -> &server::Metrics {
        self.server.metrics()
    }

    /// What is counted of certificates.
    pub fn certificate_metrics(&self) -> mesh_ca::server::Metrics {
        self.ca_metrics.clone()
    }

    /// Whom the connected proxies trust.
    pub fn proxies(&self) -> Proxies {
        let server = self.server.clone();
        Proxies::new(move |roots| observe(server.clients(), roots))
    }

    /// All that is wrong with the configuration.
    pub fn problems(&self) -> watch::Receiver<Arc<Problems>> {
        self.store.problems()
    }

    /// The states of the mesh.
    pub fn states(&self) -> watch::Receiver<Arc<Published>> {
        self.store.snapshots()
    }

    /// Runs until `shutdown`, then lets the streams end, for as long as the server's options say, and returns.
    ///
    /// # Errors
    /// When a listener fails for good.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let Self { store, keys, server, stop, xds, secure, webhooks, http, .. } = self;
        let mut ready = store.synced();
        // The pages stay until the streams have ended: `/ready` says no meanwhile.
        let drained = CancellationToken::new();
        let xds = async {
            let is_ready = async { ready.wait_for(|ready| *ready).await.is_ok() };
            let serve = tokio::select! {
                serve = is_ready => serve,
                () = stop.cancelled() => false,
            };
            if serve {
                let plaintext = async {
                    match xds {
                        Some(listener) => server.serve(listener, stop.cancelled()).await,
                        None => Ok(()),
                    }
                };
                let encrypted = async {
                    match secure {
                        Some((listener, tls)) => server.serve_incoming(tls.incoming(listener), stop.cancelled()).await,
                        None => Ok(()),
                    }
                };
                let admission = async {
                    match webhooks {
                        Some((listener, webhooks)) => webhooks.serve(listener, stop.cancelled()).await,
                        None => Ok(()),
                    }
                };
                tokio::try_join!(plaintext, encrypted, admission)?;
            }
            stop.cancelled().await;
            drained.cancel();
            io::Result::Ok(())
        };
        let mut pages = tokio::task::JoinSet::new();
        for listener in http {
            let (server, drained) = (server.clone(), drained.clone());
            pages.spawn(async move { server.serve_http(listener, drained.cancelled()).await });
        }
        let stopping = async {
            shutdown.await;
            tracing::info!("draining");
            stop.cancel();
        };
        let (xds, (), (), ()) = tokio::join!(xds, store.run(stop.clone()), keys.run(stop.clone()), stopping);
        while let Some(page) = pages.join_next().await {
            page??;
        }
        xds
    }
}

impl ControlPlaneBuilder {
    /// The settings of the mesh.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Settings that come later and replace the first; all but the domain, which stays.
    #[must_use]
    pub fn follow_settings(mut self, settings: watch::Receiver<Arc<Settings>>) -> Self {
        self.new_settings = Some(settings);
        self
    }

    /// When changes are published.
    #[must_use]
    pub fn debounce(mut self, debounce: Debounce) -> Self {
        self.debounce = debounce;
        self
    }

    /// How the server behaves.
    #[must_use]
    pub fn server_options(mut self, options: server::Options) -> Self {
        self.server = options;
        self
    }

    /// Adds a source. Where two sources define an object, the one that was added later counts.
    #[must_use]
    pub fn source(mut self, source: impl Source + 'static) -> Self {
        self.sources.push(Box::new(source));
        self
    }

    /// Certifies workloads, beside xDS. Without it there is no certificate service and no secure port.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Serves xDS and certificates over TLS to those who prove who they are. Needs an [`identity`](Self::identity).
    #[must_use]
    pub fn serve_secure(mut self, address: SocketAddr) -> Self {
        self.secure = Some(address);
        self
    }

    /// Serves xDS in plaintext. Port 0 is any free one.
    #[must_use]
    pub fn serve_xds(mut self, address: SocketAddr) -> Self {
        self.xds = Some(address);
        self
    }

    /// Serves injection and validation over HTTPS. Calls are answered when streams are: who asks earlier waits.
    #[must_use]
    pub fn serve_webhooks(mut self, webhooks: Webhooks) -> Self {
        self.webhooks = Some(webhooks);
        self
    }

    /// Serves `/ready` and `/debug/…`.
    #[must_use]
    pub fn serve_http(mut self, address: SocketAddr) -> Self {
        self.http = Some(address);
        self
    }

    /// Serves `/metrics`.
    #[must_use]
    pub fn serve_metrics(mut self, address: SocketAddr) -> Self {
        self.metrics = Some(address);
        self
    }

    /// Opens the ports.
    ///
    /// # Errors
    /// When an address is taken or not ours; the error names it.
    pub async fn bind(self) -> io::Result<ControlPlane> {
        let features = self.settings.features.clone();
        let mut store = Store::new(self.settings, self.debounce);
        let (wanted, news) = store.keys();
        let keys = jwks::Fetcher::new(&features, wanted, news).map_err(io::Error::other)?;
        if let Some(settings) = self.new_settings {
            store.settings(settings);
        }
        if let Some(identity) = &self.identity {
            store.authority(identity.authority.clone());
        }
        for source in self.sources {
            store.boxed_source(source);
        }
        let xds = bind(self.xds).await?;
        let secure = bind(self.secure.filter(|_| self.identity.is_some())).await?;
        let https = bind(self.webhooks.as_ref().map(|webhooks| webhooks.address)).await?;
        let http = bind(self.http).await?;
        let metrics = bind(self.metrics).await?;
        let at = |listener: &Option<TcpListener>| listener.as_ref().map(TcpListener::local_addr).transpose();
        let addresses = Addresses {
            grpc: at(&xds)?,
            secure_grpc: at(&secure)?,
            https: at(&https)?,
            http: at(&http)?,
            monitoring: at(&metrics)?,
        };
        let stop = CancellationToken::new();
        let mesh = Mesh {
            states: store.snapshots(),
            synced: store.synced(),
            builder: Builder::default(),
            told: Mutex::default(),
            identity: self.identity.clone(),
            stop: stop.clone(),
        };
        let ca_metrics = mesh_ca::server::Metrics::default();
        let mut server = Server::builder(mesh).options(self.server);
        if let Some(identity) = &self.identity {
            server = server.add_service(identity.service(ca_metrics.clone()));
        }
        let server = server.build();
        server.metrics().register(|registry| ca_metrics.register(registry));
        let webhooks = https.zip(self.webhooks).map(|(listener, webhooks)| {
            let certificate = webhooks.certificate.clone();
            (listener, WebhookServer::new(webhooks.hook(store.snapshots()), certificate))
        });
        if let Some((_, webhooks)) = &webhooks {
            server.metrics().register(|registry| webhooks.metrics().register(registry));
        }
        let secure =
            secure.zip(self.identity).map(|(listener, identity)| (listener, Arc::new(Acceptor::new(identity))));
        if let Some((_, acceptor)) = &secure {
            server.metrics().register(|registry| acceptor.register(registry));
        }
        let http = http.into_iter().chain(metrics).collect();
        Ok(ControlPlane { store, keys, server, stop, xds, secure, webhooks, http, addresses, ca_metrics })
    }

    /// [`bind`](Self::bind) and [`run_until`](ControlPlane::run_until) in one.
    ///
    /// # Errors
    /// As theirs.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        self.bind().await?.run_until(shutdown).await
    }
}

async fn bind(address: Option<SocketAddr>) -> io::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let mut result = TcpListener::bind(address).await;
    if result.is_err() && address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        // All addresses of a host without IPv6.
        result = TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await;
    }
    result.map(Some).map_err(|error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}")))
}

/// The mesh as the xDS server sees it.
struct Mesh {
    states: watch::Receiver<Arc<Published>>,
    synced: watch::Receiver<bool>,
    builder: Builder,
    /// What was told of what cannot be done for proxies, by class.
    told: Mutex<HashMap<Arc<Class>, Vec<Diagnostic>>>,
    identity: Option<Identity>,
    stop: CancellationToken,
}

/// A proxy on a stream.
struct Connected {
    proxy: Arc<Proxy>,
    /// It has proved to be of the namespace that it says; only then it may have that namespace's Secrets.
    verified: bool,
}

impl Mesh {
    /// Logs what cannot be done for a proxy, once for all classes that it cannot be done for.
    fn tell_problems_of(&self, state: &Published, proxy: &Arc<Proxy>) {
        let class = self.builder.class(&state.snapshot, proxy);
        let problems = self.builder.problems_of(&state.snapshot, proxy);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        store::tell(told.values().flat_map(|known| known.iter()), &problems);
        if problems.is_empty() {
            told.remove(&class);
        } else {
            told.insert(class, problems);
        }
    }
}

impl Backend for Mesh {
    type Snapshot = Published;
    type Client = Connected;

    fn snapshots(&self) -> watch::Receiver<Arc<Published>> {
        self.states.clone()
    }

    async fn authenticate(&self, caller: &Caller<'_>) -> Result<Arc<[String]>, tonic::Status> {
        match &self.identity {
            Some(identity) if caller.peer.encrypted => identity.authenticate(caller, SystemTime::now()).await,
            _ => Ok(caller.peer.identities.clone()),
        }
    }

    fn connect(&self, node: &Node, caller: &Caller<'_>) -> Result<Connected, tonic::Status> {
        let proxy = Proxy::from_node(node).map_err(|error| tonic::Status::invalid_argument(error.to_string()))?;
        let verified = self.identity.is_some() && caller.peer.encrypted;
        if verified {
            Identity::admit(&proxy, &caller.peer.identities)?;
        }
        Ok(Connected { proxy: Arc::new(proxy), verified })
    }

    fn resources(&self, state: &Published, client: &Connected, kind: TypeUrl) -> ResourceSet {
        let proxy = &client.proxy;
        if kind == TypeUrl::Listener {
            self.tell_problems_of(state, proxy);
        }
        let built = self.builder.build(&state.snapshot, proxy, kind);
        if kind == TypeUrl::Secret && !client.verified {
            if built.iter().next().is_some() {
                tracing::warn!(proxy = %proxy.id, "its Secrets are not sent: it has not proved who it is; let it connect over TLS");
            }
            return ResourceSet::default();
        }
        built
    }

    fn changed_at(&self, state: &Published) -> Option<Instant> {
        state.changed_at
    }

    fn is_ready(&self) -> bool {
        *self.synced.borrow() && !self.stop.is_cancelled()
    }

    fn counts(&self, state: &Published) -> Option<Counts> {
        Some(Counts::new(state.snapshot.services.len(), state.snapshot.virtual_services.len()))
    }

    fn cachez(&self) -> Value {
        let stats = self.builder.stats();
        json!({"resultsHeld": stats.held, "runsSinceStart": stats.runs})
    }

    fn configz(&self, state: &Published) -> Value {
        let config = state.objects.values().filter(|object| is_config(&object.kind_name()));
        config.filter_map(|object| object.to_json().ok()).collect()
    }

    fn registryz(&self, state: &Published) -> Value {
        let service = |service: &mesh_xds::model::Service| {
            let ports = service.ports.iter();
            let ports =
                ports.map(|p| json!({"name": p.name, "port": p.number, "protocol": format!("{:?}", p.protocol)}));
            json!({
                "Attributes": {
                    "ServiceRegistry": format!("{:?}", service.registry),
                    "Name": service.name,
                    "Namespace": service.namespace,
                    "Labels": service.labels,
                    "LabelSelectors": service.selector,
                },
                "hostname": service.hostname,
                "addresses": service.addresses,
                "ports": ports.collect::<Value>(),
                "MeshExternal": service.mesh_external,
            })
        };
        state.snapshot.services.iter().map(|(_, row)| service(row)).collect()
    }
}

/// True for kinds that configure a mesh. The others are its workloads, and its secrets.
fn is_config(kind: &str) -> bool {
    let group = mesh_api::object::KINDS.iter().find(|known| known.name == kind).map_or("", |known: &Kind| known.group);
    group.ends_with(".istio.io") || group == "gateway.networking.k8s.io" || group == "networking.k8s.io"
}
