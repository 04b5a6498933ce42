//! Callers who mean harm to the certificate service: each is refused with the code that says why, is counted, and slows
//! nobody else. All over real sockets, with meshd as a process.

use std::io::{Read, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mesh_ca::server::proto::{IMPERSONATED_IDENTITY, IstioCertificateRequest, metadata};
use mesh_ca::{Authority, Certificate, Csr, KeyKind, PrivateKey};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateSigningRequestDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::certificates::{Meshd, asked, certified, istiod, streamed, tls};

/// Bits of RSA that are too few, and a wish to sign others. Made by openssl; nobody has the keys any more.
const WEAK_KEY: &str = include_str!("hostile/weak-key.pem");
const AUTHORITY: &str = include_str!("hostile/authority.pem");

const AUTHENTICATION: &str = "citadel_server_authentication_failure_count";
const PARSING: &str = "citadel_server_csr_parsing_err_count";
const ANOTHERS: &str = "citadel_server_csr_sign_err_count{error=\"CSR_ERROR\"}";
const TTL: &str = "citadel_server_csr_sign_err_count{error=\"TTL_ERROR\"}";
const ISSUED: &str = "citadel_server_success_cert_issuance_count";

/// A meshd that believes an issuer of tokens, and an honest workload in it.
struct Mesh {
    folder: TempDir,
    issuer: EncodingKey,
    meshd: Meshd,
    root: Certificate,
    key: PrivateKey,
}

fn new_issuer() -> EncodingKey {
    let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap().to_pem().unwrap();
    let der = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    EncodingKey::from_ec_der(der.secret_der())
}

fn request(csr: &str) -> IstioCertificateRequest {
    IstioCertificateRequest { csr: csr.to_owned(), validity_duration: 3600, metadata: None }
}

impl Mesh {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("manifests")).unwrap();
        let issuer = new_issuer();
        let jwk = Jwk::from_encoding_key(&issuer, Algorithm::ES256).unwrap();
        std::fs::write(folder.path().join("jwks.json"), json!({ "keys": [jwk] }).to_string()).unwrap();
        let meshd = Meshd::start(folder.path());
        let root = std::fs::read(folder.path().join("ca/root-cert.pem")).unwrap();
        let root = Certificate::all_from_pem(&root).unwrap().remove(0);
        Self { folder, issuer, meshd, root, key: PrivateKey::generate(KeyKind::EcdsaP256).unwrap() }
    }

    /// The token of `sleep` in `default`, with other claims.
    fn token(&self, claims: Value) -> String {
        token(&self.issuer, claims)
    }

    fn csr(&self, id: Option<&str>) -> String {
        Csr::write(&self.key, id.map(|id| id.parse().unwrap()).as_ref()).unwrap()
    }

    /// What a counter of `/metrics` says.
    async fn count(&self, name: &str) -> u64 {
        let address = self.meshd.address("monitoring");
        let answer = tokio::task::spawn_blocking(move || crate::commands::get(&address, "/metrics")).await.unwrap();
        let value = answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or("0");
        value.parse().unwrap()
    }

    /// A connection of the honest workload's own, with its certificate.
    async fn certified(&self) -> Channel {
        let token = self.token(json!({}));
        let chain = certified(self.meshd.plaintext().await, &self.csr(None), Some(&token)).await.unwrap();
        self.meshd.secure(&self.root, Some((&chain[0], &self.key))).await.unwrap()
    }

    /// How long an honest workload waits for its certificate: connection, handshake, token, signature.
    async fn wait(&self) -> Duration {
        let (csr, token, start) = (self.csr(None), self.token(json!({})), Instant::now());
        certified(self.meshd.secure(&self.root, None).await.unwrap(), &csr, Some(&token)).await.unwrap();
        start.elapsed()
    }
}

fn token(issuer: &EncodingKey, other: Value) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let mut claims = json!({
        "iss": "https://issuer", "aud": ["istio-ca"], "exp": now + 600, "sub": "system:serviceaccount:default:sleep",
    });
    for (name, value) in other.as_object().unwrap() {
        claims[name] = value.clone();
    }
    jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, issuer).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_is_refused_for_what_it_did_and_counted() {
    let mesh = Mesh::start();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let good = Some(mesh.token(json!({})));
    let own = mesh.csr(None);
    let (other, kube) = ("spiffe://td/ns/default/sa/other", "spiffe://td/ns/kube-system/sa/sleep");
    let forged = own.replace("-----END", "AAAA\n-----END");
    let of_other_namespace = Some(mesh.token(json!({"sub": "system:serviceaccount:other:sleep"})));
    let impersonating = IstioCertificateRequest {
        metadata: Some(metadata([(IMPERSONATED_IDENTITY, "spiffe://td/ns/default/sa/other")])),
        ..request(&own)
    };
    let cases = [
        ("another's name", request(&mesh.csr(Some(other))), good.clone(), Code::PermissionDenied, ANOTHERS),
        ("another namespace's name", request(&mesh.csr(Some(kube))), good.clone(), Code::PermissionDenied, ANOTHERS),
        (
            "a token from another namespace",
            request(&mesh.csr(Some("spiffe://td/ns/default/sa/sleep"))),
            of_other_namespace.clone(),
            Code::PermissionDenied,
            ANOTHERS,
        ),
        ("CA:TRUE", request(AUTHORITY), good.clone(), Code::InvalidArgument, PARSING),
        ("a weak key", request(WEAK_KEY), good.clone(), Code::InvalidArgument, PARSING),
        ("a large request", request(&"A".repeat(20_000)), good.clone(), Code::InvalidArgument, PARSING),
        ("a huge message", request(&"A".repeat(3_000_000)), good.clone(), Code::ResourceExhausted, PARSING),
        ("a forged request", request(&forged), good.clone(), Code::InvalidArgument, PARSING),
        ("no request", request(""), good.clone(), Code::InvalidArgument, PARSING),
        (
            "too long a life",
            IstioCertificateRequest { validity_duration: i64::MAX, ..request(&own) },
            good.clone(),
            Code::InvalidArgument,
            TTL,
        ),
        ("somebody else's proxy", impersonating, good.clone(), Code::Unauthenticated, AUTHENTICATION),
        ("no token", request(&own), None, Code::Unauthenticated, AUTHENTICATION),
        (
            "an expired token",
            request(&own),
            Some(mesh.token(json!({"exp": now - 1}))),
            Code::Unauthenticated,
            AUTHENTICATION,
        ),
        (
            "a token for the apiserver",
            request(&own),
            Some(mesh.token(json!({"aud": ["https://kubernetes.default.svc"]}))),
            Code::Unauthenticated,
            AUTHENTICATION,
        ),
        (
            "a token of another issuer",
            request(&own),
            Some(mesh.token(json!({"iss": "https://other"}))),
            Code::Unauthenticated,
            AUTHENTICATION,
        ),
        (
            "a token that another key signed",
            request(&own),
            Some(token(&new_issuer(), json!({}))),
            Code::Unauthenticated,
            AUTHENTICATION,
        ),
    ];
    for channel in [mesh.meshd.plaintext().await, mesh.meshd.secure(&mesh.root, None).await.unwrap()] {
        for (case, request, token, code, counter) in &cases {
            let before = mesh.count(counter).await;
            let refused = asked(channel.clone(), request.clone(), token.as_deref()).await.unwrap_err();
            assert_eq!(refused.code(), *code, "{case}: {refused:?}");
            assert_eq!(mesh.count(counter).await, before + 1, "{case} in {counter}");
        }
    }
    assert_eq!(mesh.count(ISSUED).await, 0);

    // An identity opens its own namespace only, and lasts as long as its certificate.
    let channel = mesh.certified().await;
    assert_eq!(streamed(channel, "other", None).await.unwrap_err().code(), Code::PermissionDenied);
    let bare = mesh.meshd.secure(&mesh.root, None).await.unwrap();
    assert_eq!(
        streamed(bare, "default", of_other_namespace.as_deref()).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    let read = |name: &str| std::fs::read(mesh.folder.path().join("ca").join(name)).unwrap();
    let files = ["ca-cert.pem", "ca-key.pem", "root-cert.pem"].map(|name| (name, read(name)));
    let entries = files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    let authority = mesh_ca::bundle::plugged_in(&entries, Default::default(), SystemTime::now()).unwrap();
    let past = SystemTime::now() - Duration::from_secs(3600);
    let id = "spiffe://td/ns/default/sa/sleep".parse().unwrap();
    let ttl = Some(Duration::from_secs(60));
    let expired = Authority::sign(&authority, &Csr::from_pem(own.as_bytes()).unwrap(), &id, ttl, past).unwrap();
    let before = mesh.count("meshd_tls_handshake_failures_total{reason=\"failed\"}").await;
    let refused = match mesh.meshd.secure(&mesh.root, Some((&expired.presented_pem(), &mesh.key))).await {
        Ok(channel) => certified(channel, &own, None).await.is_err(),
        Err(_) => true,
    };
    assert!(refused, "an expired certificate");
    assert!(mesh.count("meshd_tls_handshake_failures_total{reason=\"failed\"}").await > before);
}

/// Damaged requests: bits that are others, ends that are missing, bytes at random.
fn damaged(good: &[u8], count: usize) -> impl Iterator<Item = String> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    (0..count).map(move |number| {
        let mut der = good.to_vec();
        match number % 4 {
            0 => der.truncate(random(good.len())),
            1 => der = (0..random(600)).map(|_| random(256) as u8).collect(),
            _ => {
                let at = random(good.len());
                der[at] ^= 1 << random(8);
            }
        }
        match number % 40 {
            39 => String::from_utf8_lossy(&der).into_owned(),
            _ => pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der)),
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_damaged_requests_are_refused_one_by_one() {
    const COUNT: usize = 10_000;
    let mesh = Mesh::start();
    let channel = mesh.certified().await;
    let good = CertificateSigningRequestDer::from_pem_slice(mesh.csr(None).as_bytes()).unwrap().to_vec();
    let start = Instant::now();
    let answers = futures::stream::iter(damaged(&good, COUNT)).map(|csr| {
        let channel = channel.clone();
        async move { (certified(channel, &csr, None).await, csr) }
    });
    let mut answers = answers.buffer_unordered(32);
    while let Some((answer, csr)) = answers.next().await {
        assert_eq!(answer.map_err(|status| status.code()), Err(Code::InvalidArgument), "{csr}");
    }
    println!("damaged requests refused: {COUNT} in {:.1?}", start.elapsed());
    assert_eq!(mesh.count(PARSING).await, COUNT as u64);
    drop(answers);
    certified(channel, &mesh.csr(None), None).await.unwrap();
}

/// A call whose message never comes: the code with which it ends.
async fn without_message(address: &str) -> impl Future<Output = Code> + use<> {
    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let request =
        http::Request::post(format!("http://{address}/istio.v1.auth.IstioCertificateService/CreateCertificate"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
    let silence = futures::stream::pending::<Result<Frame<Bytes>, std::convert::Infallible>>();
    let answer = sender.send_request(request.body(StreamBody::new(silence)).unwrap());
    async move {
        let answer = answer.await.unwrap();
        // The connection must live until here.
        drop(sender);
        Status::from_header_map(answer.headers()).map_or(Code::Unknown, |status| status.code())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_who_connect_and_stall_slow_nobody() {
    // Each is a descriptor here, too.
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let mesh = Mesh::start();
    let (plaintext, secure) = (mesh.meshd.address("grpc"), mesh.meshd.address("secureGrpc"));
    let mut alone = Vec::new();
    for _ in 0..20 {
        alone.push(mesh.wait().await);
    }

    // Silent before TLS, in the middle of it, after it, without it, and after the headers of a call.
    let mut silent = Vec::new();
    for number in 0..1_000 {
        let mut io = std::net::TcpStream::connect(&secure).unwrap();
        if number % 2 == 1 {
            io.write_all(&[0x16, 3, 1, 2, 0, 1, 0]).unwrap();
        }
        silent.push(io);
    }
    let tls = tls(&mesh.root, None);
    let mut shaken = Vec::new();
    for _ in 0..200 {
        shaken.push(tls.connect(istiod(), TcpStream::connect(&secure).await.unwrap()).await.unwrap());
    }
    let plain: Vec<_> = (0..200).map(|_| std::net::TcpStream::connect(&plaintext).unwrap()).collect();
    let mut calls = Vec::new();
    for _ in 0..100 {
        calls.push(tokio::spawn(without_message(&plaintext).await));
    }

    let mut beside = Vec::new();
    for _ in 0..20 {
        beside.push(mesh.wait().await);
    }
    let middle = |waits: &mut Vec<Duration>| {
        waits.sort();
        waits[waits.len() / 2]
    };
    let (alone, beside) = (middle(&mut alone), middle(&mut beside));
    let count = silent.len() + shaken.len() + plain.len() + calls.len();
    println!("a certificate takes {alone:.1?} alone, {beside:.1?} beside {count} who stall (median of 20)");
    assert!(beside < alone * 5 + Duration::from_millis(100), "{alone:?} alone, {beside:?} beside others");

    // All of them are let go, and counted.
    for call in calls {
        assert_eq!(call.await.unwrap(), Code::DeadlineExceeded);
    }
    assert_eq!(mesh.count(PARSING).await, 100);
    let gone = tokio::task::spawn_blocking(move || {
        for mut io in silent.into_iter().chain(plain) {
            io.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let mut answer = Vec::new();
            let ended = io.read_to_end(&mut answer);
            let timed_out = ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
            assert!(!timed_out, "a silent connection is closed");
        }
    });
    gone.await.unwrap();
    assert_eq!(mesh.count("meshd_tls_handshake_failures_total{reason=\"timeout\"}").await, 1_000);
    assert_eq!(mesh.count("meshd_silent_connections_total").await, 400);
}
