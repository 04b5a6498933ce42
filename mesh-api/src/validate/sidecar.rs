//! Sidecar: listeners that can be bound, each once, and hosts that are imported once.

use std::collections::{HashMap, HashSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::at::{At, Check};
use super::hosts::{self, HostsOf};
use super::protocol::{Protocol, known_or_none};
use super::workload::port_name;
use super::{labels, namespace, net, tls, traffic_policy, virtual_service};
use crate::networking::{
    CaptureMode, IstioEgressListener, IstioIngressListener, OutboundTrafficPolicy, OutboundTrafficPolicyMode,
    ServerTlsMode, ServerTlsSettings, SidecarPort, SidecarSpec,
};

const TWICE: &str = "sidecar: ports on IP bound listeners must be unique; give each listener a port of its own";

pub(super) fn check(at: &At<'_>, metadata: &ObjectMeta, spec: &SidecarSpec) {
    let selector = spec.workload_selector.as_ref();
    if selector.is_some_and(|chosen| !labels::selector_labels(&at.field("workloadSelector"), "labels", &chosen.labels))
    {
        return;
    }
    let says_nothing = spec.egress.is_empty()
        && spec.ingress.is_empty()
        && spec.outbound_traffic_policy.is_none()
        && spec.inbound_connection_pool.is_none();
    if says_nothing {
        return at.error("EmptySidecar", "sidecar: empty configuration provided; add ingress or egress");
    }
    if selector.is_some_and(|chosen| chosen.labels.is_empty()) {
        labels::without_labels(&at.field("workloadSelector"));
    }
    let mut ports = HashSet::new();
    at.each("ingress", &spec.ingress, |at, listener| ingress(at, listener, &mut ports));
    traffic_policy::connection_pool(at, "inboundConnectionPool", spec.inbound_connection_pool.as_ref());
    let (mut ports, mut sockets) = (HashSet::new(), HashSet::new());
    for (index, listener) in spec.egress.iter().enumerate() {
        let list = at.field("egress");
        let at = list.index(index);
        match &listener.port {
            Some(port) => {
                egress_port(&at, listener, port);
                if port.number == 0 && !sockets.insert(listener.bind.as_str()) {
                    let message = "sidecar: unix domain socket values for listeners must be unique; give each a path of its own";
                    at.field("bind").error("DuplicateValue", message);
                } else if port.number != 0 && !ports.insert(port.number) {
                    at.field("port").field("number").error("DuplicateValue", TWICE);
                }
            }
            None if index + 1 < spec.egress.len() => at.error(
                "MissingPort",
                "sidecar: the egress listener with empty port should be the last listener in the list; move it there, or add port",
            ),
            None => {}
        }
        egress_hosts(&at, &listener.hosts, namespace(metadata));
    }
    if let Some(policy) = &spec.outbound_traffic_policy {
        outbound(&at.field("outboundTrafficPolicy"), policy);
    }
}

fn ingress(at: &At<'_>, listener: &IstioIngressListener, ports: &mut HashSet<u32>) {
    let port = &listener.port;
    if *port == SidecarPort::default() {
        return at
            .field("port")
            .error("MissingPort", "sidecar: port is required for ingress listeners; add number and protocol");
    }
    sidecar_port(&at.field("port"), port);
    at.field("port").field("number").check("InvalidPort", net::port(port.number));
    if !listener.bind.is_empty() {
        at.field("bind").check("InvalidAddress", net::ip(&listener.bind));
    }
    if !ports.insert(port.number) {
        at.field("port").field("number").error("DuplicateValue", TWICE);
    }
    if !listener.default_endpoint.is_empty() {
        at.field("defaultEndpoint").check("InvalidEndpoint", default_endpoint(&listener.default_endpoint));
    }
    let protocol = Protocol::parse(&port.protocol);
    if let Some(settings) = &listener.tls {
        ingress_tls(&at.field("tls"), settings, protocol);
    }
    traffic_policy::connection_pool(at, "connectionPool", listener.connection_pool.as_ref());
    let has_http = listener.connection_pool.as_ref().is_some_and(|pool| pool.http.is_some());
    if has_http && !protocol.is_some_and(Protocol::is_http) {
        let message = format!(
            "sidecar: HTTP connection pool settings are configured for port {} ({:?}) but its protocol is not HTTP ({}); only TCP settings will apply",
            port.number, port.name, port.protocol
        );
        at.field("connectionPool").field("http").warning("NoEffect", message);
    }
}

/// What the ports of both directions have to be.
fn sidecar_port(at: &At<'_>, port: &SidecarPort) {
    at.field("targetPort").refuse(
        port.target_port > 0,
        "NoEffect",
        "targetPort has no impact on Sidecars; use defaultEndpoint",
    );
    if !port.name.is_empty() {
        at.field("name").check("InvalidName", port_name(&port.name));
    }
    at.field("protocol").check("InvalidProtocol", known_or_none(&port.protocol));
}

fn default_endpoint(text: &str) -> Check {
    const FORM: &str = "127.0.0.1:<port>,0.0.0.0:<port>,[::1]:port,[::]:port,unix://filepath or unset";
    if let Some(path) = text.strip_prefix(net::UNIX) {
        return net::unix_path(path);
    }
    let (host, port) = net::host_and_port(text)?;
    if !matches!(host, "" | "127.0.0.1" | "0.0.0.0" | "::1" | "::") {
        return Err(format!("sidecar: defaultEndpoint must be of form {FORM}, not {text:?}"));
    }
    net::port(port.parse::<i64>().map_err(|_| format!("sidecar: defaultEndpoint port ({port}) is not a number"))?)
}

fn ingress_tls(at: &At<'_>, tls: &ServerTlsSettings, protocol: Option<Protocol>) {
    for (field, there) in [
        ("subjectAltNames", !tls.subject_alt_names.is_empty()),
        ("httpsRedirect", tls.https_redirect),
        ("credentialName", !tls.credential_name.is_empty()),
        ("credentialNames", !tls.credential_names.is_empty()),
        ("tlsCertificates", !tls.tls_certificates.is_empty()),
    ] {
        if there {
            let message = format!("sidecar: {field} is not supported in ingress tls; remove it");
            at.field(field).error("NotInSidecar", message);
        }
    }
    let mode = match tls.mode {
        ServerTlsMode::IstioMutual => "ISTIO_MUTUAL",
        ServerTlsMode::AutoPassthrough => "AUTO_PASSTHROUGH",
        _ => "",
    };
    if !mode.is_empty() {
        let message =
            format!("configuration is invalid: cannot set mode to {mode} in sidecar ingress tls; use SIMPLE or MUTUAL");
        at.field("mode").error("InvalidMode", message);
    }
    at.refuse(
        !protocol.is_some_and(Protocol::is_tls),
        "ConflictingFields",
        "server cannot have TLS settings for non HTTPS/TLS ports; set the protocol to HTTPS or TLS",
    );
    tls::server(at, tls);
}

fn egress_port(at: &At<'_>, listener: &IstioEgressListener, port: &SidecarPort) {
    sidecar_port(&at.field("port"), port);
    let bind = listener.bind.as_str();
    if port.number != 0 {
        at.field("port").field("number").check("InvalidPort", net::port(port.number));
        if !bind.is_empty() {
            at.field("bind").check("InvalidAddress", net::ip(bind));
        }
        return;
    }
    match bind.strip_prefix(net::UNIX) {
        Some(path) => at.field("bind").check("InvalidAddress", net::unix_path(path)),
        None => at.field("bind").error(
            "InvalidAddress",
            "sidecar: ports with 0 value must have a unix domain socket bind address; write unix:///path, or set port.number",
        ),
    }
    at.field("captureMode").refuse(
        listener.capture_mode == CaptureMode::Iptables,
        "ConflictingFields",
        "sidecar: captureMode must be DEFAULT/NONE for unix domain socket listeners",
    );
}

/// Hosts as `namespace/host`, each imported once; a namespace after `~` is excluded and doesn't count.
fn egress_hosts(at: &At<'_>, list: &[String], own: &str) {
    if list.is_empty() {
        at.field("hosts")
            .error("MissingHost", "sidecar: egress listener must contain at least one host; */* stands for all");
    }
    let mut imported: HashMap<&str, HashSet<&str>> = HashMap::new();
    for (index, text) in list.iter().enumerate() {
        let hosts = at.field("hosts");
        let at = hosts.index(index);
        if let Some((namespace, host)) = text.split_once('/').filter(|(namespace, _)| !namespace.starts_with('~')) {
            let known = imported.entry(if namespace == "." { own } else { namespace }).or_default();
            let again = if host == "*" { !known.is_empty() } else { known.contains(host) || known.contains("*") };
            if again {
                at.warning("DuplicateHost", format!("duplicated egress host: {text}; remove it or what it covers"));
            }
            known.insert(host);
        }
        at.check("InvalidHost", hosts::scoped_host(text, HostsOf::Sidecar));
    }
    if imported.len() > 1 && imported.get("*").is_some_and(|hosts| hosts.contains("*")) {
        at.field("hosts").warning(
            "DuplicateHost",
            "`*/*` host select all resources, no other hosts can be added; remove it or the others",
        );
    }
}

fn outbound(at: &At<'_>, policy: &OutboundTrafficPolicy) {
    let Some(proxy) = &policy.egress_proxy else { return };
    if policy.mode != OutboundTrafficPolicyMode::AllowAny {
        return at.field("egressProxy").error(
            "ConflictingFields",
            "sidecar: egress_proxy must be set only with ALLOW_ANY outbound_traffic_policy mode; set mode to ALLOW_ANY",
        );
    }
    let at = at.field("egressProxy");
    at.field("host").check("InvalidHost", hosts::fqdn(&proxy.host));
    if proxy.port.is_none() {
        return at.field("port").error("MissingPort", "sidecar: egress_proxy port must be non-nil; add port.number");
    }
    virtual_service::service(&at, proxy);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::networking::Sidecar;
    use crate::validate::testing::check;

    #[test]
    fn the_whole() {
        check::<Sidecar>(&[
            (json!({}), &["E spec: sidecar: empty configuration provided"]),
            (json!({"workloadSelector": {}}), &["E spec: sidecar: empty configuration"]),
            (json!({"workloadSelector": {"labels": {"a": "*"}}}), &["E spec.workloadSelector.labels.a: a wildcard"]),
            (
                json!({"workloadSelector": {}, "egress": [{"hosts": ["*/*"]}]}),
                &["W spec.workloadSelector: workload selector specified without labels"],
            ),
            (json!({"inboundConnectionPool": {}}), &["E spec.inboundConnectionPool: connection pool must have"]),
            (
                json!({"outboundTrafficPolicy": {"mode": "ALLOW_ANY", "egressProxy": {"host": "foo.bar", "port": {"number": 80}}}}),
                &[],
            ),
            (
                json!({"outboundTrafficPolicy": {"egressProxy": {"host": "foo.bar"}}}),
                &["egress_proxy must be set only with ALLOW_ANY"],
            ),
            (
                json!({"outboundTrafficPolicy": {"mode": "ALLOW_ANY", "egressProxy": {"host": "foo.bar"}}}),
                &["egress_proxy port must be non-nil"],
            ),
            (
                json!({"outboundTrafficPolicy": {"mode": "ALLOW_ANY", "egressProxy": {"host": "foo.bar", "subset": "_", "port": {"number": 80}}}}),
                &["subset name is invalid"],
            ),
        ]);
    }

    #[test]
    fn ingress() {
        let with = |more: Value| {
            let mut listener = json!({"port": {"number": 90, "protocol": "http", "name": "foo"}});
            listener.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"ingress": [listener]})
        };
        let https = json!({"number": 90, "protocol": "https"});
        check::<Sidecar>(&[
            (with(json!({"defaultEndpoint": "127.0.0.1:80", "bind": "1.1.1.1"})), &[]),
            (with(json!({"defaultEndpoint": "unix:///a"})), &[]),
            (with(json!({"defaultEndpoint": "[::1]:80"})), &[]),
            (
                with(json!({"defaultEndpoint": "1.1.1.1:80"})),
                &["defaultEndpoint: sidecar: defaultEndpoint must be of form"],
            ),
            (with(json!({"defaultEndpoint": "127.0.0.1:hi"})), &["defaultEndpoint port (hi) is not a number"]),
            (with(json!({"defaultEndpoint": "127.0.0.1"})), &["has no port"]),
            (with(json!({"bind": "a"})), &["bind: \"a\" is not a valid IP"]),
            (with(json!({"port": {}})), &["port is required for ingress listeners"]),
            (
                with(json!({"port": {"protocol": "x", "name": "a_b", "targetPort": 1}})),
                &["targetPort", "name", "protocol", "number"],
            ),
            (
                with(json!({"tls": {"mode": "SIMPLE", "serverCertificate": "/c", "privateKey": "/k"}, "port": https})),
                &[],
            ),
            (with(json!({"tls": {}})), &["server cannot have TLS settings for non HTTPS/TLS ports"]),
            (
                with(
                    json!({"port": https, "tls": {"mode": "SIMPLE", "credentialName": "a", "httpsRedirect": true, "subjectAltNames": ["a"]}}),
                ),
                &[
                    "subjectAltNames is not supported",
                    "httpsRedirect is not supported",
                    "credentialName is not supported",
                ],
            ),
            (with(json!({"port": https, "tls": {"mode": "ISTIO_MUTUAL"}})), &["cannot set mode to ISTIO_MUTUAL"]),
            (with(json!({"connectionPool": {"http": {"maxRetries": 1}}})), &[]),
            (
                with(json!({"port": {"number": 90, "protocol": "TCP"}, "connectionPool": {"http": {"maxRetries": 1}}})),
                &["W spec.ingress[0].connectionPool.http: sidecar: HTTP connection pool settings"],
            ),
            (
                json!({"ingress": [{"port": {"number": 90}}, {"port": {"number": 90}}]}),
                &["E spec.ingress[1].port.number: sidecar: ports on IP bound listeners must be unique"],
            ),
        ]);
    }

    #[test]
    fn egress() {
        let hosts = |hosts: &[&str]| json!({"egress": [{"hosts": hosts}]});
        let with = |more: Value| {
            let mut listener = json!({"hosts": ["*/*"]});
            listener.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"egress": [listener]})
        };
        check::<Sidecar>(&[
            (hosts(&["*/*"]), &[]),
            (hosts(&["./*", "istio-system/*", "~other/*", "a/b.com"]), &[]),
            (hosts(&[]), &["E spec.egress[0].hosts: sidecar: egress listener must contain at least one host"]),
            (hosts(&["foo.com"]), &["host \"foo.com\" must be of form namespace/dnsName"]),
            (hosts(&["a/b.com", "a/b.com"]), &["W spec.egress[0].hosts[1]: duplicated egress host: a/b.com"]),
            (hosts(&["a/b.com", "a/*"]), &["W spec.egress[0].hosts[1]"]),
            (hosts(&["./b.com", "bar/b.com"]), &["W spec.egress[0].hosts[1]"]),
            (hosts(&["*/*", "a/b.com"]), &["W spec.egress[0].hosts: `*/*` host select all"]),
            (with(json!({"port": {"number": 0, "protocol": "http"}, "bind": "unix:///a"})), &[]),
            (
                with(json!({"port": {"number": 0, "protocol": "http"}, "bind": "1.1.1.1"})),
                &["ports with 0 value must have a unix domain socket"],
            ),
            (
                with(json!({"port": {}, "bind": "unix:///a", "captureMode": "IPTABLES"})),
                &["captureMode must be DEFAULT/NONE"],
            ),
            (
                with(json!({"port": {"number": 80, "protocol": "http"}, "bind": "a"})),
                &["bind: \"a\" is not a valid IP"],
            ),
            (
                json!({"egress": [{"hosts": ["*/*"]}, {"hosts": ["*/*"], "port": {"number": 80}}]}),
                &["E spec.egress[0]: sidecar: the egress listener with empty port should be the last"],
            ),
            (
                json!({"egress": [{"hosts": ["*/*"], "port": {"number": 80}}, {"hosts": ["*/*"], "port": {"number": 80}}]}),
                &["E spec.egress[1].port.number: sidecar: ports on IP bound"],
            ),
            (
                json!({"egress": [{"hosts": ["*/*"], "port": {}, "bind": "unix:///a"}, {"hosts": ["*/*"], "port": {}, "bind": "unix:///a"}]}),
                &["E spec.egress[1].bind: sidecar: unix domain socket values"],
            ),
        ]);
    }
}
