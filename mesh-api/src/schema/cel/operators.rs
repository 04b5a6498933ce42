//! Operators of two values, and what they share with functions: equality and order.

use std::cmp::Ordering;
use std::sync::Arc;

use jiff::SignedDuration;

use super::ast::Operator;
use super::{Fault, Value};
use crate::types::Duration;

pub(super) fn apply<'a>(operator: Operator, left: &Value<'a>, right: &Value<'a>) -> Result<Value<'a>, Fault> {
    let ordered = |fits: fn(Ordering) -> bool| match compare(left, right)? {
        // NaN is neither less nor greater.
        None => Ok(Value::Bool(false)),
        Some(order) => Ok(Value::Bool(fits(order))),
    };
    match operator {
        Operator::Equal => equal(left, right).map(Value::Bool),
        Operator::NotEqual => equal(left, right).map(|equal| Value::Bool(!equal)),
        Operator::Less => ordered(Ordering::is_lt),
        Operator::LessOrEqual => ordered(Ordering::is_le),
        Operator::Greater => ordered(Ordering::is_gt),
        Operator::GreaterOrEqual => ordered(Ordering::is_ge),
        Operator::In => contains(right, left).map(Value::Bool),
        Operator::Add | Operator::Subtract => {
            sum(operator, left, right).unwrap_or_else(|| arithmetic(operator, left, right))
        }
        Operator::Multiply | Operator::Divide | Operator::Remainder => arithmetic(operator, left, right),
    }
}

fn overflow(what: &str) -> Fault {
    Fault::new(format!("{what} overflow"))
}

/// Numbers.
fn arithmetic<'a>(operator: Operator, left: &Value<'a>, right: &Value<'a>) -> Result<Value<'a>, Fault> {
    let by_zero = || Fault::new(if operator == Operator::Remainder { "modulus by zero" } else { "division by zero" });
    let divides = matches!(operator, Operator::Divide | Operator::Remainder);
    match (left, right) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) if divides => Err(by_zero()),
        (Value::Int(left), Value::Int(right)) => match operator {
            Operator::Add => left.checked_add(*right),
            Operator::Subtract => left.checked_sub(*right),
            Operator::Multiply => left.checked_mul(*right),
            Operator::Divide => left.checked_div(*right),
            _ => left.checked_rem(*right),
        }
        .map(Value::Int)
        .ok_or_else(|| overflow("integer")),
        (Value::Uint(left), Value::Uint(right)) => match operator {
            Operator::Add => left.checked_add(*right),
            Operator::Subtract => left.checked_sub(*right),
            Operator::Multiply => left.checked_mul(*right),
            Operator::Divide => left.checked_div(*right),
            _ => left.checked_rem(*right),
        }
        .map(Value::Uint)
        .ok_or_else(|| overflow("unsigned integer")),
        (Value::Double(left), Value::Double(right)) => match operator {
            Operator::Add => Ok(left + right),
            Operator::Subtract => Ok(left - right),
            Operator::Multiply => Ok(left * right),
            Operator::Divide => Ok(left / right),
            _ => Err(Fault::no_overload()),
        }
        .map(Value::Double),
        _ => Err(Fault::no_overload()),
    }
}

/// Sums and differences of what is no number.
fn sum<'a>(operator: Operator, left: &Value<'a>, right: &Value<'a>) -> Option<Result<Value<'a>, Fault>> {
    let add = operator == Operator::Add;
    Some(Ok(match (left, right) {
        (Value::String(left), Value::String(right)) if add => Value::text(format!("{left}{right}")),
        (Value::Bytes(left), Value::Bytes(right)) if add => {
            Value::Bytes(Arc::from_iter(left.iter().chain(right.iter()).copied()))
        }
        (Value::List(left), Value::List(right)) if add => {
            let both = left.iter().chain(right.iter()).collect::<Result<_, _>>();
            return Some(both.map(Value::list));
        }
        (Value::Duration(left), Value::Duration(right)) => {
            let (left, right) = (left.as_nanos(), right.as_nanos());
            let sum = if add { left.checked_add(right) } else { left.checked_sub(right) };
            return Some(sum.map(|sum| Value::Duration(Duration::from_nanos(sum))).ok_or_else(|| overflow("duration")));
        }
        (Value::Timestamp(left), Value::Timestamp(right)) if !add => {
            let nanos = i64::try_from(left.duration_since(*right).as_nanos());
            return Some(nanos.map(|n| Value::Duration(Duration::from_nanos(n))).map_err(|_| overflow("duration")));
        }
        (Value::Timestamp(time), Value::Duration(span)) => {
            let span = SignedDuration::from_nanos(span.as_nanos());
            let moved = if add { time.checked_add(span) } else { time.checked_sub(span) };
            return Some(moved.map(Value::Timestamp).map_err(|_| overflow("timestamp")));
        }
        (Value::Duration(_), Value::Timestamp(_)) if add => return sum(operator, right, left),
        _ => return None,
    }))
}

pub(super) fn negate<'a>(value: &Value<'a>) -> Result<Value<'a>, Fault> {
    match value {
        // The literal 9223372036854775808 is read as this number, for its sign.
        Value::Int(i64::MIN) => Ok(Value::Int(i64::MIN)),
        Value::Int(number) => number.checked_neg().map(Value::Int).ok_or_else(|| overflow("integer")),
        Value::Double(number) => Ok(Value::Double(-number)),
        Value::Duration(span) => Ok(Value::Duration(Duration::from_nanos(span.as_nanos().saturating_neg()))),
        _ => Err(Fault::no_overload()),
    }
}

fn contains<'a>(of: &Value<'a>, value: &Value<'a>) -> Result<bool, Fault> {
    match of {
        Value::List(list) => {
            for item in list.iter() {
                if equal(&item?, value)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Map(map) => Ok(value.to_key().is_some_and(|key| map.get(&key).is_some())),
        _ => Err(Fault::no_overload()),
    }
}

/// Whether two values are the same. Values of different types aren't, but for numbers.
pub(super) fn equal<'a>(left: &Value<'a>, right: &Value<'a>) -> Result<bool, Fault> {
    Ok(match (left, right) {
        (Value::Null, Value::Null) => true,
        (Value::List(left), Value::List(right)) => {
            if left.len() != right.len() {
                return Ok(false);
            }
            for (left, right) in left.iter().zip(right.iter()) {
                if !equal(&left?, &right?)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Map(left), Value::Map(right)) => {
            if left.len() != right.len() {
                return Ok(false);
            }
            for key in left.keys() {
                match (left.get(&key).transpose()?, right.get(&key).transpose()?) {
                    (Some(left), Some(right)) if equal(&left, &right)? => {}
                    (None, None) => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        (Value::Optional(left), Value::Optional(right)) => match (left, right) {
            (None, None) => true,
            (Some(left), Some(right)) => equal(left, right)?,
            _ => false,
        },
        (Value::Type(left), Value::Type(right)) | (Value::Format(left), Value::Format(right)) => left == right,
        (Value::Url(left), Value::Url(right)) => left == right,
        (Value::Ip(left), Value::Ip(right)) => left == right,
        (Value::Cidr(left), Value::Cidr(right)) => left == right,
        (Value::Quantity(left), Value::Quantity(right)) => left == right,
        (Value::Semver(left), Value::Semver(right)) => left == right,
        (Value::Unknown(left), Value::Unknown(right)) => left == right,
        (left, right) => compare(left, right).is_ok_and(|order| order == Some(Ordering::Equal)),
    })
}

/// The order of two values; none for what is no number.
pub(super) fn compare(left: &Value<'_>, right: &Value<'_>) -> Result<Option<Ordering>, Fault> {
    if let (Some(left), Some(right)) = (whole(left), whole(right)) {
        return Ok(Some(left.cmp(&right)));
    }
    if let (Some(left), Some(right)) = (number(left), number(right)) {
        return Ok(left.partial_cmp(&right));
    }
    Ok(Some(match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => left.cmp(right),
        (Value::String(left), Value::String(right)) => left.cmp(right),
        (Value::Bytes(left), Value::Bytes(right)) => left.cmp(right),
        (Value::Duration(left), Value::Duration(right)) => left.cmp(right),
        (Value::Timestamp(left), Value::Timestamp(right)) => left.cmp(right),
        _ => return Err(Fault::no_overload()),
    }))
}

fn whole(value: &Value<'_>) -> Option<i128> {
    match value {
        Value::Int(number) => Some((*number).into()),
        Value::Uint(number) => Some((*number).into()),
        _ => None,
    }
}

fn number(value: &Value<'_>) -> Option<f64> {
    match value {
        Value::Double(number) => Some(*number),
        _ => whole(value).map(|number| number as f64),
    }
}
