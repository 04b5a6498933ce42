//! What policies do to requests, as a workload's and a gateway's filters have it.

use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use mesh_api::mesh::MeshConfig;

use crate::explain::{Authz, Direction, Protocol, Request, Resources, explain, render};
use crate::model::{Features, Settings};
use crate::proxy::ProxyType;
use crate::testing::{envoy_accepts, snapshot};
use crate::{Builder, Proxy, Snapshot, TypeUrl};

const WORLD: &str = "
apiVersion: v1
kind: Service
metadata: {name: app, namespace: default}
spec:
  clusterIP: 10.0.0.1
  selector: {app: app}
  ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 90, targetPort: 9090}]
---
apiVersion: v1
kind: Service
metadata: {name: authz, namespace: default}
spec: {clusterIP: 10.0.0.2, ports: [{name: grpc, port: 9000}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: default}
spec:
  selector: {app: gw}
  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]
";

const PROVIDERS: &str = "
extensionProviders:
- {name: grpc, envoyExtAuthzGrpc: {service: authz.default.svc.cluster.local, port: 9000}}
- {name: http, envoyExtAuthzHttp: {service: default/authz.default.svc.cluster.local, port: 9000, pathPrefix: /check}}
- {name: gone, envoyExtAuthzGrpc: {service: nobody.default.svc.cluster.local, port: 9000}}
";

fn policy(name: &str, spec: &str) -> String {
    format!(
        "\n---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: default}}\nspec: {spec}\n"
    )
}

fn world(policies: &[(&str, &str)], settings: Settings) -> Snapshot {
    let policies: String = policies.iter().map(|(name, spec)| policy(name, spec)).collect();
    snapshot(&format!("{WORLD}{policies}"), settings)
}

fn settings(features: &[(&str, &str)]) -> Settings {
    let (mesh, told) = MeshConfig::from_yaml(PROVIDERS);
    assert!(told.is_empty(), "{told:?}");
    let features = features.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Settings { mesh: Arc::new(mesh), features: Features::new(features), ..Settings::default() }
}

fn proxy(kind: ProxyType, app: &str) -> Arc<Proxy> {
    let mut proxy = Proxy::sidecar(format!("{app}.default"), "default", [10, 1, 0, 1].into());
    proxy.kind = kind;
    proxy.labels = [("app".into(), app.into())].into();
    Arc::new(proxy)
}

/// What the workload is sent, which Envoy accepts.
fn sent(world: &Snapshot, proxy: &Arc<Proxy>) -> Resources {
    let builder = Builder::default();
    let sets = TypeUrl::ALL.map(|kind| (kind, builder.build(world, proxy, kind)));
    let resources = Resources::decode(&sets).unwrap();
    let clusters: Vec<Cluster> = resources.clusters.clone();
    envoy_accepts(resources.listeners.clone(), clusters);
    resources
}

fn request(port: u16, path: &str, principal: &str) -> Request {
    Request {
        direction: Direction::Inbound,
        port,
        protocol: if port == 9090 { Protocol::MtlsTcp } else { Protocol::MtlsHttp },
        path: path.to_owned(),
        source_principal: principal.to_owned(),
        ..Request::default()
    }
}

fn verdict(resources: &Resources, request: &Request) -> Option<Authz> {
    let explanation = explain(resources, request);
    assert_eq!(explanation.error, None, "{}", render(&explanation));
    explanation.authz
}

const FRIEND: &str = "cluster.local/ns/default/sa/friend";
const OTHER: &str = "cluster.local/ns/other/sa/other";

#[test]
fn deny_comes_before_allow_and_allow_refuses_the_rest() {
    let world = world(
        &[
            ("allow", "{selector: {matchLabels: {app: app}}, rules: [{from: [{source: {namespaces: [default]}}]}]}"),
            ("deny", "{action: DENY, rules: [{to: [{operation: {paths: [/admin, '/x/{*}/y']}}]}]}"),
            ("else", "{selector: {matchLabels: {app: another}}, action: DENY, rules: [{}]}"),
        ],
        Settings::default(),
    );
    assert_eq!(world.diagnostics().count(), 0);
    let sent = sent(&world, &proxy(ProxyType::Sidecar, "app"));
    for (port, path, who, allowed, policy) in [
        (8080, "/", FRIEND, true, "ns[default]-policy[allow]-rule[0]"),
        (8080, "/", OTHER, false, ""),
        (8080, "/admin", FRIEND, false, "ns[default]-policy[deny]-rule[0]"),
        (8080, "/x/1/y", FRIEND, false, "ns[default]-policy[deny]-rule[0]"),
        (8080, "/x/1/2/y", FRIEND, true, "ns[default]-policy[allow]-rule[0]"),
        // What bytes can't tell does not narrow what is denied.
        (9090, "/", FRIEND, false, "ns[default]-policy[deny]-rule[0]"),
    ] {
        let want = Authz { allowed, policy: policy.to_owned(), asks_external: false };
        assert_eq!(verdict(&sent, &request(port, path, who)), Some(want), "{port} {path} {who}");
    }
    let explanation = explain(&sent, &request(8080, "/admin", FRIEND));
    let object = explanation.steps.iter().find_map(|s| s.object.as_ref().filter(|_| s.step == "authz"));
    assert_eq!(object.map(ToString::to_string).as_deref(), Some("AuthorizationPolicy default/deny spec.rules[0]"));
}

#[test]
fn a_gateway_follows_policies_of_its_labels() {
    let world = world(
        &[(
            "deny",
            "{selector: {matchLabels: {app: gw}}, action: DENY, rules: [{to: [{operation: {hosts: ['*.COM']}}]}]}",
        )],
        Settings::default(),
    );
    let sent = sent(&world, &proxy(ProxyType::Router, "gw"));
    let host = |host: &str| Request { direction: Direction::Gateway, host: host.into(), ..Request::default() };
    let allowed = |name: &str| explain(&sent, &host(name)).authz.map(|authz| authz.allowed);
    assert_eq!((allowed("a.com"), allowed("a.org")), (Some(false), Some(true)));
}

#[test]
fn a_provider_is_asked_about_what_its_policies_mean() {
    let custom = |provider: &str| {
        format!(
            "{{action: CUSTOM, provider: {{name: {provider}}}, rules: [{{to: [{{operation: {{paths: [/ask]}}}}]}}]}}"
        )
    };
    let asked = |names: &[&str], features: &[(&str, &str)]| {
        let specs: Vec<(String, String)> = names.iter().map(|name| ((*name).to_owned(), custom(name))).collect();
        let policies: Vec<(&str, &str)> = specs.iter().map(|(name, spec)| (name.as_str(), spec.as_str())).collect();
        let world = world(&policies, settings(features));
        let proxy = proxy(ProxyType::Sidecar, "app");
        let sent = sent(&world, &proxy);
        let told =
            Builder::default().problems(&world).into_iter().chain(Builder::default().problems_of(&world, &proxy));
        let told: Vec<_> = told.map(|d| d.code.to_string()).collect();
        let verdict = |path: &str| verdict(&sent, &request(8080, path, FRIEND)).map(|v| (v.allowed, v.asks_external));
        (verdict("/ask"), verdict("/"), told.len())
    };
    for name in ["grpc", "http"] {
        assert_eq!(asked(&[name], &[]), (Some((true, true)), None, 0), "{name}");
    }
    // Whoever cannot be asked does not allow anything.
    assert_eq!(asked(&["gone"], &[]), (Some((false, false)), Some((true, false)), 1));
    assert_eq!(asked(&["unknown"], &[]), (Some((false, false)), Some((true, false)), 1));
    assert_eq!(asked(&["grpc", "http"], &[]), (Some((false, false)), Some((true, false)), 2));
    assert_eq!(asked(&["grpc", "http"], &[(super::SEVERAL_PROVIDERS, "true")]), (Some((true, true)), None, 0));
}

#[test]
fn workloads_of_one_kind_share_filters() {
    let world = world(&[("allow", "{rules: [{}]}")], Settings::default());
    let builder = Builder::default();
    for ip in 1..5 {
        let mut proxy = (*proxy(ProxyType::Sidecar, "app")).clone();
        proxy.ips = vec![[10, 1, 0, ip].into()];
        builder.build(&world, &Arc::new(proxy), TypeUrl::Listener);
    }
    assert_eq!(builder.stats().runs.get("AccessTo"), Some(&1));
}
