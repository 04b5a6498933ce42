//! From rows as meant to Envoy protobuf as sent.
//!
//! Every builder is a query: a small key, the view, nothing else. Every resource is encoded once, as soon as it is built.

pub mod access_log;
pub mod cluster;
pub mod http;
pub mod route;

use envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress, address, socket_address};
use envoy_types::pb::envoy::config::listener::v3::{Filter, filter};
use envoy_types::pb::google::protobuf::{Any, BoolValue, Duration, UInt32Value};
use prost::{Message, Name};

/// Packs a message into an `Any`.
pub(crate) fn pack<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// A wrapped boolean that is there.
#[allow(clippy::unnecessary_wraps)]
pub(crate) fn bool_value(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

/// A wrapped number that is there.
#[allow(clippy::unnecessary_wraps)]
pub(crate) fn u32_value(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

/// A duration in whole seconds that is there.
#[allow(clippy::unnecessary_wraps)]
pub(crate) fn duration(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

/// A network filter with its configuration.
pub(crate) fn network_filter<M: Message + Name>(name: &str, config: &M) -> Filter {
    Filter { name: name.into(), config_type: Some(filter::ConfigType::TypedConfig(pack(config))) }
}

/// A TCP socket address.
pub(crate) fn socket_address(ip: &str, port: u16) -> Address {
    let socket = SocketAddress {
        address: ip.into(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(u32::from(port))),
        ..Default::default()
    };
    Address { address: Some(address::Address::SocketAddress(socket)) }
}
