//! The node's network: a bridge, and for each pod a namespace with a cable to it. All by `ip`, in words that can be tried
//! by hand.
//!
//! Services' cluster IPs are nowhere: the pod's default route lets a packet to one set out, and the rules bring it to
//! Envoy before it gets anywhere.

use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

/// The node's address on its bridge.
pub const NODE: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 1);

const NODE_MAC: &str = "02:00:0a:f4:00:01";

/// A pod's cable.
#[derive(Clone, Copy, Debug)]
pub struct Uplink<'a> {
    /// Counts pods from 0.
    pub index: usize,
    /// The name of the namespace.
    pub namespace: &'a str,
    /// The pod's address.
    pub ip: Ipv4Addr,
}

/// The address of the pod with this index.
pub fn pod_ip(index: usize) -> Option<Ipv4Addr> {
    let index = u16::try_from(index).ok().filter(|index| *index < 0x7f00)? + 0x0101;
    let [high, low] = index.to_be_bytes();
    Some(Ipv4Addr::new(10, 244, high, low))
}

/// The file that stands for a namespace.
pub fn namespace_file(name: &str) -> String {
    format!("/run/netns/{name}")
}

/// Brings the bridge up.
///
/// # Errors
/// What `ip` said.
pub fn node() -> Result<(), String> {
    // The bridge gets an address of its own: otherwise it takes over that of its lowest port, so it would change with each
    // pod, and pods that know the old one would wait seconds for their neighbour tables to find out.
    let lines = format!(
        "link set lo up\nlink add mesh0 address {NODE_MAC} type bridge\naddress add {NODE}/16 dev mesh0\nlink set mesh0 up\n"
    );
    ip(None, &lines)
}

/// Makes a pod's namespace and connects it.
///
/// # Errors
/// What `ip` said.
pub fn pod(uplink: Uplink<'_>) -> Result<(), String> {
    let Uplink { index, namespace, ip: address } = uplink;
    ip(
        None,
        &format!(
            "netns add {namespace}\nlink add veth{index} type veth peer name eth0 netns {namespace}\n\
         link set veth{index} master mesh0 up\n"
        ),
    )?;
    ip(
        Some(namespace),
        &format!("link set lo up\naddress add {address}/16 dev eth0\nlink set eth0 up\nroute add default via {NODE}\n"),
    )
}

/// Runs lines of `ip`, in a namespace. `ip netns exec` is not used: it mounts /sys anew, which not every sandbox allows.
fn ip(namespace: Option<&str>, lines: &str) -> Result<(), String> {
    let mut command = match namespace {
        Some(name) => {
            let mut command = Command::new("nsenter");
            command.arg(format!("--net={}", namespace_file(name))).args(["--", "ip"]);
            command
        }
        None => Command::new("ip"),
    };
    let failed = |error: std::io::Error| format!("ip: {error}");
    let command = command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(lines.as_bytes()).map_err(failed)?;
    }
    let done = child.wait_with_output().map_err(failed)?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!("ip refused: {}\nin:\n{lines}", String::from_utf8_lossy(&done.stderr).trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_up() {
        assert_eq!(pod_ip(0), Some(Ipv4Addr::new(10, 244, 1, 1)));
        assert_eq!(pod_ip(255), Some(Ipv4Addr::new(10, 244, 2, 0)));
        assert_eq!(pod_ip(usize::MAX), None);
    }
}
