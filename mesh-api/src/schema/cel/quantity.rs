//! Quantities of Kubernetes: `1.5Gi`, `200m`, `12e6`. Kept in billionths, as an apiserver does.

use std::cmp::Ordering;

use super::{Fault, Value};

/// A quantity in billionths. Finer parts are rounded up, away from zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Quantity(i128);

const BILLION: i128 = 1_000_000_000;

pub(super) fn call<'a>(function: &str, args: &[Value<'a>]) -> Option<Result<Value<'a>, Fault>> {
    let too_large = || Fault::new("quantity overflow");
    let value = match (function, args) {
        ("quantity", [Value::String(text)]) => {
            let bad = || {
                Fault::new(format!(
                    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$': {text}"
                ))
            };
            return Some(parse(text).map(Value::Quantity).ok_or_else(bad));
        }
        ("isQuantity", [Value::String(text)]) => Value::Bool(parse(text).is_some()),
        ("isInteger", [Value::Quantity(quantity)]) => Value::Bool(quantity.whole().is_some()),
        ("asInteger", [Value::Quantity(quantity)]) => {
            let refused = || Fault::new("cannot convert value to integer");
            return Some(quantity.whole().map(Value::Int).ok_or_else(refused));
        }
        ("asApproximateFloat", [Value::Quantity(quantity)]) => Value::Double(quantity.0 as f64 / BILLION as f64),
        ("sign", [Value::Quantity(quantity)]) => Value::Int(match quantity.0.cmp(&0) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        }),
        ("isGreaterThan", [Value::Quantity(left), Value::Quantity(right)]) => Value::Bool(left > right),
        ("isLessThan", [Value::Quantity(left), Value::Quantity(right)]) => Value::Bool(left < right),
        ("compareTo", [Value::Quantity(left), Value::Quantity(right)]) => Value::Int(left.cmp(right) as i64),
        ("add", [Value::Quantity(left), other]) => {
            return Some(
                left.0.checked_add(operand(other)?).map(|sum| Value::Quantity(Quantity(sum))).ok_or_else(too_large),
            );
        }
        ("sub", [Value::Quantity(left), other]) => {
            return Some(
                left.0.checked_sub(operand(other)?).map(|sum| Value::Quantity(Quantity(sum))).ok_or_else(too_large),
            );
        }
        _ => return None,
    };
    Some(Ok(value))
}

fn operand(value: &Value<'_>) -> Option<i128> {
    match value {
        Value::Quantity(quantity) => Some(quantity.0),
        Value::Int(number) => Some(i128::from(*number) * BILLION),
        _ => None,
    }
}

impl Quantity {
    fn whole(self) -> Option<i64> {
        if self.0 % BILLION == 0 { i64::try_from(self.0 / BILLION).ok() } else { None }
    }
}

fn parse(text: &str) -> Option<Quantity> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
    let (number, suffix) = rest.split_at_checked(end)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let (factor, tens) = scale(suffix)?;
    // The value is digits * factor * 10^tens; it is kept in billionths.
    let exponent = tens - i32::try_from(fraction.len()).ok()? + 9;
    let scaled = digits.checked_mul(factor)?;
    let size = 10_i128.checked_pow(exponent.unsigned_abs());
    let billionths = match size {
        Some(size) if exponent >= 0 => scaled.checked_mul(size)?,
        Some(size) => scaled / size + i128::from(scaled % size != 0),
        None if exponent < 0 => i128::from(scaled != 0),
        None => return None,
    };
    Some(Quantity(if negative { -billionths } else { billionths }))
}

/// What a suffix stands for: a factor and a power of ten.
fn scale(suffix: &str) -> Option<(i128, i32)> {
    if let Some(exponent) = suffix.strip_prefix(['e', 'E'])
        && !exponent.is_empty()
    {
        return exponent.parse().ok().map(|exponent| (1, exponent));
    }
    Some(match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        _ => return None,
    })
}
