//! The rules themselves, in the order in which packets must meet them. Pure: the same [`Config`] gives the same rules, in
//! nobody's language yet: [`iptables`](super::iptables) and [`nftables`](super::nftables) are two ways to write them.
//!
//! The journey of a packet. Outbound: `OUTPUT` jumps to `ISTIO_OUTPUT`, which lets the proxy's own and local traffic
//! pass and sends the rest to Envoy's outbound port. Inbound: `PREROUTING` jumps to `ISTIO_INBOUND`, which picks the
//! captured ports. `127.0.0.6` and `::6` are the source addresses of Envoy's connections to the application.

use std::fmt;

use super::{Cidr, Config};

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
/// From where Envoy calls the application.
const FROM_ENVOY: [(Family, &str); 2] = [(V4, "127.0.0.6/32"), (V6, "::6/128")];
/// On packets from Envoy's outbound side to the pod's own address, which the inbound side must see.
const OUTBOUND_MARK: &str = "1338";

/// What rules are for, in the order of the rendered text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Marks, and what needs no change of addresses.
    Mangle,
    /// Changes of addresses; only the first packet of a connection comes here.
    Nat,
    /// Before connections are tracked.
    Raw,
}

impl Table {
    /// All tables that rules are made for.
    pub const ALL: [Self; 3] = [Self::Mangle, Self::Nat, Self::Raw];

    /// The table's name in iptables.
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
    pub position: Option<usize>,
    /// What must hold of a packet, all of it.
    pub matches: Vec<Match>,
    /// What then happens.
    pub target: Target,
}

/// One thing that must hold of a packet, or must not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// The thing.
    pub property: Property,
    /// It must not.
    pub not: bool,
}

/// What a packet can be asked for. Values are single words as the user wrote them: a port may be a range, a user a name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Property {
    /// It is TCP.
    Tcp,
    /// It is UDP.
    Udp,
    /// The interface that it came in by.
    In(String),
    /// The interface that it goes out by.
    Out(String),
    /// The range that its source is in.
    Source(String),
    /// The range that its destination is in.
    Destination(String),
    /// Its source port.
    SourcePort(String),
    /// Its destination port.
    DestinationPort(String),
    /// Several ports, one of which is its destination.
    DestinationPorts(Vec<String>),
    /// The user whose process sent it.
    User(String),
    /// The group whose process sent it.
    Group(String),
    /// Its mark.
    Mark(String),
    /// Its connection's mark.
    ConnectionMark(String),
    /// What its connection is, as iptables writes it.
    State(&'static str),
}

/// What happens to a packet that matches.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Target {
    /// The chain has nothing more to say.
    Return,
    /// The table has nothing more to say.
    Accept,
    /// It is gone.
    Drop,
    /// Another chain of ours goes on.
    Jump(&'static str),
    /// It goes to this port of this host.
    Redirect(String),
    /// It goes to whoever listens at this port of this host, addresses intact and with this mark; if nobody does, it is gone.
    Tproxy {
        /// The port.
        port: String,
        /// The mark.
        mark: String,
    },
    /// It gets this mark.
    Mark(String),
    /// Its connection gets its mark.
    SaveMark,
    /// It gets its connection's mark.
    RestoreMark,
    /// Its connection is told from those of other zones, were they the same otherwise.
    Zone(u8),
}

impl Rule {
    /// The chain that the rule jumps to, if it does.
    pub(super) fn jump(&self) -> Option<&'static str> {
        if let Target::Jump(chain) = self.target { Some(chain) } else { None }
    }

    /// True for a rule in one of the kernel's own chains.
    pub fn in_builtin_chain(&self) -> bool {
        !self.chain.starts_with("ISTIO_")
    }
}

/// The rules of both families.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// For IPv4.
    pub v4: Vec<Rule>,
    /// For IPv6; empty where the pod has no IPv6 address.
    pub v6: Vec<Rule>,
}

/// Chains of ours, in the order of their first rule or of the first jump to one that has none.
pub(super) fn chains(rules: &[Rule]) -> Vec<(Table, &'static str)> {
    let with_rules = rules.iter().filter(|r| !r.in_builtin_chain()).map(|r| (r.table, r.chain));
    let jumped_to = rules.iter().filter_map(|r| Some((r.table, r.jump()?)));
    let mut chains = Vec::new();
    for chain in with_rules.chain(jumped_to) {
        if !chains.contains(&chain) {
            chains.push(chain);
        }
    }
    chains
}

/// All rules for this configuration.
pub fn rules(config: &Config) -> Rules {
    let mut b = Builder { config, rules: Rules::default() };
    b.leave_interfaces_alone();
    b.drop_invalid();
    b.targets();
    b.inbound();
    b.both(Nat, "OUTPUT", [], Jump(OUTPUT));
    b.outbound();
    b.tproxy_marks();
    b.rules
}

/// Addresses of which kind.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Family {
    V4,
    V6,
}

use Family::{V4, V6};
use Property::{
    ConnectionMark, Destination, DestinationPort, DestinationPorts, Group, In, Mark, Out, Source, SourcePort, State,
    Tcp, Udp,
};
use Table::{Mangle, Nat, Raw};
use Target::{Accept, Jump, Redirect, RestoreMark, Return, SaveMark, Zone};

fn is(property: Property) -> Match {
    Match { property, not: false }
}

fn not(property: Property) -> Match {
    Match { property, not: true }
}

/// By the loopback interface.
fn out_lo() -> Match {
    is(Out("lo".into()))
}

fn to_port(port: &str) -> Match {
    is(DestinationPort(port.into()))
}

struct Builder<'a> {
    config: &'a Config,
    rules: Rules,
}

impl Builder<'_> {
    fn add(&mut self, family: Family, rule: Rule) {
        match family {
            V4 => self.rules.v4.push(rule),
            V6 if self.config.pod.ipv6 => self.rules.v6.push(rule),
            V6 => {}
        }
    }

    fn one(
        &mut self,
        family: Family,
        table: Table,
        chain: &'static str,
        matches: impl IntoIterator<Item = Match>,
        target: Target,
    ) {
        self.add(family, Rule { table, chain, position: None, matches: matches.into_iter().collect(), target });
    }

    /// A rule that goes before the others of its chain.
    fn at(&mut self, family: Family, place: (Table, &'static str, usize), matches: Vec<Match>, target: Target) {
        let (table, chain, position) = place;
        self.add(family, Rule { table, chain, position: Some(position), matches, target });
    }

    fn both(&mut self, table: Table, chain: &'static str, matches: impl IntoIterator<Item = Match>, target: Target) {
        let matches: Vec<Match> = matches.into_iter().collect();
        self.one(V4, table, chain, matches.clone(), target.clone());
        self.one(V6, table, chain, matches, target);
    }

    /// A rule that names the loopback address of its family.
    fn with_loopback<M: IntoIterator<Item = Match>>(
        &mut self,
        table: Table,
        chain: &'static str,
        matches: impl Fn(Property) -> M,
        target: Target,
    ) {
        let v4 = self.config.loopback_v4.to_string();
        self.one(V4, table, chain, matches(Destination(v4)), target.clone());
        self.one(V6, table, chain, matches(Destination("::1/128".into())), target);
    }

    fn leave_interfaces_alone(&mut self) {
        let config = self.config;
        for table in [Nat, Mangle].into_iter().filter(|table| *table == Nat || config.tproxy) {
            for interface in &config.excluded_interfaces {
                self.both(table, "PREROUTING", [is(In(interface.clone()))], Return);
                self.both(table, "OUTPUT", [is(Out(interface.clone()))], Return);
            }
        }
        for interface in &config.virtual_interfaces {
            for family in [V4, V6] {
                self.at(family, (Nat, "PREROUTING", 1), vec![is(In(interface.clone()))], Return);
            }
        }
    }

    fn drop_invalid(&mut self) {
        if self.config.drop_invalid {
            self.both(Mangle, "PREROUTING", [is(State("INVALID"))], Jump(DROP));
            self.both(Mangle, DROP, [], Target::Drop);
        }
    }

    fn targets(&mut self) {
        let config = self.config;
        self.both(Nat, INBOUND, [is(Tcp), to_port(&config.tunnel_port)], Return);
        self.both(Nat, REDIRECT, [is(Tcp)], Redirect(config.outbound_port.clone()));
        self.both(Nat, IN_REDIRECT, [is(Tcp)], Redirect(config.inbound_port.clone()));
    }

    fn inbound(&mut self) {
        let config = self.config;
        if !config.captures_inbound() {
            return;
        }
        let (table, target) = if config.tproxy { (Mangle, TPROXY) } else { (Nat, IN_REDIRECT) };
        if config.tproxy {
            // A marked packet is routed to the loopback device, where Envoy takes it with its addresses intact.
            let mark = config.tproxy_mark.clone();
            self.both(Mangle, DIVERT, [], Target::Mark(mark.clone()));
            self.both(Mangle, DIVERT, [], Accept);
            let tproxy = Target::Tproxy { port: config.inbound_port.clone(), mark };
            self.with_loopback(Mangle, TPROXY, |lo| [not(lo), is(Tcp)], tproxy);
        }
        self.both(table, "PREROUTING", [is(Tcp)], Jump(INBOUND));
        if config.all_inbound {
            for port in &config.inbound_excluded {
                self.both(table, INBOUND, [is(Tcp), to_port(port)], Return);
            }
        }
        let all = config.all_inbound.then(|| vec![is(Tcp)]);
        let ports = config.inbound_ports.iter().map(|port| vec![is(Tcp), to_port(port)]);
        for matches in all.into_iter().chain(ports) {
            if config.tproxy {
                let known = [is(State("RELATED,ESTABLISHED"))];
                self.both(table, INBOUND, matches.iter().cloned().chain(known), Jump(DIVERT));
            }
            self.both(table, INBOUND, matches, Jump(target));
        }
    }

    fn outbound(&mut self) {
        let config = self.config;
        for port in &config.outbound_excluded {
            for protocol in [Tcp, Udp] {
                self.both(Nat, OUTPUT, [is(protocol), to_port(port)], Return);
            }
        }
        for (family, envoy) in FROM_ENVOY {
            self.one(family, Nat, OUTPUT, [out_lo(), is(Source(envoy.into()))], Return);
        }
        for owner in &config.owners {
            self.proxys_own(owner);
        }
        self.owner_groups();
        if config.dns {
            self.dns();
        }
        self.with_loopback(Nat, OUTPUT, |lo| [is(lo)], Return);
        for (family, ranges) in [(V4, &config.ranges_excluded.v4), (V6, &config.ranges_excluded.v6)] {
            for cidr in ranges {
                self.one(family, Nat, OUTPUT, [is(Destination(cidr.to_string()))], Return);
            }
        }
        for port in &config.outbound_ports {
            self.both(Nat, OUTPUT, [is(Tcp), to_port(port)], Jump(REDIRECT));
        }
        for (family, ranges) in [(V4, &config.ranges.v4), (V6, &config.ranges.v6)] {
            self.captured_ranges(family, ranges);
        }
    }

    /// The proxy's packets go out as they are, save those to the pod's own address: an application that calls its own
    /// service must meet the inbound side.
    fn proxys_own(&mut self, owner: &Property) {
        let config = self.config;
        let tunnel = config.tunnel_port.clone();
        // With DNS captured, port 53 is left out: the agent's question must not come back through Envoy.
        let ports = match owner {
            Group(_) => DestinationPort(tunnel),
            _ if config.dns => DestinationPorts(vec!["53".into(), tunnel]),
            _ => DestinationPort(tunnel),
        };
        let (is_owner, is_not_owner) = (is(owner.clone()), not(owner.clone()));
        let to_itself = |lo| [out_lo(), not(lo), is(Tcp), not(ports.clone()), is_owner.clone()];
        self.with_loopback(Nat, OUTPUT, to_itself, Jump(IN_REDIRECT));
        if !config.ranges.has_loopback() {
            // An application that calls itself by the pod's address needs no proxy. A DNS server on localhost does.
            let not_dns = config.dns.then(|| [is(Tcp), not(DestinationPort("53".into()))]);
            let matches = [out_lo()].into_iter().chain(not_dns.into_iter().flatten()).chain([is_not_owner]);
            self.both(Nat, OUTPUT, matches, Return);
        }
        self.both(Nat, OUTPUT, [is_owner], Return);
    }

    fn owner_groups(&mut self) {
        let config = self.config;
        if config.groups_excluded {
            for group in &config.groups {
                self.both(Nat, OUTPUT, [is(Group(group.clone()))], Return);
            }
        } else {
            let none_of = config.groups.iter().map(|group| not(Group(group.clone())));
            self.both(Nat, OUTPUT, none_of, Return);
        }
    }

    fn captured_ranges(&mut self, family: Family, ranges: &[Cidr]) {
        let config = self.config;
        let first = (Nat, "PREROUTING", 1);
        if config.ranges.all {
            self.one(family, Nat, OUTPUT, [], Jump(REDIRECT));
            for interface in &config.virtual_interfaces {
                self.at(family, first, vec![is(In(interface.clone()))], Jump(REDIRECT));
            }
        }
        for cidr in ranges {
            let there = is(Destination(cidr.to_string()));
            for interface in &config.virtual_interfaces {
                self.at(family, first, vec![is(In(interface.clone())), there.clone()], Jump(REDIRECT));
            }
            self.one(family, Nat, OUTPUT, [there], Jump(REDIRECT));
        }
    }

    /// The servers whose DNS is captured, `None` for any.
    fn dns_servers(&self) -> Vec<(Family, Option<String>)> {
        let pod = &self.config.pod;
        if self.config.all_dns {
            return vec![(V4, None), (V6, None)];
        }
        let v4 = pod.dns_v4.iter().map(|server| (V4, Some(format!("{server}/32"))));
        v4.chain(pod.dns_v6.iter().map(|server| (V6, Some(format!("{server}/128"))))).collect()
    }

    fn dns(&mut self) {
        let servers = self.dns_servers();
        let has = |family: Family| servers.iter().any(|(f, _)| *f == family);
        let families: Vec<Family> = [V4, V6].into_iter().filter(|family| has(*family)).collect();
        self.both(Raw, "OUTPUT", [], Jump(OUTPUT_DNS));
        for family in &families {
            self.one(*family, Nat, OUTPUT, [], Jump(OUTPUT_DNS));
        }
        let from_port = |port: &str| is(SourcePort(port.into()));
        let to = |server: &Option<String>| server.clone().map(Destination).map(is);
        let from = |server: &Option<String>| server.clone().map(Source).map(is);
        for protocol in [Tcp, Udp] {
            for (family, server) in &servers {
                let matches = [is(protocol.clone()), to_port("53")].into_iter().chain(to(server));
                self.one(*family, Nat, OUTPUT_DNS, matches, Redirect(DNS_PORT.into()));
            }
        }
        // The agent's questions and the application's must not share connection-tracking entries: each has its zone.
        for owner in &self.config.owners {
            self.both(Raw, OUTPUT_DNS, [is(Udp), to_port("53"), is(owner.clone())], Zone(1));
            self.both(Raw, OUTPUT_DNS, [is(Udp), from_port(DNS_PORT), is(owner.clone())], Zone(2));
        }
        for family in &families {
            self.one(*family, Raw, "PREROUTING", [], Jump(INBOUND));
        }
        for (family, server) in &servers {
            let (asked, answered) = ([is(Udp), to_port("53")], [is(Udp), from_port("53")]);
            self.one(*family, Raw, OUTPUT_DNS, asked.into_iter().chain(to(server)), Zone(2));
            self.one(*family, Raw, INBOUND, answered.into_iter().chain(from(server)), Zone(1));
        }
    }

    fn tproxy_marks(&mut self) {
        let config = self.config;
        if !config.tproxy {
            return;
        }
        let mark = &config.tproxy_mark;
        let marked = || [is(Tcp), is(Mark(mark.clone()))];
        self.both(Mangle, "PREROUTING", marked(), SaveMark);
        self.both(Mangle, "OUTPUT", [is(Tcp), out_lo(), is(Mark(mark.clone()))], Return);
        for owner in &config.owners {
            let to_itself = |lo| [not(lo), is(Tcp), out_lo(), is(owner.clone())];
            self.with_loopback(Mangle, "OUTPUT", to_itself, Target::Mark(OUTBOUND_MARK.into()));
        }
        self.both(Mangle, "OUTPUT", [is(Tcp), is(ConnectionMark(mark.clone()))], RestoreMark);
        for (family, envoy) in FROM_ENVOY {
            let first = [
                marked().to_vec(),
                vec![is(Tcp), is(Source(envoy.into())), is(In("lo".into()))],
                vec![is(Tcp), is(In("lo".into())), not(Mark(OUTBOUND_MARK.into()))],
            ];
            for (position, matches) in (1..).zip(first) {
                self.at(family, (Mangle, INBOUND, position), matches, Return);
            }
        }
    }
}
