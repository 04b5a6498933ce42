//! ServiceEntries: one Service row a host, and the endpoints that the object lists itself.

use std::sync::Arc;

use mesh_api::networking::{self, Location, Resolution as Written};
use mesh_api::{Hostname, Name, ObjectRef};

use super::workload::workload_of;
use super::{Lowered, Told, created};
use crate::model::service::labels;
use crate::model::{
    ByIp, Endpoint, Health, Labels, Port, Protocol, Registry, Resolution, Service, ServiceId, TargetPort, Visibility,
    Workload,
};
use crate::snapshot::Row;

/// Lowers a ServiceEntry.
pub(crate) fn service_entry(object: &networking::ServiceEntry) -> Lowered {
    let metadata = &object.metadata;
    let spec = &object.spec;
    let source = ObjectRef::new(
        "ServiceEntry",
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    );
    let mut told = Told::about(&source);
    let resolution = match spec.resolution {
        Written::None => Resolution::Passthrough,
        Written::Static => Resolution::ClientSideLb,
        Written::Dns => Resolution::DnsLb,
        Written::DnsRoundRobin => Resolution::DnsRoundRobinLb,
        Written::DynamicDns => Resolution::DynamicDns,
    };
    let ports = ports(spec, &mut told);
    let addresses = addresses(spec, &mut told);
    let selector = spec.workload_selector.as_ref().map(|s| labels(Some(&s.labels))).unwrap_or_default();
    if !selector.is_empty() && !spec.endpoints.is_empty() {
        told.error(
            "EndpointsAndSelector",
            "spec.endpoints",
            "endpoints and workloadSelector exclude each other; the selector is used",
        );
    }
    let workloads: Vec<Workload> = if selector.is_empty() { workloads(&source, object, &mut told) } else { Vec::new() };

    let mut rows = Vec::new();
    for (i, host) in spec.hosts.iter().enumerate() {
        let hostname = Hostname::from(host);
        if host.is_empty() || host == "*" {
            told.error(
                "InvalidHost",
                format!("spec.hosts[{i}]"),
                format!("{host:?} is no host: write a DNS name, or a wildcard such as *.example.com"),
            );
            continue;
        }
        if hostname.is_wildcard()
            && matches!(resolution, Resolution::DnsLb | Resolution::DnsRoundRobinLb)
            && workloads.is_empty()
        {
            told.error(
                "InvalidHost",
                format!("spec.hosts[{i}]"),
                format!("{host:?} cannot be resolved by DNS; list endpoints, or use resolution NONE or DYNAMIC_DNS"),
            );
            continue;
        }
        let service = Service {
            hostname: hostname.clone(),
            namespace: source.namespace.clone(),
            name: hostname.name().clone(),
            source: source.clone(),
            registry: Registry::External,
            created: created(metadata),
            addresses: addresses.clone(),
            ports: ports.clone(),
            resolution: resolution.clone(),
            mesh_external: spec.location == Location::MeshExternal,
            export_to: Visibility::parse(&spec.export_to, &source.namespace),
            selector: selector.clone(),
            publish_not_ready: false,
            node_local: false,
            traffic_distribution: metadata
                .annotations
                .as_ref()
                .and_then(|a| a.get("networking.istio.io/traffic-distribution"))
                .map(|v| Name::from(v.as_str())),
            subject_alt_names: spec.subject_alt_names.iter().map(|s| Name::from(s.as_str())).collect(),
            service_accounts: Vec::new(),
            labels: labels(metadata.labels.as_ref()),
        };
        let id = ServiceId { key: service.key(), source: source.clone() };
        let endpoints = inline_endpoints(&service, spec, &workloads);
        if !endpoints.is_empty() {
            rows.push(Row::InlineEndpoints(id.clone(), Arc::new(endpoints)));
        }
        rows.push(Row::Service(id, Arc::new(service)));
    }
    let mut ips: Vec<Name> = workloads.iter().flat_map(|w| w.addresses.iter().cloned()).collect();
    ips.sort();
    ips.dedup();
    rows.extend(ips.into_iter().map(|ip| Row::Address(ByIp { ip, object: source.clone() }, Arc::new(()))));
    (rows, told.diagnostics).into()
}

fn ports(spec: &networking::ServiceEntrySpec, told: &mut Told<'_>) -> Vec<Port> {
    let mut ports: Vec<Port> = Vec::new();
    for (i, port) in spec.ports.iter().enumerate() {
        let path = format!("spec.ports[{i}]");
        let Some(number) = u16::try_from(port.number).ok().filter(|n| *n > 0) else {
            told.error("InvalidPort", format!("{path}.number"), format!("port {} is not within 1..65535", port.number));
            continue;
        };
        let Ok(target) = u16::try_from(port.target_port) else {
            told.error(
                "InvalidPort",
                format!("{path}.targetPort"),
                format!("port {} is not within 1..65535", port.target_port),
            );
            continue;
        };
        if ports.iter().any(|p| p.number == number || (!port.name.is_empty() && p.name == port.name.as_str())) {
            told.error(
                "DuplicatePort",
                path,
                format!("port {number} ({}) is listed twice; the first one counts", port.name),
            );
            continue;
        }
        ports.push(Port {
            number,
            name: port.name.as_str().into(),
            protocol: Protocol::parse(&port.protocol),
            target: TargetPort::Number(if target == 0 { number } else { target }),
        });
    }
    ports
}

/// IPs stay, CIDRs lose their insignificant bits, and a CIDR of one address is that address.
fn addresses(spec: &networking::ServiceEntrySpec, told: &mut Told<'_>) -> Vec<Name> {
    let mut out: Vec<Name> = Vec::new();
    for (i, address) in spec.addresses.iter().enumerate() {
        match crate::net::Cidr::parse(address) {
            Some(cidr) => {
                let text: Name = cidr.to_string().into();
                if !out.contains(&text) {
                    out.push(text);
                }
            }
            None => told.error(
                "InvalidAddress",
                format!("spec.addresses[{i}]"),
                format!("{address:?} is neither an IP address nor a CIDR"),
            ),
        }
    }
    out
}

fn workloads(source: &ObjectRef, object: &networking::ServiceEntry, told: &mut Told<'_>) -> Vec<Workload> {
    let created = created(&object.metadata);
    object
        .spec
        .endpoints
        .iter()
        .enumerate()
        .filter_map(|(i, e)| workload_of(source, e, &Labels::new(), created, told, &format!("spec.endpoints[{i}]")))
        .collect()
}

/// The endpoints that a host has by the object alone. DNS hosts without endpoints resolve themselves.
fn inline_endpoints(service: &Service, spec: &networking::ServiceEntrySpec, workloads: &[Workload]) -> Vec<Endpoint> {
    if workloads.is_empty() && spec.workload_selector.is_none() {
        let resolves_itself = matches!(service.resolution, Resolution::DnsLb | Resolution::DnsRoundRobinLb);
        if !resolves_itself || service.hostname.is_wildcard() {
            return Vec::new();
        }
        let endpoint = |port: &Port| Endpoint {
            address: service.hostname.name().clone(),
            port: target(port),
            service_port: port.name.clone(),
            namespace: service.namespace.clone(),
            ..Endpoint::default()
        };
        return service.ports.iter().map(endpoint).collect();
    }
    service.ports.iter().flat_map(|port| workloads.iter().flat_map(move |w| endpoints_of(service, port, w))).collect()
}

fn target(port: &Port) -> u16 {
    match port.target {
        TargetPort::Number(n) => n,
        TargetPort::Named(_) => port.number,
    }
}

/// The endpoints of one workload for one port of a service.
pub(crate) fn endpoints_of(service: &Service, port: &Port, workload: &Workload) -> Vec<Endpoint> {
    let number = match &port.target {
        TargetPort::Named(name) => workload.named_port(name),
        TargetPort::Number(n) => Some(workload.named_port(&port.name).unwrap_or(*n)),
    };
    let Some(number) = number else { return Vec::new() };
    let labels = Arc::new(workload.labels.clone());
    let of = |address: &Name| Endpoint {
        port: if address.starts_with("unix://") { 0 } else { number },
        address: address.clone(),
        service_port: port.name.clone(),
        labels: labels.clone(),
        locality: workload.locality.clone(),
        weight: workload.weight,
        health: if workload.ready || service.publish_not_ready { Health::Healthy } else { Health::Unhealthy },
        namespace: workload.source.namespace.clone(),
        workload: workload.workload.clone(),
        service_account: workload.service_account.clone(),
        network: workload.network.clone(),
        node: workload.node.clone(),
        tls_mode: workload.tls_mode(),
        pod_name: workload.pod_name.clone(),
        cluster: workload.cluster().into(),
    };
    // An address behind another network has no address of its own here; it is reached by that network's gateway.
    workload.addresses.iter().map(of).collect()
}
