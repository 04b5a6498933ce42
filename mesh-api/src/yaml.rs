//! JSON values as YAML text, for people. Only writes; [`document`](crate::document) reads.
//!
//! What could be read as anything but the same string, by YAML 1.1 or 1.2, is quoted.

use serde_json::Value;

/// The value as a block of YAML that ends with a newline.
///
/// ```
/// let value = serde_json::json!({"hosts": ["reviews"], "timeout": "2s"});
/// assert_eq!(mesh_api::yaml::to_string(&value), "hosts:\n- reviews\ntimeout: \"2s\"\n");
/// ```
pub fn to_string(value: &Value) -> String {
    let mut out = String::new();
    if is_block(value) {
        block(&mut out, value, 0);
    } else {
        out.push_str(&scalar(value));
        out.push('\n');
    }
    out
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => false,
    }
}

fn block(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(fields) => {
            for (index, (key, value)) in fields.iter().enumerate() {
                if index > 0 {
                    pad(out, indent);
                }
                out.push_str(&string(key));
                out.push(':');
                after_key(out, value, indent);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    pad(out, indent);
                }
                out.push_str("- ");
                if is_block(item) {
                    block(out, item, indent + 2);
                } else {
                    out.push_str(&scalar(item));
                    out.push('\n');
                }
            }
        }
        _ => {}
    }
}

fn after_key(out: &mut String, value: &Value, indent: usize) {
    if !is_block(value) {
        out.push(' ');
        out.push_str(&scalar(value));
        out.push('\n');
        return;
    }
    out.push('\n');
    // Lists stand under their key, as kubectl writes them.
    let indent = if value.is_array() { indent } else { indent + 2 };
    pad(out, indent);
    block(out, value, indent);
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        other => other.to_string(),
    }
}

fn string(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { Value::from(text).to_string() }
}

fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 9] = ["y", "n", "yes", "no", "true", "false", "on", "off", "null"];
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/' || c == '_');
    let safe = |c: char| c.is_ascii_alphanumeric() || "_./@+-|:=".contains(c);
    begins
        && text.chars().all(safe)
        && !text.ends_with(':')
        && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn it_looks_as_kubectl_writes_it() {
        let value =
            json!({"a": {"b": [1, {"c": "outbound|80||a.b", "d": []}], "e": "yes"}, "f": [[1], "x: y"], "g": {}});
        let want = "a:\n  b:\n  - 1\n  - c: outbound|80||a.b\n    d: []\n  e: \"yes\"\nf:\n- - 1\n- \"x: y\"\ng: {}\n";
        assert_eq!(to_string(&value), want);
    }

    fn values() -> impl Strategy<Value = Value> {
        let text = prop_oneof!["[ -~]{0,8}", "[a-z0-9:.]{0,6}", "\\PC{0,4}", "(y|No|null|0x1|1e3|~|-|a\n b|---)"];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[ -~]{1,5}", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_reads_back_as_the_same(value in values()) {
            let value = json!({"root": value});
            let text = to_string(&value);
            let read = crate::document::raw(&"test".into(), &text);
            let read = read.first().expect("one document").as_ref().expect(&text).node.to_json();
            prop_assert_eq!(read, value, "{}", text);
        }
    }
}
