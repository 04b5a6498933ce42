//! What an expression can have as its value. Lists and maps of the object stay where they are.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map as JsonMap, Value as Json};

use super::Fault;
use super::addresses::Cidr;
use super::quantity::Quantity;
use super::semver::Semver;
use super::url::Url;
use crate::schema::node::{Additional, Kind, Node};
use crate::types::Duration;

#[derive(Debug, Clone)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Cow<'a, str>),
    Bytes(Arc<[u8]>),
    Duration(Duration),
    Timestamp(Timestamp),
    List(List<'a>),
    Map(Map<'a>),
    Optional(Option<Arc<Value<'a>>>),
    /// A type, by its name.
    Type(&'static str),
    Url(Arc<Url>),
    Ip(std::net::IpAddr),
    Cidr(Cidr),
    Quantity(Quantity),
    Semver(Semver),
    /// A format, by its name.
    Format(&'static str),
    /// What no schema describes.
    Unknown(&'a Json),
}

#[derive(Debug, Clone)]
pub(crate) enum List<'a> {
    Data(&'a [Json], &'a Node),
    Made(Arc<Vec<Value<'a>>>),
}

#[derive(Debug, Clone)]
pub(crate) enum Map<'a> {
    Data(&'a JsonMap<String, Json>, &'a Node),
    Made(Arc<BTreeMap<Key, Value<'a>>>),
}

/// What a map can have as a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Bool(bool),
    Number(i128),
    String(String),
}

impl<'a> Value<'a> {
    /// A value of the object, as its schema says.
    pub(crate) fn of(json: &'a Json, node: &'a Node) -> Result<Self, Fault> {
        let unfit = |expected: &str| Fault::new(format!("invalid data, expected {expected}"));
        if json.is_null() {
            let refused = || Fault::new("invalid data, got null for schema with nullable=false");
            return if node.nullable { Ok(Self::Null) } else { Err(refused()) };
        }
        if node.int_or_string {
            return match (json, json.as_i64()) {
                (Json::String(text), _) => Ok(Self::String(Cow::Borrowed(text))),
                (_, Some(number)) => Ok(Self::Int(number)),
                _ => Err(unfit("XIntOrString value to be either a string or integer")),
            };
        }
        match (node.kind, json) {
            (Some(Kind::Object), Json::Object(fields)) => Ok(Self::Map(Map::Data(fields, node))),
            (Some(Kind::Array), Json::Array(items)) => Ok(Self::List(List::Data(items, node))),
            (Some(Kind::String), Json::String(text)) => super::time::formatted(text, node.format.as_deref()),
            (Some(Kind::Boolean), Json::Bool(value)) => Ok(Self::Bool(*value)),
            (Some(Kind::Number), Json::Number(number)) => {
                number.as_f64().map(Self::Double).ok_or_else(|| unfit("float"))
            }
            (Some(Kind::Integer), Json::Number(number)) => number.as_i64().map(Self::Int).ok_or_else(|| unfit("int")),
            (None, _) => Ok(Self::Unknown(json)),
            (Some(kind), _) => Err(unfit(kind.name())),
        }
    }

    pub(crate) fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::String(text.into())
    }

    pub(crate) fn list(items: Vec<Value<'a>>) -> Self {
        Self::List(List::Made(Arc::new(items)))
    }

    pub(crate) fn some(value: Value<'a>) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    /// The name of its type, as cel-go tells it.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Duration(_) => "google.protobuf.Duration",
            Self::Timestamp(_) => "google.protobuf.Timestamp",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Url(_) => "kubernetes.URL",
            Self::Ip(_) => "net.IP",
            Self::Cidr(_) => "net.CIDR",
            Self::Quantity(_) => "kubernetes.Quantity",
            Self::Semver(_) => "kubernetes.Semver",
            Self::Format(_) => "kubernetes.NamedFormat",
            Self::Unknown(_) => "unknown",
        }
    }

    pub(crate) fn to_key(&self) -> Option<Key> {
        match self {
            Self::Bool(value) => Some(Key::Bool(*value)),
            Self::Int(number) => Some(Key::Number((*number).into())),
            Self::Uint(number) => Some(Key::Number((*number).into())),
            Self::Double(number) if number.fract() == 0.0 && number.abs() < 1e18 => Some(Key::Number(*number as i128)),
            Self::String(text) => Some(Key::String(text.clone().into_owned())),
            _ => None,
        }
    }
}

impl<'a> List<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Data(items, _) => items.len(),
            Self::Made(items) => items.len(),
        }
    }

    pub(crate) fn get(&self, index: usize) -> Option<Result<Value<'a>, Fault>> {
        match self {
            Self::Data(items, node) => items.get(index).map(|item| element(item, node)),
            Self::Made(items) => items.get(index).cloned().map(Ok),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Result<Value<'a>, Fault>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    pub(crate) fn to_vec(&self) -> Result<Vec<Value<'a>>, Fault> {
        self.iter().collect()
    }
}

fn element<'a>(json: &'a Json, list: &'a Node) -> Result<Value<'a>, Fault> {
    match &list.items {
        Some(items) => Value::of(json, items),
        None => Err(Fault::new("invalid array type, expected Items with a non-empty Schema")),
    }
}

impl<'a> Map<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Data(fields, _) => fields.len(),
            Self::Made(entries) => entries.len(),
        }
    }

    /// The value of a key. A field of an object goes by the name that the language can spell.
    pub(crate) fn get(&self, key: &Key) -> Option<Result<Value<'a>, Fault>> {
        match (self, key) {
            (Self::Made(entries), _) => entries.get(key).cloned().map(Ok),
            (Self::Data(fields, node), Key::String(name)) if !node.properties.is_empty() => {
                let name = unescape(name)?;
                let property = node.properties.get(name.as_ref())?;
                // An object's field that is null is as good as absent.
                let value = fields.get(name.as_ref()).filter(|value| !value.is_null())?;
                Some(Value::of(value, property))
            }
            (Self::Data(fields, node), Key::String(name)) => match &node.additional {
                Additional::Schema(values) => fields.get(name).map(|value| Value::of(value, values)),
                Additional::Any | Additional::None => None,
            },
            (Self::Data(..), _) => None,
        }
    }

    /// The keys, in order.
    pub(crate) fn keys(&self) -> Vec<Key> {
        match self {
            Self::Data(fields, _) => fields.keys().map(|name| Key::String(name.clone())).collect(),
            Self::Made(entries) => entries.keys().cloned().collect(),
        }
    }
}

impl Key {
    pub(crate) fn to_value<'a>(&self) -> Value<'a> {
        match self {
            Self::Bool(value) => Value::Bool(*value),
            Self::Number(number) => i64::try_from(*number)
                .map(Value::Int)
                .or_else(|_| u64::try_from(*number).map(Value::Uint))
                .unwrap_or(Value::Null),
            Self::String(text) => Value::text(text.clone()),
        }
    }
}

/// The property that a name in an expression means: `__dash__` and the like stand for what no name can hold.
fn unescape(name: &str) -> Option<Cow<'_, str>> {
    if !name.contains("__") {
        return Some(Cow::Borrowed(name));
    }
    if let Some(word) = name.strip_prefix("__").and_then(|name| name.strip_suffix("__"))
        && !word.contains("__")
        && !matches!(word, "underscores" | "dot" | "dash" | "slash")
    {
        return Some(Cow::Borrowed(word));
    }
    let mut out = String::new();
    let mut rest = name;
    while let Some((before, after)) = rest.split_once("__") {
        let (word, after) = after.split_once("__")?;
        out.push_str(before);
        out.push_str(match word {
            "underscores" => "__",
            "dot" => ".",
            "dash" => "-",
            "slash" => "/",
            _ => return None,
        });
        rest = after;
    }
    out.push_str(rest);
    Some(Cow::Owned(out))
}
