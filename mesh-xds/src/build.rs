//! From rows as meant to Envoy protobuf as sent.
//!
//! Every builder is a query: a small key, the view, nothing else. Every resource is encoded once, as soon as it is built.

pub(crate) mod access;
pub mod access_log;
mod accounts;
pub(crate) mod authn;
pub mod cluster;
mod defaults;
pub mod destination;
pub mod endpoints;
pub mod gateway;
pub mod http;
pub mod inbound;
mod lookup;
pub mod names;
pub mod outbound;
pub(crate) mod problems;
pub mod route;
pub mod secrets;
mod tls;
pub mod trust;
mod virtual_host;

use envoy_types::pb::envoy::config::core::v3::{Address, SocketAddress, address, socket_address};
use envoy_types::pb::envoy::config::listener::v3::{Filter, ListenerFilter, filter, listener_filter};
use envoy_types::pb::google::protobuf::{Any, BoolValue, Duration, UInt32Value};
use prost::{Message, Name};

pub(crate) use route::config_metadata;

/// The name of the TCP proxy filter.
pub(crate) const TCP_PROXY: &str = "envoy.filters.network.tcp_proxy";
/// The cluster that leads to where a connection was going.
pub(crate) const PASSTHROUGH_CLUSTER: &str = "PassthroughCluster";
/// The cluster without endpoints.
pub(crate) const BLACKHOLE_CLUSTER: &str = "BlackHoleCluster";

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

/// Finds server name and application protocols of TLS.
pub(crate) fn tls_inspector() -> ListenerFilter {
    listener_filter(
        "envoy.filters.listener.tls_inspector",
        &envoy_types::pb::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector::default(),
    )
}

/// Tells HTTP from bytes.
pub(crate) fn http_inspector() -> ListenerFilter {
    listener_filter(
        "envoy.filters.listener.http_inspector",
        &envoy_types::pb::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector::default(),
    )
}

/// A listener filter with its configuration.
pub(crate) fn listener_filter<M: Message + Name>(name: &str, config: &M) -> ListenerFilter {
    ListenerFilter {
        name: name.into(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(pack(config))),
        ..Default::default()
    }
}
