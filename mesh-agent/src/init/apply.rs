//! Makes the kernel follow. With iptables: reads what is there, and writes cleanup and new rules as one text per family, which
//! `iptables-restore --noflush` commits table by table. With nftables: one script, which replaces our tables as a whole. Rules of
//! others are never touched, and applying the same rules twice changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use super::rules::{Family, Rule, Rules, Table, chains};
use super::{Config, iptables, nftables};

/// Why the kernel did not follow.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// A program is not there or could not be run.
    #[error(
        "{program} cannot be run: {source}; install it (packages iptables or nftables, and iproute2) or check PATH"
    )]
    Spawn {
        /// Which.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A program refused.
    #[error("{command} failed: {message}")]
    Failed {
        /// With its arguments.
        command: String,
        /// What it said.
        message: String,
    },
    /// Rules of an earlier run differ from those asked for now.
    #[error("other ISTIO_* rules are already there; --reconcile replaces them, --cleanup-only removes them")]
    Differs,
}

/// How to run iptables.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Tools {
    /// File of the network namespace to work in; `None` for this one.
    pub network_namespace: Option<String>,
    /// `iptables`, `iptables-nft` or `iptables-legacy`; `None` for the system's choice.
    pub binary: Option<String>,
}

impl Tools {
    /// Tools as [`super::Options`] ask for them.
    pub fn new(options: &super::Options) -> Self {
        let some = |text: &Option<String>| text.clone().filter(|t| !t.is_empty());
        Self { network_namespace: some(&options.network_namespace), binary: some(&options.force_iptables_binary) }
    }

    /// The program `iptables[-nft|-legacy][-save|-restore]` of a family.
    fn program(&self, family: Family, suffix: &str) -> String {
        let binary = self.binary.as_deref().unwrap_or("iptables");
        let rest = binary.strip_prefix("ip6tables").or(binary.strip_prefix("iptables")).unwrap_or_default();
        let base = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        format!("{base}{rest}{suffix}")
    }

    fn run(&self, program: &str, arguments: &[&str], input: Option<&str>) -> Result<String, ApplyError> {
        let mut command = match &self.network_namespace {
            Some(file) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={file}")).arg("--").arg(program);
                command
            }
            None => Command::new(program),
        };
        let spawn = |source| ApplyError::Spawn { program: program.to_owned(), source };
        let stdin = if input.is_some() { Stdio::piped() } else { Stdio::null() };
        let command = command.args(arguments).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(spawn)?;
        if let (Some(mut pipe), Some(text)) = (child.stdin.take(), input) {
            // A program that refuses before reading all says so by its status.
            let _ = pipe.write_all(text.as_bytes());
        }
        let done = child.wait_with_output().map_err(spawn)?;
        if done.status.success() {
            return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
        }
        let message = String::from_utf8_lossy(&done.stderr).trim().to_owned();
        Err(ApplyError::Failed { command: format!("{program} {}", arguments.join(" ")), message })
    }

    fn has(&self, family: Family, rule: &Rule) -> bool {
        let mut arguments = vec!["--wait", "-t", rule.table.as_str(), "-C", rule.chain];
        let rest = iptables::arguments(rule);
        arguments.extend(rest.split(' '));
        self.run(&self.program(family, ""), &arguments, None).is_ok()
    }

    fn saved(&self, family: Family) -> Result<Saved, ApplyError> {
        Ok(Saved::parse(&self.run(&self.program(family, "-save"), &[], None)?))
    }

    fn restore(&self, family: Family, text: &str) -> Result<(), ApplyError> {
        if text.is_empty() {
            return Ok(());
        }
        self.run(&self.program(family, "-restore"), &["--noflush", "--wait=30"], Some(text)).map(drop)
    }

    /// True when exactly these rules are there: every chain of ours with as many rules, and each rule found.
    fn matches(&self, family: Family, saved: &Saved, rules: &[Rule]) -> bool {
        let mut want: BTreeMap<(Table, String), usize> =
            chains(rules).into_iter().map(|(table, chain)| ((table, chain.to_owned()), 0)).collect();
        for rule in rules.iter().filter(|rule| !rule.in_builtin_chain()) {
            *want.entry((rule.table, rule.chain.to_owned())).or_default() += 1;
        }
        saved.counts() == want && rules.iter().all(|rule| self.has(family, rule))
    }

    fn family(&self, family: Family, rules: &[Rule], reconcile: bool, cleanup: bool) -> Result<(), ApplyError> {
        let saved = self.saved(family)?;
        if !cleanup && self.matches(family, &saved, rules) {
            return Ok(());
        }
        if !cleanup && !saved.chains.is_empty() && !reconcile {
            return Err(ApplyError::Differs);
        }
        let mut tables = BTreeMap::new();
        if !saved.is_empty() {
            let ours = rules.iter().filter(|rule| rule.in_builtin_chain() && self.has(family, rule));
            tables = saved.removal(ours);
        }
        if !cleanup {
            for (table, lines) in iptables::lines(rules) {
                tables.entry(table).or_insert_with(Vec::new).extend(lines);
            }
        }
        let text = tables.iter().map(|(table, lines)| format!("*{table}\n{}\nCOMMIT\n", lines.join("\n")));
        self.restore(family, &text.collect::<String>())
    }

    /// Sets the rules, or with `cleanup` removes them. With `reconcile` others of ours are replaced; nftables always does that.
    pub fn apply(&self, config: &Config, rules: &Rules, reconcile: bool, cleanup: bool) -> Result<(), ApplyError> {
        if config.nftables {
            let script = if cleanup { nftables::removal(rules) } else { nftables::script(rules) };
            self.run("nft", &["-f", "-"], Some(&script))?;
            return self.routes(config, cleanup);
        }
        self.family(Family::V4, &rules.v4, reconcile, cleanup)?;
        if config.pod.ipv6 {
            self.family(Family::V6, &rules.v6, reconcile, cleanup)?;
        }
        self.routes(config, cleanup)
    }

    /// What rules cannot do: the address of inbound connections for IPv6, and the route of marked packets for TPROXY.
    fn routes(&self, config: &Config, cleanup: bool) -> Result<(), ApplyError> {
        let verb = if cleanup { "del" } else { "add" };
        let mut commands: Vec<Vec<&str>> = Vec::new();
        if config.pod.ipv6 {
            commands.push(vec!["-6", "addr", verb, "::6/128", "dev", "lo"]);
        }
        if config.tproxy && config.captures_inbound() {
            let (mark, table) = (config.tproxy_mark.as_str(), config.tproxy_table.as_str());
            for family in ["-4", "-6"].into_iter().filter(|family| *family == "-4" || config.pod.ipv6) {
                // The kernel takes the same routing rule again and again, so each that is there goes first.
                while self.run("ip", &[family, "rule", "del", "fwmark", mark, "lookup", table], None).is_ok() {}
                if !cleanup {
                    commands.push(vec![family, "rule", "add", "fwmark", mark, "lookup", table]);
                }
                commands.push(vec![family, "route", verb, "local", "default", "dev", "lo", "table", table]);
            }
        }
        for arguments in commands {
            match self.run("ip", &arguments, None) {
                Err(ApplyError::Failed { message, .. }) if cleanup || exists(&message) => {
                    tracing::debug!(%message, "already as it should be");
                }
                other => drop(other?),
            }
        }
        Ok(())
    }
}

/// The kernel's two ways to say that something is already there.
fn exists(message: &str) -> bool {
    message.contains("File exists") || message.contains("already assigned")
}

/// What of ours `iptables-save` shows.
#[derive(Debug, Default, PartialEq)]
struct Saved {
    chains: BTreeSet<(Table, String)>,
    /// `-A CHAIN …` of rules in our chains.
    own: Vec<(Table, String)>,
    /// `CHAIN …` of rules in other chains that jump to ours.
    jumps: Vec<(Table, String)>,
}

impl Saved {
    fn parse(text: &str) -> Self {
        let mut saved = Self::default();
        let mut table = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = Table::ALL.into_iter().find(|table| table.as_str() == name.trim());
            }
            let Some(table) = table else { continue };
            if let Some(chain) = line.strip_prefix(':').and_then(|l| l.split(' ').next()) {
                if chain.starts_with("ISTIO_") {
                    saved.chains.insert((table, chain.to_owned()));
                }
            } else if let Some(rule) = line.strip_prefix("-A ") {
                if rule.starts_with("ISTIO_") {
                    saved.own.push((table, rule.to_owned()));
                } else if rule.split(" -j ").nth(1).is_some_and(|target| target.starts_with("ISTIO_")) {
                    saved.jumps.push((table, rule.to_owned()));
                }
            }
        }
        saved
    }

    fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.jumps.is_empty()
    }

    fn counts(&self) -> BTreeMap<(Table, String), usize> {
        let mut counts: BTreeMap<_, _> = self.chains.iter().map(|chain| (chain.clone(), 0)).collect();
        for (table, rule) in &self.own {
            let chain = rule.split(' ').next().unwrap_or_default();
            *counts.entry((*table, chain.to_owned())).or_default() += 1;
        }
        counts
    }

    /// Lines that remove it all, with those rules of ours in the kernel's chains that jump nowhere of ours.
    fn removal<'r>(&self, ours: impl Iterator<Item = &'r Rule>) -> BTreeMap<Table, Vec<String>> {
        let mut tables: BTreeMap<Table, Vec<String>> = BTreeMap::new();
        let mut line = |table: Table, text: String| tables.entry(table).or_default().push(text);
        for (table, rule) in &self.jumps {
            line(*table, format!("-D {rule}"));
        }
        for rule in ours.filter(|rule| rule.jump().is_none()) {
            line(rule.table, format!("-D {} {}", rule.chain, iptables::arguments(rule)));
        }
        for verb in ["-F", "-X"] {
            for (table, chain) in &self.chains {
                line(*table, format!("{verb} {chain}"));
            }
        }
        tables
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules::{Match, Property, Target};
    use super::*;

    const SAVED: &str = "# Generated\n*nat\n:PREROUTING ACCEPT [0:0]\n:ISTIO_OUTPUT - [0:0]\n:OTHER - [0:0]\n\
        -A PREROUTING -j OTHER\n-A OUTPUT -j ISTIO_OUTPUT\n-A ISTIO_OUTPUT -d 127.0.0.1/32 -j RETURN\n\
        -A ISTIO_OUTPUT -j ISTIO_REDIRECT\nCOMMIT\n*filter\n:ISTIO_X - [0:0]\nCOMMIT\n";

    #[test]
    fn only_what_is_ours_is_removed() {
        let saved = Saved::parse(SAVED);
        assert_eq!(saved.counts(), BTreeMap::from([((Table::Nat, "ISTIO_OUTPUT".to_owned()), 2)]));
        let rule = |matches, target| Rule { table: Table::Nat, chain: "OUTPUT", position: None, matches, target };
        let by_eth1 = Match { property: Property::Out("eth1".into()), not: false };
        let ours = [rule(vec![by_eth1], Target::Return), rule(vec![], Target::Jump("ISTIO_OUTPUT"))];
        let removal = saved.removal(ours.iter());
        let want = ["-D OUTPUT -j ISTIO_OUTPUT", "-D OUTPUT -o eth1 -j RETURN", "-F ISTIO_OUTPUT", "-X ISTIO_OUTPUT"];
        assert_eq!(removal, BTreeMap::from([(Table::Nat, want.map(str::to_owned).to_vec())]));
        assert!(Saved::parse("*nat\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n").is_empty());
    }

    #[test]
    fn programs_follow_the_family() {
        let tools = Tools { binary: Some("iptables-legacy".into()), ..Default::default() };
        assert_eq!(tools.program(Family::V6, "-restore"), "ip6tables-legacy-restore");
        assert_eq!(Tools::default().program(Family::V4, "-save"), "iptables-save");
    }
}
