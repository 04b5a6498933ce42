//! `x-forwarded-client-cert`: a gateway that ended TLS tells whose certificate it saw.
//!
//! Believed only from addresses that were named to us, and only its last element: that one the gateway wrote, while what
//! stands before it came with the request. istiod believes all elements.

use std::net::IpAddr;
use std::time::SystemTime;

use super::{Authenticator, Caller, Credentials, Unknown, only_identity};
use crate::signer::Later;

const HEADER: &str = "x-forwarded-client-cert";

/// Believes gateways at certain addresses: `TRUSTED_GATEWAY_CIDR`.
#[derive(Clone, Debug)]
pub struct Xfcc {
    trusted: Vec<(IpAddr, u8)>,
}

impl Xfcc {
    /// Trusts these networks, such as `10.0.0.0/8`, and the local host.
    ///
    /// # Errors
    /// With the first text that is no network.
    pub fn new<'a>(networks: impl IntoIterator<Item = &'a str>) -> Result<Self, Unknown> {
        let read = |text: &str| {
            let (address, bits) = text.trim().split_once('/')?;
            let (address, bits): (IpAddr, u8) = (address.parse().ok()?, bits.parse().ok()?);
            (usize::from(bits) <= bits_of(address).0).then_some((address, bits))
        };
        let network =
            |text: &str| read(text).ok_or_else(|| Unknown(format!("{text:?} is no network; write 10.0.0.0/8")));
        Ok(Self { trusted: networks.into_iter().map(network).collect::<Result<_, _>>()? })
    }

    fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        let within = |(network, bits): &(IpAddr, u8)| {
            let ((width, network), (own, address)) = (bits_of(*network), bits_of(address));
            let shift = width - usize::from(*bits);
            width == own && network.checked_shr(shift as u32) == address.checked_shr(shift as u32)
        };
        address.is_loopback() || self.trusted.iter().any(within)
    }

    fn caller(&self, credentials: Credentials<'_>) -> Result<Caller, Unknown> {
        let mut headers = credentials.headers.get_all(HEADER).iter().filter_map(|value| value.to_str().ok());
        let header = headers.next_back().ok_or_else(|| Unknown("no x-forwarded-client-cert".into()))?;
        match credentials.address.map(|address| address.ip()) {
            Some(ip) if self.trusts(ip) => only_identity(&uris(header)),
            _ => Err(Unknown("x-forwarded-client-cert from an address that is not trusted".into())),
        }
    }
}

/// How many bits an address has, and which.
fn bits_of(address: IpAddr) -> (usize, u128) {
    match address {
        IpAddr::V4(v4) => (32, u128::from(u32::from(v4))),
        IpAddr::V6(v6) => (128, u128::from(v6)),
    }
}

impl Authenticator for Xfcc {
    fn name(&self) -> &'static str {
        "x-forwarded-client-cert"
    }

    fn authenticate<'a>(&'a self, credentials: Credentials<'a>, _: SystemTime) -> Later<'a, Result<Caller, Unknown>> {
        Box::pin(std::future::ready(self.caller(credentials)))
    }
}

/// The URIs of the last element. Elements are parted by commas, their fields by semicolons; values with either are quoted.
fn uris(header: &str) -> Vec<String> {
    let element = split(header, ',').pop().unwrap_or_default();
    let fields = split(element, ';').into_iter().filter_map(|field| field.trim().split_once('='));
    let uris = fields.filter(|(name, _)| name.eq_ignore_ascii_case("uri"));
    uris.map(|(_, value)| value.trim_matches('"').to_owned()).collect()
}

/// Splits where the separator is not within quotes.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(|c| {
        let ends = c == separator && !quoted;
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })
    .collect()
}
