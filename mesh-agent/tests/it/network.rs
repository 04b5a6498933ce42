//! Pods as network namespaces: one namespace is the node, in which the control plane and the test live; each pod is another
//! with a cable to it.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A namespace, kept open by a process that does nothing.
pub(crate) struct Namespace(Child);

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Namespace {
    fn new() -> Option<Self> {
        let mut command = Command::new("unshare");
        let script = "ip link set lo up && echo ready && exec sleep 1000000";
        let child = command.args(["--net", "sh", "-c", script]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut namespace = Self(child.ok()?);
        let mut ready = [0; 6];
        namespace.0.stdout.as_mut()?.read_exact(&mut ready).ok()?;
        Some(namespace)
    }

    /// A node, into which this thread moves: whatever it opens or starts from now on is in there. `None` where that is
    /// forbidden.
    pub(crate) fn node() -> Option<Self> {
        let node = Self::new()?;
        let file = File::open(format!("/proc/{}/ns/net", node.0.id())).ok()?;
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network)).ok()?;
        Some(node)
    }

    /// A pod with a cable to the node that this thread is in: address `10.7.INDEX.2`, the node being `10.7.INDEX.1`.
    pub(crate) fn pod(index: u8) -> Self {
        let pod = Self::new().unwrap();
        let id = pod.0.id();
        run(&format!("ip link add pod{index} type veth peer name eth0 netns {id}"));
        run(&format!("ip address add 10.7.{index}.1/24 dev pod{index}"));
        run(&format!("ip link set pod{index} up"));
        for line in [
            format!("address add 10.7.{index}.2/24 dev eth0"),
            "link set eth0 up".into(),
            format!("route add default via 10.7.{index}.1"),
        ] {
            run(&format!("nsenter --target {id} --net ip {line}"));
        }
        pod
    }

    /// Does something on a thread that is in this namespace.
    pub(crate) fn within<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/proc/{}/ns/net", self.0.id())).unwrap();
        let moved = || {
            move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network)).unwrap();
            act()
        };
        std::thread::scope(|scope| scope.spawn(moved).join().unwrap())
    }

    /// A command in this namespace.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.0.id().to_string(), "--net", "--"]).arg(program);
        command
    }
}

fn run(line: &str) {
    let mut words = line.split(' ');
    let done = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(done.status.success(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
}

/// The address of a pod.
pub(crate) fn pod_ip(index: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 7, index, 2)
}

/// The answer to a GET, head and all.
pub(crate) fn get(address: impl Into<SocketAddr>, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&address.into(), Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

/// Asks until the answer is there.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Result<T, String>) -> T {
    let began = Instant::now();
    loop {
        match ask() {
            Ok(answer) => return answer,
            Err(why) => assert!(began.elapsed() < Duration::from_secs(60), "{what}: {why}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A process that does not outlive the test. It is asked, not killed, so that it ends what it has started.
pub(crate) struct Ended(pub(crate) Child);

impl Drop for Ended {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = Command::new("kill").arg(self.0.id().to_string()).status();
            let _ = self.0.wait();
        }
    }
}

/// The end of a file, for messages.
pub(crate) fn tail(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
