//! Addresses and ports.

use std::net::{IpAddr, Ipv6Addr};

use super::at::Check;
use super::hosts;

/// What an address of a Unix domain socket begins with.
pub(super) const UNIX: &str = "unix://";

/// A port that one can listen on or connect to.
pub(super) fn port(number: impl Into<i64>) -> Check {
    match number.into() {
        1..=65535 => Ok(()),
        number => Err(format!("port number {number} must be in the range 1..65535")),
    }
}

/// True for an IPv4 or IPv6 address, the latter possibly with a zone.
pub(super) fn is_ip(text: &str) -> bool {
    match text.split_once('%') {
        Some((address, zone)) => !zone.is_empty() && address.parse::<Ipv6Addr>().is_ok(),
        None => text.parse::<IpAddr>().is_ok(),
    }
}

/// An IP address.
pub(super) fn ip(text: &str) -> Check {
    if is_ip(text) { Ok(()) } else { Err(format!("{text:?} is not a valid IP address; write one such as 10.1.2.3")) }
}

/// An IP address or a range in CIDR form.
pub(super) fn subnet(text: &str) -> Check {
    let Some((address, bits)) = text.split_once('/') else { return ip(text) };
    let most = match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => Some(32),
        Ok(IpAddr::V6(_)) => Some(128),
        Err(_) => None,
    };
    let canonical = bits.bytes().all(|b| b.is_ascii_digit()) && (bits == "0" || !bits.starts_with('0'));
    let bits = canonical.then(|| bits.parse::<u8>().ok()).flatten();
    if bits.is_some_and(|bits| most.is_some_and(|most| bits <= most)) {
        Ok(())
    } else {
        Err(format!("{text:?} is not a valid CIDR block; write one such as 10.1.0.0/16"))
    }
}

/// The path of a Unix domain socket, or its abstract name after `@`; what comes after [`UNIX`].
pub(super) fn unix_path(path: &str) -> Check {
    if path.is_empty() {
        Err("a unix address must not be empty; write unix:///path".to_owned())
    } else if path.starts_with('@') || (path.starts_with('/') && !path.ends_with('/')) {
        Ok(())
    } else {
        Err(format!("{path:?} is not an absolute path to a file; write unix:///path"))
    }
}

/// `host:port`, the host a DNS name or an IP address.
pub(super) fn proxy_address(text: &str) -> Check {
    let (host, number) = host_and_port(text)?;
    port(number.parse::<i64>().map_err(|_| format!("port ({number}) is not a number"))?)?;
    if hosts::fqdn(host).is_err() && !is_ip(host) {
        return Err(format!("{host:?} is not a valid hostname or an IP address"));
    }
    Ok(())
}

/// Splits `host:port` and `[host]:port`.
pub(super) fn host_and_port(text: &str) -> Result<(&str, &str), String> {
    let wrong = |what: &str| Err(format!("{text:?} has {what}; write host:port, or [host]:port for IPv6"));
    let Some((host, port)) = text.rsplit_once(':') else { return wrong("no port") };
    let (host, rest) = match host.strip_prefix('[') {
        Some(inner) => match inner.strip_suffix(']') {
            Some(inner) => (inner, inner),
            None => return wrong("no port after the brackets"),
        },
        None if host.contains(':') => return wrong("too many colons"),
        None => (host, host),
    };
    if rest.contains(['[', ']']) || port.contains(['[', ']']) {
        return wrong("brackets out of place");
    }
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_ranges() {
        for (text, address, range) in [
            ("10.0.0.1", true, true),
            ("2001:db8::1", true, true),
            ("fe80::1%eth0", true, true),
            ("10.0.0.1/8", false, true),
            ("2001::/64", false, true),
            ("10.0.0.1/33", false, false),
            ("10.0.0.1/08", false, false),
            ("10.0.0.1/+8", false, false),
            // All that follows the % is the zone.
            ("fe80::1%eth0/64", true, false),
            ("fe80::1%", false, false),
            ("10.0.0.1/8/8", false, false),
            ("10.0.0", false, false),
            ("010.0.0.1", false, false),
            ("", false, false),
            ("/8", false, false),
        ] {
            assert_eq!(ip(text).is_ok(), address, "{text}");
            assert_eq!(subnet(text).is_ok(), range, "{text}");
        }
    }

    #[test]
    fn sockets_and_ports() {
        for (path, fits) in [("/a", true), ("@a", true), ("", false), ("a", false), ("/a/", false)] {
            assert_eq!(unix_path(path).is_ok(), fits, "{path}");
        }
        for (number, fits) in [(0, false), (1, true), (65535, true), (65536, false), (-1, false)] {
            assert_eq!(port(number).is_ok(), fits, "{number}");
        }
    }

    #[test]
    fn hosts_with_ports() {
        for (text, fits) in [
            ("istio-pilot:80", true),
            ("foo.com:80", true),
            ("10.0.0.100:9090", true),
            ("[2001:db8::1]:80", true),
            ("istio-pilot", false),
            ("isti..:80", false),
            ("10.0.0.100", false),
            ("foo:port", false),
            ("foo:100000", false),
            ("2001:db8::1:80", false),
            ("[::1]80:80", false),
            (":80", false),
        ] {
            assert_eq!(proxy_address(text).is_ok(), fits, "{text}");
        }
    }
}
