//! What of a user's values is supported: a JSON schema says so, that of a chart or that of the kind. What it has no
//! place for is named and left out, never passed on silently.

use mesh_api::{Diagnostic, FieldPath};
use serde_json::{Map, Value};

/// What of `value` the schema lets through. What it doesn't is told, with its path.
pub(super) fn fit(schema: &Value, value: Value, path: &FieldPath, told: &mut Vec<Diagnostic>) -> Option<Value> {
    if let Some(why) = refusal(schema, &value) {
        told.push(Diagnostic::error("InvalidField", why).at(path.clone()));
        return None;
    }
    Some(match value {
        Value::Object(fields) => Value::Object(fit_fields(schema, fields, path, told)),
        Value::Array(items) => {
            let Some(item) = schema.get("items") else { return Some(Value::Array(items)) };
            let items = items.into_iter().enumerate();
            Value::Array(items.filter_map(|(at, value)| fit(item, value, &path.index(at), told)).collect())
        }
        other => other,
    })
}

fn fit_fields(
    schema: &Value,
    fields: Map<String, Value>,
    path: &FieldPath,
    told: &mut Vec<Diagnostic>,
) -> Map<String, Value> {
    let known = schema.get("properties").and_then(Value::as_object);
    let others = schema.get("additionalProperties");
    // A schema that says nothing of fields takes them all.
    let open = others.is_none_or(|others| others == &Value::Bool(true)) && known.is_none();
    let mut fitting = Map::new();
    for (key, value) in fields {
        let path = path.field(&key);
        let fits = match known.and_then(|known| known.get(&key)).or(others.filter(|others| others.is_object())) {
            Some(schema) => fit(schema, value, &path, told),
            None if open => Some(value),
            None => {
                told.push(unsupported(path));
                None
            }
        };
        fitting.extend(fits.map(|value| (key, value)));
    }
    fitting
}

/// Says that nothing is done about a field.
pub(super) fn unsupported(path: FieldPath) -> Diagnostic {
    Diagnostic::error("UnsupportedField", "this field is not supported; nothing is done about it, remove it").at(path)
}

/// Why a value isn't of the type, or among the values, that the schema has.
fn refusal(schema: &Value, value: &Value) -> Option<String> {
    // Helm takes null for "as by default".
    if value.is_null() {
        return None;
    }
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ if schema.get("x-kubernetes-int-or-string").is_some() => vec!["integer", "number", "string"],
        _ => Vec::new(),
    };
    if !types.is_empty() && !types.iter().any(|name| is(value, name)) {
        return Some(format!("{value} is not of the type {}", types.join(" or ")));
    }
    let allowed = schema.get("enum").and_then(Value::as_array)?;
    let texts = || allowed.iter().map(Value::to_string).collect::<Vec<_>>().join(", ");
    (!allowed.contains(value)).then(|| format!("{value} is not among {}", texts()))
}

fn is(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "number" => value.is_number(),
        _ => false,
    }
}
