//! How a protobuf message, enum or `oneof` becomes a Rust type that reads and writes protobuf JSON.
//!
//! The macros only add derives, serde attributes and the way in which a field is found by its name; the names and types
//! that a reader sees are the real ones. Reading is concrete: whatever serde deserialiser somebody brings, a tree is made
//! of it first, and only the tree is read. So a type's reader exists once in a program, not once for every deserialiser.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value as Json};

use super::proto_json::FieldName;
use crate::document::at::{self, At, FieldRead, TypeError};
use crate::document::{Key, Mark, Node, Value};

/// A type that may stand in a field of a message.
pub(crate) trait Field: Sized {
    /// Reads a value that is there and not `null`.
    fn read(at: &At<'_, '_, '_>) -> Result<Self, TypeError>;
    /// Reads the value of an `Option` field; only a message that can be there and yet say nothing answers `None`.
    fn read_optional(at: &At<'_, '_, '_>) -> Result<Option<Self>, TypeError> {
        Self::read(at).map(Some)
    }
}

/// A message: fields with names.
pub(crate) trait Message: Sized {
    /// The message whose text has no field.
    fn blank() -> Self;
    /// Reads the field that is called `name`. Answers which it is, or none.
    fn read_field(&mut self, name: &FieldName<'_>, at: &At<'_, '_, '_>) -> FieldRead;
}

impl<T: Message> Field for T {
    fn read(at: &At<'_, '_, '_>) -> Result<Self, TypeError> {
        let mut message = T::blank();
        at.fields(&mut |name, at| message.read_field(name, at))?;
        Ok(message)
    }
}

/// For [`Message::read_field`]: reads into a field.
pub(crate) fn set<T: Field>(field: &mut T, name: &'static str, at: &At<'_, '_, '_>) -> FieldRead {
    *field = T::read(at)?;
    Ok(Some(name))
}

/// The enum of a `oneof`.
pub(crate) trait OneOf {
    /// The field that an alternative is, in Rust's spelling.
    fn field(&self) -> &'static str;
}

/// For [`Message::read_field`]: reads into a `oneof`, of whose fields only one may be there.
pub(crate) fn choose<T: Field, O: OneOf>(
    oneof: &mut Option<O>,
    alternative: fn(T) -> O,
    name: &'static str,
    at: &At<'_, '_, '_>,
) -> FieldRead {
    if let Some(value) = T::read_optional(at)? {
        if let Some(other) = oneof {
            return Err(exclusive(other.field(), name));
        }
        *oneof = Some(alternative(value));
    }
    Ok(Some(name))
}

/// The error that two fields of a `oneof` are there.
pub(crate) fn exclusive(other: &str, field: &str) -> TypeError {
    let (other, field) = (camel_case(other), camel_case(field));
    TypeError::custom(format_args!("`{other}` and `{field}` exclude each other"))
}

/// For `skip_serializing_if`: a zero value is written as an absent field.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl<T: Field> Field for Option<T> {
    fn read(at: &At<'_, '_, '_>) -> Result<Self, TypeError> {
        T::read_optional(at)
    }
}

impl<T: Field> Field for Vec<T> {
    fn read(at: &At<'_, '_, '_>) -> Result<Self, TypeError> {
        let mut list = Vec::new();
        at.elements(&mut |at| {
            list.push(T::read(at)?);
            Ok(())
        })?;
        Ok(list)
    }
}

impl<T: Field> Field for BTreeMap<String, T> {
    fn read(at: &At<'_, '_, '_>) -> Result<Self, TypeError> {
        let mut map = BTreeMap::new();
        at.entries(&mut |key, at| {
            map.insert(key.to_owned(), T::read(at)?);
            Ok(())
        })?;
        Ok(map)
    }
}

impl<T: Field> Field for BTreeMap<u32, T> {
    fn read(at: &At<'_, '_, '_>) -> Result<Self, TypeError> {
        let mut map = BTreeMap::new();
        at.entries(&mut |key, at| {
            let number = key.parse().map_err(|_| TypeError::custom(format_args!("{key:?} is not a number")))?;
            map.insert(number, T::read(at)?);
            Ok(())
        })?;
        Ok(map)
    }
}

impl Field for String {
    fn read(at: &At<'_, '_, '_>) -> Result<Self, TypeError> {
        at.text().map(str::to_owned)
    }
}

impl Field for bool {
    fn read(at: &At<'_, '_, '_>) -> Result<Self, TypeError> {
        match at.node().value {
            Value::Bool(said) => Ok(said),
            _ => Err(at.wrong(&"a boolean")),
        }
    }
}

impl Field for Map<String, Json> {
    fn read(at: &At<'_, '_, '_>) -> Result<Self, TypeError> {
        match at.node().to_json() {
            Json::Object(object) => Ok(object),
            _ => Err(at.wrong(&"an object")),
        }
    }
}

impl Field for k8s_openapi::apimachinery::pkg::apis::meta::v1::Time {
    fn read(at: &At<'_, '_, '_>) -> Result<Self, TypeError> {
        Self::deserialize(*at)
    }
}

macro_rules! integers {
    ($($type:ident),+) => {$(
        impl Field for $type {
            fn read(at: &At<'_, '_, '_>) -> Result<Self, TypeError> {
                let number = integer(at, concat!("an integer of type ", stringify!($type)))?;
                $type::try_from(number).map_err(|_| {
                    TypeError::custom(format_args!(
                        "{number} is out of range, expected {} to {}", $type::MIN, $type::MAX
                    ))
                })
            }
        }
    )+};
}

integers!(u32, i32, u64, i64);

/// Reads an integer written as a number, as a number with a zero fraction, or as the text of one.
fn integer(at: &At<'_, '_, '_>, expected: &'static str) -> Result<i128, TypeError> {
    match &at.node().value {
        Value::Int(number) => Ok((*number).into()),
        Value::Uint(number) => Ok((*number).into()),
        // Beyond 2^53 a float doesn't tell which integer was meant.
        Value::Float(number) if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 => Ok(*number as i128),
        Value::Float(_) => Err(at.invalid(&expected)),
        Value::String(text) => text.parse().map_err(|_| at.invalid(&expected)),
        _ => Err(at.wrong(&expected)),
    }
}

impl Field for f64 {
    fn read(at: &At<'_, '_, '_>) -> Result<Self, TypeError> {
        match &at.node().value {
            Value::Float(number) => Ok(*number),
            Value::Int(number) => Ok(*number as f64),
            Value::Uint(number) => Ok(*number as f64),
            Value::String(text) => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(number),
                _ => Err(at.invalid(&"a number")),
            },
            _ => Err(at.wrong(&"a number")),
        }
    }
}

/// For `Deserialize`: reads through whatever deserialiser; what isn't there or `null` is the default. Fields that the type
/// doesn't have are skipped.
pub(crate) fn deserialize<'de, T: Field + Default, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    let Tree(node) = Tree::deserialize(deserializer)?;
    if matches!(node.value, Value::Null) {
        return Ok(T::default());
    }
    at::read(&node, T::read).map(|(value, _)| value).map_err(|error| {
        let (path, _, message) = error.into_parts();
        if path.is_empty() { D::Error::custom(message) } else { D::Error::custom(format_args!("{path}: {message}")) }
    })
}

/// What any deserialiser holds, as a tree.
struct Tree(Node<'static>);

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // An option, since a field that isn't there can only be read as one.
        let value = deserializer.deserialize_option(OfTree)?;
        Ok(Self(Node { value, mark: Mark::default() }))
    }
}

struct OfTree;

impl<'de> Visitor<'de> for OfTree {
    type Value = Value<'static>;
    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value of protobuf JSON")
    }
    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }
    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(OfTree)
    }
    fn visit_bool<E: Error>(self, said: bool) -> Result<Self::Value, E> {
        Ok(Value::Bool(said))
    }
    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Value::Int(number))
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(number).map_or(Value::Uint(number), Value::Int))
    }
    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Value::Float(number))
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Value::String(text.to_owned().into()))
    }
    fn visit_string<E: Error>(self, text: String) -> Result<Self::Value, E> {
        Ok(Value::String(text.into()))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Tree(item)) = list.next_element()? {
            items.push(item);
        }
        Ok(Value::Sequence(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((key, Tree(value))) = map.next_entry::<String, Tree>()? {
            entries.push((Key { text: key.into(), mark: Mark::default() }, value));
        }
        Ok(Value::Mapping(entries))
    }
}

/// The name of a field as it is written.
pub(crate) fn camel_case(field: &str) -> String {
    let mut words = field.split('_');
    let mut out = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        out.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        out.push_str(letters.as_str());
    }
    out
}

/// Declares a message: a struct with public fields, each of them absent by default. A `oneof { … }` block at the end
/// declares enums together with the `Option` fields that hold them: `field_as_written => Variant(Type)`.
macro_rules! message {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
            $(oneof {
                $(
                    $(#[$one_meta:meta])* pub $one:ident: $one_type:ident {
                        $($(#[$arm_meta:meta])* $arm:ident => $variant:ident($arm_type:ty),)+
                    }
                )+
            })?
        }
    ) => {
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, schemars::JsonSchema)]
        $(#[$meta])*
        #[serde(rename_all = "camelCase")]
        #[schemars(transform = crate::types::schema::message)]
        #[schemars(transform = $name::add_oneofs)]
        pub struct $name {
            $(
                $(#[$field_meta])*
                #[serde(skip_serializing_if = "crate::types::message::is_default")]
                #[schemars(default)]
                pub $field: $type,
            )*
            $($(
                $(#[$one_meta])*
                #[serde(flatten)]
                #[schemars(skip)]
                pub $one: Option<$one_type>,
            )+)?
        }
        $($(
            #[derive(Clone, Debug, PartialEq, serde::Serialize, schemars::JsonSchema)]
            $(#[$one_meta])*
            #[serde(rename_all = "camelCase")]
            #[schemars(transform = crate::types::schema::oneof)]
            pub enum $one_type {
                $($(#[$arm_meta])* $variant($arm_type),)+
            }
        )+)?
        impl $name {
            fn add_oneofs(_schema: &mut schemars::Schema) {
                $($(crate::types::schema::flatten::<$one_type>(_schema);)+)?
            }
        }
        crate::types::message::reader! {
            $name { $(field $field = stringify!($field);)* $($(oneof $one: $one_type { $($arm => $variant;)+ })+)? }
        }
    };
}
pub(crate) use message;

/// How a message is read: each field by its name, with the fields of its `oneof`s.
macro_rules! reader {
    ($name:ident {
        $(field $field:ident = $written:expr;)*
        $(oneof $one:ident: $one_type:ident { $($arm:ident => $variant:ident;)+ })*
    }) => {
        impl crate::types::message::Message for $name {
            fn blank() -> Self {
                Self { $($field: Default::default(),)* $($one: None,)* }
            }
            #[allow(unused_variables, reason = "there are messages without fields")]
            fn read_field(
                &mut self,
                name: &crate::types::proto_json::FieldName<'_>,
                at: &crate::document::at::At<'_, '_, '_>,
            ) -> crate::document::at::FieldRead {
                $(
                    if name.means($written) {
                        return crate::types::message::set(&mut self.$field, stringify!($field), at);
                    }
                )*
                $($(
                    if name.means(stringify!($arm)) {
                        return crate::types::message::choose(
                            &mut self.$one, $one_type::$variant, stringify!($arm), at,
                        );
                    }
                )+)*
                Ok(None)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::types::message::deserialize(deserializer)
            }
        }
        $(
            impl crate::types::message::OneOf for $one_type {
                fn field(&self) -> &'static str {
                    match self {
                        $(Self::$variant(_) => stringify!($arm),)+
                    }
                }
            }
        )*
    };
}
pub(crate) use reader;

/// Declares an enum, written as one of its names in capitals. The variant marked `#[default]` is what an absent field
/// means. The variants count from 0 as in the proto file; where its numbers have gaps, they are given.
macro_rules! enumeration {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident $(= $number:literal)?,)+ }
    ) => {
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord,
            serde::Serialize, serde::Deserialize, schemars::JsonSchema
        )]
        $(#[$meta])*
        #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
        pub enum $name { $($(#[$variant_meta])* $variant $(= $number)?,)+ }
        impl crate::types::proto_json::Enumeration for $name {
            fn from_number(number: i64) -> Option<Self> {
                [$(Self::$variant),+].into_iter().find(|variant| *variant as i64 == number)
            }
        }
        impl crate::types::message::Field for $name {
            fn read(
                at: &crate::document::at::At<'_, '_, '_>,
            ) -> Result<Self, crate::document::at::TypeError> {
                crate::types::proto_json::enumeration(at)
            }
        }
    };
}
pub(crate) use enumeration;
