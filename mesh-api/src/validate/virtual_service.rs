//! VirtualService: whose traffic it is, and that each rule says one thing that can be done.

pub(super) mod http;
mod reach;

use std::collections::HashSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::at::At;
use super::hosts::{self, HostSet, is_label};
use super::labels::{self, Exported, export_to};
use super::{headers, metadata, namespace, net};
use crate::Severity;
use crate::networking::{
    Destination, L4MatchAttributes, RouteDestination, TcpRoute, TlsMatchAttributes, TlsRoute, VirtualServiceSpec,
};

/// The name of all sidecars among gateways.
const MESH: &str = "mesh";

/// What a rule's checks depend on, beside the rule.
#[derive(Clone, Copy)]
struct Context {
    /// The object has no hosts: others delegate to it.
    delegate: bool,
    /// It was made from a route of the Gateway API, which has checked its destinations.
    converted: bool,
}

pub(super) fn check(at: &At<'_>, metadata: &ObjectMeta, spec: &VirtualServiceSpec) {
    let context = Context {
        delegate: spec.hosts.is_empty(),
        converted: metadata::annotation(metadata, "internal.istio.io/route-semantics") == Some("gateway"),
    };
    if context.delegate {
        delegate(at, spec);
    }
    gateway_names(at, &spec.gateways, context.converted);
    let at_gateways = !spec.gateways.is_empty() && !is_for_mesh(spec);
    if !at_gateways {
        claims_need_gateways(at, spec);
    }
    hosts(at, spec, at_gateways);
    if spec.http.is_empty() && spec.tcp.is_empty() && spec.tls.is_empty() {
        at.error("MissingRoute", "http, tcp or tls must be provided in virtual service; add a rule");
    }
    at.each("http", &spec.http, |at, route| http::route(at, route, context));
    let host_set = HostSet::new(&spec.hosts);
    at.each("tls", &spec.tls, |at, route| tls_route(at, route, spec, &host_set, context));
    at.each("tcp", &spec.tcp, |at, route| tcp_route(at, route, context));
    export_to(at, namespace(metadata), &spec.export_to, Exported::Rule);
    reach::check(at, spec);
}

fn is_for_mesh(spec: &VirtualServiceSpec) -> bool {
    spec.gateways.iter().any(|gateway| gateway == MESH)
}

fn delegate(at: &At<'_>, spec: &VirtualServiceSpec) {
    for (field, there, what) in [
        ("gateways", !spec.gateways.is_empty(), "gateways"),
        ("tls", !spec.tls.is_empty(), "tls route"),
        ("tcp", !spec.tcp.is_empty(), "tcp route"),
    ] {
        if there {
            let message = format!("delegate virtual service must have no {what} specified; remove it, or add hosts");
            at.field(field).error("InvalidDelegate", message);
        }
    }
}

/// Gateways by `namespace/name` or `name`. As Istio looks no further than the first that has no namespace, mistakes after
/// it are warnings.
fn gateway_names(at: &At<'_>, names: &[String], converted: bool) {
    let at = at.field("gateways");
    let mut severity = Severity::Error;
    for (index, name) in names.iter().enumerate() {
        let at = at.index(index);
        let problem = match name.split_once('/') {
            None => {
                if let Some((gateway, rest)) = name.split_once('.') {
                    let namespace = rest.split('.').next().unwrap_or_default();
                    at.warning(
                        "DeprecatedName",
                        format!(
                            "using legacy gatewayName format {name:?}; prefer the <namespace>/<name> format: \"{namespace}/{gateway}\""
                        ),
                    );
                }
                hosts::fqdn(name)
            }
            Some((namespace, _)) if !is_label(namespace) => {
                Err(format!("invalid value for namespace: {namespace:?}; write namespace/name"))
            }
            Some((_, gateway)) if !is_label(gateway) && (gateway.is_empty() || !converted) => {
                Err(format!("invalid value for gateway name: {gateway:?}; write namespace/name"))
            }
            Some(_) => Ok(()),
        };
        match problem {
            Err(message) if severity == Severity::Error => at.error("InvalidGateway", message),
            Err(message) => at.warning("InvalidGateway", message),
            Ok(()) => {}
        }
        if !name.contains('/') {
            severity = Severity::Warning;
        }
    }
}

fn claims_need_gateways(at: &At<'_>, spec: &VirtualServiceSpec) {
    at.each("http", &spec.http, |at, route| {
        at.each("match", &route.r#match, |at, found| {
            for (field, headers) in [("headers", &found.headers), ("withoutHeaders", &found.without_headers)] {
                for name in headers.keys().filter(|name| headers::is_routing_claim(name)) {
                    let message = format!(
                        "JWT claim based routing (key: {name}) is only supported for gateway, found gateways {:?}; name gateways other than mesh",
                        spec.gateways
                    );
                    at.field(field).field(name).error("InvalidMatch", message);
                }
            }
        });
    });
}

fn hosts(at: &At<'_>, spec: &VirtualServiceSpec, at_gateways: bool) {
    let sni = spec.tls.iter().any(|route| route.r#match.iter().any(|found| !found.sni_hosts.is_empty()));
    let mut all_valid = true;
    at.each("hosts", &spec.hosts, |at, host| {
        let result = if at_gateways { hosts::gateway_domain(host, sni) } else { hosts::wildcard_domain(host) };
        let problem = match result {
            Err(_) if net::is_ip(host) => None,
            Err(message) => Some(message),
            Ok(()) if !at_gateways && host == "*" => Some(
                "wildcard host * is not allowed for virtual services bound to the mesh gateway; name hosts, or gateways other than mesh"
                    .to_owned(),
            ),
            Ok(()) => None,
        };
        if let Some(message) = problem {
            all_valid = false;
            at.error("InvalidHost", message);
        }
    });
    if all_valid && spec.hosts.len() > 1 {
        duplicates(at, &spec.hosts);
    }
}

/// No host may stand for another one, be it by a wildcard.
fn duplicates(at: &At<'_>, hosts: &[String]) {
    let set = HostSet::new(hosts);
    let mut seen = HashSet::new();
    at.each("hosts", hosts, |at, host| {
        let other = if !seen.insert(host.clone()) {
            host.clone()
        } else if let Some(suffix) = set.wildcard_over(host, false) {
            format!("*{suffix}")
        } else {
            return;
        };
        at.error("DuplicateHost", format!("duplicate hosts in virtual service: {other} & {host}; remove one of them"));
    });
}

fn tls_route(at: &At<'_>, route: &TlsRoute, spec: &VirtualServiceSpec, hosts: &HostSet<'_>, context: Context) {
    if route.r#match.is_empty() {
        at.error("MissingMatch", "TLS route must have at least one match condition; add one with sniHosts");
    }
    at.each("match", &route.r#match, |at, found| tls_match(at, found, spec, hosts));
    if route.route.is_empty() {
        at.error("MissingRoute", "TLS route is required; add a destination");
    }
    destinations(at, &route.route, context);
}

fn tls_match(at: &At<'_>, found: &TlsMatchAttributes, spec: &VirtualServiceSpec, hosts: &HostSet<'_>) {
    if found.sni_hosts.is_empty() {
        at.error("MissingHost", "TLS match must have at least one SNI host; add it to sniHosts");
    }
    at.each("sniHosts", &found.sni_hosts, |at, host| sni_host(at, host, spec, hosts));
    let TlsMatchAttributes { destination_subnets, port, source_labels, gateways, .. } = found;
    connection(at, destination_subnets, *port, gateways);
    labels::labels(at, "sourceLabels", source_labels);
}

fn sni_host(at: &At<'_>, host: &str, spec: &VirtualServiceSpec, hosts: &HostSet<'_>) {
    match hosts::gateway_domain(host, !is_for_mesh(spec)) {
        Err(_) if net::is_ip(host) => at.warning(
            "InvalidHost",
            format!("using an IP address ({host:?}) goes against SNI spec and most clients do not support this; write a name"),
        ),
        Err(message) => at.error("InvalidHost", message),
        Ok(()) if !hosts.covers(host) => at.error(
            "InvalidHost",
            format!(
                "SNI host {host:?} is not a compatible subset of any of the virtual service hosts: [{}]; add it there",
                spec.hosts.join(", ")
            ),
        ),
        Ok(()) => {}
    }
}

fn tcp_route(at: &At<'_>, route: &TcpRoute, context: Context) {
    at.each("match", &route.r#match, |at, found| {
        let L4MatchAttributes { destination_subnets, port, source_labels, gateways, .. } = found;
        connection(at, destination_subnets, *port, gateways);
        labels::labels(at, "sourceLabels", source_labels);
    });
    if route.route.is_empty() {
        at.error("MissingRoute", "TCP route is required; add a destination");
    }
    destinations(at, &route.route, context);
}

/// What TLS and TCP matches share.
fn connection(at: &At<'_>, subnets: &[String], port: u32, gateways: &[String]) {
    at.each("destinationSubnets", subnets, |at, subnet| at.check("InvalidAddress", net::subnet(subnet)));
    if port != 0 {
        at.field("port").check("InvalidPort", net::port(port));
    }
    gateway_names(at, gateways, false);
}

fn destinations(at: &At<'_>, list: &[RouteDestination], context: Context) {
    at.each("route", list, |at, share| {
        destination(&at.field("destination"), &share.destination, context);
        weight(at, share.weight);
    });
    total_weight(at, list.iter().map(|share| share.weight));
}

fn weight(at: &At<'_>, weight: i32) {
    if weight < 0 {
        at.field("weight").error("InvalidWeight", format!("weight {weight} < 0; write 0 or more"));
    }
}

fn total_weight(at: &At<'_>, weights: impl ExactSizeIterator<Item = i32>) {
    // Summed up as Istio does, which wraps around.
    if weights.len() > 1 && weights.fold(0, i32::wrapping_add) == 0 {
        at.field("route").error("InvalidWeight", "total destination weight = 0; give destinations weights");
    }
}

fn destination(at: &At<'_>, destination: &Destination, context: Context) {
    if *destination == Destination::default() {
        at.error("MissingHost", "destination is required; name its host");
    } else if !context.converted {
        service(at, destination);
    }
}

/// A service that traffic goes to.
pub(super) fn service(at: &At<'_>, destination: &Destination) {
    let host = match destination.host.as_str() {
        "*" => Err("invalid destination host *; name a service".to_owned()),
        host => hosts::wildcard_domain(host),
    };
    at.field("host").check("InvalidHost", host);
    if !destination.subset.is_empty() {
        subset_name(at, "subset", &destination.subset);
    }
    if let Some(port) = &destination.port {
        at.field("port").field("number").check("InvalidPort", net::port(port.number));
    }
}

/// The name of a subset.
pub(super) fn subset_name(at: &At<'_>, field: &str, name: &str) {
    if name.is_empty() {
        at.field(field).error("MissingSubsetName", "subset name cannot be empty; name the subset");
    } else if !is_label(name) {
        at.field(field).error(
            "InvalidSubset",
            format!("subset name is invalid: {name:?} is not a DNS label: up to 63 letters, digits and -"),
        );
    }
}

#[cfg(test)]
mod tests;
