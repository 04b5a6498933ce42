//! What comes over the wire, good and bad: there is always an answer.

use std::cell::RefCell;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use mesh_webhook::review::Review;
use mesh_webhook::{Config, Injector, MAX_BODY, Validator, Webhook};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config as Cases, TestRunner};
use serde_json::{Value, json};

/// How many mutilated reviews are answered.
pub(crate) const FUZZED: u32 = 10_000;

pub(crate) fn hook() -> Webhook {
    Webhook::new().route("/inject", Injector::new(Config::default())).route("/validate", Validator::new())
}

/// A review of an Istio object.
pub(crate) fn validation() -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {"uid": "7", "operation": "CREATE", "namespace": "shop", "object": {
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "cart"},
            "spec": {"hosts": ["cart"], "gateways": ["mesh", "shop/front"], "http": [{
                "match": [{"uri": {"prefix": "/a"}, "headers": {"x": {"exact": "y"}}}],
                "timeout": "5s", "retries": {"attempts": 3, "perTryTimeout": "1s"},
                "route": [{"destination": {"host": "cart", "subset": "v1", "port": {"number": 80}}, "weight": 10}]}]}}},
    })
}

/// A review of a pod.
pub(crate) fn review() -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {"uid": "7", "operation": "CREATE", "namespace": "shop", "object": {
            "metadata": {
                "generateName": "app-", "labels": {"app": "a", "pod-template-hash": "5d9"},
                "annotations": {
                    "prometheus.io/port": "8080", "proxy.istio.io/config": "concurrency: 2",
                    "sidecar.istio.io/userVolume": "{\"v\":{\"emptyDir\":{}}}", "sidecar.istio.io/proxyCPU": "1",
                    "traffic.sidecar.istio.io/includeInboundPorts": "80,81",
                    "sidecar.istio.io/status": "{\"containers\":[\"istio-proxy\"]}",
                    "proxy.istio.io/overrides": "{\"containers\":[{\"name\":\"istio-proxy\"}]}"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "app-5d9", "controller": true}]},
            "spec": {
                "containers": [
                    {"name": "istio-proxy", "image": "auto", "env": [{"name": "A", "value": "b"}]},
                    {"name": "app", "ports": [{"containerPort": 80, "name": "http"}],
                     "readinessProbe": {"httpGet": {"port": "http", "path": "/"}}, "lifecycle": {"preStop": {"tcpSocket": {"port": 80}}}}],
                "initContainers": [{"name": "setup"}],
                "volumes": [{"name": "v", "emptyDir": {}}]}}},
    })
}

/// Every value inside a value, the innermost last.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Object(fields) => fields.values().map(count).sum(),
        Value::Array(items) => items.iter().map(count).sum(),
        _ => 0,
    }
}

fn replace(value: &mut Value, at: &mut usize, junk: &Value) {
    if *at == 0 {
        *value = junk.clone();
        *at = usize::MAX;
        return;
    }
    *at -= 1;
    match value {
        Value::Object(fields) => fields.values_mut().for_each(|value| {
            if *at != usize::MAX {
                replace(value, at, junk)
            }
        }),
        Value::Array(items) => items.iter_mut().for_each(|value| {
            if *at != usize::MAX {
                replace(value, at, junk)
            }
        }),
        _ => {}
    }
}

fn junk() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "(\\PC{0,6}|[{\\[\":,a0%$-]{0,8}|true|istio-proxy|15020|\\{\\{ .X \\}\\}|x: y)".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("(name|\\$patch|[a-z]{1,3})", inner, 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Mutilated reviews, some cut off, each with its path.
pub(crate) fn mutilated() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let mutations = prop::collection::vec((any::<Index>(), junk()), 0..4);
    let cut = prop::option::weighted(0.1, any::<Index>());
    (prop::bool::weighted(0.7), mutations, cut).prop_map(|(inject, mutations, cut)| {
        let (path, mut review) = if inject { ("/inject", review()) } else { ("/validate", validation()) };
        for (at, junk) in mutations {
            let mut at = at.index(count(&review));
            replace(&mut review, &mut at, &junk);
        }
        let mut body = review.to_string().into_bytes();
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        (path, body)
    })
}

/// Answers mutilated reviews; whatever comes, there is an answer, and a patch fits the object.
pub(crate) fn answer_all(mut answer: impl FnMut(&str, &[u8]) -> Review) {
    let mut runner = TestRunner::new(Cases { cases: FUZZED, failure_persistence: None, ..Cases::default() });
    let seen = RefCell::new((0, 0));
    let answer = RefCell::new(&mut answer);
    runner
        .run(&mutilated(), |(path, body)| {
            let response = (answer.borrow_mut())(path, &body).response;
            let Some(response) = response else { return Err(TestCaseError::fail("no answer")) };
            let mut seen = seen.borrow_mut();
            if let Some(patch) = response.patch {
                let patch: json_patch::Patch = serde_json::from_slice(&BASE64_STANDARD.decode(patch).unwrap()).unwrap();
                let mut object = serde_json::from_slice::<Value>(&body).unwrap()["request"]["object"].clone();
                prop_assert!(json_patch::patch(&mut object, &patch).is_ok());
                seen.0 += 1;
            } else if !response.allowed {
                prop_assert!(response.status.is_some_and(|status| !status.message.is_empty()));
                seen.1 += 1;
            }
            Ok(())
        })
        .unwrap();
    let (patched, refused) = *seen.borrow();
    assert!(patched > FUZZED / 10 && refused > FUZZED / 10, "{patched} patched, {refused} refused: too one-sided");
}

// With the server, the same is asked over a socket.
#[cfg(not(feature = "server"))]
#[test]
fn whatever_comes_is_answered() {
    let hook = hook();
    answer_all(|path, body| hook.answer(path, body).unwrap());
}

#[tokio::test]
async fn requests_that_are_no_reviews() {
    let send = async |method: &str, path: &str, kind: &str, body: Vec<u8>| {
        let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, kind);
        let response = hook().handle(request.body(Full::new(Bytes::from(body))).unwrap()).await;
        (response.status(), response.into_body().collect().await.unwrap().to_bytes())
    };
    let body = || review().to_string().into_bytes();
    let json = "application/json; charset=utf-8";
    assert_eq!(send("POST", "/inject/net/n", json, body()).await.0, StatusCode::OK);
    assert_eq!(send("GET", "/inject", json, body()).await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(send("POST", "/inject", "text/yaml", body()).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(send("POST", "/injected", json, body()).await.0, StatusCode::NOT_FOUND);
    assert_eq!(send("POST", "/inject", json, vec![b' '; MAX_BODY + 1]).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let (_, answer) = send("POST", "/inject", json, br#"{"request": {"uid": "9"}}"#.to_vec()).await;
    assert!(
        std::str::from_utf8(&answer).unwrap().contains(r#""uid":"9""#),
        "even then it is known which one was asked"
    );
    for body in ["", "{", "[]", "{}", r#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}"#] {
        let (status, answer) = send("POST", "/inject", json, body.into()).await;
        let answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!((status, &answer["response"]["allowed"]), (StatusCode::OK, &json!(false)), "{body}");
        assert_eq!(
            (&answer["apiVersion"], &answer["kind"]),
            (&json!("admission.k8s.io/v1"), &json!("AdmissionReview"))
        );
    }
}
