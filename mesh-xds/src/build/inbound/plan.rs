//! Which ports of a workload are served, by which services or by which Sidecar, and what is accepted on them.

use std::collections::BTreeMap;

use mesh_api::networking::{CaptureMode, ConnectionPoolSettings, IstioIngressListener, ServerTlsSettings};
use mesh_api::{FieldPath, Name};

use crate::build::authn::{AcceptedBy, has_identity};
use crate::build::cluster::inbound_name;
use crate::build::cluster::special::INBOUND_PASSTHROUGH;
use crate::class::{Interception, Server};
use crate::memo::Query;
use crate::model::destination_rule::Origin;
use crate::model::peer_authentication::{Accepts, MtlsMode};
use crate::model::{Protocol, Service, Settings, Sidecar};
use crate::scope::settings;
use crate::shared::Shared;
use crate::view::View;

/// The inbound ports of a group of sidecars.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct PlanOf(pub(super) Server);

/// What is served.
#[derive(PartialEq, Debug, Default)]
pub(super) struct InboundPlan {
    /// By port.
    pub(super) ports: Vec<PlannedPort>,
    /// Ports that nobody names: all of them, and those for which a policy makes a difference.
    pub(super) passthrough: Vec<PlannedPort>,
}

/// What becomes of connections to one port of the workload.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct PlannedPort {
    /// The workload's port; 0: any.
    pub(super) target: u16,
    /// The service's port.
    pub(super) number: u16,
    /// What is spoken.
    pub(super) protocol: Protocol,
    /// The addresses that are listened on, the first giving the name.
    pub(super) bind: Vec<Name>,
    /// A listener of its own rather than a chain of `virtualInbound`.
    pub(super) bind_to_port: bool,
    /// The cluster behind it.
    pub(super) cluster: String,
    /// No service and no Sidecar names the port.
    pub(super) passthrough: bool,
    /// What is accepted.
    pub(super) mtls: MtlsMode,
    /// TLS of the user, which ends here.
    pub(super) tls: Option<ServerTlsSettings>,
    /// Of whom telemetry speaks.
    pub(super) host: Name,
    /// The service that the port belongs to, for names of statistics.
    pub(super) service: Option<Shared<Service>>,
    /// The field that decides how it is served: of the Sidecar that defines it, of the policy for it, or of its service.
    pub(super) source: Option<Origin>,
}

impl PlannedPort {
    /// `0.0.0.0_80`.
    pub(super) fn listener_name(&self) -> String {
        format!("{}_{}", self.bind.first().map_or("", Name::as_str), self.target)
    }
}

impl Query for PlanOf {
    type Out = InboundPlan;
    fn run(&self, view: &View<'_>) -> InboundPlan {
        let server = &self.0;
        let settings = settings(view);
        let accepts = view.get(&AcceptedBy { namespace: server.namespace.clone(), labels: server.labels.clone() });
        let identity = has_identity(&server.traits);
        let sidecar = sidecar(view, server);
        let ingress = sidecar.as_deref().map_or(&[][..], |s| s.spec.ingress.as_slice());
        let mut ports: BTreeMap<u16, PlannedPort> = BTreeMap::new();
        if serves_services(server, ingress, &settings) {
            let of_ingress = |port: u16| ingress.iter().any(|i| i.port.number == u32::from(port));
            for target in &server.targets {
                let Some(service) = view.row(|s| &s.services, &target.service) else { continue };
                let Some(port) = service.port(target.port) else { continue };
                if of_ingress(target.target) || is_reserved(target.target, server, Some(&settings)) {
                    continue;
                }
                // Of several services with one port the oldest counts.
                ports.entry(target.target).or_insert_with(|| PlannedPort {
                    target: target.target,
                    number: target.port,
                    protocol: port.protocol,
                    bind: wildcards(server, &settings),
                    bind_to_port: server.interception == Interception::None,
                    cluster: inbound_name(target.target),
                    passthrough: false,
                    mtls: accepted(&accepts, target.target, identity),
                    tls: None,
                    host: service.hostname.name().clone(),
                    source: accepts.decided_by(target.target).or_else(|| {
                        let path = FieldPath::new(format!("spec.ports[port={}]", target.port));
                        Some(Origin { object: service.source.clone(), path })
                    }),
                    service: Some(Shared::from(service)),
                });
            }
        }
        for (index, listener) in ingress.iter().enumerate() {
            let Ok(number) = u16::try_from(listener.port.number) else { continue };
            let bind_to_port = match listener.capture_mode {
                CaptureMode::Default => server.interception == Interception::None,
                CaptureMode::Iptables => false,
                CaptureMode::None => true,
            };
            let protocol = Protocol::parse(&listener.port.protocol);
            let on_any = listener.bind.is_empty() && protocol.is_http()
                || wildcards(server, &settings).first().is_some_and(|any| *any == *listener.bind);
            if on_any && is_reserved(number, server, None) {
                continue;
            }
            let tls = listener.tls.clone().filter(|_| settings.features.flag("ENABLE_TLS_ON_SIDECAR_INGRESS", false));
            let bind = match (listener.bind.as_str(), server.ips.first()) {
                ("", Some(ip)) => vec![Name::from(ip.to_string())],
                ("", None) => wildcards(server, &settings),
                (bind, _) => vec![Name::from(bind)],
            };
            ports.entry(number).or_insert_with(|| PlannedPort {
                target: number,
                number,
                protocol: if tls.is_some() { after_tls(protocol) } else { protocol },
                bind,
                bind_to_port,
                cluster: inbound_name(number),
                passthrough: false,
                mtls: accepted(&accepts, number, identity),
                tls,
                host: sidecar.as_ref().map_or_else(Name::default, |s| synthetic_host(s)),
                service: None,
                source: sidecar.as_ref().map(|sidecar| Origin {
                    object: sidecar.source.clone(),
                    path: FieldPath::new(format!("spec.ingress[{index}]")),
                }),
            });
        }
        let named = |port: u16| {
            if ingress.is_empty() {
                server.targets.iter().any(|t| t.target == port)
            } else {
                ingress.iter().any(|i| i.port.number == u32::from(port))
            }
        };
        let others = accepts.ports.keys().copied().filter(|port| !named(*port));
        let passthrough = std::iter::once(0).chain(others).map(|target| PlannedPort {
            target,
            number: 0,
            protocol: Protocol::Unsupported,
            bind: Vec::new(),
            bind_to_port: false,
            cluster: INBOUND_PASSTHROUGH.to_owned(),
            passthrough: true,
            mtls: accepted(&accepts, target, identity),
            tls: None,
            host: Name::default(),
            service: None,
            source: accepts.decided_by(target),
        });
        InboundPlan { passthrough: passthrough.collect(), ports: ports.into_values().collect() }
    }
}

/// Without certificates only plaintext can be accepted; but who demands mTLS does not get plaintext instead.
fn accepted(accepts: &Accepts, port: u16, identity: bool) -> MtlsMode {
    match accepts.on(port) {
        MtlsMode::Permissive if !identity => MtlsMode::Disable,
        mode => mode,
    }
}

/// The Sidecar that applies.
pub(super) fn sidecar(view: &View<'_>, server: &Server) -> Option<Shared<Sidecar>> {
    server.sidecar.as_ref().and_then(|key| view.row(|s| &s.sidecars, key)).map(Shared::from)
}

/// What telemetry calls the ports of a Sidecar that no service names.
pub(super) fn synthetic_host(sidecar: &Sidecar) -> Name {
    format!("{}.{}", sidecar.source.name, sidecar.source.namespace).into()
}

/// The connection pool that a Sidecar sets for a port.
pub(super) fn sidecar_pool(sidecar: &Sidecar, port: u16) -> Option<(String, &ConnectionPoolSettings)> {
    let of_port = sidecar.spec.ingress.iter().enumerate().find(|(_, i)| i.port.number == u32::from(port));
    of_port
        .and_then(|(i, listener)| {
            Some((format!("spec.ingress[{i}].connectionPool"), listener.connection_pool.as_ref()?))
        })
        .or_else(|| Some(("spec.inboundConnectionPool".to_owned(), sidecar.spec.inbound_connection_pool.as_ref()?)))
}

/// Whether the ports of services are served: not beside those of a Sidecar, unless that was asked for; and where nothing
/// is captured, the application itself is listening on them.
pub(super) fn serves_services(server: &Server, ingress: &[IstioIngressListener], settings: &Settings) -> bool {
    if ingress.is_empty() {
        server.interception != Interception::None
    } else {
        settings.features.flag("PILOT_ALLOW_SIDECAR_SERVICE_INBOUND_LISTENER_MERGE", false)
    }
}

/// Ports on which the proxy listens for itself.
fn is_reserved(port: u16, server: &Server, captured: Option<&Settings>) -> bool {
    let own = |key: &str| server.metadata(key).parse() == Ok(port);
    own("ENVOY_STATUS_PORT")
        || own("ENVOY_PROMETHEUS_PORT")
        || captured.is_some_and(|s| port == s.outbound_port() || port == s.inbound_port())
}

/// What is spoken once TLS has ended.
fn after_tls(protocol: Protocol) -> Protocol {
    match protocol {
        Protocol::Https => Protocol::Http,
        Protocol::Tls => Protocol::Tcp,
        other => other,
    }
}

/// The addresses that mean "any": the first is the primary one.
pub(super) fn wildcards(server: &Server, settings: &Settings) -> Vec<Name> {
    match (server.ipv4, server.ipv6) {
        (true, true) if settings.features.flag("ISTIO_DUAL_STACK", false) => vec!["0.0.0.0".into(), "::".into()],
        (false, true) => vec!["::".into()],
        _ => vec!["0.0.0.0".into()],
    }
}
