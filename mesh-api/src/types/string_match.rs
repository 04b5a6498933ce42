//! The condition on a text that routes and policies share. It says what must hold and never evaluates it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::message::{Field, Message, deserialize, exclusive};
use super::proto_json::FieldName;
use crate::document::at::{At, FieldRead};

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

impl StringMatch {
    /// The field that it is written as, with its number.
    fn field(&self) -> Option<(u32, &'static str, &str)> {
        match self {
            Self::Present => None,
            Self::Exact(text) => Some((0, "exact", text)),
            Self::Prefix(text) => Some((1, "prefix", text)),
            Self::Regex(text) => Some((2, "regex", text)),
        }
    }
}

impl Message for StringMatch {
    fn blank() -> Self {
        Self::Present
    }
    fn read_field(&mut self, name: &FieldName<'_>, at: &At<'_, '_, '_>) -> FieldRead {
        let (field, condition): (_, fn(String) -> Self) = match name {
            name if name.means("exact") => ("exact", Self::Exact),
            name if name.means("prefix") => ("prefix", Self::Prefix),
            name if name.means("regex") => ("regex", Self::Regex),
            _ => return Ok(None),
        };
        if let Some((_, other, _)) = self.field() {
            return Err(exclusive(other, field));
        }
        *self = condition(String::read(at)?);
        Ok(Some(field))
    }
}

impl<'de> Deserialize<'de> for StringMatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer)
    }
}

impl Serialize for StringMatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.field() {
            None => serializer.serialize_map(Some(0))?.end(),
            Some((index, field, text)) => serializer.serialize_newtype_variant("StringMatch", index, field, text),
        }
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
