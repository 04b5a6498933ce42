//! Requests against small resources written as JSON, one table for each thing that is decided.

use std::fmt::Debug;

use prost::Message;
use serde_json::{Value, json};

use super::*;
use crate::json::from_json;

fn decode<M: Message + Default>(type_url: &str, list: &Value) -> Vec<M> {
    let one = |v: &Value| M::decode(from_json(type_url, v.clone()).unwrap().as_slice()).unwrap();
    list.as_array().map(|l| l.iter().map(one).collect()).unwrap_or_default()
}

fn resources(v: &Value) -> Resources {
    Resources {
        listeners: decode(TypeUrl::Listener.as_str(), &v["listeners"]),
        clusters: decode(TypeUrl::Cluster.as_str(), &v["clusters"]),
        routes: decode(TypeUrl::Route.as_str(), &v["routes"]),
        endpoints: decode(TypeUrl::Endpoint.as_str(), &v["endpoints"]),
    }
}

fn request(v: Value) -> Request {
    serde_json::from_value(v).unwrap()
}

fn address(ip: &str, port: u16) -> Value {
    json!({"socketAddress": {"address": ip, "portValue": port}})
}

fn tcp(cluster: &str) -> Value {
    json!([{"name": "tcp", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "statPrefix": "x", "cluster": cluster}}])
}

fn http(route_specifier: Value, http_filters: Value) -> Value {
    let mut hcm = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "statPrefix": "x", "httpFilters": http_filters});
    hcm.as_object_mut().unwrap().extend(route_specifier.as_object().unwrap().clone());
    json!([{"name": "hcm", "typedConfig": hcm}])
}

fn rds(name: &str) -> Value {
    json!({"rds": {"routeConfigName": name, "configSource": {"ads": {}}}})
}

fn inspectors() -> Value {
    let filter = |name: &str, message: &str| {
        json!({"name": format!("envoy.filters.listener.{name}"), "typedConfig": {
            "@type": format!("type.googleapis.com/envoy.extensions.filters.listener.{name}.v3.{message}")}})
    };
    json!([filter("tls_inspector", "TlsInspector"), filter("http_inspector", "HttpInspector")])
}

fn terminates_tls(secret: &str, mutual: bool) -> Value {
    json!({"name": "envoy.transport_sockets.tls", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "requireClientCertificate": mutual,
        "commonTlsContext": {"tlsCertificateSdsSecretConfigs": [{"name": secret}]}}})
}

/// Expects one field of the explanations of several requests.
fn check<T: PartialEq + Debug>(r: &Resources, field: impl Fn(&Explanation) -> T, table: Vec<(Value, T)>) {
    for (what, want) in table {
        let explanation = explain(r, &request(what.clone()));
        assert_eq!(field(&explanation), want, "{what}\n{}", render(&explanation));
    }
}

fn cluster(e: &Explanation) -> Result<String, ErrorKind> {
    e.error.map_or_else(|| Ok(e.cluster.clone().unwrap_or_default()), Err)
}
fn to(name: &str) -> Result<String, ErrorKind> {
    Ok(name.to_owned())
}

#[test]
fn a_listener_is_found_by_address_then_port_then_as_the_virtual_one() {
    let l = |name: &str, ip: &str, port| json!({"name": name, "address": address(ip, port), "filterChains": [{"filters": tcp(name)}]});
    let r = resources(&json!({"listeners": [
        l("virtualOutbound", "0.0.0.0", 15001), l("virtualInbound", "0.0.0.0", 15006),
        l("all", "0.0.0.0", 80), l("vip", "10.0.0.1", 80)]}));
    check(
        &r,
        cluster,
        vec![
            (json!({"address": "10.0.0.1", "port": 80}), to("vip")),
            (json!({"address": "10.0.0.2", "port": 80}), to("all")),
            (json!({"address": "fd00::1", "port": 80}), to("all")),
            (json!({"address": "10.0.0.1", "port": 81}), to("virtualOutbound")),
            (json!({"address": "10.0.0.1", "port": 80, "direction": "inbound"}), to("virtualInbound")),
            (json!({"address": "10.0.0.9", "port": 15006}), to("virtualInbound")),
        ],
    );
    let gateway = resources(&json!({"listeners": [l("0.0.0.0_80", "0.0.0.0", 80)]}));
    check(&gateway, cluster, vec![(json!({"direction": "gateway", "port": 81}), Err(ErrorKind::NoListener))]);
}

#[test]
fn the_sieve_keeps_the_best_and_never_goes_back() {
    let chain = |name: &str, m: Value| json!({"name": name, "filterChainMatch": m, "filters": tcp(name)});
    let chains = json!([
        chain("port", json!({"destinationPort": 81})),
        chain("wide", json!({"destinationPort": 82, "prefixRanges": [{"addressPrefix": "10.0.0.0", "prefixLen": 8}]})),
        chain(
            "narrow",
            json!({"destinationPort": 82, "prefixRanges": [{"addressPrefix": "10.1.0.0", "prefixLen": 16}]})
        ),
        chain("exact", json!({"destinationPort": 83, "serverNames": ["a.example.com"]})),
        chain("suffix", json!({"destinationPort": 83, "serverNames": ["*.example.com", "*.org"]})),
        chain("longer", json!({"destinationPort": 83, "serverNames": ["*.b.example.com"]})),
        chain(
            "plain-http",
            json!({"destinationPort": 84, "transportProtocol": "raw_buffer", "applicationProtocols": ["http/1.1", "h2c"]})
        ),
        chain("plain", json!({"destinationPort": 84, "transportProtocol": "raw_buffer"})),
        chain(
            "mesh",
            json!({"destinationPort": 84, "transportProtocol": "tls", "applicationProtocols": ["istio", "istio-http/1.1"]})
        ),
        chain("other", json!({"prefixRanges": [{"addressPrefix": "10.0.0.0", "prefixLen": 8}]})),
        chain("all", json!({"prefixRanges": [{"addressPrefix": "0.0.0.0", "prefixLen": 0}]})),
    ]);
    let r = resources(&json!({"listeners": [
        {"name": "virtualInbound", "listenerFilters": inspectors(), "filterChains": chains}]}));
    let inbound = |extra: Value| {
        let mut v = json!({"direction": "inbound", "address": "1.1.1.1", "protocol": "tcp"});
        v.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        v
    };
    check(
        &r,
        cluster,
        vec![
            (inbound(json!({"port": 81})), to("port")),
            (inbound(json!({"port": 82, "address": "10.1.2.3"})), to("narrow")),
            (inbound(json!({"port": 82, "address": "10.2.2.3"})), to("wide")),
            // Dropped by its port, a chain for all addresses does not come back.
            (inbound(json!({"port": 82})), Err(ErrorKind::NoFilterChain)),
            (inbound(json!({"port": 83, "protocol": "tls", "sni": "A.example.com"})), to("exact")),
            (inbound(json!({"port": 83, "protocol": "tls", "sni": "x.b.example.com"})), to("longer")),
            (inbound(json!({"port": 83, "protocol": "tls", "sni": "x.y.example.com"})), to("suffix")),
            (inbound(json!({"port": 83, "protocol": "tls", "sni": "example.com"})), Err(ErrorKind::NoFilterChain)),
            (inbound(json!({"port": 84, "protocol": "http2"})), to("plain-http")),
            (inbound(json!({"port": 84})), to("plain")),
            (inbound(json!({"port": 84, "protocol": "mtls-tcp"})), to("mesh")),
            (inbound(json!({"port": 84, "protocol": "tls", "alpn": "h2"})), Err(ErrorKind::NoFilterChain)),
            (inbound(json!({"port": 90, "address": "10.1.2.3"})), to("other")),
            (inbound(json!({"port": 90})), to("all")),
        ],
    );
}

#[test]
fn without_an_inspector_nothing_is_known_of_the_bytes() {
    let mut filters = inspectors();
    filters[0]["filterDisabled"] = json!({"destinationPortRange": {"start": 80, "end": 81}});
    let r = resources(&json!({"listeners": [{
        "name": "virtualInbound", "listenerFilters": filters,
        "filterChains": [
            {"name": "tls", "filterChainMatch": {"transportProtocol": "tls"}, "filters": tcp("tls")},
            {"name": "raw", "filterChainMatch": {"transportProtocol": "raw_buffer"}, "filters": tcp("raw")}]}]}));
    check(
        &r,
        cluster,
        vec![
            (json!({"direction": "inbound", "port": 80, "protocol": "tls"}), to("raw")),
            (json!({"direction": "inbound", "port": 81, "protocol": "tls"}), to("tls")),
        ],
    );
}

#[test]
fn tls_and_protocol_must_fit_the_chain() {
    let port = |p: u16, mut rest: Value| {
        rest["filterChainMatch"] = json!({"destinationPort": p});
        rest
    };
    let inline = json!({"routeConfig": {"virtualHosts": [{"name": "v", "domains": ["*"], "routes": [
        {"match": {"prefix": "/"}, "route": {"cluster": "app"}}]}]}});
    let r = resources(&json!({"listeners": [{"name": "virtualInbound", "filterChains": [
        port(1, json!({"filters": http(inline.clone(), json!([])), "transportSocket": terminates_tls("default", true)})),
        port(2, json!({"filters": http(inline.clone(), json!([])), "transportSocket": terminates_tls("kubernetes://c", false)})),
        port(3, json!({"filters": http(inline, json!([]))})),
        port(4, json!({"filters": tcp("app"), "transportSocket": terminates_tls("default", true)})),
        port(5, json!({"filters": tcp("a")})), port(5, json!({"filters": tcp("b")})),
    ]}]}));
    let on = |p: u16, protocol: &str, alpn: &str| json!({"direction": "inbound", "port": p, "protocol": protocol, "alpn": alpn});
    check(
        &r,
        cluster,
        vec![
            (on(1, "mtls-http", ""), to("app")),
            (on(1, "http", ""), Err(ErrorKind::TlsError)),
            (on(1, "tls", "h2"), Err(ErrorKind::MtlsError)),
            (on(2, "tls", "h2"), to("app")),
            (on(2, "tls", ""), Err(ErrorKind::ProtocolError)),
            (on(2, "mtls-http", ""), Err(ErrorKind::MtlsError)),
            (on(3, "http", ""), to("app")),
            (on(3, "tcp", ""), Err(ErrorKind::ProtocolError)),
            (on(3, "tls", "h2"), Err(ErrorKind::ProtocolError)),
            (on(4, "mtls-tcp", ""), to("app")),
            (on(5, "tcp", ""), Err(ErrorKind::MultipleFilterChains)),
        ],
    );
    let tls = explain(&r, &request(on(1, "mtls-http", ""))).tls.unwrap();
    assert_eq!(tls, Tls { secret: "default".into(), require_client_certificate: true });
}

/// One outbound listener on port 80 with this route configuration and these clusters.
fn routed(config: Value, clusters: Value, endpoints: Value) -> Resources {
    let mut config = config;
    config["name"] = json!("80");
    resources(&json!({
        "listeners": [{"name": "0.0.0.0_80", "address": address("0.0.0.0", 80),
                       "filterChains": [{"name": "c", "filters": http(rds("80"), json!([]))}]}],
        "routes": [config], "clusters": clusters, "endpoints": endpoints}))
}

#[test]
fn domains_match_exactly_then_by_suffix_then_by_prefix() {
    let v = |name: &str, domains: Value| json!({"name": name, "domains": domains, "routes": [{"match": {"prefix": "/"}, "route": {"cluster": name}}]});
    let mut config = json!({"virtualHosts": [
        v("all", json!(["*"])), v("suffix", json!(["*.com"])), v("longer", json!(["*.example.com"])),
        v("prefix", json!(["api.*"])), v("exact", json!(["a.example.com", "a.example.com:80"]))]});
    let table = |ported: &str| {
        vec![
            (json!({"host": "A.example.com"}), to("exact")),
            (json!({"host": "b.example.com"}), to("longer")),
            (json!({"host": "example.com"}), to("suffix")),
            (json!({"host": ".com"}), to("all")),
            (json!({"host": "api.org"}), to("prefix")),
            (json!({"host": "b.example.com:8080"}), to(ported)),
            (json!({}), to("all")),
        ]
    };
    check(&routed(config.clone(), json!([]), json!([])), cluster, table("all"));
    config["ignorePortInHostMatching"] = json!(true);
    check(&routed(config, json!([]), json!([])), cluster, table("longer"));
}

#[test]
fn routes_match_by_all_that_a_request_has() {
    let route = |name: &str, m: Value| json!({"name": name, "match": m, "route": {"cluster": name}});
    let string = |kind: &str, v: &str| json!({"stringMatch": {kind: v}});
    let header = |name: &str, mut rest: Value| {
        rest["name"] = json!(name);
        json!({"prefix": "/", "headers": [rest]})
    };
    let mut without = string("exact", "no");
    without["invertMatch"] = json!(true);
    let config = json!({"virtualHosts": [{"name": "v", "domains": ["*"], "routes": [
        route("path", json!({"path": "/exact"})),
        route("folded", json!({"path": "/folded", "caseSensitive": false})),
        route("segment", json!({"pathSeparatedPrefix": "/seg"})),
        route("regex", json!({"safeRegex": {"regex": "/r[0-9]+"}})),
        route("connect", json!({"connectMatcher": {}})),
        route("header", header("x-user", string("prefix", "ja"))),
        route("range", header("x-age", json!({"rangeMatch": {"start": "10", "end": "20"}}))),
        route("present", header("x-any", json!({"presentMatch": true}))),
        route("inverted", header("x-no", without)),
        route("method", header(":method", string("exact", "DELETE"))),
        route("query", json!({"prefix": "/", "queryParameters": [{"name": "q", "stringMatch": {"exact": "1"}}]})),
        route("never", json!({"prefix": "/", "runtimeFraction": {"defaultValue": {"numerator": 0}}})),
        route("claims", json!({"prefix": "/", "dynamicMetadata": [{"filter": "jwt", "path": [{"key": "a"}], "value": {"presentMatch": true}}]})),
        route("lenient", json!({"prefix": "/lenient", "headers": [{"name": "x-no", "stringMatch": {"exact": "no"}, "invertMatch": true, "treatMissingHeaderAsEmpty": true}]})),
        route("prefix", json!({"prefix": "/pre"})),
    ]}]});
    let r = routed(config, json!([]), json!([]));
    check(
        &r,
        cluster,
        vec![
            (json!({"path": "/exact?x=1"}), to("path")),
            (json!({"path": "/FOLDED"}), to("folded")),
            (json!({"path": "/seg/x"}), to("segment")),
            (json!({"path": "/segment"}), Err(ErrorKind::NoRoute)),
            (json!({"path": "/r12"}), to("regex")),
            (json!({"path": "/r12x"}), Err(ErrorKind::NoRoute)),
            (json!({"method": "CONNECT"}), to("connect")),
            (json!({"headers": {"X-User": "jason"}}), to("header")),
            (json!({"headers": {"x-age": "19"}}), to("range")),
            (json!({"headers": {"x-age": "20"}}), Err(ErrorKind::NoRoute)),
            (json!({"headers": {"x-any": ""}}), to("present")),
            (json!({"headers": {"x-no": "yes"}}), to("inverted")),
            (json!({"headers": {"x-no": "no"}}), Err(ErrorKind::NoRoute)),
            (json!({"path": "/lenient"}), to("lenient")),
            (json!({"method": "DELETE"}), to("method")),
            (json!({"path": "/?q=1"}), to("query")),
            (json!({"path": "/?q=2"}), Err(ErrorKind::NoRoute)),
            (json!({"path": "/prefixed"}), to("prefix")),
        ],
    );
}

#[test]
fn answers_of_the_proxy_itself() {
    let vhost = |domain: &str, mut rest: Value| {
        rest["name"] = json!(domain);
        rest["domains"] = json!([domain]);
        rest
    };
    let routes = json!([
        {"match": {"prefix": "/old/"}, "redirect": {"prefixRewrite": "/new/", "httpsRedirect": true, "portRedirect": 8443, "responseCode": "PERMANENT_REDIRECT"}},
        {"match": {"prefix": "/"}, "directResponse": {"status": 418, "body": {"inlineString": "tea"}}}]);
    let r = routed(
        json!({"virtualHosts": [vhost("a", json!({"routes": routes})), vhost("b", json!({"requireTls": "ALL"}))]}),
        json!([]),
        json!([]),
    );
    let answer = |e: &Explanation| e.answer.as_ref().map(|a| (a.status, a.location.clone(), a.body.clone()));
    check(
        &r,
        answer,
        vec![
            (json!({"host": "a", "path": "/old/x?y=1"}), Some((308, Some("https://a:8443/new/x?y=1".into()), None))),
            (json!({"host": "a"}), Some((418, None, Some("tea".into())))),
            (json!({"host": "b"}), Some((301, Some("https://b/".into()), None))),
        ],
    );
    assert_eq!(explain(&r, &request(json!({"host": "b"}))).error, Some(ErrorKind::TlsRedirect));
    assert_eq!(explain(&r, &request(json!({"host": "c"}))).error, Some(ErrorKind::NoVirtualHost));
}

#[test]
fn what_is_done_to_a_request_on_its_way_is_told() {
    let fault = json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
        "delay": {"fixedDelay": "1.5s", "percentage": {"numerator": 5, "denominator": "MILLION"}},
        "abort": {"httpStatus": 503, "percentage": {"numerator": 10}}});
    let r = routed(
        json!({"virtualHosts": [{"name": "v", "domains": ["*"], "routes": [{
            "match": {"prefix": "/"}, "typedPerFilterConfig": {"envoy.filters.http.fault": fault},
            "route": {"cluster": "a", "prefixRewrite": "/x", "timeout": "3s", "retryPolicy": {"retryOn": "5xx", "numRetries": 2}}}]}]}),
        json!([]),
        json!([]),
    );
    let story = render(&explain(&r, &request(json!({}))));
    let want = "delays 0.0005 % of requests by 1.5s, aborts 10 % of requests with 503, rewrites the prefix to /x, \
                gives up after 3s, retries 2 times on 5xx";
    assert!(story.contains(want), "{story}");
}

#[test]
fn the_story_names_objects_shares_and_endpoints() {
    let istio = |config: &str, path: &str| json!({"filterMetadata": {"istio": {"config": config, "path": path}}});
    let vs = "/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews";
    let dr = "/apis/networking.istio.io/v1/namespaces/default/destination-rule/reviews";
    let weighted = json!({"weightedClusters": {"clusters": [
        {"name": "outbound|80|v1|reviews.default.svc.cluster.local", "weight": 3},
        {"name": "outbound|80|v2|reviews.default.svc.cluster.local", "weight": 1}]},
        "requestMirrorPolicies": [{"cluster": "shadow", "runtimeFraction": {"defaultValue": {"numerator": 5}}}]});
    let matches = json!([{"name": "tlsMode-istio", "match": {"tlsMode": "istio"}, "transportSocket": {
        "name": "envoy.transport_sockets.tls", "typedConfig": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": "outbound_.80_.v1_.reviews", "commonTlsContext": {"alpnProtocols": ["istio"], "tlsCertificateSdsSecretConfigs": [{"name": "default"}]}}}}]);
    let r = routed(
        json!({"virtualHosts": [{"name": "reviews.default.svc.cluster.local:80", "domains": ["reviews"], "routes": [
            {"name": "r", "match": {"prefix": "/"}, "route": weighted, "metadata": istio(vs, "spec.http[0]")}]}]}),
        json!([{"name": "outbound|80|v1|reviews.default.svc.cluster.local", "type": "EDS", "transportSocketMatches": matches,
                "edsClusterConfig": {"serviceName": "outbound|80|v1|reviews.default.svc.cluster.local"},
                "metadata": istio(dr, "spec.subsets[0]")}]),
        json!([{"clusterName": "outbound|80|v1|reviews.default.svc.cluster.local", "endpoints": [{
            "locality": {"region": "r1", "zone": "z1"}, "lbEndpoints": [
                {"endpoint": {"address": address("10.0.0.5", 9080)}, "loadBalancingWeight": 2,
                 "metadata": {"filterMetadata": {"envoy.transport_socket_match": {"tlsMode": "istio"}}}},
                {"endpoint": {"address": address("fd00::5", 9080)}, "healthStatus": "DRAINING"}]}]}]),
    );
    let e = explain(&r, &request(json!({"host": "reviews"})));
    assert_eq!((e.cluster.as_deref(), e.route.as_deref()), (None, Some("r")));
    let shares: Vec<f64> = e.weighted_clusters.iter().map(|s| s.percent).collect();
    assert_eq!(shares, [75.0, 25.0]);
    assert_eq!(e.mirrors[0].percent, 5.0);
    let endpoints: Vec<(&str, &str)> = e.endpoints.iter().map(|e| (e.address.as_str(), e.health.as_str())).collect();
    assert_eq!(endpoints, [("10.0.0.5:9080", "healthy"), ("[fd00::5]:9080", "draining")]);
    assert_eq!(
        e.upstream_tls.as_ref().map(|t| (t.transport_socket.as_str(), t.secret.as_str())),
        Some(("tlsMode-istio", "default"))
    );
    let objects: Vec<(&str, String)> =
        e.steps.iter().filter_map(|s| Some((s.step.as_str(), s.object.as_ref()?.to_string()))).collect();
    assert_eq!(
        objects,
        [
            ("virtualHost", "Service default/reviews spec.ports[port=80]".to_owned()),
            ("route", "VirtualService default/reviews spec.http[0]".to_owned()),
            ("cluster", "Service default/reviews spec.ports[port=80]".to_owned()),
            ("trafficPolicy", "DestinationRule default/reviews spec.subsets[0]".to_owned()),
            ("cluster", "Service default/reviews spec.ports[port=80]".to_owned()),
        ]
    );
    let story = render(&e);
    assert!(
        story.contains(
            "route          r: the first to match: path prefix /  [VirtualService default/reviews spec.http[0]]\n"
        ),
        "{story}"
    );
    let json = serde_json::to_value(&e).unwrap();
    assert_eq!(json["error"], Value::Null);
    assert_eq!(json["virtualHost"], "reviews.default.svc.cluster.local:80");
    assert_eq!(json["routeConfig"], "80");
}

#[test]
fn rbac_filters_give_a_verdict() {
    let rbac = |action: &str, policies: Value| {
        json!({"name": "envoy.filters.http.rbac", "typedConfig": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC",
        "rules": {"action": action, "policies": policies}}})
    };
    let policy = |permission: Value, principal: Value| json!({"permissions": [permission], "principals": [principal]});
    let path = |p: &str| json!({"urlPath": {"path": {"prefix": p}}});
    let sa = json!({"authenticated": {"principalName": {"exact": "spiffe://cluster.local/ns/a/sa/b"}}});
    let inline = json!({"routeConfig": {"virtualHosts": [{"name": "v", "domains": ["*"], "routes": [
        {"match": {"prefix": "/"}, "route": {"cluster": "app"}}]}]}});
    let filters = json!([
        rbac("DENY", json!({"no-admin": policy(path("/admin"), json!({"any": true}))})),
        rbac(
            "ALLOW",
            json!({"friends": policy(json!({"andRules": {"rules": [path("/"), {"notRule": path("/secret")}]}}), sa)})
        ),
    ]);
    let r = resources(&json!({"listeners": [{"name": "virtualInbound", "filterChains": [
        {"filters": http(inline, filters), "transportSocket": terminates_tls("default", true)}]}]}));
    let call = |path: &str, who: &str| json!({"direction": "inbound", "protocol": "mtls-http", "path": path, "sourcePrincipal": who});
    let verdict = |e: &Explanation| e.authz.as_ref().map(|a| (a.allowed, a.policy.clone()));
    check(
        &r,
        verdict,
        vec![
            (call("/", "cluster.local/ns/a/sa/b"), Some((true, "friends".into()))),
            (call("/", "spiffe://cluster.local/ns/a/sa/b"), Some((true, "friends".into()))),
            (call("/", "cluster.local/ns/a/sa/c"), Some((false, String::new()))),
            (call("/secret", "cluster.local/ns/a/sa/b"), Some((false, String::new()))),
            (call("/admin", "cluster.local/ns/a/sa/b"), Some((false, "no-admin".into()))),
        ],
    );
}

#[test]
fn a_request_names_its_mistakes() {
    let wrong = serde_json::from_value::<Request>(json!({"adress": "1.1.1.1"})).unwrap_err();
    assert!(wrong.to_string().contains("adress"), "{wrong}");
    assert!(serde_json::from_value::<Request>(json!({"address": "nowhere"})).is_err());
}
