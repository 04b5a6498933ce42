//! Equal messages, equal bytes: protobuf maps are kept in hash maps and leave the encoder in any order, but a version is a
//! hash of bytes, so the entries of each map are sorted after encoding.
//!
//! Sorting permutes bytes within one message and never changes a length, so it is done in place. Only messages that hold
//! maps somewhere below are walked; the table knows those of Envoy's types that we build. It must be extended together
//! with a builder that puts two entries into a map of another message.

use std::ops::Range;

use envoy_types::pb::google::protobuf::Any;

/// Messages with maps below them.
#[derive(Clone, Copy)]
enum Kind {
    Cluster,
    TransportSocketMatch,
    LoadAssignment,
    LocalityEndpoints,
    LbEndpoint,
    Listener,
    FilterChain,
    Filter,
    AccessLog,
    RouteConfiguration,
    VirtualHost,
    Route,
    RouteAction,
    WeightedCluster,
    ClusterWeight,
    Metadata,
    MapEntry,
    Struct,
    StructEntry,
    Value,
    ListValue,
    Any,
    HttpConnectionManager,
    TcpProxy,
    FileAccessLog,
    FormatString,
    RbacFilter,
    Rbac,
    JwtAuthentication,
    Opaque,
}

/// What a field holds.
enum Field {
    Message(Kind),
    /// A map whose entries are of this kind.
    Map(Kind),
}

impl Kind {
    fn of(type_url: &str) -> Option<Self> {
        Some(match type_url.rsplit('/').next()? {
            "envoy.config.cluster.v3.Cluster" => Self::Cluster,
            "envoy.config.endpoint.v3.ClusterLoadAssignment" => Self::LoadAssignment,
            "envoy.config.listener.v3.Listener" => Self::Listener,
            "envoy.config.route.v3.RouteConfiguration" => Self::RouteConfiguration,
            "envoy.config.route.v3.Route" => Self::Route,
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" => {
                Self::HttpConnectionManager
            }
            "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" => Self::TcpProxy,
            "envoy.extensions.access_loggers.file.v3.FileAccessLog" => Self::FileAccessLog,
            "envoy.extensions.filters.http.rbac.v3.RBAC" | "envoy.extensions.filters.network.rbac.v3.RBAC" => {
                Self::RbacFilter
            }
            "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication" => Self::JwtAuthentication,
            "google.protobuf.Struct" => Self::Struct,
            _ => return None,
        })
    }

    fn field(self, tag: u32) -> Option<Field> {
        use Field::{Map, Message};
        Some(match (self, tag) {
            (Self::Cluster, 25) => Message(Self::Metadata),
            (Self::Cluster, 33) => Message(Self::LoadAssignment),
            (Self::Cluster, 36) => Map(Self::MapEntry),
            (Self::Cluster, 43) => Message(Self::TransportSocketMatch),
            (Self::TransportSocketMatch, 2) => Message(Self::Struct),
            (Self::LoadAssignment, 2) => Message(Self::LocalityEndpoints),
            (Self::LocalityEndpoints, 2) => Message(Self::LbEndpoint),
            (Self::LocalityEndpoints, 9) | (Self::LbEndpoint, 3) => Message(Self::Metadata),
            (Self::Listener, 3 | 25) => Message(Self::FilterChain),
            (Self::Listener, 22) | (Self::HttpConnectionManager, 13) => Message(Self::AccessLog),
            (Self::Listener, 6) | (Self::FilterChain, 5) => Message(Self::Metadata),
            (Self::FilterChain, 3) | (Self::HttpConnectionManager, 5) => Message(Self::Filter),
            (Self::Filter | Self::AccessLog, 4) => Message(Self::Any),
            (Self::HttpConnectionManager, 4) => Message(Self::RouteConfiguration),
            (Self::TcpProxy, 5) => Message(Self::AccessLog),
            (Self::TcpProxy, 9) => Message(Self::Metadata),
            (Self::TcpProxy, 10) => Message(Self::WeightedCluster),
            (Self::RouteConfiguration, 2) => Message(Self::VirtualHost),
            (Self::RouteConfiguration, 16)
            | (Self::VirtualHost, 15)
            | (Self::Route, 13)
            | (Self::ClusterWeight, 10) => Map(Self::MapEntry),
            (Self::RouteConfiguration, 17) | (Self::VirtualHost, 24) | (Self::Route, 4) => Message(Self::Metadata),
            (Self::VirtualHost, 3) => Message(Self::Route),
            (Self::Route, 2) => Message(Self::RouteAction),
            (Self::RouteAction, 3) => Message(Self::WeightedCluster),
            (Self::RouteAction, 4) | (Self::ClusterWeight, 3) => Message(Self::Metadata),
            (Self::WeightedCluster, 1) => Message(Self::ClusterWeight),
            (Self::Metadata, 1) => Map(Self::StructEntry),
            (Self::Metadata, 2) => Map(Self::MapEntry),
            (Self::MapEntry, 2) => Message(Self::Any),
            (Self::StructEntry, 2) => Message(Self::Struct),
            // An entry of a Struct has its Value in field 2, where a Value itself has a number: one kind serves both.
            (Self::Struct, 1) => Map(Self::Value),
            (Self::Value, 2) => Message(Self::Value),
            (Self::Value, 5) => Message(Self::Struct),
            (Self::Value, 6) => Message(Self::ListValue),
            (Self::ListValue, 1) => Message(Self::Value),
            (Self::FileAccessLog, 3 | 4) => Message(Self::Struct),
            (Self::FileAccessLog, 5) => Message(Self::FormatString),
            (Self::FormatString, 2) => Message(Self::Struct),
            (Self::RbacFilter, 1 | 2) => Message(Self::Rbac),
            (Self::Rbac, 2) | (Self::JwtAuthentication, 1) => Map(Self::Opaque),
            _ => return None,
        })
    }
}

/// Packs a message with maps into an `Any` whose bytes are the same for equal messages.
pub(crate) fn pack<M: prost::Message + prost::Name>(message: &M) -> Any {
    let (type_url, mut value) = (M::type_url(), message.encode_to_vec());
    sort_maps(&type_url, &mut value);
    Any { type_url, value }
}

/// Sorts the entries of every map in an encoded message.
pub(super) fn sort_maps(type_url: &str, bytes: &mut [u8]) {
    if let Some(kind) = Kind::of(type_url) {
        walk(kind, bytes);
    }
}

fn walk(kind: Kind, bytes: &mut [u8]) {
    if matches!(kind, Kind::Any) {
        return walk_any(bytes);
    }
    // A run of entries of one map: they are next to each other, because they were encoded from one map.
    let mut run: Vec<Range<usize>> = Vec::new();
    let mut run_tag = 0;
    let mut at = 0;
    while let Some(next) = Next::read(bytes, at) {
        if next.tag != run_tag {
            sort_run(bytes, &mut run);
        }
        if let (Some(body), Some(field)) = (next.body.clone(), kind.field(next.tag)) {
            let (below, is_map) = match field {
                Field::Message(below) => (below, false),
                Field::Map(below) => (below, true),
            };
            if let Some(body) = bytes.get_mut(body) {
                walk(below, body);
            }
            if is_map {
                run_tag = next.tag;
                run.push(at..next.end);
            }
        }
        at = next.end;
    }
    sort_run(bytes, &mut run);
}

fn walk_any(bytes: &mut [u8]) {
    let mut kind = None;
    let mut at = 0;
    while let Some(next) = Next::read(bytes, at) {
        at = next.end;
        let Some(body) = next.body.and_then(|body| bytes.get_mut(body)) else { continue };
        match next.tag {
            1 => kind = std::str::from_utf8(body).ok().and_then(Kind::of),
            _ => {
                if let Some(kind) = kind {
                    walk(kind, body);
                }
            }
        }
    }
}

fn sort_run(bytes: &mut [u8], run: &mut Vec<Range<usize>>) {
    if let (Some(first), Some(last), true) = (run.first(), run.last(), run.len() > 1) {
        let whole = first.start..last.end;
        let mut entries: Vec<&[u8]> = run.iter().filter_map(|entry| bytes.get(entry.clone())).collect();
        entries.sort_unstable();
        let sorted = entries.concat();
        if let Some(place) = bytes.get_mut(whole)
            && place.len() == sorted.len()
        {
            place.copy_from_slice(&sorted);
        }
    }
    run.clear();
}

/// One field of an encoded message.
struct Next {
    tag: u32,
    /// The content of a length-delimited field.
    body: Option<Range<usize>>,
    end: usize,
}

impl Next {
    fn read(bytes: &[u8], at: usize) -> Option<Self> {
        let mut rest = bytes.get(at..)?;
        let key = varint(&mut rest)?;
        let body_at = |rest: &[u8]| bytes.len() - rest.len();
        let (body, end) = match key & 7 {
            0 => {
                varint(&mut rest)?;
                (None, body_at(rest))
            }
            1 => (None, body_at(rest) + 8),
            5 => (None, body_at(rest) + 4),
            2 => {
                let len = usize::try_from(varint(&mut rest)?).ok()?;
                let start = body_at(rest);
                let end = start.checked_add(len)?;
                (Some(start..end), end)
            }
            _ => return None,
        };
        (end <= bytes.len()).then_some(Self { tag: u32::try_from(key >> 3).ok()?, body, end })
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    if bytes.is_empty() { None } else { prost::encoding::decode_varint(bytes).ok() }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use envoy_types::pb::envoy::config::core::v3::Metadata;
    use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter::ConfigType};
    use envoy_types::pb::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};
    use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
        HttpConnectionManager, http_connection_manager::RouteSpecifier,
    };
    use envoy_types::pb::google::protobuf::{Any, ListValue, Struct, Value, value::Kind};
    use envoy_types::util::pack_any;
    use prost::Message;

    use crate::Resource;

    fn strings(n: usize) -> Value {
        let fields =
            (0..n).map(|i| (format!("k{i}"), Value { kind: Some(Kind::StringValue(i.to_string())) })).collect();
        Value { kind: Some(Kind::StructValue(Struct { fields })) }
    }

    fn metadata() -> Metadata {
        let list = Value { kind: Some(Kind::ListValue(ListValue { values: vec![strings(9), strings(3)] })) };
        let fields = [("a", list), ("b", strings(5)), ("c", strings(1))].map(|(k, v)| (k.to_owned(), v));
        let istio = Struct { fields: fields.into_iter().collect() };
        Metadata {
            filter_metadata: [("istio".to_owned(), istio.clone()), ("other".to_owned(), istio)].into(),
            ..Metadata::default()
        }
    }

    fn listener() -> Listener {
        let config = |i: u8| Any { type_url: "type.googleapis.com/x".to_owned(), value: vec![i] };
        let route = Route {
            metadata: Some(metadata()),
            typed_per_filter_config: (0..6).map(|i| (format!("filter{i}"), config(i))).collect(),
            ..Route::default()
        };
        let routes = RouteConfiguration {
            virtual_hosts: vec![VirtualHost { routes: vec![route], ..VirtualHost::default() }],
            ..RouteConfiguration::default()
        };
        let hcm = HttpConnectionManager {
            route_specifier: Some(RouteSpecifier::RouteConfig(routes)),
            ..HttpConnectionManager::default()
        };
        let filter = Filter { name: "hcm".to_owned(), config_type: Some(ConfigType::TypedConfig(pack_any(hcm))) };
        let chain = FilterChain { filters: vec![filter], metadata: Some(metadata()), ..FilterChain::default() };
        Listener { filter_chains: vec![chain.clone(), chain], ..Listener::default() }
    }

    #[test]
    fn equal_messages_have_equal_bytes() {
        let cluster = || Cluster { name: "c".to_owned(), metadata: Some(metadata()), ..Cluster::default() };
        let first = (Resource::encode("c", &cluster()), Resource::encode("l", &listener()));
        for _ in 0..50 {
            assert_eq!(Resource::encode("c", &cluster()), first.0);
            assert_eq!(Resource::encode("l", &listener()), first.1);
        }
        assert_eq!(first.0.decode::<Cluster>().unwrap(), cluster());
        let decoded = first.1.decode::<Listener>().unwrap();
        let ConfigType::TypedConfig(any) = decoded.filter_chains[0].filters[0].config_type.as_ref().unwrap() else {
            panic!("typed")
        };
        let hcm = HttpConnectionManager::decode(&*any.value).unwrap();
        let Some(RouteSpecifier::RouteConfig(routes)) = hcm.route_specifier else { panic!("inline routes") };
        assert_eq!(routes.virtual_hosts[0].routes[0].metadata, Some(metadata()));
        assert_eq!(routes.virtual_hosts[0].routes[0].typed_per_filter_config.len(), 6);
    }

    #[test]
    fn garbage_is_left_alone() {
        for garbage in [&[0xff, 0xff][..], &[0xca, 0x01, 0x7f, 1, 2], &[0x0b]] {
            let mut bytes = garbage.to_vec();
            super::sort_maps("type.googleapis.com/envoy.config.cluster.v3.Cluster", &mut bytes);
            assert_eq!(bytes, garbage);
        }
    }
}
