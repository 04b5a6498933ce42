//! The rules themselves, in the order in which packets must meet them. Pure: the same [`Config`] gives the same rules.
//!
//! The journey of a packet. Outbound: `OUTPUT` jumps to `ISTIO_OUTPUT`, which lets the proxy's own and local traffic
//! pass and sends the rest to Envoy's outbound port. Inbound: `PREROUTING` jumps to `ISTIO_INBOUND`, which picks the
//! captured ports. `127.0.0.6` and `::6` are the source addresses of Envoy's connections to the application.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Cidr, Config, Owner};

const INBOUND: &str = "ISTIO_INBOUND";
const OUTPUT: &str = "ISTIO_OUTPUT";
const OUTPUT_DNS: &str = "ISTIO_OUTPUT_DNS";
const REDIRECT: &str = "ISTIO_REDIRECT";
const IN_REDIRECT: &str = "ISTIO_IN_REDIRECT";
const DIVERT: &str = "ISTIO_DIVERT";
const TPROXY: &str = "ISTIO_TPROXY";
const DROP: &str = "ISTIO_DROP";
/// Where the agent answers DNS.
const DNS_PORT: &str = "15053";
/// On packets from Envoy's outbound side to the pod's own address, which the inbound side must see.
const OUTBOUND_MARK: &str = "1338";

/// A table of iptables, in the order of the rendered text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// `mangle`
    Mangle,
    /// `nat`
    Nat,
    /// `raw`
    Raw,
}

impl Table {
    /// All tables that rules are made for.
    pub const ALL: [Self; 3] = [Self::Mangle, Self::Nat, Self::Raw];

    /// The table's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mangle => "mangle",
            Self::Nat => "nat",
            Self::Raw => "raw",
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The table.
    pub table: Table,
    /// The chain, one of the kernel's or one of `ISTIO_*`.
    pub chain: &'static str,
    /// Where in the chain, from 1; `None` for its end.
    pub position: Option<u32>,
    /// Matches and target.
    pub text: String,
}

impl Rule {
    /// The chain that the rule jumps to, if it is one of ours.
    pub(super) fn jump(&self) -> Option<&str> {
        let target = self.text.split_once("-j ")?.1;
        (target.starts_with("ISTIO_") && !target.contains(' ')).then_some(target)
    }

    /// True for a rule in one of the kernel's own chains.
    pub fn in_builtin_chain(&self) -> bool {
        !self.chain.starts_with("ISTIO_")
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some(position) => write!(f, "-I {} {position} {}", self.chain, self.text),
            None => write!(f, "-A {} {}", self.chain, self.text),
        }
    }
}

/// The rules of both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// For iptables.
    pub v4: Vec<Rule>,
    /// For ip6tables; empty where the pod has no IPv6 address.
    pub v6: Vec<Rule>,
}

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
        tables.entry(rule.table).or_default().push(rule.to_string());
    }
    tables
}

/// Chains of ours: those with rules, and those that are only jumped to.
pub(super) fn chains(rules: &[Rule]) -> Vec<(Table, String)> {
    let mut seen = BTreeSet::new();
    let with_rules = rules.iter().filter(|r| !r.in_builtin_chain()).map(|r| (r.table, r.chain.to_owned()));
    let jumped_to = rules.iter().filter_map(|r| Some((r.table, r.jump()?.to_owned())));
    with_rules.chain(jumped_to).filter(|chain| seen.insert(chain.clone())).collect()
}

/// All rules for this configuration.
pub fn rules(config: &Config) -> Rules {
    let mut b = Builder { config, rules: Rules::default() };
    b.leave_interfaces_alone();
    b.drop_invalid();
    b.targets();
    b.inbound();
    b.both(Table::Nat, "OUTPUT", format!("-j {OUTPUT}"));
    b.outbound();
    b.tproxy_marks();
    b.rules
}

#[derive(Clone, Copy, PartialEq)]
enum Family {
    V4,
    V6,
}

use Family::{V4, V6};
use Table::{Mangle, Nat, Raw};

struct Builder<'a> {
    config: &'a Config,
    rules: Rules,
}

impl<'a> Builder<'a> {
    fn add(&mut self, family: Family, table: Table, chain: &'static str, position: Option<u32>, text: String) {
        let rule = Rule { table, chain, position, text };
        match family {
            V4 => self.rules.v4.push(rule),
            V6 if self.config.pod.ipv6 => self.rules.v6.push(rule),
            V6 => {}
        }
    }

    fn one(&mut self, family: Family, table: Table, chain: &'static str, text: String) {
        self.add(family, table, chain, None, text);
    }

    fn both(&mut self, table: Table, chain: &'static str, text: String) {
        self.one(V4, table, chain, text.clone());
        self.one(V6, table, chain, text);
    }

    /// A rule that names the loopback address of its family.
    fn with_loopback(&mut self, table: Table, chain: &'static str, text: impl Fn(&str) -> String) {
        let v4 = self.config.loopback_v4.to_string();
        self.one(V4, table, chain, text(&v4));
        self.one(V6, table, chain, text("::1/128"));
    }

    fn leave_interfaces_alone(&mut self) {
        let config = self.config;
        for table in [Nat, Mangle].into_iter().filter(|table| *table == Nat || config.tproxy) {
            for interface in &config.excluded_interfaces {
                self.both(table, "PREROUTING", format!("-i {interface} -j RETURN"));
                self.both(table, "OUTPUT", format!("-o {interface} -j RETURN"));
            }
        }
        for interface in &config.virtual_interfaces {
            for family in [V4, V6] {
                self.add(family, Nat, "PREROUTING", Some(1), format!("-i {interface} -j RETURN"));
            }
        }
    }

    fn drop_invalid(&mut self) {
        if self.config.drop_invalid {
            self.both(Mangle, "PREROUTING", format!("-m conntrack --ctstate INVALID -j {DROP}"));
            self.both(Mangle, DROP, "-j DROP".into());
        }
    }

    fn targets(&mut self) {
        let config = self.config;
        self.both(Nat, INBOUND, format!("-p tcp --dport {} -j RETURN", config.tunnel_port));
        self.both(Nat, REDIRECT, format!("-p tcp -j REDIRECT --to-ports {}", config.outbound_port));
        self.both(Nat, IN_REDIRECT, format!("-p tcp -j REDIRECT --to-ports {}", config.inbound_port));
    }

    fn inbound(&mut self) {
        let config = self.config;
        if !config.captures_inbound() {
            return;
        }
        let (table, target) = if config.tproxy { (Mangle, TPROXY) } else { (Nat, IN_REDIRECT) };
        if config.tproxy {
            // A marked packet is routed to the loopback device, where Envoy takes it with its addresses intact.
            self.both(Mangle, DIVERT, format!("-j MARK --set-mark {}", config.tproxy_mark));
            self.both(Mangle, DIVERT, "-j ACCEPT".into());
            let (mark, port) = (&config.tproxy_mark, &config.inbound_port);
            self.with_loopback(Mangle, TPROXY, |lo| {
                format!("! -d {lo} -p tcp -j TPROXY --tproxy-mark {mark}/0xffffffff --on-port {port}")
            });
        }
        self.both(table, "PREROUTING", format!("-p tcp -j {INBOUND}"));
        if config.all_inbound {
            for port in &config.inbound_excluded {
                self.both(table, INBOUND, format!("-p tcp --dport {port} -j RETURN"));
            }
        }
        let all = config.all_inbound.then(String::new);
        let ports = config.inbound_ports.iter().map(|port| format!("--dport {port} "));
        for port in all.into_iter().chain(ports) {
            if config.tproxy {
                let known = "-m conntrack --ctstate RELATED,ESTABLISHED";
                self.both(table, INBOUND, format!("-p tcp {port}{known} -j {DIVERT}"));
            }
            self.both(table, INBOUND, format!("-p tcp {port}-j {target}"));
        }
    }

    fn outbound(&mut self) {
        let config = self.config;
        for port in &config.outbound_excluded {
            for protocol in ["tcp", "udp"] {
                self.both(Nat, OUTPUT, format!("-p {protocol} --dport {port} -j RETURN"));
            }
        }
        self.one(V4, Nat, OUTPUT, "-o lo -s 127.0.0.6/32 -j RETURN".into());
        self.one(V6, Nat, OUTPUT, "-o lo -s ::6/128 -j RETURN".into());
        for owner in &config.owners {
            self.proxys_own(owner);
        }
        self.owner_groups();
        if config.dns {
            self.dns();
        }
        self.with_loopback(Nat, OUTPUT, |lo| format!("-d {lo} -j RETURN"));
        for (family, ranges) in [(V4, &config.ranges_excluded.v4), (V6, &config.ranges_excluded.v6)] {
            for cidr in ranges {
                self.one(family, Nat, OUTPUT, format!("-d {cidr} -j RETURN"));
            }
        }
        for port in &config.outbound_ports {
            self.both(Nat, OUTPUT, format!("-p tcp --dport {port} -j {REDIRECT}"));
        }
        for (family, ranges) in [(V4, &config.ranges.v4), (V6, &config.ranges.v6)] {
            self.captured_ranges(family, ranges);
        }
    }

    /// The proxy's packets go out as they are, save those to the pod's own address: an application that calls its own
    /// service must meet the inbound side.
    fn proxys_own(&mut self, owner: &Owner) {
        let config = self.config;
        let tunnel = &config.tunnel_port;
        // With DNS captured, port 53 is left out: the agent's question must not come back through Envoy.
        let ports = match owner {
            Owner::User(_) | Owner::Mark(_) if config.dns => format!("-m multiport ! --dports 53,{tunnel}"),
            _ => format!("! --dport {tunnel}"),
        };
        let is = owner.is();
        self.with_loopback(Nat, OUTPUT, |lo| format!("-o lo ! -d {lo} -p tcp {ports} {is} -j {IN_REDIRECT}"));
        if !config.ranges.has_loopback() {
            // An application that calls itself by the pod's address needs no proxy. A DNS server on localhost does.
            let not_dns = if config.dns { "-p tcp ! --dport 53 " } else { "" };
            self.both(Nat, OUTPUT, format!("-o lo {not_dns}{} -j RETURN", owner.is_not()));
        }
        self.both(Nat, OUTPUT, format!("{is} -j RETURN"));
    }

    fn owner_groups(&mut self) {
        let config = self.config;
        if config.groups_excluded {
            for group in &config.groups {
                self.both(Nat, OUTPUT, format!("-m owner --gid-owner {group} -j RETURN"));
            }
        } else {
            let none_of = config.groups.iter().map(|group| format!("-m owner ! --gid-owner {group} "));
            self.both(Nat, OUTPUT, format!("{}-j RETURN", none_of.collect::<String>()));
        }
    }

    fn captured_ranges(&mut self, family: Family, ranges: &[Cidr]) {
        let config = self.config;
        if config.ranges.all {
            self.one(family, Nat, OUTPUT, format!("-j {REDIRECT}"));
            for interface in &config.virtual_interfaces {
                self.add(family, Nat, "PREROUTING", Some(1), format!("-i {interface} -j {REDIRECT}"));
            }
        }
        for cidr in ranges {
            for interface in &config.virtual_interfaces {
                self.add(family, Nat, "PREROUTING", Some(1), format!("-i {interface} -d {cidr} -j {REDIRECT}"));
            }
            self.one(family, Nat, OUTPUT, format!("-d {cidr} -j {REDIRECT}"));
        }
    }

    /// The servers whose DNS is captured, as matches: one that matches any, or one for each.
    fn dns_matches(&self, direction: &str) -> Vec<(Family, String)> {
        let pod = &self.config.pod;
        if self.config.all_dns {
            return vec![(V4, String::new()), (V6, String::new())];
        }
        let v4 = pod.dns_v4.iter().map(|server| (V4, format!(" {direction} {server}/32")));
        v4.chain(pod.dns_v6.iter().map(|server| (V6, format!(" {direction} {server}/128")))).collect()
    }

    fn dns(&mut self) {
        let to = self.dns_matches("-d");
        let from = self.dns_matches("-s");
        let has = |family: Family| to.iter().any(|(f, _)| *f == family);
        let families: Vec<Family> = [V4, V6].into_iter().filter(|family| has(*family)).collect();
        self.both(Raw, "OUTPUT", format!("-j {OUTPUT_DNS}"));
        for family in &families {
            self.one(*family, Nat, OUTPUT, format!("-j {OUTPUT_DNS}"));
        }
        // iptables takes both spellings of the option; scripts compare with istio-iptables, which uses both.
        for (protocol, option) in [("tcp", "--to-ports"), ("udp", "--to-port")] {
            for (family, server) in &to {
                let text = format!("-p {protocol} --dport 53{server} -j REDIRECT {option} {DNS_PORT}");
                self.one(*family, Nat, OUTPUT_DNS, text);
            }
        }
        // The agent's questions and the application's must not share connection-tracking entries: each has its zone.
        for owner in &self.config.owners {
            let is = owner.is();
            self.both(Raw, OUTPUT_DNS, format!("-p udp --dport 53 {is} -j CT --zone 1"));
            self.both(Raw, OUTPUT_DNS, format!("-p udp --sport {DNS_PORT} {is} -j CT --zone 2"));
        }
        for family in &families {
            self.one(*family, Raw, "PREROUTING", format!("-j {INBOUND}"));
        }
        for ((family, to), (_, from)) in to.iter().zip(&from) {
            self.one(*family, Raw, OUTPUT_DNS, format!("-p udp --dport 53{to} -j CT --zone 2"));
            self.one(*family, Raw, INBOUND, format!("-p udp --sport 53{from} -j CT --zone 1"));
        }
    }

    fn tproxy_marks(&mut self) {
        let config = self.config;
        if !config.tproxy {
            return;
        }
        let mark = &config.tproxy_mark;
        self.both(Mangle, "PREROUTING", format!("-p tcp -m mark --mark {mark} -j CONNMARK --save-mark"));
        self.both(Mangle, "OUTPUT", format!("-p tcp -o lo -m mark --mark {mark} -j RETURN"));
        for owner in &config.owners {
            let is = owner.is();
            self.with_loopback(Mangle, "OUTPUT", |lo| {
                format!("! -d {lo} -p tcp -o lo {is} -j MARK --set-mark {OUTBOUND_MARK}")
            });
        }
        self.both(Mangle, "OUTPUT", format!("-p tcp -m connmark --mark {mark} -j CONNMARK --restore-mark"));
        let first = [
            format!("-p tcp -m mark --mark {mark} -j RETURN"),
            String::new(),
            format!("-p tcp -i lo -m mark ! --mark {OUTBOUND_MARK} -j RETURN"),
        ];
        for (position, text) in (1..).zip(first) {
            for (family, source) in [(V4, "127.0.0.6/32"), (V6, "::6/128")] {
                let text = if position == 2 { format!("-p tcp -s {source} -i lo -j RETURN") } else { text.clone() };
                self.add(family, Mangle, INBOUND, Some(position), text);
            }
        }
    }
}
