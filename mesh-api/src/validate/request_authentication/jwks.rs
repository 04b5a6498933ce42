//! A set of JSON Web Keys (RFC 7517), as far as it can be seen that each is a key.

use serde_json::{Map, Value};

/// What a key is good for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Key {
    /// Checking signatures.
    Public,
    /// Making them, too.
    Private,
}

/// The members that a key of each type must have, in base64 but for `crv`; with `d` it is private. A symmetric key always is.
const TYPES: [(&str, &[&str]); 4] =
    [("RSA", &["n", "e"]), ("EC", &["crv", "x", "y"]), ("OKP", &["crv", "x"]), ("oct", &["k"])];

/// Reads a set of keys, or a single one.
pub(super) fn parse(text: &str) -> Result<Vec<Key>, String> {
    let set: Map<String, Value> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match set.get("keys") {
        None => key(&set).map(|key| vec![key]),
        Some(Value::Array(keys)) => keys.iter().enumerate().map(|(index, value)| member(index, value)).collect(),
        Some(_) => Err("keys is not a list".to_owned()),
    }
}

fn member(index: usize, value: &Value) -> Result<Key, String> {
    let members = value.as_object().ok_or_else(|| format!("keys[{index}] is not an object"))?;
    key(members).map_err(|why| format!("keys[{index}]: {why}"))
}

fn key(members: &Map<String, Value>) -> Result<Key, String> {
    let text = |name: &str| members.get(name).and_then(Value::as_str).unwrap_or_default();
    let kind = text("kty");
    let known = TYPES.iter().find(|(name, _)| *name == kind);
    let (_, needed) = known.ok_or_else(|| format!("invalid key type {kind:?} in kty; write RSA, EC, OKP or oct"))?;
    for name in *needed {
        let value = text(name);
        if value.is_empty() {
            return Err(format!("a key of type {kind} needs {name}"));
        }
        if *name != "crv" && !is_base64(value) {
            return Err(format!("{name} is not base64"));
        }
    }
    Ok(if kind == "oct" || !text("d").is_empty() { Key::Private } else { Key::Public })
}

fn is_base64(text: &str) -> bool {
    let digits = text.trim_end_matches('=');
    digits.len() % 4 != 1 && digits.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_+/".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        use Key::*;
        for (text, keys) in [
            (r#"{"keys":[]}"#, Some(&[] as &[Key])),
            (
                r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"},{"kty":"RSA","n":"AQAB","e":"AQAB","d":"AQ"}]}"#,
                Some(&[Public, Private]),
            ),
            (r#"{"kty":"EC","crv":"P-256","x":"AQ","y":"AQ"}"#, Some(&[Public])),
            (r#"{"kty":"OKP","crv":"Ed25519","x":"AQ","d":"AQ"}"#, Some(&[Private])),
            (r#"{"kty":"oct","k":"AQ"}"#, Some(&[Private])),
            ("foo", None),
            ("[]", None),
            ("{}", None),
            (r#"{"keys":{}}"#, None),
            (r#"{"keys":[1]}"#, None),
            (r#"{"kty":"RSA","n":"AQAB"}"#, None),
            (r#"{"kty":"RSA","n":"?","e":"AQAB"}"#, None),
            (r#"{"kty":"XX"}"#, None),
        ] {
            assert_eq!(parse(text).ok().as_deref(), keys, "{text}");
        }
    }
}
