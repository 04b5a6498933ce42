//! Semantic versions.

use std::cmp::Ordering;

use super::{Fault, Value};

/// A version by semver.org; what it was built from is not compared and not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Semver {
    numbers: [u64; 3],
    pre_release: Vec<String>,
}

pub(super) fn call<'a>(function: &str, args: &[Value<'a>]) -> Option<Result<Value<'a>, Fault>> {
    let value = match (function, args) {
        ("semver", [Value::String(text)]) => return Some(read(text, false)),
        ("semver", [Value::String(text), Value::Bool(lenient)]) => return Some(read(text, *lenient)),
        ("isSemver", [Value::String(text)]) => Value::Bool(read(text, false).is_ok()),
        ("isSemver", [Value::String(text), Value::Bool(lenient)]) => Value::Bool(read(text, *lenient).is_ok()),
        ("major" | "minor" | "patch", [Value::Semver(version)]) => {
            let [major, minor, patch] = version.numbers;
            let number = match function {
                "major" => major,
                "minor" => minor,
                _ => patch,
            };
            Value::Int(i64::try_from(number).ok()?)
        }
        ("isGreaterThan", [Value::Semver(left), Value::Semver(right)]) => Value::Bool(left.order(right).is_gt()),
        ("isLessThan", [Value::Semver(left), Value::Semver(right)]) => Value::Bool(left.order(right).is_lt()),
        ("compareTo", [Value::Semver(left), Value::Semver(right)]) => Value::Int(left.order(right) as i64),
        _ => return None,
    };
    Some(Ok(value))
}

fn read<'a>(text: &str, lenient: bool) -> Result<Value<'a>, Fault> {
    let bad = || Fault::new(format!("Semver parse error during conversion from string: {text}"));
    parse(text, lenient).map(Value::Semver).ok_or_else(bad)
}

fn parse(text: &str, lenient: bool) -> Option<Semver> {
    let text = if lenient { text.strip_prefix('v').unwrap_or(text) } else { text };
    let (version, build) = text.split_once('+').map_or((text, None), |(version, build)| (version, Some(build)));
    let (core, pre_release) = version.split_once('-').map_or((version, None), |(core, pre)| (core, Some(pre)));
    let identifier = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if build.is_some_and(|build| !build.split('.').all(identifier)) {
        return None;
    }
    let mut parts: Vec<&str> = core.split('.').collect();
    while lenient && parts.len() < 3 {
        parts.push("0");
    }
    let number = |part: &str| {
        let plain = part.bytes().all(|b| b.is_ascii_digit()) && (lenient || part == "0" || !part.starts_with('0'));
        if plain { part.parse::<u64>().ok() } else { None }
    };
    let numbers: Vec<u64> = parts.into_iter().map(number).collect::<Option<_>>()?;
    let pre_release: Vec<String> = pre_release.into_iter().flat_map(|pre| pre.split('.')).map(str::to_owned).collect();
    let fits = |part: &String| identifier(part) && (!is_number(part) || part == "0" || !part.starts_with('0'));
    if !pre_release.iter().all(fits) {
        return None;
    }
    Some(Semver { numbers: numbers.try_into().ok()?, pre_release })
}

fn is_number(part: &str) -> bool {
    part.bytes().all(|byte| byte.is_ascii_digit())
}

impl Semver {
    fn order(&self, other: &Self) -> Ordering {
        // A version comes after its pre-releases.
        let released = self.pre_release.is_empty().cmp(&other.pre_release.is_empty());
        let parts = self.pre_release.iter().zip(&other.pre_release).map(|(left, right)| {
            match (left.parse::<u64>(), right.parse::<u64>()) {
                (Ok(left), Ok(right)) => left.cmp(&right),
                (Ok(_), Err(_)) => Ordering::Less,
                (Err(_), Ok(_)) => Ordering::Greater,
                (Err(_), Err(_)) => left.cmp(right),
            }
        });
        self.numbers
            .cmp(&other.numbers)
            .then(released)
            .then(parts.fold(Ordering::Equal, Ordering::then))
            .then(self.pre_release.len().cmp(&other.pre_release.len()))
    }
}
