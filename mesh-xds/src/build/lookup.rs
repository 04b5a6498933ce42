//! What a route builder may ask about the services that routes lead to.
//!
//! A client's answers come from its scope and its rules. Most clients get the same ones, so [`Answers`] holds those for one
//! virtual service as a value: routes with it as their key are built once for all clients that it is the same for.

use std::sync::Arc;

use mesh_api::Hostname;
use mesh_api::types::Duration;

use super::destination::Rules;
use super::route::l4::TcpPolicy;
use super::route::{Lookup, Target};
use crate::class::Client;
use crate::model::Service;
use crate::model::destination_rule::{DestinationRule, HashKey};
use crate::model::virtual_service::{Destination, VirtualService};
use crate::scope::{ScopeOf, ScopedServices, ServicesOf};
use crate::view::View;

/// The services and rules that a client sees.
pub(crate) struct Destinations<'a, 'v> {
    pub(crate) client: &'a Client,
    services: Arc<ScopedServices>,
    rules: Rules<'a, 'v>,
}

impl<'a, 'v> Destinations<'a, 'v> {
    pub(crate) fn new(view: &'a View<'v>, client: &'a Client) -> Self {
        Self { client, services: view.get(&ServicesOf(ScopeOf::client(client))), rules: Rules::new(view, client) }
    }

    /// What requests to a port of a service are hashed by.
    pub(crate) fn hash_key_of(&self, service: &Service, port: u16, subset: &str) -> Option<HashKey> {
        let rule = self.rules.outbound(service)?;
        let policy = match rule.subset(subset) {
            Some(subset) => rule.policy_for_subset(subset, port),
            None => rule.policy_for_port(port),
        };
        Some(policy?.consistent_hash()?.key.clone())
    }

    /// What TCP to a host does, by the rule for it.
    pub(crate) fn tcp_policy(&self, host: &Hostname, subset: &str) -> TcpPolicy {
        self.resolve(host).map(|service| self.tcp_policy_of(service, subset)).unwrap_or_default()
    }

    /// What TCP to a service does, by the rule for it.
    pub(crate) fn tcp_policy_of(&self, service: &Service, subset: &str) -> TcpPolicy {
        tcp_policy(self.client, self.rules.outbound(service).as_deref(), subset)
    }

    /// The service that the client means by a host: no alias, unless it leads nowhere.
    fn resolve(&self, host: &Hostname) -> Option<&Service> {
        let mut service = self.services.service(host)?;
        // An alias of an alias: follow, but not round in circles.
        for _ in 0..8 {
            match service.alias().and_then(|to| self.services.service(to)) {
                Some(target) => service = target,
                None => break,
            }
        }
        Some(service)
    }
}

impl Lookup for Destinations<'_, '_> {
    fn service(&self, host: &Hostname) -> Option<Target> {
        let service = self.resolve(host)?;
        Some(Target { host: service.hostname.clone(), only_port: only_port(service) })
    }

    fn hash_key(&self, destination: &Destination, called: u16) -> Option<HashKey> {
        let service = self.resolve(&destination.host)?;
        let port = destination.port.or(only_port(service)).unwrap_or(called);
        self.hash_key_of(service, port, &destination.subset)
    }
}

/// What TCP does by a rule; where that says nothing of idle connections, as the client itself wishes.
pub(crate) fn tcp_policy(client: &Client, rule: Option<&DestinationRule>, subset: &str) -> TcpPolicy {
    let mut policy = rule.map(|rule| TcpPolicy::of(rule, subset)).unwrap_or_default();
    if policy.idle.is_none() {
        policy.idle = client.metadata("IDLE_TIMEOUT").parse::<Duration>().ok();
    }
    policy
}

fn only_port(service: &Service) -> Option<u16> {
    match service.ports.as_slice() {
        [only] => Some(only.number),
        _ => None,
    }
}

/// What a client knows of the destinations of one virtual service.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub(crate) struct Answers {
    targets: Vec<(Hostname, Target)>,
    hashed: Vec<(Destination, HashKey)>,
}

impl Answers {
    /// Asks all that the HTTP routes of a virtual service will ask when called on a port.
    pub(crate) fn new(vs: &VirtualService, called: u16, lookup: &impl Lookup) -> Self {
        let mut out = Self::default();
        for destination in vs.http.iter().flat_map(|rule| rule.destinations()) {
            let host = &destination.host;
            if !out.targets.iter().any(|(known, _)| known == host) {
                out.targets.extend(lookup.service(host).map(|target| (host.clone(), target)));
            }
            if !out.hashed.iter().any(|(known, _)| known == destination) {
                out.hashed.extend(lookup.hash_key(destination, called).map(|key| (destination.clone(), key)));
            }
        }
        out
    }
}

impl Lookup for Answers {
    fn service(&self, host: &Hostname) -> Option<Target> {
        self.targets.iter().find(|(known, _)| known == host).map(|(_, target)| target.clone())
    }

    fn hash_key(&self, destination: &Destination, _: u16) -> Option<HashKey> {
        self.hashed.iter().find(|(known, _)| known == destination).map(|(_, key)| key.clone())
    }
}
