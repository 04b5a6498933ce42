//! mesh-api runs in a browser or a policy engine: it compiles for wasm32-unknown-unknown, and nothing that could not
//! enters its tree.

use std::path::Path;
use std::process::Command;

const TARGET: &str = "wasm32-unknown-unknown";

/// Crates that need a system below them: sockets, threads, files, random numbers, C.
const NEED_A_SYSTEM: &[&str] = &[
    "aws-lc-rs",
    "aws-lc-sys",
    "getrandom",
    "hyper",
    "hyper-util",
    "kube-client",
    "kube-runtime",
    "libc",
    "mimalloc",
    "mio",
    "native-tls",
    "nix",
    "notify",
    "openssl-sys",
    "rand",
    "ring",
    "rustix",
    "rustls",
    "socket2",
    "tempfile",
    "tokio",
    "tonic",
];

fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(out.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

#[test]
fn nothing_that_needs_a_system_enters_the_tree() {
    let args = ["tree", "--offline", "-p", "mesh-api", "--target", TARGET, "--prefix", "none"];
    let tree = run(env!("CARGO"), &[&args[..], &["-e", "normal,no-proc-macro", "--all-features"]].concat());
    let names: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&"serde"), "the tree lists dependencies: {tree}");
    let found: Vec<_> = names.iter().filter(|name| NEED_A_SYSTEM.contains(name)).collect();
    assert!(found.is_empty(), "{found:?} cannot be compiled for {TARGET}");
}

#[test]
fn it_compiles_for_wasm() {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let library = run(&rustc, &["--print", "target-libdir", "--target", TARGET]);
    if !Path::new(library.trim()).is_dir() {
        eprintln!("SKIPPED it_compiles_for_wasm: {TARGET} is not installed (rustup target add {TARGET})");
        return;
    }
    let folder = concat!(env!("CARGO_TARGET_TMPDIR"), "/wasm");
    run(env!("CARGO"), &["build", "--offline", "-p", "mesh-api", "--target", TARGET, "--target-dir", folder]);
}
