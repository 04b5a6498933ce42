//! How a protobuf message, enum or `oneof` becomes a Rust type that reads and writes protobuf JSON.
//!
//! The macros only add derives, serde attributes and the checks of a `oneof` to what is written inside them; the names and
//! types that a reader sees are the real ones. They must never read through serde's `flatten`: it swallows the errors of
//! an `Option` and loses the place of every value below it.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A type that may stand in a field of a message.
pub(crate) trait Field<'de>: Sized {
    /// Reads a value that is there and not `null`.
    fn present<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error>;
    /// Reads the value of an `Option` field; only a message that can be there and yet say nothing answers `None`.
    fn optional<D: Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
        Self::present(deserializer).map(Some)
    }
}

/// For `deserialize_with`: reads a field, `null` being absent.
pub(crate) fn read<'de, T: Field<'de> + Default, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct OrNull<T>(PhantomData<T>);
    impl<'de, T: Field<'de> + Default> Visitor<'de> for OrNull<T> {
        type Value = T;
        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a value or null")
        }
        fn visit_none<E: Error>(self) -> Result<T, E> {
            Ok(T::default())
        }
        fn visit_unit<E: Error>(self) -> Result<T, E> {
            Ok(T::default())
        }
        fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
            T::present(deserializer)
        }
    }
    deserializer.deserialize_option(OrNull(PhantomData))
}

/// For `skip_serializing_if`: a zero value is written as an absent field.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// An element of a list or map: there is no `null` among them.
struct Present<T>(PhantomData<T>);

impl<'de, T: Field<'de>> DeserializeSeed<'de> for Present<T> {
    type Value = T;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        T::present(deserializer)
    }
}

impl<'de, T: Field<'de>> Field<'de> for Option<T> {
    fn present<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::optional(deserializer)
    }
}

impl<'de, T: Field<'de>> Field<'de> for Vec<T> {
    fn present<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List<T>(PhantomData<T>);
        impl<'de, T: Field<'de>> Visitor<'de> for List<T> {
            type Value = Vec<T>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
                let mut out = Vec::new();
                while let Some(element) = list.next_element_seed(Present(PhantomData))? {
                    out.push(element);
                }
                Ok(out)
            }
        }
        deserializer.deserialize_seq(List(PhantomData))
    }
}

impl<'de, T: Field<'de>> Field<'de> for BTreeMap<String, T> {
    fn present<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map<T>(PhantomData<T>);
        impl<'de, T: Field<'de>> Visitor<'de> for Map<T> {
            type Value = BTreeMap<String, T>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut out = BTreeMap::new();
                while let Some(key) = map.next_key()? {
                    out.insert(key, map.next_value_seed(Present(PhantomData))?);
                }
                Ok(out)
            }
        }
        deserializer.deserialize_map(Map(PhantomData))
    }
}

/// Makes a type that reads itself fit for a field.
macro_rules! self_reading {
    ($($type:ty),+ $(,)?) => {$(
        impl<'de> crate::types::message::Field<'de> for $type {
            fn present<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <$type as serde::Deserialize>::deserialize(deserializer)
            }
        }
    )+};
}
pub(crate) use self_reading;

/// The same for a message that derives how it is read.
macro_rules! message_reading {
    ($type:ty) => {
        impl<'de> crate::types::message::Field<'de> for $type {
            fn present<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <$type as serde::Deserialize>::deserialize(crate::types::proto_json::Message(deserializer))
            }
        }
    };
}
pub(crate) use message_reading;

self_reading!(
    String,
    bool,
    k8s_openapi::apimachinery::pkg::apis::meta::v1::Time,
    serde_json::Map<String, serde_json::Value>,
);

macro_rules! integer_field {
    ($($type:ident),+) => {$(
        impl<'de> Field<'de> for $type {
            fn present<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let number = deserializer.deserialize_any(Integer(concat!("an integer of type ", stringify!($type))))?;
                $type::try_from(number).map_err(|_| {
                    D::Error::custom(format_args!(
                        "{number} is out of range, expected {} to {}", $type::MIN, $type::MAX
                    ))
                })
            }
        }
    )+};
}

integer_field!(u32, i32, u64, i64);

/// Reads an integer written as a number, as a number with a zero fraction, or as the text of one.
struct Integer(&'static str);

impl Visitor<'_> for Integer {
    type Value = i128;
    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
    fn visit_u64<E: Error>(self, number: u64) -> Result<i128, E> {
        Ok(number.into())
    }
    fn visit_i64<E: Error>(self, number: i64) -> Result<i128, E> {
        Ok(number.into())
    }
    fn visit_f64<E: Error>(self, number: f64) -> Result<i128, E> {
        // Beyond 2^53 a float doesn't tell which integer was meant.
        if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 {
            Ok(number as i128)
        } else {
            Err(E::invalid_value(serde::de::Unexpected::Float(number), &self))
        }
    }
    fn visit_str<E: Error>(self, text: &str) -> Result<i128, E> {
        text.parse().map_err(|_| E::invalid_value(serde::de::Unexpected::Str(text), &self))
    }
}

impl<'de> Field<'de> for f64 {
    fn present<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Float;
        impl Visitor<'_> for Float {
            type Value = f64;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a number")
            }
            fn visit_f64<E: Error>(self, number: f64) -> Result<f64, E> {
                Ok(number)
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<f64, E> {
                Ok(number as f64)
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<f64, E> {
                Ok(number as f64)
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
                match text.parse::<f64>() {
                    Ok(number) if number.is_finite() => Ok(number),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(Float)
    }
}

/// Finds the field of a `oneof` that is set, given all of its fields in Rust's spelling.
pub(crate) fn choose<T, E: Error, const N: usize>(fields: [(&'static str, Option<T>); N]) -> Result<Option<T>, E> {
    let mut found: Option<(&str, T)> = None;
    for (field, value) in fields {
        let Some(value) = value else { continue };
        if let Some((other, _)) = &found {
            let (other, field) = (camel_case(other), camel_case(field));
            return Err(E::custom(format_args!("`{other}` and `{field}` exclude each other")));
        }
        found = Some((field, value));
    }
    Ok(found.map(|(_, value)| value))
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
        }
    ) => {
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        $(#[$meta])*
        #[serde(rename_all = "camelCase")]
        #[schemars(transform = crate::types::schema::message)]
        pub struct $name {
            $(
                $(#[$field_meta])*
                #[serde(
                    default,
                    deserialize_with = "crate::types::message::read",
                    skip_serializing_if = "crate::types::message::is_default"
                )]
                pub $field: $type,
            )*
        }
        crate::types::message::message_reading!($name);
    };
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
            oneof {
                $(
                    $(#[$one_meta:meta])* pub $one:ident: $one_type:ident {
                        $($(#[$arm_meta:meta])* $arm:ident => $variant:ident($arm_type:ty),)+
                    }
                )*
            }
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
            $(
                $(#[$one_meta])*
                #[serde(flatten)]
                #[schemars(skip)]
                pub $one: Option<$one_type>,
            )*
        }
        $(
            #[derive(Clone, Debug, PartialEq, serde::Serialize, schemars::JsonSchema)]
            $(#[$one_meta])*
            #[serde(rename_all = "camelCase")]
            #[schemars(transform = crate::types::schema::oneof)]
            pub enum $one_type {
                $($(#[$arm_meta])* $variant($arm_type),)+
            }
        )*
        impl $name {
            fn add_oneofs(_schema: &mut schemars::Schema) {
                $(crate::types::schema::flatten::<$one_type>(_schema);)*
            }
        }
        impl<'de> crate::types::message::Field<'de> for $name {
            fn present<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                #[derive(serde::Deserialize)]
                #[serde(rename_all = "camelCase")]
                struct Written {
                    $(
                        #[serde(default, deserialize_with = "crate::types::message::read")]
                        $field: $type,
                    )*
                    $($(
                        #[serde(default, deserialize_with = "crate::types::message::read")]
                        $arm: Option<$arm_type>,
                    )+)*
                }
                let deserializer = crate::types::proto_json::Message(deserializer);
                let written = <Written as serde::Deserialize>::deserialize(deserializer)?;
                Ok(Self {
                    $($field: written.$field,)*
                    $($one: crate::types::message::choose([
                        $((stringify!($arm), written.$arm.map($one_type::$variant)),)+
                    ])?,)*
                })
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::types::message::read(deserializer)
            }
        }
    };
}
pub(crate) use message;

/// Declares the spec of a kind: a message that may be missing from its object, or `null`.
macro_rules! spec {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
        }
    ) => {
        // A message with a `oneof`, even an empty one, needn't be there: it doesn't derive how it is read.
        crate::types::message! {
            $(#[$meta])*
            pub struct $name {
                $($(#[$field_meta])* pub $field: $type,)*
                oneof {}
            }
        }
    };
}
pub(crate) use spec;

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
        impl<'de> crate::types::message::Field<'de> for $name {
            fn present<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::types::proto_json::enumeration(deserializer)
            }
        }
    };
}
pub(crate) use enumeration;
