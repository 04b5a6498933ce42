//! Interception: the rules that bring a pod's traffic to Envoy. The flags and environment are istio-iptables', because
//! the injection template, CNI plugins and people's scripts call it so.
//!
//! [`Options`] is what was asked for, as text; [`Config`] is the same checked and complete; [`rules::rules`] turns it into
//! rules without touching anything; [`iptables`] or [`nftables`] writes them down; [`apply`] makes the kernel follow. A value
//! that could smuggle a second rule into the text is refused in between. Where a CNI plugin sets the rules, [`validate`] sees
//! whether it has.

use std::net::IpAddr;
use std::str::FromStr;

use crate::Environment;
use rules::Property;

pub mod apply;
pub mod iptables;
pub mod nftables;
pub mod rules;
pub mod validate;

/// What was asked for on the command line. `None` falls back to the environment, then to the default.
#[derive(Clone, Debug, Default, clap::Args)]
#[non_exhaustive]
pub struct Options {
    /// Port to which all outbound TCP traffic is redirected
    #[arg(short = 'p', long, value_name = "PORT")]
    pub envoy_port: Option<String>,
    /// Port to which all inbound TCP traffic is redirected
    #[arg(short = 'z', long, value_name = "PORT")]
    pub inbound_capture_port: Option<String>,
    /// Port of the tunnel (HBONE), never redirected
    #[arg(short = 'e', long, value_name = "PORT")]
    pub inbound_tunnel_port: Option<String>,
    /// Users whose traffic is not redirected: the proxy's
    #[arg(short = 'u', long, value_name = "UID,..")]
    pub proxy_uid: Option<String>,
    /// Groups whose traffic is not redirected: the proxy's (default: as --proxy-uid)
    #[arg(short = 'g', long, value_name = "GID,..")]
    pub proxy_gid: Option<String>,
    /// Tell the proxy's traffic by this firewall mark, not by owner: for user namespaces that have one user only
    #[arg(long, value_name = "MARK", conflicts_with_all = ["proxy_uid", "proxy_gid"])]
    pub proxy_mark: Option<u32>,
    /// REDIRECT or TPROXY
    #[arg(short = 'm', long, value_name = "MODE")]
    pub istio_inbound_interception_mode: Option<String>,
    /// Inbound ports to redirect, * for all, empty for none
    #[arg(short = 'b', long, value_name = "PORT,..")]
    pub istio_inbound_ports: Option<String>,
    /// Inbound ports to leave alone when all others are redirected
    #[arg(short = 'd', long, value_name = "PORT,..")]
    pub istio_local_exclude_ports: Option<String>,
    /// Interfaces whose traffic is left alone
    #[arg(short = 'c', long, value_name = "NAME,..")]
    pub istio_exclude_interfaces: Option<String>,
    /// Outbound ranges to redirect, * for all, empty for none
    #[arg(short = 'i', long, value_name = "CIDR,..")]
    pub istio_service_cidr: Option<String>,
    /// Outbound ranges to leave alone when all others are redirected
    #[arg(short = 'x', long, value_name = "CIDR,..")]
    pub istio_service_exclude_cidr: Option<String>,
    /// Outbound ports to redirect in any case
    #[arg(short = 'q', long, value_name = "PORT,..")]
    pub istio_outbound_ports: Option<String>,
    /// Outbound ports to leave alone
    #[arg(short = 'o', long, value_name = "PORT,..")]
    pub istio_local_outbound_ports_exclude: Option<String>,
    /// Interfaces whose inbound traffic (of a virtual machine) counts as outbound
    #[arg(short = 'k', long, value_name = "NAME,..")]
    pub kube_virt_interfaces: Option<String>,
    /// Firewall mark of inbound traffic in mode TPROXY
    #[arg(short = 't', long, value_name = "MARK")]
    pub istio_inbound_tproxy_mark: Option<String>,
    /// Routing table for marked traffic in mode TPROXY
    #[arg(short = 'r', long, value_name = "TABLE")]
    pub istio_inbound_tproxy_route_table: Option<String>,
    /// Print the rules and change nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Change nothing, print nothing
    #[arg(long)]
    pub skip_rule_apply: bool,
    /// See whether traffic is redirected, and end with 126 if not: for pods whose rules a CNI plugin sets
    #[arg(long)]
    pub run_validation: bool,
    /// Port to which --run-validation connects (default: 15002)
    #[arg(long, value_name = "PORT")]
    pub iptables_probe_port: Option<String>,
    /// How long --run-validation waits for the rules (default: 5s)
    #[arg(long, value_name = "DURATION")]
    pub probe_timeout: Option<String>,
    /// Redirect DNS to the agent
    #[arg(long)]
    pub redirect_dns: bool,
    /// Redirect DNS to whatever server, not only to those of resolv.conf
    #[arg(long)]
    pub capture_all_dns: bool,
    /// Drop packets that connection tracking calls invalid
    #[arg(long)]
    pub drop_invalid: bool,
    /// Look for an IPv6 address beside an IPv4 one
    #[arg(long)]
    pub dual_stack: bool,
    /// Replace rules of an earlier run that differ, where otherwise that is an error
    #[arg(long)]
    pub reconcile: bool,
    /// Remove the rules of an earlier run and set none
    #[arg(long, visible_alias = "cleanup")]
    pub cleanup_only: bool,
    /// File of the network namespace to work in (/run/netns/NAME, /proc/PID/ns/net); empty for this one
    #[arg(long, value_name = "FILE")]
    pub network_namespace: Option<String>,
    /// Set the rules as tables of nftables' own, by nft, not by iptables
    #[arg(long)]
    pub native_nftables: bool,
    /// Which iptables: iptables, iptables-nft or iptables-legacy
    #[arg(long, value_name = "NAME")]
    pub force_iptables_binary: Option<String>,
}

/// What the pod itself says. In a test it is given, in a pod it is found out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    /// The pod has an IPv6 address, so its IPv6 traffic is intercepted, too.
    pub ipv6: bool,
    /// The IPv4 servers of resolv.conf.
    pub dns_v4: Vec<String>,
    /// The IPv6 servers of resolv.conf.
    pub dns_v6: Vec<String>,
}

/// Why rules could not be made. The fault is in a flag or variable.
#[derive(Debug, thiserror::Error, PartialEq)]
#[non_exhaustive]
pub enum InitError {
    /// Not in a form that a rule could take.
    #[error("{name}: {value:?} {why}")]
    Value {
        /// The flag's long name.
        name: &'static str,
        /// What was given.
        value: String,
        /// What is wrong with it.
        why: &'static str,
    },
}

/// Which outbound addresses: all, or a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ranges {
    pub(crate) all: bool,
    pub(crate) v4: Vec<Cidr>,
    pub(crate) v6: Vec<Cidr>,
}

impl Ranges {
    fn parse(name: &'static str, text: &str) -> Result<Self, InitError> {
        let mut ranges = Self { all: text == "*", ..Self::default() };
        for item in list(name, if ranges.all { "" } else { text })? {
            let why = "is no range in CIDR form";
            let cidr: Cidr = item.parse().map_err(|()| InitError::Value { name, value: item, why })?;
            if cidr.address.is_ipv4() { ranges.v4.push(cidr) } else { ranges.v6.push(cidr) }
        }
        Ok(ranges)
    }

    pub(crate) fn has_loopback(&self) -> bool {
        self.v4.iter().chain(&self.v6).any(|cidr| cidr.address.is_loopback())
    }
}

/// An address range; host bits stay as written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cidr {
    address: IpAddr,
    bits: u8,
}

impl FromStr for Cidr {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, bits) = text.split_once('/').ok_or(())?;
        let cidr = Self { address: address.parse().map_err(drop)?, bits: bits.parse().map_err(drop)? };
        if cidr.bits <= if cidr.address.is_ipv4() { 32 } else { 128 } { Ok(cidr) } else { Err(()) }
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// What was asked for, checked and complete: the input of [`rules::rules`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    pub(crate) outbound_port: String,
    pub(crate) inbound_port: String,
    pub(crate) tunnel_port: String,
    /// How packets of the proxy are told from those of the application: by user, group or mark.
    pub(crate) owners: Vec<Property>,
    pub(crate) tproxy: bool,
    pub(crate) tproxy_mark: String,
    pub(crate) tproxy_table: String,
    pub(crate) all_inbound: bool,
    pub(crate) inbound_ports: Vec<String>,
    pub(crate) inbound_excluded: Vec<String>,
    pub(crate) excluded_interfaces: Vec<String>,
    pub(crate) virtual_interfaces: Vec<String>,
    pub(crate) ranges: Ranges,
    pub(crate) ranges_excluded: Ranges,
    pub(crate) outbound_ports: Vec<String>,
    pub(crate) outbound_excluded: Vec<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) groups_excluded: bool,
    pub(crate) loopback_v4: Cidr,
    pub(crate) dns: bool,
    pub(crate) all_dns: bool,
    pub(crate) drop_invalid: bool,
    pub(crate) nftables: bool,
    pub(crate) pod: Pod,
}

/// A rule that combines more owner matches than this is refused by common kernels.
const MAX_GROUPS: usize = 64;

impl Config {
    /// Checks and completes what was asked for. Warnings come along, each a line for the log.
    pub fn new(options: &Options, env: &Environment, pod: Pod) -> Result<(Self, Vec<String>), InitError> {
        let mut warnings = Vec::new();
        let text = |flag: &Option<String>, variable: &str, default: &str| {
            flag.clone().or_else(|| env.get(variable).map(str::to_owned)).unwrap_or_else(|| default.to_owned())
        };
        let flag = |flag: bool, variables: &[&str]| flag || variables.iter().any(|v| env.flag(v, false));
        let o = options;

        let uids = text(&o.proxy_uid, "PROXY_UID", "");
        let uids = if uids.is_empty() { "1337".to_owned() } else { uids };
        let gids = text(&o.proxy_gid, "PROXY_GID", "");
        let gids = if gids.is_empty() { uids.clone() } else { gids };
        let owners = match o.proxy_mark {
            Some(mark) => vec![Property::Mark(mark.to_string())],
            None => {
                let users = list("proxy-uid", &uids)?.into_iter().map(Property::User);
                users.chain(list("proxy-gid", &gids)?.into_iter().map(Property::Group)).collect()
            }
        };

        let mode = text(&o.istio_inbound_interception_mode, "ISTIO_INBOUND_INTERCEPTION_MODE", "REDIRECT");
        let tproxy = match mode.as_str() {
            "TPROXY" => true,
            "REDIRECT" | "" => false,
            _ => return Err(value("istio-inbound-interception-mode", &mode, "is neither REDIRECT nor TPROXY")),
        };
        let inbound = text(&o.istio_inbound_ports, "ISTIO_INBOUND_PORTS", "");
        let all_inbound = inbound == "*";

        let ranges_excluded = Ranges::parse(
            "istio-service-exclude-cidr",
            &text(&o.istio_service_exclude_cidr, "ISTIO_SERVICE_EXCLUDE_CIDR", ""),
        )?;
        if ranges_excluded.all {
            return Err(value(
                "istio-service-exclude-cidr",
                "*",
                "would exclude everything; leave --istio-service-cidr empty",
            ));
        }

        let include = env.get("ISTIO_OUTBOUND_OWNER_GROUPS").unwrap_or("*");
        let groups_excluded = include == "*";
        let exclude = env.get("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE").unwrap_or_default();
        let groups = list("ISTIO_OUTBOUND_OWNER_GROUPS", if groups_excluded { exclude } else { include })?;
        if !groups_excluded && groups.len() > MAX_GROUPS {
            return Err(value(
                "ISTIO_OUTBOUND_OWNER_GROUPS",
                include,
                "names more than 64 groups, too many for one rule",
            ));
        }

        let loopback = env.get("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR").unwrap_or("127.0.0.1/32");
        let loopback_v4 = loopback.parse::<Cidr>().ok();
        let loopback_v4 = loopback_v4.filter(|c| c.address.is_ipv4() && c.address.is_loopback() && c.bits >= 8);
        let why = "is no IPv4 loopback range of 8 to 32 bits";
        let loopback_v4 = loopback_v4.ok_or_else(|| value("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", loopback, why))?;

        let all_dns = flag(o.capture_all_dns, &["CAPTURE_ALL_DNS"]);
        let mut dns = flag(o.redirect_dns, &["REDIRECT_DNS", "ISTIO_META_DNS_CAPTURE"]);
        if dns && !all_dns && pod.dns_v4.is_empty() && pod.dns_v6.is_empty() {
            warnings.push("DNS is not captured: no DNS server is known; --capture-all-dns needs none".to_owned());
            dns = false;
        }
        for server in pod.dns_v4.iter().chain(&pod.dns_v6) {
            token("DNS_SERVERS", server)?;
        }

        let nftables = flag(o.native_nftables, &["NATIVE_NFTABLES"]);
        if nftables && o.force_iptables_binary.as_ref().is_some_and(|name| !name.is_empty()) {
            warnings.push("--force-iptables-binary counts for nothing with --native-nftables".to_owned());
        }

        let config = Self {
            outbound_port: one("envoy-port", text(&o.envoy_port, "ENVOY_PORT", "15001"))?,
            inbound_port: one("inbound-capture-port", text(&o.inbound_capture_port, "INBOUND_CAPTURE_PORT", "15006"))?,
            tunnel_port: one("inbound-tunnel-port", text(&o.inbound_tunnel_port, "INBOUND_TUNNEL_PORT", "15008"))?,
            owners,
            tproxy,
            tproxy_mark: one(
                "istio-inbound-tproxy-mark",
                text(&o.istio_inbound_tproxy_mark, "ISTIO_INBOUND_TPROXY_MARK", "1337"),
            )?,
            tproxy_table: one(
                "istio-inbound-tproxy-route-table",
                text(&o.istio_inbound_tproxy_route_table, "ISTIO_INBOUND_TPROXY_ROUTE_TABLE", "133"),
            )?,
            all_inbound,
            inbound_ports: list("istio-inbound-ports", if all_inbound { "" } else { &inbound })?,
            inbound_excluded: list(
                "istio-local-exclude-ports",
                &text(&o.istio_local_exclude_ports, "ISTIO_LOCAL_EXCLUDE_PORTS", ""),
            )?,
            excluded_interfaces: list(
                "istio-exclude-interfaces",
                &text(&o.istio_exclude_interfaces, "ISTIO_EXCLUDE_INTERFACES", ""),
            )?,
            virtual_interfaces: list(
                "kube-virt-interfaces",
                &text(&o.kube_virt_interfaces, "KUBE_VIRT_INTERFACES", ""),
            )?,
            ranges: Ranges::parse("istio-service-cidr", &text(&o.istio_service_cidr, "ISTIO_SERVICE_CIDR", ""))?,
            ranges_excluded,
            outbound_ports: list("istio-outbound-ports", &text(&o.istio_outbound_ports, "ISTIO_OUTBOUND_PORTS", ""))?,
            outbound_excluded: list(
                "istio-local-outbound-ports-exclude",
                &text(&o.istio_local_outbound_ports_exclude, "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE", ""),
            )?,
            groups,
            groups_excluded,
            loopback_v4,
            dns,
            all_dns,
            drop_invalid: flag(o.drop_invalid, &["DROP_INVALID", "INVALID_DROP"]),
            nftables,
            pod,
        };
        Ok((config, warnings))
    }

    /// The rules of this configuration in the language of the tool that is to set them.
    pub fn render(&self, rules: &rules::Rules) -> String {
        if self.nftables { nftables::script(rules) } else { iptables::render(&rules.v4) + &iptables::render(&rules.v6) }
    }

    /// True when any inbound port is captured.
    pub(crate) fn captures_inbound(&self) -> bool {
        self.all_inbound || !self.inbound_ports.is_empty()
    }
}

fn value(name: &'static str, value: &str, why: &'static str) -> InitError {
    InitError::Value { name, value: value.to_owned(), why }
}

/// A word that iptables and nft take as one. What it means (a port, a range of ports, a user) they judge themselves.
fn token(name: &'static str, text: &str) -> Result<(), InitError> {
    let fine = |c: char| c.is_ascii_alphanumeric() || "_.:/@+-".contains(c);
    if text.is_empty() || text.starts_with('-') || !text.chars().all(fine) {
        return Err(value(name, text, "is not a single word that a rule could take"));
    }
    Ok(())
}

fn one(name: &'static str, text: String) -> Result<String, InitError> {
    token(name, &text)?;
    Ok(text)
}

/// The items of a comma-separated list; empty ones are skipped, as istio-iptables does.
fn list(name: &'static str, text: &str) -> Result<Vec<String>, InitError> {
    let items = text.split(',').filter(|item| !item.is_empty());
    items.map(|item| token(name, item).map(|()| item.to_owned())).collect()
}

#[cfg(test)]
mod tests;
