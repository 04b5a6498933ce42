//! Which endpoints a service has: slices joined with pods and nodes, selected workloads, endpoints listed inline.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_api::Name;

use crate::class::locality_of;
use crate::lower::service_entry::endpoints_of;
use crate::memo::Query;
use crate::model::{
    Endpoint, Health, HostKey, InNamespace, Locality, Registry, Service, ServiceId, Slice, Workload, selects,
};
use crate::shared::Shared;
use crate::view::View;

/// All endpoints of a host of a namespace, for all of its ports, in a stable order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct EndpointsOf(pub HostKey);

impl Query for EndpointsOf {
    /// Shared, because endpoints that a ServiceEntry lists itself are a row already.
    type Out = Shared<Vec<Endpoint>>;

    fn run(&self, view: &View<'_>) -> Self::Out {
        let services: Vec<_> = view.bucket(|s| &s.services, &self.0).collect();
        if let [(id, only)] = services.as_slice()
            && only.registry == Registry::External
            && only.selector.is_empty()
        {
            return inline(view, id).map(Shared::from).unwrap_or_default();
        }
        let mut out = Vec::new();
        for (id, service) in services {
            match service.registry {
                Registry::Kubernetes => kubernetes(view, service, &mut out),
                Registry::External => external(view, id, service, &mut out),
            }
        }
        Shared::new(out)
    }
}

/// The endpoints that a ServiceEntry lists itself.
fn inline<'v>(view: &View<'v>, service: &ServiceId) -> Option<&'v Arc<Vec<Endpoint>>> {
    view.row(|s| &s.inline_endpoints, service)
}

fn kubernetes(view: &View<'_>, service: &Service, out: &mut Vec<Endpoint>) {
    let key = InNamespace::new(service.namespace.clone(), service.name.clone());
    let slices: Vec<_> = view.bucket(|s| &s.slices, &key).collect();
    // Kubernetes mirrors Endpoints into slices: where both are there, the slices count.
    let has_slices = slices.iter().any(|(k, _)| k.slice.starts_with("EndpointSlice/"));
    let mut seen: BTreeSet<(Name, Name)> = BTreeSet::new();
    for (_, slice) in slices.into_iter().filter(|(k, _)| !has_slices || k.slice.starts_with("EndpointSlice/")) {
        slice_endpoints(view, service, slice, &mut seen, out);
    }
    if !service.selector.is_empty() {
        for (_, workload) in view.bucket(|s| &s.workload_entries, &service.namespace) {
            if selects(&service.selector, &workload.labels) {
                out.extend(service.ports.iter().flat_map(|port| endpoints_of(service, port, workload)));
            }
        }
    }
}

fn slice_endpoints(
    view: &View<'_>,
    service: &Service,
    slice: &Slice,
    seen: &mut BTreeSet<(Name, Name)>,
    out: &mut Vec<Endpoint>,
) {
    for entry in &slice.endpoints {
        for address in &entry.addresses {
            let pod = pod_of(view, service, address, entry.pod.as_ref());
            let locality = match pod {
                Some(pod) => locality_of(view, pod),
                None if !entry.node.is_empty() => {
                    let node = InNamespace::new(Name::default(), entry.node.clone());
                    view.row(|s| &s.nodes, &node).map(|l| (**l).clone()).unwrap_or_default()
                }
                None => Locality { zone: entry.zone.clone(), ..Locality::default() },
            };
            let health = if service.publish_not_ready && entry.health == Health::Unhealthy {
                Health::Healthy
            } else {
                entry.health
            };
            let of_pod = |field: fn(&Workload) -> &Name| pod.map(field).cloned().unwrap_or_default();
            let endpoint = Endpoint {
                address: address.clone(),
                labels: Arc::new(pod.map(|pod| pod.labels.clone()).unwrap_or_default()),
                locality,
                health,
                namespace: pod.map_or(&service.namespace, |pod| &pod.source.namespace).clone(),
                workload: of_pod(|pod| &pod.workload),
                service_account: of_pod(|pod| &pod.service_account),
                network: of_pod(|pod| &pod.network),
                node: entry.node.clone(),
                tls_mode: pod.map(Workload::tls_mode).unwrap_or_default(),
                pod_name: of_pod(|pod| &pod.pod_name),
                cluster: pod.map_or("", Workload::cluster).into(),
                ..Endpoint::default()
            };
            for (name, number) in &slice.ports {
                // The same address may be in several slices while one replaces the other.
                if service.port_by_name(name).is_some() && seen.insert((address.clone(), name.clone())) {
                    out.push(Endpoint { port: *number, service_port: name.clone(), ..endpoint.clone() });
                }
            }
        }
    }
}

fn pod_of<'v>(view: &View<'v>, service: &Service, address: &Name, named: Option<&InNamespace>) -> Option<&'v Workload> {
    if let Some(key) = named {
        return view.row(|s| &s.pods, key).map(|pod| &**pod);
    }
    let mut by_ip = view.bucket(|s| &s.addresses, address).filter(|(k, _)| k.object.kind == "Pod");
    let (key, _) = by_ip.find(|(k, _)| k.object.namespace == service.namespace)?;
    view.row(|s| &s.pods, &InNamespace::from(&key.object)).map(|pod| &**pod)
}

fn external(view: &View<'_>, id: &ServiceId, service: &Service, out: &mut Vec<Endpoint>) {
    if service.selector.is_empty() {
        out.extend(inline(view, id).into_iter().flat_map(|e| e.iter().cloned()));
        return;
    }
    let entries = view.bucket(|s| &s.workload_entries, &service.namespace).map(|(_, w)| w);
    let pods = view.bucket(|s| &s.pods, &service.namespace).map(|(_, w)| w);
    for workload in entries.chain(pods).filter(|w| selects(&service.selector, &w.labels)) {
        let located = Workload { locality: locality_of(view, workload), ..(**workload).clone() };
        out.extend(service.ports.iter().flat_map(|port| endpoints_of(service, port, &located)));
    }
}
