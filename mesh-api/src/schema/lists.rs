//! Lists that are sets, or maps by some of their fields: nothing may be there twice.

use std::collections::HashMap;

use serde_json::{Map, Value as Json};

use super::node::{ListKind, Node};
use super::problem::{Cause, Path, Problem};

pub(super) fn check(schema: &Node, object: &Json) -> Vec<Problem> {
    let mut out = Vec::new();
    value(schema, object, &Path::ROOT, &mut out);
    out
}

fn value(schema: &Node, json: &Json, path: &Path<'_>, out: &mut Vec<Problem>) {
    match json {
        Json::Object(fields) => {
            for (name, json) in fields {
                if let Some(property) = schema.properties.get(name) {
                    value(property, json, &path.field(name), out);
                } else if let Some(values) = schema.values() {
                    value(values, json, &path.key(name), out);
                }
            }
        }
        Json::Array(items) => {
            match schema.list {
                Some(ListKind::Set) => duplicates(items.clone(), path, out),
                Some(ListKind::Map) => by_key(&schema.list_keys, items, path, out),
                None => {}
            }
            if let Some(of) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    value(of, item, &path.index(index), out);
                }
            }
        }
        _ => {}
    }
}

fn by_key(names: &[String], items: &[Json], path: &Path<'_>, out: &mut Vec<Problem>) {
    if let Some(index) = items.iter().position(|item| !item.is_null() && !item.is_object()) {
        let value = items.get(index).unwrap_or(&Json::Null);
        let detail = "must be an object for an array of list-type map";
        out.push(Problem::invalid(path.index(index), value, detail));
        return;
    }
    let key = |item: &Json| -> Json {
        names.iter().filter_map(|name| Some((name.clone(), item.get(name)?.clone()))).collect::<Map<_, _>>().into()
    };
    duplicates(items.iter().map(key).collect(), path, out);
}

/// Tells the second of equal values; those after it are not worth a word.
fn duplicates(values: Vec<Json>, path: &Path<'_>, out: &mut Vec<Problem>) {
    let mut seen: HashMap<String, usize> = HashMap::new();
    for (index, value) in values.iter().enumerate() {
        let times = seen.entry(value.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            out.push(Problem::with(Cause::Duplicate, path.index(index), value, ""));
        }
    }
}
