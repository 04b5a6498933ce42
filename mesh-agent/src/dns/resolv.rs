//! `/etc/resolv.conf`: who knows the names that we don't know, and what resolvers append to short ones.

use std::net::IpAddr;

/// What we need of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resolv {
    /// Name servers, in order.
    pub servers: Vec<IpAddr>,
    /// Search domains, in order.
    pub search: Vec<String>,
}

impl Resolv {
    /// Reads the text of the file. Returns as well the servers that are no addresses.
    pub fn parse(text: &str) -> (Self, Vec<&str>) {
        let (mut resolv, mut wrong) = (Self::default(), Vec::new());
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                // The kernel's name of an interface says nothing to others.
                (Some("nameserver"), Some(server)) => match server.split('%').next().unwrap_or(server).parse() {
                    Ok(server) => resolv.servers.push(server),
                    Err(_) => wrong.push(server),
                },
                // The last such line counts.
                (Some("search" | "domain"), Some(first)) => {
                    resolv.search = std::iter::once(first).chain(words).map(str::to_owned).collect();
                }
                _ => {}
            }
        }
        (resolv, wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_domains_are_read() {
        let text = "# made\nsearch old\nnameserver 10.0.0.10\nnameserver\tfd00::10%eth0\nnameserver x\n\
                    search default.svc.cluster.local svc.cluster.local\noptions ndots:5\nnameserver\n";
        let (resolv, wrong) = Resolv::parse(text);
        assert_eq!(resolv.servers, ["10.0.0.10".parse::<IpAddr>().unwrap(), "fd00::10".parse().unwrap()]);
        assert_eq!(resolv.search, ["default.svc.cluster.local", "svc.cluster.local"]);
        assert_eq!(wrong, ["x"]);
    }
}
