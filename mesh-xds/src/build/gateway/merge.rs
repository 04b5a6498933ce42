//! Which Gateways a proxy has, on which of its ports, and how their servers become one set of listeners (rule 11 of
//! Istio's semantics): plaintext HTTP on one port and address merges into one route configuration, TLS needs server names
//! of its own, anything else that meets on a port is a conflict that the later server loses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_api::{Diagnostic, FieldPath, Hostname, Name, ObjectRef};

use super::Router;
use crate::model::gateway::{Gateway, Server};
use crate::model::{Protocol, selects};
use crate::shared::Shared;
use crate::view::View;

/// A Service with this label keeps its ports: Gateways name those of the proxy.
const NO_TRANSLATION: &str = "experimental.istio.io/disable-gateway-port-translation";

/// A Gateway on a proxy.
#[derive(Clone, Debug)]
pub struct Selected {
    /// The Gateway.
    pub gateway: Shared<Gateway>,
    /// It names its Services, so their ports are the only ones.
    pub by_service: bool,
    /// Ports of the Services in front and where the proxy listens for them.
    pub ports: Vec<(u16, u16)>,
}

impl Selected {
    /// Where the proxy listens for a port of a Gateway. By selector the oldest Service that has the port decides, and a
    /// port that none has is meant as it is.
    fn listens_on(&self, port: u16) -> Vec<u16> {
        let mut targets = self.ports.iter().filter(|(of_service, _)| *of_service == port).map(|(_, target)| *target);
        if self.by_service {
            targets.collect::<BTreeSet<u16>>().into_iter().collect()
        } else {
            vec![targets.next().unwrap_or(port)]
        }
    }
}

/// A Gateway, when it is one of the router's.
pub(super) fn select(view: &View<'_>, gateway: &Arc<Gateway>, router: &Router) -> Option<Selected> {
    let mut ports = Vec::with_capacity(router.targets.len());
    for target in &router.targets {
        let key = &target.service.key;
        let counts = match &gateway.services {
            Some(named) => named.contains(&key.host) && key.namespace == gateway.namespace,
            None => view
                .row(|s| &s.services, &target.service)
                .is_some_and(|service| !service.labels.contains_key(NO_TRANSLATION)),
        };
        if counts {
            ports.push((target.port, target.target));
        }
    }
    let by_service = gateway.services.is_some();
    let is_its_own = if by_service { !ports.is_empty() } else { selects(&gateway.selector, &router.client.labels) };
    is_its_own.then(|| Selected { gateway: Shared::from(gateway), by_service, ports })
}

/// What a router listens to.
#[derive(PartialEq, Debug, Default)]
pub struct Merged {
    /// Ports in the order of the Gateways. Several may be of one address and port, with TLS of different kinds.
    pub ports: Vec<Listening>,
    /// The servers behind each route configuration.
    pub routes: BTreeMap<Name, Vec<Bound>>,
    /// What had to be left out.
    pub told: Vec<Diagnostic>,
}

/// Servers that share a port, an address and a protocol.
#[derive(Clone, PartialEq, Debug)]
pub struct Listening {
    /// The port of the proxy.
    pub number: u16,
    /// The protocol of the first server.
    pub protocol: Protocol,
    /// The address, empty for any.
    pub bind: Name,
    /// The route configuration of plaintext HTTP; empty for others.
    pub route_name: Name,
    /// The servers.
    pub servers: Vec<Bound>,
}

/// A server of a Gateway where it came to listen.
#[derive(Clone, PartialEq, Debug)]
pub struct Bound {
    /// The Gateway.
    pub gateway: Shared<Gateway>,
    /// The server.
    pub server: Server,
    /// Its route configuration; empty where routes are not HTTP.
    pub route_name: Name,
}

/// `http.8080`, or for TLS that ends here `https.443.name.gateway.namespace`; the address is added where one is bound.
fn route_name(gateway: &Gateway, server: &Server, port: u16) -> Name {
    let bind = if server.bind.is_empty() { String::new() } else { format!(".{}", server.bind) };
    if server.is_plain_http() {
        format!("http.{port}{bind}").into()
    } else if server.is_https() {
        let (name, namespace) = (&gateway.name, &gateway.namespace);
        format!("https.{}.{}.{name}.{namespace}{bind}", server.port, server.port_name).into()
    } else {
        Name::default()
    }
}

/// Merges Gateways, oldest first.
pub fn merge(mut selected: Vec<Selected>) -> Merged {
    selected.sort_by(|a, b| a.gateway.order().cmp(&b.gateway.order()));
    let mut merging = Merging::default();
    for one in &selected {
        for server in &one.gateway.servers {
            let ports = one.listens_on(server.port);
            if ports.is_empty() {
                merging.tell(&one.gateway, server, "NoPort", "no Service in front of the gateway has this port");
            }
            for port in ports {
                merging.add(&one.gateway, server, port);
            }
        }
    }
    merging.out
}

#[derive(Default)]
struct Merging {
    out: Merged,
    used: BTreeSet<u16>,
    /// The first plaintext listening of a port.
    plain: BTreeMap<u16, usize>,
    /// The addresses at which a host is taken on a port.
    taken: BTreeMap<(u16, Option<Name>, Hostname), Name>,
}

impl Merging {
    fn tell(&mut self, gateway: &Gateway, server: &Server, code: &'static str, message: impl Into<String>) {
        let object = ObjectRef::new("Gateway", gateway.namespace.clone(), gateway.name.clone());
        let path = FieldPath::new(format!("spec.servers[{}]", server.index));
        self.out.told.push(Diagnostic::error(code, message).on(&object).at(path));
    }

    fn add(&mut self, gateway: &Shared<Gateway>, server: &Server, port: u16) {
        let bound =
            Bound { gateway: gateway.clone(), server: server.clone(), route_name: route_name(gateway, server, port) };
        if server.tls.is_some() && !self.take_hosts(&bound, port) {
            return;
        }
        if self.used.insert(port) {
            self.open(bound, port);
            return;
        }
        let plain = self.plain.get(&port).and_then(|at| self.out.ports.get(*at));
        match plain.map(|first| (first.bind == server.bind, first.protocol)) {
            // Another address is another listener.
            Some((false, _)) => self.join_or_open(bound, port),
            Some((true, first)) => {
                let mergeable = (first.is_http() || first == server.protocol) && server.protocol.is_http();
                if !mergeable || bound.route_name.is_empty() {
                    let message =
                        format!("{} on port {port} conflicts with {first}, which is there already", server.protocol);
                    self.tell(gateway, server, "PortConflict", message);
                    return;
                }
                self.route(&bound);
                if let Some(at) = self.plain.get(&port)
                    && let Some(listening) = self.out.ports.get_mut(*at)
                {
                    listening.servers.push(bound);
                }
            }
            None if !server.is_tls() => self.open(bound, port),
            None if server.is_https() && self.out.routes.contains_key(&bound.route_name) => {
                let message = format!("another HTTPS server of this gateway has the port name {:?}", server.port_name);
                self.tell(gateway, server, "DuplicatePortName", message);
            }
            None => {
                if server.is_https() {
                    self.route(&bound);
                }
                self.join_or_open(bound, port);
            }
        }
    }

    /// Server names are how one TLS server is told from another; one that is taken at the same address is a conflict.
    fn take_hosts(&mut self, bound: &Bound, port: u16) -> bool {
        let key = |host: &crate::model::gateway::ServerHost| (port, host.namespace.clone(), host.host.clone());
        let server = &bound.server;
        let is_taken = |h: &&_| self.taken.get(&key(h)).is_some_and(|bind| *bind == server.bind);
        if let Some(taken) = server.hosts.iter().find(is_taken) {
            let message = format!("another server has {} on port {port} already", taken.host);
            self.tell(&bound.gateway, server, "DuplicateHost", message);
            return false;
        }
        for host in &server.hosts {
            self.taken.insert(key(host), server.bind.clone());
        }
        true
    }

    fn route(&mut self, bound: &Bound) {
        self.out.routes.entry(bound.route_name.clone()).or_default().push(bound.clone());
    }

    fn join_or_open(&mut self, bound: Bound, port: u16) {
        let server = &bound.server;
        let same = |l: &&mut Listening| l.number == port && l.protocol == server.protocol && l.bind == server.bind;
        if self.out.ports.iter_mut().find(same).is_none() {
            self.open(bound, port);
            return;
        }
        if bound.server.is_plain_http() {
            self.route(&bound);
        }
        if let Some(listening) = self
            .out
            .ports
            .iter_mut()
            .find(|l| l.number == port && l.protocol == bound.server.protocol && l.bind == bound.server.bind)
        {
            listening.servers.push(bound);
        }
    }

    fn open(&mut self, bound: Bound, port: u16) {
        let server = &bound.server;
        if !server.is_tls() {
            self.plain.entry(port).or_insert(self.out.ports.len());
        }
        let is_http = server.is_plain_http() || server.is_https();
        if is_http && !self.out.routes.contains_key(&bound.route_name) {
            self.route(&bound);
        }
        self.out.ports.push(Listening {
            number: port,
            protocol: bound.server.protocol,
            bind: bound.server.bind.clone(),
            route_name: if bound.server.is_plain_http() { bound.route_name.clone() } else { Name::default() },
            servers: vec![bound],
        });
    }
}
