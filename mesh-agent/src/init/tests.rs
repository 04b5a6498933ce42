use std::collections::BTreeMap;
use std::path::Path;

use clap::Parser;

use super::rules::{render, rules};
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
        let (want_v4, want_v6) = families(&want);
        for (family, got, want) in [("v4", &got.v4, want_v4), ("v6", &got.v6, want_v6)] {
            if family == "v6" && !pod.ipv6 {
                assert!(got.is_empty());
                continue;
            }
            checks += 1;
            if by_chain(&render(got)) != by_chain(&want) {
                failed.push(format!("{} {family}:\n{}", case["id"], render(got)));
            }
        }
    }
    eprintln!("iptables: {} of {checks}", checks - failed.len());
    assert!(failed.is_empty() && checks > 0, "{}", failed.join("\n"));
}
