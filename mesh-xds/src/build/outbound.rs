//! What a sidecar's own application talks to: outbound listeners and the routes that they name.
//!
//! Two steps, so that proxies share what is alike however different their scopes are: first a *plan*, a small value that
//! says everything about a listener or virtual host, then a query with the plan as its key that encodes it. Two namespaces
//! that plan the same listener get the same bytes, and a plan that did not change is not built again.

pub mod clusters;
pub mod domains;
pub mod listener;
pub mod plan;
pub mod routes;
pub mod virtual_outbound;

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_api::Name;

use crate::Resource;
use crate::class::{Client, Interception};
use crate::memo::Query;
use crate::model::Settings;
use crate::scope::{ScopeOf, settings};
use crate::view::View;

/// The outbound listeners of a group of sidecars, `virtualOutbound` among them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct OutboundListeners(pub Client);

/// Listeners, and what they ask for.
#[derive(PartialEq, Debug)]
pub struct Listeners {
    /// The listeners.
    pub resources: Vec<Arc<Resource>>,
    /// The route configurations that they name.
    pub routes: BTreeSet<Name>,
}

impl Query for OutboundListeners {
    type Out = Listeners;
    fn run(&self, view: &View<'_>) -> Listeners {
        let policy = OutboundPolicy::of(view, &self.0);
        let plans = listener::plans(view, &self.0);
        let routes = plans.iter().flat_map(|plan| &plan.chains).filter_map(plan::Chain::rds).cloned().collect();
        let mut resources: Vec<_> = plans
            .into_iter()
            .map(|plan| (*view.get(&plan::BuiltListener { plan, policy: policy.clone() })).clone())
            .collect();
        if self.0.interception != Interception::None {
            let query = virtual_outbound::VirtualOutbound {
                policy,
                transparent: self.0.interception == Interception::Tproxy,
                wildcards: wildcards(&self.0, &settings(view)),
            };
            resources.push((*view.get(&query)).clone());
        }
        Listeners { resources, routes }
    }
}

/// The route configurations that a group of sidecars asks for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct OutboundRoutes(pub Client);

impl Query for OutboundRoutes {
    type Out = Vec<Arc<Resource>>;
    fn run(&self, view: &View<'_>) -> Self::Out {
        let listeners = view.get(&OutboundListeners(self.0.clone()));
        listeners
            .routes
            .iter()
            .map(|name| (*view.get(&routes::RouteConfig { client: self.0.clone(), name: name.clone() })).clone())
            .collect()
    }
}

/// What becomes of traffic that no service and no rule knows.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum OutboundPolicy {
    /// To where it was going.
    AllowAny,
    /// To a host of the user's choice: its cluster.
    EgressProxy(String),
    /// Nowhere.
    RegistryOnly,
}

impl OutboundPolicy {
    /// The policy of a client: its Sidecar's, else the mesh's.
    pub(crate) fn of(view: &View<'_>, client: &Client) -> Self {
        use mesh_api::networking::OutboundTrafficPolicyMode as Mode;
        let settings = settings(view);
        let sidecar = client.sidecar.as_ref().and_then(|key| view.row(|s| &s.sidecars, key));
        if let Some(policy) = sidecar.and_then(|s| s.spec.outbound_traffic_policy.as_ref()) {
            if let Some(proxy) = &policy.egress_proxy {
                let host = settings.resolve_short_name(&proxy.host, &client.namespace);
                let port = proxy.port.as_ref().map_or(0, |p| p.number);
                return Self::EgressProxy(format!("outbound|{port}|{}|{host}", proxy.subset));
            }
            return if policy.mode == Mode::RegistryOnly { Self::RegistryOnly } else { Self::AllowAny };
        }
        match settings.mesh.outbound_traffic_policy.mode {
            mesh_api::mesh::OutboundTrafficPolicyMode::RegistryOnly => Self::RegistryOnly,
            _ => Self::AllowAny,
        }
    }

    /// The cluster that unknown traffic goes to.
    pub(crate) fn cluster(&self) -> &str {
        match self {
            Self::AllowAny => super::PASSTHROUGH_CLUSTER,
            Self::EgressProxy(cluster) => cluster,
            Self::RegistryOnly => super::BLACKHOLE_CLUSTER,
        }
    }
}

/// The scope of a client.
pub(crate) fn scope(client: &Client) -> ScopeOf {
    ScopeOf::client(client)
}

/// The addresses that mean "any": the first is the primary one.
pub(crate) fn wildcards(client: &Client, settings: &Settings) -> Vec<Name> {
    match (client.ipv4, client.ipv6) {
        (true, true) if settings.features.flag("ISTIO_DUAL_STACK", false) => vec!["0.0.0.0".into(), "::".into()],
        (false, true) => vec!["::".into()],
        _ => vec!["0.0.0.0".into()],
    }
}
