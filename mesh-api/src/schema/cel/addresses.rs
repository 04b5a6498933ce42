//! IP addresses and ranges of them.

use std::fmt;
use std::net::IpAddr;

use super::{Fault, Value};

/// A range of addresses: an address and how many of its first bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cidr {
    address: IpAddr,
    bits: u32,
}

impl fmt::Display for Cidr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.bits)
    }
}

pub(super) fn call<'a>(function: &str, args: &[Value<'a>]) -> Option<Result<Value<'a>, Fault>> {
    let value = match (function, args) {
        ("ip", [Value::String(text)]) => return Some(address(text).map(Value::Ip)),
        ("isIP", [Value::String(text)]) => Value::Bool(address(text).is_ok()),
        ("ip.isCanonical", [Value::String(text)]) => {
            return Some(address(text).map(|address| Value::Bool(address.to_string() == *text)));
        }
        ("cidr", [Value::String(text)]) => return Some(cidr(text).map(Value::Cidr)),
        ("isCIDR", [Value::String(text)]) => Value::Bool(cidr(text).is_ok()),
        ("ip", [Value::Cidr(range)]) => Value::Ip(range.address),
        ("masked", [Value::Cidr(range)]) => Value::Cidr(range.masked()),
        ("prefixLength", [Value::Cidr(range)]) => Value::Int(range.bits.into()),
        ("containsIP", [Value::Cidr(range), Value::Ip(address)]) => Value::Bool(range.contains(*address)),
        ("containsIP", [Value::Cidr(range), Value::String(text)]) => {
            return Some(address(text).map(|address| Value::Bool(range.contains(address))));
        }
        ("containsCIDR", [Value::Cidr(range), Value::Cidr(inner)]) => Value::Bool(range.covers(*inner)),
        ("containsCIDR", [Value::Cidr(range), Value::String(text)]) => {
            return Some(cidr(text).map(|inner| Value::Bool(range.covers(inner))));
        }
        (_, [Value::Ip(address)]) => of_address(function, *address)?,
        _ => return None,
    };
    Some(Ok(value))
}

fn of_address<'a>(function: &str, address: IpAddr) -> Option<Value<'a>> {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    Some(match function {
        "family" => Value::Int(if address.is_ipv4() { 4 } else { 6 }),
        "isUnspecified" => Value::Bool(address.is_unspecified()),
        "isLoopback" => Value::Bool(address.is_loopback()),
        "isLinkLocalMulticast" => Value::Bool(match address {
            IpAddr::V4(v4) => matches!(v4.octets(), [224, 0, 0, _]),
            IpAddr::V6(v6) => matches!(v6.octets(), [0xff, flags, ..] if flags & 0x0f == 2),
        }),
        "isLinkLocalUnicast" => Value::Bool(link_local),
        "isGlobalUnicast" => Value::Bool(
            !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || link_local || broadcast),
        ),
        _ => return None,
    })
}

/// An address without zone that is not an IPv4 address in IPv6's notation.
fn address(text: &str) -> Result<IpAddr, Fault> {
    match text.parse() {
        Ok(IpAddr::V6(v6)) if v6.to_ipv4_mapped().is_some() => {
            Err(Fault::new(format!("IPv4-mapped IPv6 address {text:?} is not allowed")))
        }
        Ok(address) => Ok(address),
        Err(_) => Err(Fault::new(format!("IP Address {text:?} parse error during conversion from string"))),
    }
}

fn cidr(text: &str) -> Result<Cidr, Fault> {
    let bad = || Fault::new(format!("network address parse error during conversion from string: {text:?}"));
    let (host, bits) = text.split_once('/').ok_or_else(bad)?;
    let address = address(host)?;
    let plain = bits == "0" || (!bits.starts_with('0') && bits.bytes().all(|byte| byte.is_ascii_digit()));
    let bits: u32 = bits.parse().map_err(|_| bad())?;
    if !plain || bits > width(address) {
        return Err(bad());
    }
    Ok(Cidr { address, bits })
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl Cidr {
    fn masked(self) -> Self {
        let drop = width(self.address) - self.bits;
        let address = match self.address {
            IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(drop).unwrap_or(0)).into()),
            IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(drop).unwrap_or(0)).into()),
        };
        Self { address, ..self }
    }

    fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4()
            && Self { address, bits: self.bits }.masked().address == self.masked().address
    }

    fn covers(self, inner: Self) -> bool {
        inner.bits >= self.bits && self.contains(inner.address)
    }
}
