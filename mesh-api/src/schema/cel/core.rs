//! The functions that are part of the language: sizes, conversions, optional values.

use std::sync::Arc;

use super::{Fault, Value};
use crate::schema::numbers;
use crate::types::Duration;

const TYPES: &[&str] = &["bool", "bytes", "double", "dyn", "int", "list", "map", "null_type", "string", "type", "uint"];

/// The type of this name.
pub(super) fn named_type<'a>(name: &str) -> Option<Value<'a>> {
    TYPES.iter().find(|known| **known == name).map(|known| Value::Type(known))
}

pub(super) fn call<'a>(function: &str, args: &[Value<'a>]) -> Option<Result<Value<'a>, Fault>> {
    let value = match (function, args) {
        ("size", [value]) => Value::Int(i64::try_from(size(value)?).ok()?),
        ("type", [value]) => Value::Type(value.type_name()),
        ("dyn", [value]) => value.clone(),
        ("int" | "uint" | "double" | "string" | "bytes" | "bool" | "duration" | "timestamp", [value]) => {
            return Some(convert(function, value));
        }
        ("optional.of", [value]) => Value::some(value.clone()),
        ("optional.ofNonZeroValue", [value]) => {
            if is_zero(value) {
                Value::Optional(None)
            } else {
                Value::some(value.clone())
            }
        }
        ("optional.none", []) => Value::Optional(None),
        ("hasValue", [Value::Optional(value)]) => Value::Bool(value.is_some()),
        ("value", [Value::Optional(value)]) => {
            let none = || Fault::new("optional.none() dereference");
            return Some(value.as_ref().map(|value| value.as_ref().clone()).ok_or_else(none));
        }
        ("or", [Value::Optional(None), other @ Value::Optional(_)]) => other.clone(),
        ("or", [value @ Value::Optional(Some(_)), Value::Optional(_)]) => value.clone(),
        ("orValue", [Value::Optional(value), other]) => {
            value.as_ref().map_or_else(|| other.clone(), |value| value.as_ref().clone())
        }
        _ => return None,
    };
    Some(Ok(value))
}

fn size(value: &Value<'_>) -> Option<usize> {
    match value {
        Value::String(text) => Some(text.chars().count()),
        Value::Bytes(bytes) => Some(bytes.len()),
        Value::List(list) => Some(list.len()),
        Value::Map(map) => Some(map.len()),
        _ => None,
    }
}

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null | Value::Optional(None) => true,
        Value::Bool(value) => !value,
        Value::Int(number) => *number == 0,
        Value::Uint(number) => *number == 0,
        Value::Double(number) => *number == 0.0,
        Value::Duration(span) => span.is_zero(),
        _ => size(value) == Some(0),
    }
}

fn convert<'a>(function: &str, value: &Value<'a>) -> Result<Value<'a>, Fault> {
    let to = match function {
        "duration" => "google.protobuf.Duration",
        "timestamp" => "google.protobuf.Timestamp",
        other => other,
    };
    if value.type_name() == to {
        return Ok(value.clone());
    }
    let out_of_range = || Fault::new("integer overflow");
    let converted = match (function, value) {
        ("int", Value::Uint(number)) => Some(Value::Int(i64::try_from(*number).map_err(|_| out_of_range())?)),
        ("int", Value::Double(number)) => {
            // The limits themselves are no doubles.
            let fits = number.abs() < 9_223_372_036_854_775_807.0;
            Some(Value::Int(if fits { *number as i64 } else { return Err(out_of_range()) }))
        }
        ("int", Value::String(text)) => text.parse().ok().map(Value::Int),
        ("int", Value::Timestamp(time)) => Some(Value::Int(time.as_second())),
        ("uint", Value::Int(number)) => Some(Value::Uint(u64::try_from(*number).map_err(|_| out_of_range())?)),
        ("uint", Value::Double(number)) => {
            let fits = (0.0..18_446_744_073_709_551_615.0).contains(number);
            Some(Value::Uint(if fits { *number as u64 } else { return Err(out_of_range()) }))
        }
        ("uint", Value::String(text)) => text.parse().ok().map(Value::Uint),
        ("double", Value::Int(number)) => Some(Value::Double(*number as f64)),
        ("double", Value::Uint(number)) => Some(Value::Double(*number as f64)),
        ("double", Value::String(text)) => text.parse().ok().map(Value::Double),
        ("bytes", Value::String(text)) => Some(Value::Bytes(Arc::from(text.as_bytes()))),
        ("bool", Value::String(text)) => match text.as_ref() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(Value::Bool(false)),
            _ => None,
        },
        ("duration", Value::String(text)) => text.parse::<Duration>().ok().map(Value::Duration),
        ("timestamp", Value::String(text)) => text.parse().ok().map(Value::Timestamp),
        ("timestamp", Value::Int(seconds)) => jiff::Timestamp::from_second(*seconds).ok().map(Value::Timestamp),
        ("string", value) => to_text(value).map(Value::text),
        _ => None,
    };
    let failed = || Fault::new(format!("type conversion error from '{}' to '{to}'", value.type_name()));
    converted.ok_or_else(failed)
}

/// The text of a value that has one.
pub(super) fn to_text(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(number) => number.to_string(),
        Value::Uint(number) => number.to_string(),
        Value::Double(number) => numbers::shortest(*number),
        Value::String(text) => text.clone().into_owned(),
        Value::Bytes(bytes) => std::str::from_utf8(bytes).ok()?.to_owned(),
        Value::Timestamp(time) => time.to_string(),
        Value::Duration(span) => {
            let nanos = span.as_nanos();
            let text = format!(
                "{}{}.{:09}",
                if nanos < 0 { "-" } else { "" },
                span.seconds().abs(),
                span.subsec_nanos().abs()
            );
            format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
        }
        Value::Ip(address) => address.to_string(),
        Value::Cidr(range) => range.to_string(),
        Value::Type(name) => (*name).to_owned(),
        _ => return None,
    })
}
