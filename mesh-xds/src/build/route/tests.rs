//! Routes from VirtualServices as users write them.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::route::v3::route_action::HostRewriteSpecifier;
use envoy_types::pb::envoy::config::route::v3::{VirtualHost, header_matcher, weighted_cluster};
use mesh_api::mesh::MeshConfig;
use mesh_api::networking::HttpRetry;
use mesh_api::object::Object;
use prost::Message;

use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;

use super::*;
use crate::lower::virtual_service::mesh_inbound_retries;
use crate::model::Settings;
use crate::testing::{envoy_accepts_routes, objects};

struct Services;

impl Lookup for Services {
    fn service(&self, host: &Hostname) -> Option<Target> {
        match host.as_str() {
            "one.default.svc.cluster.local" => Some(Target { host: host.clone(), only_port: Some(9080) }),
            "alias.default.svc.cluster.local" => Some(Target { host: "real.example.com".into(), only_port: None }),
            _ => None,
        }
    }
    fn hash_key(&self, destination: &Destination, _: u16) -> Option<HashKey> {
        (destination.subset == "sticky").then(|| HashKey::Header("x-user".into()))
    }
}

fn lower(yaml: &str) -> VirtualService {
    match objects(yaml).as_slice() {
        [Object::VirtualService(o)] => {
            let (vs, told) = crate::lower::virtual_service::virtual_service(o, &Settings::default());
            assert_eq!(told, [], "{yaml}");
            vs
        }
        other => panic!("not one VirtualService: {other:?}"),
    }
}

/// A VirtualService `vs` in `default` with these `http` rules.
fn http(rules: &str) -> VirtualService {
    let rules = rules.trim_matches('\n').lines().map(|l| format!("  {l}\n")).collect::<String>();
    lower(&format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: vs}}\nspec:\n  hosts: [a]\n  http:\n{rules}"
    ))
}

fn decoded(fields: &[u8]) -> Vec<Route> {
    VirtualHost::decode(fields).unwrap().routes
}

fn routes_on(vs: &VirtualService, gateways: &[Name], port: u16, labels: &Labels) -> Vec<Route> {
    let namespace = Name::from("default");
    let ctx = RouteContext {
        namespace: &namespace,
        labels,
        gateways,
        port,
        tls: false,
        default_retries: None,
        append_x_forwarded_host: false,
        lookup: &Services,
    };
    let routes = decoded(http_routes(vs, &ctx).all());
    if !routes.is_empty() {
        envoy_accepts_routes(routes.clone());
    }
    routes
}

fn routes(rules: &str) -> Vec<Route> {
    routes_on(&http(rules), &["mesh".into()], 80, &Labels::new())
}

fn action(route: &Route) -> &RouteAction {
    match &route.action {
        Some(Action::Route(action)) => action,
        other => panic!("{other:?}"),
    }
}

fn clusters(route: &Route) -> Vec<(String, u32)> {
    match &action(route).cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => vec![(name.clone(), 0)],
        Some(ClusterSpecifier::WeightedClusters(w)) => {
            w.clusters.iter().map(|c| (c.name.clone(), c.weight.map_or(0, |w| w.value))).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn rule(part: &str) -> Route {
    routes(&format!("- {}\n  route: [{{destination: {{host: b}}}}]", part.trim())).remove(0)
}

#[test]
fn destinations_become_clusters() {
    for (destination, cluster) in [
        ("{host: b}", "outbound|80||b.default.svc.cluster.local"),
        ("{host: b, port: {number: 8080}}", "outbound|8080||b.default.svc.cluster.local"),
        ("{host: b.other.svc.cluster.local, subset: v1}", "outbound|80|v1|b.other.svc.cluster.local"),
        ("{host: one}", "outbound|9080||one.default.svc.cluster.local"),
        ("{host: alias}", "outbound|80||real.example.com"),
        ("{host: 10.0.0.1}", "outbound|80||10.0.0.1"),
    ] {
        let built = routes(&format!("- route: [{{destination: {destination}}}]"));
        assert_eq!(clusters(&built[0]), [(cluster.to_owned(), 0)]);
    }
}

#[test]
fn paths_match_by_istios_words() {
    let spec = |uri: &str, semantics| {
        let mut vs = http(&format!("- match: [{{uri: {uri}}}]\n  route: [{{destination: {{host: b}}}}]"));
        vs.semantics = semantics;
        let route = routes_on(&vs, &["mesh".into()], 80, &Labels::new()).remove(0);
        route.r#match.unwrap().path_specifier.unwrap()
    };
    let prefix = |p: &str| PathSpecifier::Prefix(p.to_owned());
    let separated = |p: &str| PathSpecifier::PathSeparatedPrefix(p.to_owned());
    for (uri, istio, gateway) in [
        ("{exact: /a}", PathSpecifier::Path("/a".into()), PathSpecifier::Path("/a".into())),
        ("{prefix: /a}", prefix("/a"), separated("/a")),
        ("{prefix: /a/}", prefix("/a/"), separated("/a")),
        ("{prefix: /}", prefix("/"), prefix("/")),
        ("{prefix: ''}", prefix(""), prefix("")),
        (
            "{regex: /a.*}",
            PathSpecifier::SafeRegex(matches::re2("/a.*")),
            PathSpecifier::SafeRegex(matches::re2("/a.*")),
        ),
    ] {
        assert_eq!(spec(uri, Semantics::Istio), istio, "{uri}");
        assert_eq!(spec(uri, Semantics::Gateway), gateway, "{uri}");
        assert_eq!(spec(uri, Semantics::Ingress), gateway, "{uri}");
    }
}

#[test]
fn all_parts_of_a_match_are_sent() {
    let route = rule(
        r#"match:
  - uri: {prefix: /a}
    ignoreUriCase: true
    method: {exact: GET}
    scheme: {exact: https}
    authority: {prefix: foo}
    statPrefix: stats
    headers: {x-b: {exact: b}, x-a: {regex: "*"}, "@request.auth.claims[group][id]": {exact: admin}}
    withoutHeaders: {x-c: {prefix: c}, x-d: {}}
    queryParams: {q: {exact: "1"}, p: {}}"#,
    );
    let m = route.r#match.unwrap();
    assert_eq!(route.stat_prefix, "stats");
    assert!(!m.case_sensitive.unwrap().value);
    let headers: Vec<_> =
        m.headers.iter().map(|h| (h.name.as_str(), h.invert_match, h.treat_missing_header_as_empty)).collect();
    assert_eq!(
        headers,
        [
            ("x-a", false, false),
            ("x-b", false, false),
            ("x-c", true, true),
            ("x-d", true, false),
            (":method", false, false),
            (":authority", false, false),
            (":scheme", false, false),
        ]
    );
    assert_eq!(m.headers[0].header_match_specifier, Some(header_matcher::HeaderMatchSpecifier::PresentMatch(true)));
    assert_eq!(m.query_parameters.iter().map(|q| q.name.as_str()).collect::<Vec<_>>(), ["p", "q"]);
    assert_eq!(m.dynamic_metadata[0].path.len(), 3);
}

#[test]
fn matches_on_the_proxy_are_decided_here() {
    let rules = "\
- name: labelled
  match: [{sourceLabels: {app: x}}]
  route: [{destination: {host: b}}]
- name: namespaced
  match: [{sourceNamespace: other}]
  route: [{destination: {host: b}}]
- name: gated
  match: [{gateways: [gw, other/gw2], sourceLabels: {app: nobody}}]
  route: [{destination: {host: b}}]
- name: ported
  match: [{port: 8080}]
  route: [{destination: {host: b}}]
- name: rest
  route: [{destination: {host: b}}]
- name: unreachable
  route: [{destination: {host: b}}]";
    let vs = http(rules);
    let labels: Labels = BTreeMap::from([("app".into(), "x".into())]);
    for (gateway, port, labels, names) in [
        ("mesh", 80, &Labels::new(), &["rest"][..]),
        ("mesh", 80, &labels, &["labelled"]),
        ("mesh", 8080, &Labels::new(), &["ported"]),
        ("other/gw2", 80, &Labels::new(), &["gated"]),
        ("default/gw", 80, &Labels::new(), &["gated"]),
        ("default/other", 80, &Labels::new(), &["rest"]),
    ] {
        let built = routes_on(&vs, &[gateway.into()], port, labels);
        assert_eq!(built.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), names, "{gateway} {port}");
    }
}

#[test]
fn weights_leave_zeroes_out_and_keep_headers_apart() {
    let built = routes(
        "\
- headers: {request: {set: {a: '1', host: top}}}
  route:
  - {destination: {host: b}, weight: 80, headers: {request: {add: {b: '2', ':authority': b.com}, remove: [c]}}}
  - {destination: {host: c}, weight: 20}
  - {destination: {host: d}, weight: 0}",
    );
    let route = &built[0];
    assert_eq!(
        clusters(route),
        [
            ("outbound|80||b.default.svc.cluster.local".to_owned(), 80),
            ("outbound|80||c.default.svc.cluster.local".to_owned(), 20)
        ]
    );
    assert_eq!(action(route).host_rewrite_specifier, Some(HostRewriteSpecifier::HostRewriteLiteral("top".into())));
    let Some(ClusterSpecifier::WeightedClusters(w)) = &action(route).cluster_specifier else { panic!() };
    assert_eq!(w.clusters[0].request_headers_to_remove, ["c"]);
    let rewrite = weighted_cluster::cluster_weight::HostRewriteSpecifier::HostRewriteLiteral("b.com".into());
    assert_eq!(w.clusters[0].host_rewrite_specifier, Some(rewrite));
    assert_eq!(route.request_headers_to_add.len(), 1);
    assert_eq!(route.decorator.as_ref().unwrap().operation, "vs:80/*");
}

#[test]
fn names_operations_and_origins_are_told() {
    let built = routes(
        "\
- name: r
  match: [{name: m, uri: {prefix: /a}}, {uri: {exact: /b}}]
  route: [{destination: {host: b}}]
- redirect: {uri: /x}",
    );
    let origin = |r: &Route| {
        let fields = &r.metadata.as_ref().unwrap().filter_metadata["istio"].fields;
        let text = |key: &str| match &fields[key].kind {
            Some(Kind::StringValue(t)) => t.clone(),
            other => panic!("{other:?}"),
        };
        (text("config"), text("path"))
    };
    let config = "/apis/networking.istio.io/v1/namespaces/default/virtual-service/vs".to_owned();
    let told: Vec<_> =
        built.iter().map(|r| (r.name.as_str(), r.decorator.as_ref().unwrap().operation.as_str(), origin(r))).collect();
    assert_eq!(
        told,
        [
            ("r.m", "b.default.svc.cluster.local:80/a*", (config.clone(), "spec.http[0].match[0]".to_owned())),
            ("r", "b.default.svc.cluster.local:80/b", (config.clone(), "spec.http[0].match[1]".to_owned())),
            ("", "vs:80/*", (config, "spec.http[1]".to_owned())),
        ]
    );
}

#[test]
fn rewrites_and_redirects() {
    let of = |part: &str| action(&rule(part)).clone();
    assert_eq!(of("rewrite: {uri: /new}").prefix_rewrite, "/new");
    let regex = of(r"rewrite: {uriRegexRewrite: {match: ^/a/(.*), rewrite: /\1}, authority: x.com}");
    assert_eq!(regex.regex_rewrite.unwrap().substitution, r"/\1");
    assert_eq!(regex.host_rewrite_specifier, Some(HostRewriteSpecifier::HostRewriteLiteral("x.com".into())));

    let redirect = |part: &str, port: u16| {
        let vs = http(&format!("- redirect: {part}"));
        let route = routes_on(&vs, &["mesh".into()], port, &Labels::new()).remove(0);
        let Some(Action::Redirect(r)) = route.action else { panic!() };
        (r.host_redirect, r.port_redirect, r.response_code)
    };
    for (part, port, want) in [
        ("{authority: x.com}", 8080, ("x.com", 0, 0)),
        ("{authority: x.com, derivePort: FROM_REQUEST_PORT, redirectCode: 302}", 8080, ("x.com", 8080, 1)),
        ("{derivePort: FROM_REQUEST_PORT, redirectCode: 308}", 80, ("", 0, 4)),
        ("{port: 443, scheme: https}", 80, ("", 0, 0)),
        ("{port: 443}", 80, ("", 443, 0)),
        ("{prefixRewrite: /y}", 80, ("", 0, 0)),
    ] {
        assert_eq!(redirect(part, port), (want.0.to_owned(), want.1, want.2), "{part}");
    }
}

#[test]
fn retries_have_istios_defaults() {
    let of = |part: &str| action(&rule(part)).retry_policy.clone();
    let default = of("timeout: 2s").unwrap();
    assert_eq!(default.retry_on, retry::DEFAULT_RETRY_ON);
    assert_eq!((default.num_retries.unwrap().value, default.retry_host_predicate.len()), (2, 1));
    assert_eq!(of("retries: {attempts: 0}"), None);
    let said = of("retries: {attempts: 3, perTryTimeout: 1s, retryOn: '5xx, 503', backoff: 10ms, retryRemoteLocalities: true, retryIgnorePreviousHosts: false}").unwrap();
    assert_eq!(said.retry_on, "5xx,retriable-status-codes");
    assert_eq!(said.retriable_status_codes, [503]);
    assert!(said.retry_priority.is_some() && said.retry_back_off.is_some() && said.retry_host_predicate.is_empty());
    let sticky = routes("- route: [{destination: {host: b, subset: sticky}}]").remove(0);
    assert_eq!(action(&sticky).hash_policy.len(), 1);
    assert!(action(&sticky).retry_policy.as_ref().unwrap().retry_host_predicate.is_empty());
}

#[test]
fn inbound_retries_are_of_the_mesh() {
    let of = |policy: Option<HttpRetry>, grpc: bool| {
        let mesh = MeshConfig { default_inbound_http_retry_policy: policy, ..MeshConfig::default() };
        let settings = Settings { mesh: mesh.into(), ..Settings::default() };
        let route = inbound_route("inbound|80||", "a:80/*", grpc, mesh_inbound_retries(&settings).as_ref());
        action(&route)
            .retry_policy
            .as_ref()
            .map(|retries| (retries.retry_on.clone(), retries.num_retries.unwrap().value))
    };
    let written = |attempts| Some(HttpRetry { attempts, retry_on: "reset".into(), ..HttpRetry::default() });
    assert_eq!(of(None, false), Some(("reset-before-request".into(), 2)));
    assert_eq!(of(written(5), false), Some(("reset".into(), 5)));
    assert_eq!(of(written(0), false), None);
    assert_eq!(of(written(5), true), None, "streams of gRPC are not sent again");
}

#[test]
fn timeouts_mirrors_faults_and_cors() {
    let route = rule(
        r#"timeout: 1.5s
  mirror: {host: c}
  mirrorPercentage: {value: 0.5}
  mirrors: [{destination: {host: d}}, {destination: {host: e}, percentage: {value: 0}}]
  fault: {delay: {fixedDelay: 5s, percentage: {value: 10}}, abort: {grpcStatus: NOT_FOUND, percentage: {value: 0.01}}}
  corsPolicy: {allowOrigins: [{exact: "https://x"}], allowMethods: [GET, PUT], maxAge: 24h, allowCredentials: true}"#,
    );
    let a = action(&route);
    assert_eq!(a.timeout, Some(Duration { seconds: 1, nanos: 500_000_000 }));
    let mirrors: Vec<_> = a.request_mirror_policies.iter().map(|m| m.cluster.as_str()).collect();
    assert_eq!(mirrors, ["outbound|80||c.default.svc.cluster.local", "outbound|80||d.default.svc.cluster.local"]);
    let mut filters: Vec<_> = route.typed_per_filter_config.keys().map(String::as_str).collect();
    filters.sort_unstable();
    assert_eq!(filters, ["envoy.filters.http.cors", "envoy.filters.http.fault"]);
    assert_eq!(action(&rule("name: x")).timeout, Some(Duration::default()));
}

#[test]
fn direct_responses_carry_their_body() {
    let route = routes("- directResponse: {status: 503, body: {string: sorry}}").remove(0);
    let Some(Action::DirectResponse(r)) = route.action else { panic!() };
    assert_eq!((r.status, r.body.is_some()), (503, true));
}

#[test]
fn catch_alls_go_last() {
    let rules = "- match: [{uri: {prefix: /a}}, {uri: {prefix: /}}]\n  route: [{destination: {host: b}}]";
    let (namespace, labels) = (Name::from("default"), Labels::new());
    let ctx = RouteContext {
        namespace: &namespace,
        labels: &labels,
        gateways: &["mesh".into()],
        port: 80,
        tls: false,
        default_retries: None,
        append_x_forwarded_host: false,
        lookup: &Services,
    };
    let encoded = http_routes(&http(rules), &ctx);
    let [specific, last] = &decoded(encoded.all())[..] else { panic!("two routes") };
    assert_eq!(decoded(encoded.specific()), std::slice::from_ref(specific));
    assert_eq!(decoded(encoded.catch_all()), std::slice::from_ref(last));
    assert_eq!(last.decorator.as_ref().unwrap().operation, "b.default.svc.cluster.local:80/*");
    let only_specific = http_routes(&http(&rules.replace(", {uri: {prefix: /}}", "")), &ctx);
    assert_eq!((only_specific.all(), only_specific.catch_all()), (encoded.specific(), &[][..]));
}

#[test]
fn l4_rules_make_chains() {
    let vs = lower(
        "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: vs}
spec:
  hosts: [a.com]
  tls:
  - match: [{sniHosts: [a.com], port: 443}, {sniHosts: ['*.a.com'], sourceLabels: {app: x}}]
    route: [{destination: {host: b}}]
  - match: [{sniHosts: [a.com]}]
    route: [{destination: {host: c}}]
  tcp:
  - match: [{destinationSubnets: [10.1.0.0/16], port: 443}, {destinationSubnets: [10.2.0.1], port: 443}]
    route: [{destination: {host: b}, weight: 1}, {destination: {host: c}, weight: 3}]
  - match: [{port: 443}]
    route: [{destination: {host: d}}]
  - route: [{destination: {host: e}}]",
    );
    let (namespace, labels, gateways) = (Name::from("default"), Labels::new(), [Name::from("mesh")]);
    let ctx = |port| RouteContext {
        namespace: &namespace,
        labels: &labels,
        gateways: &gateways,
        port,
        tls: false,
        default_retries: None,
        append_x_forwarded_host: false,
        lookup: &Services,
    };
    let paths = |chains: &[l4::L4Chain<'_>]| chains.iter().map(|c| c.path.clone()).collect::<Vec<_>>();
    assert_eq!(paths(&l4::tls_chains([&vs], &ctx(443))), ["spec.tls[0].match[0]"]);
    assert_eq!(paths(&l4::tls_chains([&vs], &ctx(444))), ["spec.tls[1].match[0]"]);
    let tcp = l4::tcp_chains([&vs], &ctx(443));
    assert_eq!(paths(&tcp), ["spec.tcp[0].match[0]", "spec.tcp[1].match[0]"]);
    assert_eq!(tcp[0].destination_subnets, ["10.1.0.0/16", "10.2.0.1"]);
    let proxy = l4::tcp_proxy(&tcp[0], &ctx(443), |_, _| l4::TcpPolicy::default());
    assert_eq!(proxy.stat_prefix, "vs.default");
    let single = l4::tcp_proxy(&tcp[1], &ctx(443), |_, _| l4::TcpPolicy::default());
    assert_eq!(single.stat_prefix, "outbound|443||d.default.svc.cluster.local");
    assert_eq!(paths(&l4::tcp_chains([&vs], &ctx(80))), ["spec.tcp[2]"]);
}
