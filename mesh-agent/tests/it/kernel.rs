//! `mesh-agent init` in a network namespace of its own: the rules are taken, taking them twice changes nothing, other
//! rules are refused or replaced, and cleanup leaves what was there before.

use std::process::Command;

/// Runs a shell script in a fresh network namespace, `$AGENT` being the binary. `None` where the kernel forbids it.
fn in_namespace(script: &str) -> Option<String> {
    let probe = |options: &[&str]| {
        let done = Command::new("unshare").args(options).args(["iptables-save", "-t", "nat"]).output();
        done.is_ok_and(|done| done.status.success())
    };
    let as_root = ["--net"].as_slice();
    let as_user = ["--user", "--map-root-user", "--net"].as_slice();
    let options = [as_root, as_user].into_iter().find(|options| probe(options))?;
    let done = Command::new("unshare")
        .args(options)
        .args(["sh", "-euc", script])
        .env("AGENT", env!("CARGO_BIN_EXE_mesh-agent"))
        .env("XTABLES_LOCKFILE", std::env::temp_dir().join(format!("mesh-agent-{}.lock", std::process::id())))
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(done.status.success(), "{}\n{}", text(&done.stdout), text(&done.stderr));
    Some(text(&done.stdout))
}

/// One case: flags, and whether IPv6 is on.
fn round_trip(flags: &str, ipv6: bool) -> Option<()> {
    let script = format!(
        r#"
        export ENABLE_INBOUND_IPV6={ipv6} DNS_SERVERS_V4=10.0.0.10
        ip link set lo up
        # Rules and our chains: a table that was once looked at stays in the list, empty.
        rules() {{ "$1" | grep -E '^(-A|:ISTIO)' | sed 's/ \[.*//' || true; }}
        save() {{ rules iptables-save; rules ip6tables-save; ip rule; ip -6 rule; ip addr show lo; }}
        iptables -t nat -A OUTPUT -d 10.9.9.9/32 -j ACCEPT
        before=$(save)
        $AGENT init {flags}
        once=$(save)
        $AGENT init {flags}
        twice=$(save)
        test "$once" = "$twice" || {{ echo "twice is not once:"; echo "$once"; echo "$twice"; exit 1; }}
        test "$before" != "$once" || {{ echo "nothing was set"; exit 1; }}
        if $AGENT init -p 16001 2>/dev/null; then echo "other rules were taken without --reconcile"; exit 1; fi
        $AGENT init {flags} --envoy-port 16001 --reconcile
        iptables-save -t nat | grep -q -- '--to-ports 16001' || {{ echo "not replaced"; exit 1; }}
        $AGENT init {flags} --cleanup
        after=$(save)
        test "$before" = "$after" || {{ echo "left behind:"; echo "$before"; echo "$after"; exit 1; }}
        "#
    );
    in_namespace(&script).map(drop)
}

#[test]
fn the_kernel_takes_the_rules_and_gives_them_back() {
    let cases = [
        ("-b * -i * -x 10.1.0.0/16 -d 15020,15021,15090 -o 53 -c eth9", false),
        ("-b * -i * -d 15020", true),
        ("-b 80,8080 -i 10.0.0.0/8,fd00::/8 -k eth1,eth2 -q 443", true),
        ("-b * -i * -m TPROXY -c eth9", true),
        ("-b * -i * --redirect-dns --drop-invalid", true),
        ("-b * -i * --redirect-dns --capture-all-dns", false),
        ("-b * -i * --proxy-mark 1337", false),
    ];
    for (flags, ipv6) in cases {
        // The shell must not expand the star.
        if round_trip(&flags.replace('*', "'*'"), ipv6).is_none() {
            eprintln!(
                "SKIPPED the_kernel_takes_the_rules_and_gives_them_back: no network namespace with iptables here"
            );
            return;
        }
    }
}
