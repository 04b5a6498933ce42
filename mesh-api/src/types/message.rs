//! How a protobuf message, enum or `oneof` becomes a Rust type that reads and writes protobuf JSON.
//!
//! The macros only add derives and serde attributes to what is written inside them; the names and types that a reader
//! sees are the real ones. They must never hide a wrong value: serde's own `flatten` of an `Option` swallows errors, which
//! is why `oneof` fields are read by [`flat`].

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

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

impl<'de, T: Field<'de>> Field<'de> for Box<T> {
    fn present<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::present(deserializer).map(Box::new)
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

/// Scalars and foreign types that read themselves.
macro_rules! plain_field {
    ($($type:ty),+) => {$(
        impl<'de> Field<'de> for $type {
            fn present<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <$type>::deserialize(deserializer)
            }
        }
    )+};
}

plain_field!(
    String,
    bool,
    k8s_openapi::ByteString,
    k8s_openapi::apimachinery::pkg::apis::meta::v1::Time,
    serde_json::Map<String, serde_json::Value>
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

/// A protobuf `oneof`: one of several fields, or none.
pub(crate) trait Oneof: Sized {
    /// The names of the fields, as written.
    const FIELDS: &'static [&'static str];
    /// Reads the value that belongs to `field`; `None` for `null` and for a field of somebody else.
    fn arm<'de, A: MapAccess<'de>>(field: &str, map: &mut A) -> Result<Option<Self>, A::Error>;
}

/// For `deserialize_with` together with `flatten`: reads the arm of a `oneof` from the fields of the message around it.
pub(crate) fn flat<'de, T: Oneof, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    struct Arms<T>(PhantomData<T>);
    impl<'de, T: Oneof> Visitor<'de> for Arms<T> {
        type Value = Option<T>;
        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(formatter, "a map with at most one of {}", T::FIELDS.join(", "))
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<T>, A::Error> {
            let mut found: Option<(String, T)> = None;
            while let Some(field) = map.next_key::<String>()? {
                let Some(value) = T::arm(&field, &mut map)? else { continue };
                if let Some((other, _)) = &found {
                    return Err(A::Error::custom(format_args!("`{other}` and `{field}` exclude each other")));
                }
                found = Some((field, value));
            }
            Ok(found.map(|(_, value)| value))
        }
    }
    deserializer.deserialize_struct("oneof", T::FIELDS, Arms(PhantomData))
}

/// Reads one arm. The values reach us through a buffer that has lost its place, so the error carries the path from here.
pub(crate) fn arm_value<'de, T: Field<'de>, A: MapAccess<'de>>(
    field: &str,
    map: &mut A,
) -> Result<Option<T>, A::Error> {
    struct Seed<T>(PhantomData<T>);
    impl<'de, T: Field<'de>> DeserializeSeed<'de> for Seed<T> {
        type Value = Option<T>;
        fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<T>, D::Error> {
            read(deserializer)
        }
    }
    let mut track = serde_path_to_error::Track::new();
    let seed = PathSeed { track: &mut track, seed: Seed(PhantomData) };
    match map.next_value_seed(seed) {
        Ok(value) => Ok(value),
        Err(error) => {
            let path = track.path().to_string();
            let dot = if path == "." { "" } else { "." };
            let path = if path == "." { "" } else { &path };
            Err(A::Error::custom(format_args!("{field}{dot}{path}: {error}")))
        }
    }
}

struct PathSeed<'t, S> {
    track: &'t mut serde_path_to_error::Track,
    seed: S,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for PathSeed<'_, S> {
    type Value = S::Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        self.seed.deserialize(serde_path_to_error::Deserializer::new(deserializer, self.track))
    }
}

/// Skips the value of a field that isn't an arm.
pub(crate) fn skip<'de, T, A: MapAccess<'de>>(map: &mut A) -> Result<Option<T>, A::Error> {
    map.next_value::<IgnoredAny>().map(|_| None)
}

/// Declares a message: a struct with public fields, each of them absent by default. A `oneof { … }` block at the end
/// holds `Option`s of types declared with `oneof!`, whose arms are fields of this message.
macro_rules! message {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
            $(oneof { $($(#[$one_meta:meta])* pub $one:ident: $one_type:ty,)+ })?
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(rename_all = "camelCase")]
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
            $($(
                $(#[$one_meta])*
                #[serde(flatten, deserialize_with = "crate::types::message::flat")]
                pub $one: Option<$one_type>,
            )+)?
        }
        impl<'de> crate::types::message::Field<'de> for $name {
            fn present<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <Self as serde::Deserialize>::deserialize(deserializer)
            }
        }
    };
}
pub(crate) use message;

/// Declares an enum, written as one of its names in capitals. The variant marked `#[default]` is what an absent field means.
macro_rules! enumeration {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident,)+ }
    ) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord,
            serde::Serialize, serde::Deserialize, schemars::JsonSchema
        )]
        #[serde(rename_all = "SCREAMING_SNAKE_CASE")]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }
        impl<'de> crate::types::message::Field<'de> for $name {
            fn present<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <Self as serde::Deserialize>::deserialize(deserializer)
            }
        }
    };
}
pub(crate) use enumeration;

/// Declares a `oneof`: an enum whose variants are named after the fields that set them.
macro_rules! oneof {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $($(#[$variant_meta:meta])* $field:literal => $variant:ident($type:ty),)+ }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, schemars::JsonSchema)]
        pub enum $name {
            $($(#[$variant_meta])* #[serde(rename = $field)] $variant($type),)+
        }
        impl crate::types::message::Oneof for $name {
            const FIELDS: &'static [&'static str] = &[$($field),+];
            fn arm<'de, A: serde::de::MapAccess<'de>>(field: &str, map: &mut A) -> Result<Option<Self>, A::Error> {
                match field {
                    $($field => Ok(crate::types::message::arm_value(field, map)?.map(Self::$variant)),)+
                    _ => crate::types::message::skip(map),
                }
            }
        }
        impl<'de> crate::types::message::Field<'de> for $name {
            fn present<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <Self as serde::Deserialize>::deserialize(deserializer)
            }
            fn optional<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Self>, D::Error> {
                crate::types::message::flat(deserializer)
            }
        }
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::types::message::flat(deserializer)?
                    .ok_or_else(|| crate::types::message::unset::<Self, D::Error>())
            }
        }
    };
}
pub(crate) use oneof;

/// The error for a message that consists of one `oneof` and sets nothing where something is needed.
pub(crate) fn unset<T: Oneof, E: Error>() -> E {
    E::custom(format_args!("expected one of {}", T::FIELDS.join(", ")))
}

/// Writes a message that says nothing.
pub(crate) fn serialize_empty<S: Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
    BTreeMap::<String, String>::new().serialize(serializer)
}
