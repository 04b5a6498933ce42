//! The demo's shows in their short forms, with real Envoys in network namespaces. They want Envoy (`ENVOY_PATH`) and a
//! kernel with namespaces, and the matrix wants root; where these are missing, the tests say so.

// Clippy takes only functions marked as tests for tests; the helpers here are as well.
#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::sync::{Mutex, PoisonError};

use mesh_examples::{sandbox, tools};

/// One mesh at a time: each show is a load of its own.
static ONE: Mutex<()> = Mutex::new(());

/// Runs a show, which must end well.
fn show(name: &str, arguments: &[&str]) {
    if let Err(reason) = possible() {
        eprintln!("SKIPPED {name}: {reason}");
        return;
    }
    let _alone = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let done = Command::new(env!("CARGO_BIN_EXE_demo")).arg(name).args(arguments).output().unwrap();
    let (said, told) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    eprintln!("{said}");
    assert!(done.status.success(), "{name} ended with {}:\n{told}", done.status);
}

fn possible() -> Result<(), String> {
    std::env::var_os("ENVOY_PATH").ok_or("ENVOY_PATH is not set")?;
    tools::envoy_binary()?;
    sandbox::is_possible()
}

/// TPROXY: connections are redirected with their addresses intact.
fn has_tproxy() -> Result<(), &'static str> {
    if !rustix::process::geteuid().is_root() {
        return Err("not root");
    }
    let rule = "iptables -t mangle -A PREROUTING -p tcp -j TPROXY --on-port 1 --tproxy-mark 1";
    let done = Command::new("unshare").args(["--net", "sh", "-c", rule]).output();
    if done.is_ok_and(|done| done.status.success()) { Ok(()) } else { Err("this kernel has no TPROXY") }
}

#[test]
fn every_cell_of_the_matrix_is_as_documented() {
    match has_tproxy() {
        Ok(()) => show("matrix", &[]),
        Err(reason) => eprintln!("SKIPPED matrix: {reason}"),
    }
}

#[test]
fn certificates_come_and_go_without_a_failed_request() {
    show("soak", &["--cert-ttl", "4s", "--rate", "100", "--for", "12s"]);
}

#[test]
fn a_control_plane_may_be_away_without_a_failed_request() {
    show("outage", &["--down", "3s", "--times", "1", "--rate", "100"]);
}

#[test]
fn a_root_is_replaced_without_a_failed_handshake_while_meshd_is_killed_in_every_phase() {
    show("rotation", &["--kill", "--cert-ttl", "6s", "--settle", "2s", "--rate", "100"]);
}
