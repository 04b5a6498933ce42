//! The domains by which a service is called, as Istio derives them from its host and the caller's DNS domain.

use std::sync::Arc;

use mesh_api::{Hostname, Name};

use crate::memo::Query;
use crate::model::{Registry, Resolution, Service};
use crate::shared::{ByPtr, Shared};
use crate::view::View;

/// The domains of a service on a port, for all callers to whom it has the same names.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct DomainsOf {
    service: ByPtr<Service>,
    aliases: Vec<Hostname>,
    port: u16,
    /// Requests name the port (only in a listener for all ports).
    with_port: bool,
    dns_domain: Name,
}

/// The domains of a host on a port.
#[derive(PartialEq, Debug)]
pub(crate) struct Domains {
    /// `host:port`, which names the virtual host.
    pub(crate) name: Name,
    pub(crate) all: Arc<[Name]>,
    /// Which of them are short forms: those give way where another service bears the name.
    pub(crate) short: Vec<Name>,
}

/// Where callers are, for the names that they may use.
pub(crate) struct Callers<'c> {
    dns_domain: &'c Name,
    /// The same domain for services of other namespaces: there it doesn't matter which namespace the callers are of.
    elsewhere: Name,
}

impl<'c> Callers<'c> {
    pub(crate) fn new(dns_domain: &'c Name) -> Self {
        Self { dns_domain, elsewhere: suffix(dns_domain).map_or_else(|| dns_domain.clone(), Name::from) }
    }

    /// What the callers call a service by.
    pub(crate) fn of_service(
        &self,
        service: &Shared<Service>,
        aliases: &[Hostname],
        port: u16,
        with_port: bool,
    ) -> DomainsOf {
        let of_callers = |host: &Hostname| kubernetes_name(host.as_str(), self.dns_domain).is_some_and(|name| name.own);
        let own = of_callers(&service.hostname) || aliases.iter().any(of_callers);
        DomainsOf {
            service: ByPtr(service.clone()),
            aliases: aliases.to_vec(),
            port,
            with_port,
            dns_domain: if own { self.dns_domain.clone() } else { self.elsewhere.clone() },
        }
    }
}

impl Domains {
    /// The one domain of a host that is no service.
    pub(crate) fn of_host(host: &str, port: u16) -> Self {
        let all = Arc::new([Name::from(bracketed(host))]);
        Self { name: host_port(host, port).into(), all, short: Vec::new() }
    }
}

impl Query for DomainsOf {
    type Out = Domains;
    fn run(&self, _: &View<'_>) -> Domains {
        let service = &self.service;
        let with_port = self.with_port.then_some(self.port);
        let mut all: Vec<String> = Vec::new();
        let mut short: Vec<String> = Vec::new();
        for host in std::iter::once(&service.hostname).chain(&self.aliases) {
            let alternatives = alternatives(host.as_str(), &self.dns_domain, with_port);
            add(&mut all, host.as_str(), with_port);
            all.extend(alternatives.iter().cloned());
            short.extend(alternatives);
        }
        // The pods of a headless service have names below it.
        if service.registry == Registry::Kubernetes && service.resolution == Resolution::Passthrough {
            let below: Vec<String> = all.iter().map(|d| format!("*.{d}")).collect();
            all.extend(below);
        }
        for address in service.addresses.iter().filter(|a| !a.contains('/') && !is_unspecified(a)) {
            add(&mut all, address, with_port);
        }
        let all: Arc<[Name]> = all.into_iter().map(Name::from).collect();
        Domains {
            name: host_port(service.hostname.as_str(), self.port).into(),
            short: all.iter().filter(|d| short.iter().any(|s| *d == s.as_str())).cloned().collect(),
            all,
        }
    }
}

fn is_unspecified(address: &Name) -> bool {
    *address == "0.0.0.0" || *address == "::"
}

fn add(domains: &mut Vec<String>, host: &str, with_port: Option<u16>) {
    domains.push(bracketed(host));
    if let Some(port) = with_port {
        domains.push(host_port(host, port));
    }
}

/// An IPv6 address in brackets; anything else as it is.
pub(crate) fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// `host:port`, with brackets around IPv6 addresses.
pub(crate) fn host_port(host: &str, port: u16) -> String {
    format!("{}:{port}", bracketed(host))
}

/// `host.`, and for services of the caller's cluster the shorter forms that resolve in the caller's namespace.
fn alternatives(host: &str, dns_domain: &str, with_port: Option<u16>) -> Vec<String> {
    let mut out = Vec::new();
    if host.parse::<std::net::IpAddr>().is_err() {
        add(&mut out, &format!("{host}."), with_port);
    }
    if suffix(dns_domain).is_none() {
        shared_suffix(host, dns_domain, with_port, &mut out);
        return out;
    }
    let Some(KubernetesName { full, name, own }) = kubernetes_name(host, dns_domain) else { return out };
    let in_svc = format!("{full}.svc");
    let forms = if own { &[name, &in_svc, full][..] } else { &[full, &in_svc] };
    forms.iter().for_each(|form| add(&mut out, form, with_port));
    out
}

/// `.svc.<domain>` of a caller in Kubernetes.
fn suffix(dns_domain: &str) -> Option<&str> {
    dns_domain.get(dns_domain.find(".svc.")?..)
}

/// The host of a service of the caller's cluster.
struct KubernetesName<'h> {
    /// `name.namespace`
    full: &'h str,
    name: &'h str,
    /// It is of the caller's namespace.
    own: bool,
}

fn kubernetes_name<'h>(host: &'h str, dns_domain: &str) -> Option<KubernetesName<'h>> {
    let suffix = suffix(dns_domain)?;
    let full = host.strip_suffix(suffix)?;
    let (name, namespace) = full.split_once('.')?;
    let own = dns_domain.strip_suffix(suffix) == Some(namespace);
    (!namespace.is_empty()).then_some(KubernetesName { full, name, own })
}

/// Outside Kubernetes: what is left when the labels that host and caller share at the end are taken away.
fn shared_suffix(host: &str, dns_domain: &str, with_port: Option<u16>, out: &mut Vec<String>) {
    let theirs: Vec<&str> = host.split('.').collect();
    let ours: Vec<&str> = dns_domain.split('.').collect();
    let shared = theirs.iter().rev().zip(ours.iter().rev()).take_while(|(a, b)| a == b).count();
    if shared == 0 || shared == theirs.len() {
        return;
    }
    let (unique, common) = theirs.split_at(theirs.len() - shared);
    let unique_host = unique.join(".");
    add(out, &unique_host, with_port);
    if let ([_, _], Some(first)) = (unique, common.first()) {
        add(out, &format!("{unique_host}.{first}"), with_port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_follow_the_callers_namespace() {
        let d = "default.svc.cluster.local";
        assert_eq!(
            alternatives("a.default.svc.cluster.local", d, None),
            ["a.default.svc.cluster.local.", "a", "a.default.svc", "a.default"]
        );
        assert_eq!(
            alternatives("a.other.svc.cluster.local", d, None),
            ["a.other.svc.cluster.local.", "a.other", "a.other.svc"]
        );
        assert_eq!(alternatives("example.com", d, None), ["example.com."]);
        assert_eq!(alternatives("1.2.3.4", d, None), Vec::<String>::new());
        assert_eq!(alternatives("a.b.local", "x.campus.local", None), ["a.b.local.", "a.b", "a.b.local"]);
    }

    #[test]
    fn callers_of_other_namespaces_share_a_services_domains() {
        let yaml =
            "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: default}\nspec: {ports: [{port: 80}]}\n";
        let world = crate::testing::snapshot(yaml, Default::default());
        let service = world.services.iter().map(|(_, row)| Shared::from(row)).next().unwrap();
        let of = |dns_domain: &str, aliases: &[&str]| {
            let aliases: Vec<Hostname> = aliases.iter().map(|a| Hostname::from(*a)).collect();
            Callers::new(&dns_domain.into()).of_service(&service, &aliases, 80, false)
        };
        assert_eq!(of("x.svc.cluster.local", &[]), of("y.svc.cluster.local", &[]));
        assert_ne!(of("x.svc.cluster.local", &[]), of("default.svc.cluster.local", &[]));
        assert_ne!(of("x.svc.cluster.local", &[]), of("x.svc.other.local", &[]));
        assert_ne!(of("x.local", &[]), of("y.local", &[]));
        let alias = ["b.x.svc.cluster.local"];
        assert_ne!(of("x.svc.cluster.local", &alias), of("y.svc.cluster.local", &alias));
    }
}
