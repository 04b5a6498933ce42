//! What a group of proxies may see: the Sidecar that applies, the services and virtual services of each of its egress
//! listeners, and the services of all of them together. The latter are a query of their own: they mostly stay the same
//! when a virtual service changes.

mod import;
pub(crate) mod ingress;

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::{Diagnostic, Hostname, Name};

use crate::class::Client;
use crate::memo::Query;
use crate::model::virtual_service::{VirtualService, delegate};
use crate::model::{
    EgressListener, HostKey, HostSelector, InNamespace, Labels, Service, Settings, Visibility, selects,
};
use crate::proxy::ProxyType;
use crate::shared::Shared;
use crate::view::View;

/// The gateway name that means sidecars.
pub const MESH: &str = "mesh";

/// All services, by who may see them. One pass over the table for all that follows.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct ServiceIndex;

/// What [`ServiceIndex`] knows.
#[derive(PartialEq, Default)]
struct Services {
    /// By defining namespace.
    of: BTreeMap<Name, Vec<Shared<Service>>>,
    /// Visible everywhere, oldest first.
    public: Vec<Shared<Service>>,
    /// Visible in some namespaces only, oldest first.
    limited: BTreeMap<Name, Vec<Shared<Service>>>,
}

impl Query for ServiceIndex {
    type Out = Services;
    fn run(&self, view: &View<'_>) -> Services {
        let settings = settings(view);
        let mut out = Services::default();
        for (_, row) in view.all(|s| &s.services) {
            let service = Shared::from(row);
            match visibility(&service, &settings) {
                Visibility::Public | Visibility::Default => out.public.push(service.clone()),
                Visibility::Nobody => {}
                Visibility::Namespaces(list) => {
                    for namespace in list {
                        out.limited.entry(namespace).or_default().push(service.clone());
                    }
                }
            }
            out.of.entry(service.namespace.clone()).or_default().push(service);
        }
        let by_age = |list: &mut Vec<Shared<Service>>| list.sort_by(|a, b| a.age_order().cmp(&b.age_order()));
        out.of.values_mut().for_each(by_age);
        out.limited.values_mut().for_each(by_age);
        by_age(&mut out.public);
        out
    }
}

fn visibility(service: &Service, settings: &Settings) -> Visibility {
    service.export_to.or_default(&settings.mesh.default_service_export_to, &service.namespace)
}

/// True when proxies of the namespace may see the service.
pub(crate) fn is_visible(service: &Service, namespace: &str, settings: &Settings) -> bool {
    visibility(service, settings).allows(namespace)
}

/// The settings in force.
pub fn settings<'v>(view: &View<'v>) -> Arc<Settings> {
    view.row(|s| &s.settings, &()).cloned().unwrap_or_default()
}

/// The services that a namespace defines, oldest first.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ServicesIn(pub Name);

impl Query for ServicesIn {
    type Out = Vec<Shared<Service>>;
    fn run(&self, view: &View<'_>) -> Vec<Shared<Service>> {
        view.get(&ServiceIndex).of.get(&self.0).cloned().unwrap_or_default()
    }
}

/// The namespaces that define services of a host.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct NamespacesOf(pub(crate) Hostname);

impl Query for NamespacesOf {
    type Out = Vec<Name>;
    fn run(&self, view: &View<'_>) -> Vec<Name> {
        let index = view.get(&ServiceIndex);
        let defining = index.of.iter().filter(|(_, services)| services.iter().any(|s| s.hostname == self.0));
        defining.map(|(namespace, _)| namespace.clone()).collect()
    }
}

/// The services that a namespace may see: those exported to it by name first, then the public ones, each oldest first.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct VisibleServices(pub Name);

impl Query for VisibleServices {
    type Out = Vec<Shared<Service>>;
    fn run(&self, view: &View<'_>) -> Vec<Shared<Service>> {
        let index = view.get(&ServiceIndex);
        let mut out = index.limited.get(&self.0).cloned().unwrap_or_default();
        out.extend(index.public.iter().cloned());
        out
    }
}

/// The Sidecar that applies to a workload, rule 9: by selector (oldest), of its namespace without selector, of the root
/// namespace without selector.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SidecarFor {
    /// The workload's namespace.
    pub namespace: Name,
    /// The workload's labels.
    pub labels: Labels,
}

impl Query for SidecarFor {
    type Out = Option<InNamespace>;
    fn run(&self, view: &View<'_>) -> Option<InNamespace> {
        let own: Vec<_> = view.bucket(|s| &s.sidecars, &self.namespace).collect();
        let oldest = |with_selector: bool| {
            own.iter()
                .filter(|(_, s)| s.selector.is_empty() != with_selector && selects(&s.selector, &self.labels))
                .min_by_key(|(key, s)| (s.created, &key.name))
                .map(|(key, _)| (*key).clone())
        };
        oldest(true).or_else(|| oldest(false)).or_else(|| {
            let root = settings(view).root_namespace.clone();
            view.bucket(|s| &s.sidecars, &root)
                .filter(|(_, s)| s.selector.is_empty())
                .min_by_key(|(key, s)| (s.created, &key.name))
                .map(|(key, _)| key.clone())
        })
    }
}

/// The scope of a group of proxies.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ScopeOf {
    /// The proxies' namespace.
    pub namespace: Name,
    /// The Sidecar that applies.
    pub sidecar: Option<InNamespace>,
    /// Gateways and waypoints see everything that is exported to them, and no virtual services of the mesh.
    pub gateway: bool,
}

impl ScopeOf {
    /// The scope of a client.
    pub fn client(client: &Client) -> Self {
        Self {
            namespace: client.namespace.clone(),
            sidecar: client.sidecar.clone(),
            gateway: client.kind != ProxyType::Sidecar,
        }
    }
}

/// What a group of proxies may see.
#[derive(PartialEq, Debug, Default)]
pub struct Scope {
    /// The egress listeners; the catch-all listener is the one without a port, and there is always at least one listener.
    pub listeners: Vec<ScopedListener>,
}

/// The services of a scope, one a host. Dereferences to their list.
#[derive(PartialEq, Debug, Default)]
pub struct ScopedServices {
    services: Box<[Shared<Service>]>,
    /// Places in `services` in the order of the hosts.
    by_host: Box<[u32]>,
}

impl std::ops::Deref for ScopedServices {
    type Target = [Shared<Service>];
    fn deref(&self) -> &[Shared<Service>] {
        &self.services
    }
}

impl ScopedServices {
    fn new(services: Vec<Shared<Service>>) -> Self {
        let mut by_host: Box<[u32]> = (0..services.len() as u32).collect();
        let host = |at: &u32| services.get(*at as usize).map(|s| &s.hostname);
        by_host.sort_unstable_by(|a, b| host(a).cmp(&host(b)));
        Self { services: services.into(), by_host }
    }

    /// The service of that host.
    pub fn service(&self, host: &Hostname) -> Option<&Shared<Service>> {
        let service = |at: &u32| self.services.get(*at as usize);
        let at = self.by_host.binary_search_by(|at| service(at).map(|s| &s.hostname).cmp(&Some(host))).ok()?;
        service(self.by_host.get(at)?)
    }
}

/// The services of all listeners of a scope together, one a host; services of one host are merged as Istio does.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ServicesOf(pub ScopeOf);

impl Query for ServicesOf {
    type Out = ScopedServices;
    fn run(&self, view: &View<'_>) -> ScopedServices {
        let scope = view.get(&self.0);
        if !self.0.gateway {
            return ScopedServices::new(import::collect(view, &self.0.namespace, &scope.listeners));
        }
        let all = scope.listeners.iter().flat_map(|listener| listener.services.iter().cloned());
        ScopedServices::new(all.collect())
    }
}

/// An egress listener with what it selects.
#[derive(PartialEq, Debug)]
pub struct ScopedListener {
    /// Its definition.
    pub listener: EgressListener,
    /// The services that it selects. Of one host there may be several, all of one namespace.
    pub services: Vec<Shared<Service>>,
    /// The virtual services that it selects, in the order in which they win.
    pub virtual_services: Vec<Shared<VirtualService>>,
}

impl Query for ScopeOf {
    type Out = Scope;

    fn run(&self, view: &View<'_>) -> Scope {
        let visible = view.get(&VisibleServices(self.namespace.clone()));
        if self.gateway {
            let mut imported = import::Imported::default();
            visible.iter().for_each(|s| imported.add(s));
            let everything = EgressListener { port: None, bind: Name::default(), no_capture: false, hosts: Vec::new() };
            let listeners = vec![ScopedListener {
                listener: everything,
                services: imported.into_services(),
                virtual_services: Vec::new(),
            }];
            return Scope { listeners };
        }
        let virtual_services =
            view.get(&VirtualServicesFor { namespace: self.namespace.clone(), gateway: MESH.into() });
        let sidecar = self.sidecar.as_ref().and_then(|key| view.row(|s| &s.sidecars, key));
        let everything = [EgressListener {
            port: None,
            bind: Name::default(),
            no_capture: false,
            hosts: vec![HostSelector::everything()],
        }];
        let egress = match sidecar {
            Some(sidecar) if !sidecar.egress.is_empty() => sidecar.egress.as_slice(),
            _ => &everything,
        };
        let listeners = egress
            .iter()
            .map(|listener| import::select(listener, &self.namespace, &visible, &virtual_services))
            .collect();
        Scope { listeners }
    }
}

/// Virtual services with their delegates merged in, by who may see them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct VirtualServiceIndex;

impl Query for VirtualServiceIndex {
    type Out = Vec<(Visibility, Shared<VirtualService>)>;
    fn run(&self, view: &View<'_>) -> Self::Out {
        let settings = settings(view);
        let visibility = |vs: &VirtualService| {
            vs.export_to.or_default(&settings.mesh.default_virtual_service_export_to, &vs.namespace)
        };
        let mut out: Vec<_> = view
            .all(|s| &s.virtual_services)
            .filter(|(_, vs)| !vs.is_delegate())
            .map(|(key, vs)| {
                let merged = if vs.has_delegates() { view.get(&Delegation(key.clone())).0.clone() } else { vs.into() };
                (visibility(vs), merged)
            })
            .collect();
        out.extend(view.get(&ingress::IngressVirtualServices).iter().map(|vs| (visibility(vs), vs.clone())));
        out.sort_by(|(_, a), (_, b)| a.order().cmp(&b.order()));
        out
    }
}

/// A root VirtualService with its delegates' rules, and what of them had to be left out.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Delegation(InNamespace);

impl Query for Delegation {
    type Out = (Shared<VirtualService>, Vec<Diagnostic>);
    fn run(&self, view: &View<'_>) -> Self::Out {
        let Some(root) = view.row(|s| &s.virtual_services, &self.0) else { return Default::default() };
        let settings = settings(view);
        let find = |key: &InNamespace| match view.row(|s| &s.virtual_services, key) {
            None => delegate::Found::Missing,
            Some(found) => {
                let to = found.export_to.or_default(&settings.mesh.default_virtual_service_export_to, &found.namespace);
                if to.allows(&root.namespace) { delegate::Found::Delegate(found) } else { delegate::Found::NotExported }
            }
        };
        let (merged, told) = delegate::merge(root, find);
        (Shared::new(merged), told)
    }
}

/// What had to be left out of VirtualServices with delegates.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct DelegationProblems;

impl Query for DelegationProblems {
    type Out = Vec<Diagnostic>;
    fn run(&self, view: &View<'_>) -> Self::Out {
        let roots = view.all(|s| &s.virtual_services).filter(|(_, vs)| !vs.is_delegate() && vs.has_delegates());
        roots.flat_map(|(key, _)| view.get(&Delegation(key.clone())).1.clone()).collect()
    }
}

/// The virtual services of a gateway (or of the mesh) that a namespace may see, rule 5 and 6: those of the namespace that
/// only it may see, those exported to it, the public ones; each oldest first.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct VirtualServicesFor {
    /// The proxies' namespace.
    pub namespace: Name,
    /// `namespace/name` of a Gateway, or [`MESH`].
    pub gateway: Name,
}

impl Query for VirtualServicesFor {
    type Out = Vec<Shared<VirtualService>>;
    fn run(&self, view: &View<'_>) -> Vec<Shared<VirtualService>> {
        let index = view.get(&VirtualServiceIndex);
        let rank = |visibility: &Visibility, vs: &VirtualService| match visibility {
            Visibility::Nobody => None,
            Visibility::Public | Visibility::Default => Some(2),
            Visibility::Namespaces(list) if !list.contains(&self.namespace) => None,
            Visibility::Namespaces(list) if list.len() == 1 && vs.namespace == self.namespace => Some(0),
            Visibility::Namespaces(_) => Some(1),
        };
        let mut out: Vec<(u8, &Shared<VirtualService>)> = index
            .iter()
            .filter(|(_, vs)| vs.is_on(&self.gateway))
            .filter_map(|(visibility, vs)| Some((rank(visibility, vs)?, vs)))
            .collect();
        out.sort_by_key(|(rank, _)| *rank);
        out.into_iter().map(|(_, vs)| vs.clone()).collect()
    }
}

/// The other names of each host that is none itself: ExternalName services that lead to it, directly or over each other.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct AliasIndex;

impl Query for AliasIndex {
    type Out = BTreeMap<Hostname, Vec<Hostname>>;
    fn run(&self, view: &View<'_>) -> Self::Out {
        let direct: BTreeMap<&Hostname, &Hostname> =
            view.all(|s| &s.services).filter_map(|(_, s)| Some((&s.hostname, s.alias()?))).collect();
        let mut out: Self::Out = BTreeMap::new();
        for (alias, first) in &direct {
            let mut target = *first;
            // As many steps as there are aliases end every chain that is not a circle.
            for _ in 0..direct.len() {
                match direct.get(target) {
                    Some(next) => target = next,
                    None => break,
                }
            }
            if !direct.contains_key(target) {
                out.entry(target.clone()).or_default().push((*alias).clone());
            }
        }
        out
    }
}

/// All services of one host and namespace, the one that counts first: Kubernetes before others, then the oldest.
pub(crate) fn of_host(view: &View<'_>, key: &HostKey) -> Vec<Shared<Service>> {
    let mut out: Vec<Shared<Service>> = view.bucket(|s| &s.services, key).map(|(_, s)| Shared::from(s)).collect();
    out.sort_by(|a, b| a.registry.cmp(&b.registry).then_with(|| a.age_order().cmp(&b.age_order())));
    out
}
