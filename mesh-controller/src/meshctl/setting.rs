//! The flag `--set PATH=VALUE`.

use serde_json::{Map, Value};

/// Reads `a.b.c=value`; the value is true, false, null, a number, or else text, as with Helm.
pub(super) fn setting(text: &str) -> Result<(String, Value), String> {
    let (path, value) = text.split_once('=').filter(|(path, _)| !path.is_empty()).ok_or("write PATH=VALUE")?;
    let scalar = serde_json::from_str::<Value>(value).ok().filter(|value| !value.is_array() && !value.is_object());
    Ok((path.to_owned(), scalar.unwrap_or_else(|| Value::from(value))))
}

/// Sets a value by its path, making the mappings on the way.
pub(super) fn set(values: &mut Value, path: &str, value: Value) {
    let mut at = values;
    for key in path.split('.') {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Value::Object(fields) = at else { return };
        at = fields.entry(key).or_insert(Value::Null);
    }
    *at = value;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_set_by_path() {
        let mut values = json!({"a": {"b": 1}, "c": "text"});
        for text in ["a.x=true", "c.d=1.5.2", "e=7", "f="] {
            let (path, value) = setting(text).unwrap();
            set(&mut values, &path, value);
        }
        assert_eq!(values, json!({"a": {"b": 1, "x": true}, "c": {"d": "1.5.2"}, "e": 7, "f": ""}));
        assert!(setting("a").is_err() && setting("=a").is_err());
    }
}
