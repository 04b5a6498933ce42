//! ServiceEntry: which hosts, addresses and endpoints a way of resolving them has room for.

use std::collections::HashSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::at::At;
use super::labels::{self, Exported, export_to};
use super::protocol::{Protocol, known_or_none};
use super::workload::{endpoint_ports, host, port_name, workload};
use super::{hosts, namespace, net};
use crate::networking::{Location, Resolution, ServiceEntrySpec};

pub(super) fn check(at: &At<'_>, metadata: &ObjectMeta, spec: &ServiceEntrySpec) {
    if let Some(selector) = &spec.workload_selector {
        let at = at.field("workloadSelector");
        if !labels::selector_labels(&at, "labels", &selector.labels) {
            return;
        }
        if selector.labels.is_empty() {
            labels::without_labels(&at);
        }
        if !spec.endpoints.is_empty() {
            at.error(
                "ConflictingFields",
                "only one of WorkloadSelector or Endpoints is allowed in Service Entry; remove one",
            );
        }
    }
    hosts(at, spec);
    addresses(at, spec);
    let names = ports(at, metadata, spec);
    match spec.resolution {
        Resolution::None => unresolved(at, spec),
        Resolution::Static => {
            at.each("endpoints", &spec.endpoints, |at, endpoint| workload(at, endpoint, Some(&names), false));
        }
        Resolution::Dns | Resolution::DnsRoundRobin => by_dns(at, spec, &names),
        Resolution::DynamicDns => by_request(at, metadata, spec),
    }
    one_host_for_bytes(at, spec);
    export_to(at, namespace(metadata), &spec.export_to, Exported::Service);
}

fn hosts(at: &At<'_>, spec: &ServiceEntrySpec) {
    if spec.hosts.is_empty() {
        at.field("hosts").error("MissingHost", "service entry must have at least one host; add one");
    }
    at.each("hosts", &spec.hosts, |at, host| {
        if host == "*" {
            return at.error("InvalidHost", "invalid host *; name the service");
        }
        at.check("InvalidHost", hosts::wildcard_domain(host));
        if spec.resolution != Resolution::DynamicDns
            && let Err(message) = hosts::whole_wildcard(host)
        {
            at.warning("InvalidHost", message);
        }
    });
}

fn addresses(at: &At<'_>, spec: &ServiceEntrySpec) {
    at.each("addresses", &spec.addresses, |at, address| at.check("InvalidAddress", net::subnet(address)));
    let ranges = spec.addresses.iter().any(|address| address.contains('/'));
    at.field("addresses").refuse(
        ranges && !matches!(spec.resolution, Resolution::None | Resolution::Static),
        "ConflictingFields",
        "CIDR addresses are allowed only for NONE/STATIC resolution types; write single addresses",
    );
}

/// The names of the ports, checked.
fn ports<'a>(at: &At<'_>, metadata: &ObjectMeta, spec: &'a ServiceEntrySpec) -> HashSet<&'a str> {
    let needs_address = spec.addresses.is_empty() && !has_automatic_addresses(metadata, spec);
    let (mut names, mut numbers) = (HashSet::new(), HashSet::new());
    for (index, port) in spec.ports.iter().enumerate() {
        let list = at.field("ports");
        let at = list.index(index);
        if !names.insert(port.name.as_str()) {
            let message =
                format!("service entry port name {:?} already defined; give each port a name of its own", port.name);
            at.field("name").error("DuplicateValue", message);
        }
        if !numbers.insert(port.number) {
            at.field("number")
                .error("DuplicateValue", format!("service entry port {} already defined; remove it", port.number));
        }
        if port.target_port != 0 {
            at.field("targetPort").check("InvalidPort", net::port(port.target_port));
        }
        if needs_address && matches!(port.protocol.as_str(), "" | "TCP") {
            at.field("protocol").warning(
                "MissingAddress",
                "addresses are required for ports serving TCP (or unset) protocol when IP Autoallocation is not enabled; add \
                 them, or set the protocol",
            );
        }
        at.field("name").check("InvalidName", port_name(&port.name));
        at.field("protocol").check("InvalidProtocol", known_or_none(&port.protocol));
        at.field("number").check("InvalidPort", net::port(port.number));
    }
    names
}

/// True when the mesh assigns addresses: where it can make them reach the service, unless the user doesn't want it.
fn has_automatic_addresses(metadata: &ObjectMeta, spec: &ServiceEntrySpec) -> bool {
    let refused =
        label(metadata, "networking.istio.io/enable-autoallocate-ip").is_some_and(|v| v.eq_ignore_ascii_case("false"));
    spec.resolution != Resolution::None && !refused
}

fn label<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(name).map(String::as_str)
}

fn unresolved(at: &At<'_>, spec: &ServiceEntrySpec) {
    at.field("endpoints").refuse(
        !spec.endpoints.is_empty(),
        "ConflictingFields",
        "no endpoints should be provided for resolution type none; set resolution to STATIC or DNS",
    );
    if spec.workload_selector.is_some() {
        at.field("workloadSelector").warning(
            "NoEffect",
            "workloadSelector should not be set when resolution mode is NONE; set resolution to STATIC",
        );
    }
}

fn by_dns(at: &At<'_>, spec: &ServiceEntrySpec, names: &HashSet<&str>) {
    if spec.endpoints.is_empty() {
        let unresolvable = spec.hosts.iter().enumerate().find_map(|(i, host)| Some((i, hosts::fqdn(host).err()?)));
        if let Some((index, why)) = unresolvable {
            at.field("hosts").index(index).error(
                "InvalidHost",
                format!("hosts must be FQDN if no endpoints are provided for resolution by DNS: {why}; add endpoints"),
            );
        }
    }
    at.field("endpoints").refuse(
        spec.resolution == Resolution::DnsRoundRobin && spec.endpoints.len() > 1,
        "ConflictingFields",
        "there must only be 0 or 1 endpoint for resolution mode DNS_ROUND_ROBIN; set resolution to DNS",
    );
    at.each("endpoints", &spec.endpoints, |at, endpoint| {
        at.field("address").check("InvalidAddress", host(&endpoint.address, true));
        labels::labels(at, "labels", &endpoint.labels);
        endpoint_ports(at, endpoint, Some(names));
    });
    let tcp = |protocol: &str| Protocol::parse(protocol).is_some_and(Protocol::is_tcp);
    if !spec.addresses.is_empty() && spec.hosts.len() > 1 && spec.ports.iter().any(|port| tcp(&port.protocol)) {
        at.field("hosts").warning(
            "ConflictingFields",
            "service entry can not have more than one host specified simultaneously with address and tcp port; split it",
        );
    }
}

/// Resolution of the name in each request.
fn by_request(at: &At<'_>, metadata: &ObjectMeta, spec: &ServiceEntrySpec) {
    at.each("hosts", &spec.hosts, |at, host| {
        at.refuse(
            !host.starts_with('*'),
            "InvalidHost",
            "host must be wildcarded for resolution mode DYNAMIC_DNS; set resolution to DNS for a single name",
        );
    });
    for (field, there) in [("addresses", !spec.addresses.is_empty()), ("endpoints", !spec.endpoints.is_empty())] {
        if there {
            let message = format!(
                "{field} cannot be set for resolution type DYNAMIC_DNS, which finds them by the hosts; remove them"
            );
            at.field(field).error("ConflictingFields", message);
        }
    }
    at.each("ports", &spec.ports, |at, port| {
        let fits = matches!(
            Protocol::parse(&port.protocol),
            Some(Protocol::Http | Protocol::Tls | Protocol::Grpc | Protocol::Http2)
        );
        at.field("protocol").refuse(
            !fits,
            "InvalidProtocol",
            "only HTTP, TLS, GRPC, and HTTP2 protocols are supported for resolution type DYNAMIC_DNS",
        );
    });
    let waypoint = label(metadata, "istio.io/use-waypoint");
    let has_waypoint = waypoint.is_some_and(|name| !name.is_empty() && !name.eq_ignore_ascii_case("none"));
    at.field("location").refuse(
        spec.location == Location::MeshInternal && has_waypoint,
        "ConflictingFields",
        "location MESH_INTERNAL with resolution type DYNAMIC_DNS is not supported when using waypoints; set MESH_EXTERNAL",
    );
}

/// Bytes don't tell which host is meant.
fn one_host_for_bytes(at: &At<'_>, spec: &ServiceEntrySpec) {
    let tells_host = |name: &str| Protocol::parse(name).is_some_and(|protocol| protocol.is_http() || protocol.is_tls());
    at.field("hosts").refuse(
        spec.resolution != Resolution::None
            && spec.hosts.len() > 1
            && !spec.ports.iter().all(|port| tells_host(&port.protocol)),
        "ConflictingFields",
        "multiple hosts provided with non-HTTP, non-TLS ports; split the service entry, or set the protocols",
    );
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::networking::ServiceEntry;
    use crate::validate::testing::{check, object, problems};

    fn entry(more: Value) -> Value {
        let mut spec = json!({"hosts": ["a.b.com"], "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}], "resolution": "DNS"});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    }

    #[test]
    fn hosts_ports_and_addresses() {
        let tcp = json!([{"number": 80, "name": "tcp", "protocol": "TCP"}]);
        check::<ServiceEntry>(&[
            (entry(json!({})), &[]),
            (entry(json!({"hosts": []})), &["E spec.hosts: service entry must have at least one host"]),
            (entry(json!({"hosts": ["*"], "resolution": "NONE"})), &["E spec.hosts[0]: invalid host *"]),
            (entry(json!({"hosts": ["*-a.b.com"], "resolution": "NONE"})), &["W spec.hosts[0]: partial wildcard"]),
            (entry(json!({"hosts": ["*.b.com"]})), &["E spec.hosts[0]: hosts must be FQDN"]),
            (entry(json!({"addresses": ["10.0.0.1", "10.0.0.0/8"]})), &["E spec.addresses: CIDR addresses"]),
            (
                entry(json!({"addresses": ["10.0.0.0/8", "x"], "resolution": "NONE"})),
                &["E spec.addresses[1]: \"x\" is not a valid IP"],
            ),
            (
                entry(json!({"ports": [{"number": 80, "name": "a_b", "protocol": "X", "targetPort": 70000}]})),
                &["targetPort: port number 70000", "invalid port name", "unsupported protocol: X"],
            ),
            (
                entry(
                    json!({"ports": [{"number": 80, "name": "a", "protocol": "HTTP"}, {"number": 80, "name": "a", "protocol": "HTTP"}]}),
                ),
                &["port name \"a\" already defined", "port 80 already defined"],
            ),
            (entry(json!({"ports": tcp})), &[]),
            (entry(json!({"ports": tcp, "resolution": "NONE"})), &["W spec.ports[0].protocol: addresses are required"]),
            (entry(json!({"ports": tcp, "hosts": ["a.com", "b.com"]})), &["E spec.hosts: multiple hosts provided"]),
            (
                entry(json!({"ports": tcp, "hosts": ["a.com", "b.com"], "addresses": ["1.2.3.4"]})),
                &["W spec.hosts: service entry can not have more than one host", "E spec.hosts: multiple hosts"],
            ),
            (entry(json!({"exportTo": ["~"]})), &[]),
        ]);
        let mut refused: ServiceEntry = object(entry(json!({"ports": tcp})));
        refused.metadata.labels =
            Some([("networking.istio.io/enable-autoallocate-ip".to_owned(), "False".to_owned())].into());
        assert_eq!(problems(&refused).len(), 1);
    }

    #[test]
    fn endpoints() {
        let with =
            |endpoint: Value, resolution: &str| entry(json!({"endpoints": [endpoint], "resolution": resolution}));
        check::<ServiceEntry>(&[
            (with(json!({"address": "1.2.3.4", "ports": {"http": 8080}}), "STATIC"), &[]),
            (
                with(json!({"address": "a.com"}), "STATIC"),
                &["E spec.endpoints[0].address: endpoint address \"a.com\" is not a valid IP"],
            ),
            (with(json!({"address": "a.com"}), "DNS"), &[]),
            (with(json!({"address": "a_b", "labels": {"": ""}}), "DNS"), &["not a valid FQDN", "invalid tag key"]),
            (with(json!({"address": "1.2.3.4", "ports": {"x": 1}}), "DNS"), &["endpoint port x (1) is not defined"]),
            (with(json!({"address": "unix:///a"}), "STATIC"), &[]),
            (with(json!({"address": "1.2.3.4"}), "NONE"), &["E spec.endpoints: no endpoints should be provided"]),
            (
                entry(json!({"resolution": "STATIC", "ports": [], "endpoints": [{"address": "unix:///a"}]})),
                &["exactly 1 service port required"],
            ),
            (
                entry(
                    json!({"resolution": "DNS_ROUND_ROBIN", "endpoints": [{"address": "a.com"}, {"address": "b.com"}]}),
                ),
                &["there must only be 0 or 1 endpoint"],
            ),
            (
                entry(
                    json!({"resolution": "STATIC", "workloadSelector": {"labels": {"a": "b"}}, "endpoints": [{"address": "1.2.3.4"}]}),
                ),
                &["only one of WorkloadSelector or Endpoints"],
            ),
            (
                entry(json!({"resolution": "STATIC", "workloadSelector": {}})),
                &["W spec.workloadSelector: workload selector specified without labels"],
            ),
            (
                entry(json!({"resolution": "NONE", "workloadSelector": {"labels": {"a": "b"}}})),
                &["W spec.workloadSelector: workloadSelector should not"],
            ),
            (entry(json!({"hosts": [], "workloadSelector": {"labels": {"a": "*"}}})), &["a wildcard is not supported"]),
        ]);
    }

    #[test]
    fn resolution_by_request() {
        let dynamic = |more: Value| {
            let mut spec = entry(json!({"hosts": ["*.b.com"], "resolution": "DYNAMIC_DNS"}));
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            spec
        };
        check::<ServiceEntry>(&[
            (dynamic(json!({})), &[]),
            (dynamic(json!({"hosts": ["a.com"]})), &["host must be wildcarded"]),
            (
                dynamic(json!({"addresses": ["1.2.3.4"], "endpoints": [{"address": "a.com"}]})),
                &["addresses cannot be set", "endpoints cannot be set"],
            ),
            (
                dynamic(json!({"ports": [{"number": 80, "name": "a", "protocol": "TCP"}]})),
                &["only HTTP, TLS, GRPC, and HTTP2"],
            ),
        ]);
        let mut inside: ServiceEntry = object(dynamic(json!({"location": "MESH_INTERNAL"})));
        for (waypoint, fits) in [("none", true), ("", true), ("w", false)] {
            inside.metadata.labels = Some([("istio.io/use-waypoint".to_owned(), waypoint.to_owned())].into());
            assert_eq!(problems(&inside).is_empty(), fits, "{waypoint}");
        }
    }
}
