//! What schemars derives, in the shape that Istio's CRDs have.
//!
//! Only forms change here, never which fields there are: those come from the types alone.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

/// The rules, as (message, CEL expression), that an apiserver checks.
pub(crate) fn rules(rules: &[(&str, &str)]) -> Value {
    rules.iter().map(|(message, rule)| json!({ "message": message, "rule": rule })).collect()
}

/// The rule for durations that nobody may set to almost nothing.
pub(crate) fn at_least_a_millisecond() -> Value {
    rules(&[("a duration of at least 1ms is needed", "duration(self) >= duration('1ms')")])
}

/// The rule for port numbers.
pub(crate) fn port() -> Value {
    rules(&[("a port is between 1 and 65535", "0 < self && self <= 65535")])
}

/// The values of a map from names to ports.
pub(crate) fn ports() -> Value {
    json!({ "type": "integer", "minimum": 0, "maximum": u32::MAX, "x-kubernetes-validations": port() })
}

/// The values of a map from labels to what they must be.
pub(crate) fn selector_value() -> Value {
    let rules = rules(&[("a label value cannot hold *", "!self.contains('*')")]);
    json!({ "type": "string", "maxLength": 63, "x-kubernetes-validations": rules })
}

/// Text of a limited length, in UTF-8 characters.
pub(crate) fn text(max_length: u32) -> Value {
    json!({ "type": "string", "maxLength": max_length })
}

/// The hosts of a service.
pub(crate) fn host() -> Value {
    json!({ "type": "string", "x-kubernetes-validations": rules(&[("a host cannot be * alone", "self != '*'")]) })
}

/// For `schemars(schema_with)`: 64-bit integers, which protobuf JSON writes as text.
pub(crate) fn int_or_string(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-int-or-string": true })
}

/// For `schemars(schema_with)`: any JSON object.
pub(crate) fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

/// The rule that at most one of these fields is set.
pub(crate) fn at_most_one(fields: &[&str]) -> Value {
    let count: Vec<String> = fields.iter().map(|field| format!("(has(self.{field}) ? 1 : 0)")).collect();
    let message = format!("only one of {} can be set", fields.join(", "));
    rules(&[(message.as_str(), format!("{} <= 1", count.join(" + ")).as_str())])
}

/// The rule for what a policy applies to.
pub(crate) fn one_target() -> Value {
    at_most_one(&["selector", "targetRef", "targetRefs"])
}

/// For `schemars(transform)`: adds another spelling of a property.
pub(crate) fn also_spelled(message: &mut Schema, property: &str, spelling: &str) {
    if let Some(properties) = message.get_mut("properties").and_then(Value::as_object_mut)
        && let Some(schema) = properties.get(property).cloned()
    {
        properties.insert(spelling.into(), schema);
    }
}

/// For `schemars(transform)`: the properties of a message. Only wrapped scalars may be `null` for an apiserver, numbers
/// have the range that they have in protobuf.
pub(crate) fn message(schema: &mut Schema) {
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(value);
    }
}

fn value(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    if let Some([alternative, null]) = object.get("anyOf").and_then(Value::as_array).map(Vec::as_slice)
        && null.get("type").and_then(Value::as_str) == Some("null")
        && let Value::Object(mut alternative) = alternative.clone()
    {
        object.remove("anyOf");
        // What the field says of itself goes before what its type says.
        alternative.extend(std::mem::take(object));
        *object = alternative;
    }
    if let Some([Value::String(name), Value::String(null)]) =
        object.get("type").and_then(Value::as_array).map(Vec::as_slice)
        && null == "null"
        && !matches!(name.as_str(), "boolean" | "integer" | "number")
    {
        let name = name.clone();
        object.insert("type".into(), name.into());
    }
    match object.get("format").and_then(Value::as_str) {
        Some("uint32") => {
            object.remove("format");
            object.entry("maximum").or_insert(u32::MAX.into());
        }
        Some("uint64") => {
            object.remove("format");
        }
        _ => {}
    }
    for inner in ["items", "additionalProperties"] {
        if let Some(inner) = object.get_mut(inner) {
            value(inner);
        }
    }
}

/// For `schemars(transform)` on an enum whose variants are the fields of a `oneof`: an object with all of these fields, of
/// which at most one may be there.
pub(crate) fn oneof(schema: &mut Schema) {
    let Some(Value::Array(variants)) = schema.remove("oneOf") else { return };
    let mut properties = Map::new();
    for variant in variants {
        let Value::Object(mut variant) = variant else { continue };
        let fields = variant.remove("properties");
        // The rest is about the variant as an object, but for what its attributes say of the field.
        variant.retain(|key, _| !matches!(key.as_str(), "type" | "required" | "additionalProperties"));
        let Some(Value::Object(fields)) = fields else { continue };
        for (name, mut field) in fields {
            if let Some(object) = field.as_object_mut() {
                object.extend(variant.clone());
            }
            value(&mut field);
            properties.insert(name, field);
        }
    }
    let required: Vec<Value> = properties.keys().map(|name| json!({ "required": [name] })).collect();
    let mut alternatives = vec![json!({ "not": { "anyOf": required } })];
    alternatives.extend(required);
    schema.insert("type".into(), "object".into());
    schema.insert("oneOf".into(), alternatives.into());
    schema.insert("properties".into(), properties.into());
}

/// Adds the fields of `T`, a `oneof` in the form of [`oneof`], to those of the message around it.
pub(crate) fn flatten<T: JsonSchema>(message: &mut Schema) {
    // Within a CRD nothing is referred to: each schema stands where it is used.
    let mut oneof =
        T::json_schema(&mut SchemaSettings::default().with(|s| s.inline_subschemas = true).into_generator());
    if let (Some(properties), Some(Value::Object(fields))) =
        (message.ensure_object().entry("properties").or_insert(json!({})).as_object_mut(), oneof.remove("properties"))
    {
        properties.extend(fields);
    }
    let Some(alternatives) = oneof.remove("oneOf") else { return };
    let object = message.ensure_object();
    if let Some(Value::Array(all)) = object.get_mut("allOf") {
        all.push(json!({ "oneOf": alternatives }));
    } else if let Some(first) = object.remove("oneOf") {
        object.insert("allOf".into(), json!([{ "oneOf": first }, { "oneOf": alternatives }]));
    } else {
        object.insert("oneOf".into(), alternatives);
    }
}
