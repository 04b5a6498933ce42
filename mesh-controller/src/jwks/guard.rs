//! Where the control plane may be sent by a policy.
//!
//! Whoever may write a RequestAuthentication chooses a URL that the control plane asks. That must not become a way to
//! places that only the control plane can reach: metadata services of clouds, and what the operator names besides. The
//! check is made of the address that is really dialled, so that no name can turn out to be another address later. Loopback
//! and private ranges are for the operator to block: issuers within a cluster live there.

use std::net::IpAddr;

use mesh_xds::Cidr;

/// Link-local ranges, where clouds have their metadata services, and the known ones elsewhere.
const ALWAYS: [&str; 6] =
    ["169.254.0.0/16", "224.0.0.0/24", "fe80::/10", "ff02::/16", "100.100.100.200/32", "fd00:ec2::/32"];

/// Addresses that are never dialled.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    blocked: Vec<Cidr>,
}

impl Guard {
    /// Blocks what is always blocked, and a list of ranges separated by commas. Also tells the entries that are no ranges.
    pub(super) fn new(more: &str) -> (Self, Vec<String>) {
        let mut blocked: Vec<Cidr> = ALWAYS.iter().filter_map(|range| Cidr::parse(range)).collect();
        let mut unread = Vec::new();
        for entry in more.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            match Cidr::parse(entry) {
                Some(range) => blocked.push(range),
                None => unread.push(entry.to_owned()),
            }
        }
        (Self { blocked }, unread)
    }

    /// True when the address may be dialled.
    pub(super) fn allows(&self, address: IpAddr) -> bool {
        // An IPv4 address in IPv6's clothes leads to the same place.
        let address = address.to_canonical();
        !self.blocked.iter().any(|range| range.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_services_are_out_of_reach_in_every_spelling() {
        let (guard, unread) = Guard::new("10.0.0.0/8, nonsense,,192.168.1.1");
        assert_eq!(unread, ["nonsense"]);
        for (address, allowed) in [
            ("169.254.169.254", false),
            ("::ffff:169.254.169.254", false),
            ("fe80::1", false),
            ("fd00:ec2::254", false),
            ("100.100.100.200", false),
            ("10.1.2.3", false),
            ("192.168.1.1", false),
            ("192.168.1.2", true),
            ("127.0.0.1", true),
            ("203.0.113.1", true),
            ("2001:db8::1", true),
        ] {
            assert_eq!(guard.allows(address.parse().unwrap()), allowed, "{address}");
        }
    }
}
