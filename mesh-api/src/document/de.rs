//! From the tree straight to a type, with the strictness and the leniency of Go's JSON: a number is no string, but
//! `null` is "not said", whatever the field.
//!
//! On the way it notes what serde alone would lose: the path and place of a wrong value, and the fields that the type
//! does not have.

use std::cell::RefCell;
use std::fmt;

use serde::de::value::{BorrowedStrDeserializer, StrDeserializer};
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, Unexpected, VariantAccess,
    Visitor,
};

use super::node::{Key, Mark, Node, Value};
use crate::FieldPath;
use crate::diagnostic::Step;

/// A value that does not fit its field.
#[derive(Debug)]
pub(crate) struct TypeError {
    pub(crate) message: String,
    /// The innermost field; none until the error has left it.
    pub(crate) place: Option<(FieldPath, Mark)>,
}

impl fmt::Display for TypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for TypeError {}

impl de::Error for TypeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), place: None }
    }
}

/// Fields of the text that the type does not have, in the order of the text.
pub(crate) type Unknown = Vec<(FieldPath, Mark)>;
/// A hostile document must not turn into a report longer than itself.
const MAX_UNKNOWN: usize = 100;

/// Reads a `T` from a node: the value, and the fields of the node that `T` does not know.
pub(crate) fn from_node<T: de::DeserializeOwned>(node: &Node<'_>) -> Result<(T, Unknown), TypeError> {
    let unknown = RefCell::new(Vec::new());
    let value = T::deserialize(At { node, key: node.mark, step: Step::Root, up: None, unknown: &unknown });
    match value {
        Ok(value) => Ok((value, unknown.into_inner())),
        Err(mut error) => {
            error.place.get_or_insert((FieldPath::default(), node.mark));
            Err(error)
        }
    }
}

/// A node and the way to it: `'p` the way, `'n` the tree, `'a` its text.
#[derive(Clone, Copy)]
struct At<'p, 'n, 'a> {
    node: &'n Node<'a>,
    key: Mark,
    step: Step<'n>,
    up: Option<&'p At<'p, 'n, 'a>>,
    unknown: &'p RefCell<Unknown>,
}

impl<'n, 'a> At<'_, 'n, 'a> {
    fn path(&self) -> FieldPath {
        self.step.after(self.up.map(At::path).unwrap_or_default())
    }

    fn mark(&self) -> Mark {
        if matches!(self.node.value, Value::Null) { self.key } else { self.node.mark }
    }

    fn locate<T>(&self, result: Result<T, TypeError>) -> Result<T, TypeError> {
        result.map_err(|mut error| {
            error.place.get_or_insert_with(|| (self.path(), self.mark()));
            error
        })
    }

    fn wrong<V: de::Expected>(&self, expected: &V) -> TypeError {
        let unexpected = match &self.node.value {
            Value::Null => Unexpected::Unit,
            Value::Bool(b) => Unexpected::Bool(*b),
            Value::Int(i) => Unexpected::Signed(*i),
            Value::Uint(u) => Unexpected::Unsigned(*u),
            Value::Float(f) => Unexpected::Float(*f),
            Value::String(text) => Unexpected::Str(text),
            Value::Sequence(_) => Unexpected::Other("a list"),
            Value::Mapping(_) => Unexpected::Other("a mapping"),
        };
        de::Error::invalid_type(unexpected, expected)
    }

    fn items<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match &self.node.value {
            Value::Sequence(items) => visitor.visit_seq(Items { at: self, items: items.iter(), index: 0 }),
            Value::Null => visitor.visit_seq(Items { at: self, items: [].iter(), index: 0 }),
            _ => Err(self.wrong(&visitor)),
        }
    }

    fn entries<V: Visitor<'n>>(self, visitor: V, skip_nulls: bool) -> Result<V::Value, TypeError> {
        let entries = match &self.node.value {
            Value::Mapping(entries) => entries.iter(),
            Value::Null => [].iter(),
            _ => return Err(self.wrong(&visitor)),
        };
        visitor.visit_map(Entries { at: self, entries, value: None, skip_nulls })
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

    fn text<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match &self.node.value {
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Null => visitor.visit_borrowed_str(""),
            _ => Err(self.wrong(&visitor)),
        }
    }
}

macro_rules! forward {
    ($($method:ident)* => $to:ident) => {
        $(fn $method<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, TypeError> { self.$to(visitor) })*
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
            Value::Sequence(_) => self.items(visitor),
            Value::Mapping(_) => self.entries(visitor, false),
        }
    }

    fn deserialize_bool<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, TypeError> {
        match self.node.value {
            Value::Bool(b) => visitor.visit_bool(b),
            Value::Null => visitor.visit_bool(false),
            _ => Err(self.wrong(&visitor)),
        }
    }

    forward!(deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16
        deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64 => number);
    forward!(deserialize_str deserialize_string deserialize_char deserialize_identifier
        deserialize_bytes deserialize_byte_buf => text);
    forward!(deserialize_seq => items);

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
        let number = match &self.node.value {
            Value::Int(i) => i.to_string(),
            Value::Uint(u) => u.to_string(),
            Value::Float(f) => f.to_string(),
            _ => return visitor.visit_newtype_struct(self),
        };
        if name == "Quantity" {
            let text: StrDeserializer<'_, TypeError> = number.as_str().into_deserializer();
            visitor.visit_newtype_struct(text)
        } else {
            visitor.visit_newtype_struct(self)
        }
    }

    fn deserialize_tuple<V: Visitor<'n>>(self, _: usize, visitor: V) -> Result<V::Value, TypeError> {
        self.items(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'n>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        self.items(visitor)
    }

    fn deserialize_map<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, TypeError> {
        self.entries(visitor, false)
    }

    fn deserialize_struct<V: Visitor<'n>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        self.entries(visitor, true)
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
                [(key, node)] => visitor.visit_enum(Variant { at: self, key, node }),
                _ => Err(de::Error::custom("expected a mapping with exactly one field, the chosen alternative")),
            },
            _ => Err(self.wrong(&visitor)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, TypeError> {
        let mut unknown = self.unknown.borrow_mut();
        if unknown.len() < MAX_UNKNOWN {
            unknown.push((self.path(), self.key));
        }
        visitor.visit_unit()
    }
}

fn descend<'n, 'a, T: DeserializeSeed<'n>>(
    up: &At<'_, 'n, 'a>,
    node: &'n Node<'a>,
    key: Mark,
    step: Step<'n>,
    seed: T,
) -> Result<T::Value, TypeError> {
    let at = At { node, key, step, up: Some(up), unknown: up.unknown };
    at.locate(seed.deserialize(at))
}

struct Items<'p, 'n, 'a> {
    at: At<'p, 'n, 'a>,
    items: std::slice::Iter<'n, Node<'a>>,
    index: usize,
}

impl<'n> SeqAccess<'n> for Items<'_, 'n, '_> {
    type Error = TypeError;

    fn next_element_seed<T: DeserializeSeed<'n>>(&mut self, seed: T) -> Result<Option<T::Value>, TypeError> {
        let Some(node) = self.items.next() else { return Ok(None) };
        let index = self.index;
        self.index += 1;
        descend(&self.at, node, node.mark, Step::Index(index), seed).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len())
    }
}

struct Entries<'p, 'n, 'a> {
    at: At<'p, 'n, 'a>,
    entries: std::slice::Iter<'n, (Key<'a>, Node<'a>)>,
    value: Option<&'n (Key<'a>, Node<'a>)>,
    skip_nulls: bool,
}

impl<'n> MapAccess<'n> for Entries<'_, 'n, '_> {
    type Error = TypeError;

    fn next_key_seed<T: DeserializeSeed<'n>>(&mut self, seed: T) -> Result<Option<T::Value>, TypeError> {
        for entry in self.entries.by_ref() {
            if self.skip_nulls && matches!(entry.1.value, Value::Null) {
                continue;
            }
            self.value = Some(entry);
            return seed.deserialize(BorrowedStrDeserializer::new(&entry.0.text)).map(Some);
        }
        Ok(None)
    }

    fn next_value_seed<T: DeserializeSeed<'n>>(&mut self, seed: T) -> Result<T::Value, TypeError> {
        let Some((key, node)) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        descend(&self.at, node, key.mark, Step::Field(&key.text), seed)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len())
    }
}

/// The chosen alternative of a union: `{name: value}`.
struct Variant<'p, 'n, 'a> {
    at: At<'p, 'n, 'a>,
    key: &'n Key<'a>,
    node: &'n Node<'a>,
}

impl<'p, 'n, 'a> EnumAccess<'n> for Variant<'p, 'n, 'a> {
    type Error = TypeError;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'n>>(self, seed: T) -> Result<(T::Value, Self), TypeError> {
        let name = seed.deserialize(BorrowedStrDeserializer::<TypeError>::new(&self.key.text))?;
        Ok((name, self))
    }
}

impl<'n> VariantAccess<'n> for Variant<'_, 'n, '_> {
    type Error = TypeError;

    fn unit_variant(self) -> Result<(), TypeError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'n>>(self, seed: T) -> Result<T::Value, TypeError> {
        descend(&self.at, self.node, self.key.mark, Step::Field(&self.key.text), seed)
    }

    fn tuple_variant<V: Visitor<'n>>(self, len: usize, visitor: V) -> Result<V::Value, TypeError> {
        let at = At {
            node: self.node,
            key: self.key.mark,
            step: Step::Field(&self.key.text),
            up: Some(&self.at),
            unknown: self.at.unknown,
        };
        at.locate(at.deserialize_tuple(len, visitor))
    }

    fn struct_variant<V: Visitor<'n>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, TypeError> {
        let at = At {
            node: self.node,
            key: self.key.mark,
            step: Step::Field(&self.key.text),
            up: Some(&self.at),
            unknown: self.at.unknown,
        };
        at.locate(at.deserialize_struct("", fields, visitor))
    }
}
