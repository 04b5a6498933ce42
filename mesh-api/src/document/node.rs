//! The tree between text and types: what a document says, in the order it says it, with the place of every value.
//!
//! A node borrows its text from the file wherever it can. It must never interpret more than Kubernetes does: a quoted
//! scalar is a string, whatever is in it.

use std::borrow::Cow;

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::Value as Json;

/// A place inside one document's text. Lines and columns count from 1; 0 means unknown.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mark {
    /// From 1.
    pub line: u32,
    /// From 1.
    pub column: u32,
}

/// One value of a document and the place where it begins.
#[derive(Clone, PartialEq, Debug)]
pub struct Node<'a> {
    /// What is said.
    pub value: Value<'a>,
    /// Where it begins.
    pub mark: Mark,
}

/// What a node can be: JSON's kinds, with whole numbers apart from fractions.
#[derive(Clone, PartialEq, Debug)]
pub enum Value<'a> {
    /// Nothing, `~`, `null`.
    Null,
    /// A truth value, in YAML 1.1's many spellings.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number above `i64::MAX`.
    Uint(u64),
    /// A number with a fraction.
    Float(f64),
    /// Text.
    String(Cow<'a, str>),
    /// A list.
    Sequence(Vec<Node<'a>>),
    /// A mapping, in the order of the text, keys unique.
    Mapping(Vec<(Key<'a>, Node<'a>)>),
}

/// A key of a mapping and its place.
#[derive(Clone, PartialEq, Debug)]
pub struct Key<'a> {
    /// The key; a scalar that is no string (`80:`) is spelled as Kubernetes spells it (`"80"`).
    pub text: Cow<'a, str>,
    /// Where it begins.
    pub mark: Mark,
}

impl Value<'_> {
    /// What it is, in words for a message.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a boolean",
            Self::Int(_) | Self::Uint(_) | Self::Float(_) => "a number",
            Self::String(_) => "a string",
            Self::Sequence(_) => "a list",
            Self::Mapping(_) => "a mapping",
        }
    }
}

impl<'a> Node<'a> {
    /// The field of a mapping; none for other nodes.
    pub fn get(&self, key: &str) -> Option<&Node<'a>> {
        match &self.value {
            Value::Mapping(entries) => entries.iter().find(|(k, _)| k.text == key).map(|(_, node)| node),
            _ => None,
        }
    }

    /// The text of a string node.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The place of the value that `path` (`spec.http[0].route[1].weight`) names; of its key, where the value begins on
    /// a later line or is not written. Where the path goes on further than the text does, the place of the last value
    /// that is there.
    pub fn locate(&self, path: &str) -> Mark {
        let mut node = self;
        let mut mark = self.mark;
        let mut rest = path;
        loop {
            rest = rest.strip_prefix('.').unwrap_or(rest);
            if rest.is_empty() {
                return mark;
            }
            let (next, from, after) = match (&node.value, rest.strip_prefix('[').and_then(|r| r.split_once(']'))) {
                (Value::Sequence(items), Some((index, after))) => {
                    match index.parse::<usize>().ok().and_then(|i| items.get(i)) {
                        Some(item) => (item, item.mark, after),
                        None => return mark,
                    }
                }
                // An apiserver writes `ports[http]` for the values of a map.
                (Value::Mapping(entries), Some((key, after))) => {
                    match entries.iter().find(|(entry, _)| entry.text == key) {
                        Some((_, value)) => (value, value.mark, after),
                        None => return mark,
                    }
                }
                // Keys may hold dots (labels do), so the longest key that the path begins with is meant.
                (Value::Mapping(entries), _) => {
                    let fits =
                        |key: &str| rest.strip_prefix(key).is_some_and(|r| r.is_empty() || r.starts_with(['.', '[']));
                    match entries.iter().filter(|(k, _)| fits(&k.text)).max_by_key(|(k, _)| k.text.len()) {
                        Some((key, value)) => {
                            let after = rest.get(key.text.len()..).unwrap_or_default();
                            let below = value.mark.line > key.mark.line;
                            let place = if below || matches!(value.value, Value::Null) { key.mark } else { value.mark };
                            (value, place, after)
                        }
                        None => return mark,
                    }
                }
                _ => return mark,
            };
            (node, mark, rest) = (next, from, after);
        }
    }

    /// The same, borrowing nothing.
    pub fn into_owned(self) -> Node<'static> {
        let value = match self.value {
            Value::Null => Value::Null,
            Value::Bool(b) => Value::Bool(b),
            Value::Int(i) => Value::Int(i),
            Value::Uint(u) => Value::Uint(u),
            Value::Float(f) => Value::Float(f),
            Value::String(text) => Value::String(Cow::Owned(text.into_owned())),
            Value::Sequence(items) => Value::Sequence(items.into_iter().map(Node::into_owned).collect()),
            Value::Mapping(entries) => Value::Mapping(
                entries
                    .into_iter()
                    .map(|(key, node)| {
                        (Key { text: Cow::Owned(key.text.into_owned()), mark: key.mark }, node.into_owned())
                    })
                    .collect(),
            ),
        };
        Node { value, mark: self.mark }
    }

    /// The same as a JSON value.
    pub fn to_json(&self) -> Json {
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Int(i) => Json::from(*i),
            Value::Uint(u) => Json::from(*u),
            Value::Float(f) => Json::from(*f),
            Value::String(text) => Json::String(text.to_string()),
            Value::Sequence(items) => Json::Array(items.iter().map(Node::to_json).collect()),
            Value::Mapping(entries) => {
                Json::Object(entries.iter().map(|(key, node)| (key.text.to_string(), node.to_json())).collect())
            }
        }
    }

    /// A node for a value that comes from no text; its places are unknown.
    pub fn from_json(value: &'a Json) -> Self {
        let value = match value {
            Json::Null => Value::Null,
            Json::Bool(b) => Value::Bool(*b),
            Json::Number(n) => match (n.as_i64(), n.as_u64()) {
                (Some(i), _) => Value::Int(i),
                (None, Some(u)) => Value::Uint(u),
                (None, None) => Value::Float(n.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => Value::String(Cow::Borrowed(text)),
            Json::Array(items) => Value::Sequence(items.iter().map(Node::from_json).collect()),
            Json::Object(entries) => Value::Mapping(
                entries
                    .iter()
                    .map(|(key, value)| {
                        (Key { text: Cow::Borrowed(key), mark: Mark::default() }, Node::from_json(value))
                    })
                    .collect(),
            ),
        };
        Self { value, mark: Mark::default() }
    }
}

impl Serialize for Node<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(b) => serializer.serialize_bool(*b),
            Value::Int(i) => serializer.serialize_i64(*i),
            Value::Uint(u) => serializer.serialize_u64(*u),
            Value::Float(f) => serializer.serialize_f64(*f),
            Value::String(text) => serializer.serialize_str(text),
            Value::Sequence(items) => {
                let mut seq = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    seq.serialize_element(item)?;
                }
                seq.end()
            }
            Value::Mapping(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, node) in entries {
                    map.serialize_entry(&*key.text, node)?;
                }
                map.end()
            }
        }
    }
}
