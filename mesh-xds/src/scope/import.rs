//! How an egress listener selects services and virtual services, and how services of one host become one.

use std::collections::{BTreeMap, BTreeSet};

use mesh_api::{Hostname, Name};
use rustc_hash::FxHashMap;

use super::{ScopedListener, is_visible, of_host, settings};
use crate::memo::Query;
use crate::model::virtual_service::{Semantics, VirtualService};
use crate::model::{EgressListener, HostKey, Port, Protocol, Registry, Service};
use crate::shared::Shared;
use crate::view::View;

/// The hosts that a listener selects in one namespace, or in all of them.
#[derive(Default)]
struct Hosts<'l> {
    included: Vec<&'l Hostname>,
    excluded: Vec<&'l Hostname>,
}

impl Hosts<'_> {
    fn excludes(&self, host: &Hostname) -> bool {
        self.excluded.iter().any(|e| e.covers(host))
    }
    fn selects_service(&self, host: &Hostname) -> bool {
        self.included.iter().any(|i| i.covers(host))
    }
    /// The older semantics also take a virtual service for `*.com` where `a.com` is imported.
    fn selects_virtual_service(&self, host: &Hostname, semantics: Semantics) -> bool {
        match semantics {
            Semantics::Gateway => self.selects_service(host),
            Semantics::Istio | Semantics::Ingress => self.included.iter().any(|i| i.matches(host)),
        }
    }
}

struct Selectors<'l> {
    by_namespace: BTreeMap<&'l str, Hosts<'l>>,
}

impl<'l> Selectors<'l> {
    fn new(listener: &'l EgressListener, namespace: &'l Name) -> Self {
        let mut by_namespace: BTreeMap<&str, Hosts<'_>> = BTreeMap::new();
        for selector in &listener.hosts {
            let of = if selector.namespace == "." { namespace } else { &selector.namespace };
            let hosts = by_namespace.entry(of).or_default();
            let list = if selector.exclude { &mut hosts.excluded } else { &mut hosts.included };
            list.push(&selector.host);
        }
        Self { by_namespace }
    }
    fn of(&self, namespace: &str) -> impl Iterator<Item = &Hosts<'l>> {
        self.by_namespace.get(namespace).into_iter().chain(self.by_namespace.get("*"))
    }
    fn excludes(&self, host: &Hostname, namespace: &str) -> bool {
        self.of(namespace).any(|h| h.excludes(host))
    }
}

/// The services and virtual services of a listener.
pub(super) fn select(
    listener: &EgressListener,
    namespace: &Name,
    visible: &[Shared<Service>],
    virtual_services: &[Shared<VirtualService>],
) -> ScopedListener {
    let selectors = Selectors::new(listener, namespace);
    let port = matched_port(listener);
    let mut services: Vec<Shared<Service>> = visible
        .iter()
        .filter(|s| !selectors.excludes(&s.hostname, &s.namespace))
        .filter(|s| selectors.of(&s.namespace).any(|h| h.selects_service(&s.hostname)))
        .filter_map(|s| match port {
            Some(port) => with_ports(s, |p| p.number == port),
            None => Some(s.clone()),
        })
        .collect();
    one_namespace_a_host(&mut services, namespace);

    let selected = |vs: &VirtualService| {
        vs.hosts.iter().any(|host| {
            selectors.of(&vs.namespace).any(|h| h.selects_virtual_service(host, vs.semantics))
                && !selectors.excludes(host, &vs.namespace)
        })
    };
    let mut chosen: Vec<Shared<VirtualService>> = virtual_services.iter().filter(|vs| selected(vs)).cloned().collect();
    // What a route of the Gateway API says in the consumer's own namespace counts before all else.
    chosen.sort_by_key(|vs| !(vs.semantics == Semantics::Gateway && vs.namespace == *namespace));
    ScopedListener { listener: listener.clone(), services, virtual_services: chosen }
}

/// The port by which a listener filters services; a listener that is an HTTP proxy takes all.
fn matched_port(listener: &EgressListener) -> Option<u16> {
    listener.port.as_ref().filter(|p| p.number != 0 && p.protocol != Protocol::HttpProxy).map(|p| p.number)
}

/// The service with only some of its ports; `None` when it has none of them.
fn with_ports(service: &Shared<Service>, keep: impl Fn(&Port) -> bool) -> Option<Shared<Service>> {
    let kept = service.ports.iter().filter(|p| keep(p)).count();
    if kept == 0 {
        None
    } else if kept == service.ports.len() {
        Some(service.clone())
    } else {
        let ports = service.ports.iter().filter(|p| keep(p)).cloned().collect();
        Some(Shared::new(Service { ports, ..(**service).clone() }))
    }
}

/// Of a host that several namespaces define, the consumer's own counts, else a Kubernetes Service, else the oldest.
fn one_namespace_a_host(services: &mut Vec<Shared<Service>>, namespace: &Name) {
    let mut chosen: FxHashMap<Hostname, (Name, Registry)> = FxHashMap::default();
    for service in services.iter() {
        let candidate = (service.namespace.clone(), service.registry);
        match chosen.get(&service.hostname) {
            None => {
                chosen.insert(service.hostname.clone(), candidate);
            }
            Some((of, registry)) => {
                let own = service.namespace == *namespace;
                let better =
                    *registry != Registry::Kubernetes && service.registry == Registry::Kubernetes && of != namespace;
                if own || better {
                    chosen.insert(service.hostname.clone(), candidate);
                }
            }
        }
    }
    services.retain(|s| chosen.get(&s.hostname).is_some_and(|(of, _)| *of == s.namespace));
}

/// Services by host, merged as Istio does where several objects define one.
#[derive(Default)]
pub(super) struct Imported {
    services: Vec<Shared<Service>>,
    by_host: FxHashMap<Hostname, usize>,
}

impl Imported {
    pub(super) fn into_services(self) -> Vec<Shared<Service>> {
        self.services
    }

    pub(super) fn add(&mut self, service: &Shared<Service>) {
        let Some(at) = self.by_host.get(&service.hostname).copied() else {
            self.by_host.insert(service.hostname.clone(), self.services.len());
            self.services.push(service.clone());
            return;
        };
        let Some(existing) = self.services.get_mut(at) else { return };
        if Shared::same(existing, service) || existing.registry < service.registry {
            return;
        }
        if service.registry < existing.registry {
            *existing = service.clone();
        } else if service.ports.iter().any(|p| existing.port(p.number).is_none()) && mergeable(existing, service) {
            let mut merged = (**existing).clone();
            for port in &service.ports {
                if merged.port(port.number).is_none() {
                    merged.ports.push(port.clone());
                }
            }
            *existing = Shared::new(merged);
        }
    }
}

fn mergeable(a: &Service, b: &Service) -> bool {
    a.namespace == b.namespace
        && a.resolution == b.resolution
        && a.labels == b.labels
        && a.selector == b.selector
        && a.export_to == b.export_to
}

/// The services of all listeners: what they select, and what their virtual services lead to.
pub(super) fn collect(view: &View<'_>, namespace: &Name, listeners: &[ScopedListener]) -> Vec<Shared<Service>> {
    let mut imported = Imported::default();
    for listener in listeners {
        listener.services.iter().for_each(|s| imported.add(s));
        let port = matched_port(&listener.listener);
        for vs in &listener.virtual_services {
            for (host, ports) in vs.destinations(namespace) {
                let found = view.get(&BestOfHost { host, namespace: namespace.clone() });
                let Some(service) = &*found else { continue };
                let trimmed = match port {
                    Some(port) => with_ports(service, |p| p.number == port),
                    None if ports.is_empty() || ports.contains(&0) => Some(service.clone()),
                    None => with_ports(service, |p| ports.contains(&p.number)),
                };
                if let Some(service) = trimmed {
                    imported.add(&service);
                }
            }
        }
    }
    imported.into_services()
}

/// The service that a namespace means by a host: its own, else a visible Kubernetes Service, else the oldest visible one.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct BestOfHost {
    host: Hostname,
    namespace: Name,
}

impl Query for BestOfHost {
    type Out = Option<Shared<Service>>;
    fn run(&self, view: &View<'_>) -> Option<Shared<Service>> {
        let own = HostKey { host: self.host.clone(), namespace: self.namespace.clone() };
        if let Some(service) = of_host(view, &own).into_iter().next() {
            return Some(service);
        }
        let settings = settings(view);
        let namespaces = view.get(&NamespacesOfHost(self.host.clone()));
        namespaces
            .iter()
            .filter_map(|ns| {
                of_host(view, &HostKey { host: self.host.clone(), namespace: ns.clone() }).into_iter().next()
            })
            .filter(|s| is_visible(s, &self.namespace, &settings))
            .min_by(|a, b| a.registry.cmp(&b.registry).then_with(|| a.age_order().cmp(&b.age_order())))
    }
}

/// The namespaces that define a host.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct NamespacesOfHost(Hostname);

impl Query for NamespacesOfHost {
    type Out = BTreeSet<Name>;
    fn run(&self, view: &View<'_>) -> BTreeSet<Name> {
        view.get(&HostIndex).get(&self.0).cloned().unwrap_or_default()
    }
}

/// The namespaces that define each host.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct HostIndex;

impl Query for HostIndex {
    type Out = FxHashMap<Hostname, BTreeSet<Name>>;
    fn run(&self, view: &View<'_>) -> Self::Out {
        let mut out: Self::Out = FxHashMap::default();
        for (id, _) in view.all(|s| &s.services) {
            out.entry(id.key.host.clone()).or_default().insert(id.key.namespace.clone());
        }
        out
    }
}
