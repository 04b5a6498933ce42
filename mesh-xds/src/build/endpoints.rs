//! EDS: the endpoints of each cluster that asks for them, grouped by locality.

mod encode;

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::Name;

use super::cluster::{
    Caller, Discovery, Group, Mode, discovery, effective_locality, needs_failover, outbound_name, prioritize,
    sni_dnat_name,
};
use super::defaults::MeshDefaults;
use super::destination::Rules;
use crate::Resource;
use crate::class::Client;
use crate::endpoints::EndpointsOf;
use crate::memo::Query;
use crate::model::destination_rule::{DestinationRule, LocalityLb, TrafficPolicy};
use crate::model::{Endpoint, Health, Labels, Locality, Protocol, Service, selects};
use crate::proxy::ProxyType;
use crate::scope::{ScopeOf, ServicesOf};
use crate::shared::ByPtr;
use crate::view::View;

/// The endpoints of all EDS clusters of a group of proxies.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ClientEndpoints(pub Client);

impl Query for ClientEndpoints {
    type Out = Vec<Arc<Resource>>;
    fn run(&self, view: &View<'_>) -> Self::Out {
        of_scope(view, &self.0, Mode::Client)
    }
}

/// The endpoints of the clusters that a gateway passes mesh mTLS on to by server name.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SniDnatEndpoints(pub Client);

impl Query for SniDnatEndpoints {
    type Out = Vec<Arc<Resource>>;
    fn run(&self, view: &View<'_>) -> Self::Out {
        of_scope(view, &self.0, Mode::SniDnat)
    }
}

fn of_scope(view: &View<'_>, client: &Client, mode: Mode) -> Vec<Arc<Resource>> {
    let mut out = Vec::new();
    for query in view.get(&Asked { client: client.clone(), mode }).iter() {
        out.extend(view.get(query).iter().cloned());
    }
    out
}

/// What a group of proxies asks for: apart from the answers, because those change far more often.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Asked {
    client: Client,
    mode: Mode,
}

impl Query for Asked {
    type Out = Vec<ServiceEndpoints>;
    fn run(&self, view: &View<'_>) -> Self::Out {
        let Self { client, mode } = self;
        let services = view.get(&ServicesOf(ScopeOf::client(client)));
        let rules = Rules::new(view, client);
        services
            .iter()
            .filter(|s| discovery(s, client.kind) == Some(Discovery::Eds))
            .filter(|s| !(*mode == Mode::SniDnat && s.mesh_external))
            .map(|s| ServiceEndpoints::new(view, s, rules.outbound(s).map(ByPtr), client, *mode))
            .collect()
    }
}

/// Where a client stands, as far as it matters to the endpoints of a service.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
struct Place {
    locality: Locality,
    labels: Labels,
    network: Name,
    node: Name,
}

/// The endpoints of the clusters of one service, for all clients that follow the same rule from the same place.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct ServiceEndpoints {
    service: ByPtr<Service>,
    rule: Option<ByPtr<DestinationRule>>,
    kind: ProxyType,
    /// The client's place, where endpoints are chosen by it.
    place: Option<Box<Place>>,
    /// The client's node, for services that stay on it.
    node: Option<Name>,
    /// For whom.
    mode: Mode,
}

impl ServiceEndpoints {
    fn new(
        view: &View<'_>,
        service: &crate::Shared<Service>,
        rule: Option<ByPtr<DestinationRule>>,
        client: &Client,
        mode: Mode,
    ) -> Self {
        let mesh = view.get(&MeshDefaults);
        let policies = || {
            let whole = rule.iter().filter_map(|r| r.policy.as_deref());
            whole.chain(rule.iter().flat_map(|r| r.subsets.iter()).filter_map(|s| s.policy.as_deref()))
        };
        let ejects = mesh.outlier_detection.is_some()
            || policies().any(|p| p.outlier_detection.is_some() || !p.ports.is_empty());
        let of_rule = policies().filter_map(TrafficPolicy::locality);
        let by_place = service.traffic_distribution.is_some()
            || !policies().all(|p| p.ports.is_empty())
            || of_rule.chain(mesh.locality.as_ref()).any(|l| distributes(l) || needs_failover(l, ejects));
        let place = by_place.then(|| {
            Box::new(Place {
                locality: client.locality.clone(),
                labels: client.labels.clone(),
                network: client.network.clone(),
                node: client.node.clone(),
            })
        });
        let node = service.node_local.then(|| client.node.clone());
        Self { service: ByPtr(service.clone()), rule, kind: client.kind, place, node, mode }
    }
}

impl Query for ServiceEndpoints {
    type Out = Vec<Arc<Resource>>;

    fn run(&self, view: &View<'_>) -> Self::Out {
        let all = view.get(&EndpointsOf(self.service.key()));
        let mesh = view.get(&MeshDefaults);
        let none = Labels::new();
        let mut out = Vec::new();
        for port in self.service.ports.iter().filter(|p| p.protocol != Protocol::Udp) {
            let base = self.rule.as_ref().and_then(|rule| rule.policy_for_port(port.number));
            let subsets = self.rule.iter().flat_map(|rule| rule.subsets.iter());
            let of_subsets = subsets.map(|s| {
                (s.name.as_str(), &s.labels, self.rule.as_ref().and_then(|r| r.policy_for_subset(s, port.number)))
            });
            for (subset, labels, policy) in std::iter::once(("", &none, base)).chain(of_subsets) {
                if policy.as_ref().is_some_and(|p| p.is_passthrough()) {
                    continue;
                }
                let chosen: Vec<&Endpoint> = all
                    .iter()
                    .filter(|e| e.service_port == port.name && selects(labels, &e.labels))
                    .filter(|e| e.health != Health::Draining)
                    .filter(|e| self.node.as_ref().is_none_or(|node| node.is_empty() || e.node == *node))
                    .collect();
                let host = self.service.hostname.as_str();
                let name = match self.mode {
                    Mode::Client => outbound_name(port.number, subset, host),
                    Mode::SniDnat => sni_dnat_name(port.number, subset, host),
                };
                let groups = self.groups(&chosen, policy.as_deref(), mesh.locality.as_ref());
                out.push(Arc::new(encode::assignment(name, &chosen, &groups)));
            }
        }
        out
    }
}

impl ServiceEndpoints {
    /// One group a locality, with priorities and weights as the client's place asks for.
    fn groups(&self, chosen: &[&Endpoint], policy: Option<&TrafficPolicy>, mesh: Option<&LocalityLb>) -> Vec<Group> {
        let mut by_locality: BTreeMap<&Locality, Group> = BTreeMap::new();
        for (i, endpoint) in chosen.iter().enumerate() {
            let group = by_locality.entry(&endpoint.locality).or_insert_with(|| Group {
                locality: endpoint.locality.clone(),
                priority: 0,
                weight: 0,
                endpoints: Vec::new(),
            });
            group.weight = group.weight.saturating_add(endpoint.weight.max(1));
            group.endpoints.push(i);
        }
        let groups: Vec<Group> = by_locality.into_values().collect();
        let Some(place) = &self.place else { return groups };
        let rule = policy.and_then(|p| p.locality());
        let distribution = self.service.traffic_distribution.as_deref();
        let Some(settings) = effective_locality(mesh, rule, distribution) else { return groups };
        let caller =
            Caller { locality: &place.locality, labels: &place.labels, network: &place.network, node: &place.node };
        let endpoints: Vec<Endpoint> = chosen.iter().map(|e| (*e).clone()).collect();
        let outlier_detection = policy.is_some_and(|p| p.outlier_detection.is_some());
        prioritize(&endpoints, groups, &settings, &caller, outlier_detection)
    }
}

fn distributes(settings: &LocalityLb) -> bool {
    matches!(settings, LocalityLb::Locality(settings) if !settings.distribute.is_empty())
}
