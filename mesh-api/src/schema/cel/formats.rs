//! The library `format`: `format.dns1123Label().validate("name")` is none, or a list of what is wrong.

use super::{Fault, Value};
use crate::schema::formats::complaint;

const NAMES: &[&str] = &[
    "dns1123Label",
    "dns1123Subdomain",
    "dns1035Label",
    "qualifiedName",
    "dns1123LabelPrefix",
    "dns1123SubdomainPrefix",
    "dns1035LabelPrefix",
    "labelValue",
    "uri",
    "uuid",
    "byte",
    "date",
    "datetime",
];

pub(super) fn call<'a>(function: &str, args: &[Value<'a>]) -> Option<Result<Value<'a>, Fault>> {
    let named = |wanted: &str| NAMES.iter().find(|name| **name == wanted).map(|name| Value::Format(name));
    let value = match (function, args) {
        ("format.named", [Value::String(name)]) => named(name).map_or(Value::Optional(None), Value::some),
        ("validate", [Value::Format(format), Value::String(text)]) => match complaint(format, text) {
            None => Value::Optional(None),
            Some(complaint) => Value::some(Value::list(vec![Value::text(complaint)])),
        },
        (_, []) => named(function.strip_prefix("format.")?)?,
        _ => return None,
    };
    Some(Ok(value))
}
