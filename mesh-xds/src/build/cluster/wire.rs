//! Small conversions into protobuf's well-known types.

use envoy_types::pb::envoy::config::core::v3::{
    Address, Pipe, SocketAddress, address::Address as AddressKind, socket_address::PortSpecifier,
};
use envoy_types::pb::google::protobuf::{
    Duration as PbDuration, ListValue, Struct, UInt32Value, UInt64Value, Value, value::Kind,
};
use mesh_api::types::Duration;

pub(crate) fn duration(duration: Duration) -> PbDuration {
    PbDuration { seconds: duration.seconds(), nanos: duration.subsec_nanos() }
}

pub(crate) fn uint32(value: u32) -> UInt32Value {
    UInt32Value { value }
}

pub(crate) fn uint64(value: u64) -> UInt64Value {
    UInt64Value { value }
}

pub(crate) fn text(text: impl Into<String>) -> Value {
    Value { kind: Some(Kind::StringValue(text.into())) }
}

pub(crate) fn list(values: Vec<Value>) -> Value {
    Value { kind: Some(Kind::ListValue(ListValue { values })) }
}

pub(crate) fn structure<K: Into<String>>(fields: impl IntoIterator<Item = (K, Value)>) -> Struct {
    Struct { fields: fields.into_iter().map(|(k, v)| (k.into(), v)).collect() }
}

/// An address of a socket, or of a pipe for `unix://path`.
pub(crate) fn address(host: &str, port: u16) -> Address {
    let kind = match host.strip_prefix("unix://") {
        Some(path) => AddressKind::Pipe(Pipe { path: path.to_owned(), ..Pipe::default() }),
        None => AddressKind::SocketAddress(socket(host, port)),
    };
    Address { address: Some(kind) }
}

/// The address of a socket.
pub(crate) fn socket(host: &str, port: u16) -> SocketAddress {
    SocketAddress {
        address: host.to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(port.into())),
        ..SocketAddress::default()
    }
}
