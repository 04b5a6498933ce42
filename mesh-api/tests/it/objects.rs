//! Which object a document is: its kind, version, namespace, name and age.

use std::cmp::Ordering;

use mesh_api::document::{self, Value};
use mesh_api::object::{KINDS, Kind};
use mesh_api::{FieldPath, Object};
use serde_json::json;

fn one(text: &str) -> Object {
    let mut parsed = document::parse(&"f".into(), text);
    assert_eq!(parsed.documents.len(), 1, "{parsed:#?}");
    let document = parsed.documents.remove(0).unwrap();
    assert_eq!(document.diagnostics, []);
    document.object
}

#[test]
fn every_kind_is_read_in_every_served_version() {
    for kind in KINDS {
        for version in kind.versions {
            let api_version =
                if kind.group.is_empty() { (*version).to_owned() } else { format!("{}/{version}", kind.group) };
            // What Kubernetes' own types require.
            let needed = match kind.kind {
                "GatewayClass" => "{controllerName: a}",
                "Gateway" if kind.group.starts_with("gateway.") => "{gatewayClassName: a, listeners: []}",
                "TCPRoute" | "UDPRoute" => "{rules: []}",
                "TLSRoute" => "{rules: [], hostnames: []}",
                "ListenerSet" => "{listeners: [], parentRef: {name: a}}",
                "ReferenceGrant" => "{from: [], to: []}",
                "DaemonSet" | "Deployment" => "{selector: {}, template: {}}",
                "StatefulSet" => "{selector: {}, serviceName: a, template: {}}",
                "ReplicaSet" => "{selector: {}}",
                "Job" => "{template: {}}",
                "CronJob" => "{schedule: a, jobTemplate: {}}",
                "Pod" => "{containers: []}",
                _ => "{}",
            };
            let spec = match kind.kind {
                "Endpoints" | "ConfigMap" | "Secret" | "ServiceAccount" => String::new(),
                "EndpointSlice" => "addressType: IPv4\nendpoints: []\n".to_owned(),
                _ => format!("spec: {needed}\n"),
            };
            let text = format!("apiVersion: {api_version}\nkind: {}\nmetadata: {{name: a}}\n{spec}", kind.kind);
            let object = one(&text);
            let reference = object.object_ref();
            assert_eq!((reference.kind.as_str(), reference.name.as_str()), (kind.name, "a"), "{text}");
            assert_eq!(reference.namespace, if kind.namespaced { "default" } else { "" }, "{text}");
            assert!(!matches!(object, Object::Other(_)), "{text}");
            assert_eq!(Kind::find(kind.group, kind.kind), Some(kind));
        }
    }
}

#[test]
fn two_gateways_keep_apart() {
    let istio = one("apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: a}\nspec: {}\n");
    let other = one(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: a}\nspec: {gatewayClassName: x, listeners: []}\n",
    );
    assert_eq!(istio.object_ref().to_string(), "Gateway default/a");
    assert_eq!(other.object_ref().to_string(), "Gateway.gateway.networking.k8s.io default/a");
}

#[test]
fn other_kinds_are_carried_whole() {
    for (kind, want) in [("Thing", "Thing default/a"), ("ClusterRole", "ClusterRole a")] {
        let object =
            one(&format!("apiVersion: x.example/v1\nkind: {kind}\nmetadata: {{name: a}}\nfoo: [1, {{b: null}}]\n"));
        assert_eq!(object.object_ref().to_string(), want);
        let Object::Other(other) = object else { panic!("{object:?}") };
        assert_eq!(other.content["foo"], json!([1, {"b": null}]));
        assert_eq!(other.api_version, "x.example/v1");
    }
}

#[test]
fn an_unserved_version_names_those_that_are() {
    for (api_version, kind, message) in [
        (
            "networking.istio.io/v2",
            "Sidecar",
            "Sidecar is not served as networking.istio.io/v2; write networking.istio.io/v1 or networking.istio.io/v1beta1 or \
             networking.istio.io/v1alpha3",
        ),
        ("v1beta1", "Pod", "Pod is not served as v1beta1; write v1"),
        ("networking.istio.io/v1", "Sidekar", "networking.istio.io has no kind Sidekar"),
    ] {
        let value = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}});
        assert_eq!(Object::from_value(&value).unwrap_err().message, message);
    }
}

#[test]
fn lists_are_taken_apart() {
    let text = "kind: List\napiVersion: v1\nitems:\n- kind: Namespace\n  apiVersion: v1\n  metadata: {name: a}\n- 7\n\
                - kind: Pod\n  apiVersion: v1\n  metadata: {name: b, namespace: c}\n---\nkind: ServiceList\napiVersion: v1\n\
                items: [{metadata: {name: d}}, {metadata: {name: e}, spec: {typo: 1}}]\n---\nkind: List\napiVersion: v1\nitems: []\n";
    let parsed = document::parse(&"f".into(), text);
    let read: Vec<_> = parsed.objects().map(|o| o.object_ref().to_string()).collect();
    assert_eq!(read, ["Namespace a", "Pod c/b", "Service default/d", "Service default/e"]);
    let told: Vec<_> = parsed.diagnostics().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "f:7:3: items[1]: not a Kubernetes object but a number [NotAnObject]",
            "f:14:61: Service default/e spec.typo: Service has no such field; it is ignored [UnknownField]",
        ]
    );
    let lines: Vec<_> = parsed.documents.iter().flatten().map(|d| d.location.line).collect();
    assert_eq!(lines, [4, 8, 14, 14]);
}

#[test]
fn raw_documents_stay_as_written() {
    let text = "# c\nz: 1\na: {b: [x, \"1\"]}\n---\nkind: List\nitems: [{a: 1}]\n";
    let raw: Vec<_> = document::raw(&"f".into(), text).into_iter().map(Result::unwrap).collect();
    assert_eq!(serde_json::to_string(&raw[0].node).unwrap(), r#"{"z":1,"a":{"b":["x","1"]}}"#);
    assert_eq!(raw[0].locate(&FieldPath::new("a.b[1]")).to_string(), "f:3:12");
    assert_eq!(raw[0].locate(&FieldPath::new("a.b[7].c")).to_string(), "f:3:8");
    assert!(matches!(raw[1].node.get("items").unwrap().value, Value::Sequence(_)));
    assert_eq!(raw[1].location().line, 5);
}

#[test]
fn values_mean_what_go_reads() {
    // Null is the zero value, a quantity may be a number, 5.0 is a whole number, and a missing spec says nothing.
    let pod = one(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace:, labels:, annotations: {x: null}}\nspec:\n  containers:\n  - name: c\n    image:\n    \
         ports: [{containerPort: 80.0}]\n    resources: {requests: {cpu: 1, memory: 0.5}}\n    command: [null]\n",
    );
    let Object::Pod(pod) = pod else { panic!("{pod:?}") };
    let container = &pod.spec.as_ref().unwrap().containers[0];
    assert_eq!(container.ports.as_ref().unwrap()[0].container_port, 80);
    assert_eq!(container.resources.as_ref().unwrap().requests.as_ref().unwrap()["cpu"].0, "1");
    assert_eq!(container.resources.as_ref().unwrap().requests.as_ref().unwrap()["memory"].0, "0.5");
    assert_eq!((container.image.as_deref(), container.command.as_deref()), (None, Some(&[String::new()][..])));
    assert_eq!(pod.metadata.annotations.as_ref().unwrap()["x"], "");
    for spec in ["", "spec:\n", "spec: null\n", "spec: {}\n"] {
        let text =
            format!("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: a}}\n{spec}");
        assert!(matches!(one(&text), Object::AuthorizationPolicy(p) if p.spec == Default::default()), "{text}");
    }
}

#[test]
fn the_eldest_comes_first() {
    let made = |name: &str, namespace: &str, time: &str| {
        one(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, creationTimestamp: {time}}}\n"
        ))
    };
    let order = [
        made("z", "z", "null"),
        made("b", "b", "2020-01-01T00:00:00Z"),
        made("a", "a", "2021-01-01T00:00:00Z"),
        made("b", "a", "2021-01-01T00:00:00Z"),
        made("a", "b", "2021-01-01T00:00:00Z"),
    ];
    for (i, a) in order.iter().enumerate() {
        for (j, b) in order.iter().enumerate() {
            assert_eq!(a.cmp_age(b), i.cmp(&j), "{a:?} {b:?}");
        }
    }
    assert_eq!(order[0].cmp_age(&order[0].clone()), Ordering::Equal);
}
