use std::collections::BTreeMap;
use std::path::Path;

use clap::Parser;

use super::iptables::render;
use super::rules::rules;
use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    options: Options,
}

fn config(flags: &[&str], env: &[(&str, &str)], pod: Pod) -> Result<(Config, Vec<String>), InitError> {
    let options = Cli::parse_from(["init"].iter().chain(flags)).options;
    Config::new(&options, &Environment::from_iter(env.iter().copied()), pod)
}

fn text(flags: &[&str], env: &[(&str, &str)], pod: Pod) -> String {
    let (config, _) = config(flags, env, pod).unwrap();
    let rules = rules(&config);
    render(&rules.v4) + &render(&rules.v6)
}

#[test]
fn nothing_can_be_smuggled_in() {
    for flags in [
        ["-b", "80 -j ACCEPT\n-A OUTPUT"],
        ["-d", "80\nCOMMIT"],
        ["-c", "eth0 -j DROP"],
        ["-i", "10.0.0.0/33"],
        ["-i", "10.0.0.0"],
        ["-x", "*"],
        ["-m", "NONE"],
        ["-p", ""],
    ] {
        let error = config(&flags, &[], Pod::default()).unwrap_err();
        assert!(
            error.to_string().contains(&format!("{:?}", flags[1])) || flags[0] == "-d" || flags[0] == "-b",
            "{error}"
        );
    }
    let groups = (0..65).map(|gid| gid.to_string()).collect::<Vec<_>>().join(",");
    assert!(config(&[], &[("ISTIO_OUTBOUND_OWNER_GROUPS", &groups)], Pod::default()).is_err());
    assert!(config(&[], &[("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", "10.0.0.1/32")], Pod::default()).is_err());
}

#[test]
fn flags_win_over_the_environment() {
    let env = [("ISTIO_INBOUND_PORTS", "*"), ("INVALID_DROP", "true")];
    let from_env = text(&[], &env, Pod::default());
    assert!(from_env.contains("-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT"));
    assert!(from_env.contains("-A ISTIO_DROP -j DROP"));
    let from_flag = text(&["-b", "80"], &env, Pod::default());
    assert!(from_flag.contains("-A ISTIO_INBOUND -p tcp --dport 80 -j ISTIO_IN_REDIRECT"));
    assert!(!from_flag.contains("-A ISTIO_INBOUND -p tcp -j"));
}

#[test]
fn groups_and_loopback_and_wildcards() {
    let only = text(&["-i", "*", "-k", "eth1"], &[("ISTIO_OUTBOUND_OWNER_GROUPS", "java,202")], Pod::default());
    assert!(only.contains("-A ISTIO_OUTPUT -m owner ! --gid-owner java -m owner ! --gid-owner 202 -j RETURN"));
    assert!(only.contains("-A ISTIO_OUTPUT -j ISTIO_REDIRECT\n-I PREROUTING 1 -i eth1 -j ISTIO_REDIRECT"));
    let but = text(&["-i", "127.0.0.1/32"], &[("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", "7")], Pod::default());
    assert!(but.contains("-A ISTIO_OUTPUT -m owner --gid-owner 7 -j RETURN"));
    assert!(!but.contains("! --uid-owner 1337 -j RETURN"), "loopback is captured on request");
}

#[test]
fn dns_needs_a_server_or_all() {
    let (none, warnings) = config(&["--redirect-dns"], &[], Pod::default()).unwrap();
    assert!(!none.dns);
    assert_eq!(warnings.len(), 1);
    let pod = Pod { ipv6: true, ..Pod::default() };
    let all = text(&["--capture-all-dns"], &[("ISTIO_META_DNS_CAPTURE", "true")], pod);
    assert_eq!(all.matches("-A ISTIO_OUTPUT_DNS -p tcp --dport 53 -j REDIRECT --to-ports 15053").count(), 2);
    assert_eq!(all.matches("-A ISTIO_INBOUND -p udp --sport 53 -j CT --zone 1").count(), 2);
}

#[test]
fn a_mark_can_stand_for_the_owner() {
    let text = text(&["--proxy-mark", "1337", "-i", "*"], &[], Pod::default());
    assert!(text.contains("-A ISTIO_OUTPUT -m mark --mark 1337 -j RETURN"));
    assert!(!text.contains("owner"));
}

/// Rules in order for each table and chain; chains in any order, white space and the spelling of `--to-port` aside.
fn by_chain(text: &str) -> BTreeMap<(String, String), Vec<String>> {
    let mut chains: BTreeMap<_, Vec<String>> = BTreeMap::new();
    let mut table = String::new();
    for line in text.lines() {
        let words: Vec<&str> =
            line.split_whitespace().map(|w| if w == "--to-port" { "--to-ports" } else { w }).collect();
        match words.as_slice() {
            [] | ["COMMIT"] => {}
            ["*", name] => table = (*name).to_owned(),
            ["-N", chain] => drop(chains.entry((table.clone(), (*chain).to_owned())).or_default()),
            [_, chain, ..] => chains.entry((table.clone(), (*chain).to_owned())).or_default().push(words.join(" ")),
            other => panic!("not iptables-restore: {other:?}"),
        }
    }
    chains
}

/// Splits the text of both families: a table that is named again begins the second.
fn families(text: &str) -> (String, String) {
    let mut seen = Vec::new();
    let mut parts = [String::new(), String::new()];
    let mut part = 0;
    for line in text.lines() {
        if line.starts_with('*') {
            if seen.contains(&line) {
                part = 1;
            }
            seen.push(line);
        }
        parts[part].push_str(line);
        parts[part].push('\n');
    }
    let [v4, v6] = parts;
    (v4, v6)
}

/// What each chain says in the end, without the verbs: inserted rules stand where they belong.
fn in_the_end(text: &str) -> BTreeMap<(String, String), Vec<String>> {
    let chains = by_chain(text).into_iter().map(|(chain, verbs)| {
        let mut rules: Vec<String> = Vec::new();
        for verb in verbs {
            let words: Vec<&str> = verb.split(' ').collect();
            match words.as_slice() {
                ["-I", _, position, rule @ ..] => rules.insert(position.parse::<usize>().unwrap() - 1, rule.join(" ")),
                [_, _, rule @ ..] => rules.push(rule.join(" ")),
                _ => panic!("no rule: {verb}"),
            }
        }
        (chain, rules)
    });
    chains.collect()
}

/// How nft says what iptables says, for one family: the beginning of what is left of a rule, and what follows for iptables.
/// `$` is one word, which is the same in both.
const NFT: [(&str, &str); 27] = [
    ("meta l4proto $", "-p $"),
    ("iifname $", "-i $"),
    ("oifname $", "-o $"),
    ("FAMILY saddr $", "-s $"),
    ("FAMILY daddr != $", "! -d $"),
    ("FAMILY daddr $", "-d $"),
    ("th sport $", "--sport $"),
    ("th dport != { 53, $ }", "-m multiport ! --dports 53,$"),
    ("th dport != $", "! --dport $"),
    ("th dport $", "--dport $"),
    ("meta skuid != $", "-m owner ! --uid-owner $"),
    ("meta skuid $", "-m owner --uid-owner $"),
    ("meta skgid != $", "-m owner ! --gid-owner $"),
    ("meta skgid $", "-m owner --gid-owner $"),
    ("ct state $", "-m conntrack --ctstate $"),
    ("meta mark set ct mark", "-j CONNMARK --restore-mark"),
    ("ct mark set meta mark", "-j CONNMARK --save-mark"),
    ("meta mark set $", "-j MARK --set-mark $"),
    ("meta mark != $", "-m mark ! --mark $"),
    ("meta mark $", "-m mark --mark $"),
    ("ct mark $", "-m connmark --mark $"),
    ("ct zone set $", "-j CT --zone $"),
    ("tproxy to : $ meta mark set 1337 accept", "-j TPROXY --tproxy-mark 1337/0xffffffff --on-port $"),
    ("redirect to : $", "-j REDIRECT --to-ports $"),
    ("return", "-j RETURN"),
    ("accept", "-j ACCEPT"),
    ("drop", "-j DROP"),
];

/// A line of a script for nft, as iptables would say it.
fn as_iptables(line: &str, family: &str, table: &str) -> String {
    let line = line.replace("to :", "to : ").replace('"', "");
    let mut left: Vec<&str> = line.split(' ').filter(|word| *word != "counter").collect();
    let mut said = Vec::new();
    'line: while !left.is_empty() {
        if let ["jump", chain] = left.as_slice() {
            let chain = chain.strip_prefix(&format!("{table}-")).unwrap();
            said.push(format!("-j {}", chain.to_uppercase().replace('-', "_")));
            break;
        }
        for (nft, iptables) in NFT {
            let pattern: Vec<&str> = nft.split(' ').map(|w| if w == "FAMILY" { family } else { w }).collect();
            if left.len() >= pattern.len() && pattern.iter().zip(&left).all(|(p, word)| *p == "$" || p == word) {
                let word = pattern.iter().position(|p| *p == "$").map_or("", |at| left[at]);
                let word = if pattern[1..].starts_with(&["state"]) { word.to_uppercase() } else { word.to_owned() };
                said.push(iptables.replace('$', &word));
                left.drain(..pattern.len());
                continue 'line;
            }
        }
        panic!("iptables has no word for {left:?} of {line:?}");
    }
    said.join(" ")
}

/// The tables of a script for nft, as [`in_the_end`] gives those for iptables, by family.
fn of_nft(script: &str) -> BTreeMap<String, BTreeMap<(String, String), Vec<String>>> {
    let mut families: BTreeMap<String, BTreeMap<_, Vec<String>>> = BTreeMap::new();
    let (mut family, mut chain) = (String::new(), (String::new(), String::new()));
    let mut tproxy = None;
    for line in script.lines().map(str::trim) {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["add" | "delete", "table", "ip" | "ip6", "istio-proxy"] | ["}"] => {}
            ["table", name, "istio-proxy", "{"] => family = (*name).to_owned(),
            ["chain", name, "{"] => {
                let (table, name) = name.split_once('-').unwrap();
                chain = (table.to_owned(), name.to_uppercase().replace('-', "_"));
                families.entry(family.clone()).or_default().entry(chain.clone()).or_default();
            }
            ["type", kind, "hook", hook, "priority", priority, "policy", "accept;"] => {
                assert_eq!(hook.to_uppercase(), chain.1);
                let want = match chain.0.as_str() {
                    "nat" => ("nat", "-100;"),
                    "raw" => ("filter", "-300;"),
                    _ if *hook == "output" => ("route", "-150;"),
                    _ => ("filter", "-150;"),
                };
                assert_eq!((*kind, *priority), want);
            }
            [.., "drop"] if tproxy.as_deref() == line.strip_suffix("drop") => tproxy = None,
            _ => {
                assert_eq!(tproxy, None, "after a tproxy, what nobody took must be dropped");
                tproxy = line.split_once("tproxy to").map(|(matches, _)| matches.to_owned());
                let said = as_iptables(line, &family, &chain.0);
                families.get_mut(&family).unwrap().get_mut(&chain).unwrap().push(said);
            }
        }
    }
    families
}

#[test]
fn nft_says_the_same() {
    let dual = Pod { ipv6: true, dns_v4: vec!["10.0.0.10".into()], dns_v6: vec!["fd00::a".into()] };
    let flags: [&[&str]; 5] = [
        &["-b", "*", "-i", "*", "-d", "15020,15021", "-x", "10.1.0.0/16,fd01::/64", "-o", "53", "-c", "eth9"],
        &["-b", "80,8080", "-i", "10.0.0.0/8,fd00::/8", "-k", "eth1,eth2", "-q", "443", "-u", "3,java"],
        &["-b", "*", "-i", "*", "-m", "TPROXY", "-c", "eth9", "--drop-invalid"],
        &["-b", "80", "-i", "*", "-m", "TPROXY", "--redirect-dns"],
        &["-b", "*", "-i", "*", "--redirect-dns", "--capture-all-dns", "--proxy-mark", "1337"],
    ];
    let envs: [&[(&str, &str)]; 2] = [&[], &[("ISTIO_OUTBOUND_OWNER_GROUPS", "java,202")]];
    for (flags, env) in flags.iter().flat_map(|flags| envs.map(|env| (*flags, env))) {
        for pod in [Pod::default(), dual.clone()] {
            let rules = rules(&config(flags, env, pod).unwrap().0);
            let script = super::nftables::script(&rules);
            let mut got = of_nft(&script);
            assert_eq!(got.remove("ip"), Some(in_the_end(&render(&rules.v4))), "{flags:?}\n{script}");
            assert_eq!(got.remove("ip6").unwrap_or_default(), in_the_end(&render(&rules.v6)), "{flags:?}\n{script}");
        }
    }
}

#[test]
fn nft_has_its_own_spelling() {
    let flags = ["--native-nftables", "-b", "80:90", "-c", "eth+", "--force-iptables-binary", "iptables-legacy"];
    let (config, warnings) = config(&flags, &[], Pod::default()).unwrap();
    let script = config.render(&rules(&config));
    assert!(script.contains("iifname \"eth*\" counter return") && script.contains("th dport 80-90 "), "{script}");
    assert!(script.starts_with("add table ip istio-proxy\ndelete table ip istio-proxy\ntable ip istio-proxy {\n"));
    assert!(!script.contains("ip6"), "the pod has no IPv6 address");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let native = [("NATIVE_NFTABLES", "true")];
    assert!(super::tests::config(&[], &native, Pod::default()).unwrap().0.nftables);
}

#[test]
fn corpus() {
    let Some(corpus) = std::env::var_os("MESH_CORPUS") else {
        eprintln!("SKIPPED init corpus: MESH_CORPUS names no corpus");
        return;
    };
    let (mut checks, mut failed) = (0, Vec::new());
    for entry in std::fs::read_dir(Path::new(&corpus).join("iptables")).unwrap() {
        let folder = entry.unwrap().path();
        let case: serde_json::Value =
            serde_json::from_slice(&std::fs::read(folder.join("case.json")).unwrap()).unwrap();
        let want = std::fs::read_to_string(folder.join("want.txt")).unwrap();
        let flags: Vec<&str> = case["flags"].as_array().unwrap().iter().map(|f| f.as_str().unwrap()).collect();
        let env = case["env"].as_object().unwrap().iter().map(|(k, v)| (k.as_str(), v.as_str().unwrap()));
        let servers = case["dnsServers"].as_array().unwrap().iter().map(|s| s.as_str().unwrap().to_owned());
        let (dns_v6, dns_v4) = servers.partition(|server| server.contains(':'));
        let pod = Pod { ipv6: case["ipv6"].as_bool().unwrap(), dns_v4, dns_v6 };
        let (config, _) = config(&flags, &env.collect::<Vec<_>>(), pod.clone()).unwrap();
        let got = rules(&config);
        let mut nft = of_nft(&super::nftables::script(&got));
        let (want_v4, want_v6) = families(&want);
        for (family, got, want) in [("v4", &got.v4, want_v4), ("v6", &got.v6, want_v6)] {
            if family == "v6" && !pod.ipv6 {
                assert!(got.is_empty());
                continue;
            }
            checks += 1;
            let nft = nft.remove(if family == "v4" { "ip" } else { "ip6" });
            if by_chain(&render(got)) != by_chain(&want) || nft != Some(in_the_end(&want)) {
                failed.push(format!("{} {family}:\n{}{nft:#?}", case["id"], render(got)));
            }
        }
    }
    eprintln!("iptables: {} of {checks}", checks - failed.len());
    assert!(failed.is_empty() && checks > 0, "{}", failed.join("\n"));
}
