//! Which outbound listeners there are: services that share an address and port share a listener, and where they can't, the
//! older one wins. What loses is said, not swallowed.

use std::collections::BTreeMap;

use mesh_api::Name;

use super::plan::{Chain, ListenerPlan, Origin, Then};
use super::{scope, wildcards};
use crate::build::route::RouteContext;
use crate::build::route::l4::{L4Chain, tcp_chains, tcp_proxy, tls_chains};
use crate::build::{access_log, lookup::Destinations};
use crate::class::{Client, Interception};
use crate::endpoints::EndpointsOf;
use crate::model::virtual_service::VirtualService;
use crate::model::{Port, Protocol, Registry, Resolution, Service, Settings};
use crate::resource::canonical_bytes;
use crate::scope::{MESH, ScopedListener, settings};
use crate::shared::Shared;
use crate::view::View;

/// The planned outbound listeners of a group of sidecars, in the order of their addresses.
pub(super) fn plans(view: &View<'_>, client: &Client) -> Vec<ListenerPlan> {
    let scope = view.get(&scope(client));
    let settings = settings(view);
    let mut planner = Planner {
        view,
        client,
        destinations: Destinations::new(view, client),
        wildcards: wildcards(client, &settings),
        settings: &settings,
        entries: BTreeMap::new(),
    };
    for listener in &scope.listeners {
        planner.egress(listener);
    }
    planner.http_proxy();
    planner.entries.into_values().map(|e| e.plan).collect()
}

struct Entry {
    plan: ListenerPlan,
    /// What is spoken there so far; sniffed once bytes and HTTP meet.
    protocol: Protocol,
    /// Of an egress listener with a port: the catch-all listener must leave it alone.
    locked: bool,
}

struct Planner<'p, 'v> {
    view: &'p View<'v>,
    client: &'p Client,
    destinations: Destinations<'p, 'v>,
    settings: &'p Settings,
    wildcards: Vec<Name>,
    entries: BTreeMap<(Name, u16), Entry>,
}

/// Where one service port is to be listened for.
#[derive(Clone)]
struct Place {
    bind: Vec<Name>,
    cidrs: Vec<Name>,
    bind_to_port: bool,
    headless_pod: bool,
}

impl Planner<'_, '_> {
    fn egress(&mut self, scoped: &ScopedListener) {
        let listener = &scoped.listener;
        let bind_to_port = listener.no_capture || self.client.interception == Interception::None;
        let bind = if !listener.bind.is_empty() {
            vec![listener.bind.clone()]
        } else if bind_to_port {
            vec![if self.client.ipv4 { "127.0.0.1".into() } else { "::1".into() }]
        } else {
            Vec::new()
        };
        let place = Place { bind, cidrs: Vec::new(), bind_to_port, headless_pod: false };
        if let Some(port) = &listener.port {
            for service in &scoped.services {
                self.add(scoped, service, port, place.clone());
            }
            return;
        }
        self.entries.values_mut().for_each(|e| e.locked = true);
        for service in &scoped.services {
            for port in &service.ports {
                if is_headless(service, port) && place.bind.is_empty() {
                    self.headless(scoped, service, port, &place);
                } else {
                    self.add(scoped, service, port, place.clone());
                }
            }
        }
    }

    /// Without a virtual IP, bytes can only be told apart by the address of each endpoint.
    fn headless(&mut self, scoped: &ScopedListener, service: &Shared<Service>, port: &Port, place: &Place) {
        let endpoints = self.view.get(&EndpointsOf(service.key()));
        let mut of_port = endpoints.iter().filter(|e| e.service_port == port.name).peekable();
        if service.registry != Registry::Kubernetes && of_port.peek().is_none() && service.selector.is_empty() {
            self.add(scoped, service, port, place.clone());
            return;
        }
        let as_chains = self.settings.features.flag("PILOT_ENABLE_HEADLESS_FILTER_CHAIN_LISTENER", false);
        for endpoint in of_port.filter(|e| e.address.parse::<std::net::IpAddr>().is_ok()) {
            let at = if as_chains && port.protocol.is_tcp() {
                Place {
                    bind: self.wildcards.clone(),
                    cidrs: vec![endpoint.address.clone()],
                    headless_pod: true,
                    ..place.clone()
                }
            } else {
                Place { bind: vec![endpoint.address.clone()], ..place.clone() }
            };
            self.add(scoped, service, port, at);
        }
    }

    fn add(&mut self, scoped: &ScopedListener, service: &Shared<Service>, port: &Port, mut place: Place) {
        if matches!(service.resolution, Resolution::Alias(_)) || port.protocol == Protocol::Udp {
            return;
        }
        if place.bind.is_empty() {
            if port.protocol.is_http() {
                place.bind = self.wildcards.clone();
            } else {
                for own in self.own_addresses(service, &place) {
                    self.add_at(scoped, service, port, own);
                }
                return;
            }
        }
        self.add_at(scoped, service, port, place);
    }

    fn add_at(&mut self, scoped: &ScopedListener, service: &Shared<Service>, port: &Port, place: Place) {
        let is_proxy = port.protocol == Protocol::HttpProxy;
        let http = port.protocol.is_http();
        let Some(primary) = place.bind.first().cloned() else { return };
        let on_wildcard = self.wildcards.first() == Some(&primary);
        if !place.bind_to_port && on_wildcard && self.is_reserved(port.number) {
            return;
        }
        let key = (primary.clone(), port.number);
        let current = self.entries.get(&key).map(|e| (e.locked, e.protocol));
        if current.is_some_and(|(locked, _)| locked) {
            return;
        }
        let existing = current.map(|(_, protocol)| protocol);
        if let Some(existing) = existing
            && existing != port.protocol
            && [existing, port.protocol].iter().any(|p| matches!(p, Protocol::Mongo | Protocol::MySql))
        {
            // Where the server speaks first nothing can be sniffed, so nothing else fits in.
            return;
        }

        let http_chain = |plaintext_http| Chain {
            sni: Vec::new(),
            cidrs: Vec::new(),
            plaintext_http,
            then: Then::Http {
                rds: self.rds_name(service, port, &primary, on_wildcard),
                protocol: port.protocol,
                http10: matches!(self.client.metadata("HTTP10"), "1" | "true"),
            },
            origin: None,
        };
        let (chains, protocol, replace) = if is_proxy {
            if existing.is_some() {
                return;
            }
            (vec![http_chain(false)], port.protocol, true)
        } else if http {
            match existing {
                Some(p) if p.is_tcp() => (vec![http_chain(on_wildcard)], Protocol::Unsupported, false),
                Some(_) => return,
                // On the wildcard, bytes that are no HTTP must still find their way out.
                None if on_wildcard => (vec![http_chain(true)], Protocol::Unsupported, true),
                None => (vec![http_chain(false)], port.protocol, true),
            }
        } else if port.protocol.is_sniffed() {
            let mut chains = self.tcp(scoped, service, port, &place);
            match existing {
                Some(p) if p.is_sniffed() => (chains, p, false),
                Some(p) => {
                    chains.push(http_chain(true));
                    (chains, Protocol::Unsupported, p.is_http())
                }
                None => {
                    chains.push(http_chain(true));
                    (chains, port.protocol, true)
                }
            }
        } else {
            let chains = self.tcp(scoped, service, port, &place);
            match existing {
                Some(p) if p.is_http() => (chains, Protocol::Unsupported, false),
                Some(p) => (chains, p, false),
                None => (chains, port.protocol, true),
            }
        };
        if replace || existing.is_none() {
            let plan = ListenerPlan {
                bind: place.bind,
                port: port.number,
                bind_to_port: place.bind_to_port,
                chains: Vec::new(),
            };
            self.entries.insert(key.clone(), Entry { plan, protocol, locked: false });
        }
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.protocol = protocol;
            for chain in chains {
                if !entry.plan.chains.iter().any(|c| c.conditions() == chain.conditions()) {
                    entry.plan.chains.push(chain);
                }
            }
        }
    }

    /// Where the virtual IPs of a service are listened for. Those of a Kubernetes Service are one address in each IP
    /// family; each address of a ServiceEntry stands alone, as another entry may have some of them too. CIDRs become
    /// conditions on the wildcard.
    fn own_addresses(&self, service: &Service, place: &Place) -> Vec<Place> {
        let usable = |a: &&Name| {
            crate::net::Cidr::parse(a)
                .is_some_and(|c| if c.address.is_ipv4() { self.client.ipv4 } else { self.client.ipv6 })
        };
        let mut usable = service.addresses.iter().filter(usable).cloned().peekable();
        let at = |bind: Vec<Name>, cidrs: Vec<Name>| Place { bind, cidrs, ..place.clone() };
        if usable.peek().is_none() {
            return vec![at(self.wildcards.clone(), Vec::new())];
        }
        if service.registry == Registry::Kubernetes {
            let families = if self.settings.features.flag("ISTIO_DUAL_STACK", false) { usize::MAX } else { 1 };
            return vec![at(usable.take(families).collect(), Vec::new())];
        }
        usable
            .map(|a| if a.contains('/') { at(self.wildcards.clone(), vec![a]) } else { at(vec![a], Vec::new()) })
            .collect()
    }

    fn is_reserved(&self, port: u16) -> bool {
        port == self.settings.outbound_port() || port == self.settings.inbound_port()
    }

    /// The port, the path of a Unix socket, or `host:port` where a sniffed listener belongs to one service alone.
    fn rds_name(&self, service: &Service, port: &Port, primary: &Name, on_wildcard: bool) -> Name {
        if port.number == 0 {
            primary.clone()
        } else if port.protocol.is_sniffed() && !on_wildcard {
            format!("{}:{}", service.hostname, port.number).into()
        } else {
            port.number.to_string().into()
        }
    }

    fn tcp(&self, scoped: &ScopedListener, service: &Shared<Service>, port: &Port, place: &Place) -> Vec<Chain> {
        let gateways = [Name::from(MESH)];
        let ctx = RouteContext {
            namespace: &self.client.namespace,
            labels: &self.client.labels,
            gateways: &gateways,
            port: port.number,
            tls: false,
            default_retries: None,
            append_x_forwarded_host: false,
            lookup: &self.destinations,
        };
        let speaking: Vec<&VirtualService> = scoped
            .virtual_services
            .iter()
            .filter(|vs| !(vs.tcp.is_empty() && vs.tls.is_empty()))
            .filter(|vs| vs.hosts.iter().any(|h| h.matches(&service.hostname)))
            .map(|vs| &**vs)
            .collect();
        let asked = if port.protocol.is_tls() { tls_chains(speaking, &ctx) } else { tcp_chains(speaking, &ctx) };
        let mut out: Vec<Chain> = asked.iter().map(|c| self.asked(c, place, &ctx)).collect();
        let last_takes_all = asked.last().is_some_and(|c| c.sni_hosts.is_empty() && c.destination_subnets.is_empty());
        let complete = if port.protocol.is_tls() { !asked.is_empty() } else { last_takes_all };
        if !complete {
            out.push(self.default(service, port, place));
        }
        out
    }

    fn asked(&self, chain: &L4Chain<'_>, place: &Place, ctx: &RouteContext<'_>) -> Chain {
        let mut proxy = tcp_proxy(chain, ctx, |host, subset| self.destinations.tcp_policy(host, subset));
        proxy.access_log = access_log::tcp(&self.settings.mesh);
        let cidrs = if chain.destination_subnets.is_empty() {
            place.cidrs.clone()
        } else {
            chain.destination_subnets.iter().map(|c| (*c).clone()).collect()
        };
        Chain {
            sni: chain.sni_hosts.iter().map(|h| h.name().clone()).collect(),
            cidrs,
            plaintext_http: false,
            then: Then::Tcp(canonical_bytes(&proxy)),
            origin: Some(Origin {
                kind: "virtual-service",
                namespace: chain.vs.namespace.clone(),
                name: chain.vs.name.clone(),
                path: chain.path.clone(),
            }),
        }
    }

    fn default(&self, service: &Service, port: &Port, place: &Place) -> Chain {
        let number = match service.ports.as_slice() {
            [only] => only.number,
            _ => port.number,
        };
        let cluster = format!("outbound|{number}||{}", service.hostname);
        // Without an address of its own, TLS is told apart by the name that the client asks for.
        let own_ip = service.addresses.iter().any(|a| !a.contains('/'));
        let by_name = port.protocol.is_tls()
            && !place.headless_pod
            && (!place.cidrs.is_empty() || !own_ip && place.bind == self.wildcards);
        Chain {
            sni: if by_name { vec![service.hostname.name().clone()] } else { Vec::new() },
            cidrs: place.cidrs.clone(),
            plaintext_http: false,
            then: Then::Cluster { cluster, policy: self.destinations.tcp_policy_of(service, "") },
            origin: None,
        }
    }

    /// `proxyHttpPort` of the mesh: a forward proxy on the loopback address.
    fn http_proxy(&mut self) {
        let port = self.settings.http_proxy_port();
        if port == 0 {
            return;
        }
        let bind: Name = if self.client.ipv4 { "127.0.0.1".into() } else { "::1".into() };
        let chain = Chain {
            sni: Vec::new(),
            cidrs: Vec::new(),
            plaintext_http: false,
            then: Then::Http { rds: super::routes::HTTP_PROXY.into(), protocol: Protocol::HttpProxy, http10: false },
            origin: None,
        };
        let plan = ListenerPlan { bind: vec![bind.clone()], port, bind_to_port: true, chains: vec![chain] };
        self.entries.insert((bind, port), Entry { plan, protocol: Protocol::HttpProxy, locked: true });
    }
}

fn is_headless(service: &Service, port: &Port) -> bool {
    service.resolution == Resolution::Passthrough
        && service.addresses.is_empty()
        && (port.protocol.is_tcp() || port.protocol.is_sniffed())
}
