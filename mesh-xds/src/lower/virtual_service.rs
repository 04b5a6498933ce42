//! VirtualServices. A rule that can't be used as written is left out as a whole and named: half a rule could send
//! requests where nobody meant them to go. All other rules of the object stay in force.

mod http;
mod policy;

use std::collections::BTreeMap;

use mesh_api::networking::{self, HttpRetry, L4MatchAttributes, TcpRoute, TlsMatchAttributes, TlsRoute};
use mesh_api::types::StringMatch;
use mesh_api::{Diagnostic, Hostname, Name, ObjectRef};

use super::{Told, created};
use crate::model::virtual_service::{
    Destination, L4Destination, MESH_GATEWAY, Retries, RulePath, Semantics, Source, TcpMatch, TcpRule, TextMatch,
    TlsMatch, TlsRule, VirtualService,
};
use crate::model::{Settings, Visibility};
use crate::net::Cidr;
use crate::re2;

/// Set on VirtualServices that stand for another API: `ingress` or `gateway`.
const ROUTE_SEMANTICS: &str = "internal.istio.io/route-semantics";

/// Lowers a VirtualService.
pub(crate) fn virtual_service(
    object: &networking::VirtualService,
    settings: &Settings,
) -> (VirtualService, Vec<Diagnostic>) {
    let metadata = &object.metadata;
    let spec = &object.spec;
    let source = ObjectRef::new(
        "VirtualService",
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    );
    let semantics = match metadata.annotations.as_ref().and_then(|a| a.get(ROUTE_SEMANTICS)).map(String::as_str) {
        Some("ingress") => Semantics::Ingress,
        Some("gateway") => Semantics::Gateway,
        _ => Semantics::Istio,
    };
    let mut lower =
        Lower { settings, namespace: &source.namespace, semantics, told: Told::about(&source), usable: true };
    let mut hosts = Vec::with_capacity(spec.hosts.len());
    for (i, host) in spec.hosts.iter().enumerate() {
        let full = lower.host(host);
        if host.is_empty() || host.contains('/') {
            lower.told.error("InvalidHost", format!("spec.hosts[{i}]"), format!("{host:?} is no host; it is left out"));
        } else if !hosts.contains(&full) {
            hosts.push(full);
        }
    }
    if spec.hosts.is_empty() {
        for (name, rules) in [("tls", spec.tls.len()), ("tcp", spec.tcp.len())] {
            if rules > 0 {
                lower.told.unsupported(format!("spec.{name}"), "a delegate (no hosts) has only http rules");
            }
        }
    }
    let mut gateways = lower.gateways(&spec.gateways);
    if gateways.is_empty() {
        gateways.push(Name::from(MESH_GATEWAY));
    }
    let http = spec.http.iter().enumerate().filter_map(|(i, rule)| lower.http_rule(i, rule)).collect();
    let tls = spec.tls.iter().enumerate().filter_map(|(i, rule)| lower.tls_rule(i, rule)).collect();
    let tcp = spec.tcp.iter().enumerate().filter_map(|(i, rule)| lower.tcp_rule(i, rule)).collect();
    let row = VirtualService {
        created: created(metadata),
        hosts,
        gateways,
        export_to: Visibility::parse(&spec.export_to, &source.namespace),
        semantics,
        http,
        tls,
        tcp,
        namespace: source.namespace.clone(),
        name: source.name.clone(),
    };
    (row, lower.told.diagnostics)
}

/// `defaultHttpRetryPolicy` of the mesh. What can't be used of it is left out; the mesh's own settings are checked where
/// they are read.
pub(crate) fn mesh_retries(settings: &Settings) -> Option<Retries> {
    retries_of(settings, "defaultHttpRetryPolicy", settings.mesh.default_http_retry_policy.as_ref()?)
}

/// `defaultInboundHttpRetryPolicy` of the mesh, as [`mesh_retries`].
pub(crate) fn mesh_inbound_retries(settings: &Settings) -> Option<Retries> {
    retries_of(settings, "defaultInboundHttpRetryPolicy", settings.mesh.default_inbound_http_retry_policy.as_ref()?)
}

fn retries_of(settings: &Settings, field: &str, written: &HttpRetry) -> Option<Retries> {
    let source = ObjectRef::new("MeshConfig", "", "");
    let namespace = Name::default();
    let told = Told::about(&source);
    let mut lower = Lower { settings, namespace: &namespace, semantics: Semantics::Istio, told, usable: true };
    let retries = lower.retries(written, field);
    lower.usable.then_some(retries)
}

/// One object on its way. `usable` is that of the rule in hand.
struct Lower<'o> {
    settings: &'o Settings,
    namespace: &'o Name,
    semantics: Semantics,
    told: Told<'o>,
    usable: bool,
}

impl Lower<'_> {
    /// The rule in hand can't be used.
    fn wrong(&mut self, code: &'static str, path: impl Into<String>, message: impl AsRef<str>) {
        self.usable = false;
        self.told.error(code, path, format!("{}; the rule is left out", message.as_ref()));
    }

    fn host(&self, host: &str) -> Hostname {
        if self.semantics == Semantics::Gateway || host.parse::<std::net::IpAddr>().is_ok() {
            host.into()
        } else {
            self.settings.resolve_short_name(host, self.namespace)
        }
    }

    /// `name`, `namespace/name`, `./name` and the old `name.namespace.svc…` all become `namespace/name`.
    fn gateways(&self, written: &[String]) -> Vec<Name> {
        let full = |gateway: &String| {
            if gateway == MESH_GATEWAY {
                Name::from(MESH_GATEWAY)
            } else if let Some((namespace, name)) = gateway.split_once('/') {
                let namespace = if namespace == "." { self.namespace } else { namespace };
                Name::from(format!("{namespace}/{name}"))
            } else {
                let mut parts = gateway.split('.');
                let name = parts.next().unwrap_or_default();
                Name::from(format!("{}/{name}", parts.next().unwrap_or(self.namespace)))
            }
        };
        written.iter().map(full).collect()
    }

    fn source(&self, labels: &BTreeMap<String, String>, namespace: &str, gateways: &[String]) -> Source {
        Source {
            labels: crate::model::service::labels(Some(labels)),
            namespace: namespace.into(),
            gateways: self.gateways(gateways),
        }
    }

    /// A port to match; 0 means any.
    fn match_port(&mut self, port: u32, path: &str) -> Option<u16> {
        if port == 0 { None } else { self.port(port, &format!("{path}.port")) }
    }

    fn port(&mut self, port: u32, path: &str) -> Option<u16> {
        match u16::try_from(port) {
            Ok(port) if port > 0 => Some(port),
            _ => {
                self.wrong("InvalidPort", path, format!("port {port} is not within 1..65535"));
                None
            }
        }
    }

    fn destination(&mut self, written: &networking::Destination, path: &str) -> Destination {
        let host = &written.host;
        if (host.is_empty() && self.semantics != Semantics::Gateway) || host == "*" || host.contains(['/', '|']) {
            self.wrong("InvalidHost", format!("{path}.host"), format!("{host:?} is no host to send to"));
        }
        if written.subset.contains('|') {
            let message = format!("{:?} is no name of a subset", written.subset);
            self.wrong("InvalidSubset", format!("{path}.subset"), message);
        }
        let port = written.port.as_ref().and_then(|p| self.port(p.number, &format!("{path}.port.number")));
        Destination { host: self.host(host), subset: written.subset.as_str().into(), port }
    }

    /// Weights must be usable together: none negative, and of several some above 0.
    fn weights(&mut self, weights: &[i32], path: &str) {
        for (i, weight) in weights.iter().enumerate().filter(|(_, weight)| **weight < 0) {
            let path = format!("{path}.route[{i}].weight");
            self.wrong("InvalidWeight", path, format!("the weight {weight} is negative"));
        }
        let total: i64 = weights.iter().map(|w| i64::from(*w)).sum();
        let path = format!("{path}.route");
        if weights.len() > 1 && total == 0 {
            self.wrong("InvalidWeight", path, "no destination has a weight above 0");
        } else if total > i64::from(u32::MAX) {
            self.wrong("InvalidWeight", path, format!("the weights add up to more than {}", u32::MAX));
        }
    }

    /// A text match; only paths may begin with nothing.
    fn text_match(&mut self, written: &StringMatch, path: &str) -> TextMatch {
        match written {
            StringMatch::Present => TextMatch::Present,
            StringMatch::Exact(text) => TextMatch::Exact(text.as_str().into()),
            StringMatch::Prefix(text) => {
                if text.is_empty() && !path.ends_with(".uri") {
                    self.wrong("InvalidMatch", format!("{path}.prefix"), "an empty prefix matches everything");
                }
                TextMatch::Prefix(text.as_str().into())
            }
            // Not RE2, but Istio's way to ask whether something is there.
            StringMatch::Regex(text) if text == "*" => TextMatch::Present,
            StringMatch::Regex(text) => {
                self.regex(text, &format!("{path}.regex"));
                TextMatch::Regex(text.as_str().into())
            }
        }
    }

    fn regex(&mut self, pattern: &str, path: &str) {
        if let Err(why) = re2::compile(pattern) {
            self.wrong("InvalidRegex", path, format!("{pattern:?} is no RE2 expression: {why}"));
        }
    }

    fn subnets(&mut self, written: &[String], path: &str) -> Vec<Name> {
        let mut out = Vec::with_capacity(written.len());
        for (i, subnet) in written.iter().enumerate() {
            match Cidr::parse(subnet) {
                Some(cidr) => out.push(Name::from(cidr.to_string())),
                None => {
                    let path = format!("{path}.destinationSubnets[{i}]");
                    self.wrong("InvalidAddress", path, format!("{subnet:?} is neither an IP address nor a CIDR"));
                }
            }
        }
        out
    }

    fn l4_route(&mut self, written: &[networking::RouteDestination], path: &str) -> Vec<L4Destination> {
        if written.is_empty() {
            self.wrong("NoDestination", format!("{path}.route"), "the rule has no destination");
        }
        self.weights(&written.iter().map(|d| d.weight).collect::<Vec<_>>(), path);
        let mut out = Vec::with_capacity(written.len());
        for (i, d) in written.iter().enumerate() {
            out.push(L4Destination {
                destination: self.destination(&d.destination, &format!("{path}.route[{i}].destination")),
                weight: u32::try_from(d.weight).unwrap_or_default(),
            });
        }
        out
    }

    fn tls_rule(&mut self, index: usize, rule: &TlsRoute) -> Option<TlsRule> {
        self.usable = true;
        let path = format!("spec.tls[{index}]");
        if rule.r#match.is_empty() {
            self.wrong("NoMatch", format!("{path}.match"), "a TLS rule needs the server names that it is for");
        }
        let matches = rule.r#match.iter().enumerate().map(|(i, m)| self.tls_match(i, m, &path)).collect();
        let route = self.l4_route(&rule.route, &path);
        self.usable.then(|| TlsRule { path: RulePath::new(index), matches, route })
    }

    fn tls_match(&mut self, index: usize, m: &TlsMatchAttributes, rule: &str) -> TlsMatch {
        let path = format!("{rule}.match[{index}]");
        if m.sni_hosts.is_empty() {
            self.wrong("NoMatch", format!("{path}.sniHosts"), "a TLS rule needs the server names that it is for");
        }
        for (i, host) in m.sni_hosts.iter().enumerate() {
            let rest = host.strip_prefix("*.").unwrap_or(host);
            if host != "*" && (rest.is_empty() || rest.contains('*')) {
                let path = format!("{path}.sniHosts[{i}]");
                let message =
                    format!("{host:?} is no server name: a wildcard can only be the first part, `*.example.com`");
                self.wrong("InvalidHost", path, message);
            }
        }
        TlsMatch {
            index,
            sni_hosts: m.sni_hosts.iter().map(Hostname::from).collect(),
            destination_subnets: self.subnets(&m.destination_subnets, &path),
            port: self.match_port(m.port, &path),
            source: self.source(&m.source_labels, &m.source_namespace, &m.gateways),
        }
    }

    fn tcp_rule(&mut self, index: usize, rule: &TcpRoute) -> Option<TcpRule> {
        self.usable = true;
        let path = format!("spec.tcp[{index}]");
        let matches = rule.r#match.iter().enumerate().map(|(i, m)| self.tcp_match(i, m, &path)).collect();
        let route = self.l4_route(&rule.route, &path);
        self.usable.then(|| TcpRule { path: RulePath::new(index), matches, route })
    }

    fn tcp_match(&mut self, index: usize, m: &L4MatchAttributes, rule: &str) -> TcpMatch {
        let path = format!("{rule}.match[{index}]");
        if !m.source_subnet.is_empty() {
            self.told
                .unsupported(format!("{path}.sourceSubnet"), "clients are not matched by address, in Istio neither");
        }
        TcpMatch {
            index,
            destination_subnets: self.subnets(&m.destination_subnets, &path),
            port: self.match_port(m.port, &path),
            source: self.source(&m.source_labels, &m.source_namespace, &m.gateways),
        }
    }
}

#[cfg(test)]
mod tests;
