//! The rules as iptables writes them: two families, each a text for `iptables-restore --noflush`.

use std::collections::BTreeMap;
use std::fmt;

use super::rules::{Match, Property, Rule, Table, Target, chains};

/// The text for `iptables-restore --noflush`: each table with its new chains and its rules in order.
pub fn render(rules: &[Rule]) -> String {
    let mut text = String::new();
    for (table, lines) in lines(rules) {
        text.push_str(&format!("* {table}\n{}\nCOMMIT\n", lines.join("\n")));
    }
    text
}

/// The lines of each table that has any: its new chains, then its rules.
pub(super) fn lines(rules: &[Rule]) -> BTreeMap<Table, Vec<String>> {
    let mut tables: BTreeMap<Table, Vec<String>> = BTreeMap::new();
    for (table, chain) in chains(rules) {
        tables.entry(table).or_default().push(format!("-N {chain}"));
    }
    for rule in rules {
        let place = match rule.position {
            Some(position) => format!("-I {} {position}", rule.chain),
            None => format!("-A {}", rule.chain),
        };
        tables.entry(rule.table).or_default().push(format!("{place} {}", arguments(rule)));
    }
    tables
}

/// Matches and target of a rule, one space between two words.
pub(super) fn arguments(rule: &Rule) -> String {
    let matches: String = rule.matches.iter().map(|one| format!("{one} ")).collect();
    format!("{matches}-j {}", rule.target)
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = if self.not { "! " } else { "" };
        match &self.property {
            Property::Tcp => write!(f, "{not}-p tcp"),
            Property::Udp => write!(f, "{not}-p udp"),
            Property::In(interface) => write!(f, "{not}-i {interface}"),
            Property::Out(interface) => write!(f, "{not}-o {interface}"),
            Property::Source(range) => write!(f, "{not}-s {range}"),
            Property::Destination(range) => write!(f, "{not}-d {range}"),
            Property::SourcePort(port) => write!(f, "{not}--sport {port}"),
            Property::DestinationPort(port) => write!(f, "{not}--dport {port}"),
            Property::DestinationPorts(ports) => write!(f, "-m multiport {not}--dports {}", ports.join(",")),
            Property::User(user) => write!(f, "-m owner {not}--uid-owner {user}"),
            Property::Group(group) => write!(f, "-m owner {not}--gid-owner {group}"),
            Property::Mark(mark) => write!(f, "-m mark {not}--mark {mark}"),
            Property::ConnectionMark(mark) => write!(f, "-m connmark {not}--mark {mark}"),
            Property::State(states) => write!(f, "-m conntrack {not}--ctstate {states}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Return => f.write_str("RETURN"),
            Self::Accept => f.write_str("ACCEPT"),
            Self::Drop => f.write_str("DROP"),
            Self::Jump(chain) => f.write_str(chain),
            Self::Redirect(port) => write!(f, "REDIRECT --to-ports {port}"),
            Self::Tproxy { port, mark } => write!(f, "TPROXY --tproxy-mark {mark}/0xffffffff --on-port {port}"),
            Self::Mark(mark) => write!(f, "MARK --set-mark {mark}"),
            Self::SaveMark => f.write_str("CONNMARK --save-mark"),
            Self::RestoreMark => f.write_str("CONNMARK --restore-mark"),
            Self::Zone(zone) => write!(f, "CT --zone {zone}"),
        }
    }
}
