//! The law: incremental == from scratch, for every type, after every step of random histories.
//!
//! A history is a sequence of batches over a small set of names, so that objects meet: services that share hosts, ports and
//! addresses, rules that compete, Sidecars that come and go. Proxies of several namespaces are built through one memo all
//! along, and after each batch compared with a memo that has seen nothing. `MESH_LAW_HISTORIES` says how many (default 200).

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::Builder;
use crate::model::Settings;
use crate::model::request_authentication::{FetchedKeys, KeySource};
use crate::proxy::ProxyType;
use crate::testing::objects;
use crate::{Change, Proxy, Snapshot, TypeUrl};
use mesh_api::ObjectRef;
use mesh_api::mesh::MeshConfig;

const NAMESPACES: [&str; 3] = ["default", "other", "istio-system"];

fn namespace() -> impl Strategy<Value = &'static str> {
    prop::sample::select(NAMESPACES.to_vec())
}

fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b"])
}

fn export_to() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "exportTo: ['.']", "exportTo: ['*']", "exportTo: ['other']", "exportTo: ['~']"])
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        (name(), namespace()).prop_map(|(n, ns)| format!("{n}.{ns}.svc.cluster.local")),
        name().prop_map(str::to_owned),
        Just("ext.com".to_owned()),
        Just("*.com".to_owned()),
    ]
}

fn metadata(kind: &str, name: &str, namespace: &str, age: u8) -> String {
    let api = match kind {
        "Service" | "Pod" | "Secret" => "v1",
        "EndpointSlice" => "discovery.k8s.io/v1",
        "Ingress" => "networking.k8s.io/v1",
        "AuthorizationPolicy" | "RequestAuthentication" => "security.istio.io/v1",
        _ => "networking.istio.io/v1",
    };
    format!(
        "apiVersion: {api}\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}, \
         creationTimestamp: '2026-01-0{age}T00:00:00Z'"
    )
}

fn age() -> impl Strategy<Value = u8> {
    1u8..4
}

fn service() -> impl Strategy<Value = String> {
    let ip = prop::sample::select(vec!["10.0.0.1", "10.0.0.2", "None"]);
    let ports = prop::sample::select(vec![
        "[{name: http, port: 80}]",
        "[{name: tcp, port: 80}]",
        "[{name: web, port: 80}, {name: tls-x, port: 443}]",
        "[{name: http, port: 8080, targetPort: 80}, {name: tcp, port: 90}]",
    ]);
    (name(), namespace(), age(), ip, ports).prop_map(|(n, ns, age, ip, ports)| {
        let m = metadata("Service", n, ns, age);
        format!("{m}}}\nspec: {{clusterIP: {ip}, selector: {{app: {n}}}, ports: {ports}}}")
    })
}

fn slice() -> impl Strategy<Value = String> {
    (name(), namespace(), 1u8..5, any::<bool>()).prop_map(|(n, ns, ip, ready)| {
        let m = metadata("EndpointSlice", n, ns, 1);
        format!(
            "{m}, labels: {{kubernetes.io/service-name: {n}}}}}\naddressType: IPv4\nendpoints: [{{addresses: \
             [10.1.0.{ip}], conditions: {{ready: {ready}}}}}]\nports: [{{name: http, port: 80}}, {{name: tcp, port: 90}}]"
        )
    })
}

fn pod() -> impl Strategy<Value = String> {
    let account = prop::sample::select(vec!["", "one", "two"]);
    (name(), namespace(), 1u8..5, prop::sample::select(vec!["v1", "v2"]), account).prop_map(
        |(n, ns, ip, version, account)| {
            let m = metadata("Pod", n, ns, 1);
            format!(
                "{m}, labels: {{app: {n}, version: {version}, security.istio.io/tlsMode: istio}}}}\n\
                 spec: {{serviceAccountName: '{account}', subdomain: {n}, containers: []}}\nstatus: {{podIP: 10.1.0.{ip}}}"
            )
        },
    )
}

fn service_entry() -> impl Strategy<Value = String> {
    let resolution = prop::sample::select(vec!["STATIC", "DNS", "NONE"]);
    let protocol = prop::sample::select(vec!["HTTP", "TCP", "TLS"]);
    let addresses = prop::sample::select(vec!["", "addresses: [10.0.0.1], ", "addresses: [10.2.0.0/16], "]);
    (name(), namespace(), age(), host(), resolution, protocol, addresses, 1u8..4, export_to()).prop_map(
        |(n, ns, age, host, resolution, protocol, addresses, ip, export)| {
            let m = metadata("ServiceEntry", n, ns, age);
            let endpoints = if resolution == "STATIC" { format!("endpoints: [{{address: 10.3.0.{ip}}}], ") } else { String::new() };
            format!(
                "{m}}}\nspec: {{hosts: ['{host}'], {addresses}{endpoints}resolution: {resolution}, ports: [{{number: 80, \
                 name: p, protocol: {protocol}}}], {export}}}"
            )
        },
    )
}

fn virtual_service() -> impl Strategy<Value = String> {
    (name(), namespace(), age(), host(), host(), 0u32..100, export_to(), any::<bool>()).prop_map(
        |(n, ns, age, of, to, weight, export, delegate)| {
            let m = metadata("VirtualService", n, ns, age);
            let second = if delegate {
                "- delegate: {name: a, namespace: other}".to_owned()
            } else {
                format!("- route: [{{destination: {{host: '{to}', port: {{number: 80}}}}}}]")
            };
            format!(
                "{m}}}\nspec:\n  hosts: ['{of}']\n  gateways: [mesh, a, default/b]\n  {export}\n  http:\n  - match: [{{uri: {{prefix: /x}}, sourceLabels: {{app: a}}}}]\n    \
                 route:\n    - {{destination: {{host: '{to}', subset: v1}}, weight: {weight}}}\n    - {{destination: {{host: a}}, \
                 weight: {}}}\n  {second}\n  tcp:\n  - route: [{{destination: {{host: '{to}'}}}}]",
                100 - weight
            )
        },
    )
}

fn destination_rule() -> impl Strategy<Value = String> {
    let policy = prop::sample::select(vec![
        "",
        "trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}},",
        "trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x}}},",
        "trafficPolicy: {outlierDetection: {consecutive5xxErrors: 3}},",
        "trafficPolicy: {tls: {mode: ISTIO_MUTUAL}, tunnel: {targetHost: t.com, targetPort: 443}},",
    ]);
    let selector = prop::sample::select(vec!["", "workloadSelector: {matchLabels: {app: a}},"]);
    (name(), namespace(), age(), host(), policy, selector, export_to()).prop_map(|(n, ns, age, host, policy, selector, export)| {
        let m = metadata("DestinationRule", n, ns, age);
        format!("{m}}}\nspec: {{host: '{host}', {policy} {selector} subsets: [{{name: v1, labels: {{version: v1}}}}], {export}}}")
    })
}

fn sidecar() -> impl Strategy<Value = String> {
    let hosts = prop::sample::select(vec![
        "'./*'",
        "'*/*'",
        "'other/*'",
        "'*/*.com', './a.default.svc.cluster.local'",
        "'~/*'",
    ]);
    let selector = prop::sample::select(vec!["", "workloadSelector: {labels: {app: a}},"]);
    let port = prop::sample::select(vec!["", "port: {number: 80, protocol: HTTP, name: http}, "]);
    (name(), namespace(), age(), hosts, selector, port).prop_map(|(n, ns, age, hosts, selector, port)| {
        let m = metadata("Sidecar", n, ns, age);
        format!("{m}}}\nspec: {{{selector} egress: [{{{port}hosts: [{hosts}]}}]}}")
    })
}

fn gateway() -> impl Strategy<Value = String> {
    let server = prop::sample::select(vec![
        "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*.com', ./a.default.svc.cluster.local]}",
        "{port: {number: 80, name: tcp, protocol: TCP}, hosts: ['*']}",
        "{port: {number: 443, name: https, protocol: HTTPS}, hosts: [ext.com], tls: {mode: SIMPLE, credentialName: a}}",
        "{port: {number: 443, name: pass, protocol: TLS}, hosts: ['*'], tls: {mode: AUTO_PASSTHROUGH}}",
    ]);
    let selector = prop::sample::select(vec!["", "selector: {app: a}, ", "selector: {app: other}, "]);
    (name(), namespace(), age(), server.clone(), server, selector).prop_map(|(n, ns, age, one, two, selector)| {
        let m = metadata("Gateway", n, ns, age);
        format!("{m}}}\nspec: {{{selector}servers: [{one}, {two}]}}")
    })
}

fn secret() -> impl Strategy<Value = String> {
    (name(), namespace(), 0u8..3).prop_map(|(n, ns, key)| {
        let m = metadata("Secret", n, ns, 1);
        format!("{m}}}\nstringData: {{tls.crt: '-----BEGIN CERTIFICATE-----', tls.key: 'key {key}'}}")
    })
}

fn ingress() -> impl Strategy<Value = String> {
    let port = prop::sample::select(vec!["{number: 80}", "{name: http}"]);
    let class = prop::sample::select(vec!["istio", "other"]);
    (name(), namespace(), age(), port, class).prop_map(|(n, ns, age, port, class)| {
        let m = metadata("Ingress", n, ns, age);
        format!(
            "{m}}}\nspec: {{ingressClassName: {class}, tls: [{{secretName: a}}], rules: [{{host: ext.com, http: {{paths: \
             [{{path: /{n}, pathType: Prefix, backend: {{service: {{name: a, port: {port}}}}}}}]}}}}]}}"
        )
    })
}

fn authorization_policy() -> impl Strategy<Value = String> {
    let action = prop::sample::select(vec!["ALLOW", "DENY", "AUDIT", "CUSTOM, provider: {name: authz}"]);
    let rules = prop::sample::select(vec![
        "[]",
        "[{}]",
        "[{from: [{source: {namespaces: [a]}}], to: [{operation: {paths: [/a], ports: ['80']}}]}]",
        "[{when: [{key: 'request.auth.claims[a]', values: [b]}]}, {from: [{source: {principals: [td/ns/a/sa/b]}}]}]",
    ]);
    let target =
        prop::sample::select(vec!["", "selector: {matchLabels: {app: a}},", "selector: {matchLabels: {version: v1}},"]);
    (name(), namespace(), action, rules, target, any::<bool>()).prop_map(|(n, ns, action, rules, target, dry)| {
        let m = metadata("AuthorizationPolicy", n, ns, 1);
        format!(
            "{m}, annotations: {{istio.io/dry-run: '{dry}'}}}}\nspec: {{action: {action}, {target} rules: {rules}}}"
        )
    })
}

fn change() -> impl Strategy<Value = Change> {
    let kinds = vec![
        "Service",
        "EndpointSlice",
        "Pod",
        "ServiceEntry",
        "VirtualService",
        "DestinationRule",
        "Sidecar",
        "Gateway",
        "Secret",
        "Ingress",
        "AuthorizationPolicy",
        "RequestAuthentication",
    ];
    let delete = (prop::sample::select(kinds), namespace(), name())
        .prop_map(|(kind, ns, name)| Change::Delete(ObjectRef::new(kind, ns, name)));
    let upsert = prop_oneof![
        service(),
        slice(),
        pod(),
        service_entry(),
        virtual_service(),
        destination_rule(),
        sidecar(),
        gateway(),
        secret(),
        ingress(),
        authorization_policy(),
        request_authentication()
    ]
    .prop_map(|yaml| Change::Upsert(objects(&yaml).remove(0)));
    prop_oneof![12 => upsert, 4 => delete, 1 => fetched_keys(), 1 => trust()]
}

fn request_authentication() -> impl Strategy<Value = String> {
    let target =
        prop::sample::select(vec!["", "selector: {matchLabels: {app: a}},", "selector: {matchLabels: {version: v1}},"]);
    let keys = prop::sample::select(vec!["", ", jwks: '{\"keys\":[]}'", ", jwksUri: 'https://ext.com/keys'"]);
    (name(), namespace(), age(), target, keys).prop_map(|(n, ns, age, target, keys)| {
        let m = metadata("RequestAuthentication", n, ns, age);
        format!("{m}}}\nspec: {{{target} jwtRules: [{{issuer: 'https://{n}'{keys}}}, {{issuer: b, jwks: x}}]}}")
    })
}

fn fetched_keys() -> impl Strategy<Value = Change> {
    let source = prop::sample::select(vec![
        KeySource::Url("https://ext.com/keys".into()),
        KeySource::Issuer("https://a".into()),
    ]);
    let fetched = prop::sample::select(vec![
        None,
        Some(FetchedKeys::Set("{\"keys\":[]}".into())),
        Some(FetchedKeys::Failed("nobody answers".into())),
    ]);
    (source, fetched).prop_map(|(source, fetched)| Change::Keys(source, fetched))
}

fn trust() -> impl Strategy<Value = Change> {
    let roots = prop::collection::vec(prop::sample::select(vec!["one", "two"]), 1..3);
    roots.prop_map(|roots| Change::Trust(roots.into_iter().map(str::to_owned).collect()))
}

/// Settings with an authorizer that policies can name; whether it is there the history decides.
fn settings() -> Settings {
    let text =
        "extensionProviders: [{name: authz, envoyExtAuthzGrpc: {service: a.default.svc.cluster.local, port: 80}}]";
    let (mesh, told) = MeshConfig::from_yaml(text);
    assert!(told.is_empty(), "{told:?}");
    Settings { mesh: Arc::new(mesh), ..Settings::default() }
}

fn proxies() -> Vec<Arc<Proxy>> {
    let mut out = Vec::new();
    for (i, namespace) in NAMESPACES.into_iter().enumerate() {
        let mut proxy = Proxy::sidecar(format!("p.{namespace}"), namespace, [10, 1, 0, i as u8 + 1].into());
        proxy.labels = [("app".into(), "a".into()), ("version".into(), "v1".into())].into();
        out.push(Arc::new(proxy));
    }
    let mut gateway = Proxy::sidecar("gw.istio-system", "istio-system", [10, 1, 0, 9].into());
    gateway.kind = ProxyType::Router;
    gateway.labels = [("app".into(), "a".into()), ("istio".into(), "ingressgateway".into())].into();
    out.push(Arc::new(gateway));
    out
}

#[test]
fn incremental_equals_from_scratch() {
    let cases = std::env::var("MESH_LAW_HISTORIES").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let histories = prop::collection::vec(prop::collection::vec(change(), 1..6), 1..6);
    let proxies = proxies();
    runner
        .run(&histories, |history| {
            let memo = Builder::default();
            let mut snapshot = Snapshot::new(settings());
            for batch in history {
                snapshot = snapshot.apply(batch);
                let fresh = Builder::default();
                for proxy in &proxies {
                    for kind in TypeUrl::ALL {
                        let incremental = memo.build(&snapshot, proxy, kind);
                        prop_assert_eq!(&incremental, &fresh.build(&snapshot, proxy, kind), "{} of {}", kind, proxy.id);
                    }
                }
            }
            Ok(())
        })
        .unwrap();
}
