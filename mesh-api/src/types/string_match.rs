//! The condition on a text that routes and policies share. It says what must hold and never evaluates it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::message::{choose, self_reading};

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

impl<'de> Deserialize<'de> for StringMatch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Written {
            exact: Option<String>,
            prefix: Option<String>,
            regex: Option<String>,
        }
        let written = Written::deserialize(deserializer)?;
        let matches = [
            ("exact", written.exact.map(Self::Exact)),
            ("prefix", written.prefix.map(Self::Prefix)),
            ("regex", written.regex.map(Self::Regex)),
        ];
        Ok(choose(matches)?.unwrap_or_default())
    }
}

self_reading!(StringMatch);

impl Serialize for StringMatch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (index, field, text) = match self {
            Self::Present => return serializer.serialize_map(Some(0))?.end(),
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
