//! Functions of text. Positions count characters.

use regex::Regex;

use super::value::List;
use super::{Fault, Value, core};

pub(super) fn call<'a>(function: &str, args: &[Value<'a>]) -> Option<Result<Value<'a>, Fault>> {
    let (this, rest) = args.split_first()?;
    match this {
        Value::String(text) => of_text(function, text, rest),
        Value::List(list) if function == "join" => match rest {
            [] => Some(join(list, "")),
            [Value::String(separator)] => Some(join(list, separator)),
            _ => None,
        },
        _ => None,
    }
}

fn of_text<'a>(function: &str, text: &str, args: &[Value<'a>]) -> Option<Result<Value<'a>, Fault>> {
    let texts = |parts: Vec<&str>| Value::list(parts.into_iter().map(|part| Value::text(part.to_owned())).collect());
    let value = match (function, args) {
        ("contains", [Value::String(part)]) => Value::Bool(text.contains(part.as_ref())),
        ("startsWith", [Value::String(part)]) => Value::Bool(text.starts_with(part.as_ref())),
        ("endsWith", [Value::String(part)]) => Value::Bool(text.ends_with(part.as_ref())),
        ("matches", [Value::String(pattern)]) => {
            return Some(regex(pattern).map(|pattern| Value::Bool(pattern.is_match(text))));
        }
        ("find", [Value::String(pattern)]) => {
            let found = |pattern: Regex| pattern.find(text).map_or(String::new(), |found| found.as_str().to_owned());
            return Some(regex(pattern).map(|pattern| Value::text(found(pattern))));
        }
        ("findAll", [Value::String(pattern)]) => return Some(find_all(text, pattern, usize::MAX)),
        ("findAll", [Value::String(pattern), Value::Int(limit)]) => {
            return Some(find_all(text, pattern, usize::try_from(*limit).unwrap_or(usize::MAX)));
        }
        ("charAt", [Value::Int(index)]) => {
            let end = index.checked_add(1).filter(|end| *end <= length(text)).unwrap_or(*index);
            return Some(part(text, *index, end).map(Value::text));
        }
        ("indexOf", [Value::String(wanted)]) => Value::Int(index_of(text, wanted, 0)),
        ("indexOf", [Value::String(wanted), Value::Int(from)]) => {
            return Some(in_range(text, *from).map(|()| Value::Int(index_of(text, wanted, *from))));
        }
        ("lastIndexOf", [Value::String(wanted)]) => Value::Int(last_index_of(text, wanted, i64::MAX)),
        ("lastIndexOf", [Value::String(wanted), Value::Int(from)]) => {
            return Some(in_range(text, *from).map(|()| Value::Int(last_index_of(text, wanted, *from))));
        }
        ("lowerAscii", []) => Value::text(text.to_ascii_lowercase()),
        ("upperAscii", []) => Value::text(text.to_ascii_uppercase()),
        ("replace", [Value::String(old), Value::String(new)]) => Value::text(text.replace(old.as_ref(), new)),
        ("replace", [Value::String(old), Value::String(new), Value::Int(limit)]) => match usize::try_from(*limit) {
            Ok(limit) => Value::text(text.replacen(old.as_ref(), new, limit)),
            Err(_) => Value::text(text.replace(old.as_ref(), new)),
        },
        ("split", [Value::String(separator)]) => texts(split(text, separator, -1)),
        ("split", [Value::String(separator), Value::Int(limit)]) => texts(split(text, separator, *limit)),
        ("substring", [Value::Int(from)]) => return Some(part(text, *from, length(text)).map(Value::text)),
        ("substring", [Value::Int(from), Value::Int(to)]) => return Some(part(text, *from, *to).map(Value::text)),
        ("trim", []) => Value::text(text.trim().to_owned()),
        ("strings.quote", []) => Value::text(format!("{text:?}")),
        ("format", [Value::List(values)]) => return Some(format(text, values).map(Value::text)),
        _ => return None,
    };
    Some(Ok(value))
}

fn regex(pattern: &str) -> Result<Regex, Fault> {
    Regex::new(pattern).map_err(|_| Fault::new(format!("error parsing regexp: {pattern}")))
}

fn find_all<'a>(text: &str, pattern: &str, limit: usize) -> Result<Value<'a>, Fault> {
    let found =
        regex(pattern)?.find_iter(text).take(limit).map(|found| Value::text(found.as_str().to_owned())).collect();
    Ok(Value::list(found))
}

fn length(text: &str) -> i64 {
    i64::try_from(text.chars().count()).unwrap_or(i64::MAX)
}

fn in_range(text: &str, position: i64) -> Result<(), Fault> {
    if (0..=length(text)).contains(&position) {
        Ok(())
    } else {
        Err(Fault::new(format!("index out of range: {position}")))
    }
}

fn part(text: &str, from: i64, to: i64) -> Result<String, Fault> {
    if from > to {
        return Err(Fault::new(format!("invalid substring range. start: {from}, end: {to}")));
    }
    in_range(text, from)?;
    in_range(text, to)?;
    let (from, length) = (usize::try_from(from).unwrap_or(0), usize::try_from(to - from).unwrap_or(0));
    Ok(text.chars().skip(from).take(length).collect())
}

fn index_of(text: &str, wanted: &str, from: i64) -> i64 {
    let starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    let found = (0_i64..)
        .zip(starts)
        .find(|(index, at)| *index >= from && text.get(*at..).is_some_and(|rest| rest.starts_with(wanted)));
    found.map_or(-1, |(index, _)| index)
}

fn last_index_of(text: &str, wanted: &str, from: i64) -> i64 {
    let starts = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    let found = (0_i64..)
        .zip(starts)
        .filter(|(index, at)| *index <= from && text.get(*at..).is_some_and(|rest| rest.starts_with(wanted)));
    found.last().map_or(-1, |(index, _)| index)
}

fn split<'t>(text: &'t str, separator: &str, limit: i64) -> Vec<&'t str> {
    let parts = |limit: usize| -> Vec<&'t str> {
        if separator.is_empty() {
            // Rust has an empty part before the first and after the last character.
            let mut parts: Vec<&str> = text.splitn(limit.saturating_add(1), "").skip(1).collect();
            if parts.last().is_some_and(|last| last.is_empty()) {
                parts.pop();
            }
            return parts;
        }
        text.splitn(limit, separator).collect()
    };
    match usize::try_from(limit) {
        Ok(0) => Vec::new(),
        Ok(limit) => parts(limit),
        Err(_) => parts(usize::MAX),
    }
}

fn join<'a>(list: &List<'a>, separator: &str) -> Result<Value<'a>, Fault> {
    let mut out = String::new();
    for (index, item) in list.iter().enumerate() {
        let Value::String(text) = item? else { return Err(Fault::no_overload()) };
        if index > 0 {
            out.push_str(separator);
        }
        out.push_str(&text);
    }
    Ok(Value::text(out))
}

/// Fills the places of a format: `%s`, `%d`, `%f`, `%e`, `%b`, `%o`, `%x`, `%X`, with a precision such as `%.3f`.
fn format(text: &str, values: &List<'_>) -> Result<String, Fault> {
    let mut values = values.iter();
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let end =
            after.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(|| Fault::new("unexpected end of string"))?;
        let (precision, after) = after.split_at_checked(end).unwrap_or_default();
        let mut chars = after.chars();
        let clause = chars.next().unwrap_or_default();
        let precision = match precision.strip_prefix('.') {
            Some(digits) => digits.parse().ok().filter(|digits: &usize| *digits <= 1000),
            None => Some(6),
        };
        let missing = || Fault::new("index out of range");
        let value = values.next().ok_or_else(missing)??;
        let bad = || Fault::new(format!("could not parse formatting clause: {clause}"));
        out.push_str(&clause_of(clause, precision.ok_or_else(bad)?, &value).ok_or_else(bad)?);
        rest = chars.as_str();
    }
    out.push_str(rest);
    Ok(out)
}

fn clause_of(clause: char, precision: usize, value: &Value<'_>) -> Option<String> {
    let float = match value {
        Value::Double(number) => Some(*number),
        Value::Int(number) => Some(*number as f64),
        _ => None,
    };
    Some(match (clause, value) {
        ('s', Value::List(list)) => {
            let items: Option<Vec<String>> = list.iter().map(|item| clause_of('s', precision, &item.ok()?)).collect();
            format!("[{}]", items?.join(", "))
        }
        ('s', Value::Null) => "null".to_owned(),
        ('s', value) => core::to_text(value)?,
        ('d', Value::Int(number)) => number.to_string(),
        ('d', Value::Uint(number)) => number.to_string(),
        ('f', _) => format!("{:.precision$}", float?),
        ('e', _) => format!("{:.precision$e}", float?),
        ('b', Value::Int(number)) => format!("{number:b}"),
        ('b', Value::Bool(value)) => u8::from(*value).to_string(),
        ('o', Value::Int(number)) => format!("{number:o}"),
        ('x', Value::Int(number)) => format!("{number:x}"),
        ('X', Value::Int(number)) => format!("{number:X}"),
        ('x', Value::String(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
        ('X', Value::String(text)) => text.bytes().map(|byte| format!("{byte:02X}")).collect(),
        _ => return None,
    })
}
