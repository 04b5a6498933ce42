//! A box of namespaces for the demo: network, processes and mounts of its own. Whatever is made inside (bridges, rules,
//! pods' namespaces, processes) belongs to the box, and the kernel takes it all away when the box's first process ends,
//! however that comes about: by success, failure, Ctrl-C, a panic, or SIGKILL. So nothing is ever left behind, and an
//! earlier run that crashed has left nothing either.
//!
//! Root needs nothing more. Anyone else gets the box inside a user namespace, where the kernel allows one; there is only
//! one user in it then.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::tools;

/// What must be installed, and in which package it is.
const PROGRAMS: &[(&str, &str)] = &[
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("mount", "mount or util-linux"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("iptables-save", "iptables"),
    ("iptables-restore", "iptables"),
];

/// Where the programs are inside: a user whose home others may not enter can still share them.
pub const INSIDE: &str = "/run/mesh";

/// What programs read in `/etc`: how names are looked up, who is who, where libraries and iptables are.
const ETC: &[&str] = &[
    "alternatives",
    "group",
    "iproute2",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "nsswitch.conf",
    "passwd",
    "protocols",
    "services",
];

const BOX: &[&str] = &["--net", "--mount", "--pid", "--fork", "--kill-child"];
const BOX_OF_A_USER: &[&str] = &["--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child"];

/// Tries the kernel with what the box will need first.
const PROBE: &str = "mount -t tmpfs tmpfs /run && ip netns add probe && ip link add probe0 type bridge \
    && ip link add veth0 type veth peer name eth0 netns probe \
    && nsenter --net=/run/netns/probe iptables -t nat -A OUTPUT -p tcp -m OWNER -j REDIRECT --to-ports 15001";

/// Runs this program again inside a box, with these arguments and `--one-user` where there is only one. The process
/// inside has a pipe as standard input and must end when that closes: then we are gone.
///
/// # Errors
/// What is missing, for the user.
pub async fn run(arguments: &[OsString]) -> Result<ExitCode, String> {
    tools::require(PROGRAMS)?;
    let options = choose()?;
    let program = std::env::current_exe().map_err(|error| format!("this program's file: {error}"))?;
    let mut command = tokio::process::Command::new("unshare");
    command.args(options).arg("--").arg(program).args(arguments).env("PATH", path());
    if options == BOX_OF_A_USER {
        command.arg("--one-user");
    }
    let failed = |error: std::io::Error| format!("unshare: {error}");
    let mut child = command.stdin(Stdio::piped()).kill_on_drop(true).spawn().map_err(failed)?;
    let mut lifeline = child.stdin.take();
    let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    loop {
        let [interrupt, terminate, hangup] = &mut signals;
        let told = |signal: &mut std::io::Result<tokio::signal::unix::Signal>| signal.is_ok();
        if !(told(interrupt) && told(terminate) && told(hangup)) {
            return Err("signals cannot be received".into());
        }
        let next = async {
            match (interrupt, terminate, hangup) {
                (Ok(a), Ok(b), Ok(c)) => tokio::select! { _ = a.recv() => {}, _ = b.recv() => {}, _ = c.recv() => {} },
                _ => std::future::pending().await,
            }
        };
        let grace = async {
            match lifeline {
                Some(_) => std::future::pending().await,
                None => tokio::time::sleep(Duration::from_secs(10)).await,
            }
        };
        tokio::select! {
            status = child.wait() => {
                let status = status.map_err(failed)?;
                return Ok(ExitCode::from(mesh_agent::supervise::exit_code(status)));
            }
            () = grace => child.start_kill().map_err(failed)?,
            () = next => match lifeline.take() {
                // The first time we ask, the second time we insist. With unshare its child dies, and with that the box.
                Some(pipe) => drop(pipe),
                None => child.start_kill().map_err(failed)?,
            },
        }
    }
}

/// Whether this system can have a box.
///
/// # Errors
/// What is missing, for the user.
pub fn is_possible() -> Result<(), String> {
    tools::require(PROGRAMS)?;
    choose().map(drop)
}

/// How to make a box here.
fn choose() -> Result<&'static [&'static str], String> {
    let root = rustix::process::geteuid().is_root();
    let mut said = String::new();
    for options in [BOX, BOX_OF_A_USER].into_iter().filter(|options| root || *options == BOX_OF_A_USER) {
        // Which match tells the proxy's packets inside.
        let probe = PROBE.replace("OWNER", if options == BOX { "owner --uid-owner 1337" } else { "mark --mark 1337" });
        let done = Command::new("unshare").args(options).args(["--", "sh", "-c", &probe]).env("PATH", path()).output();
        let done = done.map_err(|error| format!("unshare: {error}"))?;
        if done.status.success() {
            return Ok(options);
        }
        said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
    }
    let needs = "Needed are network, process and mount namespaces, a bridge, veth, and iptables' nat table.";
    let how = match root {
        true => "As root in a container: start it privileged (docker run --privileged).".to_owned(),
        false => format!(
            "Run it as root, or let users have namespaces of their own{}.",
            knob().map(|(file, value)| format!(" ({file} is {value})")).unwrap_or_default()
        ),
    };
    Err(format!("this kernel does not give the demo its own namespaces: {said}\n{needs} {how}"))
}

/// The setting that keeps users from namespaces on this system, where one does.
fn knob() -> Option<(&'static str, String)> {
    let knobs = [
        ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
        ("/proc/sys/user/max_user_namespaces", "0"),
    ];
    knobs.into_iter().find_map(|(file, bad)| {
        let value = std::fs::read_to_string(file).ok()?.trim().to_owned();
        (value == bad).then_some((file, value))
    })
}

/// A path with the folders of administration, which users' paths lack.
fn path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/sbin:/sbin");
    path
}

/// Furnishes the box from inside: an empty `/run` and `/var/lib`, the programs under [`INSIDE`], and an `/etc` with `hosts`.
/// Returns the paths of the programs, in order.
///
/// # Errors
/// What the kernel refused.
pub fn furnish(programs: &[&Path], hosts: &str) -> Result<Vec<PathBuf>, String> {
    mount(&["-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run"])?;
    let var_run = Path::new("/var/run");
    if std::fs::canonicalize(var_run).is_ok_and(|real| real == var_run) {
        mount(&["--bind", "/run", "/var/run"])?;
    }
    let inside = Path::new(INSIDE);
    let failed = |error: std::io::Error| format!("{INSIDE}: {error}");
    std::fs::create_dir_all(inside).map_err(failed)?;
    let mut paths = Vec::new();
    for program in programs {
        let name = program.file_name().ok_or_else(|| format!("{} is no file", program.display()))?;
        let path = inside.join(name);
        std::fs::write(&path, "").map_err(failed)?;
        mount(&["--bind".as_ref(), program.as_os_str(), path.as_os_str()])?;
        paths.push(path);
    }
    furnish_etc(hosts)?;
    // Where pods have their data; nothing of the host's is needed.
    mount(&["-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/var/lib"])?;
    Ok(paths)
}

/// An `/etc` of our own, in which pods find their folders: of the host's, what programs need.
fn furnish_etc(hosts: &str) -> Result<(), String> {
    let etc = Path::new(INSIDE).join("etc");
    let failed = |error: std::io::Error| format!("{}: {error}", etc.display());
    std::fs::create_dir_all(&etc).map_err(failed)?;
    let needed = ETC.iter().map(|name| Path::new("/etc").join(name)).filter(|path| path.exists());
    let copied =
        Command::new("cp").arg("-rP").args(needed).arg(&etc).output().map_err(|error| format!("cp: {error}"))?;
    if !copied.status.success() {
        return Err(String::from_utf8_lossy(&copied.stderr).trim().to_owned());
    }
    std::fs::write(etc.join("hosts"), hosts).map_err(failed)?;
    mount(&["--bind".as_ref(), etc.as_os_str(), "/etc".as_ref()])
}

fn mount<A: AsRef<std::ffi::OsStr>>(arguments: &[A]) -> Result<(), String> {
    let done = Command::new("mount").args(arguments).output().map_err(|error| format!("mount: {error}"))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&done.stderr).trim().to_owned()),
    }
}

/// Returns when the demo should end: a signal, or standard input (the pipe of [`run`]) closed.
pub async fn told_to_end() {
    use tokio::io::AsyncReadExt;
    let of = |kind: SignalKind| async move {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    let closed = async {
        let mut pipe = tokio::io::stdin();
        let mut byte = [0];
        while pipe.read(&mut byte).await.is_ok_and(|read| read > 0) {}
    };
    tokio::select! {
        () = of(SignalKind::interrupt()) => {}
        () = of(SignalKind::terminate()) => {}
        () = closed => {}
    }
}
