//! What happens to an object before it is validated: fields that no schema has are named and dropped, as are nulls where
//! none can be; defaults are set.

use serde_json::Value as Json;

use super::node::{Additional, Node};
use super::problem::{Path, Problem};

/// Fields of every object.
const OWN: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Makes the object what an apiserver would store, and tells the unknown fields.
pub(super) fn decode(object: &mut Json, schema: &Node) -> Vec<Problem> {
    let mut unknown = Vec::new();
    prune(object, Some(schema), &Path::ROOT, &mut unknown);
    unknown.sort();
    drop_nulls(object, Some(schema));
    set_defaults(object, schema);
    unknown.into_iter().map(Problem::unknown).collect()
}

fn prune(value: &mut Json, schema: Option<&Node>, path: &Path<'_>, unknown: &mut Vec<String>) {
    let open = schema.is_some_and(|schema| schema.open);
    match value {
        Json::Object(fields) => {
            let own = schema.is_some_and(|schema| schema.embedded);
            fields.retain(|name, value| {
                if own && OWN.contains(&name.as_str()) {
                    return true;
                }
                let property = schema.and_then(|schema| schema.properties.get(name));
                match (property, schema.map(|schema| &schema.additional)) {
                    (Some(property), _) => prune(value, Some(property), &path.field(name), unknown),
                    (None, Some(Additional::Schema(values))) => prune(value, Some(values), &path.field(name), unknown),
                    (None, Some(Additional::Any)) => prune(value, None, &path.field(name), unknown),
                    _ if open => {}
                    _ => {
                        unknown.push(path.field(name).to_string());
                        return false;
                    }
                }
                true
            });
        }
        Json::Array(items) => {
            let schema = schema.and_then(|schema| schema.items.as_deref());
            if schema.is_some() || !open {
                for (index, item) in items.iter_mut().enumerate() {
                    prune(item, schema, &path.index(index), unknown);
                }
            }
        }
        _ => {}
    }
}

fn drop_nulls(value: &mut Json, schema: Option<&Node>) {
    match value {
        Json::Object(fields) => fields.retain(|name, value| {
            let schema = schema.and_then(|schema| schema.field(name));
            let refused = |schema: &Node| !schema.nullable && schema.default.is_none();
            if value.is_null() && schema.is_some_and(refused) {
                return false;
            }
            drop_nulls(value, schema);
            true
        }),
        Json::Array(items) => {
            let schema = schema.and_then(|schema| schema.items.as_deref());
            items.iter_mut().for_each(|item| drop_nulls(item, schema));
        }
        _ => {}
    }
}

fn set_defaults(value: &mut Json, schema: &Node) {
    if !schema.has_defaults {
        return;
    }
    match value {
        Json::Object(fields) => {
            for (name, property) in &schema.properties {
                let Some(default) = &property.default else { continue };
                let unset = |value: &Json| value.is_null() && !property.nullable;
                if fields.get(name).is_none_or(unset) {
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in fields {
                if let Some(schema) = schema.field(name) {
                    replace_null(value, schema);
                    set_defaults(value, schema);
                }
            }
        }
        Json::Array(items) => {
            let Some(schema) = &schema.items else { return };
            for item in items {
                replace_null(item, schema);
                set_defaults(item, schema);
            }
        }
        _ => {}
    }
}

fn replace_null(value: &mut Json, schema: &Node) {
    if let Some(default) = &schema.default
        && value.is_null()
        && !schema.nullable
    {
        *value = default.clone();
    }
}
