//! A node and the way to it. Whoever reads a type walks from here: over fields, elements or entries, one concrete step at a
//! time, so that what is read costs a program its own code only.
//!
//! On the way it notes what a reader alone would lose: the path and place of a wrong value, and the fields that the type
//! does not have.

use std::cell::RefCell;
use std::fmt;

use serde::de::{self, Expected, Unexpected};

use super::node::{Key, Mark, Node, Value};
use crate::FieldPath;
use crate::diagnostic::Step;
use crate::types::message::camel_case;
use crate::types::proto_json::FieldName;

/// A value that does not fit its field.
#[derive(Debug)]
pub(crate) struct TypeError(Box<Wrong>);

#[derive(Debug)]
struct Wrong {
    message: String,
    /// The innermost field; none until the error has left it.
    place: Option<(FieldPath, Mark)>,
}

impl TypeError {
    /// The innermost field that is wrong, its place, and what is wrong.
    pub(crate) fn into_parts(self) -> (FieldPath, Mark, String) {
        let (path, mark) = self.0.place.unwrap_or_default();
        (path, mark, self.0.message)
    }
}

impl fmt::Display for TypeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for TypeError {}

impl de::Error for TypeError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(Box::new(Wrong { message: message.to_string(), place: None }))
    }
}

/// Which field of a message was read; none if the message has no such field.
pub(crate) type FieldRead = Result<Option<&'static str>, TypeError>;

/// Fields of the text that the type does not have, in the order of the text.
pub(crate) type Unknown = Vec<(FieldPath, Mark)>;
/// A hostile document must not turn into a report longer than itself.
const MAX_UNKNOWN: usize = 100;

/// Reads a node: what `reader` makes of it, and the fields that it did not know.
pub(crate) fn read<T>(
    node: &Node<'_>,
    reader: impl FnOnce(&At<'_, '_, '_>) -> Result<T, TypeError>,
) -> Result<(T, Unknown), TypeError> {
    let unknown = RefCell::new(Vec::new());
    let at = At { node, key: node.mark, step: Step::Root, up: None, unknown: &unknown };
    match reader(&at) {
        Ok(value) => Ok((value, unknown.into_inner())),
        Err(error) => Err(at.placed(error)),
    }
}

/// A node and the way to it: `'p` the way, `'n` the tree, `'a` its text.
#[derive(Clone, Copy)]
pub(crate) struct At<'p, 'n, 'a> {
    pub(super) node: &'n Node<'a>,
    key: Mark,
    step: Step<'n>,
    up: Option<&'p At<'p, 'n, 'a>>,
    unknown: &'p RefCell<Unknown>,
}

impl<'n, 'a> At<'_, 'n, 'a> {
    /// What is said here.
    pub(crate) fn node(&self) -> &'n Node<'a> {
        self.node
    }

    pub(super) fn entry<'q>(&'q self, (key, node): &'n (Key<'a>, Node<'a>)) -> At<'q, 'n, 'a> {
        At { node, key: key.mark, step: Step::Field(&key.text), up: Some(self), unknown: self.unknown }
    }

    pub(super) fn element<'q>(&'q self, index: usize, node: &'n Node<'a>) -> At<'q, 'n, 'a> {
        At { node, key: node.mark, step: Step::Index(index), up: Some(self), unknown: self.unknown }
    }

    /// The way to here.
    pub(crate) fn path(&self) -> FieldPath {
        self.step.after(self.up.map(At::path).unwrap_or_default())
    }

    /// Where this is in the text: where the value begins, or its key if it isn't written.
    pub(crate) fn mark(&self) -> Mark {
        if matches!(self.node.value, Value::Null) { self.key } else { self.node.mark }
    }

    /// The error with this place, unless it already has one further in.
    pub(crate) fn placed(&self, mut error: TypeError) -> TypeError {
        error.0.place.get_or_insert_with(|| (self.path(), self.mark()));
        error
    }

    /// Notes that nobody knows this field.
    pub(crate) fn unknown(&self) {
        let mut unknown = self.unknown.borrow_mut();
        if unknown.len() < MAX_UNKNOWN {
            unknown.push((self.path(), self.key));
        }
    }

    fn found(&self) -> Unexpected<'n> {
        match &self.node.value {
            Value::Null => Unexpected::Other("null"),
            Value::Bool(b) => Unexpected::Bool(*b),
            Value::Int(i) => Unexpected::Signed(*i),
            Value::Uint(u) => Unexpected::Unsigned(*u),
            Value::Float(f) => Unexpected::Float(*f),
            Value::String(text) => Unexpected::Str(text),
            Value::Sequence(_) => Unexpected::Other("a list"),
            Value::Mapping(_) => Unexpected::Other("a mapping"),
        }
    }

    /// The error that the value is of another type.
    pub(crate) fn wrong(&self, expected: &dyn Expected) -> TypeError {
        de::Error::invalid_type(self.found(), expected)
    }

    /// The error that the value is of the right type, but none of its values.
    pub(crate) fn invalid(&self, expected: &dyn Expected) -> TypeError {
        de::Error::invalid_value(self.found(), expected)
    }

    /// The text that is said.
    pub(crate) fn text(&self) -> Result<&'n str, TypeError> {
        match &self.node.value {
            Value::String(text) => Ok(text),
            _ => Err(self.wrong(&"a string")),
        }
    }

    /// Walks over the elements of a list; there is no `null` among them.
    pub(crate) fn elements(
        &self,
        each: &mut dyn FnMut(&At<'_, 'n, 'a>) -> Result<(), TypeError>,
    ) -> Result<(), TypeError> {
        let Value::Sequence(items) = &self.node.value else { return Err(self.wrong(&"a list")) };
        for (index, item) in items.iter().enumerate() {
            let at = self.element(index, item);
            at.present().and_then(|()| each(&at)).map_err(|error| at.placed(error))?;
        }
        Ok(())
    }

    /// Walks over the entries of a map; there is no `null` among them.
    pub(crate) fn entries(
        &self,
        each: &mut dyn FnMut(&'n str, &At<'_, 'n, 'a>) -> Result<(), TypeError>,
    ) -> Result<(), TypeError> {
        let Value::Mapping(entries) = &self.node.value else { return Err(self.wrong(&"a map")) };
        for entry in entries {
            let at = self.entry(entry);
            at.present().and_then(|()| each(&entry.0.text, &at)).map_err(|error| at.placed(error))?;
        }
        Ok(())
    }

    fn present(&self) -> Result<(), TypeError> {
        if matches!(self.node.value, Value::Null) { Err(self.wrong(&"a value")) } else { Ok(()) }
    }

    /// Walks over the fields of a message, those that are `null` left out. `each` says which field a name means.
    pub(crate) fn fields(
        &self,
        each: &mut dyn FnMut(&FieldName<'_>, &At<'_, 'n, 'a>) -> FieldRead,
    ) -> Result<(), TypeError> {
        let Value::Mapping(entries) = &self.node.value else { return Err(self.wrong(&"a mapping")) };
        let mut seen: Vec<&'static str> = Vec::new();
        for entry in entries.iter().filter(|(_, value)| !matches!(value.value, Value::Null)) {
            let at = self.entry(entry);
            match each(&FieldName::new(&entry.0.text), &at) {
                Ok(None) => at.unknown(),
                Ok(Some(field)) if seen.contains(&field) => {
                    let twice = de::Error::custom(format_args!("duplicate field `{}`", camel_case(field)));
                    return Err(at.placed(twice));
                }
                Ok(Some(field)) => seen.push(field),
                Err(error) => return Err(at.placed(error)),
            }
        }
        Ok(())
    }
}
