//! Gateways on proxies, as Istio merges them, and what a real Envoy says to it.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, route, route_action};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{DownstreamTlsContext, Secret, secret};
use prost::Message;

use super::*;
use crate::model::Settings;
use crate::proxy::Proxy;
use crate::snapshot::Snapshot;
use crate::testing::{envoy_accepts, envoy_accepts_route_config, snapshot};
use crate::{Builder, ResourceSet, TypeUrl};

/// The proxy of the tests: `istio: ingressgateway` in `istio-system` at 1.1.1.1.
fn build(snapshot: &Snapshot, kind: TypeUrl) -> ResourceSet {
    let json = r#"{"type": "router", "id": "gw.istio-system", "ips": ["1.1.1.1"], "namespace": "istio-system",
        "labels": {"istio": "ingressgateway", "irrelevant": "x"}}"#;
    Builder::default().build(snapshot, &Arc::new(Proxy::from_json(json).unwrap()), kind)
}

struct World {
    snapshot: Snapshot,
    listeners: BTreeMap<String, Listener>,
    routes: BTreeMap<String, RouteConfiguration>,
}

fn world(yaml: &str) -> World {
    world_with(yaml, Settings::default())
}

fn world_with(yaml: &str, settings: Settings) -> World {
    let snapshot = snapshot(yaml, settings);
    let told: Vec<_> = snapshot.diagnostics().map(ToString::to_string).collect();
    assert!(told.is_empty(), "{told:?}");
    let listeners = build(&snapshot, TypeUrl::Listener);
    let listeners: Vec<Listener> = listeners.iter().map(|r| r.decode().unwrap()).collect();
    if !listeners.is_empty() {
        envoy_accepts(listeners.clone(), Vec::new());
    }
    let routes = build(&snapshot, TypeUrl::Route);
    let routes: Vec<RouteConfiguration> = routes.iter().map(|r| r.decode().unwrap()).collect();
    routes.iter().cloned().for_each(envoy_accepts_route_config);
    World {
        snapshot,
        listeners: listeners.into_iter().map(|l| (l.name.clone(), l)).collect(),
        routes: routes.into_iter().map(|r| (r.name.clone(), r)).collect(),
    }
}

impl World {
    fn listener_names(&self) -> Vec<&str> {
        self.listeners.keys().map(String::as_str).collect()
    }
    fn route_names(&self) -> Vec<&str> {
        self.routes.keys().map(String::as_str).collect()
    }
    /// Virtual hosts with their domains and the clusters of their routes.
    fn hosts(&self, routes: &str) -> Vec<(String, Vec<String>, Vec<String>)> {
        let cluster = |r: &envoy_types::pb::envoy::config::route::v3::Route| match &r.action {
            Some(route::Action::Route(action)) => match &action.cluster_specifier {
                Some(route_action::ClusterSpecifier::Cluster(name)) => name.clone(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        let hosts = &self.routes[routes].virtual_hosts;
        hosts.iter().map(|h| (h.name.clone(), h.domains.clone(), h.routes.iter().map(cluster).collect())).collect()
    }
    /// Server names of each chain and the secret that it serves, if it ends TLS.
    fn chains(&self, listener: &str) -> Vec<(Vec<String>, String)> {
        let secret = |c: &FilterChain| {
            let Some(socket) = &c.transport_socket else { return String::new() };
            let context = tls_context(socket.config_type.as_ref());
            context.common_tls_context.unwrap().tls_certificate_sds_secret_configs[0].name.clone()
        };
        let sni = |c: &FilterChain| c.filter_chain_match.as_ref().map(|m| m.server_names.clone()).unwrap_or_default();
        self.listeners[listener].filter_chains.iter().map(|c| (sni(c), secret(c))).collect()
    }
    fn conflicts(&self) -> Vec<String> {
        let json = r#"{"type": "router", "id": "gw.istio-system", "ips": ["1.1.1.1"], "namespace": "istio-system",
            "labels": {"istio": "ingressgateway"}}"#;
        Builder::default()
            .problems_of(&self.snapshot, &Arc::new(Proxy::from_json(json).unwrap()))
            .iter()
            .map(|d| format!("{} {} {}", d.object.as_ref().unwrap(), d.path, d.code))
            .collect()
    }
}

fn tls_context(
    config: Option<&envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType>,
) -> DownstreamTlsContext {
    use envoy_types::pb::envoy::config::core::v3::transport_socket::ConfigType;
    match config {
        Some(ConfigType::TypedConfig(any)) => DownstreamTlsContext::decode(any.value.as_slice()).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// A Gateway `ns/name` with these servers.
fn gateway(full_name: &str, servers: &str) -> String {
    let (namespace, name) = full_name.split_once('/').unwrap();
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: \
         {{selector: {{istio: ingressgateway}}, servers: [{servers}]}}\n"
    )
}

fn server(port: u16, protocol: &str, hosts: &str, more: &str) -> String {
    let name = format!("{}-{port}", protocol.to_lowercase());
    format!("{{port: {{number: {port}, name: {name}, protocol: {protocol}}}, hosts: [{hosts}] {more}}}")
}

/// A VirtualService `ns/name` on these gateways.
fn virtual_service(full_name: &str, hosts: &str, gateways: &str, rules: &str) -> String {
    let (namespace, name) = full_name.split_once('/').unwrap();
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{hosts: [{hosts}], gateways: [{gateways}], {rules}}}\n"
    )
}

fn http_to(host: &str) -> String {
    format!("http: [{{route: [{{destination: {{host: {host}}}}}]}}]")
}

fn owned(list: &[&str]) -> Vec<String> {
    list.iter().map(|t| (*t).to_owned()).collect()
}

#[test]
fn plaintext_servers_of_a_port_share_a_listener_and_its_routes() {
    let w = world(
        &[
            gateway("default/one", &server(80, "HTTP", "one.example.com", "")),
            gateway("default/two", &server(80, "HTTP2", "'*.example.com'", "")),
            virtual_service("default/a", "one.example.com", "one", &http_to("a")),
            virtual_service("default/b", "'*'", "two", &http_to("b")),
            virtual_service("default/c", "elsewhere.com", "one", &http_to("c")),
        ]
        .concat(),
    );
    assert_eq!(w.listener_names(), ["0.0.0.0_80"]);
    assert_eq!(w.route_names(), ["http.80"]);
    assert_eq!(
        w.hosts("http.80"),
        [
            (
                "*.example.com:80".to_owned(),
                owned(&["*.example.com"]),
                owned(&["outbound|80||b.default.svc.cluster.local"])
            ),
            (
                "one.example.com:80".to_owned(),
                owned(&["one.example.com"]),
                owned(&["outbound|80||a.default.svc.cluster.local"])
            ),
        ]
    );
    assert!(w.conflicts().is_empty());
}

#[test]
fn routes_of_a_host_are_joined_and_catch_alls_go_last() {
    let w = world(
        &[
            gateway("default/gw", &server(80, "HTTP", "'*'", "")),
            virtual_service("default/a", "x.com, y.com", "gw", &http_to("a")),
            virtual_service(
                "default/b",
                "x.com",
                "gw",
                "http: [{match: [{uri: {prefix: /b}}], route: [{destination: {host: b}}]}]",
            ),
        ]
        .concat(),
    );
    let a = "outbound|80||a.default.svc.cluster.local";
    let b = "outbound|80||b.default.svc.cluster.local";
    assert_eq!(
        w.hosts("http.80"),
        [
            ("x.com:80".to_owned(), owned(&["x.com"]), owned(&[b, a])),
            ("y.com:80".to_owned(), owned(&["y.com"]), owned(&[a])),
        ]
    );
}

#[test]
fn hosts_with_the_same_routes_are_one_virtual_host() {
    let w = world(
        &[
            gateway("default/gw", &server(80, "HTTP", "'*'", "")),
            virtual_service("default/a", "long.example.com, z.com, '*.x.com'", "gw", &http_to("a")),
        ]
        .concat(),
    );
    let hosts = w.hosts("http.80");
    assert_eq!(hosts.len(), 1);
    assert_eq!(
        (hosts[0].0.as_str(), hosts[0].1.clone()),
        ("long.example.com:80", owned(&["long.example.com", "z.com", "*.x.com"]))
    );
}

#[test]
fn namespaces_of_hosts_say_who_may_be_bound() {
    let w = world(
        &[
            gateway("default/gw", &server(80, "HTTP", "ns1/*.example.com, ./own.com", "")),
            virtual_service("ns1/a", "a.example.com", "default/gw", &http_to("a")),
            virtual_service("ns2/b", "b.example.com", "default/gw", &http_to("b")),
            virtual_service("default/c", "own.com", "gw", &http_to("c")),
        ]
        .concat(),
    );
    let names: Vec<_> = w.hosts("http.80").into_iter().map(|h| h.0).collect();
    assert_eq!(names, ["a.example.com:80", "own.com:80"]);
}

#[test]
fn without_routes_there_is_a_blackhole() {
    let w = world(&gateway("default/gw", &server(80, "HTTP", "foo.bar", "")));
    assert_eq!(w.hosts("http.80"), [("blackhole:80".to_owned(), owned(&["*"]), vec![])]);
}

#[test]
fn redirects_need_no_routes() {
    let w = world(&gateway("default/gw", &server(80, "HTTP", "./foo.bar", ", tls: {httpsRedirect: true}")));
    let host = &w.routes["http.80"].virtual_hosts[0];
    assert_eq!(
        (host.name.as_str(), host.domains.as_slice(), host.require_tls),
        ("foo.bar:80", &owned(&["foo.bar"])[..], 2)
    );
}

#[test]
fn tls_servers_are_told_apart_by_server_name() {
    let w = world(
        &[
            gateway(
                "istio-system/gw",
                &[
                    server(443, "HTTPS", "a.com", ", tls: {mode: SIMPLE, credentialName: a-cert}"),
                    "{port: {number: 443, name: mutual, protocol: HTTPS}, hosts: ['*.b.com'], tls: {mode: MUTUAL, \
                      credentialName: b-cert, subjectAltNames: [client.b.com], minProtocolVersion: TLSV1_3}}"
                        .to_owned(),
                    "{port: {number: 443, name: mesh, protocol: HTTPS}, hosts: [c.com], tls: {mode: ISTIO_MUTUAL}}"
                        .to_owned(),
                    "{port: {number: 443, name: files, protocol: HTTPS}, hosts: [d.com], tls: {mode: OPTIONAL_MUTUAL, \
                      serverCertificate: /c, privateKey: /k, caCertificates: /ca}}"
                        .to_owned(),
                    "{port: {number: 443, name: two, protocol: HTTPS}, hosts: [e.com], tls: {mode: SIMPLE, \
                      credentialNames: [rsa, ecdsa], cipherSuites: [ECDHE-RSA-AES128-GCM-SHA256]}}"
                        .to_owned(),
                ]
                .join(", "),
            ),
            virtual_service("default/a", "a.com", "istio-system/gw", &http_to("a")),
        ]
        .concat(),
    );
    assert_eq!(w.listener_names(), ["0.0.0.0_443"]);
    assert_eq!(
        w.chains("0.0.0.0_443"),
        [
            (owned(&["a.com"]), "kubernetes://a-cert".to_owned()),
            (owned(&["*.b.com"]), "kubernetes://b-cert".to_owned()),
            (owned(&["c.com"]), "default".to_owned()),
            (owned(&["d.com"]), "file-cert:/c~/k".to_owned()),
            (owned(&["e.com"]), "kubernetes://rsa".to_owned()),
        ]
    );
    assert_eq!(w.listeners["0.0.0.0_443"].listener_filters.len(), 1);
    assert_eq!(
        w.route_names(),
        [
            "https.443.files.gw.istio-system",
            "https.443.https-443.gw.istio-system",
            "https.443.mesh.gw.istio-system",
            "https.443.mutual.gw.istio-system",
            "https.443.two.gw.istio-system"
        ]
    );
    let cluster = "outbound|443||a.default.svc.cluster.local";
    assert_eq!(
        w.hosts("https.443.https-443.gw.istio-system"),
        [("a.com:443".to_owned(), owned(&["a.com"]), owned(&[cluster]))]
    );
    let demands: Vec<bool> = w.listeners["0.0.0.0_443"]
        .filter_chains
        .iter()
        .map(|c| tls_context(c.transport_socket.as_ref().unwrap().config_type.as_ref()))
        .map(|c| c.require_client_certificate.unwrap().value)
        .collect();
    assert_eq!(demands, [false, true, true, false, false]);
}

#[test]
fn conflicts_cost_the_later_server() {
    let tls = ", tls: {mode: SIMPLE, credentialName: c}";
    for (first, second, told, chains) in [
        (server(80, "TCP", "'*'", ""), server(80, "HTTP", "'*'", ""), "PortConflict", 0),
        (server(80, "HTTP", "'*'", ""), server(80, "TCP", "'*'", ""), "PortConflict", 1),
        (server(80, "TCP", "a.com", ""), server(80, "TCP", "b.com", ""), "PortConflict", 0),
        (server(443, "HTTPS", "a.com", tls), server(443, "HTTPS", "a.com", tls), "DuplicateHost", 1),
        (server(443, "HTTPS", "a.com", tls), server(443, "HTTPS", "b.com", tls), "", 2),
        (server(80, "HTTP", "'*'", ""), server(80, "GRPC", "a.com", ""), "", 1),
        (server(80, "HTTP", "'*'", ""), server(80, "HTTP", "a.com", ", bind: 10.0.0.1"), "", 1),
    ] {
        let w = world(&[gateway("default/a", &first), gateway("default/b", &second)].concat());
        let want: Vec<String> =
            if told.is_empty() { vec![] } else { vec![format!("Gateway default/b spec.servers[0] {told}")] };
        assert_eq!(w.conflicts(), want, "{first} {second}");
        let built = w.listeners.values().next().map_or(0, |l| l.filter_chains.len());
        assert_eq!(built, chains, "{first} {second}");
    }
}

#[test]
fn one_gateway_may_not_use_a_port_name_twice_for_https() {
    let tls = ", tls: {mode: SIMPLE, credentialName: c}";
    let servers = [server(443, "HTTPS", "a.com", tls), server(443, "HTTPS", "b.com", tls)].join(", ");
    let w = world(&gateway("default/gw", &servers));
    assert_eq!(w.conflicts(), ["Gateway default/gw spec.servers[1] DuplicatePortName"]);
    assert_eq!(w.chains("0.0.0.0_443").len(), 1);
}

#[test]
fn passthrough_and_tcp_follow_l4_rules() {
    let tls_rule = |host: &str, to: &str| {
        format!("tls: [{{match: [{{port: 443, sniHosts: [{host}]}}], route: [{{destination: {{host: {to}}}}}]}}]")
    };
    let w = world(
        &[
            gateway(
                "default/gw",
                &[
                    server(443, "TLS", "'*.a.com'", ", tls: {mode: PASSTHROUGH}"),
                    server(3306, "MONGO", "'*'", ""),
                    server(9000, "TCP", "'*'", ""),
                    server(8443, "TLS", "t.com", ", tls: {mode: SIMPLE, credentialName: c}"),
                ]
                .join(", "),
            ),
            virtual_service("default/a", "x.a.com", "gw", &tls_rule("x.a.com", "a")),
            virtual_service("default/b", "x.a.com", "gw", &tls_rule("x.a.com", "b")),
            virtual_service(
                "default/c",
                "'*'",
                "gw",
                "tcp: [{match: [{port: 3306}], route: [{destination: {host: m}}]}, \
                       {match: [{port: 8443, gateways: [other]}], route: [{destination: {host: nn}}]}, \
                       {match: [{port: 8443}], route: [{destination: {host: oo}, weight: 1}, {destination: {host: pp}, weight: 2}]}]",
            ),
        ]
        .concat(),
    );
    // Nothing listens where no rule leads anywhere.
    assert_eq!(w.listener_names(), ["0.0.0.0_3306", "0.0.0.0_443", "0.0.0.0_8443"]);
    assert_eq!(w.chains("0.0.0.0_443"), [(owned(&["x.a.com"]), String::new())]);
    assert_eq!(w.chains("0.0.0.0_8443"), [(owned(&["t.com"]), "kubernetes://c".to_owned())]);
    assert!(w.routes.is_empty());
}

#[test]
fn sni_of_other_networks_goes_through_to_the_cluster_that_it_names() {
    let services = "---\napiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: default}\nspec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}\n";
    let gw = gateway("default/gw", &server(15443, "TLS", "'*.local'", ", tls: {mode: AUTO_PASSTHROUGH}"));
    let w = world(&[services, &gw].concat());
    let name = "outbound_.80_._.a.default.svc.cluster.local";
    assert_eq!(w.chains("0.0.0.0_15443"), [(owned(&[name]), String::new())]);
}

#[test]
fn the_service_in_front_maps_ports() {
    let entry = |name: &str, labels: &str, port: u16, target: u16| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {}, namespace: istio-system, labels: {{{labels}}}}}\n\
             spec: {{hosts: [{name}], resolution: STATIC, location: MESH_INTERNAL, ports: [{{number: {port}, targetPort: {target}, \
             name: http, protocol: HTTP}}], endpoints: [{{address: 1.1.1.1}}]}}\n",
            name.replace('.', "-")
        )
    };
    let gw = [gateway("default/gw", &[server(80, "HTTP", "a.com", ""), server(81, "HTTP", "b.com", "")].join(", "))]
        .concat();
    let disabled = "experimental.istio.io/disable-gateway-port-translation: 'true'";
    for (services, listeners) in [
        (String::new(), vec!["0.0.0.0_80", "0.0.0.0_81"]),
        (entry("x.com", "", 80, 8080), vec!["0.0.0.0_8080", "0.0.0.0_81"]),
        (entry("x.com", disabled, 80, 8080), vec!["0.0.0.0_80", "0.0.0.0_81"]),
        ([entry("x.com", "", 80, 8080), entry("y.com", "", 81, 8080)].concat(), vec!["0.0.0.0_8080"]),
    ] {
        let w = world(&[services, gw.clone()].concat());
        assert_eq!(w.listener_names(), listeners);
    }
    let by_service = "---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: gw, namespace: istio-system, \
                      annotations: {internal.istio.io/gateway-service: 'other.com,x.com'}}\nspec: {servers: [";
    let by_service =
        format!("{by_service}{}, {}]}}\n", server(80, "HTTP", "a.com", ""), server(81, "HTTP", "b.com", ""));
    let w = world(&[by_service.clone(), entry("x.com", "", 80, 8080)].concat());
    assert_eq!(w.listener_names(), ["0.0.0.0_8080"]);
    assert_eq!(w.conflicts(), ["Gateway istio-system/gw spec.servers[1] NoPort"]);
    assert!(world(&by_service).listeners.is_empty());
}

#[test]
fn other_proxies_and_namespaces_are_none_of_its_business() {
    let elsewhere = gateway("default/gw", &server(80, "HTTP", "a.com", "")).replace("ingressgateway", "other");
    assert!(world(&elsewhere).listeners.is_empty());
    let yaml = gateway("default/gw", &server(80, "HTTP", "a.com", ""));
    let features =
        crate::model::Features::new([("PILOT_SCOPE_GATEWAY_TO_NAMESPACE".to_owned(), "true".to_owned())].into());
    let settings = Settings { features, ..Settings::default() };
    assert!(world_with(&yaml, settings).listeners.is_empty());
}

#[test]
fn secrets_go_to_their_own_namespace_only() {
    let secret = |namespace: &str, name: &str, data: &str| {
        format!(
            "---\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\nstringData: {data}\n"
        )
    };
    let pair = "{tls.crt: '-----BEGIN CERTIFICATE-----', tls.key: k, ca.crt: '-----BEGIN CERTIFICATE-----'}";
    let server_with = |name: &str, credential: &str| {
        format!(
            "{{port: {{number: 443, name: {name}, protocol: HTTPS}}, hosts: [{name}.com], tls: {{mode: MUTUAL, credentialName: '{credential}'}}}}"
        )
    };
    let snapshot = snapshot(
        &[
            secret("istio-system", "own", pair),
            secret("istio-system", "unused", pair),
            secret("default", "theirs", pair),
            gateway(
                "default/gw",
                &[
                    server_with("a", "own"),
                    server_with("b", "theirs"),
                    server_with("c", "default/theirs"),
                    server_with("d", "kubernetes-gateway://istio-system/own"),
                ]
                .join(", "),
            ),
        ]
        .concat(),
        Settings::default(),
    );
    let secrets = build(&snapshot, TypeUrl::Secret);
    let names: Vec<_> = secrets.iter().map(|r| r.name().to_string()).collect();
    assert_eq!(names, ["kubernetes://own", "kubernetes://own-cacert"]);
    let kinds: Vec<_> = secrets.iter().map(|r| r.decode::<Secret>().unwrap().r#type.unwrap()).collect();
    assert!(
        matches!(kinds[0], secret::Type::TlsCertificate(_)) && matches!(kinds[1], secret::Type::ValidationContext(_))
    );
}

#[test]
fn a_grant_lets_gateways_of_another_namespace_have_a_secret() {
    let secret = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: c, namespace: certs}\nstringData: {tls.crt: a, tls.key: b}\n";
    let server = "{port: {number: 443, name: a, protocol: HTTPS}, hosts: [a.com], tls: {mode: SIMPLE, credentialName: \
                  'kubernetes-gateway://certs/c'}}";
    let grant = |from: &str, to: &str| {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {{name: g, namespace: certs}}\nspec: {{from: \
             [{{group: gateway.networking.k8s.io, kind: Gateway, namespace: {from}}}], to: [{{group: '', kind: Secret{to}}}]}}\n"
        )
    };
    let served = |grant: &str| {
        let world = [secret, &gateway("istio-system/gw", server), grant].concat();
        build(&snapshot(&world, Settings::default()), TypeUrl::Secret)
            .iter()
            .map(|r| r.name().to_string())
            .collect::<Vec<_>>()
    };
    for (grant, granted) in [
        (String::new(), false),
        (grant("istio-system", ""), true),
        (grant("istio-system", ", name: c"), true),
        (grant("istio-system", ", name: other"), false),
        (grant("default", ""), false),
    ] {
        assert_eq!(!served(&grant).is_empty(), granted, "{grant}");
    }
}

#[test]
fn credentials_of_rules_are_served_too() {
    let entry = "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e, namespace: istio-system}\nspec: \
                 {hosts: [e.com], resolution: DNS, ports: [{number: 443, name: https, protocol: HTTP}]}\n";
    let rule = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: e, namespace: istio-system}\nspec: \
                {host: e.com, trafficPolicy: {portLevelSettings: [{port: {number: 443}, tls: {mode: MUTUAL, credentialName: c}}]}}\n";
    let secret = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: c, namespace: NS}\nstringData: {tls.crt: a, tls.key: b, ca.crt: d}\n";
    for (namespace, names) in [("istio-system", &["kubernetes://c", "kubernetes://c-cacert"][..]), ("default", &[])] {
        let yaml = [entry, rule, &secret.replace("NS", namespace)].concat();
        let secrets = build(&snapshot(&yaml, Settings::default()), TypeUrl::Secret);
        assert_eq!(secrets.iter().map(|r| r.name().to_string()).collect::<Vec<_>>(), names);
    }
}

#[test]
fn the_mesh_says_what_is_retried_where_rules_do_not() {
    let yaml = [
        gateway("default/gw", &server(80, "HTTP", "'*'", "")),
        virtual_service("default/a", "a.com", "gw", &http_to("a")),
        virtual_service(
            "default/b",
            "b.com",
            "gw",
            "http: [{retries: {attempts: 5}, route: [{destination: {host: b}}]}]",
        ),
    ]
    .concat();
    let mesh = mesh_api::mesh::MeshConfig {
        default_http_retry_policy: Some(mesh_api::networking::HttpRetry { attempts: 7, ..Default::default() }),
        ..Default::default()
    };
    let settings = Settings { mesh: Arc::new(mesh), ..Settings::default() };
    let w = world_with(&yaml, settings);
    let attempts = |host: &envoy_types::pb::envoy::config::route::v3::VirtualHost| match &host.routes[0].action {
        Some(route::Action::Route(a)) => a.retry_policy.as_ref().unwrap().num_retries.unwrap().value,
        other => panic!("{other:?}"),
    };
    assert_eq!(w.routes["http.80"].virtual_hosts.iter().map(attempts).collect::<Vec<_>>(), [7, 5]);
}

#[test]
fn ingresses_share_hosts_with_the_routes_of_all() {
    let ingress = |name: &str, created: &str, path: &str| {
        format!(
            "---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, namespace: default, creationTimestamp: \
             '{created}', annotations: {{kubernetes.io/ingress.class: istio}}}}\nspec: {{tls: [{{hosts: [x.com], secretName: s}}], \
             rules: [{{host: x.com, http: {{paths: [{{pathType: Prefix, path: {path}, backend: {{service: {{name: {name}, port: \
             {{number: 80}}}}}}}}]}}}}]}}\n"
        )
    };
    let w = world(
        &[ingress("alpha", "2020-01-01T00:00:00Z", "/a"), ingress("beta", "2010-01-01T00:00:00Z", "/beta")].concat(),
    );
    assert_eq!(w.listener_names(), ["0.0.0.0_443", "0.0.0.0_80"]);
    let to = |name: &str| format!("outbound|80||{name}.default.svc.cluster.local");
    assert_eq!(w.hosts("http.80"), [("x.com:80".to_owned(), owned(&["x.com"]), vec![to("beta"), to("alpha")])]);
    // The older Ingress has the host's routes, the first by name its certificate: nothing joins them.
    let https =
        "https.443.https-443-ingress-alpha-default-0.alpha-istio-autogenerated-k8s-ingress-default.istio-system";
    assert_eq!(w.route_names(), ["http.80", https]);
    assert_eq!(w.hosts(https)[0].0, "blackhole:443");
}

#[test]
fn an_unrelated_virtual_service_builds_no_other_listener() {
    let yaml = [
        gateway("default/gw", &server(80, "HTTP", "'*'", "")),
        virtual_service("default/a", "a.com", "gw", &http_to("a")),
    ]
    .concat();
    let before = snapshot(&yaml, Settings::default());
    let json = r#"{"type": "router", "id": "gw.istio-system", "ips": ["1.1.1.1"], "namespace": "istio-system", "labels": {"istio": "ingressgateway"}}"#;
    let proxy = Arc::new(Proxy::from_json(json).unwrap());
    let builder = Builder::default();
    let all = |s: &Snapshot| [TypeUrl::Listener, TypeUrl::Route].map(|kind| builder.build(s, &proxy, kind));
    let old = all(&before);
    let more = crate::testing::objects(&virtual_service("default/b", "b.com", "gw", &http_to("b")));
    let after = before.apply(more.into_iter().map(crate::Change::Upsert));
    let new = all(&after);
    assert_eq!(old[0], new[0]);
    assert_ne!(old[1], new[1]);
    let runs = builder.stats().runs;
    assert_eq!((runs["GatewayListener"], runs["VirtualServiceRoutes"]), (1, 2), "{runs:?}");
}
