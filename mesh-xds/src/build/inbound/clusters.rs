//! The clusters behind inbound ports: the application itself, over localhost, over the address that the connection was
//! for, or where a Sidecar says.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::{Cluster, cluster};
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};
use mesh_api::mesh::InboundTrafficPolicyMode;
use mesh_api::types::Duration;
use mesh_api::{FieldPath, Name};

use super::plan::{serves_services, sidecar, sidecar_pool, wildcards};
use crate::Resource;
use crate::build::authn::has_identity;
use crate::build::cluster::special::{inbound_passthrough, loopback_source};
use crate::build::cluster::{Defaults, Draft, IpFamily, Traits, inbound_name, stat_name, wire};
use crate::build::defaults::MeshDefaults;
use crate::build::destination::RuleFor;
use crate::class::Server;
use crate::lower::Told;
use crate::lower::destination_rule::pool;
use crate::memo::Query;
use crate::model::destination_rule::TrafficPolicy;
use crate::model::{Port, Protocol, Service, Sidecar, TargetPort};
use crate::scope::settings;
use crate::shared::Shared;
use crate::view::View;

/// As long as a duration may be: clusters to the application keep their connections' hosts for ever.
const FOR_EVER: i64 = 9_223_372_035;

/// The inbound clusters of a group of sidecars.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct InboundClusters(pub Server);

impl Query for InboundClusters {
    type Out = Vec<Arc<Resource>>;
    fn run(&self, view: &View<'_>) -> Self::Out {
        let server = &self.0;
        let settings = settings(view);
        let defaults = view.get(&MeshDefaults);
        let traits = traits(server);
        let sidecar = sidecar(view, server);
        let ingress = sidecar.as_deref().map_or(&[][..], |s| s.spec.ingress.as_slice());
        let builder = Builder { view, server, defaults: &defaults, traits: &traits, sidecar: sidecar.as_ref() };
        let mut clusters = Vec::new();
        if serves_services(server, ingress, &settings) {
            let localhost = settings.mesh.inbound_traffic_policy.mode == InboundTrafficPolicyMode::Localhost;
            let to = localhost.then(|| localhost_of(server));
            let mut by_port: BTreeMap<u16, Vec<(Shared<Service>, Port)>> = BTreeMap::new();
            for target in &server.targets {
                let service = view.row(|s| &s.services, &target.service);
                let Some((service, port)) = service.and_then(|s| Some((s, s.port(target.port)?))) else { continue };
                by_port.entry(target.target).or_default().push((Shared::from(service), port.clone()));
            }
            for (port, services) in by_port {
                if !ingress.iter().any(|i| i.port.number == u32::from(port)) {
                    clusters.push(builder.cluster(port, to.clone().map(|ip| (ip, port)), &services, None));
                }
            }
        }
        for listener in ingress {
            let Ok(number) = u16::try_from(listener.port.number) else { continue };
            let Some(endpoint) = default_endpoint(&listener.default_endpoint, server) else { continue };
            let own = Port {
                number,
                name: listener.port.name.as_str().into(),
                protocol: Protocol::parse(&listener.port.protocol),
                target: TargetPort::Number(number),
            };
            let target = server.targets.iter().find(|t| t.target == number);
            let service = target.and_then(|t| view.row(|s| &s.services, &t.service)).map(Shared::from);
            let services: Vec<_> = service.into_iter().map(|service| (service, own.clone())).collect();
            clusters.push(builder.cluster(number, endpoint, &services, Some(&own)));
        }
        clusters.push(inbound_passthrough(&defaults, &traits));
        clusters.into_iter().map(|c| Arc::new(Resource::encode(c.name.clone(), &c))).collect()
    }
}

fn traits(server: &Server) -> Traits {
    Traits {
        ip_family: match (server.ipv4, server.ipv6) {
            (true, true) => IpFamily::Dual,
            (false, true) => IpFamily::V6,
            _ => IpFamily::V4,
        },
        identity: has_identity(&server.traits),
        ..Traits::default()
    }
}

fn localhost_of(server: &Server) -> Name {
    if server.ipv4 { "127.0.0.1".into() } else { "::1".into() }
}

/// Where a Sidecar's `defaultEndpoint` leads: `Some(None)` to where the connection was going, `None` to nowhere at all.
fn default_endpoint(text: &str, server: &Server) -> Option<Option<(Name, u16)>> {
    if text.is_empty() {
        return Some(None);
    }
    if text.starts_with("unix://") {
        return Some(Some((text.into(), 0)));
    }
    let (host, port) = text.rsplit_once(':')?;
    let port: u16 = port.parse().ok()?;
    let own = |v4: bool| server.ips.iter().find(|ip| ip.is_ipv4() == v4).map(|ip| Name::from(ip.to_string()));
    let address = match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok()? {
        IpAddr::V4(ip) if ip.is_unspecified() => own(true).unwrap_or_else(|| "127.0.0.1".into()),
        IpAddr::V6(ip) if ip.is_unspecified() => own(false).unwrap_or_else(|| "::1".into()),
        IpAddr::V4(ip) if ip.is_loopback() => localhost_of(server),
        IpAddr::V6(ip) if ip.is_loopback() => {
            if server.ipv6 {
                "::1".into()
            } else {
                "127.0.0.1".into()
            }
        }
        other => Name::from(other.to_string()),
    };
    Some(Some((address, port)))
}

struct Builder<'a, 'v> {
    view: &'a View<'v>,
    server: &'a Server,
    defaults: &'a Defaults,
    traits: &'a Traits,
    sidecar: Option<&'a Shared<Sidecar>>,
}

impl Builder<'_, '_> {
    /// A cluster to the application. The first of the services gives protocol, statistics and policy.
    fn cluster(
        &self,
        port: u16,
        endpoint: Option<(Name, u16)>,
        services: &[(Shared<Service>, Port)],
        own: Option<&Port>,
    ) -> Cluster {
        let first = services.first();
        let service_port = own.or(first.map(|(_, port)| port));
        let stat = match (self.defaults.inbound_stat_name.as_str(), first) {
            ("", _) | (_, None) => None,
            (pattern, Some((service, service_port))) => Some(stat_name(pattern, service, service_port, "", port)),
        };
        let mut draft = Draft::new(inbound_name(port), stat.as_deref());
        let over_localhost = endpoint.as_ref().is_some_and(|(to, _)| *to == "127.0.0.1" || *to == "::1");
        match endpoint {
            Some((to, number)) => {
                draft.set_type(cluster::DiscoveryType::Static);
                draft.cluster.load_assignment = Some(assignment(&draft.cluster.name, &to, number));
            }
            None => {
                draft.set_type(cluster::DiscoveryType::OriginalDst);
                draft.cluster.cleanup_interval = Some(wire::duration(Duration::from_secs(FOR_EVER)));
            }
        }
        if let Some(service_port) = service_port {
            draft.protocol(service_port.protocol, self.traits);
        }
        let policy = first.and_then(|(service, service_port)| self.policy(service, service_port.number));
        if let Some(policy) = &policy {
            draft.config_metadata(&policy.origin);
        }
        let of_sidecar = self.sidecar.and_then(|sidecar| {
            let (path, written) = sidecar_pool(sidecar, port)?;
            Some(pool::connection_pool(written, &FieldPath::new(path), &mut Told::about(&sidecar.source)))
        });
        let of_rule = policy.as_ref().and_then(|p| p.connection_pool.as_deref());
        let chosen = of_sidecar.as_ref().or(of_rule).or(self.defaults.connection_pool.as_deref());
        draft.connection_pool(chosen, policy.as_ref().and_then(|p| p.retry_budget), self.defaults);
        for (service, service_port) in services {
            if first.is_some_and(|(_, port)| port.number == service_port.number) && !service.mesh_external {
                draft.add_service_metadata(service);
            }
        }
        if !over_localhost {
            draft.cluster.upstream_bind_config = Some(loopback_source(self.bind_family()));
        }
        draft.build()
    }

    /// Connections to an address of the pod leave from the versions that the listeners have.
    fn bind_family(&self) -> IpFamily {
        match wildcards(self.server, &settings(self.view)).as_slice() {
            [only] if *only == "::" => IpFamily::V6,
            [_] => IpFamily::V4,
            _ => IpFamily::Dual,
        }
    }

    /// The rule's policy counts on both sides: what callers may send must be accepted.
    fn policy(&self, service: &Service, port: u16) -> Option<Arc<TrafficPolicy>> {
        let query = RuleFor {
            client: self.server.namespace.clone(),
            labels: None,
            host: service.hostname.clone(),
            namespace: service.namespace.clone(),
        };
        self.view.get(&query).as_ref().as_ref().and_then(|rule| rule.policy_for_port(port))
    }
}

fn assignment(cluster: &str, to: &Name, port: u16) -> ClusterLoadAssignment {
    let endpoint = Endpoint { address: Some(wire::address(to, port)), ..Endpoint::default() };
    let only = LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..LbEndpoint::default() };
    ClusterLoadAssignment {
        cluster_name: cluster.to_owned(),
        endpoints: vec![LocalityLbEndpoints { lb_endpoints: vec![only], ..LocalityLbEndpoints::default() }],
        ..ClusterLoadAssignment::default()
    }
}
