//! What a workload is sent for the connections to it.

use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, Listener};

use crate::explain::{Direction, Protocol, Request, Resources, explain};
use crate::snapshot::{Change, Snapshot};
use crate::testing::{envoy_accepts, objects};
use crate::{Builder, Proxy, TypeUrl};

const WORLD: &str = "
apiVersion: v1
kind: Service
metadata: {name: app, namespace: default}
spec:
  clusterIP: 10.0.0.1
  selector: {app: app}
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: tcp, port: 90, targetPort: 9090}
  - {name: any, port: 70, targetPort: 7070}
---
apiVersion: v1
kind: Pod
metadata: {name: app, namespace: default, labels: {app: app}}
status: {podIP: 10.1.0.1, podIPs: [{ip: 10.1.0.1}]}
";

fn policy(spec: &str) -> String {
    format!(
        "
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: p, namespace: default}}
spec: {spec}
"
    )
}

fn sidecar(spec: &str) -> String {
    format!(
        "
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: s, namespace: default}}
spec: {spec}
"
    )
}

/// The inbound listeners and clusters of the workload, which Envoy accepts together.
fn inbound(more: &str, metadata: &[(&str, &str)]) -> (Vec<Listener>, Vec<Cluster>) {
    let changes = objects(&format!("{WORLD}{more}")).into_iter().map(Change::Upsert);
    let snapshot = Snapshot::default().apply(changes);
    let mut proxy = Proxy::sidecar("app.default", "default", [10, 1, 0, 1].into());
    proxy.metadata.extend(metadata.iter().map(|(k, v)| ((*k).into(), (*v).into())));
    let (builder, proxy) = (Builder::default(), Arc::new(proxy));
    let all = |kind| builder.build(&snapshot, &proxy, kind);
    let mut listeners: Vec<_> =
        all(TypeUrl::Listener).iter().map(|r| r.decode::<Listener>().expect("listener")).collect();
    listeners.retain(|l| l.traffic_direction == 1);
    let clusters: Vec<_> = all(TypeUrl::Cluster).iter().map(|r| r.decode::<Cluster>().expect("cluster")).collect();
    let mut asked = clusters.clone();
    asked.retain(|c| c.eds_cluster_config.is_none());
    // A test must not depend on which ports are free.
    listeners.iter_mut().for_each(|l| l.bind_to_port = crate::build::bool_value(false));
    envoy_accepts(listeners.clone(), asked);
    (listeners, clusters.into_iter().filter(|c| c.name.to_lowercase().starts_with("inbound")).collect())
}

/// A chain in short: `name:port transport [alpn] tls http|tcp`.
fn short(chain: &FilterChain) -> String {
    let matched = chain.filter_chain_match.clone().unwrap_or_default();
    let kind = if chain.filters.iter().any(|f| f.name.ends_with("http_connection_manager")) { "http" } else { "tcp" };
    let port = matched.destination_port.map_or(String::new(), |p| format!(":{}", p.value));
    let tls = if chain.transport_socket.is_some() { " ends TLS" } else { "" };
    let alpn = matched.application_protocols.first().map_or(String::new(), |first| format!(" {first}.."));
    format!("{}{port} {}{alpn}{tls} {kind}", chain.name, matched.transport_protocol)
}

fn chains(listener: &Listener) -> Vec<String> {
    listener.filter_chains.iter().map(short).collect()
}

#[test]
fn ports_of_services_and_everything_else() {
    let (listeners, clusters) = inbound("", &[]);
    assert_eq!(
        chains(&listeners[0]),
        [
            "virtualInbound-blackhole:15006  tcp",
            "virtualInbound-catchall-http tls istio-http/1.0.. ends TLS http",
            "virtualInbound-catchall-http raw_buffer http/1.1.. http",
            "virtualInbound tls istio-peer-exchange.. ends TLS tcp",
            "virtualInbound raw_buffer tcp",
            "virtualInbound tls tcp",
            "0.0.0.0_7070:7070 tls istio-http/1.0.. ends TLS http",
            "0.0.0.0_7070:7070 raw_buffer http/1.1.. http",
            "0.0.0.0_7070:7070 tls istio-peer-exchange.. ends TLS tcp",
            "0.0.0.0_7070:7070 raw_buffer tcp",
            "0.0.0.0_7070:7070 tls tcp",
            "0.0.0.0_8080:8080 tls istio.. ends TLS http",
            "0.0.0.0_8080:8080 raw_buffer http",
            "0.0.0.0_9090:9090 tls istio.. ends TLS tcp",
            "0.0.0.0_9090:9090 tls tcp",
            "0.0.0.0_9090:9090 raw_buffer tcp",
        ]
    );
    let filters: Vec<_> = listeners[0].listener_filters.iter().map(|f| f.name.rsplit('.').next().unwrap()).collect();
    assert_eq!(filters, ["original_dst", "tls_inspector", "http_inspector"]);
    let never_http = format!("{:?}", listeners[0].listener_filters[2].filter_disabled);
    for port in ["start: 8080", "start: 9090", "start: 15006"] {
        assert!(never_http.contains(port), "{port} is not looked into for HTTP: {never_http}");
    }
    assert!(!never_http.contains("start: 7070"));
    let names: Vec<_> = clusters.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["InboundPassthroughCluster", "inbound|7070||", "inbound|8080||", "inbound|9090||"]);
    let bind = clusters[1].upstream_bind_config.as_ref().and_then(|b| b.source_address.as_ref()).expect("source");
    assert_eq!(bind.address, "127.0.0.6");
}

#[test]
fn policies_choose_what_is_accepted() {
    let of = |spec: &str, metadata: &[(&str, &str)], port: u16| -> Vec<String> {
        let (listeners, _) = inbound(&policy(spec), metadata);
        chains(&listeners[0]).into_iter().filter(|c| c.contains(&format!(":{port} "))).collect()
    };
    let strict = "{mtls: {mode: STRICT}}";
    assert_eq!(of(strict, &[], 8080), ["0.0.0.0_8080:8080 tls ends TLS http"]);
    assert_eq!(of(strict, &[], 9090), ["0.0.0.0_9090:9090 tls ends TLS tcp"]);
    assert_eq!(of("{mtls: {mode: DISABLE}}", &[], 8080), ["0.0.0.0_8080:8080 raw_buffer http"]);
    let port = "{selector: {matchLabels: {app: app}}, portLevelMtls: {8080: {mode: DISABLE}, 5: {mode: STRICT}}}";
    assert_eq!(of(port, &[], 8080), ["0.0.0.0_8080:8080 raw_buffer http"]);
    assert_eq!(of(port, &[], 5).len(), 2, "a port that nobody names has chains of its own");
    let without = [("MESH_MTLS", "false")];
    assert_eq!(of("{}", &without, 8080), ["0.0.0.0_8080:8080 raw_buffer http"], "no certificates, no TLS");
    assert_eq!(of(strict, &without, 8080), ["0.0.0.0_8080:8080 tls ends TLS http"], "but never less than asked for");
}

#[test]
fn explain_names_what_decides_about_a_port() {
    let named = |more: &str, port: u16| -> Option<String> {
        let (listeners, clusters) = inbound(more, &[]);
        let resources = Resources { listeners, clusters, ..Resources::default() };
        let request =
            Request { direction: Direction::Inbound, port, protocol: Protocol::MtlsHttp, ..Request::default() };
        let story = explain(&resources, &request);
        let step = story.steps.into_iter().find(|step| step.step == "filterChain")?;
        step.object.map(|object| object.to_string())
    };
    let by_port = "{selector: {matchLabels: {app: app}}, portLevelMtls: {8080: {mode: STRICT}}}";
    let policy = |spec: &str, port: u16| named(&policy(spec), port);
    assert_eq!(policy("{mtls: {mode: STRICT}}", 8080).as_deref(), Some("PeerAuthentication default/p spec.mtls.mode"));
    let of_port = "PeerAuthentication default/p spec.portLevelMtls[8080].mode";
    assert_eq!(policy(by_port, 8080).as_deref(), Some(of_port));
    assert_eq!(named("", 8080).as_deref(), Some("Service default/app spec.ports[port=80]"));
    assert_eq!(named("", 5), None, "nobody says anything of this port");
}

#[test]
fn a_sidecar_says_where_ports_lead() {
    let ingress =
        |more: &str| sidecar(&format!("{{ingress: [{{port: {{number: 80, protocol: HTTP, name: a}}{more}}}]}}"));
    let to = |more: &str| -> String {
        let (_, clusters) = inbound(&ingress(more), &[]);
        let cluster = clusters.iter().find(|c| c.name == "inbound|80||").expect("a cluster");
        let endpoint = cluster.load_assignment.as_ref().map(|l| format!("{:?}", l.endpoints[0].lb_endpoints[0]));
        endpoint.map_or_else(String::new, |e| {
            let at =
                e.find("address: \"").map(|i| i + 10).or_else(|| e.find("path: \"").map(|i| i + 7)).expect("address");
            e[at..].split('"').next().unwrap_or_default().to_owned()
        })
    };
    assert_eq!(to(""), "");
    assert_eq!(to(", defaultEndpoint: \"127.0.0.1:81\""), "127.0.0.1");
    assert_eq!(to(", defaultEndpoint: \"0.0.0.0:81\""), "10.1.0.1");
    assert_eq!(to(", defaultEndpoint: \"unix:///run/app\""), "/run/app");
    let (listeners, clusters) = inbound(&ingress(""), &[]);
    let of_ports: Vec<_> = chains(&listeners[0]).into_iter().filter(|c| !c.starts_with("virtual")).collect();
    assert_eq!(of_ports, ["10.1.0.1_80:80 tls istio.. ends TLS http", "10.1.0.1_80:80 raw_buffer http"]);
    assert_eq!(clusters.len(), 2, "ports of services are not served beside those of a Sidecar");
    let (listeners, _) = inbound(&ingress(", bind: 127.0.0.1, captureMode: NONE"), &[]);
    let names: Vec<_> = listeners.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(names, ["127.0.0.1_80", "virtualInbound"]);
}

#[test]
fn pools_come_from_the_sidecar_before_the_rule() {
    let rule = "
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: r, namespace: default}
spec: {host: app, trafficPolicy: {connectionPool: {tcp: {maxConnections: 3}}}}
";
    let most = |more: &str| {
        let (_, clusters) = inbound(more, &[]);
        let cluster = clusters.into_iter().find(|c| c.name == "inbound|8080||").expect("a cluster");
        cluster.circuit_breakers.expect("limits").thresholds[0].max_connections.map(|v| v.value)
    };
    assert_eq!(most(""), Some(u32::MAX));
    assert_eq!(most(rule), Some(3));
    let own = sidecar("{inboundConnectionPool: {tcp: {maxConnections: 5}}}");
    assert_eq!(most(&format!("{rule}{own}")), Some(5));
}

#[test]
fn nothing_is_captured_nothing_is_listened_for() {
    let (listeners, clusters) = inbound("", &[("INTERCEPTION_MODE", "NONE")]);
    assert!(listeners.is_empty());
    assert_eq!(clusters.len(), 1);
    let (listeners, _) = inbound("", &[("INTERCEPTION_MODE", "TPROXY")]);
    assert_eq!(listeners[0].transparent.map(|v| v.value), Some(true));
    assert!(listeners[0].listener_filters.iter().any(|f| f.name == "envoy.filters.listener.original_src"));
}

#[test]
fn what_cannot_be_served_is_told() {
    let of = |listener: &str| -> Vec<String> {
        let all = objects(&sidecar(&format!("{{ingress: [{listener}]}}")));
        let snapshot = Snapshot::default().apply(all.into_iter().map(Change::Upsert));
        snapshot.diagnostics().map(|d| format!("{} {}", d.path, d.code)).collect()
    };
    let port = "port: {number: 80, protocol: HTTP, name: a}";
    assert!(of(&format!("{{{port}, defaultEndpoint: \"127.0.0.1:80\"}}")).is_empty());
    for bad in ["localhost:80", "127.0.0.1", "127.0.0.1:http"] {
        let told = of(&format!("{{{port}, defaultEndpoint: \"{bad}\"}}"));
        assert_eq!(told, ["spec.ingress[0].defaultEndpoint InvalidEndpoint"], "{bad}");
    }
    assert_eq!(of("{port: {number: 70000, protocol: HTTP, name: a}}"), ["spec.ingress[0].port.number InvalidPort"]);
    let told = of(&format!("{{{port}, tls: {{mode: SIMPLE, credentialName: a}}}}"));
    assert_eq!(told, ["spec.ingress[0].tls UnsupportedField"]);
    let told = of(&format!("{{{port}, connectionPool: {{tcp: {{maxConnections: -1}}}}}}"));
    assert_eq!(told, ["spec.ingress[0].connectionPool.tcp.maxConnections NegativeNumber"]);
}
