use serde_json::{Value, json};

use crate::networking::VirtualService;
use crate::validate::testing::{check, object, problems};

/// One HTTP rule for `foo.bar`, to which `extra` is added.
fn with(extra: Value) -> Value {
    let mut rule = json!({"route": [{"destination": {"host": "foo.bar"}}]});
    rule.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!({"hosts": ["foo.bar"], "http": [rule]})
}

/// As [`with`], with exactly these fields.
fn rule(rule: Value) -> Value {
    json!({"hosts": ["foo.bar"], "http": [rule]})
}

/// An object whose only rule is reached by these hosts and gateways.
fn of(hosts: &[&str], gateways: &[&str]) -> Value {
    json!({"hosts": hosts, "gateways": gateways, "http": [{"route": [{"destination": {"host": "foo.bar"}}]}]})
}

#[test]
fn hosts_and_gateways() {
    check::<VirtualService>(&[
        (of(&["foo.bar", "short", "*.wild.com", "10.0.0.1"], &[]), &[]),
        (of(&["*"], &["ns/gw"]), &[]),
        (of(&["*"], &["ns/gw", "mesh"]), &["E spec.hosts[0]: wildcard host *"]),
        (of(&["*"], &[]), &["E spec.hosts[0]: wildcard host *"]),
        (of(&["foo.*.com"], &[]), &["E spec.hosts[0]: domain name"]),
        (of(&["foo.bar", "foo.bar"], &[]), &["E spec.hosts[1]: duplicate hosts in virtual service: foo.bar & foo.bar"]),
        (of(&["*.foo.com", "*.com"], &[]), &["E spec.hosts[0]: duplicate hosts in virtual service: *.com & *.foo.com"]),
        (of(&["foo.com", "*.com"], &[]), &["E spec.hosts[0]: duplicate hosts"]),
        (of(&["foo.bar"], &["b@dgateway"]), &["E spec.gateways[0]: domain name"]),
        (of(&["foo.bar"], &["gw.ns.svc"]), &["W spec.gateways[0]: using legacy gatewayName format \"gw.ns.svc\""]),
        (of(&["foo.bar"], &["ns/g_w"]), &["E spec.gateways[0]: invalid value for gateway name"]),
        (of(&["foo.bar"], &["/gw"]), &["E spec.gateways[0]: invalid value for namespace"]),
        (of(&["foo.bar"], &["mesh", "ns/g_w"]), &["W spec.gateways[1]: invalid value for gateway name"]),
        (json!({"hosts": ["foo.bar"]}), &["E spec: http, tcp or tls must be provided"]),
    ]);
}

#[test]
fn a_delegate_has_only_http() {
    check::<VirtualService>(&[
        (of(&[], &[]), &[]),
        (of(&[], &["gw"]), &["E spec.gateways: delegate virtual service must have no gateways"]),
        (
            json!({"tcp": [{"route": [{"destination": {"host": "a"}}]}]}),
            &["E spec.tcp: delegate virtual service must have no tcp route"],
        ),
        (
            json!({"tls": [{"match": [{"sniHosts": ["a.b"]}], "route": [{"destination": {"host": "a"}}]}]}),
            &[
                "E spec.tls: delegate virtual service must have no tls route",
                "E spec.tls[0].match[0].sniHosts[0]: SNI host",
            ],
        ),
        (
            json!({"http": [{"delegate": {"name": "a"}}]}),
            &["E spec.http[0].delegate: delegate HTTP route", "E spec.http[0]: HTTP route,"],
        ),
        (rule(json!({"delegate": {"name": "a"}})), &[]),
        (with(json!({"delegate": {"name": "a"}})), &["E spec.http[0].route: root HTTP route"]),
        (
            rule(json!({"delegate": {"name": "a"}, "redirect": {"uri": "/"}})),
            &["E spec.http[0].redirect: root HTTP route"],
        ),
    ]);
}

#[test]
fn a_rule_does_one_thing() {
    let redirect = json!({"uri": "/"});
    let response = json!({"status": 200});
    check::<VirtualService>(&[
        (rule(json!({})), &["E spec.http[0]: HTTP route, redirect or direct_response is required"]),
        (rule(json!({"redirect": redirect})), &[]),
        (rule(json!({"directResponse": response})), &[]),
        (
            with(json!({"redirect": redirect})),
            &["E spec.http[0].route: HTTP route cannot contain both route and redirect"],
        ),
        (with(json!({"directResponse": response})), &["cannot contain both route and directResponse"]),
        (
            rule(
                json!({"redirect": redirect, "directResponse": response, "rewrite": {"uri": "/"}, "fault": {"abort": {"httpStatus": 500}}}),
            ),
            &["both fault and redirect", "both rewrite and redirect", "both directResponse and redirect"],
        ),
        (
            with(json!({"mirror": {"host": "a"}, "mirrors": [{"destination": {"host": "b"}}]})),
            &["both mirror and mirrors"],
        ),
    ]);
}

#[test]
fn matches() {
    let m = |m: Value| with(json!({"match": [m]}));
    check::<VirtualService>(&[
        (m(json!({"uri": {"prefix": ""}})), &[]),
        (
            m(json!({"uri": {"regex": ""}})),
            &["E spec.http[0].match[0].uri.regex: regex string match should not be empty"],
        ),
        (m(json!({"uri": {"regex": "*"}})), &["E spec.http[0].match[0].uri.regex: \"*\" is no regular expression"]),
        (m(json!({"uri": {"regex": "a".repeat(1025)}})), &["regex is too large, max length allowed is 1024"]),
        (m(json!({"scheme": {"prefix": ""}})), &["scheme.prefix: prefix string match should not be empty"]),
        (m(json!({"method": {"regex": "("}})), &["method.regex"]),
        (m(json!({"authority": {"prefix": ""}})), &["authority.prefix"]),
        (m(json!({"headers": {"x-a": {}, ":path": {"exact": "/"}}})), &[]),
        (
            m(json!({"headers": {"x a": {"exact": "b"}}})),
            &["E spec.http[0].match[0].headers.x a: header name \"x a\" is not a valid"],
        ),
        (m(json!({"headers": {"x": {"regex": "*"}}})), &["headers.x.regex"]),
        (m(json!({"withoutHeaders": {"x": {"regex": "*"}}})), &[]),
        (m(json!({"withoutHeaders": {"": {"prefix": ""}}})), &["header name cannot be empty", "prefix string match"]),
        (m(json!({"queryParams": {"a": {"regex": "["}}})), &["queryParams.a.regex"]),
        (m(json!({"headers": {"@request.auth.claims.a": {"exact": "b"}}})), &["JWT claim based routing"]),
        (m(json!({"port": 65536})), &["match[0].port: port number 65536"]),
        (m(json!({"sourceLabels": {"a": "b/c"}})), &["sourceLabels.a: invalid tag value"]),
        (m(json!({"sourceNamespace": "a_b"})), &["sourceNamespace match a_b is invalid"]),
        (m(json!({"gateways": ["a_b"]})), &["match[0].gateways[0]"]),
    ]);
}

#[test]
fn claims_are_matched_at_gateways() {
    let mut spec = with(json!({"match": [{"headers": {"@request.auth.claims[a]": {"exact": "b"}}}]}));
    for (gateways, fits) in [(json!(["gw"]), true), (json!(["gw", "mesh"]), false), (json!([]), false)] {
        spec["gateways"] = gateways;
        assert_eq!(problems(&object::<VirtualService>(spec.clone())).is_empty(), fits, "{spec}");
    }
}

#[test]
fn destinations() {
    let to = |destination: Value| rule(json!({"route": [{"destination": destination}]}));
    check::<VirtualService>(&[
        (to(json!({"host": "foo.bar", "subset": "v1", "port": {"number": 5}})), &[]),
        (to(json!({"host": "*"})), &["E spec.http[0].route[0].destination.host: invalid destination host *"]),
        (to(json!({"host": "foo.*.bar"})), &["destination.host"]),
        (to(json!({})), &["destination is required"]),
        (to(json!({"host": "a", "subset": "v_1"})), &["destination.subset: subset name is invalid"]),
        (to(json!({"host": "a", "port": {}})), &["destination.port.number: port number 0"]),
        (rule(json!({"route": [{"destination": {"host": "a"}, "weight": -1}]})), &["route[0].weight: weight -1 < 0"]),
        (
            rule(json!({"route": [{"destination": {"host": "a"}}, {"destination": {"host": "b"}}]})),
            &["spec.http[0].route: total destination weight = 0"],
        ),
        (with(json!({"mirror": {"host": "*"}})), &["spec.http[0].mirror.host"]),
        (with(json!({"mirrors": [{}]})), &["mirrors[0].destination.host: an empty domain name"]),
        (
            with(json!({"mirrors": [{"destination": {"host": "a"}, "percentage": {"value": 101}}]})),
            &["max value of 100 (it has 101)"],
        ),
        (with(json!({"mirrorPercentage": {"value": -1}})), &["mirrorPercentage must have a min value of 0"]),
        (
            with(json!({"mirrorPercent": 101})),
            &["E spec.http[0].mirrorPercent: mirror_percent must have a max", "W spec.http[0].mirrorPercent"],
        ),
    ]);
}

#[test]
fn faults() {
    let fault = |fault: Value| with(json!({"fault": fault}));
    check::<VirtualService>(&[
        (fault(json!({})), &["E spec.http[0].fault: HTTP fault injection must have an abort and/or a delay"]),
        (fault(json!({"abort": {"httpStatus": 200, "percentage": {"value": 20}}})), &[]),
        (fault(json!({"abort": {"httpStatus": 199}})), &["abort.httpStatus: HTTP status 199"]),
        (
            fault(json!({"abort": {"httpStatus": 500, "percentage": {"value": 100.1}}})),
            &["abort.percentage.value: percentage 100.1"],
        ),
        (fault(json!({"abort": {"httpStatus": 500, "percentage": {"value": 0.00001}}})), &["percentage 0.00001"]),
        (fault(json!({"abort": {"grpcStatus": "NOT_FOUND"}})), &[]),
        (fault(json!({"abort": {"grpcStatus": "BAD"}})), &["gRPC status \"BAD\" is not supported"]),
        (fault(json!({"abort": {"http2Error": "x"}})), &["HTTP/2 abort fault injection not supported"]),
        (fault(json!({"abort": {}})), &["W spec.http[0].fault.abort: abort configured"]),
        (fault(json!({"delay": {"fixedDelay": "3s"}})), &[]),
        (fault(json!({"delay": {"fixedDelay": "0s"}})), &["delay.fixedDelay: duration 0s"]),
        (fault(json!({"delay": {"exponentialDelay": "3s"}})), &["exponentialDelay not supported yet"]),
        (fault(json!({"delay": {"percentage": {"value": 101}}})), &["delay.percentage.value"]),
    ]);
}

#[test]
fn actions() {
    let redirect = |redirect: Value| rule(json!({"redirect": redirect}));
    let rewrite = |rewrite: Value| with(json!({"rewrite": rewrite}));
    let response = |response: Value| rule(json!({"directResponse": response}));
    check::<VirtualService>(&[
        (redirect(json!({"uri": "/a", "authority": "foo.com"})), &[]),
        (redirect(json!({})), &["redirect must specify URI, authority, scheme, or port"]),
        (redirect(json!({"port": 80})), &[]),
        (redirect(json!({"port": 70000})), &["port number 70000"]),
        (redirect(json!({"derivePort": "FROM_REQUEST_PORT"})), &[]),
        (redirect(json!({"uri": "/a", "redirectCode": 200})), &["200 is not a valid redirect code"]),
        (redirect(json!({"scheme": "ftp"})), &["invalid redirect scheme \"ftp\""]),
        (redirect(json!({"uri": "/a", "prefixRewrite": "/b"})), &["only specify one of uri or prefix_rewrite"]),
        (rule(json!({"redirect": {"prefixRewrite": "/b"}, "match": [{"uri": {"prefix": "/a"}}, {"port": 80}]})), &[]),
        (
            rule(json!({"redirect": {"prefixRewrite": "/b"}, "match": [{"uri": {"exact": "/a"}}]})),
            &["requires all URI matches"],
        ),
        (rewrite(json!({"uri": "/a"})), &[]),
        (rewrite(json!({})), &["rewrite must specify at least one of"]),
        (rewrite(json!({"uri": "/a", "uriRegexRewrite": {"match": "a", "rewrite": "b"}})), &["only contain one of"]),
        (rewrite(json!({"uriRegexRewrite": {"match": "a"}})), &["requires both Rewrite and Match"]),
        (rewrite(json!({"uriRegexRewrite": {"match": "[", "rewrite": "b"}})), &["UriRegexRewrite has errors"]),
        (
            response(json!({"status": 600, "body": {"string": "x".repeat(102_401)}})),
            &["W spec.http[0].directResponse.body: large"],
        ),
        (
            response(json!({"status": 601, "body": {"string": "x".repeat(1_048_577)}})),
            &["E spec.http[0].directResponse.body: large", "HTTP status 601"],
        ),
        (with(json!({"timeout": "0.5ms"})), &["spec.http[0].timeout: duration"]),
    ]);
}

#[test]
fn retries_cors_and_headers() {
    let retries = |retries: Value| with(json!({"retries": retries}));
    let cors = |cors: Value| with(json!({"corsPolicy": cors}));
    let request = |request: Value| with(json!({"headers": {"request": request}}));
    check::<VirtualService>(&[
        (
            retries(
                json!({"attempts": 10, "perTryTimeout": "2s", "retryOn": "5xx,gateway-error,503", "backoff": "10ms"}),
            ),
            &[],
        ),
        (retries(json!({"attempts": -1})), &["retries.attempts: attempts cannot be negative"]),
        (retries(json!({"retryOn": "5xx"})), &["configured when attempts are set to 0"]),
        (retries(json!({"attempts": 1, "perTryTimeout": "1us", "backoff": "0s"})), &["perTryTimeout", "backoff"]),
        (
            retries(json!({"attempts": 1, "retryOn": "5xx,incorrect policy,999"})),
            &["\"incorrect policy\" is not a valid", "\"999\""],
        ),
        (
            cors(
                json!({"allowOrigins": [{"exact": "*"}], "allowMethods": ["GET", "*"], "allowHeaders": ["*", "x-a"], "maxAge": "2s"}),
            ),
            &[],
        ),
        (cors(json!({"allowOrigins": [{}, {"regex": "["}]})), &["allowOrigins[0]", "allowOrigins[1].regex"]),
        (cors(json!({"allowMethods": ["get"]})), &["\"get\" is not a supported HTTP method"]),
        (
            cors(json!({"allowHeaders": ["a b"], "exposeHeaders": [""]})),
            &["allowHeaders[0]", "exposeHeaders[0]: header name cannot be empty"],
        ),
        (cors(json!({"maxAge": "2.5s"})), &["accurate only to seconds precision"]),
        (request(json!({"set": {"Host": "a"}, "add": {"x": "%A%"}, "remove": ["y"]})), &[]),
        (
            request(json!({"set": {":path": "a", "x": "%"}, "remove": ["host", ""]})),
            &["set.:path", "set.x: header value", "remove[0]", "remove[1]"],
        ),
        (with(json!({"headers": {"response": {"set": {"host": "a"}}}})), &["cannot set Host header"]),
        (
            request(json!({"set": {"host": "a"}, "add": {":authority": "b"}})),
            &["authority header cannot be set multiple times"],
        ),
        (
            with(json!({"rewrite": {"authority": "a"}, "headers": {"request": {"add": {"Host": "b"}}}})),
            &["authority header cannot be set"],
        ),
    ]);
}

#[test]
fn tls_and_tcp() {
    let route = json!([{"destination": {"host": "a"}}]);
    let tls = |m: Value| json!({"hosts": ["*.foo.com"], "tls": [{"match": [m], "route": route}]});
    let tcp = |m: Value| json!({"hosts": ["foo.com"], "tcp": [{"match": [m], "route": route}]});
    check::<VirtualService>(&[
        (tls(json!({"sniHosts": ["a.foo.com", "*.foo.com"], "port": 443})), &[]),
        (tls(json!({"sniHosts": ["b.com"]})), &["SNI host \"b.com\" is not a compatible subset"]),
        (tls(json!({"sniHosts": ["10.0.0.1"]})), &["W spec.tls[0].match[0].sniHosts[0]: using an IP address"]),
        (tls(json!({})), &["TLS match must have at least one SNI host"]),
        (
            tls(json!({"sniHosts": ["a.foo.com"], "port": 70000, "destinationSubnets": ["x"]})),
            &["destinationSubnets[0]", "port number 70000"],
        ),
        (
            json!({"hosts": ["foo.com"], "tls": [{}]}),
            &["TLS route must have at least one match", "TLS route is required"],
        ),
        (tcp(json!({"port": 5, "destinationSubnets": ["10.0.0.0/8"]})), &[]),
        (
            tcp(
                json!({"port": 70000, "destinationSubnets": ["10.0.0.0/50"], "sourceLabels": {"": ""}, "gateways": ["_"]}),
            ),
            &["destinationSubnets[0]", "port", "gateways[0]", "sourceLabels"],
        ),
        (json!({"hosts": ["foo.com"], "tcp": [{}]}), &["TCP route is required"]),
        (
            json!({"hosts": ["foo.com"], "tcp": [{"route": [{"destination": {"host": "*"}, "weight": -1}]}]}),
            &["destination.host", "weight"],
        ),
    ]);
}

#[test]
fn what_is_never_reached() {
    let rules = |matches: &[Value]| {
        let rules: Vec<Value> =
            matches.iter().map(|m| json!({"match": m, "route": [{"destination": {"host": "a"}}]})).collect();
        json!({"hosts": ["foo.com"], "http": rules})
    };
    let prefix = |prefix: &str| json!([{"uri": {"prefix": prefix}}]);
    let get = |prefix: &str, method: &str| json!([{"uri": {"prefix": prefix}, "method": {"exact": method}}]);
    check::<VirtualService>(&[
        (rules(&[json!([{"uri": {"exact": "/a"}}]), json!([])]), &[]),
        (
            rules(&[json!([]), json!([])]),
            &["W spec.http[1]: virtualService rule #1 not used (only the last rule can have no matches)"],
        ),
        (
            rules(&[json!([]), prefix("/a")]),
            &["W spec.http[1]: virtualService rule #1 not used (route without matches defined before)"],
        ),
        (
            rules(&[prefix("/a"), json!([{"name": "again", "uri": {"prefix": "/a"}}])]),
            &[
                "W spec.http[1].match[0]: virtualService rule #1 match \"again\" is not used (duplicate/overlapping match in rule #0)",
                "W spec.http[1]: virtualService rule #1 not used (all matches used by prior rules)",
            ],
        ),
        (rules(&[json!([{"port": 1}, {"port": 1}])]), &["W spec.http[0].match[1]"]),
        (
            rules(&[prefix("/a"), prefix("/ab")]),
            &[
                "W spec.http[1].match[0]: virtualService rule #1 match #0 of prefix /ab is not used (duplicate/overlapping match in rule #0 of prefix /a on #0)",
            ],
        ),
        (rules(&[prefix("/ab"), prefix("/a")]), &[]),
        (rules(&[prefix("/a/"), prefix("/b"), prefix("/ab")]), &[]),
        (rules(&[get("/a", "POST"), get("/ab", "GET")]), &[]),
        (rules(&[get("/a", "GET"), prefix("/ab")]), &["W spec.http[1].match[0]"]),
        (rules(&[json!([{"uri": {"prefix": "/a"}, "port": 1}]), prefix("/ab")]), &[]),
        (rules(&[json!([{"uri": {"prefix": "/a"}, "headers": {"x": {"exact": "1"}}}]), prefix("/ab")]), &[]),
    ]);
    let tcp = json!({"match": [{"port": 5}], "route": [{"destination": {"host": "a"}}]});
    check::<VirtualService>(&[(
        json!({"hosts": ["a"], "tcp": [tcp, tcp]}),
        &["W spec.tcp[1].match[0]", "W spec.tcp[1]"],
    )]);
}
