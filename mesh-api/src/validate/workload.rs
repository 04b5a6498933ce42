//! WorkloadEntry and WorkloadGroup: addresses, ports and health checks of workloads that are not pods.

use std::collections::HashSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::at::{At, Check};
use super::hosts::{self, is_label};
use super::labels::labels;
use super::{headers, net};
use crate::networking::{
    HealthCheckMethod, HttpHealthCheckConfig, ReadinessProbe, WorkloadEntrySpec, WorkloadGroupSpec,
};

pub(super) fn entry(at: &At<'_>, _: &ObjectMeta, spec: &WorkloadEntrySpec) {
    workload(at, spec, None, true);
}

/// A workload, if given with the names of the ports of its service. Whether its address may be a DNS name depends on who
/// resolves it.
pub(super) fn workload(at: &At<'_>, spec: &WorkloadEntrySpec, ports: Option<&HashSet<&str>>, names_allowed: bool) {
    let address = at.field("address");
    let unix = spec.address.strip_prefix(net::UNIX);
    match (spec.address.as_str(), unix) {
        ("", _) if spec.network.is_empty() => {
            return address.error("MissingAddress", "address is required; add it, or a network");
        }
        ("", _) => {
            let message = format!("address is unset with network {:?}: its gateway must stand in", spec.network);
            address.warning("MissingAddress", message);
        }
        (_, Some(path)) => {
            address.check("InvalidAddress", net::unix_path(path));
            at.field("ports").refuse(
                !spec.ports.is_empty(),
                "ConflictingFields",
                "a unix endpoint must not include ports; remove them",
            );
        }
        (text, None) => address.check("InvalidAddress", host(text, names_allowed)),
    }
    endpoint_ports(at, spec, ports);
    labels(at, "labels", &spec.labels);
    if unix.is_some() && ports.is_some_and(|ports| ports.len() != 1) {
        address
            .error("InvalidAddress", "exactly 1 service port required for unix endpoints; give the service one port");
    }
}

/// An IP address, or a DNS name where that is allowed.
pub(super) fn host(text: &str, names_allowed: bool) -> Check {
    if net::is_ip(text) || (names_allowed && hosts::fqdn(text).is_ok()) {
        Ok(())
    } else if names_allowed {
        Err(format!("endpoint address {text:?} is not a valid FQDN or an IP address"))
    } else {
        Err(format!("endpoint address {text:?} is not a valid IP address; write one, or set resolution to DNS"))
    }
}

/// The ports of a workload, each by the name of a service's port.
pub(super) fn endpoint_ports(at: &At<'_>, spec: &WorkloadEntrySpec, service: Option<&HashSet<&str>>) {
    at.entries("ports", &spec.ports, |at, name, port| {
        if service.is_some_and(|service| !service.contains(name)) {
            let message =
                format!("endpoint port {name} ({port}) is not defined by the service entry; add it to its ports");
            at.error("UnknownPort", message);
        }
        at.check("InvalidName", port_name(name));
        at.check("InvalidPort", net::port(*port));
    });
}

/// The name of a port.
pub(super) fn port_name(name: &str) -> Check {
    if is_label(name) {
        Ok(())
    } else {
        Err(format!("invalid port name: {name:?}; use up to 63 letters, digits and -"))
    }
}

pub(super) fn group(at: &At<'_>, _: &ObjectMeta, spec: &WorkloadGroupSpec) {
    if spec.template.is_none() {
        return at
            .field("template")
            .error("MissingTemplate", "template is required; write {} if there is nothing to say");
    }
    if let Some(metadata) = &spec.metadata {
        labels(&at.field("metadata"), "labels", &metadata.labels);
    }
    if let Some(written) = &spec.probe {
        probe(&at.field("probe"), written);
    }
}

fn probe(at: &At<'_>, probe: &ReadinessProbe) {
    for (field, value) in [
        ("periodSeconds", probe.period_seconds),
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        if value < 0 {
            at.field(field).error("InvalidNumber", format!("{field} must be non-negative, not {value}"));
        }
    }
    match &probe.health_check_method {
        Some(HealthCheckMethod::HttpGet(get)) => http_get(&at.field("httpGet"), get),
        Some(HealthCheckMethod::TcpSocket(socket)) => {
            at.field("tcpSocket").field("port").check("InvalidPort", net::port(socket.port));
        }
        Some(HealthCheckMethod::Exec(exec)) => at.field("exec").field("command").refuse(
            exec.command.is_empty(),
            "MissingCommand",
            "exec.command is required; add it",
        ),
        Some(HealthCheckMethod::Grpc(_)) => at.field("grpc").error(
            "NotSupported",
            "unknown health check method grpc: no control plane of Istio takes it; use httpGet, tcpSocket or exec",
        ),
        None => at.error("MissingMethod", "unknown health check method: none is given; add httpGet, tcpSocket or exec"),
    }
}

fn http_get(at: &At<'_>, get: &HttpHealthCheckConfig) {
    at.field("port").check("InvalidPort", net::port(get.port));
    if !matches!(get.scheme.as_str(), "" | "HTTP" | "HTTPS") {
        let message = format!("httpGet.scheme must be one of \"HTTPS\", \"HTTP\", not {:?}", get.scheme);
        at.field("scheme").error("InvalidScheme", message);
    }
    at.each("httpHeaders", &get.http_headers, |at, header| {
        at.field("name").check("InvalidHeader", headers::plain_name(&header.name, false));
    });
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::networking::{WorkloadEntry, WorkloadGroup};
    use crate::validate::testing::check;

    #[test]
    fn entries() {
        check::<WorkloadEntry>(&[
            (json!({"address": "1.2.3.4", "ports": {"http": 80}, "labels": {"app": "a"}}), &[]),
            (json!({"address": "vm.example.com"}), &[]),
            (json!({"address": "unix:///a"}), &[]),
            (json!({}), &["E spec.address: address is required"]),
            (json!({"network": "n"}), &["W spec.address: address is unset with network \"n\""]),
            (json!({"address": "a_b"}), &["E spec.address: endpoint address \"a_b\" is not a valid FQDN"]),
            (
                json!({"address": "unix://a", "ports": {"a": 1}}),
                &["E spec.address: \"a\" is not an absolute path", "E spec.ports"],
            ),
            (
                json!({"address": "1.2.3.4", "ports": {"a_b": 70000}}),
                &["E spec.ports.a_b: invalid port name", "port number 70000"],
            ),
            (json!({"address": "1.2.3.4", "labels": {"a": "-"}}), &["E spec.labels.a: invalid tag value"]),
        ]);
    }

    #[test]
    fn groups() {
        let probe = |probe: Value| json!({"template": {}, "probe": probe});
        check::<WorkloadGroup>(&[
            (json!({"template": {}}), &[]),
            (json!({}), &["E spec.template: template is required"]),
            (json!({"template": {}, "metadata": {"labels": {".": "~"}}}), &["invalid tag key", "invalid tag value"]),
            (probe(json!({})), &["E spec.probe: unknown health check method"]),
            (probe(json!({"grpc": {"port": 5}})), &["E spec.probe.grpc: unknown health check method grpc"]),
            (probe(json!({"httpGet": {"port": 5, "scheme": "HTTPS", "httpHeaders": [{"name": "x-a"}]}})), &[]),
            (
                probe(json!({"httpGet": {"scheme": "http", "httpHeaders": [{"name": "a_b"}]}})),
                &["httpGet.port", "httpGet.scheme", "httpGet.httpHeaders[0].name"],
            ),
            (probe(json!({"tcpSocket": {}})), &["tcpSocket.port: port number 0"]),
            (probe(json!({"exec": {}})), &["exec.command is required"]),
            (
                probe(json!({"exec": {"command": ["a"]}, "periodSeconds": -1})),
                &["periodSeconds must be non-negative, not -1"],
            ),
        ]);
    }
}
