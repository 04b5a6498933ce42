//! The condition on a text that routes and policies share. It says what must hold and never evaluates it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, MapAccess};
use serde::{Deserialize, Serialize, Serializer};

use super::message::{Field, Oneof, arm_value, flat, serialize_empty, skip};

/// A condition on a text such as a path, a header or a method. Matching is case-sensitive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StringMatch {
    /// Written `{}`: the text must be there, whatever it says. This is how a header's presence is asked for.
    #[default]
    Present,
    /// The whole text is this one.
    Exact(String),
    /// The text begins so.
    Prefix(String),
    /// The whole text matches this RE2 expression.
    Regex(String),
}

impl Oneof for StringMatch {
    const FIELDS: &'static [&'static str] = &["exact", "prefix", "regex"];
    fn arm<'de, A: MapAccess<'de>>(field: &str, map: &mut A) -> Result<Option<Self>, A::Error> {
        match field {
            "exact" => Ok(arm_value(field, map)?.map(Self::Exact)),
            "prefix" => Ok(arm_value(field, map)?.map(Self::Prefix)),
            "regex" => Ok(arm_value(field, map)?.map(Self::Regex)),
            _ => skip(map),
        }
    }
}

impl<'de> Deserialize<'de> for StringMatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(flat(deserializer)?.unwrap_or_default())
    }
}

impl<'de> Field<'de> for StringMatch {
    fn present<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::deserialize(deserializer)
    }
}

impl Serialize for StringMatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (index, field, text) = match self {
            Self::Present => return serialize_empty(serializer),
            Self::Exact(text) => (0, "exact", text),
            Self::Prefix(text) => (1, "prefix", text),
            Self::Regex(text) => (2, "regex", text),
        };
        serializer.serialize_newtype_variant("StringMatch", index, field, text)
    }
}

impl JsonSchema for StringMatch {
    fn schema_name() -> Cow<'static, str> {
        "StringMatch".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "A condition on a text; empty, it asks only that the text is there.",
            "oneOf": [
                {"not": {"anyOf": [{"required": ["exact"]}, {"required": ["prefix"]}, {"required": ["regex"]}]}},
                {"required": ["exact"]},
                {"required": ["prefix"]},
                {"required": ["regex"]},
            ],
            "properties": {
                "exact": {"type": "string", "description": "The whole text is this one."},
                "prefix": {"type": "string", "description": "The text begins so."},
                "regex": {"type": "string", "description": "The whole text matches this RE2 expression."},
            },
        })
    }
}
