//! Secrets for Envoy over a Unix socket: `envoy.service.secret.v3.SecretDiscoveryService`, as a stream or as deltas. Whoever
//! subscribes is sent what is there, and again what changes, at once.
//!
//! [`Session`] decides what is due and knows no sockets.

mod session;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::{DataSource, data_source::Specifier};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3 as tls;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use envoy_types::pb::envoy::service::secret::v3::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};
use envoy_types::pb::google::protobuf::Any;
use futures::Stream;
use mesh_xds::TypeUrl;
use prost::Message;
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

pub use session::{Due, Session};

use crate::secrets::{FileSecret, ROOTS, Secret, Stamp, Workloads, stamp};
use crate::unix::Socket;
use session::Ask;

/// How often files are looked at while somebody is subscribed to them.
const LOOK: Duration = Duration::from_secs(1);
/// A request names a few secrets.
const MAX_REQUEST: usize = 256 * 1024;

/// Where the control plane's `ca-crl.pem` is mounted: the ConfigMap `istio-ca-crl`.
const REVOKED: &str = "/var/run/secrets/istio/crl/ca-crl.pem";

/// Which roots of the mesh the streams have accepted.
#[derive(Clone, Debug)]
pub struct Acceptance {
    streams: Arc<Streams>,
    revoked: Arc<Path>,
}

#[derive(Debug, Default)]
struct Streams {
    next: AtomicU64,
    /// The version that a stream has accepted, by the stream's number; of streams that are subscribed to the roots.
    accepted: watch::Sender<BTreeMap<u64, Option<String>>>,
}

impl Acceptance {
    /// Ends when every stream that is subscribed to the roots has accepted these.
    pub async fn of(&self, roots: &Secret) {
        loop {
            // The lists that they are sent with may change meanwhile.
            let version = roots.clone().revocable(&self.revoked).version();
            let all =
                |streams: &BTreeMap<u64, Option<String>>| streams.values().all(|has| has.as_ref() == Some(&version));
            if tokio::time::timeout(LOOK, self.streams.accepted.subscribe().wait_for(all)).await.is_ok() {
                return;
            }
        }
    }
}

/// What one stream has accepted, for as long as it lives.
struct StreamAcceptance {
    streams: Arc<Streams>,
    number: u64,
}

impl StreamAcceptance {
    fn new(streams: Arc<Streams>) -> Self {
        let number = streams.next.fetch_add(1, Ordering::Relaxed);
        Self { streams, number }
    }

    fn is(&self, accepted: Option<Option<&str>>) {
        self.streams.accepted.send_if_modified(|streams| {
            let known = streams.get(&self.number).map(Option::as_deref);
            if known == accepted {
                return false;
            }
            match accepted {
                Some(version) => drop(streams.insert(self.number, version.map(str::to_owned))),
                None => drop(streams.remove(&self.number)),
            }
            true
        });
    }
}

impl Drop for StreamAcceptance {
    fn drop(&mut self) {
        self.is(None);
    }
}

/// The service.
#[derive(Clone, Debug)]
pub struct Server {
    workloads: Workloads,
    revoked: Arc<Path>,
    streams: Arc<Streams>,
}

impl Server {
    /// Serves these secrets, and files.
    pub fn new(workloads: Workloads) -> Self {
        Self { workloads, revoked: Path::new(REVOKED).into(), streams: Arc::default() }
    }

    /// Takes the lists of what the mesh's authorities have revoked from this file.
    #[must_use]
    pub fn revoked(mut self, file: PathBuf) -> Self {
        self.revoked = file.into();
        self
    }

    /// What is accepted of the roots.
    pub fn acceptance(&self) -> Acceptance {
        Acceptance { streams: self.streams.clone(), revoked: self.revoked.clone() }
    }

    /// Serves until dropped.
    pub async fn serve(self, socket: Socket) {
        let service = hyper_util::service::TowerToHyperService::new(self.into_service());
        socket.serve(Arc::new(service)).await;
    }

    /// The service for a server of HTTP/2.
    pub fn into_service(self) -> SecretDiscoveryServiceServer<Self> {
        SecretDiscoveryServiceServer::new(self).max_decoding_message_size(MAX_REQUEST)
    }

    /// What is there now, of these names.
    fn due(&mut self, session: &Session) -> Vec<Due> {
        let workload = self.workloads.borrow_and_update().clone();
        session.due(&|name| match workload.get(name) {
            Some(roots) if name == ROOTS => Some(roots.revocable(&self.revoked)),
            secret => secret,
        })
    }

    fn stream<A: Answered>(&self, asks: Streaming<A>) -> Answers<A::Response> {
        let acceptance = StreamAcceptance::new(self.streams.clone());
        let (secrets, session) = (self.clone(), Session::default());
        let client = Client { asks, secrets, acceptance, session, stamps: Vec::new() };
        Box::pin(futures::stream::unfold(client, |mut client| async {
            let due = client.next().await?;
            let nonce = client.session.sent(&due);
            Some((Ok(A::answer(due, nonce)), client))
        }))
    }
}

type Answers<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

#[tonic::async_trait]
impl SecretDiscoveryService for Server {
    type StreamSecretsStream = Answers<DiscoveryResponse>;
    type DeltaSecretsStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        Ok(Response::new(self.stream(request.into_inner())))
    }

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Ok(Response::new(self.stream(request.into_inner())))
    }

    async fn fetch_secrets(&self, request: Request<DiscoveryRequest>) -> Result<Response<DiscoveryResponse>, Status> {
        let mut session = Session::default();
        request.get_ref().apply(&mut session);
        let due = self.clone().due(&session);
        Ok(Response::new(DiscoveryRequest::answer(due, "1".into())))
    }
}

/// One stream of a client.
struct Client<A> {
    asks: Streaming<A>,
    secrets: Server,
    acceptance: StreamAcceptance,
    session: Session,
    /// Of the files that it is subscribed to, when they were last read.
    stamps: Vec<Stamp>,
}

impl<A: Answered> Client<A> {
    /// What to send next. `None`: the client is gone.
    async fn next(&mut self) -> Option<Vec<Due>> {
        loop {
            let files = tokio::select! {
                ask = self.asks.message() => {
                    ask.ok()??.apply(&mut self.session);
                    self.acceptance.is(self.session.accepted(ROOTS));
                    self.files()
                }
                Ok(()) = self.secrets.workloads.changed() => self.files(),
                () = tokio::time::sleep(LOOK), if !self.stamps.is_empty() => {
                    let files = self.files();
                    if files == self.stamps {
                        continue;
                    }
                    files
                }
            };
            self.stamps = files;
            let due = self.secrets.due(&self.session);
            if !due.is_empty() {
                return Some(due);
            }
        }
    }

    fn files(&self) -> Vec<Stamp> {
        let of = |name: &str| match name {
            ROOTS => Some(vec![stamp(&self.secrets.revoked)]),
            name => Some(FileSecret::parse(name)?.stamp()),
        };
        self.session.names().filter_map(of).collect()
    }
}

/// A request of one of the two protocols, and the answer that belongs to it.
trait Answered: Ask + Send + 'static {
    type Response: Send;
    fn answer(due: Vec<Due>, nonce: String) -> Self::Response;
}

impl Answered for DiscoveryRequest {
    type Response = DiscoveryResponse;

    fn answer(due: Vec<Due>, nonce: String) -> DiscoveryResponse {
        DiscoveryResponse {
            version_info: nonce.clone(),
            resources: due.into_iter().map(|due| packed(&due)).collect(),
            type_url: TypeUrl::Secret.as_str().to_owned(),
            nonce,
            ..DiscoveryResponse::default()
        }
    }
}

impl Answered for DeltaDiscoveryRequest {
    type Response = DeltaDiscoveryResponse;

    fn answer(due: Vec<Due>, nonce: String) -> DeltaDiscoveryResponse {
        let resource = |due: Due| Resource {
            resource: Some(packed(&due)),
            name: due.name,
            version: due.version,
            ..Resource::default()
        };
        DeltaDiscoveryResponse {
            system_version_info: nonce.clone(),
            resources: due.into_iter().map(resource).collect(),
            type_url: TypeUrl::Secret.as_str().to_owned(),
            nonce,
            ..DeltaDiscoveryResponse::default()
        }
    }
}

fn packed(due: &Due) -> Any {
    let inline = |bytes: &Bytes| {
        Some(DataSource { specifier: Some(Specifier::InlineBytes(bytes.to_vec())), ..DataSource::default() })
    };
    let secret = match &due.secret {
        Secret::KeyPair { chain, key } => tls::secret::Type::TlsCertificate(tls::TlsCertificate {
            certificate_chain: inline(chain),
            private_key: inline(key),
            ..tls::TlsCertificate::default()
        }),
        Secret::Roots(roots) => tls::secret::Type::ValidationContext(tls::CertificateValidationContext {
            trusted_ca: inline(roots),
            ..tls::CertificateValidationContext::default()
        }),
        Secret::RevocableRoots { roots, lists } => {
            tls::secret::Type::ValidationContext(tls::CertificateValidationContext {
                trusted_ca: inline(roots),
                crl: inline(lists),
                ..tls::CertificateValidationContext::default()
            })
        }
    };
    let secret = tls::Secret { name: due.name.clone(), r#type: Some(secret) };
    Any { type_url: TypeUrl::Secret.as_str().to_owned(), value: secret.encode_to_vec() }
}

#[cfg(test)]
mod tests;
