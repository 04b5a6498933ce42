//! meshd as an authority: certificates by token in plaintext, then the secure port with that certificate.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use hyper_util::rt::TokioIo;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mesh_ca::server::proto::{IstioCertificateRequest, IstioCertificateServiceClient};
use mesh_ca::{Certificate, Csr, KeyKind, PrivateKey};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::envtest::{Cluster, Process};

pub(crate) struct Meshd {
    _process: Process,
    addresses: Value,
}

impl Meshd {
    pub(crate) fn start(folder: &Path) -> Self {
        let authority = ["--ca-dir", "ca", "--jwks", "jwks.json", "--jwt-issuer", "https://issuer"];
        Self::with(folder, ["--config-dir", "manifests"].into_iter().chain(authority))
    }

    fn in_cluster(folder: &Path, replica: &str) -> Self {
        let timing = ["--env", "ROOT_ROTATION_SETTLE=2s", "--env", "ROOT_ROTATION_LONGEST=1s"];
        Self::with(folder, ["--kubeconfig", "kubeconfig", "--pod-name", replica].into_iter().chain(timing))
    }

    pub(crate) fn with<'a>(folder: &Path, flags: impl IntoIterator<Item = &'a str>) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_meshd"))
            .args(["--print-addrs", "--trust-domain", "td"])
            .args(flags)
            .args(["--grpc-addr=127.0.0.1:0", "--http-addr=127.0.0.1:0", "--monitoring-addr=127.0.0.1:0"])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { _process: Process(child), addresses: serde_json::from_str(&line).unwrap() }
    }

    pub(crate) fn address(&self, key: &str) -> String {
        self.addresses[key].as_str().unwrap().to_owned()
    }

    pub(crate) async fn plaintext(&self) -> Channel {
        Endpoint::new(format!("http://{}", self.address("grpc"))).unwrap().connect().await.unwrap()
    }

    /// A channel to the secure port, which must prove to be istiod of that root.
    pub(crate) async fn secure(
        &self,
        root: &Certificate,
        own: Option<(&str, &PrivateKey)>,
    ) -> Result<Channel, tonic::transport::Error> {
        let tls = tls(root, own);
        let address = self.address("secureGrpc");
        let connect = move |_| {
            let (tls, address) = (tls.clone(), address.clone());
            async move {
                let io = tls.connect(istiod(), TcpStream::connect(address).await?).await?;
                std::io::Result::Ok(TokioIo::new(io))
            }
        };
        Endpoint::from_static("http://istiod").connect_with_connector(tower::service_fn(connect)).await
    }
}

pub(crate) fn istiod() -> ServerName<'static> {
    ServerName::try_from("istiod.istio-system.svc").unwrap()
}

/// How to speak TLS with istiod of that root.
pub(crate) fn tls(root: &Certificate, own: Option<(&str, &PrivateKey)>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(root.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((pem, key)) => {
            let chain = Certificate::all_from_pem(pem.as_bytes()).unwrap();
            let chain = chain.iter().map(|certificate| certificate.der().clone()).collect();
            let key = PrivateKeyDer::from_pem_slice(key.to_pem().unwrap().as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
}

fn token(key: &EncodingKey, namespace: &str, account: &str, audience: &str) -> String {
    let exp = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 600;
    let sub = format!("system:serviceaccount:{namespace}:{account}");
    let claims = json!({"iss": "https://issuer", "aud": [audience], "exp": exp, "sub": sub});
    jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, key).unwrap()
}

pub(crate) async fn certified(channel: Channel, csr: &str, token: Option<&str>) -> Result<Vec<String>, Status> {
    let message = IstioCertificateRequest { csr: csr.to_owned(), validity_duration: 3600, metadata: None };
    asked(channel, message, token).await
}

pub(crate) async fn asked(
    channel: Channel,
    message: IstioCertificateRequest,
    token: Option<&str>,
) -> Result<Vec<String>, Status> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let response = IstioCertificateServiceClient::new(channel).create_certificate(request).await?;
    Ok(response.into_inner().cert_chain)
}

/// The status with which the first response of a stream comes.
pub(crate) async fn streamed(channel: Channel, namespace: &str, token: Option<&str>) -> Result<(), Status> {
    let node =
        Node { id: format!("sidecar~10.0.0.1~sleep.{namespace}~{namespace}.svc.cluster.local"), ..Node::default() };
    let type_url = "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned();
    let first = DiscoveryRequest { node: Some(node), type_url, ..DiscoveryRequest::default() };
    let (sender, requests) = tokio::sync::mpsc::channel(1);
    sender.send(first).await.unwrap();
    let requests =
        futures::stream::unfold(requests, |mut requests| async move { Some((requests.recv().await?, requests)) });
    let mut request = Request::new(requests);
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let mut stream =
        AggregatedDiscoveryServiceClient::new(channel).stream_aggregated_resources(request).await?.into_inner();
    stream.message().await.map(|message| assert!(message.is_some()))
}

#[tokio::test]
async fn meshd_certifies_and_serves_those_whom_it_certified() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("manifests")).unwrap();
    let issuer = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let issuer = PrivateKeyDer::from_pem_slice(issuer.to_pem().unwrap().as_bytes()).unwrap();
    let issuer = EncodingKey::from_ec_der(issuer.secret_der());
    let jwk = Jwk::from_encoding_key(&issuer, Algorithm::ES256).unwrap();
    std::fs::write(folder.path().join("jwks.json"), json!({ "keys": [jwk] }).to_string()).unwrap();

    let meshd = Meshd::start(folder.path());
    let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let csr = Csr::write(&key, None).unwrap();
    let sleep = token(&issuer, "default", "sleep", "istio-ca");
    let chain = certified(meshd.plaintext().await, &csr, Some(&sleep)).await.unwrap();
    let (leaf, root) = (&chain[0], Certificate::all_from_pem(chain[1].as_bytes()).unwrap().remove(0));
    let uris = |pem: &str| Certificate::all_from_pem(pem.as_bytes()).unwrap()[0].uris();
    assert_eq!(uris(leaf), ["spiffe://td/ns/default/sa/sleep"]);
    assert_eq!(std::fs::read_to_string(folder.path().join("ca/root-cert.pem")).unwrap(), chain[1]);
    for (token, why) in [(None, "no token"), (Some(token(&issuer, "default", "sleep", "vault")), "another audience")] {
        let refused = certified(meshd.plaintext().await, &csr, token.as_deref()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{why}");
    }

    // The certificate opens the secure port: for its renewal, and for the configuration of its own namespace.
    let secure = meshd.secure(&root, Some((leaf, &key))).await.unwrap();
    assert_eq!(uris(&certified(secure.clone(), &csr, None).await.unwrap()[0]), ["spiffe://td/ns/default/sa/sleep"]);
    streamed(secure.clone(), "default", None).await.unwrap();
    assert_eq!(streamed(secure, "other", None).await.unwrap_err().code(), Code::PermissionDenied);
    // So does a token.
    let bare = meshd.secure(&root, None).await.unwrap();
    streamed(bare.clone(), "default", Some(&sleep)).await.unwrap();
    assert_eq!(streamed(bare.clone(), "other", Some(&sleep)).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(streamed(bare, "default", None).await.unwrap_err().code(), Code::Unauthenticated);
    // A certificate of somebody else's root does not.
    let stranger = mesh_ca::Authority::self_signed(&Default::default(), Default::default(), SystemTime::now()).unwrap();
    let id = "spiffe://td/ns/default/sa/sleep".parse().unwrap();
    let forged = stranger.sign(&Csr::from_pem(csr.as_bytes()).unwrap(), &id, None, SystemTime::now()).unwrap();
    let forged = meshd.secure(&root, Some((&forged.presented_pem(), &key))).await;
    let refused = match forged {
        Ok(channel) => certified(channel, &csr, None).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);

    // Many who connect and say nothing hold nobody up.
    let stalled: Vec<_> =
        (0..200).map(|_| std::net::TcpStream::connect(meshd.address("secureGrpc")).unwrap()).collect();
    let begun = std::time::Instant::now();
    let secure = meshd.secure(&root, Some((leaf, &key))).await.unwrap();
    certified(secure, &csr, None).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(stalled);

    // The root outlives the process.
    drop(meshd);
    let meshd = Meshd::start(folder.path());
    let secure = meshd.secure(&root, Some((leaf, &key))).await.unwrap();
    certified(secure, &csr, None).await.unwrap();
}

/// A token of a service account, as a kubelet would get it.
pub(crate) async fn token_request(cluster: &Cluster, account: &str, audience: &str) -> String {
    let path = format!("/api/v1/namespaces/default/serviceaccounts/{account}/token");
    let body =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": [audience]}});
    let request = http::Request::post(path).header("content-type", "application/json");
    let answer: Value = cluster.client().request(request.body(body.to_string().into_bytes()).unwrap()).await.unwrap();
    answer["status"]["token"].as_str().unwrap().to_owned()
}

fn config_map(namespace: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio-ca-root-cert", "namespace": namespace}})
}

fn root_in(config_map: &Value) -> &str {
    config_map["data"]["root-cert.pem"].as_str().unwrap_or_default()
}

/// Waits until an object is as it should be.
async fn until(cluster: &Cluster, object: &Value, what: &str, is_right: impl Fn(&Value) -> bool) {
    let right = async {
        while !cluster.find(object).await.is_some_and(|found| is_right(&found)) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), right).await.expect(what);
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_in_a_cluster_share_a_root_and_bring_it_everywhere() {
    let Some(cluster) = Cluster::start("the authority of a cluster").await else { return };
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    cluster.apply(&namespace("istio-system")).await;
    let hook = |name: &str, service: &str| {
        json!({"name": format!("{name}.istio.io"), "admissionReviewVersions": ["v1"], "sideEffects": "None",
               "clientConfig": {"service": {"name": service, "namespace": "istio-system", "path": "/inject"}}})
    };
    let webhooks = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "istio-sidecar-injector"}, "webhooks": [hook("ours", "istiod"), hook("theirs", "other")],
    });
    cluster.apply(&webhooks).await;
    let sleep =
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "sleep", "namespace": "default"}});
    cluster.apply(&sleep).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("kubeconfig"), cluster.kubeconfig().to_string()).unwrap();

    let replicas: Vec<Meshd> = std::thread::scope(|scope| {
        let path = folder.path();
        let starting: Vec<_> = ["a", "b"].map(|name| scope.spawn(move || Meshd::in_cluster(path, name))).into();
        starting.into_iter().map(|replica| replica.join().unwrap()).collect()
    });
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "istio-ca-secret", "namespace": "istio-system"}});
    let kept = cluster.get(&secret).await;
    let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let csr = Csr::write(&key, None).unwrap();
    let token = token_request(&cluster, "sleep", "istio-ca").await;
    let mut roots = Vec::new();
    for replica in &replicas {
        let chain = certified(replica.plaintext().await, &csr, Some(&token)).await.unwrap();
        let leaf = &Certificate::all_from_pem(chain[0].as_bytes()).unwrap()[0];
        assert_eq!(leaf.uris(), ["spiffe://td/ns/default/sa/sleep"]);
        roots.push(chain[1].clone());
    }
    assert_eq!(roots[0], roots[1], "replicas that start together agree");
    let root = Certificate::all_from_pem(roots[0].as_bytes()).unwrap().remove(0);
    let secure = replicas[0].secure(&root, None).await.unwrap();
    streamed(secure.clone(), "default", Some(&token)).await.unwrap();
    assert_eq!(streamed(secure, "other", Some(&token)).await.unwrap_err().code(), Code::PermissionDenied);
    let other = token_request(&cluster, "sleep", "vault").await;
    let refused = certified(replicas[0].plaintext().await, &csr, Some(&other)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "a token for somebody else");

    // The roots are everywhere, in namespaces to come as well, and stay right.
    let root = roots.remove(0);
    let is_right = |map: &Value| root_in(map) == root;
    until(&cluster, &config_map("default"), "the roots in a namespace", is_right).await;
    cluster.apply(&namespace("new")).await;
    until(&cluster, &config_map("new"), "the roots in a new namespace", is_right).await;
    let mut edited = config_map("new");
    edited["data"] = json!({"root-cert.pem": "edited", "more": "of others"});
    cluster.apply(&edited).await;
    until(&cluster, &edited, "mended roots", |map| is_right(map) && map["data"]["more"] == "of others").await;
    cluster.delete_only(&config_map("default")).await;
    until(&cluster, &config_map("default"), "restored roots", is_right).await;
    assert!(cluster.find(&config_map("kube-system")).await.is_none());
    let bundle = |webhooks: &Value, index: usize| webhooks["webhooks"][index]["clientConfig"]["caBundle"].clone();
    let of_root = serde_json::to_value(k8s_openapi::ByteString(root.clone().into_bytes())).unwrap();
    until(&cluster, &webhooks, "webhooks that trust the roots", |found| bundle(found, 0) == of_root).await;
    assert_eq!(bundle(&cluster.get(&webhooks).await, 1), Value::Null, "another's webhook");

    // The Secret is restored while its root is in use.
    cluster.delete_only(&secret).await;
    until(&cluster, &secret, "a restored Secret", |found| found["data"] == kept["data"]).await;
    // Where it is asked for, a root with a new key is led in: first beside the old one, then instead of it.
    let mut asked = secret.clone();
    asked["metadata"]["annotations"] = json!({"mesh-rs.io/rotate-root": "now"});
    cluster.apply(&asked).await;
    until(&cluster, &config_map("new"), "both roots", |map| root_in(map).starts_with(&root) && root_in(map) != root)
        .await;
    until(&cluster, &config_map("new"), "the new root", |map| !root_in(map).contains(&root)).await;
    let status = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio-ca-rotation", "namespace": "istio-system"}});
    until(&cluster, &status, "its status", |map| map["data"]["status"].as_str().unwrap_or_default().contains("stable"))
        .await;
    let root = root_in(&cluster.get(&config_map("new")).await).to_owned();
    assert_eq!(cluster.get(&secret).await["metadata"]["annotations"], Value::Null, "asked for once");

    // What is plugged in is led in as carefully.
    let theirs = mesh_ca::Authority::self_signed(&Default::default(), Default::default(), SystemTime::now()).unwrap();
    let pem = theirs.certificate().to_pem();
    let plugged_in = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cacerts", "namespace": "istio-system"},
        "stringData": {"ca-cert.pem": pem, "ca-key.pem": theirs.key().to_pem().unwrap(), "cert-chain.pem": pem,
                       "root-cert.pem": pem},
    });
    cluster.apply(&plugged_in).await;
    until(&cluster, &config_map("new"), "both roots", |map| {
        root_in(map).contains(&pem) && root_in(map).contains(&root)
    })
    .await;
    until(&cluster, &config_map("new"), "the plugged-in root", |map| root_in(map) == pem).await;
    for replica in &replicas {
        while !certified(replica.plaintext().await, &csr, Some(&token)).await.unwrap().concat().contains(&pem) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
