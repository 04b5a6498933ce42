//! Which connections are looked into: TLS and HTTP inspectors, on exactly the ports whose chains need them. Where the
//! server speaks first, looking would only wait.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::listener::v3::{
    FilterChain, ListenerFilter, ListenerFilterChainMatchPredicate,
    listener_filter_chain_match_predicate::{MatchSet, Rule},
};
use envoy_types::pb::envoy::r#type::v3::Int32Range;

use crate::build::{http_inspector, tls_inspector};

#[derive(Clone, Copy, Default)]
struct Needs {
    tls: bool,
    http: bool,
}

/// The inspectors that chains need.
pub(super) fn inspectors(chains: &[FilterChain]) -> Vec<ListenerFilter> {
    let mut ports: BTreeMap<i32, Needs> = BTreeMap::new();
    for matched in chains.iter().filter_map(|c| c.filter_chain_match.as_ref()) {
        let port = matched.destination_port.map_or(0, |p| i32::try_from(p.value).unwrap_or(0));
        let needs = ports.entry(port).or_default();
        needs.tls |= matched.transport_protocol == "tls";
        needs.http |= matched.application_protocols.iter().any(|p| p == "http/1.1" || p == "h2c");
    }
    let mut out = Vec::new();
    // The HTTP inspector leaves alone what the TLS inspector has recognised, so it comes second.
    out.extend(inspector(&ports, |needs| needs.tls, tls_inspector));
    out.extend(inspector(&ports, |needs| needs.http, http_inspector));
    out
}

fn inspector(
    ports: &BTreeMap<i32, Needs>,
    needed: impl Fn(&Needs) -> bool,
    filter: impl Fn() -> ListenerFilter,
) -> Option<ListenerFilter> {
    if !ports.values().any(&needed) {
        return None;
    }
    // Port 0 stands for all ports that no chain names.
    let everywhere = ports.get(&0).is_some_and(&needed);
    let named = ports.iter().filter(|(port, needs)| **port != 0 && needed(needs) != everywhere);
    let except: Vec<i32> = named.map(|(port, _)| *port).collect();
    let filter_disabled = match (any_of(&except), everywhere) {
        (None, _) => None,
        (Some(unneeded), true) => Some(unneeded),
        (Some(needed), false) => {
            Some(ListenerFilterChainMatchPredicate { rule: Some(Rule::NotMatch(Box::new(needed))) })
        }
    };
    Some(ListenerFilter { filter_disabled, ..filter() })
}

fn any_of(ports: &[i32]) -> Option<ListenerFilterChainMatchPredicate> {
    let mut rules: Vec<_> = ports
        .iter()
        .map(|port| ListenerFilterChainMatchPredicate {
            rule: Some(Rule::DestinationPortRange(Int32Range { start: *port, end: port + 1 })),
        })
        .collect();
    match rules.len() {
        0 | 1 => rules.pop(),
        _ => Some(ListenerFilterChainMatchPredicate { rule: Some(Rule::OrMatch(MatchSet { rules })) }),
    }
}
