//! The builders on a small world: names as Istio's, sharing between proxies, and what runs when something changes.

use std::sync::Arc;

use super::Builder;
use crate::testing::objects;
use crate::{Change, Proxy, Snapshot, TypeUrl};

const WORLD: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default}
spec:
  clusterIP: 10.0.0.1
  selector: {app: reviews}
  ports: [{name: http, port: 9080}, {name: tcp-db, port: 3306}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: reviews-1, namespace: default, labels: {kubernetes.io/service-name: reviews}}
addressType: IPv4
endpoints: [{addresses: [10.1.0.1]}, {addresses: [10.1.0.2], conditions: {ready: false}}]
ports: [{name: http, port: 9080}, {name: tcp-db, port: 3306}]
---
apiVersion: v1
kind: Service
metadata: {name: ratings, namespace: other}
spec:
  clusterIP: 10.0.0.2
  ports: [{name: http, port: 9080}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec:
  hosts: [reviews]
  http:
  - route:
    - {destination: {host: reviews, subset: v1}, weight: 80}
    - {destination: {host: reviews, subset: v2}, weight: 20}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: default}
spec:
  host: reviews
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
"#;

fn world(yaml: &str) -> Snapshot {
    Snapshot::default().apply(objects(yaml).into_iter().map(Change::Upsert))
}

fn proxy(namespace: &str) -> Arc<Proxy> {
    Arc::new(Proxy::sidecar(format!("app.{namespace}"), namespace, [10, 9, 9, 9].into()))
}

fn names(builder: &Builder, snapshot: &Snapshot, proxy: &Arc<Proxy>, kind: TypeUrl) -> Vec<String> {
    builder.build(snapshot, proxy, kind).iter().map(|r| r.name().to_string()).collect()
}

#[test]
fn names_are_istios() {
    let (builder, snapshot, proxy) = (Builder::default(), world(WORLD), proxy("default"));
    assert_eq!(
        names(&builder, &snapshot, &proxy, TypeUrl::Cluster),
        [
            "BlackHoleCluster",
            "InboundPassthroughCluster",
            "PassthroughCluster",
            "outbound|3306|v1|reviews.default.svc.cluster.local",
            "outbound|3306|v2|reviews.default.svc.cluster.local",
            "outbound|3306||reviews.default.svc.cluster.local",
            "outbound|9080|v1|reviews.default.svc.cluster.local",
            "outbound|9080|v2|reviews.default.svc.cluster.local",
            "outbound|9080||ratings.other.svc.cluster.local",
            "outbound|9080||reviews.default.svc.cluster.local",
        ]
    );
    assert_eq!(
        names(&builder, &snapshot, &proxy, TypeUrl::Listener),
        ["0.0.0.0_9080", "10.0.0.1_3306", "virtualInbound", "virtualOutbound"]
    );
    assert_eq!(names(&builder, &snapshot, &proxy, TypeUrl::Route), ["9080"]);
}

#[test]
fn proxies_of_one_class_share_and_an_unread_change_runs_nothing() {
    let (builder, snapshot) = (Builder::default(), world(WORLD));
    let (a, b) = (proxy("default"), proxy("default"));
    let of_a = builder.build(&snapshot, &a, TypeUrl::Cluster);
    let runs = builder.stats();
    let of_b = builder.build(&snapshot, &b, TypeUrl::Cluster);
    assert_eq!(of_a.as_slice().as_ptr(), of_b.as_slice().as_ptr());
    assert_eq!(runs, builder.stats());

    // A namespace label is read by nobody.
    let more = objects("apiVersion: v1\nkind: Namespace\nmetadata: {name: x, labels: {a: b}}\n");
    let next = snapshot.apply(more.into_iter().map(Change::Upsert));
    assert_ne!(next.revision(), snapshot.revision());
    builder.build(&next, &a, TypeUrl::Cluster);
    assert_eq!(runs, builder.stats());
}

#[test]
fn one_endpoint_runs_only_what_reads_it() {
    let (builder, snapshot, proxy) = (Builder::default(), world(WORLD), proxy("default"));
    let all = |snapshot: &Snapshot| TypeUrl::ALL.map(|kind| builder.build(snapshot, &proxy, kind));
    let before = all(&snapshot);
    let runs = builder.stats().runs;
    let moved = WORLD.replace("10.1.0.1", "10.1.0.7");
    let after = all(&snapshot.apply(objects(&moved).into_iter().map(Change::Upsert)));
    let ran: Vec<(&str, u64)> = builder
        .stats()
        .runs
        .into_iter()
        .map(|(name, n)| (name, n - runs.get(name).copied().unwrap_or(0)))
        .filter(|(_, n)| *n > 0)
        .collect();
    let queries = ["ClientEndpoints", "EndpointsOf", "ResourcesOf", "ServerNames", "ServiceEndpoints"];
    assert_eq!(ran, queries.map(|query| (query, 1)));
    for (kind, (before, after)) in TypeUrl::ALL.iter().zip(before.iter().zip(&after)) {
        assert_eq!(before == after, *kind != TypeUrl::Endpoint, "{kind}");
    }
}

#[test]
fn an_equal_write_is_no_change() {
    let snapshot = world(WORLD);
    let again = snapshot.apply(objects(WORLD).into_iter().map(Change::Upsert));
    assert_eq!(snapshot.revision(), again.revision());
}

#[test]
fn an_older_snapshot_is_answered_correctly() {
    let (builder, old, proxy) = (Builder::default(), world(WORLD), proxy("default"));
    let of_old = builder.build(&old, &proxy, TypeUrl::Cluster);
    let gone = old.apply([Change::Delete(mesh_api::ObjectRef::new("Service", "other", "ratings"))]);
    assert_eq!(builder.build(&gone, &proxy, TypeUrl::Cluster).len() + 1, of_old.len());
    assert_eq!(builder.build(&old, &proxy, TypeUrl::Cluster), of_old);
}

#[test]
fn results_that_nobody_asks_for_are_dropped() {
    let (builder, mut snapshot) = (Builder::default(), world(WORLD));
    for kind in TypeUrl::ALL {
        builder.build(&snapshot, &proxy("default"), kind);
        builder.build(&snapshot, &proxy("other"), kind);
    }
    let held = builder.stats().total_held();
    for i in 0..200 {
        let label = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: x, labels: {{a: 'b{i}'}}}}\n");
        snapshot = snapshot.apply(objects(&label).into_iter().map(Change::Upsert));
        for kind in TypeUrl::ALL {
            builder.build(&snapshot, &proxy("default"), kind);
        }
    }
    let kept = builder.stats().total_held();
    assert!(kept < held, "{kept} of {held} slots");
    assert_eq!(
        builder.build(&snapshot, &proxy("other"), TypeUrl::Cluster),
        Builder::default().build(&snapshot, &proxy("other"), TypeUrl::Cluster)
    );
}

#[test]
fn problems_between_objects_are_told() {
    let delegates = r#"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: root, namespace: default}
spec:
  hosts: [a.com]
  http:
  - {match: [{uri: {prefix: /a}}], delegate: {name: sub}}
  - {match: [{uri: {prefix: /b}}], delegate: {name: nobody}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: sub, namespace: default}
spec:
  http:
  - {match: [{uri: {prefix: /other}}], route: [{destination: {host: reviews}}]}
"#;
    let gateways = r#"
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: default}
spec:
  selector: {istio: edge}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: [a.com]}
  - {port: {number: 80, name: tcp, protocol: TCP}, hosts: ['*']}
"#;
    let at = world(&[WORLD, delegates, gateways].join("\n---\n"));
    let builder = Builder::default();
    let told = |problems: Vec<mesh_api::Diagnostic>| -> Vec<String> {
        problems.iter().map(|p| format!("{} {} {}", p.object.as_ref().unwrap(), p.path, p.code)).collect()
    };
    let of_delegates = [
        "VirtualService default/root spec.http[0].delegate DelegateConflict",
        "VirtualService default/root spec.http[1].delegate DelegateNotFound",
    ];
    assert_eq!(told(builder.problems(&at)), of_delegates);
    let mut router = Proxy::sidecar("edge.default", "default", [10, 9, 9, 9].into());
    router.kind = crate::proxy::ProxyType::Router;
    router.labels = [("istio".into(), "edge".into())].into_iter().collect();
    assert_eq!(told(builder.problems_of(&at, &Arc::new(router))), ["Gateway default/gw spec.servers[1] PortConflict"]);
    assert_eq!(told(builder.problems_of(&at, &proxy("default"))), Vec::<String>::new());
    let mutual = r#"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: ratings, namespace: other}
spec:
  host: ratings
  subsets:
  - {name: v1, trafficPolicy: {portLevelSettings: [{port: {number: 9080}, tls: {mode: ISTIO_MUTUAL}}]}}
"#;
    let at = world(&[WORLD, mutual].join("\n---\n"));
    let mut plaintext = (*proxy("default")).clone();
    assert_eq!(told(builder.problems_of(&at, &Arc::new(plaintext.clone()))), Vec::<String>::new());
    plaintext.metadata.insert("MESH_MTLS".into(), "false".into());
    let found = told(builder.problems_of(&at, &Arc::new(plaintext)));
    let field = "spec.subsets[0].trafficPolicy.portLevelSettings[0].tls.mode";
    assert_eq!(found, [format!("DestinationRule other/ratings {field} NoCertificates")]);
}
