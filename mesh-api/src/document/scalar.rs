//! What a plain scalar means. Kubernetes reads YAML with Go's yaml.v2 rules, which are YAML 1.1's: `yes` and `on` are
//! booleans, `017` and `0o17` are fifteen, `1_000` is a thousand. A manifest must mean here what it means there.

use std::borrow::Cow;

use super::node::Value;

/// Resolves an unquoted, untagged scalar.
pub(super) fn plain(text: Cow<'_, str>) -> Value<'_> {
    let Some(&first) = text.as_bytes().first() else { return Value::Null };
    let known = match first {
        b'~' | b'n' | b'N' | b't' | b'T' | b'f' | b'F' | b'y' | b'Y' | b'o' | b'O' => word(&text),
        b'0'..=b'9' | b'+' | b'-' | b'.' => number(&text),
        _ => None,
    };
    known.unwrap_or(Value::String(text))
}

fn word(text: &str) -> Option<Value<'static>> {
    Some(match text {
        "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Value::Bool(false),
        _ => return None,
    })
}

/// A number in any of YAML 1.1's spellings; none when the text is no number.
pub(super) fn number(text: &str) -> Option<Value<'static>> {
    match text {
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Some(Value::Float(f64::INFINITY)),
        "-.inf" | "-.Inf" | "-.INF" => return Some(Value::Float(f64::NEG_INFINITY)),
        ".nan" | ".NaN" | ".NAN" => return Some(Value::Float(f64::NAN)),
        _ => {}
    }
    // Addresses, dates and versions are the common texts that begin with a digit: leave before copying anything.
    if !text
        .bytes()
        .all(|b| b.is_ascii_hexdigit() || matches!(b, b'_' | b'+' | b'-' | b'.' | b'x' | b'X' | b'o' | b'O'))
    {
        return None;
    }
    let cleaned = if text.contains('_') { Cow::Owned(text.replace('_', "")) } else { Cow::Borrowed(text) };
    whole(&cleaned).or_else(|| fraction(&cleaned))
}

fn whole(text: &str) -> Option<Value<'static>> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let lower = |prefix: &str| digits.get(..2).filter(|p| p.eq_ignore_ascii_case(prefix)).and_then(|_| digits.get(2..));
    let (radix, digits) = if let Some(hex) = lower("0x") {
        (16, hex)
    } else if let Some(octal) = lower("0o") {
        (8, octal)
    } else if let Some(binary) = lower("0b") {
        (2, binary)
    } else if digits.len() > 1 && digits.starts_with('0') {
        (8, digits.get(1..)?)
    } else {
        (10, digits)
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let value = i128::from(u64::from_str_radix(digits, radix).ok()?);
    let value = if negative { -value } else { value };
    if let Ok(small) = i64::try_from(value) {
        Some(Value::Int(small))
    } else {
        u64::try_from(value).ok().map(Value::Uint)
    }
}

fn fraction(text: &str) -> Option<Value<'static>> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let well_formed = digits(before)
        && digits(after)
        && !(before.is_empty() && after.is_empty())
        && exponent.is_none_or(|e| !e.is_empty() && digits(e));
    if !well_formed {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    // Kubernetes goes through JSON, where 5.0 is written 5 and so fits an integer field.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[allow(clippy::cast_possible_truncation)]
    Some(if value.fract() == 0.0 && value.abs() < EXACT { Value::Int(value as i64) } else { Value::Float(value) })
}

/// How Kubernetes spells a key that is not a string; none for what cannot be a key.
pub(super) fn key(value: Value<'_>) -> Option<Cow<'_, str>> {
    Some(match value {
        Value::String(text) => text,
        Value::Null => Cow::Borrowed("null"),
        Value::Bool(b) => Cow::Borrowed(if b { "true" } else { "false" }),
        Value::Int(i) => Cow::Owned(i.to_string()),
        Value::Uint(u) => Cow::Owned(u.to_string()),
        Value::Float(f) => Cow::Owned(f.to_string()),
        Value::Sequence(_) | Value::Mapping(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_kubernetes_reads() {
        for (text, want) in [
            ("", Value::Null),
            ("~", Value::Null),
            ("NULL", Value::Null),
            ("yes", Value::Bool(true)),
            ("Off", Value::Bool(false)),
            ("y", Value::Bool(true)),
            ("tRue", Value::String("tRue".into())),
            ("8080", Value::Int(8080)),
            ("-1", Value::Int(-1)),
            ("+1", Value::Int(1)),
            ("0", Value::Int(0)),
            ("0644", Value::Int(420)),
            ("0o17", Value::Int(15)),
            ("0x1F", Value::Int(31)),
            ("0b11", Value::Int(3)),
            ("1_000", Value::Int(1000)),
            ("089", Value::Int(89)),
            ("9223372036854775808", Value::Uint(9_223_372_036_854_775_808)),
            ("5.0", Value::Int(5)),
            ("1e3", Value::Int(1000)),
            ("1.5", Value::Float(1.5)),
            (".5", Value::Float(0.5)),
            (".inf", Value::Float(f64::INFINITY)),
            ("1.2.3.4", Value::String("1.2.3.4".into())),
            ("10s", Value::String("10s".into())),
            ("2026-01-01", Value::String("2026-01-01".into())),
            ("-", Value::String("-".into())),
            (".", Value::String(".".into())),
            ("1e", Value::String("1e".into())),
            ("deadbeef", Value::String("deadbeef".into())),
            ("0x", Value::String("0x".into())),
        ] {
            assert_eq!(plain(text.into()), want, "{text:?}");
        }
    }
}
