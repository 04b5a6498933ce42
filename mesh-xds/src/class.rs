//! What of a proxy may influence its configuration. Proxies of one class share every result.
//!
//! Two halves, because they are shared differently: as a client (what it may call) a proxy is like most others of its
//! namespace; as a server (what it serves) it is like the other pods of its workload. Labels count only as far as some
//! selector looks at them.

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use mesh_api::Name;
use rustc_hash::FxHasher;

use crate::memo::Query;
use crate::model::{InNamespace, Labels, Locality, Port, Service, TargetPort, Workload, selects};
use crate::proxy::{Proxy, ProxyType};
use crate::scope::{ServicesIn, SidecarFor};
use crate::shared::Shared;
use crate::view::View;

/// The class of a proxy.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Class {
    /// What it may call.
    pub client: Client,
    /// What it serves.
    pub server: Server,
}

/// A proxy as a client: [`ClientFields`], shared.
///
/// It is part of many keys, so it is cloned by counting and hashed once.
#[derive(Clone)]
pub struct Client(Arc<(u64, ClientFields)>);

impl From<ClientFields> for Client {
    fn from(fields: ClientFields) -> Self {
        Self(Arc::new((BuildHasherDefault::<FxHasher>::default().hash_one(&fields), fields)))
    }
}

impl Deref for Client {
    type Target = ClientFields;
    fn deref(&self) -> &ClientFields {
        &self.0.1
    }
}

impl PartialEq for Client {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for Client {}

impl Hash for Client {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.0);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.1.fmt(f)
    }
}

/// A proxy as a client.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ClientFields {
    /// Sidecar, gateway or waypoint.
    pub kind: ProxyType,
    /// Its namespace.
    pub namespace: Name,
    /// Those of its labels that some selector looks at.
    pub labels: Labels,
    /// The Sidecar that applies to it.
    pub sidecar: Option<InNamespace>,
    /// `default.svc.cluster.local`: short names are relative to it.
    pub dns_domain: Name,
    /// Its locality, for failover and distribution by locality.
    pub locality: Locality,
    /// Its cluster.
    pub cluster_id: Name,
    /// Its network.
    pub network: Name,
    /// Its node, for `internalTrafficPolicy: Local`.
    pub node: Name,
    /// It has IPv4 addresses (an unknown address counts as IPv4).
    pub ipv4: bool,
    /// It has IPv6 addresses.
    pub ipv6: bool,
    /// How traffic is captured.
    pub interception: Interception,
    /// Metadata that builders read: see [`ClientFields::metadata`].
    pub traits: Labels,
}

/// How an agent captures the traffic of its pod.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub enum Interception {
    /// iptables REDIRECT.
    #[default]
    Redirect,
    /// iptables TPROXY.
    Tproxy,
    /// Not at all: applications talk to the proxy's ports.
    None,
}

/// A proxy as a server.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Server {
    /// Its namespace.
    pub namespace: Name,
    /// Those of its labels that some selector looks at.
    pub labels: Labels,
    /// The Sidecar that applies to it.
    pub sidecar: Option<InNamespace>,
    /// The ports of services that it serves, oldest service first.
    pub targets: Vec<Target>,
    /// Its own addresses, only if its configuration names them (a Sidecar with ingress listeners).
    pub ips: Vec<IpAddr>,
    /// How traffic is captured.
    pub interception: Interception,
    /// It has IPv4 addresses (an unknown address counts as IPv4).
    pub ipv4: bool,
    /// It has IPv6 addresses.
    pub ipv6: bool,
    /// Metadata that builders read.
    pub traits: Labels,
}

/// A port of a service that a proxy serves.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Target {
    /// The row of the service.
    pub service: crate::model::ServiceId,
    /// The service's port.
    pub port: u16,
    /// Where the workload listens.
    pub target: u16,
}

/// Node metadata that influences configuration; anything else a proxy says of itself is for people.
const TRAITS: &[&str] = &[
    "DNS_CAPTURE",
    "HTTP10",
    "TLS_CLIENT_CERT_CHAIN",
    "TLS_CLIENT_KEY",
    "TLS_CLIENT_ROOT_CERT",
    "TLS_SERVER_CERT_CHAIN",
    "TLS_SERVER_KEY",
    "TLS_SERVER_ROOT_CERT",
    "ENABLE_HBONE",
    "IDLE_TIMEOUT",
    "UNPRIVILEGED_POD",
    "ROUTER_MODE",
    "MESH_MTLS",
    "ENVOY_STATUS_PORT",
    "ENVOY_PROMETHEUS_PORT",
];

impl ClientFields {
    /// A metadata entry that influences configuration.
    pub fn metadata(&self, key: &str) -> &str {
        self.traits.get(key).map_or("", Name::as_str)
    }
}

impl Server {
    /// A metadata entry that influences configuration.
    pub fn metadata(&self, key: &str) -> &str {
        self.traits.get(key).map_or("", Name::as_str)
    }
}

/// The class of a proxy at this snapshot.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ClassOf(pub Arc<Proxy>);

impl Query for ClassOf {
    type Out = Arc<Class>;

    fn run(&self, view: &View<'_>) -> Arc<Class> {
        let proxy = &*self.0;
        let pod = own_workload(view, proxy);
        let labels = pod.map_or(&proxy.labels, |pod| if proxy.labels.is_empty() { &pod.labels } else { &proxy.labels });
        let sidecar = match proxy.kind {
            ProxyType::Sidecar => {
                let query = SidecarFor { namespace: proxy.namespace.clone(), labels: labels.clone() };
                (*view.get(&query)).clone()
            }
            ProxyType::Router | ProxyType::Waypoint => None,
        };
        let keys = view.get(&SelectorKeys);
        let labels_that_matter: Labels =
            labels.iter().filter(|(k, _)| keys.contains(*k)).map(|(k, v)| (k.clone(), v.clone())).collect();
        let node = pod.map(|p| p.node.clone()).unwrap_or_default();
        let locality = if proxy.locality.is_empty() {
            pod.map(|p| locality_of(view, p)).unwrap_or_default()
        } else {
            proxy.locality.clone()
        };
        let traits: Labels =
            TRAITS.iter().filter_map(|key| proxy.metadata.get(*key).map(|v| (Name::from(*key), v.clone()))).collect();
        let interception = match proxy.metadata("INTERCEPTION_MODE") {
            "TPROXY" => Interception::Tproxy,
            "NONE" => Interception::None,
            _ => Interception::Redirect,
        };
        let ipv6 = proxy.ips.iter().any(IpAddr::is_ipv6);
        let ipv4 = !ipv6 || proxy.ips.iter().any(IpAddr::is_ipv4);
        let names_its_ips =
            sidecar.as_ref().and_then(|key| view.row(|s| &s.sidecars, key)).is_some_and(|s| !s.spec.ingress.is_empty());
        Arc::new(Class {
            server: Server {
                namespace: proxy.namespace.clone(),
                labels: labels_that_matter.clone(),
                sidecar: sidecar.clone(),
                targets: targets(view, proxy, pod, labels),
                ips: if names_its_ips { proxy.ips.clone() } else { Vec::new() },
                interception,
                ipv4,
                ipv6,
                traits: traits.clone(),
            },
            client: Client::from(ClientFields {
                kind: proxy.kind,
                namespace: proxy.namespace.clone(),
                labels: labels_that_matter,
                sidecar,
                dns_domain: proxy.dns_domain.clone(),
                locality,
                cluster_id: proxy.cluster_id.clone(),
                network: proxy.network.clone(),
                node: if view.get(&NodeLocalServices).is_empty() { Name::default() } else { node },
                ipv4,
                ipv6,
                interception,
                traits,
            }),
        })
    }
}

/// The hosts of services with `internalTrafficPolicy: Local`: without any, a client's node does not matter.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct NodeLocalServices;

impl Query for NodeLocalServices {
    type Out = Vec<Name>;
    fn run(&self, view: &View<'_>) -> Vec<Name> {
        view.all(|s| &s.services).filter(|(_, s)| s.node_local).map(|(_, s)| s.hostname.name().clone()).collect()
    }
}

/// The label keys that any selector of any object looks at.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct SelectorKeys;

impl Query for SelectorKeys {
    type Out = BTreeSet<Name>;
    fn run(&self, view: &View<'_>) -> BTreeSet<Name> {
        let mut keys = BTreeSet::new();
        for (_, sidecar) in view.all(|s| &s.sidecars) {
            keys.extend(sidecar.selector.keys().cloned());
        }
        for (_, policy) in view.all(|s| &s.peer_authentications) {
            keys.extend(policy.selector.keys().cloned());
        }
        for (_, policy) in view.all(|s| &s.authorization_policies) {
            keys.extend(policy.attachment.keys());
        }
        for (_, policy) in view.all(|s| &s.request_authentications) {
            keys.extend(policy.attachment.keys());
        }
        for (_, vs) in view.all(|s| &s.virtual_services) {
            let http = vs.http.iter().flat_map(|r| r.matches.iter().map(|m| &m.source));
            let tls = vs.tls.iter().flat_map(|r| r.matches.iter().map(|m| &m.source));
            let tcp = vs.tcp.iter().flat_map(|r| r.matches.iter().map(|m| &m.source));
            keys.extend(http.chain(tls).chain(tcp).flat_map(|s| s.labels.keys().cloned()));
        }
        for gateway in view.get(&crate::scope::ingress::IngressGateways).iter() {
            keys.extend(gateway.selector.keys().cloned());
        }
        for (_, gateway) in view.all(|s| &s.gateways) {
            keys.extend(gateway.selector.keys().cloned());
        }
        for (_, rule) in view.all(|s| &s.destination_rules) {
            keys.extend(rule.selector.iter().flat_map(|s| s.keys().cloned()));
        }
        keys
    }
}

/// The pod or WorkloadEntry that bears the proxy's address.
fn own_workload<'v>(view: &View<'v>, proxy: &Proxy) -> Option<&'v Arc<Workload>> {
    let mut entry = None;
    for ip in &proxy.ips {
        for (key, _) in view.bucket(|s| &s.addresses, &Name::from(ip.to_string())) {
            let name = InNamespace::from(&key.object);
            match key.object.kind.as_str() {
                "Pod" if key.object.namespace == proxy.namespace => {
                    if let Some(pod) = view.row(|s| &s.pods, &name) {
                        return Some(pod);
                    }
                }
                "WorkloadEntry" if key.object.namespace == proxy.namespace => {
                    entry = entry.or_else(|| view.row(|s| &s.workload_entries, &name));
                }
                _ => {}
            }
        }
    }
    entry
}

/// Where a workload runs: as it says itself, else where its node is.
pub(crate) fn locality_of(view: &View<'_>, workload: &Workload) -> Locality {
    if !workload.locality.is_empty() || workload.node.is_empty() {
        return workload.locality.clone();
    }
    let node = InNamespace::new(Name::default(), workload.node.clone());
    view.row(|s| &s.nodes, &node).map(|l| (**l).clone()).unwrap_or_default()
}

/// The ports of services that a proxy serves.
fn targets(view: &View<'_>, proxy: &Proxy, pod: Option<&Arc<Workload>>, labels: &Labels) -> Vec<Target> {
    let mut out: Vec<(Shared<Service>, Target)> = Vec::new();
    let mut add = |service: &Shared<Service>, port: &Port, target: u16| {
        let id = crate::model::ServiceId { key: service.key(), source: service.source.clone() };
        let target = Target { service: id, port: port.number, target };
        if !out.iter().any(|(_, t)| *t == target) {
            out.push((service.clone(), target));
        }
    };
    let in_namespace = view.get(&ServicesIn(proxy.namespace.clone()));
    for service in in_namespace.iter().filter(|s| !s.selector.is_empty() && selects(&s.selector, labels)) {
        for port in &service.ports {
            let number = match &port.target {
                TargetPort::Number(n) => Some(*n),
                TargetPort::Named(name) => pod.and_then(|pod| pod.named_port(name)),
            };
            if let Some(number) = number {
                add(service, port, number);
            }
        }
    }
    // Services without a selector name their endpoints; those that bear the proxy's address are its own.
    for ip in &proxy.ips {
        let ip = Name::from(ip.to_string());
        for (key, _) in view.bucket(|s| &s.addresses, &ip) {
            let of = match (key.object.kind.as_str(), key.object.name.split_once('/')) {
                ("Service", Some((name, _))) => InNamespace::new(key.object.namespace.clone(), name),
                ("ServiceEntry", _) => InNamespace::from(&key.object),
                _ => continue,
            };
            for service in view
                .get(&ServicesIn(of.namespace.clone()))
                .iter()
                .filter(|s| s.source.name == of.name && s.source.kind == key.object.kind)
            {
                for endpoint in
                    view.get(&crate::endpoints::EndpointsOf(service.key())).iter().filter(|e| e.address == ip)
                {
                    if let Some(port) = service.port_by_name(&endpoint.service_port) {
                        add(service, port, endpoint.port);
                    }
                }
            }
        }
    }
    out.sort_by(|(a, s), (b, t)| a.age_order().cmp(&b.age_order()).then_with(|| s.cmp(t)));
    out.into_iter().map(|(_, target)| target).collect()
}
