//! What the certificate service costs over TLS: requests per second of one core, with a client certificate as the proof.
//!
//! The server has a thread of its own, and what counts is the CPU time of that thread: clients, and whatever else the machine
//! does, take nothing from the figure. `cargo bench -p mesh-ca --features server --bench service`

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench that cannot make its input has nothing to measure"
)]
#![allow(clippy::disallowed_methods, missing_docs, reason = "a program with a clock")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_ca::authenticate::ClientCertificate;
use mesh_ca::proto::{IstioCertificateRequest, IstioCertificateServiceClient};
use mesh_ca::server::{CertificateService, Verified};
use mesh_ca::{Authority, Certificate, Chain, Csr, Current, KeyKind, Lifetimes, PrivateKey, RootOptions};
use rustls::client::Resumption;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt;

const HOST: &str = "istiod.istio-system.svc";
const ID: &str = "spiffe://cluster.local/ns/default/sa/sleep";
const CLIENTS: usize = 16;

/// A mesh of one authority, one server, and workloads of one account.
struct Mesh {
    authority: Arc<Current>,
    client: TlsConnector,
    server: TlsAcceptor,
    csr: String,
}

type Presented = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn presented(chain: &Chain, key: &PrivateKey) -> Presented {
    let chain = Certificate::all_from_pem(chain.presented_pem().as_bytes()).unwrap();
    let chain = chain.iter().map(|certificate| certificate.der().clone()).collect();
    (chain, PrivateKeyDer::from_pem_slice(key.to_pem().unwrap().as_bytes()).unwrap())
}

impl Mesh {
    fn new(kind: KeyKind) -> Self {
        let now = SystemTime::now();
        let mut options = RootOptions::default();
        options.key = kind;
        let authority = Authority::self_signed(&options, Lifetimes::default(), now).unwrap();
        let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
        let id = ID.parse().unwrap();
        let csr = Csr::write(&key, Some(&id)).unwrap();
        let chain = authority.sign(&Csr::from_pem(csr.as_bytes()).unwrap(), &id, None, now).unwrap();
        let client = presented(&chain, &key);
        let (key, chain) = authority.serving(&[HOST.to_owned()], Duration::from_secs(3600), now).unwrap();
        let server = presented(&chain, &key);

        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate().der().clone()).unwrap();
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build().unwrap();
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_client_cert_verifier(verifier);
        let mut server = builder.with_single_cert(server.0, server.1).unwrap();
        server.alpn_protocols = vec![b"h2".to_vec()];
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_root_certificates(roots);
        let mut client = builder.with_client_auth_cert(client.0, client.1).unwrap();
        client.alpn_protocols = vec![b"h2".to_vec()];
        // Each agent is a process of its own and has no session of before.
        client.resumption = Resumption::disabled();
        Self {
            authority: Arc::new(Current::new(authority)),
            client: Arc::new(client).into(),
            server: Arc::new(server).into(),
            csr,
        }
    }

    /// Serves on a thread until the sender is gone; the thread tells how much CPU it took.
    fn serve(&self) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<Duration>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (tls, service) = (self.server.clone(), CertificateService::new(self.authority.clone()));
        let service = service.authenticator(ClientCertificate).into_service();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let accepting = async {
                let listener = TcpListener::from_std(listener).unwrap();
                loop {
                    let (io, _) = listener.accept().await.unwrap();
                    io.set_nodelay(true).unwrap();
                    let (tls, service) = (tls.clone(), service.clone());
                    tokio::spawn(async move {
                        let io = tls.accept(io).await.unwrap();
                        let leaf = io.get_ref().1.peer_certificates().unwrap().first().unwrap();
                        let verified = Verified(Certificate::from_der(leaf).unwrap().uris().into());
                        let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
                            request.extensions_mut().insert(verified.clone());
                            service.clone().oneshot(request)
                        });
                        let http2 = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                        // A client that has what it wants just goes.
                        let _ = http2.serve_connection(TokioIo::new(io), service).await;
                    });
                }
            };
            runtime.block_on(async {
                tokio::select! {
                    () = accepting => {}
                    _ = stopped => {}
                }
            });
            cpu_time()
        });
        (address, stop, thread)
    }

    async fn connect(&self, address: SocketAddr) -> IstioCertificateServiceClient<Channel> {
        let tls = self.client.clone();
        let connect = move |_| {
            let tls = tls.clone();
            async move {
                let io = TcpStream::connect(address).await?;
                io.set_nodelay(true)?;
                let io = tls.connect(ServerName::try_from(HOST).unwrap(), io).await?;
                std::io::Result::Ok(TokioIo::new(io))
            }
        };
        let channel = Endpoint::from_static("http://istiod").connect_with_connector(tower::service_fn(connect)).await;
        IstioCertificateServiceClient::new(channel.unwrap())
    }

    async fn ask(&self, client: &mut IstioCertificateServiceClient<Channel>) {
        let request = IstioCertificateRequest { csr: self.csr.clone(), validity_duration: 3600, metadata: None };
        let answer = client.create_certificate(request).await.unwrap().into_inner();
        assert_eq!(answer.cert_chain.len(), 2);
    }
}

/// How long this thread has run, as Linux counts it.
fn cpu_time() -> Duration {
    let counted = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(counted.split(' ').next().unwrap().parse().unwrap())
}

/// Asks for that long, on one connection for all requests of a client or on one for each, and prints the figure.
fn measure(name: &str, kind: KeyKind, reconnects: bool, time: Duration) {
    let mesh = Arc::new(Mesh::new(kind));
    let (address, stop, server) = mesh.serve();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let end = Instant::now() + time;
    let asking: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mesh = mesh.clone();
            runtime.spawn(async move {
                let (mut client, mut count) = (mesh.connect(address).await, 0u64);
                loop {
                    mesh.ask(&mut client).await;
                    count += 1;
                    if Instant::now() >= end {
                        return count;
                    }
                    if reconnects {
                        client = mesh.connect(address).await;
                    }
                }
            })
        })
        .collect();
    let count: u64 = runtime.block_on(async {
        let mut count = 0;
        for client in asking {
            count += client.await.unwrap();
        }
        count
    });
    drop(stop);
    let used = server.join().unwrap().as_secs_f64();
    println!("{name}: {:.0} certificates/s of one core ({count} in {used:.2} s of CPU)", count as f64 / used);
}

fn main() {
    // Under `cargo test` once around is enough.
    let time = if std::env::args().any(|arg| arg == "--bench") { Duration::from_secs(5) } else { Duration::ZERO };
    measure("CSR service over TLS, EC CA, kept connections", KeyKind::EcdsaP256, false, time);
    measure("CSR service over TLS, EC CA, a connection each", KeyKind::EcdsaP256, true, time);
    measure("CSR service over TLS, RSA-2048 CA, kept connections", KeyKind::Rsa2048, false, time);
}
