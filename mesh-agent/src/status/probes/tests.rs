use hyper::service::service_fn;
use hyper::{Response, body::Incoming};
use serde_json::json;
use tokio::net::TcpListener;

use super::*;

/// An application: `/redirect` leads to `/ok`, `/loop` to itself, `/away` elsewhere, `/host` says how it was called.
async fn app() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = service_fn(|request: Request<Incoming>| async move {
                let (status, location) = match request.uri().path() {
                    "/ok" | "/host" => (200, ""),
                    "/redirect" => (302, "/ok"),
                    "/loop" => (302, "/loop"),
                    "/away" => (302, "http://elsewhere.example/"),
                    "/slow" => std::future::pending().await,
                    _ => (418, ""),
                };
                let host = request.headers()[HOST].to_str().unwrap().to_owned();
                let text = if request.uri().path() == "/host" { host } else { "x".repeat(20_000) };
                let mut response = Response::new(http_body_util::Full::new(Bytes::from(text)));
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                if !location.is_empty() {
                    response.headers_mut().insert(LOCATION, location.parse().unwrap());
                }
                Ok::<_, std::convert::Infallible>(response)
            });
            let serve = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
            tokio::spawn(async move { drop(serve.await) });
        }
    });
    port
}

/// An application that speaks TLS with a certificate that nobody could verify: its own, of another name, long over.
async fn app_with_tls() -> u16 {
    use mesh_ca::{Authority, Csr, KeyKind, Lifetimes, PrivateKey, RootOptions};
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let then = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let ca = Authority::self_signed(&RootOptions::default(), Lifetimes::default(), then).unwrap();
    let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let csr = Csr::from_pem(Csr::write(&key, None).unwrap().as_bytes()).unwrap();
    let chain = ca.sign(&csr, &"spiffe://elsewhere/ns/a/sa/b".parse().unwrap(), None, then).unwrap().response();
    let chain = chain.iter().map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap());
    let key = PrivateKeyDer::from_pem_slice(key.to_pem().unwrap().as_bytes()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(chain.collect(), key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let answer = service_fn(|request: Request<Incoming>| async move {
                let status = if request.uri().path() == "/ok" { 204 } else { 503 };
                let mut response = Response::new(Empty::<Bytes>::new());
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                Ok::<_, std::convert::Infallible>(response)
            });
            let serve = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
            tokio::spawn(async move { drop(serve.await) });
        }
    });
    port
}

async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn the_application_is_asked_as_the_kubelet_would() {
    let (port, tls, closed) = (app().await, app_with_tls().await, closed_port().await);
    let get = |path: &str| json!({"httpGet": {"path": path, "port": port, "scheme": "HTTP"}, "timeoutSeconds": 1});
    let cases = [
        ("ok", get("/ok"), 200),
        ("no-slash", get("ok"), 200),
        ("teapot", get("/teapot"), 418),
        ("redirect", get("/redirect"), 200),
        ("loop", get("/loop"), 500),
        ("away", get("/away"), 200),
        ("slow", get("/slow"), 500),
        ("tcp", json!({"tcpSocket": {"port": port}}), 200),
        ("tcp-closed", json!({"tcpSocket": {"port": closed}}), 500),
        ("http-closed", json!({"httpGet": {"path": "/", "port": closed}}), 500),
        ("tls", json!({"httpGet": {"path": "/ok", "port": tls, "scheme": "HTTPS"}}), 204),
        ("tls-unwell", json!({"httpGet": {"path": "/other", "port": tls, "scheme": "HTTPS"}}), 503),
        ("plain-to-tls", json!({"httpGet": {"path": "/ok", "port": tls, "scheme": "HTTP"}}), 500),
        ("tls-to-plain", json!({"httpGet": {"path": "/", "port": port, "scheme": "HTTPS"}}), 500),
        ("grpc-to-http", json!({"grpc": {"port": port, "service": "x"}}), 500),
    ];
    let path = |name: &str| format!("/app-health/{name}/livez");
    let map: serde_json::Map<_, _> = cases.iter().map(|(name, prober, _)| (path(name), prober.clone())).collect();
    let json = serde_json::Value::from(map).to_string();
    let probes = Probes::new(Some(&json), Ipv4Addr::LOCALHOST.into(), false).unwrap();
    for (name, _, want) in cases {
        let (status, text) = probes.ask(&path(name), 15020, &HeaderMap::new()).await;
        assert_eq!(status, want, "{name}");
        assert!(text.len() <= MAX_ANSWER);
    }
    assert_eq!(probes.ask("/app-health/other/livez", 15020, &HeaderMap::new()).await.0, 400);
}

#[tokio::test]
async fn the_host_is_the_application_s() {
    let port = app().await;
    let json = json!({"/app-lifecycle/a/prestopz": {"httpGet": {"path": "/host", "port": port}}}).to_string();
    let probes = Probes::new(Some(&json), Ipv4Addr::LOCALHOST.into(), true).unwrap();
    for (said, want) in [("10.0.0.1:15020", format!("10.0.0.1:{port}")), ("app.example", "app.example".to_owned())] {
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static(said))]);
        let (_, text) = probes.ask("/app-lifecycle/a/prestopz", 15020, &headers).await;
        assert_eq!(text, want);
    }
}

#[tokio::test]
async fn a_grpc_service_tells_its_health() {
    let (reporter, service) = tonic_health::server::health_reporter();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let incoming = futures::stream::unfold(listener, |listener| async {
        Some((listener.accept().await.map(|(stream, _)| stream), listener))
    });
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    let json = json!({"/app-health/a/readyz": {"grpc": {"port": port, "service": "shop"}}}).to_string();
    let probes = Probes::new(Some(&json), Ipv4Addr::LOCALHOST.into(), false).unwrap();
    let asks = || async { probes.ask("/app-health/a/readyz", 15020, &HeaderMap::new()).await.0 };
    assert_eq!(asks().await, 500, "unknown");
    reporter.set_service_status("shop", tonic_health::ServingStatus::Serving).await;
    assert_eq!(asks().await, 200);
    reporter.set_service_status("shop", tonic_health::ServingStatus::NotServing).await;
    assert_eq!(asks().await, 500);
}

#[test]
fn what_the_injector_does_not_write_is_refused() {
    let of = |json: &str| Probes::new(Some(json), Ipv4Addr::LOCALHOST.into(), false).err().map(|e| e.to_string());
    assert_eq!(of("{}"), None);
    for (json, why) in [
        ("[", "ISTIO_KUBE_APP_PROBERS"),
        (r#"{"/x": {"tcpSocket": {"port": 1}}}"#, "\"/x\""),
        (r#"{"/app-health/a/livez": {}}"#, "one of httpGet"),
        (r#"{"/app-health/a/livez": {"tcpSocket": {"port": "http"}}}"#, "number"),
    ] {
        assert!(of(json).unwrap().contains(why), "{json}: {:?}", of(json));
    }
}
