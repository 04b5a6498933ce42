//! Gateway: ports, hosts and TLS that fit each other.

use std::collections::HashSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::at::At;
use super::hosts::{self, HostsOf};
use super::protocol::Protocol;
use super::{metadata, net, tls};
use crate::networking::{GatewaySpec, Port, Server, ServerTlsMode};

pub(super) fn check(at: &At<'_>, metadata: &ObjectMeta, spec: &GatewaySpec) {
    let converted = metadata::annotation(metadata, "internal.istio.io/gateway-semantics") == Some("gateway");
    let name = metadata.name.as_deref().unwrap_or_default();
    if !converted && !hosts::is_label(name) {
        let message = format!("invalid gateway name: {name:?}; use up to 63 letters, digits and -, but no dots");
        at.error("InvalidName", message);
    }
    if spec.servers.is_empty() {
        at.field("servers").error("MissingServer", "gateway must have at least one server; add one");
    }
    let owner = if converted { HostsOf::ConvertedGateway } else { HostsOf::Gateway };
    let mut names = HashSet::new();
    for (index, written) in spec.servers.iter().enumerate() {
        let list = at.field("servers");
        let at = list.index(index);
        server(&at, written, owner);
        if written.port != Port::default() && !names.insert(written.port.name.as_str()) {
            let message = format!("port names in servers must be unique: duplicate name {}", written.port.name);
            at.field("port").field("name").error("DuplicateValue", message);
        }
    }
}

fn server(at: &At<'_>, server: &Server, owner: HostsOf) {
    if server.hosts.is_empty() {
        at.field("hosts").error("MissingHost", "server config must contain at least one host; * stands for all");
    }
    at.each("hosts", &server.hosts, |at, host| at.check("InvalidHost", hosts::scoped_host(host, owner)));
    let port_is_right = port(&at.field("port"), server);
    bind(at, server);
    let protocol = Protocol::parse(&server.port.protocol);
    if let Some(settings) = &server.tls {
        let at = at.field("tls");
        tls::server(&at, settings);
        if server.port != Port::default() && settings.https_redirect && !protocol.is_some_and(Protocol::is_http) {
            at.field("httpsRedirect").warning(
                "NoEffect",
                "tls.httpsRedirect should only be used with http servers; remove it, or set it on the server of the plain port",
            );
        }
    }
    if let (true, Some(protocol)) = (port_is_right, protocol) {
        encryption(at, server, protocol);
    }
}

/// False if something is wrong with it.
fn port(at: &At<'_>, server: &Server) -> bool {
    let port = &server.port;
    if *port == Port::default() {
        at.error("MissingPort", "port is required; add number, name and protocol");
        return false;
    }
    let mut problems = Vec::new();
    if Protocol::parse(&port.protocol).is_none() {
        let message = format!(
            "invalid protocol {:?}, supported protocols are HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, TLS, MONGO, REDIS, MYSQL, TCP",
            port.protocol
        );
        problems.push(("protocol", "InvalidProtocol", message));
    }
    if (port.number > 0 || !server.bind.starts_with(net::UNIX))
        && let Err(message) = net::port(port.number)
    {
        problems.push(("number", "InvalidPort", message));
    }
    if port.target_port > 0 {
        problems.push(("targetPort", "NoEffect", "targetPort has no impact on Gateways; remove it".to_owned()));
    }
    if port.name.is_empty() {
        problems.push(("name", "MissingName", "port name must be set; add it".to_owned()));
    }
    let fits = problems.is_empty();
    for (field, code, message) in problems {
        at.field(field).error(code, message);
    }
    fits
}

fn bind(at: &At<'_>, server: &Server) {
    let address = at.field("bind");
    if let Some(path) = server.bind.strip_prefix(net::UNIX) {
        address.check("InvalidAddress", net::unix_path(path));
        at.field("port").field("number").refuse(
            server.port.number != 0,
            "InvalidPort",
            "port number must be 0 for unix domain socket; remove it",
        );
    } else if !server.bind.is_empty() {
        address.check("InvalidAddress", net::ip(&server.bind));
    }
}

/// TLS is set exactly where the protocol asks for it; plain HTTP may only redirect.
fn encryption(at: &At<'_>, server: &Server, protocol: Protocol) {
    match &server.tls {
        None if protocol.is_tls() => {
            at.field("tls").error(
                "MissingTls",
                "server must have TLS settings for HTTPS/TLS protocols; add mode and credentialName",
            );
        }
        Some(tls) if protocol.is_http() => {
            let redirects_only = matches!(tls.mode, ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough)
                && [&tls.ca_certificates, &tls.private_key, &tls.server_certificate].iter().all(|file| file.is_empty());
            at.field("tls").refuse(
                !redirects_only,
                "ConflictingFields",
                "server cannot have TLS settings for plain text HTTP ports; set the protocol to HTTPS",
            );
        }
        Some(_) if !protocol.is_tls() => {
            at.field("tls").error(
                "ConflictingFields",
                "server cannot have TLS settings for non HTTPS/TLS ports; set the protocol to TLS",
            );
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::networking::Gateway;
    use crate::validate::testing::{check, object, problems};

    fn server(more: Value) -> Value {
        let mut server = json!({"hosts": ["foo.bar.com"], "port": {"name": "http", "number": 7, "protocol": "http"}});
        server.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"servers": [server]})
    }

    #[test]
    fn servers() {
        let port = |number: i32, protocol: &str| json!({"name": "a", "number": number, "protocol": protocol});
        check::<Gateway>(&[
            (json!({}), &["E spec.servers: gateway must have at least one server"]),
            (server(json!({})), &[]),
            (server(json!({"hosts": ["ns/foo.com", "*/*", "./foo.com", "10.0.0.1"]})), &[]),
            (server(json!({"hosts": []})), &["E spec.servers[0].hosts: server config must contain at least one host"]),
            (
                server(json!({"hosts": ["~/foo.com", "short", "*a.com"]})),
                &["invalid namespace value", "short names", "partial wildcard"],
            ),
            (server(json!({"port": {}})), &["E spec.servers[0].port: port is required"]),
            (server(json!({"port": port(66000, "http")})), &["port.number: port number 66000"]),
            (server(json!({"port": port(80, "")})), &["port.protocol: invalid protocol"]),
            (
                server(json!({"port": {"number": 80, "protocol": "http", "targetPort": 1}})),
                &["targetPort has no impact", "port name must be set"],
            ),
            (server(json!({"bind": "unix:///a", "port": port(0, "http")})), &[]),
            (
                server(json!({"bind": "unix://a", "port": port(80, "http")})),
                &["bind: \"a\" is not an absolute path", "port number must be 0"],
            ),
            (server(json!({"bind": "x"})), &["bind: \"x\" is not a valid IP"]),
            (server(json!({"port": port(443, "HTTPS")})), &["tls: server must have TLS settings"]),
            (server(json!({"tls": {"httpsRedirect": true}})), &[]),
            (
                server(json!({"tls": {"mode": "SIMPLE", "credentialName": "a"}})),
                &["tls: server cannot have TLS settings for plain text"],
            ),
            (
                server(json!({"port": port(80, "TCP"), "tls": {"mode": "ISTIO_MUTUAL"}})),
                &["tls: server cannot have TLS settings for non"],
            ),
            (
                server(
                    json!({"port": port(443, "HTTPS"), "tls": {"mode": "SIMPLE", "credentialName": "a", "httpsRedirect": true}}),
                ),
                &["W spec.servers[0].tls.httpsRedirect"],
            ),
        ]);
        let mut twice = server(json!({}));
        let one = twice["servers"][0].clone();
        twice["servers"].as_array_mut().unwrap().push(one);
        check::<Gateway>(&[(
            twice,
            &["E spec.servers[1].port.name: port names in servers must be unique: duplicate name http"],
        )]);
    }

    #[test]
    fn names_and_converted_gateways() {
        let mut gateway: Gateway = object(server(json!({"hosts": ["~/foo.com"]})));
        gateway.metadata.name = Some("a.b".to_owned());
        assert_eq!(problems(&gateway).len(), 2, "{:?}", problems(&gateway));
        gateway.metadata.annotations =
            Some([("internal.istio.io/gateway-semantics".to_owned(), "gateway".to_owned())].into());
        assert_eq!(problems(&gateway), [""; 0]);
    }
}
