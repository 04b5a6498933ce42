//! What serves: pods, slices, workload entries; and what tells where they are: nodes and namespaces.

use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use mesh_api::networking;
use mesh_api::{Name, ObjectRef};

use super::{Lowered, Told, created, kube_meta};
use crate::model::endpoint::SliceEndpoint;
use crate::model::service::labels;
use crate::model::{ByIp, Health, InNamespace, Labels, Locality, Slice, SliceKey, Workload};
use crate::snapshot::{Row, no_namespace};

const NETWORK_LABEL: &str = "topology.istio.io/network";

fn object_ref(kind: &'static str, metadata: &kube_meta::ObjectMeta) -> ObjectRef {
    ObjectRef::new(
        kind,
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    )
}

fn address_rows(rows: &mut Vec<Row>, source: &ObjectRef, addresses: &[Name]) {
    for ip in addresses {
        rows.push(Row::Address(ByIp { ip: ip.clone(), object: source.clone() }, Arc::new(())));
    }
}

/// A pod that has an address and has not ended.
pub(crate) fn pod(object: &core::Pod) -> Lowered {
    let source = object_ref("Pod", &object.metadata);
    let spec = object.spec.clone().unwrap_or_default();
    let status = object.status.clone().unwrap_or_default();
    let mut addresses: Vec<Name> = Vec::new();
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    for ip in status.pod_ip.as_deref().into_iter().chain(listed) {
        if !ip.is_empty() && !addresses.iter().any(|a| *a == ip) {
            addresses.push(ip.into());
        }
    }
    let ended = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if addresses.is_empty() || ended {
        return Lowered::default();
    }
    let pod_labels = labels(object.metadata.labels.as_ref());
    let ports = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .flat_map(|c| c.ports.iter().flatten())
        .filter_map(|p| Some((Name::from(p.name.as_deref()?), u16::try_from(p.container_port).ok()?)))
        .collect();
    let ready = status.conditions.iter().flatten().find(|c| c.type_ == "Ready").is_none_or(|c| c.status == "True");
    let service_account = spec.service_account_name.as_deref().filter(|s| !s.is_empty()).unwrap_or("default");
    let row = Workload {
        source: source.clone(),
        service_account: service_account.into(),
        node: spec.node_name.as_deref().unwrap_or_default().into(),
        locality: locality_label(&pod_labels),
        network: pod_labels.get(NETWORK_LABEL).cloned().unwrap_or_default(),
        weight: 0,
        ports,
        workload: workload_name(&object.metadata),
        pod_name: pod_name(&object.metadata, &spec),
        created: created(&object.metadata),
        ready,
        addresses: addresses.clone(),
        labels: pod_labels,
    };
    let mut rows = vec![Row::Pod(InNamespace::from(&source), Arc::new(row))];
    address_rows(&mut rows, &source, &addresses);
    Lowered { rows, ..Lowered::default() }
}

/// `hostname.subdomain` of a pod that has a subdomain, as the pods of a StatefulSet have.
fn pod_name(metadata: &kube_meta::ObjectMeta, spec: &core::PodSpec) -> Name {
    let Some(subdomain) = spec.subdomain.as_deref().filter(|s| !s.is_empty()) else { return Name::default() };
    let name = metadata.name.as_deref().unwrap_or_default();
    let own = name.split_once('@').map_or(name, |(own, _cluster)| own);
    let hostname = spec.hostname.as_deref().filter(|h| !h.is_empty()).unwrap_or(own);
    format!("{hostname}.{subdomain}").into()
}

/// Istio's label on a pod or WorkloadEntry that overrides where it runs.
fn locality_label(labels: &Labels) -> Locality {
    labels
        .get("topology.istio.io/locality")
        .or_else(|| labels.get("istio-locality"))
        .map(|l| Locality::parse(l))
        .unwrap_or_default()
}

/// The controller's name as dashboards know it: a ReplicaSet's name without its hash is the Deployment's.
fn workload_name(metadata: &kube_meta::ObjectMeta) -> Name {
    let owner = metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true));
    let Some(owner) = owner else { return metadata.name.as_deref().unwrap_or_default().into() };
    match (owner.kind.as_str(), owner.name.rsplit_once('-')) {
        ("ReplicaSet" | "ReplicationController", Some((deployment, _))) => deployment.into(),
        _ => owner.name.as_str().into(),
    }
}

/// An EndpointSlice of a Service; slices without the Service's label belong to nobody.
pub(crate) fn slice(object: &discovery::EndpointSlice) -> Lowered {
    let source = object_ref("EndpointSlice", &object.metadata);
    let service = object.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/service-name"));
    let Some(service) = service else { return Lowered::default() };
    let mut told = Told::about(&source);
    if object.address_type == "FQDN" {
        told.unsupported("addressType", "slices of DNS names are not served by EDS; use a ServiceEntry");
        return (Vec::new(), told.diagnostics).into();
    }
    let ports = object
        .ports
        .iter()
        .flatten()
        .filter_map(|p| Some((Name::from(p.name.as_deref().unwrap_or_default()), u16::try_from(p.port?).ok()?)))
        .collect();
    let endpoints: Vec<SliceEndpoint> = object
        .endpoints
        .iter()
        .flatten()
        .map(|e| {
            let c = e.conditions.clone().unwrap_or_default();
            // Unset means ready; a terminating endpoint that still serves is draining.
            let health = match (c.ready.unwrap_or(true), c.serving.unwrap_or(false), c.terminating.unwrap_or(false)) {
                (true, _, _) => Health::Healthy,
                (false, true, true) => Health::Draining,
                _ => Health::Unhealthy,
            };
            let pod = e.target_ref.as_ref().filter(|t| t.kind.as_deref() == Some("Pod"));
            SliceEndpoint {
                addresses: e.addresses.iter().map(|a| Name::from(a.as_str())).collect(),
                health,
                pod: pod.map(|t| {
                    InNamespace::new(
                        t.namespace.as_deref().unwrap_or(&source.namespace),
                        t.name.as_deref().unwrap_or_default(),
                    )
                }),
                node: e.node_name.as_deref().unwrap_or_default().into(),
                zone: e.zone.as_deref().unwrap_or_default().into(),
            }
        })
        .collect();
    let service = InNamespace::new(source.namespace.clone(), service.as_str());
    let diagnostics = told.diagnostics;
    (slice_rows(source, service, Slice { ports, endpoints }), diagnostics).into()
}

/// The older Endpoints object, for Services that have no slices of their own.
pub(crate) fn endpoints(object: &core::Endpoints) -> Lowered {
    let source = object_ref("Endpoints", &object.metadata);
    let service = InNamespace::from(&source);
    let mut rows = Vec::new();
    for (i, subset) in object.subsets.iter().flatten().enumerate() {
        let ports = subset
            .ports
            .iter()
            .flatten()
            .filter_map(|p| Some((Name::from(p.name.as_deref().unwrap_or_default()), u16::try_from(p.port).ok()?)))
            .collect();
        let entry = |address: &core::EndpointAddress, health| SliceEndpoint {
            addresses: vec![address.ip.as_str().into()],
            health,
            pod: address
                .target_ref
                .as_ref()
                .filter(|t| t.kind.as_deref() == Some("Pod"))
                .map(|t| InNamespace::new(source.namespace.clone(), t.name.as_deref().unwrap_or_default())),
            node: address.node_name.as_deref().unwrap_or_default().into(),
            zone: Name::default(),
        };
        let ready = subset.addresses.iter().flatten().map(|a| entry(a, Health::Healthy));
        let unready = subset.not_ready_addresses.iter().flatten().map(|a| entry(a, Health::Unhealthy));
        let slice = Slice { ports, endpoints: ready.chain(unready).collect() };
        let part = ObjectRef::new("Endpoints", source.namespace.clone(), format!("{}-{i}", source.name));
        rows.extend(slice_rows(part, service.clone(), slice));
    }
    Lowered { rows, ..Lowered::default() }
}

fn slice_rows(source: ObjectRef, service: InNamespace, slice: Slice) -> Vec<Row> {
    let mut addresses: Vec<Name> = slice.endpoints.iter().flat_map(|e| e.addresses.iter().cloned()).collect();
    addresses.sort();
    addresses.dedup();
    // An address leads from a slice to its Service, not to the slice.
    let by_ip = ObjectRef::new("Service", service.namespace.clone(), format!("{}/{}", service.name, source.name));
    let key = SliceKey { service, slice: format!("{}/{}", source.kind, source.name).into() };
    let mut rows = vec![Row::Slice(key, Arc::new(slice))];
    address_rows(&mut rows, &by_ip, &addresses);
    rows
}

/// A WorkloadEntry: labels of the object win over `spec.labels`.
pub(crate) fn workload_entry(object: &networking::WorkloadEntry) -> Lowered {
    let source = object_ref("WorkloadEntry", &object.metadata);
    let mut told = Told::about(&source);
    let row = workload_of(
        &source,
        &object.spec,
        &labels(object.metadata.labels.as_ref()),
        created(&object.metadata),
        &mut told,
        "spec",
    );
    let Some(row) = row else { return (Vec::new(), told.diagnostics).into() };
    let addresses = row.addresses.clone();
    let mut rows = vec![Row::WorkloadEntry(InNamespace::from(&source), Arc::new(row))];
    address_rows(&mut rows, &source, &addresses);
    (rows, told.diagnostics).into()
}

/// A workload from a WorkloadEntry's spec, standing alone or inline in a ServiceEntry.
pub(crate) fn workload_of(
    source: &ObjectRef,
    spec: &networking::WorkloadEntrySpec,
    more_labels: &Labels,
    created: i64,
    told: &mut Told<'_>,
    path: &str,
) -> Option<Workload> {
    if spec.address.is_empty() && spec.network.is_empty() {
        told.error(
            "MissingAddress",
            format!("{path}.address"),
            "a workload needs an address: an IP, a DNS name or unix:///path",
        );
        return None;
    }
    let mut all = labels(Some(&spec.labels));
    all.extend(more_labels.iter().map(|(k, v)| (k.clone(), v.clone())));
    let mut ports = Vec::new();
    for (name, number) in &spec.ports {
        match u16::try_from(*number) {
            Ok(number) => ports.push((Name::from(name.as_str()), number)),
            Err(_) => told.error(
                "InvalidPort",
                format!("{path}.ports[{name}]"),
                format!("port {number} is not within 1..65535"),
            ),
        }
    }
    let network = if spec.network.is_empty() {
        all.get(NETWORK_LABEL).cloned().unwrap_or_default()
    } else {
        spec.network.as_str().into()
    };
    Some(Workload {
        source: source.clone(),
        addresses: if spec.address.is_empty() { Vec::new() } else { vec![spec.address.as_str().into()] },
        service_account: spec.service_account.as_str().into(),
        node: Name::default(),
        locality: if spec.locality.is_empty() { locality_label(&all) } else { Locality::parse(&spec.locality) },
        network,
        weight: spec.weight,
        ports,
        workload: source.name.clone(),
        pod_name: Name::default(),
        created,
        ready: true,
        labels: all,
    })
}

/// A node's place, from its well-known labels.
pub(crate) fn node(object: &core::Node) -> Lowered {
    let all = labels(object.metadata.labels.as_ref());
    let first = |keys: &[&str]| keys.iter().find_map(|k| all.get(*k)).cloned().unwrap_or_default();
    let locality = Locality {
        region: first(&["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"]),
        zone: first(&["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"]),
        subzone: first(&["topology.istio.io/subzone"]),
    };
    let key = no_namespace(object.metadata.name.as_deref().unwrap_or_default());
    Lowered { rows: vec![Row::Node(key, Arc::new(locality))], ..Lowered::default() }
}

/// A namespace's labels.
pub(crate) fn namespace(object: &core::Namespace) -> Lowered {
    let key = no_namespace(object.metadata.name.as_deref().unwrap_or_default());
    let row = Row::Namespace(key, Arc::new(labels(object.metadata.labels.as_ref())));
    Lowered { rows: vec![row], ..Lowered::default() }
}
