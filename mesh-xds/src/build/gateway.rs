//! Everything for proxies at the edge of the mesh.
//!
//! The Gateways that select a proxy are merged into what it listens to ([`merge`]); listeners and route configurations are
//! built from that, and the credentials that it names are served as secrets. Conflicts cost the later of two servers and
//! are told, never more.

mod chains;
pub mod merge;
mod routes;
mod secrets;
mod tls;

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::TrafficDirection;
use envoy_types::pb::envoy::config::listener::v3::{
    AdditionalAddress, FilterChain, FilterChainMatch, Listener, ListenerFilter,
};
use envoy_types::pb::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
use mesh_api::Name;
use mesh_api::networking::ServerTlsMode;

use crate::Resource;
use crate::build::{duration, listener_filter, socket_address, tls_inspector, u32_value};
use crate::class::{Class, Client, Target};
use crate::memo::Query;
use crate::scope::ingress::IngressGateways;
use crate::scope::settings;
use crate::view::View;

use chains::Chain;
use merge::{Merged, Selected};
pub use routes::GatewayRoutes;
pub use secrets::GatewaySecrets;

/// Ends handshakes that take longer, in seconds: slow ones are an attack on memory.
const HANDSHAKE_TIMEOUT: i64 = 15;

/// A proxy at the edge, as far as Gateways care.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Router {
    /// What it may call.
    pub client: Client,
    /// The ports of Services in front of it, oldest Service first.
    pub targets: Vec<Target>,
}

impl Router {
    /// The gateway half of a class.
    pub fn of(class: &Class) -> Self {
        Self { client: class.client.clone(), targets: class.server.targets.clone() }
    }
}

/// What a router listens to, all its Gateways merged.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct MergedGateway(pub(crate) Router);

impl Query for MergedGateway {
    type Out = Merged;

    fn run(&self, view: &View<'_>) -> Merged {
        let client = &self.0.client;
        let settings = settings(view);
        let selected: Vec<Selected> = if settings.features.flag("PILOT_SCOPE_GATEWAY_TO_NAMESPACE", false) {
            let own = view.bucket(|s| &s.gateways, &client.namespace).map(|(_, gateway)| gateway);
            let of_ingresses = view.get(&IngressGateways);
            let of_ingresses = of_ingresses.iter().filter(|gateway| gateway.namespace == client.namespace);
            own.chain(of_ingresses).filter_map(|gateway| merge::select(view, gateway, &self.0)).collect()
        } else {
            let all = view.all(|s| &s.gateways).map(|(_, gateway)| gateway);
            let of_ingresses = view.get(&IngressGateways);
            all.chain(of_ingresses.iter()).filter_map(|gateway| merge::select(view, gateway, &self.0)).collect()
        };
        merge::merge(selected)
    }
}

/// True when a router passes mesh mTLS on by server name, to clusters of their own.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct AutoPassthrough(pub(crate) Router);

impl Query for AutoPassthrough {
    type Out = bool;
    fn run(&self, view: &View<'_>) -> bool {
        let merged = view.get(&MergedGateway(self.0.clone()));
        let mut servers = merged.ports.iter().flat_map(|port| &port.servers);
        servers.any(|b| b.server.tls.as_ref().is_some_and(|tls| tls.mode == ServerTlsMode::AutoPassthrough))
    }
}

/// The listeners of a router.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct GatewayListeners(pub Router);

impl Query for GatewayListeners {
    type Out = Vec<Arc<Resource>>;
    fn run(&self, view: &View<'_>) -> Self::Out {
        view.get(&BuiltListeners(self.0.clone())).iter().map(|built| built.listener.clone()).collect()
    }
}

/// A listener and the route configurations that it names.
#[derive(Clone, PartialEq, Debug)]
struct Built {
    listener: Arc<Resource>,
    routes: Vec<Name>,
}

/// The listeners of a router with the route configurations that they name.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct BuiltListeners(Router);

impl Query for BuiltListeners {
    type Out = Vec<Built>;

    fn run(&self, view: &View<'_>) -> Self::Out {
        let merged = view.get(&MergedGateway(self.0.clone()));
        let mut places: Vec<(Vec<Name>, u16)> = Vec::new();
        let wildcards = crate::build::outbound::wildcards(&self.0.client, &settings(view));
        for listening in &merged.ports {
            // An unprivileged pod can't bind these; the Service in front maps them to others, or nothing can listen.
            if listening.number < 1024 && self.0.client.metadata("UNPRIVILEGED_POD") == "true" {
                continue;
            }
            let binds = if listening.bind.is_empty() { wildcards.clone() } else { vec![listening.bind.clone()] };
            match places.iter_mut().find(|(known, port)| *port == listening.number && known.first() == binds.first()) {
                Some((known, _)) if known.len() < binds.len() => *known = binds,
                Some(_) => {}
                None => places.push((binds, listening.number)),
            }
        }
        let build = |(binds, port)| (*view.get(&GatewayListener { router: self.0.clone(), binds, port })).clone();
        places.into_iter().filter_map(build).collect()
    }
}

/// One listener of a router; `None` when no chain of it leads anywhere.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct GatewayListener {
    router: Router,
    /// The first names the listener.
    binds: Vec<Name>,
    port: u16,
}

impl Query for GatewayListener {
    type Out = Option<Built>;

    fn run(&self, view: &View<'_>) -> Option<Built> {
        let merged = view.get(&MergedGateway(self.router.clone()));
        let primary = self.binds.first()?;
        let name = format!("{primary}_{}", self.port);
        let wildcard = crate::build::outbound::wildcards(&self.router.client, &settings(view));
        let is_here = |bind: &Name| bind == primary || (bind.is_empty() && wildcard.first() == Some(primary));
        let mut chains: Vec<Chain> = Vec::new();
        for listening in merged.ports.iter().filter(|p| p.number == self.port && is_here(&p.bind)) {
            for chain in chains::of(view, &self.router, listening, &name) {
                // Two chains with equal conditions would cost the whole listener.
                if !chains.iter().any(|known| known.conditions() == chain.conditions()) {
                    chains.push(chain);
                }
            }
        }
        if chains.is_empty() {
            return None;
        }
        let routes = chains.iter().filter_map(|c| c.rds.clone()).collect();
        let address = |ip: &Name| Some(socket_address(ip, self.port));
        let additional = self.binds.iter().skip(1);
        let listener = Listener {
            address: address(primary),
            additional_addresses: additional
                .map(|ip| AdditionalAddress { address: address(ip), ..Default::default() })
                .collect(),
            traffic_direction: TrafficDirection::Outbound as i32,
            listener_filters: self.listener_filters(view, &chains),
            filter_chains: chains.into_iter().map(filter_chain).collect(),
            max_connections_to_accept_per_socket_event: u32_value(1),
            name: name.clone(),
            ..Default::default()
        };
        Some(Built { listener: Arc::new(Resource::encode(name, &listener)), routes })
    }
}

impl GatewayListener {
    fn listener_filters(&self, view: &View<'_>, chains: &[Chain]) -> Vec<ListenerFilter> {
        let settings = settings(view);
        let topology = settings.mesh.default_config.gateway_topology.as_ref();
        let mut out = Vec::new();
        if topology.is_some_and(|t| t.proxy_protocol.is_some()) {
            out.push(listener_filter("envoy.filters.listener.proxy_protocol", &ProxyProtocol::default()));
        }
        if chains.iter().any(|c| !c.sni.is_empty() || !c.alpn.is_empty() || c.tls.is_some()) {
            out.push(tls_inspector());
        }
        out
    }
}

fn filter_chain(chain: Chain) -> FilterChain {
    let (server_names, application_protocols) = chain.conditions();
    let is_any = server_names.is_empty() && application_protocols.is_empty();
    FilterChain {
        filter_chain_match: (!is_any).then(|| FilterChainMatch {
            server_names,
            application_protocols,
            ..FilterChainMatch::default()
        }),
        filters: chain.filters,
        transport_socket: chain.tls,
        transport_socket_connect_timeout: duration(HANDSHAKE_TIMEOUT),
        metadata: Some(chain.origin),
        ..FilterChain::default()
    }
}

#[cfg(test)]
mod tests;
