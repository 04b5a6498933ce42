//! The domains by which a service is called, as Istio derives them from its host and the caller's DNS domain.

use mesh_api::{Hostname, Name};

use crate::model::{Registry, Resolution, Service};

/// The domains of a service, and which of them are short forms (those give way where another service bears the name).
pub(crate) struct Domains {
    pub(crate) all: Vec<String>,
    pub(crate) short: Vec<String>,
}

/// The domains of a service on a port. `with_port`: requests name the port (only in a listener for all ports).
pub(crate) fn of_service(service: &Service, aliases: &[Hostname], dns_domain: &str, with_port: Option<u16>) -> Domains {
    let mut out = Domains { all: Vec::new(), short: Vec::new() };
    for host in std::iter::once(&service.hostname).chain(aliases) {
        let alternatives = alternatives(host.as_str(), dns_domain, with_port);
        add(&mut out.all, host.as_str(), with_port);
        out.all.extend(alternatives.iter().cloned());
        out.short.extend(alternatives);
    }
    // The pods of a headless service have names below it.
    if service.registry == Registry::Kubernetes && service.resolution == Resolution::Passthrough {
        let below: Vec<String> = out.all.iter().map(|d| format!("*.{d}")).collect();
        out.all.extend(below);
    }
    for address in service.addresses.iter().filter(|a| !a.contains('/') && !is_unspecified(a)) {
        add(&mut out.all, address, with_port);
    }
    out
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
    let Some(at) = dns_domain.find(".svc.") else {
        shared_suffix(host, dns_domain, with_port, &mut out);
        return out;
    };
    let (namespace, suffix) = dns_domain.split_at(at);
    let Some(before) = host.strip_suffix(suffix) else { return out };
    // `name.namespace`: what stands before `.svc.<domain>`.
    let Some((name, of)) = before.split_once('.') else { return out };
    if of.is_empty() {
        return out;
    }
    if of == namespace {
        add(&mut out, name, with_port);
        add(&mut out, &format!("{before}.svc"), with_port);
        add(&mut out, before, with_port);
    } else {
        add(&mut out, before, with_port);
        add(&mut out, &format!("{before}.svc"), with_port);
    }
    out
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
}
