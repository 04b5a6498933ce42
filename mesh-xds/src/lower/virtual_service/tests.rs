//! Mistakes cost the rule that makes them and nothing else.

use mesh_api::Severity;
use mesh_api::object::Object;

use super::*;
use crate::model::virtual_service::HttpAction;
use crate::testing::objects;

fn lower(spec: &str) -> (VirtualService, Vec<Diagnostic>) {
    let yaml = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: vs, namespace: ns}}\nspec: {spec}"
    );
    match objects(&yaml).as_slice() {
        [Object::VirtualService(o)] => virtual_service(o, &Settings::default()),
        other => panic!("not one VirtualService: {other:?}"),
    }
}

#[test]
fn names_are_full() {
    let (vs, told) = lower(
        "{hosts: [A, b.example.com, '*.x', 10.0.0.1], gateways: [gw, ./gw2, o/gw3, gw4.p.svc.cluster.local, mesh], \
          http: [{route: [{destination: {host: c}}]}]}",
    );
    assert_eq!(told, []);
    assert_eq!(vs.hosts, ["a.ns.svc.cluster.local", "b.example.com", "*.x", "10.0.0.1"].map(Hostname::from));
    assert_eq!(vs.gateways, ["ns/gw", "ns/gw2", "o/gw3", "p/gw4", "mesh"]);
    assert!(
        matches!(&vs.http[0].action, HttpAction::Route(d) if d[0].destination.host == "c.ns.svc.cluster.local".into())
    );
    assert_eq!(lower("{hosts: [a]}").0.gateways, ["mesh"]);
}

#[test]
fn a_bad_rule_is_left_out_and_named() {
    let good = "{route: [{destination: {host: b}}]}";
    for (bad, path) in [
        ("{match: [{uri: {regex: '('}}], route: [{destination: {host: b}}]}", "spec.http[0].match[0].uri.regex"),
        (
            "{match: [{headers: {x: {prefix: ''}}}], route: [{destination: {host: b}}]}",
            "spec.http[0].match[0].headers[\"x\"].prefix",
        ),
        (
            "{match: [{headers: {'a b': {}}}], route: [{destination: {host: b}}]}",
            "spec.http[0].match[0].headers[\"a b\"]",
        ),
        ("{match: [{port: 70000}], route: [{destination: {host: b}}]}", "spec.http[0].match[0].port"),
        ("{route: [{destination: {host: b}, weight: -1}]}", "spec.http[0].route[0].weight"),
        ("{route: [{destination: {host: b}}, {destination: {host: c}}]}", "spec.http[0].route"),
        ("{route: [{destination: {host: ''}}]}", "spec.http[0].route[0].destination.host"),
        ("{route: [{destination: {host: b, port: {number: 0}}}]}", "spec.http[0].route[0].destination.port.number"),
        ("{}", "spec.http[0]"),
        ("{redirect: {uri: /a, redirectCode: 404}}", "spec.http[0].redirect.redirectCode"),
        ("{redirect: {scheme: ftp}}", "spec.http[0].redirect.scheme"),
        ("{directResponse: {status: 42}}", "spec.http[0].directResponse.status"),
        ("{delegate: {namespace: x}}", "spec.http[0].delegate.name"),
        ("{timeout: -1s, route: [{destination: {host: b}}]}", "spec.http[0].timeout"),
        ("{retries: {attempts: -1}, route: [{destination: {host: b}}]}", "spec.http[0].retries.attempts"),
        ("{retries: {attempts: 1, backoff: 0s}, route: [{destination: {host: b}}]}", "spec.http[0].retries.backoff"),
        (
            "{fault: {abort: {httpStatus: 1, percentage: {value: 1}}}, route: [{destination: {host: b}}]}",
            "spec.http[0].fault.abort.httpStatus",
        ),
        (
            "{fault: {abort: {grpcStatus: NOPE, percentage: {value: 1}}}, route: [{destination: {host: b}}]}",
            "spec.http[0].fault.abort.grpcStatus",
        ),
        (
            "{fault: {delay: {fixedDelay: 1s, percentage: {value: 101}}}, route: [{destination: {host: b}}]}",
            "spec.http[0].fault.delay.percentage",
        ),
        (
            "{mirror: {host: c}, mirrorPercentage: {value: -1}, route: [{destination: {host: b}}]}",
            "spec.http[0].mirrorPercentage",
        ),
        (
            "{headers: {request: {set: {x: '%FOO'}}}, route: [{destination: {host: b}}]}",
            "spec.http[0].headers.request.set[\"x\"]",
        ),
        (
            "{headers: {response: {remove: ['']}}, route: [{destination: {host: b}}]}",
            "spec.http[0].headers.response.remove[0]",
        ),
        (
            "{rewrite: {uriRegexRewrite: {match: '*', rewrite: x}}, route: [{destination: {host: b}}]}",
            "spec.http[0].rewrite.uriRegexRewrite.match",
        ),
        (
            "{corsPolicy: {allowOrigins: [{regex: '*'}]}, route: [{destination: {host: b}}]}",
            "spec.http[0].corsPolicy.allowOrigins[0]",
        ),
    ] {
        let (vs, told) = lower(&format!("{{hosts: [a], http: [{bad}, {good}]}}"));
        let errors: Vec<_> = told.iter().filter(|d| d.severity == Severity::Error).collect();
        assert_eq!(errors.len(), 1, "{bad}: {told:?}");
        assert_eq!(errors[0].path.as_str(), path, "{bad}");
        assert_eq!(errors[0].object.as_ref().map(ToString::to_string).as_deref(), Some("VirtualService ns/vs"));
        let left: Vec<_> = vs.http.iter().map(|r| r.path.index).collect();
        assert_eq!(left, [1], "{bad}");
    }
}

#[test]
fn bad_l4_rules_are_left_out_too() {
    for (bad, path) in [
        (
            "tls: [{match: [{sniHosts: ['a*.com']}], route: [{destination: {host: b}}]}]",
            "spec.tls[0].match[0].sniHosts[0]",
        ),
        ("tls: [{match: [{}], route: [{destination: {host: b}}]}]", "spec.tls[0].match[0].sniHosts"),
        ("tls: [{route: [{destination: {host: b}}]}]", "spec.tls[0].match"),
        (
            "tcp: [{match: [{destinationSubnets: [x]}], route: [{destination: {host: b}}]}]",
            "spec.tcp[0].match[0].destinationSubnets[0]",
        ),
        ("tcp: [{match: [{port: 1}]}]", "spec.tcp[0].route"),
    ] {
        let (vs, told) = lower(&format!("{{hosts: [a.com], {bad}}}"));
        assert_eq!((told.len(), vs.tls.len() + vs.tcp.len()), (1, 0), "{bad}: {told:?}");
        assert_eq!(told[0].path.as_str(), path);
    }
}

#[test]
fn what_has_no_effect_is_said() {
    for (rule, path, severity) in [
        ("http: [{redirect: {uri: /x}, route: [{destination: {host: b}}]}]", "spec.http[0].route", Severity::Error),
        ("http: [{redirect: {uri: /x, prefixRewrite: /y}}]", "spec.http[0].redirect.uri", Severity::Error),
        (
            "http: [{fault: {delay: {fixedDelay: 1s}}, route: [{destination: {host: b}}]}]",
            "spec.http[0].fault.delay",
            Severity::Warning,
        ),
        (
            "http: [{fault: {delay: {exponentialDelay: 1s, percent: 5}}, route: [{destination: {host: b}}]}]",
            "spec.http[0].fault.delay.exponentialDelay",
            Severity::Warning,
        ),
        (
            "http: [{fault: {abort: {http2Error: x, percentage: {value: 5}}}, route: [{destination: {host: b}}]}]",
            "spec.http[0].fault.abort.http2Error",
            Severity::Warning,
        ),
        (
            "http: [{headers: {response: {set: {host: x}}}, route: [{destination: {host: b}}]}]",
            "spec.http[0].headers.response.set[\"host\"]",
            Severity::Warning,
        ),
        (
            "http: [{retries: {attempts: 1, retryOn: nonsense}, route: [{destination: {host: b}}]}]",
            "spec.http[0].retries.retryOn",
            Severity::Warning,
        ),
        (
            "tcp: [{match: [{sourceSubnet: 10.0.0.0/8}], route: [{destination: {host: b}}]}]",
            "spec.tcp[0].match[0].sourceSubnet",
            Severity::Warning,
        ),
    ] {
        let (vs, told) = lower(&format!("{{hosts: [a], {rule}}}"));
        assert_eq!(told.len(), 1, "{rule}: {told:?}");
        assert_eq!((told[0].path.as_str(), told[0].severity), (path, severity), "{rule}");
        assert_eq!(vs.http.len() + vs.tcp.len(), 1, "{rule}");
    }
}
