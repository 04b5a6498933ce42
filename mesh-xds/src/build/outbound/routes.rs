//! The route configurations of sidecars: one a port, with a virtual host for each service and for each host that only a
//! virtual service knows.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, Route, RouteAction, VirtualHost, route, route_action,
};
use mesh_api::{Hostname, Name};
use rustc_hash::{FxHashMap, FxHashSet};

use xxhash_rust::xxh3::xxh3_64;

use super::domains::{Callers, Domains, host_port};
use super::{OutboundPolicy, scope};
use crate::Resource;
use crate::build::cluster::hash_policy;
use crate::build::defaults::MeshRetries;
use crate::build::duration;
use crate::build::lookup::Destinations;
use crate::build::route::{EncodedRoutes, default_route};
use crate::build::virtual_host::{Entrance, VirtualServiceRoutes, route_configuration, virtual_host};
use crate::class::Client;
use crate::memo::Query;
use crate::model::destination_rule::HashKey;
use crate::model::virtual_service::{Retries, Semantics, VirtualService};
use crate::model::{Port, Protocol, Resolution, Service};
use crate::scope::{AliasIndex, MESH, ScopedListener};
use crate::shared::{ByPtr, Shared};
use crate::view::View;

/// The route configuration of a forward proxy.
pub const HTTP_PROXY: &str = "http_proxy";

/// One route configuration of a group of sidecars.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RouteConfig {
    /// The group.
    pub client: Client,
    /// Its name: a port, `host:port`, `http_proxy` or the path of a Unix socket.
    pub name: Name,
}

impl Query for RouteConfig {
    type Out = Arc<Resource>;

    fn run(&self, view: &View<'_>) -> Arc<Resource> {
        let (port, sniffed) = self.port();
        let policy = OutboundPolicy::of(view, &self.client);
        let hosts = view.get(&VirtualHosts {
            client: self.client.clone(),
            port,
            path: if port == 0 { self.name.clone() } else { Name::default() },
        });
        let mut encoded: Vec<Bytes> = Vec::new();
        if let Some(host) = sniffed {
            // The listener belongs to this service alone: whatever the request says, it is meant.
            let meant = |h: &&VirtualHostPlan| h.domains.iter().any(|d| *d == self.name || *d == host);
            if let Some(plan) = hosts.iter().find(meant) {
                let any = VirtualHostPlan { domains: [Name::from("*")].into(), ..plan.clone() };
                encoded.push((*view.get(&VirtualHostGroup(vec![any]))).clone());
            }
        } else {
            encoded.extend(groups(&hosts).map(|group| (*view.get(&VirtualHostGroup(group.to_vec()))).clone()));
            encoded.push(virtual_host(&catch_all(&policy), &[]));
        }
        Arc::new(route_configuration(&self.name, encoded))
    }
}

/// Neighbours that are encoded together: single virtual hosts would be many small parts, and a whole list is shared by
/// nobody. It is cut at certain names, not after so many hosts, so that lists with some hosts of their own are cut alike.
fn groups(hosts: &[VirtualHostPlan]) -> impl Iterator<Item = &[VirtualHostPlan]> {
    /// Of so many names, one ends a group.
    const GROUP: u64 = 16;
    hosts.chunk_by(|host, _| !xxh3_64(host.name.as_bytes()).is_multiple_of(GROUP))
}

impl RouteConfig {
    /// The port, 0 for a listener of all ports, and for `host:port` the host.
    fn port(&self) -> (u16, Option<&str>) {
        if self.name.starts_with("unix://") || self.name == HTTP_PROXY {
            return (0, None);
        }
        match self.name.rsplit_once(':') {
            Some((host, port)) => (port.parse().unwrap_or(0), Some(host)),
            None => (self.name.parse().unwrap_or(0), None),
        }
    }
}

/// A virtual host as planned.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct VirtualHostPlan {
    name: Name,
    domains: Arc<[Name]>,
    routes: RoutesOf,
}

/// Where the routes of a virtual host come from.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum RoutesOf {
    /// A service that no virtual service speaks of.
    Service { host: Hostname, port: u16, hash: Option<Box<HashKey>> },
    /// A virtual service.
    VirtualService(ByPtr<EncodedRoutes>),
}

/// Planned virtual hosts; as a query they are the encoded fields of a route configuration.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct VirtualHostGroup(Vec<VirtualHostPlan>);

impl Query for VirtualHostGroup {
    type Out = Bytes;
    fn run(&self, view: &View<'_>) -> Bytes {
        let retries = view.get(&MeshRetries);
        let encoded: Vec<Bytes> = self.0.iter().map(|plan| plan.encode((*retries).as_ref())).collect();
        encoded.concat().into()
    }
}

impl VirtualHostPlan {
    fn encode(&self, retries: Option<&Retries>) -> Bytes {
        let head = VirtualHost {
            name: self.name.to_string(),
            domains: self.domains.iter().map(Name::to_string).collect(),
            include_request_attempt_count: true,
            ..VirtualHost::default()
        };
        match &self.routes {
            RoutesOf::Service { host, port, hash } => {
                let cluster = format!("outbound|{port}||{host}");
                let hash = hash.as_ref().and_then(|key| hash_policy(key));
                let route = default_route(&cluster, &format!("{host}:{port}/*"), retries, hash);
                virtual_host(&head, &[EncodedRoutes::catching_all(&route).all()])
            }
            RoutesOf::VirtualService(routes) => virtual_host(&head, &[routes.all()]),
        }
    }
}

/// The virtual hosts of a port, sorted by name. For port 0: of all ports.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct VirtualHosts {
    client: Client,
    port: u16,
    /// The Unix socket of an egress listener, or `http_proxy`; empty for a port.
    path: Name,
}

impl Query for VirtualHosts {
    type Out = Vec<VirtualHostPlan>;

    fn run(&self, view: &View<'_>) -> Vec<VirtualHostPlan> {
        let scope = view.get(&scope(&self.client));
        let Some(listener) = scope.listeners.iter().find(|l| self.is_of(l)) else { return Vec::new() };
        // An egress listener that is a forward proxy serves all ports, whatever its own.
        let is_proxy = listener.listener.port.as_ref().is_some_and(|p| p.protocol == Protocol::HttpProxy);
        let port = if is_proxy { 0 } else { self.port };
        Hosts::new(view, &self.client, listener, port).plan()
    }
}

impl VirtualHosts {
    fn is_of(&self, scoped: &ScopedListener) -> bool {
        match &scoped.listener.port {
            None => true,
            Some(port) if port.number == 0 => scoped.listener.bind == self.path,
            Some(port) => port.number == self.port,
        }
    }
}

/// A group of hosts on one port that share their routes.
struct Wrapper {
    port: u16,
    hosts: Vec<Name>,
    services: Vec<(Shared<Service>, Port)>,
    routes: Option<ByPtr<EncodedRoutes>>,
}

struct Hosts<'h, 'v> {
    view: &'h View<'v>,
    client: &'h Client,
    destinations: Destinations<'h, 'v>,
    listener: &'h ScopedListener,
    port: u16,
    /// Services that have the port, by host; the last one of a host counts, as in Istio.
    services: BTreeMap<Hostname, Shared<Service>>,
}

impl<'h, 'v> Hosts<'h, 'v> {
    fn new(view: &'h View<'v>, client: &'h Client, listener: &'h ScopedListener, port: u16) -> Self {
        let services = listener
            .services
            .iter()
            .filter(|s| port == 0 || s.port(port).is_some())
            .map(|s| (s.hostname.clone(), s.clone()))
            .collect();
        Self { view, client, destinations: Destinations::new(view, client), listener, port, services }
    }

    fn plan(self) -> Vec<VirtualHostPlan> {
        let wrappers = self.wrappers();
        let services = || wrappers.iter().flat_map(|w| w.services.iter().map(|(s, _)| (&s.hostname, w.port)));
        let mut known: FxHashSet<Name> = services().map(|(host, _)| host.name().clone()).collect();
        if self.port == 0 {
            // Only here are ports part of domains.
            known.extend(services().map(|(host, port)| Name::from(host_port(host.as_str(), port))));
        }
        let callers = Callers::new(&self.client.dns_domain);
        let aliases = self.view.get(&AliasIndex);
        let mut names: FxHashSet<Name> = FxHashSet::default();
        let mut taken = Taken::default();
        let mut out: Vec<(u16, VirtualHostPlan)> = Vec::new();
        for wrapper in &wrappers {
            let plain = wrapper.hosts.iter().map(|h| (h.clone(), None));
            let of_services = wrapper.services.iter().map(|(s, p)| (s.hostname.name().clone(), Some((s, p))));
            for (host, service) in plain.chain(of_services) {
                let of_host = match service {
                    None => Arc::new(Domains::of_host(&host, wrapper.port)),
                    Some((service, _)) => {
                        let aliases = aliases.get(&service.hostname).map_or(&[][..], Vec::as_slice);
                        self.view.get(&callers.of_service(service, aliases, wrapper.port, self.port == 0))
                    }
                };
                if !names.insert(of_host.name.clone()) {
                    continue;
                }
                let domains = taken.take(&of_host, &known);
                if domains.is_empty() {
                    continue;
                }
                let routes = match (&wrapper.routes, service) {
                    (Some(routes), _) => RoutesOf::VirtualService(routes.clone()),
                    (None, Some((s, p))) => {
                        let hash = self.destinations.hash_key_of(s, p.number, "").map(Box::new);
                        RoutesOf::Service { host: s.hostname.clone(), port: p.number, hash }
                    }
                    (None, None) => continue,
                };
                out.push((wrapper.port, VirtualHostPlan { name: of_host.name.clone(), domains, routes }));
            }
        }
        let mut out: Vec<VirtualHostPlan> =
            if self.port == 0 { merged(out) } else { out.into_iter().map(|(_, h)| h).collect() };
        out.sort_by(|a, b| a.name.cmp(&b.name));
        out.shrink_to_fit();
        out
    }

    fn wrappers(&self) -> Vec<Wrapper> {
        let most_specific = self.most_specific();
        let mut out = Vec::new();
        let mut spoken_for: HashSet<Hostname> = HashSet::new();
        for vs in &self.listener.virtual_services {
            // On port 80 a virtual service also speaks for hosts that no service has.
            if self.port != 80 && !self.concerns(vs) {
                continue;
            }
            for wrapper in self.of_virtual_service(vs, &most_specific) {
                spoken_for.extend(wrapper.services.iter().map(|(s, _)| s.hostname.clone()));
                out.push(wrapper);
            }
        }
        for (host, service) in &self.services {
            if spoken_for.contains(host) || matches!(service.resolution, Resolution::Alias(_)) {
                continue;
            }
            for port in self.http_ports(service) {
                out.push(Wrapper {
                    port: port.number,
                    hosts: Vec::new(),
                    services: vec![(service.clone(), port.clone())],
                    routes: None,
                });
            }
        }
        out
    }

    fn http_ports<'s>(&self, service: &'s Service) -> impl Iterator<Item = &'s Port> + use<'s> {
        let only = self.port;
        service.ports.iter().filter(move |p| (only == 0 || p.number == only) && p.protocol.is_http_or_sniffed())
    }

    /// True when a virtual service has a host that one of the services bears.
    fn concerns(&self, vs: &VirtualService) -> bool {
        vs.hosts.iter().any(|h| {
            self.services.contains_key(h)
                || (h.is_wildcard() && self.services.keys().any(|s| h.matches(s)))
                || self.services.keys().any(|s| s.is_wildcard() && h.matches(s))
        })
    }

    /// For each service the virtual service whose host fits it best: of wildcards only the most specific one counts.
    fn most_specific(&self) -> FxHashMap<Hostname, ByPtr<VirtualService>> {
        let mut exact: FxHashMap<&Hostname, &Shared<VirtualService>> = FxHashMap::default();
        let mut wild: Vec<(&Hostname, &Shared<VirtualService>)> = Vec::new();
        for vs in &self.listener.virtual_services {
            for host in &vs.hosts {
                if !host.is_wildcard() {
                    exact.entry(host).or_insert(vs);
                } else if !wild.iter().any(|(h, _)| *h == host) {
                    wild.push((host, vs));
                }
            }
        }
        wild.sort_by_key(|(host, _)| std::cmp::Reverse(host.as_str().len()));
        let best = |host: &Hostname| {
            exact.get(host).copied().or_else(|| wild.iter().find(|(h, _)| h.covers(host)).map(|(_, vs)| *vs))
        };
        self.listener
            .services
            .iter()
            .filter_map(|s| Some((s.hostname.clone(), ByPtr(best(&s.hostname)?.clone()))))
            .collect()
    }

    fn of_virtual_service(
        &self,
        vs: &Shared<VirtualService>,
        most_specific: &FxHashMap<Hostname, ByPtr<VirtualService>>,
    ) -> Vec<Wrapper> {
        let this = ByPtr(vs.clone());
        let mut hosts: Vec<Name> = Vec::new();
        let mut services: Vec<Shared<Service>> = Vec::new();
        for host in vs.hosts.iter().filter(|h| !h.is_wildcard()) {
            match self.services.get(host) {
                Some(service) => services.push(service.clone()),
                None => hosts.push(host.name().clone()),
            }
        }
        for host in vs.hosts.iter().filter(|h| h.is_wildcard()) {
            if vs.semantics == Semantics::Gateway {
                hosts.push(host.name().clone());
                continue;
            }
            let mut found = false;
            for (of, service) in self.services.iter().filter(|(of, _)| of.matches(host)) {
                found = true;
                if most_specific.get(of) == Some(&this) {
                    services.push(service.clone());
                }
            }
            if !found {
                hosts.push(host.name().clone());
            }
        }
        if vs.semantics == Semantics::Gateway {
            // A route of the Gateway API counts for its own namespace's services, or for its own namespace's callers.
            services.retain(|s| s.namespace == vs.namespace || self.client.namespace == vs.namespace);
            if services.is_empty() {
                return Vec::new();
            }
        }
        let mut by_port: BTreeMap<u16, Vec<(Shared<Service>, Port)>> = BTreeMap::new();
        for service in &services {
            for port in self.http_ports(service) {
                by_port.entry(port.number).or_default().push((service.clone(), port.clone()));
            }
        }
        if by_port.is_empty() && self.port == 80 {
            by_port.insert(80, Vec::new());
        }
        let mut out = Vec::new();
        for (port, services) in by_port {
            let entrance = Entrance { gateway: MESH.into(), port, tls: false };
            let routes = self.view.get(&VirtualServiceRoutes::new(vs, entrance, &self.destinations));
            // A rule may not be meant for this port or these callers; then the services have their own routes.
            if routes.is_empty() {
                continue;
            }
            let routes = Some(ByPtr(Shared::from(&routes)));
            out.push(Wrapper { port, hosts: hosts.clone(), services, routes });
        }
        out
    }
}

/// The domains of a route configuration so far, in lower case: each may be there once.
#[derive(Default)]
struct Taken(FxHashSet<Name>);

impl Taken {
    /// The domains of a host that are still free. Its short forms give way to hosts of these names.
    fn take(&mut self, domains: &Domains, known: &FxHashSet<Name>) -> Arc<[Name]> {
        let mut is_free = |d: &Name| {
            let lower =
                if d.bytes().any(|b| b.is_ascii_uppercase()) { d.to_ascii_lowercase().into() } else { d.clone() };
            !(known.contains(d) && domains.short.contains(d)) && self.0.insert(lower)
        };
        let free: Vec<bool> = domains.all.iter().map(&mut is_free).collect();
        if free.iter().all(|free| *free) {
            return domains.all.clone();
        }
        domains.all.iter().zip(free).filter(|(_, free)| *free).map(|(d, _)| d.clone()).collect()
    }
}

/// One table for all ports: requests that name no port mean port 80.
fn merged(hosts: Vec<(u16, VirtualHostPlan)>) -> Vec<VirtualHostPlan> {
    hosts
        .into_iter()
        .filter_map(|(port, mut host)| {
            if port != 80 {
                host.domains = host.domains.iter().filter(|d| d.contains(':')).cloned().collect();
            }
            (!host.domains.is_empty()).then_some(host)
        })
        .collect()
}

/// The virtual host for hosts that nobody knows.
fn catch_all(policy: &OutboundPolicy) -> VirtualHost {
    let (name, action) = match policy {
        OutboundPolicy::RegistryOnly => {
            ("block_all", route::Action::DirectResponse(DirectResponseAction { status: 502, ..Default::default() }))
        }
        OutboundPolicy::AllowAny | OutboundPolicy::EgressProxy(_) => (
            "allow_any",
            route::Action::Route(RouteAction {
                cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(policy.cluster().into())),
                // Unknown services have unknown habits: no limit of ours.
                timeout: duration(0),
                max_stream_duration: Some(route_action::MaxStreamDuration {
                    max_stream_duration: duration(0),
                    grpc_timeout_header_max: duration(0),
                    ..Default::default()
                }),
                ..Default::default()
            }),
        ),
    };
    let all = envoy_types::pb::envoy::config::route::v3::RouteMatch {
        path_specifier: Some(envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier::Prefix("/".into())),
        ..Default::default()
    };
    VirtualHost {
        name: name.into(),
        domains: vec!["*".into()],
        routes: vec![Route { name: name.into(), r#match: Some(all), action: Some(action), ..Default::default() }],
        include_request_attempt_count: true,
        ..Default::default()
    }
}
