//! Functions of lists and sets.

use std::cmp::Ordering;

use super::operators::{compare, equal};
use super::value::List;
use super::{Fault, Value, operators};
use crate::types::Duration;

/// Longer ranges are no use to a rule.
const LONGEST_RANGE: i64 = 100_000;

pub(super) fn call<'a>(function: &str, args: &[Value<'a>]) -> Option<Result<Value<'a>, Fault>> {
    Some(match (function, args) {
        ("isSorted", [Value::List(list)]) => is_sorted(list).map(Value::Bool),
        ("sum", [Value::List(list)]) => sum(list),
        ("min", [Value::List(list)]) => extreme(list, "min", Ordering::Less),
        ("max", [Value::List(list)]) => extreme(list, "max", Ordering::Greater),
        ("indexOf", [Value::List(list), value]) => position(list, value, false),
        ("lastIndexOf", [Value::List(list), value]) => position(list, value, true),
        ("slice", [Value::List(list), Value::Int(from), Value::Int(to)]) => slice(list, *from, *to),
        ("flatten", [Value::List(list)]) => flatten(list, 1).map(Value::list),
        ("flatten", [Value::List(list), Value::Int(depth)]) => {
            if *depth < 0 {
                return Some(Err(Fault::new("level must be non-negative")));
            }
            flatten(list, *depth).map(Value::list)
        }
        ("distinct", [Value::List(list)]) => distinct(list).map(Value::list),
        ("reverse", [Value::List(list)]) => list.to_vec().map(|items| Value::list(items.into_iter().rev().collect())),
        ("sort", [Value::List(list)]) => {
            list.to_vec().and_then(|items| sort(items.into_iter().map(|item| (item.clone(), item)).collect()))
        }
        ("first", [Value::List(list)]) => at(list, Some(0)),
        ("last", [Value::List(list)]) => at(list, list.len().checked_sub(1)),
        ("lists.range", [Value::Int(end)]) if *end <= LONGEST_RANGE => {
            Ok(Value::list((0..*end).map(Value::Int).collect()))
        }
        ("sets.contains", [Value::List(all), Value::List(some)]) => is_subset(some, all).map(Value::Bool),
        ("sets.intersects", [Value::List(left), Value::List(right)]) => intersects(left, right).map(Value::Bool),
        ("sets.equivalent", [Value::List(left), Value::List(right)]) => {
            is_subset(left, right).and_then(|within| Ok(Value::Bool(within && is_subset(right, left)?)))
        }
        _ => return None,
    })
}

fn order(left: &Value<'_>, right: &Value<'_>) -> Result<Ordering, Fault> {
    Ok(compare(left, right)?.unwrap_or(Ordering::Equal))
}

fn is_sorted(list: &List<'_>) -> Result<bool, Fault> {
    let items = list.to_vec()?;
    for pair in items.windows(2) {
        if let [left, right] = pair
            && order(left, right)?.is_gt()
        {
            return Ok(false);
        }
    }
    Ok(true)
}

fn sum<'a>(list: &List<'a>) -> Result<Value<'a>, Fault> {
    let mut items = list.iter();
    let Some(first) = items.next() else { return Ok(Value::Int(0)) };
    let first = first?;
    let zero = match &first {
        Value::Uint(_) => Value::Uint(0),
        Value::Double(_) => Value::Double(0.0),
        Value::Duration(_) => Value::Duration(Duration::ZERO),
        _ => Value::Int(0),
    };
    let add = |sum: Value<'a>, item: &Value<'a>| operators::apply(super::ast::Operator::Add, &sum, item);
    items.try_fold(add(zero, &first)?, |sum, item| add(sum, &item?))
}

fn extreme<'a>(list: &List<'a>, name: &str, wanted: Ordering) -> Result<Value<'a>, Fault> {
    let mut best: Option<Value<'a>> = None;
    for item in list.iter() {
        let item = item?;
        let better = match &best {
            Some(best) => order(&item, best)? == wanted,
            None => true,
        };
        if better {
            best = Some(item);
        }
    }
    best.ok_or_else(|| Fault::new(format!("{name} called on empty list")))
}

fn position<'a>(list: &List<'a>, value: &Value<'a>, last: bool) -> Result<Value<'a>, Fault> {
    let mut found = -1;
    for (item, index) in list.iter().zip(0_i64..) {
        if equal(&item?, value)? {
            found = index;
            if !last {
                break;
            }
        }
    }
    Ok(Value::Int(found))
}

fn slice<'a>(list: &List<'a>, from: i64, to: i64) -> Result<Value<'a>, Fault> {
    let items = list.to_vec()?;
    let range = usize::try_from(from).ok().zip(usize::try_from(to).ok());
    let part = range.and_then(|(from, to)| items.get(from..to));
    let refused = || Fault::new(format!("cannot slice({from}, {to}), list is length {}", items.len()));
    part.map(|part| Value::list(part.to_vec())).ok_or_else(refused)
}

fn flatten<'a>(list: &List<'a>, depth: i64) -> Result<Vec<Value<'a>>, Fault> {
    let mut out = Vec::new();
    for item in list.iter() {
        match item? {
            Value::List(inner) if depth > 0 => out.extend(flatten(&inner, depth - 1)?),
            item => out.push(item),
        }
    }
    Ok(out)
}

fn distinct<'a>(list: &List<'a>) -> Result<Vec<Value<'a>>, Fault> {
    let mut out: Vec<Value<'a>> = Vec::new();
    for item in list.iter() {
        let item = item?;
        if !has(&out, &item)? {
            out.push(item);
        }
    }
    Ok(out)
}

fn has<'a>(items: &[Value<'a>], wanted: &Value<'a>) -> Result<bool, Fault> {
    for item in items {
        if equal(item, wanted)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The elements, ordered by the keys beside them.
pub(super) fn sort<'a>(mut keyed: Vec<(Value<'a>, Value<'a>)>) -> Result<Value<'a>, Fault> {
    let mut fault = None;
    keyed.sort_by(|(left, _), (right, _)| {
        order(left, right).unwrap_or_else(|error| {
            fault = Some(error);
            Ordering::Equal
        })
    });
    match fault {
        Some(fault) => Err(fault),
        None => Ok(Value::list(keyed.into_iter().map(|(_, item)| item).collect())),
    }
}

fn at<'a>(list: &List<'a>, index: Option<usize>) -> Result<Value<'a>, Fault> {
    Ok(match index.and_then(|index| list.get(index)).transpose()? {
        Some(item) => Value::some(item),
        None => Value::Optional(None),
    })
}

fn is_subset<'a>(some: &List<'a>, all: &List<'a>) -> Result<bool, Fault> {
    let all = all.to_vec()?;
    for item in some.iter() {
        if !has(&all, &item?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn intersects<'a>(left: &List<'a>, right: &List<'a>) -> Result<bool, Fault> {
    let right = right.to_vec()?;
    for item in left.iter() {
        if has(&right, &item?)? {
            return Ok(true);
        }
    }
    Ok(false)
}
