//! What a route builder may ask about the services that routes lead to, answered through the view: each answer is a query
//! of its own, so a route is built again only when a service or rule that it names has changed.

use envoy_types::pb::envoy::config::route::v3::route_action::HashPolicy;
use mesh_api::{Hostname, Name};

use super::cluster::hash_policy;
use super::destination::Rules;
use super::route::{Lookup, Target};
use crate::class::Client;
use crate::memo::Query;
use crate::model::virtual_service::Destination;
use crate::scope::{ScopeOf, ServicesOf};
use crate::view::View;

/// The services and rules that a client sees.
pub(crate) struct ScopeLookup<'a, 'v> {
    pub(crate) view: &'a View<'v>,
    pub(crate) client: &'a Client,
    /// The port that was called.
    pub(crate) port: u16,
}

impl Lookup for ScopeLookup<'_, '_> {
    fn service(&self, host: &Hostname) -> Option<Target> {
        (*self.view.get(&TargetInScope { scope: ScopeOf::client(self.client), host: host.clone() })).clone()
    }

    fn hash_policy(&self, destination: &Destination) -> Option<HashPolicy> {
        let target = self.service(&destination.host);
        let only = target.as_ref().and_then(|t| t.only_port);
        let port = destination.port.or(only).unwrap_or(self.port);
        let query = HashOf {
            client: self.client.clone(),
            host: target.map_or_else(|| destination.host.clone(), |t| t.host),
            port,
            subset: destination.subset.clone(),
        };
        (*self.view.get(&query)).clone()
    }
}

/// What a client's requests to a service are hashed by, where its rule asks for a consistent hash.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct HashOf {
    pub(crate) client: Client,
    pub(crate) host: Hostname,
    pub(crate) port: u16,
    /// Empty for all endpoints.
    pub(crate) subset: Name,
}

impl Query for HashOf {
    type Out = Option<HashPolicy>;
    fn run(&self, view: &View<'_>) -> Option<HashPolicy> {
        let scope = view.get(&ServicesOf(ScopeOf::client(&self.client)));
        let service = scope.service(&self.host)?;
        let rule = Rules::new(view, &self.client).outbound(service)?;
        let policy = match rule.subset(&self.subset) {
            Some(subset) => rule.policy_for_subset(subset, self.port),
            None => rule.policy_for_port(self.port),
        };
        hash_policy(policy?.consistent_hash()?).into_iter().next()
    }
}

/// The service that a scope means by a host, as the target of a route.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct TargetInScope {
    scope: ScopeOf,
    host: Hostname,
}

impl Query for TargetInScope {
    type Out = Option<Target>;
    fn run(&self, view: &View<'_>) -> Option<Target> {
        let scope = view.get(&ServicesOf(self.scope.clone()));
        let mut service = scope.service(&self.host)?;
        // An alias of an alias: follow, but not round in circles.
        for _ in 0..8 {
            match service.alias().and_then(|to| scope.service(to)) {
                Some(target) => service = target,
                None => break,
            }
        }
        let only_port = match service.ports.as_slice() {
            [only] => Some(only.number),
            _ => None,
        };
        Some(Target { host: service.hostname.clone(), only_port })
    }
}
