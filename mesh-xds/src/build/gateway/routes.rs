//! The route configurations of gateways, rule 6 of Istio's semantics: a host has the routes of all virtual services that
//! are bound to it, in their order, what catches everything last; hosts with the same routes are one virtual host.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use envoy_types::pb::envoy::config::route::v3::VirtualHost;
use envoy_types::pb::envoy::config::route::v3::virtual_host::TlsRequirementType;
use mesh_api::{Hostname, Name};
use rustc_hash::{FxHashMap, FxHashSet};

use super::merge::Bound;
use super::{BuiltListeners, MergedGateway, Router};
use crate::Resource;
use crate::build::lookup::Destinations;
use crate::build::route::EncodedRoutes;
use crate::build::virtual_host::{Entrance, VirtualServiceRoutes, route_configuration, virtual_host};
use crate::memo::Query;
use crate::model::InNamespace;
use crate::model::virtual_service::VirtualService;
use crate::scope::VirtualServicesFor;
use crate::view::View;

/// The route configurations that a router asks for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct GatewayRoutes(pub Router);

impl Query for GatewayRoutes {
    type Out = Vec<Arc<Resource>>;
    fn run(&self, view: &View<'_>) -> Self::Out {
        let built = view.get(&BuiltListeners(self.0.clone()));
        let names: BTreeSet<&Name> = built.iter().flat_map(|b| &b.routes).collect();
        let build = |name: &Name| (*view.get(&RouteConfig { router: self.0.clone(), name: name.clone() })).clone();
        names.into_iter().map(build).collect()
    }
}

/// One route configuration of a router.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct RouteConfig {
    router: Router,
    name: Name,
}

impl Query for RouteConfig {
    type Out = Arc<Resource>;

    fn run(&self, view: &View<'_>) -> Arc<Resource> {
        let merged = view.get(&MergedGateway(self.router.clone()));
        let servers = merged.routes.get(&self.name).map_or(&[][..], Vec::as_slice);
        let mut hosts = self.hosts(view, servers);
        hosts.sort_by(|a, b| a.name.cmp(&b.name));
        let mut encoded: Vec<Bytes> = hosts.iter().map(Host::encode).collect();
        if encoded.is_empty() {
            let port = servers.first().map_or(0, |b| b.server.port);
            // Without routes every request is answered with 404.
            let blackhole = VirtualHost {
                name: format!("blackhole:{port}"),
                domains: vec!["*".to_owned()],
                ..VirtualHost::default()
            };
            encoded.push(virtual_host(&blackhole, &[]));
        }
        // No other router has the same hosts: one part is all there is to share.
        Arc::new(route_configuration(&self.name, vec![encoded.concat().into()]))
    }
}

/// A virtual host in the making.
struct Host {
    /// The first of its hosts, with the server's port.
    name: String,
    domains: Vec<Hostname>,
    /// Requests in plaintext are sent on to TLS.
    redirects: bool,
    /// The virtual services that it is routed by.
    routes: Vec<Arc<EncodedRoutes>>,
}

impl Host {
    /// As a field of the route configuration. What catches everything goes last, whichever virtual service it is of.
    fn encode(&self) -> Bytes {
        let requires = if self.redirects { TlsRequirementType::All } else { TlsRequirementType::None };
        let head = VirtualHost {
            name: self.name.clone(),
            domains: self.domains.iter().map(Hostname::to_string).collect(),
            require_tls: requires.into(),
            include_request_attempt_count: true,
            ..VirtualHost::default()
        };
        let specific = self.routes.iter().map(|routes| routes.specific());
        let catch_all = self.routes.iter().map(|routes| routes.catch_all());
        virtual_host(&head, &specific.chain(catch_all).collect::<Vec<_>>())
    }
}

/// A host on its way, with indices of what it is routed by.
struct Draft {
    name: String,
    redirects: bool,
    routes: Vec<usize>,
}

impl RouteConfig {
    fn hosts(&self, view: &View<'_>, servers: &[Bound]) -> Vec<Host> {
        let client = &self.router.client;
        let destinations = Destinations::new(view, client);
        let mut drafts: BTreeMap<Hostname, Draft> = BTreeMap::new();
        // A virtual service has the same routes on all servers of a gateway: those for the first one's port.
        let mut built: Vec<Arc<EncodedRoutes>> = Vec::new();
        let mut known: FxHashMap<(Name, InNamespace), usize> = FxHashMap::default();
        let mut routed: FxHashSet<(Hostname, usize)> = FxHashSet::default();
        for bound in servers {
            let server = &bound.server;
            let gateway = bound.gateway.full_name();
            let draft = |host: &Hostname| Draft {
                name: format!("{host}:{}", server.port),
                redirects: false,
                routes: Vec::new(),
            };
            let query = VirtualServicesFor { namespace: client.namespace.clone(), gateway: gateway.clone() };
            for vs in view.get(&query).iter() {
                let hosts = intersection(bound, vs);
                if hosts.is_empty() {
                    continue;
                }
                let at = match known.get(&(gateway.clone(), vs.key())) {
                    Some(at) => *at,
                    None => {
                        let entrance =
                            Entrance { gateway: gateway.clone(), port: server.port, tls: server.tls.is_some() };
                        let routes = view.get(&VirtualServiceRoutes::new(vs, entrance, &destinations));
                        if routes.is_empty() {
                            continue;
                        }
                        built.push(routes);
                        known.insert((gateway.clone(), vs.key()), built.len() - 1);
                        built.len() - 1
                    }
                };
                for host in hosts {
                    let entry = drafts.entry(host.clone()).or_insert_with(|| draft(&host));
                    entry.redirects |= server.redirects();
                    if routed.insert((host, at)) {
                        entry.routes.push(at);
                    }
                }
            }
            if server.redirects() {
                for host in server.hosts.iter().map(|h| &h.host) {
                    drafts.entry(host.clone()).or_insert_with(|| draft(host)).redirects = true;
                }
            }
        }
        let hosts = collapse(drafts).into_iter().map(|(draft, domains)| Host {
            name: draft.name,
            domains,
            redirects: draft.redirects,
            routes: draft.routes.iter().filter_map(|at| built.get(*at).cloned()).collect(),
        });
        hosts.collect()
    }
}

/// The hosts that a server and a virtual service have in common; of two that overlap the narrower one.
fn intersection(bound: &Bound, vs: &VirtualService) -> Vec<Hostname> {
    let mut out: Vec<Hostname> = Vec::new();
    for of_server in bound.server.hosts.iter().filter(|h| h.admits(&vs.namespace)).map(|h| &h.host) {
        for of_vs in &vs.hosts {
            let both = if of_vs.covers(of_server) {
                of_server
            } else if of_server.covers(of_vs) {
                of_vs
            } else {
                continue;
            };
            if !out.contains(both) {
                out.push(both.clone());
            }
        }
    }
    out
}

/// Hosts with the same routes become one virtual host, named after the most specific one.
fn collapse(drafts: BTreeMap<Hostname, Draft>) -> Vec<(Draft, Vec<Hostname>)> {
    let mut sorted: Vec<(Hostname, Draft)> = drafts.into_iter().collect();
    sorted.sort_by_key(|(host, _)| (host.is_wildcard(), Reverse(host.as_str().len())));
    let mut out: Vec<(Draft, Vec<Hostname>)> = Vec::with_capacity(sorted.len());
    let mut known: FxHashMap<(bool, Vec<usize>), usize> = FxHashMap::default();
    for (host, draft) in sorted {
        let at = *known.entry((draft.redirects, draft.routes.clone())).or_insert(out.len());
        match out.get_mut(at) {
            Some((_, domains)) => domains.push(host),
            None => out.push((draft, vec![host])),
        }
    }
    out
}
