//! The names of the mesh and their addresses, as a proxy of some namespace sees them.
//!
//! Only full names are kept. That `reviews`, `reviews.default` and `reviews.default.svc` mean a service of Kubernetes is worked
//! out when it is asked for, which costs less than a multiple of the memory in every pod.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mesh_xds::build::names::{NameInfo, NameTable};

/// Names, ready to be looked up.
#[derive(Clone, Debug, Default)]
pub struct Table {
    hosts: HashMap<Box<str>, Host>,
    /// The namespace whose services have short names.
    namespace: String,
    /// `svc.cluster.local`.
    domain: String,
    /// The first search domain of the pod, which resolvers append before they try a name as it is.
    search: String,
}

#[derive(Clone, Debug)]
struct Host {
    v4: Box<[Ipv4Addr]>,
    v6: Box<[Ipv6Addr]>,
    is_kubernetes: bool,
}

/// A name that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// The name that it is another one for, with the search domain cut off.
    pub alias: Option<&'a str>,
    /// Its addresses of IPv4.
    pub v4: &'a [Ipv4Addr],
    /// Its addresses of IPv6.
    pub v6: &'a [Ipv6Addr],
}

impl Table {
    /// Names as a proxy of `namespace` with this DNS domain (`default.svc.cluster.local`) and first search domain sees them.
    pub fn new(names: NameTable, namespace: &str, dns_domain: &str, search: Option<&str>) -> Self {
        let lower = |text: &str| text.trim_end_matches('.').to_ascii_lowercase();
        let dns_domain = lower(dns_domain);
        let domain = dns_domain.strip_prefix(&format!("{namespace}.")).unwrap_or(&dns_domain).to_owned();
        let host = |(name, info): (String, NameInfo)| {
            let ips: Vec<IpAddr> = info.ips.iter().filter_map(|ip| ip.parse().ok()).collect();
            let v4 = ips.iter().filter_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None }).collect();
            let v6 = ips.iter().filter_map(|ip| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None }).collect();
            let is_kubernetes = info.registry == "Kubernetes";
            // Without an address nothing is known: somebody else may know better.
            (!ips.is_empty()).then(|| (lower(&name).into_boxed_str(), Host { v4, v6, is_kubernetes }))
        };
        let hosts = names.table.into_iter().filter_map(host).collect();
        Self { hosts, namespace: namespace.to_owned(), domain, search: search.map(lower).unwrap_or_default() }
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// True where there is none.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// All names with their addresses, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Vec<IpAddr>)> {
        let addresses = |host: &Host| {
            let v4 = host.v4.iter().copied().map(IpAddr::from);
            v4.chain(host.v6.iter().copied().map(IpAddr::from)).collect()
        };
        self.hosts.iter().map(move |(name, host)| (&**name, addresses(host)))
    }

    /// Looks a name up: in lower case, without the dot at its end.
    pub fn find<'a>(&'a self, name: &'a str) -> Option<Found<'a>> {
        let found = |alias: Option<&'a str>| move |host: &'a Host| Found { alias, v4: &host.v4, v6: &host.v6 };
        if let Some(host) = self.host(name) {
            return Some(found(None)(host));
        }
        // A resolver that tries its search domains first: the alias tells it to stop there.
        let expanded = name.strip_suffix(&self.search).and_then(|rest| rest.strip_suffix('.'));
        let expanded = expanded.filter(|name| !self.search.is_empty() && !name.ends_with(&self.search));
        if let Some((name, host)) =
            expanded.and_then(|name| Some((name, self.host(name).or_else(|| self.wildcard(name))?)))
        {
            return Some(found(Some(name))(host));
        }
        self.wildcard(name).map(found(None))
    }

    /// The host of this name, full or short.
    fn host(&self, name: &str) -> Option<&Host> {
        let kubernetes = |full: String| self.hosts.get(full.as_str()).filter(|host| host.is_kubernetes);
        self.hosts.get(name).or_else(|| self.full(name).find_map(kubernetes))
    }

    /// What a short name may mean in full: `reviews`, or a pod's `db-0.db`, in our own namespace; with a namespace behind it;
    /// with `svc` behind that.
    fn full(&self, name: &str) -> impl Iterator<Item = String> + use<> {
        let Self { namespace, domain, .. } = self;
        let (svc, cluster) = domain.split_once('.').unwrap_or((domain, ""));
        let labels = if domain.is_empty() { 0 } else { name.split('.').count() };
        let ends_so = name.rsplit_once('.').is_some_and(|(_, last)| last == svc);
        let in_cluster = (ends_so && matches!(labels, 3 | 4)).then(|| format!("{name}.{cluster}"));
        let in_namespace = matches!(labels, 2 | 3).then(|| format!("{name}.{domain}"));
        let in_own = matches!(labels, 1 | 2).then(|| format!("{name}.{namespace}.{domain}"));
        [in_cluster, in_namespace, in_own].into_iter().flatten()
    }

    /// `*.example.com` for `a.b.example.com`, the longest first.
    fn wildcard(&self, name: &str) -> Option<&Host> {
        let mut rest = name;
        while let Some((_, shorter)) = rest.split_once('.') {
            rest = shorter;
            if let Some(host) = self.hosts.get(format!("*.{rest}").as_str()) {
                return Some(host);
            }
        }
        None
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn table() -> Table {
        let info = |ips: &[&str], of: &str| {
            let (shortname, namespace) = of.split_once('.').unwrap_or_default();
            NameInfo {
                ips: ips.iter().map(|ip| (*ip).to_owned()).collect(),
                registry: if of.is_empty() { "External".into() } else { "Kubernetes".into() },
                shortname: shortname.into(),
                namespace: namespace.into(),
            }
        };
        let table = [
            ("productpage.ns1.svc.cluster.local", info(&["9.9.9.9"], "productpage.ns1")),
            ("reviews.ns2.svc.cluster.local", info(&["10.10.10.10", "fd00::10"], "reviews.ns2")),
            ("headless.ns1.svc.cluster.local", info(&["1.1.1.1", "1.1.1.2", "1.1.1.3"], "headless.ns1")),
            ("pod-0.headless.ns1.svc.cluster.local", info(&["1.1.1.1"], "pod-0.headless.ns1")),
            ("other.ns1.svc.cluster.remote", info(&["8.8.8.8"], "other.ns1")),
            ("www.google.com", info(&["1.2.3.4"], "")),
            ("*.wildcard.io", info(&["5.5.5.5"], "")),
            ("a.b.wildcard.io", info(&["6.6.6.6"], "")),
            ("bad.example", info(&["nonsense"], "")),
            ("Upper.Example.", info(&["7.7.7.7"], "")),
        ];
        let table = table.map(|(name, info)| (name.to_owned(), info)).into();
        Table::new(NameTable { table }, "ns1", "ns1.svc.cluster.local", Some("ns1.svc.cluster.local"))
    }

    #[test]
    fn names_mean_what_they_mean_in_a_pod() {
        let table = table();
        let v4 = |name: &str| table.find(name).map(|found| (found.alias.map(str::to_owned), found.v4.to_vec()));
        let at = |ip: &str| Some((None, vec![ip.parse().unwrap()]));
        let alias = |name: &str, ip: &str| Some((Some(name.to_owned()), vec![ip.parse().unwrap()]));
        for (name, want) in [
            ("productpage", at("9.9.9.9")),
            ("productpage.ns1", at("9.9.9.9")),
            ("productpage.ns1.svc", at("9.9.9.9")),
            ("productpage.ns1.svc.cluster.local", at("9.9.9.9")),
            ("productpage.ns1.svc.cluster", None),
            ("productpage.ns1.svc.cluster.local.ns1.svc.cluster.local", None),
            ("reviews", None),
            ("reviews.ns2", at("10.10.10.10")),
            ("reviews.ns2.ns1.svc.cluster.local", alias("reviews.ns2", "10.10.10.10")),
            ("pod-0.headless", at("1.1.1.1")),
            ("pod-0.headless.ns1", at("1.1.1.1")),
            ("pod-0.headless.ns1.svc", at("1.1.1.1")),
            ("pod-0.headless.ns1.svc.cluster.local", at("1.1.1.1")),
            ("pod-0", None),
            ("pod-0.headless.ns2", None),
            ("other", None),
            ("other.ns1", None),
            ("other.ns1.svc.cluster.remote", at("8.8.8.8")),
            ("www.google.com", at("1.2.3.4")),
            ("www.google.com.ns1.svc.cluster.local", alias("www.google.com", "1.2.3.4")),
            ("www.google.com.svc.cluster.local", None),
            ("x.wildcard.io", at("5.5.5.5")),
            ("y.x.wildcard.io", at("5.5.5.5")),
            ("wildcard.io", None),
            ("a.b.wildcard.io", at("6.6.6.6")),
            ("x.wildcard.io.ns1.svc.cluster.local", alias("x.wildcard.io", "5.5.5.5")),
            ("bad.example", None),
            ("upper.example", at("7.7.7.7")),
            ("", None),
            (".", None),
        ] {
            assert_eq!(v4(name), want, "{name}");
        }
        assert_eq!(table.find("headless").unwrap().v4.len(), 3);
        assert_eq!(table.find("reviews.ns2").unwrap().v6, ["fd00::10".parse::<Ipv6Addr>().unwrap()]);
    }
}
