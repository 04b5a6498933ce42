//! Laying a text over settings that are already there.
//!
//! The settings are written as a tree, the text's fields take the place of theirs, and the whole is read again: so there
//! is one way in which a field is read. A field that cannot be read is left out and told.

use std::borrow::Cow;

use serde::{Serialize, de::DeserializeOwned};

use crate::document::{self, Key, Mark, Node, Raw, Value, de};
use crate::types::message::camel_case;
use crate::{Diagnostic, FieldPath, Location, Name};

/// Declares settings: a message whose default is not the zero value but what its `Default` says elsewhere.
macro_rules! settings {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
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
        }
        impl<'de> crate::types::message::Field<'de> for $name {
            fn present<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <Self as serde::Deserialize>::deserialize(crate::types::proto_json::Message(deserializer))
            }
        }
    };
}
pub(super) use settings;

/// The one mapping that a text of settings is; none, and told, where it is something else. An empty text says nothing.
pub(super) fn mapping<'a>(file: &Name, text: &'a str, told: &mut Vec<Diagnostic>) -> Option<Node<'a>> {
    let mut found = None;
    for document in document::raw(file, text) {
        match document {
            Ok(Raw { node, .. }) if !matches!(node.value, Value::Mapping(_)) => {
                let message = format!("expected a mapping of settings, found {}", node.value.describe());
                told.push(Diagnostic::error("InvalidField", message).from_text(place(file, node.mark)));
            }
            Ok(Raw { node, .. }) if found.is_some() => {
                let message = "only one document of settings is read; this one is ignored";
                told.push(Diagnostic::error("InvalidField", message).from_text(place(file, node.mark)));
            }
            Ok(Raw { mut node, .. }) => {
                if let Value::Mapping(entries) = &mut node.value {
                    json_names(entries);
                }
                found = Some(node);
            }
            Err(diagnostic) => told.push(diagnostic),
        }
    }
    found
}

/// Settings by their names in the proto file get those that they have in JSON: what is laid over must be found.
fn json_names(entries: &mut [(Key<'_>, Node<'_>)]) {
    for (key, _) in entries.iter_mut().filter(|(key, _)| key.text.contains('_')) {
        key.text = camel_case(&key.text).into();
    }
}

/// Takes the named fields out of a mapping; `null` says nothing.
pub(super) fn split<'a>(node: Node<'a>, names: &[&str]) -> (Vec<(Cow<'a, str>, Node<'a>)>, Node<'a>) {
    let (mut taken, mut kept) = (Vec::new(), Vec::new());
    let mark = node.mark;
    if let Value::Mapping(entries) = node.value {
        for (key, value) in entries {
            if !names.contains(&key.text.as_ref()) {
                kept.push((key, value));
            } else if !matches!(value.value, Value::Null) {
                taken.push((key.text, value));
            }
        }
    }
    (taken, Node { value: Value::Mapping(kept), mark })
}

/// Lays the fields of `node` over `base`. `prefix` is the path of `node` in its text.
pub(super) fn lay<T: Serialize + DeserializeOwned + Clone>(
    base: &T,
    node: Node<'_>,
    file: &Name,
    prefix: &str,
    told: &mut Vec<Diagnostic>,
) -> T {
    let under = |path: FieldPath| match (prefix.is_empty(), path.is_empty()) {
        (true, _) => path,
        (false, true) => FieldPath::new(prefix),
        (false, false) => FieldPath::new(format!("{prefix}.{path}")),
    };
    let mark = node.mark;
    let mut said = match node.value {
        Value::Mapping(entries) => entries,
        other => {
            let message = format!("expected a mapping, found {}", other.describe());
            told.push(
                Diagnostic::error("InvalidField", message).at(FieldPath::new(prefix)).from_text(place(file, mark)),
            );
            return base.clone();
        }
    };
    json_names(&mut said);
    said.retain(|(_, value)| !matches!(value.value, Value::Null));
    // Settings are plain data, so writing them as a tree cannot fail.
    let Ok(before) = serde_json::to_value(base) else { return base.clone() };
    loop {
        let mut entries = said.clone();
        if let Value::Mapping(old) = Node::from_json(&before).value {
            entries.extend(old.into_iter().filter(|(key, _)| !said.iter().any(|(k, _)| k.text == key.text)));
        }
        match de::from_node::<T>(&Node { value: Value::Mapping(entries), mark }) {
            Ok((settings, unknown)) => {
                told.extend(unknown.into_iter().map(|(path, mark)| {
                    Diagnostic::warning("UnknownField", "there is no such setting; it is ignored")
                        .at(under(path))
                        .from_text(place(file, mark))
                }));
                return settings;
            }
            Err(error) => {
                let (path, mark) = error.place.unwrap_or_default();
                let before = said.len();
                said.retain(|(key, _)| !begins_with(path.as_str(), &key.text));
                told.push(
                    Diagnostic::error("InvalidField", format!("{}; the setting stays as it was", error.message))
                        .at(under(path))
                        .from_text(place(file, mark)),
                );
                if said.len() == before {
                    return base.clone();
                }
            }
        }
    }
}

fn begins_with(path: &str, field: &str) -> bool {
    path.strip_prefix(field).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn place(file: &Name, mark: Mark) -> Location {
    Location { file: file.clone(), line: mark.line, column: mark.column }
}
