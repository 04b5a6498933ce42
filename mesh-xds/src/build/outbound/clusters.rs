//! The clusters that a proxy can reach services by: every service and port of its scope, every subset that the rules for
//! it define, and the special ones.

use std::sync::Arc;

use crate::Resource;
use crate::build::accounts::ServerNames;
use crate::build::authn::AcceptedIn;
use crate::build::cluster::{Mode, MtlsMode, Outbound, Plain, Shape, Traits, black_hole, passthrough};
use crate::build::defaults::{MeshDefaults, traits};
use crate::build::destination::Rules;
use crate::class::Client;
use crate::endpoints::EndpointsOf;
use crate::memo::Query;
use crate::model::destination_rule::DestinationRule;
use crate::model::{Port, Resolution, Service};
use crate::proxy::ProxyType;
use crate::scope::ServicesOf;
use crate::shared::ByPtr;
use crate::view::View;

/// The outbound clusters of a group of proxies.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct OutboundClusters(pub Client);

impl Query for OutboundClusters {
    type Out = Vec<Arc<Resource>>;
    fn run(&self, view: &View<'_>) -> Self::Out {
        let mut out = of_scope(view, &self.0, Mode::Client);
        out.extend(view.get(&SpecialClusters { traits: traits(&self.0) }).iter().cloned());
        out
    }
}

/// The clusters that a gateway passes mesh mTLS on to by server name (AUTO_PASSTHROUGH).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SniDnatClusters(pub Client);

impl Query for SniDnatClusters {
    type Out = Vec<Arc<Resource>>;
    fn run(&self, view: &View<'_>) -> Self::Out {
        of_scope(view, &self.0, Mode::SniDnat)
    }
}

fn of_scope(view: &View<'_>, client: &Client, mode: Mode) -> Vec<Arc<Resource>> {
    let services = view.get(&ServicesOf(super::scope(client)));
    let rules = Rules::new(view, client);
    let traits = traits(client);
    let mut out = Vec::new();
    for service in services.iter() {
        let outside = mode == Mode::SniDnat && service.mesh_external;
        if outside || matches!(service.resolution, Resolution::Alias(_)) {
            continue;
        }
        let rule = rules.outbound(service).map(ByPtr);
        let traits = match service.resolution {
            // Names resolve to endpoints within the cluster itself, so the caller's place counts here and not in EDS.
            Resolution::DnsLb | Resolution::DnsRoundRobinLb => {
                Traits { locality: client.locality.clone(), labels: client.labels.clone(), ..traits.clone() }
            }
            _ => traits.clone(),
        };
        let query = ServiceClusters { service: ByPtr(service.clone()), rule, traits, mode };
        out.extend(view.get(&query).iter().cloned());
    }
    out
}

/// The clusters of one service for all proxies that follow the same rule.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct ServiceClusters {
    service: ByPtr<Service>,
    rule: Option<ByPtr<DestinationRule>>,
    traits: Traits,
    mode: Mode,
}

impl ServiceClusters {
    /// What the service's endpoints accept, as far as a caller can tell. Where a connection's own destination is kept,
    /// nothing can be chosen by endpoint: one without mTLS is one too many.
    fn mtls(&self, view: &View<'_>, port: &Port) -> MtlsMode {
        if !self.traits.identity || self.service.mesh_external {
            return MtlsMode::Unknown;
        }
        let policy = self.rule.as_ref().and_then(|rule| rule.policy_for_port(port.number));
        let kept = self.service.resolution == Resolution::Passthrough || policy.is_some_and(|p| p.is_passthrough());
        if kept {
            let endpoints = view.get(&EndpointsOf(self.service.key()));
            let mut of_port = endpoints.iter().filter(|e| e.service_port == port.name).peekable();
            if of_port.peek().is_none() || of_port.any(|e| e.tls_mode != "istio") {
                return MtlsMode::Disable;
            }
        }
        *view.get(&AcceptedIn(self.service.namespace.clone()))
    }
}

impl Query for ServiceClusters {
    type Out = Vec<Arc<Resource>>;
    fn run(&self, view: &View<'_>) -> Self::Out {
        let defaults = view.get(&MeshDefaults);
        let resolves =
            matches!(self.service.resolution, Resolution::DnsLb | Resolution::DnsRoundRobinLb | Resolution::DynamicDns);
        let endpoints = if resolves { Some(view.get(&EndpointsOf(self.service.key()))) } else { None };
        let names = view.get(&ServerNames(self.service.clone()));
        let mut out = Vec::new();
        for port in &self.service.ports {
            let of_port: Vec<_> =
                endpoints.iter().flat_map(|e| e.iter()).filter(|e| e.service_port == port.name).cloned().collect();
            let clusters = Outbound {
                service: &self.service,
                port,
                rule: self.rule.as_deref(),
                endpoints: &of_port,
                subject_alt_names: &names,
                mtls: self.mtls(view, port),
                mode: self.mode,
                defaults: &defaults,
                traits: &self.traits,
            }
            .clusters(|plain| view.get(&plain));
            out.extend(clusters.into_iter().map(Arc::new));
        }
        out
    }
}

impl Query for Plain {
    type Out = Shape;
    fn run(&self, view: &View<'_>) -> Shape {
        self.shape(&view.get(&MeshDefaults))
    }
}

/// The clusters that have nothing to do with services.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct SpecialClusters {
    traits: Traits,
}

impl Query for SpecialClusters {
    type Out = Vec<Arc<Resource>>;
    fn run(&self, view: &View<'_>) -> Self::Out {
        let defaults = view.get(&MeshDefaults);
        let mut clusters = vec![black_hole(&defaults)];
        if self.traits.kind != ProxyType::Router {
            clusters.push(passthrough(&defaults, &self.traits));
        }
        clusters.into_iter().map(|c| Arc::new(Resource::encode(c.name.clone(), &c))).collect()
    }
}
