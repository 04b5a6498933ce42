//! Mistakes cost the server that makes them and nothing else.

use mesh_api::Severity;
use mesh_api::object::Object;

use super::*;
use crate::testing::objects;

fn lowered(servers: &str) -> (Gateway, Vec<Diagnostic>) {
    let yaml = format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: gw, namespace: ns}}\nspec: {{servers: [{servers}]}}"
    );
    match objects(&yaml).as_slice() {
        [Object::Gateway(o)] => lower(o),
        other => panic!("not one Gateway: {other:?}"),
    }
}

#[test]
fn a_bad_server_is_left_out_and_named() {
    let good = "{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}";
    let https = |tls: &str| format!("{{port: {{number: 443, name: x, protocol: HTTPS}}, hosts: [a.com], tls: {tls}}}");
    for (bad, path) in [
        ("{port: {number: 0, name: x, protocol: HTTP}, hosts: ['*']}".to_owned(), "port.number"),
        ("{port: {number: 80, name: x, protocol: SMTP}, hosts: ['*']}".to_owned(), "port.protocol"),
        ("{port: {number: 80, name: x, protocol: HTTP}}".to_owned(), "hosts"),
        ("{port: {number: 80, name: x, protocol: HTTP}, hosts: ['a*.com']}".to_owned(), "hosts[0]"),
        ("{port: {number: 80, name: x, protocol: HTTP}, hosts: ['*'], bind: nowhere}".to_owned(), "bind"),
        (
            "{port: {number: 80, name: x, protocol: HTTP}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: x}}"
                .to_owned(),
            "tls",
        ),
        ("{port: {number: 443, name: x, protocol: HTTPS}, hosts: ['*']}".to_owned(), "tls"),
        (https("{mode: SIMPLE}"), "tls"),
        (https("{mode: MUTUAL, serverCertificate: /c, privateKey: /k}"), "tls.caCertificates"),
        (https("{mode: MUTUAL, credentialName: x, verifyCertificateSpki: [abc]}"), "tls.verifyCertificateSpki[0]"),
        (https("{mode: MUTUAL, credentialName: x, verifyCertificateHash: [abc]}"), "tls.verifyCertificateHash[0]"),
        (
            https("{mode: SIMPLE, credentialName: x, minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2}"),
            "tls.minProtocolVersion",
        ),
    ] {
        let (gateway, told) = lowered(&format!("{bad}, {good}"));
        let errors: Vec<_> =
            told.iter().filter(|d| d.severity == Severity::Error).map(|d| d.path.to_string()).collect();
        assert_eq!(errors, [format!("spec.servers[0].{path}")], "{bad}");
        assert_eq!(gateway.servers.iter().map(|s| s.index).collect::<Vec<_>>(), [1], "{bad}");
    }
}

#[test]
fn what_has_no_effect_is_said() {
    for (server, path) in [
        (
            "{port: {number: 80, name: x, protocol: HTTP}, hosts: ['*'], defaultEndpoint: 127.0.0.1:80}",
            "defaultEndpoint",
        ),
        ("{port: {number: 80, name: x, protocol: HTTP, targetPort: 8080}, hosts: ['*']}", "port.targetPort"),
        (
            "{port: {number: 443, name: x, protocol: TLS}, hosts: ['*'], tls: {mode: PASSTHROUGH, credentialName: x}}",
            "tls",
        ),
        (
            "{port: {number: 443, name: x, protocol: TLS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: x, subjectAltNames: [a]}}",
            "tls.subjectAltNames",
        ),
        (
            "{port: {number: 443, name: x, protocol: TLS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: x, cipherSuites: [NONE]}}",
            "tls.cipherSuites[0]",
        ),
        (
            "{port: {number: 443, name: x, protocol: TLS}, hosts: ['*'], tls: {mode: SIMPLE, credentialName: x, ecdhCurves: [NONE]}}",
            "tls.ecdhCurves[0]",
        ),
    ] {
        let (gateway, told) = lowered(server);
        assert_eq!(told.len(), 1, "{server}: {told:?}");
        assert_eq!(
            (told[0].path.to_string(), told[0].severity),
            (format!("spec.servers[0].{path}"), Severity::Warning)
        );
        assert_eq!(gateway.servers.len(), 1);
    }
}
