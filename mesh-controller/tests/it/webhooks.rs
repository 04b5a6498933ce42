//! The webhooks as a real apiserver calls them.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use kube::Client;
use mesh_ca::{Authority, KeyKind, Lifetimes, RootOptions};
use mesh_controller::ControlPlane;
use mesh_controller::source::Kube;
use mesh_controller::store::Debounce;
use mesh_controller::webhooks::{InjectorConfig, Webhooks};
use mesh_webhook::server::ServingCertificate;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use crate::envtest::Cluster;

/// What the mesh watches in this test.
const KINDS: [&str; 5] = ["Service", "VirtualService", "DestinationRule", "Gateway", "ProxyConfig"];
/// Until a configuration of webhooks, or an object, has got to whoever reads it.
const SETTLES: Duration = Duration::from_secs(60);

/// What the apiserver answers to the creation of an object: status, warnings, body.
struct Answer(StatusCode, Vec<String>, Value);

async fn create(client: &Client, path: &str, object: &Value) -> Answer {
    let request = Request::post(path).header("content-type", "application/json");
    let response = client.send(request.body(object.to_string().into_bytes().into()).unwrap()).await.unwrap();
    let warnings = response.headers().get_all("warning").iter();
    let warnings = warnings.map(|warning| String::from_utf8_lossy(warning.as_bytes()).into_owned()).collect();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Answer(status, warnings, serde_json::from_slice(&body).unwrap())
}

/// Asks until the answer is as it is to be.
async fn until(what: &str, mut ask: impl AsyncFnMut(usize) -> Answer, is_so: impl Fn(&Answer) -> bool) -> Answer {
    let start = Instant::now();
    for nth in 0.. {
        let answer = ask(nth).await;
        if is_so(&answer) {
            return answer;
        }
        assert!(start.elapsed() < SETTLES, "{what}: {} {:?} {:#}", answer.0, answer.1, answer.2);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    unreachable!("it counts for ever")
}

fn configuration(kind: &str, url: &str, ca: &str, rule: &Value, failure_policy: &str, selector: &Value) -> Value {
    let mut rule = rule.clone();
    rule["apiVersions"] = json!(["*"]);
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "mesh"},
        "webhooks": [{
            "name": "mesh.istio.io", "clientConfig": {"url": url, "caBundle": BASE64_STANDARD.encode(ca)},
            "rules": [rule], "namespaceSelector": selector, "failurePolicy": failure_policy,
            "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 10,
        }],
    })
}

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "a"}},
           "spec": {"serviceAccountName": "default", "containers": [{"name": "app", "image": "app:1"}]}})
}

fn is_injected(pod: &Value) -> bool {
    pod["spec"].to_string().contains(r#""name":"istio-proxy""#)
}

fn virtual_service(name: &str, to: &str) -> Value {
    json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": name},
           "spec": {"hosts": ["cart"], "http": [{"route": [{"destination": {"host": to}}]}]}})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_apiserver_asks_before_it_stores() {
    let Some(cluster) = Cluster::start("webhooks of a real apiserver").await else { return };
    for definition in mesh_api::crds() {
        if KINDS.contains(&definition.spec.names.kind.as_str()) {
            cluster.define(&serde_json::to_value(definition).unwrap()).await;
        }
    }
    for (name, injection) in [("shop", "enabled"), ("plain", "disabled")] {
        let metadata = json!({"name": name, "labels": {"istio-injection": injection}});
        cluster.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})).await;
    }
    let mut root = RootOptions::default();
    root.key = KeyKind::EcdsaP256;
    let authority = Authority::self_signed(&root, Lifetimes::default(), SystemTime::now()).unwrap();
    let (key, chain) =
        authority.serving(&["localhost".to_owned()], authority.lifetimes().default, SystemTime::now()).unwrap();
    let serving =
        ServingCertificate::from_pem(chain.presented_pem().as_bytes(), key.to_pem().unwrap().as_bytes()).unwrap();
    let (_certificates, certificate) = watch::channel(Some(serving));
    let values = json!({"global": {"hub": "hub.example"}}).to_string();
    let (_data, data) = watch::channel(Arc::new([("values".to_owned(), values)].into()));
    let webhooks = Webhooks::new("127.0.0.1:0".parse().unwrap(), certificate).injector(InjectorConfig::Followed(data));
    let control_plane = ControlPlane::builder()
        .debounce(Debounce { after: Duration::from_millis(10), max: Duration::from_secs(1) })
        .source(Kube::new(cluster.client()).kinds(&KINDS))
        .serve_webhooks(webhooks)
        .bind()
        .await
        .unwrap();
    let port = control_plane.addresses().https.unwrap().port();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(control_plane.run_until(async { drop(stopped.await) }));

    let url = |path: &str| format!("https://localhost:{port}{path}");
    let ca: &str = authority.roots_pem();
    let pods = json!({"operations": ["CREATE"], "apiGroups": [""], "resources": ["pods"]});
    let selector = json!({"matchLabels": {"istio-injection": "enabled"}});
    let inject = url("/inject/cluster/c1/net/n1");
    cluster.apply(&configuration("MutatingWebhookConfiguration", &inject, ca, &pods, "Fail", &selector)).await;
    let istio = json!({"operations": ["CREATE", "UPDATE"], "apiGroups": ["networking.istio.io"], "resources": ["*"]});
    let validate = url("/validate");
    cluster.apply(&configuration("ValidatingWebhookConfiguration", &validate, ca, &istio, "Ignore", &json!({}))).await;

    let client = cluster.client();
    let create_pod = async |namespace: &str, name: String| {
        create(&client, &format!("/api/v1/namespaces/{namespace}/pods"), &pod(&name)).await
    };
    let injected = until(
        "a pod in a labelled namespace comes back injected",
        async |nth| create_pod("shop", format!("pod-{nth}")).await,
        |Answer(status, _, pod)| status.is_success() && is_injected(pod),
    )
    .await;
    assert!(injected.2.to_string().contains("hub.example/") && injected.2.to_string().contains(r#""value":"n1""#));
    assert!(!is_injected(&create_pod("plain", "pod".to_owned()).await.2), "nobody asked for it there");

    let path = "/apis/networking.istio.io/v1/namespaces/shop/virtualservices";
    // By itself its form is right: a host that is none, and two rules of which the second is never reached.
    let mut invalid = virtual_service("invalid", "cart");
    invalid["spec"]["hosts"] = json!(["a..b"]);
    let refused = until(
        "an invalid VirtualService is refused",
        async |_| create(&client, &format!("{path}?dryRun=All"), &invalid).await,
        |Answer(status, ..)| !status.is_success(),
    )
    .await;
    let message = refused.2["message"].as_str().unwrap();
    assert!(message.contains("denied the request: configuration is invalid: spec.hosts"), "{message}");

    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "cart", "namespace": "shop"},
                         "spec": {"ports": [{"name": "http", "port": 80}]}});
    cluster.apply(&service).await;
    until(
        "nothing is told of what is right",
        async |_| create(&client, &format!("{path}?dryRun=All"), &virtual_service("first", "cart")).await,
        |Answer(status, warnings, _)| status.is_success() && warnings.is_empty(),
    )
    .await;
    let first = create(&client, path, &virtual_service("first", "cart")).await;
    assert!(first.0.is_success(), "{:#}", first.2);
    let Answer(_, warnings, _) = until(
        "the younger of two VirtualServices is told so",
        async |_| create(&client, &format!("{path}?dryRun=All"), &virtual_service("second", "nowhere")).await,
        |Answer(status, warnings, _)| status.is_success() && warnings.len() > 1,
    )
    .await;
    for told in ["VirtualService shop/first", "nothing serves the host nowhere.shop.svc.cluster.local"] {
        assert!(warnings.iter().any(|warning| warning.contains(told)), "{told} in {warnings:?}");
    }

    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    let failed = create_pod("shop", "late".to_owned()).await;
    assert!(failed.0.is_server_error() && failed.2.to_string().contains("failed calling webhook"), "{:#}", failed.2);
    assert!(create_pod("plain", "late".to_owned()).await.0.is_success(), "it is in nobody else's way");
    let ignored = create(&client, path, &invalid).await;
    assert!(ignored.0.is_success(), "its failurePolicy says so: {:#}", ignored.2);
    let deleted = Request::delete(format!("{path}/first")).body(Vec::new()).unwrap();
    assert!(client.request_text(deleted).await.is_ok());
}
