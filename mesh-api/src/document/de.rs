//! From the tree to a type of Kubernetes through serde, with the strictness and the leniency of Go's JSON: a number is no
//! string, but `null` is "not said", whatever the field.
//!
//! Each method is instantiated for a thousand types, so what doesn't depend on the type is in [`At`], or in functions
//! without parameters here.

use serde::de::value::{BorrowedStrDeserializer, StrDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};

use super::at::{At, TypeError, Unknown, read};
use super::node::{Key, Node, Value};

/// Reads a `T` from a node: the value, and the fields of the node that `T` does not know.
pub(crate) fn from_node<T: DeserializeOwned>(node: &Node<'_>) -> Result<(T, Unknown), TypeError> {
    read(node, |at| T::deserialize(*at))
}

impl<'p, 'n, 'a> At<'p, 'n, 'a> {
    fn sequence(self, expected: &dyn Expected) -> Result<Items<'p, 'n, 'a>, TypeError> {
        match &self.node.value {
            Value::Sequence(items) => Ok(Items { at: self, items: items.iter().enumerate() }),
            Value::Null => Ok(Items { at: self, items: [].iter().enumerate() }),
            _ => Err(self.wrong(expected)),
        }
    }

    fn mapping(self, expected: &dyn Expected, skip_nulls: bool) -> Result<Entries<'p, 'n, 'a>, TypeError> {
        let entries = match &self.node.value {
            Value::Mapping(entries) => entries.iter(),
            Value::Null => [].iter(),
            _ => return Err(self.wrong(expected)),
        };
        Ok(Entries { at: self, entries, value: None, skip_nulls })
    }

    fn number<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match &self.node.value {
            Value::Int(i) => visitor.visit_i64(*i),
            Value::Uint(u) => visitor.visit_u64(*u),
            Value::Float(f) => visitor.visit_f64(*f),
            Value::Null => visitor.visit_i64(0),
            _ => Err(self.wrong(&visitor)),
        }
    }

    fn string(self, expected: &dyn Expected) -> Result<&'n str, TypeError> {
        match &self.node.value {
            Value::String(text) => Ok(text),
            Value::Null => Ok(""),
            _ => Err(self.wrong(expected)),
        }
    }

    fn number_as_text(self) -> Option<String> {
        match &self.node.value {
            Value::Int(i) => Some(i.to_string()),
            Value::Uint(u) => Some(u.to_string()),
            Value::Float(f) => Some(f.to_string()),
            _ => None,
        }
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, TypeError> { self.number(visitor) })*
    };
}

macro_rules! strings {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, TypeError> {
            match self.string(&visitor) {
                Ok(text) => visitor.visit_borrowed_str(text),
                Err(error) => Err(error),
            }
        })*
    };
}

impl<'n> Deserializer<'n> for At<'_, 'n, '_> {
    type Error = TypeError;

    fn deserialize_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(b) => visitor.visit_bool(*b),
            Value::Int(i) => visitor.visit_i64(*i),
            Value::Uint(u) => visitor.visit_u64(*u),
            Value::Float(f) => visitor.visit_f64(*f),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Sequence(_) => self.deserialize_seq(visitor),
            Value::Mapping(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self.node.value {
            Value::Bool(b) => visitor.visit_bool(b),
            Value::Null => visitor.visit_bool(false),
            _ => Err(self.wrong(&visitor)),
        }
    }

    numbers!(deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16
        deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64);
    strings!(deserialize_str deserialize_string deserialize_char deserialize_identifier
        deserialize_bytes deserialize_byte_buf);

    fn deserialize_option<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self.node.value {
            Value::Null => visitor.visit_unit(),
            _ => Err(self.wrong(&visitor)),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'n>>(self, _: &'static str, visitor: V) -> Result<V::Value, TypeError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'n>>(self, name: &'static str, visitor: V) -> Result<V::Value, TypeError> {
        // Kubernetes reads `cpu: 1` as the quantity "1".
        match self.number_as_text() {
            Some(number) if name == "Quantity" => {
                let text: StrDeserializer<'_, TypeError> = number.as_str().into_deserializer();
                visitor.visit_newtype_struct(text)
            }
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self.sequence(&visitor) {
            Ok(items) => visitor.visit_seq(items),
            Err(error) => Err(error),
        }
    }

    fn deserialize_tuple<V: Visitor<'n>>(self, _: usize, visitor: V) -> Result<V::Value, TypeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'n>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self.mapping(&visitor, false) {
            Ok(entries) => visitor.visit_map(entries),
            Err(error) => Err(error),
        }
    }

    fn deserialize_struct<V: Visitor<'n>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        match self.mapping(&visitor, true) {
            Ok(entries) => visitor.visit_map(entries),
            Err(error) => Err(error),
        }
    }

    fn deserialize_enum<V: Visitor<'n>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        match &self.node.value {
            Value::String(text) => visitor.visit_enum(BorrowedStrDeserializer::new(text)),
            Value::Mapping(entries) => match entries.as_slice() {
                [entry] => visitor.visit_enum(Variant { at: self, entry }),
                _ => Err(de::Error::custom("expected a mapping with exactly one field, the chosen alternative")),
            },
            _ => Err(self.wrong(&visitor)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.unknown();
        visitor.visit_unit()
    }
}

/// Reads a value further in; an error gets its place.
fn descend<'n, T: DeserializeSeed<'n>>(at: At<'_, 'n, '_>, seed: T) -> Result<T::Value, TypeError> {
    match seed.deserialize(at) {
        Ok(value) => Ok(value),
        Err(error) => Err(at.placed(error)),
    }
}

struct Items<'p, 'n, 'a> {
    at: At<'p, 'n, 'a>,
    items: std::iter::Enumerate<std::slice::Iter<'n, Node<'a>>>,
}

impl<'n> SeqAccess<'n> for Items<'_, 'n, '_> {
    type Error = TypeError;

    fn next_element_seed<T: DeserializeSeed<'n>>(&mut self, seed: T) -> Result<Option<T::Value>, TypeError> {
        match self.items.next() {
            Some((index, node)) => match descend(self.at.element(index, node), seed) {
                Ok(value) => Ok(Some(value)),
                Err(error) => Err(error),
            },
            None => Ok(None),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

type Entry<'a> = (Key<'a>, Node<'a>);

struct Entries<'p, 'n, 'a> {
    at: At<'p, 'n, 'a>,
    entries: std::slice::Iter<'n, Entry<'a>>,
    value: Option<&'n Entry<'a>>,
    skip_nulls: bool,
}

impl<'n, 'a> Entries<'_, 'n, 'a> {
    fn next_key(&mut self) -> Option<BorrowedStrDeserializer<'n, TypeError>> {
        let skip_nulls = self.skip_nulls;
        let entry = self.entries.find(|(_, value)| !(skip_nulls && matches!(value.value, Value::Null)))?;
        self.value = Some(entry);
        Some(BorrowedStrDeserializer::new(&entry.0.text))
    }

    fn next_value(&mut self) -> Result<At<'_, 'n, 'a>, TypeError> {
        match self.value.take() {
            Some(entry) => Ok(self.at.entry(entry)),
            None => Err(de::Error::custom("a value was asked for before its key")),
        }
    }
}

impl<'n> MapAccess<'n> for Entries<'_, 'n, '_> {
    type Error = TypeError;

    fn next_key_seed<T: DeserializeSeed<'n>>(&mut self, seed: T) -> Result<Option<T::Value>, TypeError> {
        match self.next_key() {
            Some(key) => match seed.deserialize(key) {
                Ok(key) => Ok(Some(key)),
                Err(error) => Err(error),
            },
            None => Ok(None),
        }
    }

    fn next_value_seed<T: DeserializeSeed<'n>>(&mut self, seed: T) -> Result<T::Value, TypeError> {
        match self.next_value() {
            Ok(at) => descend(at, seed),
            Err(error) => Err(error),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len())
    }
}

/// The chosen alternative of a union: `{name: value}`.
struct Variant<'p, 'n, 'a> {
    at: At<'p, 'n, 'a>,
    entry: &'n Entry<'a>,
}

impl<'p, 'n, 'a> EnumAccess<'n> for Variant<'p, 'n, 'a> {
    type Error = TypeError;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'n>>(self, seed: T) -> Result<(T::Value, Self), TypeError> {
        let name = seed.deserialize(BorrowedStrDeserializer::<TypeError>::new(&self.entry.0.text))?;
        Ok((name, self))
    }
}

impl<'n> VariantAccess<'n> for Variant<'_, 'n, '_> {
    type Error = TypeError;

    fn unit_variant(self) -> Result<(), TypeError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'n>>(self, seed: T) -> Result<T::Value, TypeError> {
        descend(self.at.entry(self.entry), seed)
    }

    fn tuple_variant<V: Visitor<'n>>(self, len: usize, visitor: V) -> Result<V::Value, TypeError> {
        let at = self.at.entry(self.entry);
        at.deserialize_tuple(len, visitor).map_err(|error| at.placed(error))
    }

    fn struct_variant<V: Visitor<'n>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        let at = self.at.entry(self.entry);
        at.deserialize_struct("", fields, visitor).map_err(|error| at.placed(error))
    }
}
