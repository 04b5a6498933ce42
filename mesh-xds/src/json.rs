//! Envoy messages as proto3 JSON, with every `Any` expanded under `@type`.
//!
//! For people and tools: `meshctl xds`, the debug pages, bootstraps, and later EnvoyFilter patches, which come as JSON. The
//! descriptors are Envoy's own, taken from the package envoy-types by the build script. Nothing on the way of a
//! push may come here: reflection is slow, and what is pushed is encoded already.

mod istio;

use std::sync::{Arc, OnceLock};

use prost_reflect::prost::{DecodeError, Message as _};
use prost_reflect::{
    DescriptorError, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value as Field,
};
use serde_json::{Map, Value};

use crate::{ResourceSet, TypeUrl};

/// The descriptors of all Envoy messages that we may meet: an encoded `google.protobuf.FileDescriptorSet`, each file
/// after what it imports not guaranteed. For gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/envoy.bin"));

/// Why a message and its JSON did not become each other.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Ours: the descriptor set of this build cannot be used.
    #[error("the descriptor set of this build is broken, build again with another envoy-types: {0}")]
    Descriptors(#[source] Arc<DescriptorError>),
    /// The caller's: no such message.
    #[error("unknown message type {0:?}, check the @type: it reads type.googleapis.com/ and the full protobuf name")]
    UnknownType(String),
    /// The sender's: the bytes are another message's or cut off.
    #[error("the bytes are not a {type_url}: {source}")]
    Decode {
        /// What they were taken for.
        type_url: String,
        /// What protobuf says.
        source: DecodeError,
    },
    /// The author's: the JSON is not that of the message.
    #[error("not the JSON of a {type_url}: {message}")]
    Json {
        /// What it was taken for.
        type_url: String,
        /// Which field, and why.
        message: String,
    },
}

/// The descriptors, decoded once.
///
/// # Errors
/// [`Error::Descriptors`], always or never in one build.
pub fn pool() -> Result<&'static DescriptorPool, Error> {
    static POOL: OnceLock<Result<DescriptorPool, Error>> = OnceLock::new();
    let pool = POOL.get_or_init(|| decode_pool().map_err(|error| Error::Descriptors(Arc::new(error))));
    pool.as_ref().map_err(Clone::clone)
}

/// Envoy's messages, and the table of names and the bundle of trust, which are Istio's.
fn decode_pool() -> Result<DescriptorPool, DescriptorError> {
    let mut pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET)?;
    pool.add_file_descriptor_protos([istio::name_table(), istio::proxy_config()])?;
    Ok(pool)
}

/// A message as proto3 JSON: camelCase names, enums by name, 64-bit integers as strings, fields with their default value
/// left out. An `Any` of a type that nobody knows stays `{"@type": …, "value": base64}`.
///
/// # Errors
/// When the type is unknown or the bytes are not such a message (also inside an `Any`).
pub fn to_json(type_url: &str, bytes: &[u8]) -> Result<Value, Error> {
    message_to_json(&decode(type_url, bytes)?)
}

/// The message that such JSON describes, encoded. Field names may be camelCase or as in the .proto file.
///
/// # Errors
/// When a type is unknown (also inside an `Any`), a field is unknown or a value is not what the field holds.
pub fn from_json(type_url: &str, json: Value) -> Result<Vec<u8>, Error> {
    let descriptor = descriptor(type_url)?;
    let message = DynamicMessage::deserialize(descriptor, json)
        .map_err(|e| Error::Json { type_url: type_url.to_owned(), message: e.to_string() })?;
    Ok(message.encode_to_vec())
}

/// What a proxy is sent, in the form of the contract: one list for each type, in the order of the sets.
///
/// # Errors
/// When a resource is not of its type, which is a fault of a builder.
pub fn dump(sets: &[(TypeUrl, ResourceSet)]) -> Result<Value, Error> {
    let mut out: Map<String, Value> =
        TypeUrl::ALL.into_iter().map(|t| (list_name(t).to_owned(), Value::Array(Vec::new()))).collect();
    for (type_url, set) in sets {
        let resources: Result<Vec<Value>, Error> = set.iter().map(|r| to_json(type_url.as_str(), &r.value())).collect();
        out.insert(list_name(*type_url).to_owned(), Value::Array(resources?));
    }
    Ok(Value::Object(out))
}

/// The key of a type's list in a [`dump`].
pub fn list_name(type_url: TypeUrl) -> &'static str {
    match type_url {
        TypeUrl::Cluster => "clusters",
        TypeUrl::Endpoint => "endpoints",
        TypeUrl::Listener => "listeners",
        TypeUrl::Route => "routes",
        TypeUrl::Secret => "secrets",
        TypeUrl::ExtensionConfig => "extensions",
        TypeUrl::NameTable => "names",
        TypeUrl::ProxyConfig => "proxyConfigs",
    }
}

pub(crate) fn descriptor(type_url: &str) -> Result<prost_reflect::MessageDescriptor, Error> {
    let name = type_url.rsplit('/').next().unwrap_or(type_url);
    pool()?.get_message_by_name(name).ok_or_else(|| Error::UnknownType(type_url.to_owned()))
}

fn decode(type_url: &str, bytes: &[u8]) -> Result<DynamicMessage, Error> {
    DynamicMessage::decode(descriptor(type_url)?, bytes)
        .map_err(|source| Error::Decode { type_url: type_url.to_owned(), source })
}

// prost-reflect's own serializer fails on an `Any` of an unknown type, and one unknown extension must not hide the
// rest of a dump. So the walk is ours and only leaves and well-known types are left to it.
fn message_to_json(message: &DynamicMessage) -> Result<Value, Error> {
    let descriptor = message.descriptor();
    let name = descriptor.full_name();
    if name == "google.protobuf.Any" {
        return any_to_json(message);
    }
    if name.starts_with("google.protobuf.") && descriptor.parent_file().name() != "google/protobuf/descriptor.proto" {
        return well_known_to_json(message);
    }
    let mut out = Map::new();
    for (field, value) in message.fields() {
        out.insert(field.json_name().to_owned(), field_to_json(&field, value)?);
    }
    Ok(Value::Object(out))
}

fn well_known_to_json(message: &DynamicMessage) -> Result<Value, Error> {
    serde_json::to_value(message)
        .map_err(|e| Error::Json { type_url: message.descriptor().full_name().to_owned(), message: e.to_string() })
}

fn any_to_json(any: &DynamicMessage) -> Result<Value, Error> {
    let any: prost_types::Any = any
        .transcode_to()
        .map_err(|source| Error::Decode { type_url: "type.googleapis.com/google.protobuf.Any".to_owned(), source })?;
    let mut out = Map::new();
    out.insert("@type".to_owned(), Value::String(any.type_url.clone()));
    match decode(&any.type_url, &any.value) {
        Ok(message) => match message_to_json(&message)? {
            Value::Object(fields) if !message.descriptor().full_name().starts_with("google.protobuf.") => {
                out.extend(fields);
            }
            value => {
                out.insert("value".to_owned(), value);
            }
        },
        Err(Error::UnknownType(_)) => {
            out.insert("value".to_owned(), bytes_to_json(&any.value)?);
        }
        Err(other) => return Err(other),
    }
    Ok(Value::Object(out))
}

fn field_to_json(field: &FieldDescriptor, value: &Field) -> Result<Value, Error> {
    match value {
        Field::List(items) => items.iter().map(|v| leaf_to_json(&field.kind(), v)).collect(),
        Field::Map(entries) => {
            let kind = match field.kind() {
                Kind::Message(entry) => entry.map_entry_value_field().kind(),
                other => other,
            };
            let entries: Result<std::collections::BTreeMap<String, Value>, Error> =
                entries.iter().map(|(k, v)| Ok((key_to_json(k), leaf_to_json(&kind, v)?))).collect();
            Ok(Value::Object(entries?.into_iter().collect()))
        }
        one => leaf_to_json(&field.kind(), one),
    }
}

fn key_to_json(key: &MapKey) -> String {
    match key {
        MapKey::Bool(k) => k.to_string(),
        MapKey::I32(k) => k.to_string(),
        MapKey::I64(k) => k.to_string(),
        MapKey::U32(k) => k.to_string(),
        MapKey::U64(k) => k.to_string(),
        MapKey::String(k) => k.clone(),
    }
}

fn leaf_to_json(kind: &Kind, value: &Field) -> Result<Value, Error> {
    Ok(match value {
        Field::Bool(v) => Value::Bool(*v),
        Field::I32(v) => (*v).into(),
        Field::U32(v) => (*v).into(),
        Field::I64(v) => Value::String(v.to_string()),
        Field::U64(v) => Value::String(v.to_string()),
        Field::F32(v) => float_to_json(f64::from(*v), v.to_string()),
        Field::F64(v) => float_to_json(*v, v.to_string()),
        Field::String(v) => Value::String(v.clone()),
        Field::Bytes(v) => bytes_to_json(v)?,
        Field::EnumNumber(number) => match kind.as_enum() {
            Some(e) if e.full_name() == "google.protobuf.NullValue" => Value::Null,
            Some(e) => e.get_value(*number).map_or_else(|| (*number).into(), |v| Value::String(v.name().to_owned())),
            None => (*number).into(),
        },
        Field::Message(message) => message_to_json(message)?,
        Field::List(_) | Field::Map(_) => Value::Null, // neither list nor map nests in protobuf
    })
}

/// `text` is the shortest form that reads back to the same number, in its own width.
fn float_to_json(value: f64, text: String) -> Value {
    if value.is_nan() {
        return Value::String("NaN".to_owned());
    }
    if value.is_infinite() {
        return Value::String(if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned());
    }
    text.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map_or(Value::Null, Value::Number)
}

/// Base64, by way of the message whose JSON is just that.
fn bytes_to_json(bytes: &[u8]) -> Result<Value, Error> {
    let mut wrapper = DynamicMessage::new(descriptor("google.protobuf.BytesValue")?);
    wrapper.set_field_by_name("value", Field::Bytes(bytes.to_vec().into()));
    well_known_to_json(&wrapper)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Resource;
    use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter::ConfigType};
    use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
    use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
        HttpConnectionManager, HttpFilter, http_filter,
    };
    use envoy_types::pb::google::protobuf::Any;
    use prost::{Message, Name};
    use serde_json::json;

    fn any<M: Message + Name>(m: &M) -> Any {
        Any { type_url: M::type_url(), value: m.encode_to_vec() }
    }

    fn listener(extension: Any) -> Listener {
        let hcm = HttpConnectionManager {
            stat_prefix: "outbound_0.0.0.0_80".into(),
            stream_idle_timeout: Some(envoy_types::pb::google::protobuf::Duration { seconds: 1, nanos: 500_000_000 }),
            http_filters: vec![HttpFilter {
                name: "envoy.filters.http.router".into(),
                config_type: Some(http_filter::ConfigType::TypedConfig(extension)),
                ..HttpFilter::default()
            }],
            ..HttpConnectionManager::default()
        };
        Listener {
            name: "0.0.0.0_80".into(),
            filter_chains: vec![FilterChain {
                filters: vec![Filter { name: "hcm".into(), config_type: Some(ConfigType::TypedConfig(any(&hcm))) }],
                ..FilterChain::default()
            }],
            ..Listener::default()
        }
    }

    #[test]
    fn nested_any_is_expanded_and_reads_back() {
        let router = Router { suppress_envoy_headers: true, ..Router::default() };
        let listener = listener(any(&router));
        let bytes = listener.encode_to_vec();
        let json = to_json(TypeUrl::Listener.as_str(), &bytes).unwrap();
        let hcm = &json["filterChains"][0]["filters"][0]["typedConfig"];
        assert_eq!(
            hcm,
            &json!({
                "@type": HttpConnectionManager::type_url(),
                "statPrefix": "outbound_0.0.0.0_80",
                "streamIdleTimeout": "1.500s",
                "httpFilters": [{
                    "name": "envoy.filters.http.router",
                    "typedConfig": {"@type": Router::type_url(), "suppressEnvoyHeaders": true},
                }],
            })
        );
        let back = from_json(TypeUrl::Listener.as_str(), json).unwrap();
        assert_eq!(Listener::decode(back.as_slice()).unwrap(), listener);
    }

    #[test]
    fn unknown_any_does_not_hide_the_rest() {
        let listener = listener(Any { type_url: "type.googleapis.com/acme.Filter".into(), value: vec![1, 2, 3] });
        let json = to_json(TypeUrl::Listener.as_str(), &listener.encode_to_vec()).unwrap();
        let filter = &json["filterChains"][0]["filters"][0]["typedConfig"]["httpFilters"][0]["typedConfig"];
        assert_eq!(filter, &json!({"@type": "type.googleapis.com/acme.Filter", "value": "AQID"}));
    }

    #[test]
    fn well_known_types_in_any_and_maps_are_sorted() {
        use envoy_types::pb::envoy::config::core::v3::Metadata;
        use envoy_types::pb::google::protobuf::{BoolValue, Struct, Value as Val, value::Kind};
        let text = |s: &str| Val { kind: Some(Kind::StringValue(s.into())) };
        let inner = Struct { fields: [("config".to_owned(), text("/apis/x"))].into() };
        let mut meta = Metadata::default();
        for key in ["z", "a", "m"] {
            meta.filter_metadata.insert(key.into(), inner.clone());
        }
        meta.typed_filter_metadata.insert("flag".into(), any(&BoolValue { value: true }));
        let json = to_json(&Metadata::type_url(), &meta.encode_to_vec()).unwrap();
        assert_eq!(json["filterMetadata"]["a"]["config"], "/apis/x");
        assert_eq!(json["typedFilterMetadata"]["flag"], json!({"@type": BoolValue::type_url(), "value": true}));
        let keys: Vec<&String> = json["filterMetadata"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["a", "m", "z"]);
    }

    #[test]
    fn enums_numbers_and_long_integers() {
        use envoy_types::pb::envoy::config::cluster::v3::{Cluster, cluster};
        use envoy_types::pb::envoy::config::core::v3::RuntimeDouble;
        let cluster = Cluster {
            name: "outbound|80||a".into(),
            cluster_discovery_type: Some(cluster::ClusterDiscoveryType::Type(cluster::DiscoveryType::Eds as i32)),
            ..Cluster::default()
        };
        let json = to_json(TypeUrl::Cluster.as_str(), &cluster.encode_to_vec()).unwrap();
        assert_eq!(json, json!({"name": "outbound|80||a", "type": "EDS"}));
        let double = RuntimeDouble { default_value: 0.25, runtime_key: String::new() };
        assert_eq!(
            to_json(&RuntimeDouble::type_url(), &double.encode_to_vec()).unwrap(),
            json!({"defaultValue": 0.25})
        );
    }

    #[test]
    fn faults_name_the_type_and_the_field() {
        let unknown = to_json("type.googleapis.com/acme.Nothing", &[]).unwrap_err();
        assert!(matches!(&unknown, Error::UnknownType(t) if t.contains("acme.Nothing")), "{unknown}");
        let wrong = from_json(TypeUrl::Cluster.as_str(), json!({"nmae": "x"})).unwrap_err();
        assert!(wrong.to_string().contains("nmae"), "{wrong}");
    }

    #[test]
    fn names_are_told() {
        use crate::build::names::{NameInfo, NameTable};
        let info = NameInfo { ips: vec!["10.0.0.1".into()], registry: "Kubernetes".into(), ..NameInfo::default() };
        let table = NameTable { table: [("a.example".to_owned(), info)].into() };
        let json = to_json(TypeUrl::NameTable.as_str(), &table.encode_to_vec()).unwrap();
        assert_eq!(json, json!({"table": {"a.example": {"ips": ["10.0.0.1"], "registry": "Kubernetes"}}}));
    }

    #[test]
    fn trust_is_told() {
        let set = crate::build::trust::bundle(&["root".to_owned()]);
        let json = to_json(TypeUrl::ProxyConfig.as_str(), &set.as_slice()[0].value()).unwrap();
        assert_eq!(json, json!({"caCertificatesPem": ["root"]}));
    }

    #[test]
    fn a_dump_has_every_list() {
        let listener = Listener { name: "l".into(), ..Listener::default() };
        let set = ResourceSet::new(vec![Arc::new(Resource::encode("l", &listener))]);
        assert_eq!(
            dump(&[(TypeUrl::Listener, set)]).unwrap(),
            json!({"listeners": [{"name": "l"}], "clusters": [], "routes": [], "endpoints": [], "secrets": [], "extensions": [], "names": [], "proxyConfigs": []})
        );
    }
}
