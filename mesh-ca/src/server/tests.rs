use std::time::UNIX_EPOCH;

use http::{HeaderMap, HeaderValue};
use prometheus_client::registry::Registry;

use super::*;
use crate::authenticate::tests::{Issuer, claims};
use crate::authenticate::{ClientCertificate, Jwks, Pod};
use crate::{Authority, Certificate, Current, KeyKind, Lifetimes, PrivateKey, RootOptions};

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

struct Bench {
    service: CertificateService,
    issuer: Issuer,
    authority: Arc<Current>,
    metrics: Metrics,
}

impl Bench {
    fn new() -> Self {
        let options = RootOptions { key: KeyKind::EcdsaP256, ..RootOptions::default() };
        let authority = Authority::self_signed(&options, Lifetimes::default(), now()).unwrap();
        let authority = Arc::new(Current::new(authority));
        let issuer = Issuer::new();
        let jwks = Jwks::new(&issuer.jwks(), "https://issuer", "cluster.local").unwrap();
        let metrics = Metrics::default();
        let service = CertificateService::new(authority.clone())
            .authenticator(ClientCertificate)
            .authenticator(jwks)
            .metrics(metrics.clone());
        Self { service, issuer, authority, metrics }
    }

    fn token(&self, namespace: &str, account: &str) -> HeaderMap {
        let token = self.issuer.token(&claims(namespace, account, 1_800_000_060));
        HeaderMap::from_iter([(
            http::header::AUTHORIZATION,
            HeaderValue::from_str(&format!("Bearer {token}")).unwrap(),
        )])
    }

    async fn ask(&self, headers: &HeaderMap, request: IstioCertificateRequest) -> Result<Certificate, Code> {
        let credentials = Credentials { address: None, certificate: &[], headers };
        let response = self.service.create(credentials, &request, now()).await.map_err(|status| status.code())?;
        assert_eq!(response.cert_chain.last().map(String::as_str), Some(&**self.authority.get().roots_pem()));
        Ok(Certificate::all_from_pem(response.cert_chain[0].as_bytes()).unwrap().remove(0))
    }

    fn metrics(&self) -> String {
        let mut registry = Registry::default();
        self.metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }
}

fn request(id: Option<&str>) -> IstioCertificateRequest {
    let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let csr = Csr::write(&key, id.map(|id| id.parse().unwrap()).as_ref()).unwrap();
    IstioCertificateRequest { csr, validity_duration: 3600, metadata: None }
}

#[tokio::test]
async fn the_caller_gets_its_own_name_and_everything_else_is_refused_and_counted() {
    let bench = Bench::new();
    let headers = bench.token("default", "sleep");
    let leaf = bench.ask(&headers, request(None)).await.unwrap();
    assert_eq!(leaf.uris(), ["spiffe://cluster.local/ns/default/sa/sleep"]);
    assert_eq!(leaf.not_after(), now() + Duration::from_secs(3600));

    let wrong = |change: fn(&mut IstioCertificateRequest)| {
        let mut request = request(None);
        change(&mut request);
        request
    };
    for (headers, request, want) in [
        (HeaderMap::new(), request(None), Code::Unauthenticated),
        (headers.clone(), request(Some("spiffe://cluster.local/ns/other/sa/sleep")), Code::PermissionDenied),
        (headers.clone(), wrong(|request| request.csr.clear()), Code::InvalidArgument),
        (headers.clone(), wrong(|request| request.csr = "x".repeat(20_000)), Code::InvalidArgument),
        (headers.clone(), wrong(|request| request.validity_duration = 91 * 24 * 3600), Code::InvalidArgument),
    ] {
        assert_eq!(bench.ask(&headers, request).await.unwrap_err(), want);
    }
    // A lifetime below zero is no wish.
    let leaf = bench.ask(&headers, wrong(|request| request.validity_duration = -1)).await.unwrap();
    assert_eq!(leaf.not_after(), now() + Duration::from_secs(24 * 3600));
    for line in [
        "citadel_server_csr_count 7",
        "citadel_server_success_cert_issuance_count 2",
        "citadel_server_authentication_failure_count 1",
        "citadel_server_csr_parsing_err_count 2",
        "citadel_server_csr_sign_err_count{error=\"TTL_ERROR\"} 1",
        "citadel_server_csr_sign_err_count{error=\"CSR_ERROR\"} 3",
    ] {
        assert!(bench.metrics().lines().any(|l| l == line), "{line}: {}", bench.metrics());
    }
    bench.metrics.authority(&bench.authority.get());
    let ends = bench.authority.get().not_after().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!(bench.metrics().contains(&format!("citadel_server_root_cert_expiry_timestamp {ends}\n")));
    let left =
        bench.metrics().lines().find_map(|l| l.strip_prefix("citadel_server_cert_chain_expiry_seconds ")?.parse().ok());
    let want = ends as i64 - SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    assert!((want - 60..=want).contains(&left.unwrap()), "{left:?}, not {want}");
}

/// One node with ztunnel and sleep on it.
struct OneNode;

impl Pods for OneNode {
    fn pod(&self, namespace: &str, name: &str) -> Option<NodePod> {
        let pod = |uid: &str| NodePod { uid: uid.into(), service_account: "ztunnel".into(), node: "n".into() };
        (namespace == "istio-system" && name == "p-1").then(|| pod("u-1"))
    }
    fn runs_on(&self, node: &str, namespace: &str, service_account: &str) -> bool {
        (node, namespace, service_account) == ("n", "default", "sleep")
    }
}

fn impersonating(id: &str) -> IstioCertificateRequest {
    let value = prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(id.to_owned())) };
    let metadata = prost_types::Struct { fields: [(IMPERSONATED_IDENTITY.to_owned(), value)].into() };
    IstioCertificateRequest { metadata: Some(metadata), ..request(None) }
}

#[tokio::test]
async fn nodes_get_the_names_of_what_runs_on_them() {
    let sleep = "spiffe://cluster.local/ns/default/sa/sleep";
    let mut bench = Bench::new();
    let ztunnel = bench.token("istio-system", "ztunnel");
    assert_eq!(
        bench.ask(&ztunnel, impersonating(sleep)).await.unwrap_err(),
        Code::Unauthenticated,
        "nobody is trusted"
    );
    bench.service = bench.service.nodes(TrustedNodes::new("istio-system/ztunnel", OneNode).unwrap());
    assert_eq!(bench.ask(&ztunnel, impersonating(sleep)).await.unwrap().uris(), [sleep]);
    for (headers, id) in [
        (&ztunnel, "spiffe://cluster.local/ns/default/sa/elsewhere"),
        (&ztunnel, "https://example.com"),
        (&bench.token("default", "ztunnel"), sleep),
    ] {
        assert_eq!(bench.ask(headers, impersonating(id)).await.unwrap_err(), Code::Unauthenticated, "{id}");
    }
    let nodes = TrustedNodes::new("istio-system/ztunnel", OneNode).unwrap();
    let mut caller = Caller::new("spiffe://cluster.local/ns/istio-system/sa/ztunnel".parse().unwrap());
    let sleep = sleep.parse().unwrap();
    assert!(nodes.may_impersonate(&caller, &sleep).is_err(), "a token of no pod");
    caller.pod = Some(Pod { name: "p-1".into(), uid: "of before".into() });
    assert!(nodes.may_impersonate(&caller, &sleep).is_err(), "a token of the pod before");
    assert!(TrustedNodes::new("ztunnel", OneNode).is_err());
}

#[tokio::test]
async fn it_speaks_grpc() {
    let options = RootOptions { key: KeyKind::EcdsaP256, ..RootOptions::default() };
    let authority = Authority::self_signed(&options, Lifetimes::default(), SystemTime::now()).unwrap();
    let service = CertificateService::new(Arc::new(authority)).authenticator(ClientCertificate).into_service();
    // Through the generated client, with what a TLS acceptor would add.
    let through = tower::service_fn(move |mut request: http::Request<tonic::body::Body>| {
        request.extensions_mut().insert(Verified(["spiffe://cluster.local/ns/a/sa/b".to_owned()].into()));
        tower::Service::call(&mut service.clone(), request)
    });
    let mut client = proto::IstioCertificateServiceClient::new(through);
    let answer = client.create_certificate(request(None)).await.unwrap().into_inner();
    assert_eq!(answer.cert_chain.len(), 2);
    let large = IstioCertificateRequest { csr: "x".repeat(MAX_MESSAGE), ..Default::default() };
    assert_eq!(client.create_certificate(large).await.unwrap_err().code(), Code::OutOfRange);
}
