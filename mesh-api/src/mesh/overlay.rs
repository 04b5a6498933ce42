//! Laying a text over settings that are already there.
//!
//! The text's fields are read into the settings, each as a whole. A field that cannot be read is told and stays as it was.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::document::{self, Mark, Node, Raw, Value, at};
use crate::types::message::{Message, camel_case};
use crate::types::proto_json::FieldName;
use crate::{Diagnostic, FieldPath, Location, Name};

/// Declares a message of the mesh's settings. As there is no CRD of it, it has no schema; nor has it a `Default` of
/// itself, since what istiod assumes is not always the zero value. A field whose name in JSON doesn't follow from ours has
/// it as `serde(rename)`.
macro_rules! settings {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $($(#[doc = $doc:literal])* $(#[serde(rename = $written:literal)])? pub $field:ident: $type:ty,)*
            $(oneof {
                $(
                    $(#[$one_meta:meta])* pub $one:ident: $one_type:ident {
                        $($(#[$arm_meta:meta])* $arm:ident => $variant:ident($arm_type:ty),)+
                    }
                )+
            })?
        }
    ) => {
        #[derive(Clone, Debug, PartialEq, serde::Serialize)]
        $(#[$meta])*
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            $(
                $(#[doc = $doc])*
                $(#[serde(rename = $written)])?
                #[serde(skip_serializing_if = "crate::types::message::is_default")]
                pub $field: $type,
            )*
            $($(
                $(#[$one_meta])*
                #[serde(flatten)]
                pub $one: Option<$one_type>,
            )+)?
        }
        $($(
            #[derive(Clone, Debug, PartialEq, serde::Serialize)]
            $(#[$one_meta])*
            #[serde(rename_all = "camelCase")]
            pub enum $one_type {
                $($(#[$arm_meta])* $variant($arm_type),)+
            }
        )+)?
        crate::types::message::reader! {
            $name {
                $(field $field = [$($written,)? stringify!($field)][0];)*
                $($(oneof $one: $one_type { $($arm => $variant;)+ })+)?
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
            Ok(Raw { node, .. }) => found = Some(with_json_names(node)),
            Err(diagnostic) => told.push(diagnostic),
        }
    }
    found
}

/// Settings by their names in the proto file get those that they have in JSON: what is laid over must be found.
fn with_json_names(mut node: Node<'_>) -> Node<'_> {
    if let Value::Mapping(entries) = &mut node.value {
        for (key, _) in entries.iter_mut().filter(|(key, _)| key.text.contains('_')) {
            key.text = camel_case(&key.text).into();
        }
    }
    node
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
                taken.push((key.text, with_json_names(value)));
            }
        }
    }
    (taken, Node { value: Value::Mapping(kept), mark })
}

/// Lays the fields of `node` over `base`. `prefix` is the path of `node` in its text.
pub(super) fn lay<T: Message + Clone>(
    base: &T,
    mut node: Node<'_>,
    file: &Name,
    prefix: &str,
    told: &mut Vec<Diagnostic>,
) -> T {
    let under = |path: FieldPath| match (prefix.is_empty(), path.is_empty()) {
        (true, _) => path,
        (false, true) => FieldPath::new(prefix),
        (false, false) => FieldPath::new(format!("{prefix}.{path}")),
    };
    if let Value::Mapping(entries) = &mut node.value {
        entries.retain(|(_, value)| !matches!(value.value, Value::Null));
    }
    let mut settings = base.clone();
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    let read = at::read(&node, |at| {
        at.entries(&mut |key, at| {
            match settings.read_field(&FieldName::new(key), at) {
                Ok(Some(field)) if !seen.insert(field) => wrong.push((at.path(), at.mark(), "said twice".to_owned())),
                Ok(Some(_)) => {}
                Ok(None) => at.unknown(),
                Err(error) => wrong.push(at.placed(error).into_parts()),
            }
            Ok(())
        })
    });
    let unknown = match read {
        Ok(((), unknown)) => unknown,
        Err(error) => {
            wrong.push(error.into_parts());
            Vec::new()
        }
    };
    told.extend(wrong.into_iter().map(|(path, mark, message)| {
        Diagnostic::error("InvalidField", format!("{message}; the setting stays as it was"))
            .at(under(path))
            .from_text(place(file, mark))
    }));
    told.extend(unknown.into_iter().map(|(path, mark)| {
        Diagnostic::warning("UnknownField", "there is no such setting; it is ignored")
            .at(under(path))
            .from_text(place(file, mark))
    }));
    settings
}

fn place(file: &Name, mark: Mark) -> Location {
    Location { file: file.clone(), line: mark.line, column: mark.column }
}
