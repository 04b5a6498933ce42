//! Names of hosts: DNS labels, full names, names with a leading wildcard, and those with a namespace before them.
//!
//! As in Istio, letters may be capital, and a full name may end with a dot.

use std::collections::HashSet;

use super::at::Check;
use super::net::is_ip;

/// True for a DNS label: up to 63 letters, digits and `-`, which it neither begins nor ends with.
pub(super) fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
}

/// True for a DNS label, `*`, or a label after `*` or `*-`.
fn is_wildcard_label(text: &str) -> bool {
    let plain = text.strip_prefix("*-").or_else(|| text.strip_prefix('*')).unwrap_or(text);
    text == "*" || (text.len() <= 63 && is_label(plain))
}

/// A full DNS name.
pub(super) fn fqdn(domain: &str) -> Check {
    length(domain)?;
    labels(domain)
}

/// A DNS name, full or short, whose first label may be a wildcard.
pub(super) fn wildcard_domain(domain: &str) -> Check {
    length(domain)?;
    let (first, rest) = domain.split_once('.').map_or((domain, None), |(first, rest)| (first, Some(rest)));
    if !is_wildcard_label(first) {
        return Err(not_a_label(domain, first));
    }
    rest.map_or(Ok(()), labels)
}

/// The host of a rule for gateways: as [`wildcard_domain`]; with `sni` also a name that the mesh makes for traffic
/// between networks, `outbound_.<port>_.<subset>_.<host>`.
pub(super) fn gateway_domain(domain: &str, sni: bool) -> Check {
    const PREFIX: &str = "outbound_";
    if !sni || !domain.starts_with(PREFIX) {
        return wildcard_domain(domain);
    }
    length(domain)?;
    let mut parts = domain.split('_').skip(1);
    let (port, _, host) = (parts.next().unwrap_or_default(), parts.next(), parts.next().unwrap_or_default());
    if port.contains(|c: char| c.is_ascii_digit()) && host.contains(|c: char| c.is_ascii_alphabetic()) {
        Ok(())
    } else {
        Err(format!("domain name {domain:?} should follow the form outbound_.<PORT>_._.<HOSTNAME>"))
    }
}

/// A host that has a wildcard has it alone or as its first label.
pub(super) fn whole_wildcard(host: &str) -> Check {
    if host.contains('*') && host != "*" && !host.starts_with("*.") {
        Err(format!("partial wildcard {host:?} is not allowed; write * or a name that begins with *."))
    } else {
        Ok(())
    }
}

/// A trust domain: labels with dots between them.
pub(super) fn trust_domain(domain: &str) -> Check {
    if domain.is_empty() {
        return Err("an empty domain name is not allowed".to_owned());
    }
    let wrong = domain.strip_suffix('.').unwrap_or(domain).split('.').find(|label| !is_label(label));
    wrong.map_or(Ok(()), |label| Err(format!("trust domain name {domain:?} is invalid: {label:?} is not a DNS label")))
}

/// Whose hosts have a namespace before them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum HostsOf {
    Sidecar,
    Gateway,
    /// A Gateway that was made from one of the Gateway API.
    ConvertedGateway,
}

/// `namespace/host`; a gateway's may be without the namespace.
pub(super) fn scoped_host(text: &str, owner: HostsOf) -> Check {
    let Some((namespace, host)) = text.split_once('/') else {
        return match owner {
            HostsOf::Sidecar => Err(format!("host {text:?} must be of form namespace/dnsName, such as ./{text}")),
            _ => host_part(text, owner),
        };
    };
    if namespace.is_empty() || host.is_empty() {
        return Err(format!("namespace and dnsName cannot be empty in {text:?}; write */ for all namespaces"));
    }
    let fits = match owner {
        HostsOf::Sidecar => {
            let namespace = namespace.strip_prefix('~').unwrap_or(namespace);
            namespace.is_empty() || matches!(namespace, "*" | ".") || is_label(namespace)
        }
        HostsOf::Gateway => matches!(namespace, "*" | ".") || is_label(namespace),
        HostsOf::ConvertedGateway => matches!(namespace, "*" | "." | "~") || is_label(namespace),
    };
    if !fits {
        return Err(format!("invalid namespace value {namespace:?} in {text:?}; write *, . or a namespace"));
    }
    host_part(host, owner)
}

fn host_part(host: &str, owner: HostsOf) -> Check {
    if host != "*" && !host.contains('.') {
        return Err(format!("short names (non FQDN) such as {host:?} are not allowed; write the full name"));
    }
    match wildcard_domain(host) {
        Err(_) if owner != HostsOf::Sidecar && is_ip(host) => {}
        other => other?,
    }
    whole_wildcard(host)
}

/// Hosts, for asking which of them stand for a name.
pub(super) struct HostSet<'a> {
    exact: HashSet<&'a str>,
    /// What comes after the `*`.
    suffixes: HashSet<&'a str>,
}

impl<'a> HostSet<'a> {
    pub(super) fn new(hosts: &'a [String]) -> Self {
        let mut set = Self { exact: HashSet::new(), suffixes: HashSet::new() };
        for host in hosts {
            match host.strip_prefix('*') {
                Some(suffix) => set.suffixes.insert(suffix),
                None => set.exact.insert(host),
            };
        }
        set
    }

    /// The wildcard of the set that stands for all that `host` stands for; `host` itself if `or_self`.
    pub(super) fn wildcard_over(&self, host: &str, or_self: bool) -> Option<&'a str> {
        let (plain, first) = match host.strip_prefix('*') {
            Some(plain) => (plain, usize::from(!or_self)),
            None => (host, 0),
        };
        let tails = (first..=plain.len()).filter_map(|from| plain.get(from..));
        tails.into_iter().find_map(|tail| self.suffixes.get(tail).copied())
    }

    /// True when all that `host` stands for is in the set.
    pub(super) fn covers(&self, host: &str) -> bool {
        self.exact.contains(host) || self.wildcard_over(host, true).is_some()
    }
}

fn length(domain: &str) -> Check {
    match domain.len() {
        0 => Err("an empty domain name is not allowed; name a host".to_owned()),
        1..=255 => Ok(()),
        _ => Err(format!("domain name {:?}... is too long (max 255)", domain.get(..64).unwrap_or_default())),
    }
}

fn labels(domain: &str) -> Check {
    let top = domain.rsplit('.').next().unwrap_or_default();
    if top.parse::<i64>().is_ok() {
        return Err(format!("domain name {domain:?} is invalid (top level domain {top:?} cannot be all-numeric)"));
    }
    let wrong = domain.strip_suffix('.').unwrap_or(domain).split('.').find(|label| !is_label(label));
    wrong.map_or(Ok(()), |label| Err(not_a_label(domain, label)))
}

fn not_a_label(domain: &str, label: &str) -> String {
    format!("domain name {domain:?} is invalid ({label:?} is not a DNS label: up to 63 letters, digits and -)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_names() {
        for (name, full, wild) in [
            ("foo", true, true),
            ("foo.com", true, true),
            ("foo.com.", true, true),
            ("FOO.Com", true, true),
            ("a-b.c", true, true),
            ("", false, false),
            (".", false, false),
            ("a..b", false, false),
            ("-a.b", false, false),
            ("a_b.c", false, false),
            ("10.0.0.1", false, false),
            ("foo.1", false, false),
            ("*", false, true),
            ("*.foo.com", false, true),
            ("*-foo.com", false, true),
            ("*foo.com", false, true),
            ("foo.*.com", false, false),
            ("**.com", false, false),
            ("https://foo.com", false, false),
        ] {
            assert_eq!(fqdn(name).is_ok(), full, "{name}");
            assert_eq!(wildcard_domain(name).is_ok(), wild, "{name}");
        }
        assert!(fqdn(&"a.".repeat(128)).is_err());
        assert!(is_label(&"a".repeat(63)) && !is_label(&"a".repeat(64)));
    }

    #[test]
    fn names_between_networks() {
        for (name, sni, fits) in [
            ("outbound_.80_._.e2e.foobar.mesh", true, true),
            ("outbound_.80_.v1_.foo.mesh", true, true),
            ("outbound_.80_._.e2e.foobar.mesh", false, false),
            ("outbound_.port_._.e2e.foobar.mesh", true, false),
            ("outbound_.80_._.", true, false),
            ("outbound_.80", true, false),
            ("*.foo.com", true, true),
        ] {
            assert_eq!(gateway_domain(name, sni).is_ok(), fits, "{name} {sni}");
        }
    }

    #[test]
    fn trust_domains() {
        for (name, fits) in [("cluster.local", true), ("a.", true), ("", false), ("a..b", false), ("a_b", false)] {
            assert_eq!(trust_domain(name).is_ok(), fits, "{name}");
        }
    }

    #[test]
    fn hosts_with_a_namespace() {
        use HostsOf::*;
        for (host, sidecar, gateway) in [
            ("foo.com", false, true),
            ("foo", false, false),
            ("*", false, true),
            ("./foo.com", true, true),
            ("*/*", true, true),
            ("ns/*.foo.com", true, true),
            ("ns/foo", false, false),
            ("ns/", false, false),
            ("/foo.com", false, false),
            ("~/foo.com", true, false),
            ("~ns/foo.com", true, false),
            ("n_s/foo.com", false, false),
            ("ns/10.0.0.1", false, true),
            ("ns/*foo.com", false, false),
            ("a/b/foo.com", false, false),
        ] {
            assert_eq!(scoped_host(host, Sidecar).is_ok(), sidecar, "{host}");
            assert_eq!(scoped_host(host, Gateway).is_ok(), gateway, "{host}");
        }
        assert!(scoped_host("~/foo.com", ConvertedGateway).is_ok());
    }

    #[test]
    fn a_set_covers_as_hosts_do() {
        let hosts = ["*.foo.com".to_owned(), "bar.com".to_owned()];
        let set = HostSet::new(&hosts);
        for (name, covered) in [
            ("a.foo.com", true),
            ("*.foo.com", true),
            ("*.a.foo.com", true),
            ("foo.com", false),
            ("bar.com", true),
            ("*.bar.com", false),
            ("*", false),
            ("é.foo.com", true),
        ] {
            assert_eq!(set.covers(name), covered, "{name}");
        }
        assert_eq!(set.wildcard_over("*.foo.com", false), None);
    }
}
