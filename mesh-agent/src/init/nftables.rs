//! The rules as nftables writes them: one script for `nft -f -`, which the kernel takes as a whole or not at all.
//!
//! Each family has a table of ours with all chains, named by what iptables calls table and chain: `nat-istio-output`. The
//! script deletes the table and writes it anew, so it says the same however often it runs, and nothing of others is touched.
//! Two tables and not one of family `inet`: a pod without an IPv6 address has no rules for IPv6, as with iptables.

use std::collections::BTreeMap;

use super::rules::{Family, Match, Property, Rule, Rules, Table, Target, chains};

/// The name of our tables.
const TABLE: &str = "istio-proxy";

/// The script that sets these rules in place of those of an earlier run. A family without rules isn't named.
pub fn script(rules: &Rules) -> String {
    let families = of_families(rules);
    families.map(|(family, rules)| removal_of(family) + &table(family, rules)).collect()
}

/// The script that removes what [`script`] set, or nothing.
pub fn removal(rules: &Rules) -> String {
    of_families(rules).map(|(family, _)| removal_of(family)).collect()
}

fn of_families(rules: &Rules) -> impl Iterator<Item = (Family, &[Rule])> {
    let families = [(Family::V4, rules.v4.as_slice()), (Family::V6, rules.v6.as_slice())];
    families.into_iter().filter(|(_, rules)| !rules.is_empty())
}

/// A family of addresses, as nft calls it.
fn word(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// Deleting what isn't there would fail, so it is added first.
fn removal_of(family: Family) -> String {
    let family = word(family);
    format!("add table {family} {TABLE}\ndelete table {family} {TABLE}\n")
}

fn table(family: Family, rules: &[Rule]) -> String {
    let mut text = format!("table {} {TABLE} {{\n", word(family));
    for ((table, name), rules) in in_order(rules) {
        text.push_str(&format!("\tchain {} {{\n", chain(table, name)));
        if let Some(hook) = hook(table, name) {
            text.push_str(&format!("\t\t{hook}\n"));
        }
        for rule in rules {
            for line in lines(family, rule) {
                text.push_str(&format!("\t\t{line}\n"));
            }
        }
        text.push_str("\t}\n");
    }
    text + "}\n"
}

/// All chains with their rules as packets meet them: a rule with a position is where it belongs.
fn in_order(rules: &[Rule]) -> Vec<((Table, &'static str), Vec<&Rule>)> {
    let mut by_chain: BTreeMap<(Table, &'static str), Vec<&Rule>> = BTreeMap::new();
    for rule in rules {
        let chain = by_chain.entry((rule.table, rule.chain)).or_default();
        let place = rule.position.map_or(chain.len(), |position| position.saturating_sub(1).min(chain.len()));
        chain.insert(place, rule);
    }
    for chain in chains(rules) {
        by_chain.entry(chain).or_default();
    }
    by_chain.into_iter().collect()
}

fn chain(table: Table, name: &str) -> String {
    format!("{table}-{}", name.to_ascii_lowercase().replace('_', "-"))
}

/// Where the kernel enters a chain: what iptables does for the chain of that name. Numbers, as nft knows the names of
/// priorities by hook and family.
fn hook(table: Table, name: &str) -> Option<String> {
    let hook = match name {
        "PREROUTING" => "prerouting",
        "OUTPUT" => "output",
        _ => return None,
    };
    let (kind, priority) = match table {
        // A mark set on the way out changes the route.
        Table::Mangle if hook == "output" => ("route", -150),
        Table::Mangle => ("filter", -150),
        Table::Nat => ("nat", -100),
        Table::Raw => ("filter", -300),
    };
    Some(format!("type {kind} hook {hook} priority {priority}; policy accept;"))
}

/// A rule, as one line or two.
fn lines(family: Family, rule: &Rule) -> Vec<String> {
    let matches: String = rule.matches.iter().map(|one| format!("{} ", matching(family, one))).collect();
    let mut lines = vec![format!("{matches}counter {}", target(rule))];
    if matches!(rule.target, Target::Tproxy { .. }) {
        // Where nobody listens, nft goes on with the next rule: the packet would reach the application past Envoy.
        lines.push(format!("{matches}counter drop"));
    }
    lines
}

fn matching(family: Family, Match { property, not }: &Match) -> String {
    let family = word(family);
    let (what, value) = match property {
        Property::Tcp => ("meta l4proto".to_owned(), "tcp".to_owned()),
        Property::Udp => ("meta l4proto".into(), "udp".into()),
        Property::In(interface) => ("iifname".into(), pattern(interface)),
        Property::Out(interface) => ("oifname".into(), pattern(interface)),
        Property::Source(range) => (format!("{family} saddr"), range.clone()),
        Property::Destination(range) => (format!("{family} daddr"), range.clone()),
        Property::SourcePort(port) => ("th sport".into(), range(port)),
        Property::DestinationPort(port) => ("th dport".into(), range(port)),
        Property::DestinationPorts(ports) => {
            let ports: Vec<String> = ports.iter().map(|port| range(port)).collect();
            ("th dport".into(), format!("{{ {} }}", ports.join(", ")))
        }
        Property::User(user) => ("meta skuid".into(), user.clone()),
        Property::Group(group) => ("meta skgid".into(), group.clone()),
        Property::Mark(mark) => ("meta mark".into(), mark.clone()),
        Property::ConnectionMark(mark) => ("ct mark".into(), mark.clone()),
        Property::State(states) => ("ct state".into(), states.to_ascii_lowercase()),
    };
    format!("{what} {}{value}", if *not { "!= " } else { "" })
}

/// The name of an interface; iptables has `+` for whatever follows.
fn pattern(interface: &str) -> String {
    match interface.strip_suffix('+') {
        Some(beginning) => format!("\"{beginning}*\""),
        None => format!("\"{interface}\""),
    }
}

/// Ports; iptables has `:` between first and last, either of which may be left out.
fn range(ports: &str) -> String {
    let Some((first, last)) = ports.split_once(':') else { return ports.to_owned() };
    let or = |port: &str, all: &str| if port.is_empty() { all.to_owned() } else { port.to_owned() };
    format!("{}-{}", or(first, "0"), or(last, "65535"))
}

fn target(rule: &Rule) -> String {
    match &rule.target {
        Target::Return => "return".into(),
        Target::Accept => "accept".into(),
        Target::Drop => "drop".into(),
        Target::Jump(name) => format!("jump {}", chain(rule.table, name)),
        Target::Redirect(port) => format!("redirect to :{port}"),
        Target::Tproxy { port, mark } => format!("tproxy to :{port} meta mark set {mark} accept"),
        Target::Mark(mark) => format!("meta mark set {mark}"),
        Target::SaveMark => "ct mark set meta mark".into(),
        Target::RestoreMark => "meta mark set ct mark".into(),
        Target::Zone(zone) => format!("ct zone set {zone}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_ports_may_be_open() {
        for (ports, want) in [("80", "80"), ("80:90", "80-90"), ("1024:", "1024-65535"), (":1023", "0-1023")] {
            assert_eq!(range(ports), want);
        }
    }
}
