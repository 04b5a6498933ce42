//! Addresses and prefixes.

use std::fmt;
use std::net::IpAddr;

/// An address prefix without insignificant bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Cidr {
    /// The network address.
    pub address: IpAddr,
    /// The length of the prefix in bits.
    pub len: u8,
}

impl Cidr {
    /// Reads `10.0.0.0/8` or `10.0.0.1`; insignificant bits are cleared.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, len) = match text.split_once('/') {
            Some((address, len)) => (address.parse().ok()?, Some(len.parse::<u8>().ok()?)),
            None => (text.parse::<IpAddr>().ok()?, None),
        };
        let bits = bits(&address);
        let len = len.unwrap_or(bits);
        (len <= bits).then(|| Self { address: mask(address, len), len })
    }
    /// True for a single address.
    pub fn is_host(&self) -> bool {
        self.len == bits(&self.address)
    }
    /// True when the address lies within.
    pub fn contains(&self, address: &IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && mask(*address, self.len) == self.address
    }
}

fn bits(address: &IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn mask(address: IpAddr, len: u8) -> IpAddr {
    match address {
        IpAddr::V4(a) => {
            IpAddr::from((u32::from(a) & u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)).to_be_bytes())
        }
        IpAddr::V6(a) => {
            IpAddr::from((u128::from(a) & u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)).to_be_bytes())
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_host() { self.address.fmt(f) } else { write!(f, "{}/{}", self.address, self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn insignificant_bits_do_not_count() {
        for (text, want) in [
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("10.1.2.3/32", Some("10.1.2.3")),
            ("10.1.2.3", Some("10.1.2.3")),
            ("0.0.0.0/0", Some("0.0.0.0/0")),
            ("2001:db8::1/32", Some("2001:db8::/32")),
            ("10.0.0.0/33", None),
            ("foo", None),
        ] {
            assert_eq!(Cidr::parse(text).map(|c| c.to_string()).as_deref(), want, "{text}");
        }
        assert!(Cidr::parse("10.0.0.0/8").unwrap().contains(&"10.9.9.9".parse().unwrap()));
    }
}
