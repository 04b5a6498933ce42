//! `mesh-agent init` in a network namespace of its own: the rules are taken, taking them twice changes nothing, other
//! rules are refused or replaced, cleanup leaves what was there before, and packets go where they should.

use std::process::Command;

/// Runs a shell script in a fresh network namespace, `$AGENT` being the binary. `None` where the kernel forbids it: `probe` is
/// a command that must work there.
fn in_namespace(probe: &[&str], script: &str) -> Option<String> {
    let probe = |options: &[&str]| {
        let done = Command::new("unshare").args(options).args(probe).output();
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
    in_namespace(&IPTABLES, &script).map(drop)
}

const IPTABLES: [&str; 3] = ["iptables-save", "-t", "nat"];
const NFT: [&str; 5] = ["nft", "add", "table", "ip", "probe"];

/// The same for nftables, where other rules of ours are replaced at once.
fn nft_round_trip(flags: &str, ipv6: bool) -> Option<()> {
    let script = format!(
        r#"
        export ENABLE_INBOUND_IPV6={ipv6} DNS_SERVERS_V4=10.0.0.10 DNS_SERVERS_V6=fd00::a NATIVE_NFTABLES=true
        ip link set lo up
        save() {{ nft list ruleset; ip rule; ip -6 rule; ip addr show lo; }}
        nft add table ip others
        before=$(save)
        $AGENT init {flags}
        once=$(save)
        $AGENT init {flags}
        twice=$(save)
        test "$once" = "$twice" || {{ echo "twice is not once:"; echo "$once"; echo "$twice"; exit 1; }}
        test "$before" != "$once" || {{ echo "nothing was set"; exit 1; }}
        # What the kernel has is what was printed: it takes no line away and adds none.
        count() {{ grep -c counter || true; }}
        test "$($AGENT init {flags} --dry-run | count)" = "$(nft list ruleset | count)" || {{ echo "$once"; exit 1; }}
        $AGENT init {flags} --envoy-port 16001
        nft list ruleset | grep -q 'redirect to :16001' || {{ echo "not replaced"; exit 1; }}
        if nft list ruleset | grep -q 'redirect to :15001'; then echo "the old rules are still there"; exit 1; fi
        $AGENT init {flags} --cleanup
        after=$(save)
        test "$before" = "$after" || {{ echo "left behind:"; echo "$before"; echo "$after"; exit 1; }}
        "#
    );
    in_namespace(&NFT, &script).map(drop)
}

const CASES: [(&str, bool); 7] = [
    ("-b * -i * -x 10.1.0.0/16 -d 15020,15021,15090 -o 53 -c eth9", false),
    ("-b * -i * -d 15020", true),
    ("-b 80,8080 -i 10.0.0.0/8,fd00::/8 -k eth1,eth2 -q 443", true),
    ("-b * -i * -m TPROXY -c eth9", true),
    ("-b * -i * --redirect-dns --drop-invalid", true),
    ("-b * -i * --redirect-dns --capture-all-dns", false),
    ("-b * -i * --proxy-mark 1337", false),
];

#[test]
fn the_kernel_takes_the_rules_and_gives_them_back() {
    for (flags, ipv6) in CASES {
        // The shell must not expand the star.
        let flags = flags.replace('*', "'*'");
        for (tool, done) in [("iptables", round_trip(&flags, ipv6)), ("nftables", nft_round_trip(&flags, ipv6))] {
            if done.is_none() {
                eprintln!(
                    "SKIPPED the_kernel_takes_the_rules_and_gives_them_back: no network namespace with {tool} here"
                );
            }
        }
    }
}

/// Where packets end up, by either tool: every listener says its own port to whoever connects.
#[test]
fn packets_go_where_the_rules_say() {
    const SCRIPT: &str = r#"
        export ENABLE_INBOUND_IPV6=false DNS_SERVERS_V4=10.0.0.10
        ip link set lo up
        ip link add eth0 type veth peer name node0
        ip addr add 10.7.0.2/24 dev eth0
        ip link set eth0 up
        ip link set node0 up
        ip route add default via 10.7.0.1
        validate() { $AGENT init -u 0 --skip-rule-apply --run-validation --probe-timeout $1 2>/dev/null || echo $?; }
        test "$(validate 0.1s)" = 126 || { echo "valid without rules"; exit 1; }
        $AGENT init -u 0 $FLAG
        test -z "$(validate 5s)" || { echo "not valid with rules"; exit 1; }
        $AGENT init -u 0 --cleanup $FLAG
        pids=
        trap 'kill $pids' EXIT
        for port in 15001 15006 15053 8080; do
            : > ready.$port
            python3 -u -c '
import socket, sys
listener = socket.create_server(("", int(sys.argv[1])))
print("ready", flush=True)
while True:
    client, _ = listener.accept()
    client.sendall(sys.argv[1].encode())
    client.close()
' $port >> ready.$port &
            pids="$pids $!"
            until grep -q ready ready.$port; do kill -0 $!; sleep 0.05; done
        done
        # Who answers a user at an address; "nobody" after a second without an answer.
        ask() { python3 -c '
import os, socket, sys
os.setuid(int(sys.argv[1]))
client = socket.socket()
client.settimeout(1)
try:
    client.connect((sys.argv[2], int(sys.argv[3])))
    print(client.recv(9).decode())
except OSError: print("nobody")
' "$@"; }
        expect() { got=$(ask $2 $3 $4); test "$got" = $1 || { echo "$2 to $3:$4: $got, not $1"; exit 1; }; }
        $AGENT init -b '*' -i '*' -x 10.1.0.0/16 -o 9999 --redirect-dns $FLAG
        expect 15001 0 10.9.9.9 80
        expect nobody 0 10.1.2.3 80
        expect nobody 0 10.9.9.9 9999
        expect nobody 1337 10.9.9.9 80
        expect 15006 1337 10.7.0.2 8080
        expect 8080 0 10.7.0.2 8080
        expect 8080 0 127.0.0.1 8080
        expect 15053 0 10.0.0.10 53
        expect 15001 0 10.0.0.11 53
        $AGENT init -b '*' -i '*' --cleanup $FLAG
        expect nobody 0 10.9.9.9 80
        expect 8080 1337 10.7.0.2 8080
    "#;
    for (tool, probe, flag) in
        [("iptables", IPTABLES.as_slice(), ""), ("nftables", NFT.as_slice(), "--native-nftables")]
    {
        let folder = tempfile::tempdir().unwrap();
        let script = format!("cd {}\nFLAG={flag}\n{SCRIPT}", folder.path().display());
        // A user namespace of one user has no other who could connect.
        let others = rustix::process::getuid().is_root();
        if !others || in_namespace(probe, &script).is_none() {
            eprintln!(
                "SKIPPED packets_go_where_the_rules_say: no network namespace with {tool} and root's rights here"
            );
        }
    }
}
