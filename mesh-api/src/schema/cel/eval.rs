//! Evaluation: a walk through the tree that spends from a budget.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::ast::{Access, Each, Expr, Fold, Kind};
use super::value::{Key, Map};
use super::{Fault, Value, addresses, collections, core, formats, operators, quantity, semver, text, time, url};

/// What evaluation may cost: for one expression and for all of an object, as an apiserver limits them. A step costs one,
/// reading ten characters or elements one more.
#[derive(Debug)]
pub(crate) struct Budget {
    object: Cell<u64>,
    expression: Cell<u64>,
}

const PER_OBJECT: u64 = 10_000_000;
const PER_EXPRESSION: u64 = 1_000_000;

impl Default for Budget {
    fn default() -> Self {
        Self { object: Cell::new(PER_OBJECT), expression: Cell::new(PER_EXPRESSION) }
    }
}

impl Budget {
    /// True when the object has used up all it may cost.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.object.get() == 0
    }

    fn spend(&self, cost: u64) -> Result<(), Fault> {
        for part in [&self.object, &self.expression] {
            part.set(part.get().saturating_sub(cost));
            if part.get() == 0 {
                return Err(Fault::cancelled());
            }
        }
        Ok(())
    }
}

pub(super) fn evaluate<'a>(root: &'a Expr, this: Value<'a>, budget: &Budget) -> Result<Value<'a>, Fault> {
    budget.expression.set(PER_EXPRESSION);
    let scope = Scope { outer: None, name: "self", value: this };
    Evaluation { budget }.value(root, &scope)
}

/// A variable, and those around it.
struct Scope<'s, 'a> {
    outer: Option<&'s Scope<'s, 'a>>,
    name: &'a str,
    value: Value<'a>,
}

impl<'a> Scope<'_, 'a> {
    fn find(&self, name: &str) -> Option<Value<'a>> {
        if self.name == name { Some(self.value.clone()) } else { self.outer?.find(name) }
    }
}

struct Evaluation<'b> {
    budget: &'b Budget,
}

type Evaluated<'a> = Result<Value<'a>, Fault>;

impl Evaluation<'_> {
    fn value<'a>(&self, expr: &'a Expr, scope: &Scope<'_, 'a>) -> Evaluated<'a> {
        self.budget.spend(1)?;
        match &expr.kind {
            Kind::Literal(value) => Ok(value.clone()),
            Kind::Variable(name) => scope
                .find(name)
                .or_else(|| core::named_type(name))
                .ok_or_else(|| Fault::new(format!("undeclared reference to '{name}' (in container '')"))),
            Kind::Select { of, field, mode } => access(&self.value(of, scope)?, &Value::text(field.as_str()), *mode),
            Kind::Index { of, at, mode } => access(&self.value(of, scope)?, &self.value(at, scope)?, *mode),
            Kind::Call { function, args } => {
                let args: Vec<Value<'a>> = args.iter().map(|arg| self.value(arg, scope)).collect::<Result<_, _>>()?;
                self.budget.spend(args.iter().map(weight).sum())?;
                call(function, &args)
            }
            Kind::Matches { text, pattern } => {
                let text = self.value(text, scope)?;
                self.budget.spend(weight(&text))?;
                match text {
                    Value::String(text) => Ok(Value::Bool(pattern.is_match(&text))),
                    _ => Err(Fault::no_overload()),
                }
            }
            Kind::Not(of) => Ok(Value::Bool(!self.truth(of, scope)?)),
            Kind::Negate(of) => operators::negate(&self.value(of, scope)?),
            Kind::Binary { operator, left, right } => {
                let (left, right) = (self.value(left, scope)?, self.value(right, scope)?);
                self.budget.spend(weight(&left) + weight(&right))?;
                operators::apply(*operator, &left, &right)
            }
            Kind::All(conditions) => {
                settle(false, conditions.iter().map(|condition| self.truth(condition, scope))).map(Value::Bool)
            }
            Kind::Any(alternatives) => {
                settle(true, alternatives.iter().map(|alternative| self.truth(alternative, scope))).map(Value::Bool)
            }
            Kind::Choose { condition, yes, no } => {
                let chosen = if self.truth(condition, scope)? { yes } else { no };
                self.value(chosen, scope)
            }
            Kind::List(items) => {
                let items = items.iter().map(|(item, optional)| unwrap(self.value(item, scope)?, *optional));
                Ok(Value::list(items.filter_map(Result::transpose).collect::<Result<_, _>>()?))
            }
            Kind::Map(entries) => {
                let mut out = BTreeMap::new();
                for (key, value, optional) in entries {
                    let key = key_of(&self.value(key, scope)?)?;
                    if let Some(value) = unwrap(self.value(value, scope)?, *optional)? {
                        insert(&mut out, key, value)?;
                    }
                }
                Ok(Value::Map(Map::Made(Arc::new(out))))
            }
            Kind::Each(each) => self.each(each, scope),
            Kind::IfPresent { of, name, body, flat } => match self.value(of, scope)? {
                Value::Optional(None) => Ok(Value::Optional(None)),
                Value::Optional(Some(value)) => {
                    let inner = Scope { outer: Some(scope), name, value: value.as_ref().clone() };
                    let value = self.value(body, &inner)?;
                    Ok(if *flat { value } else { Value::some(value) })
                }
                _ => Err(Fault::no_overload()),
            },
        }
    }

    fn truth<'a>(&self, expr: &'a Expr, scope: &Scope<'_, 'a>) -> Result<bool, Fault> {
        match self.value(expr, scope)? {
            Value::Bool(truth) => Ok(truth),
            _ => Err(Fault::no_overload()),
        }
    }

    fn each<'a>(&self, each: &'a Each, scope: &Scope<'_, 'a>) -> Evaluated<'a> {
        let over = self.value(&each.over, scope)?;
        self.budget.spend(10 * weight(&over))?;
        let steps = steps(&over, each.second.is_some())?;
        // Evaluates for one element, unless the filter passes it over.
        let with = |expr: &'a Expr, (first, second): &(Value<'a>, Option<Value<'a>>)| {
            let outer = Scope { outer: Some(scope), name: &each.first, value: first.clone() };
            match (&each.second, second) {
                (Some(name), Some(value)) => {
                    self.value(expr, &Scope { outer: Some(&outer), name, value: value.clone() })
                }
                _ => self.value(expr, &outer),
            }
        };
        let truth = |expr: &'a Expr, step: &(Value<'a>, Option<Value<'a>>)| match with(expr, step)? {
            Value::Bool(truth) => Ok(truth),
            _ => Err(Fault::no_overload()),
        };
        match each.fold {
            Fold::All => return settle(false, steps.iter().map(|step| truth(&each.body, step))).map(Value::Bool),
            Fold::Exists => return settle(true, steps.iter().map(|step| truth(&each.body, step))).map(Value::Bool),
            Fold::ExistsOne => {
                let found: Vec<bool> = steps.iter().map(|step| truth(&each.body, step)).collect::<Result<_, _>>()?;
                return Ok(Value::Bool(found.into_iter().filter(|found| *found).count() == 1));
            }
            Fold::List | Fold::Map | Fold::MapEntries | Fold::SortBy => {}
        }
        let mut values = Vec::new();
        for step in steps {
            let wanted = each.filter.as_ref().map_or(Ok(true), |filter| truth(filter, &step))?;
            if wanted {
                values.push((with(&each.body, &step)?, step.0));
            }
        }
        match each.fold {
            Fold::SortBy => collections::sort(values),
            Fold::Map => made(values.into_iter().map(|(value, key)| Ok((key_of(&key)?, value)))),
            Fold::MapEntries => made(values.iter().flat_map(|(value, _)| entries(value))),
            _ => Ok(Value::list(values.into_iter().map(|(value, _)| value).collect())),
        }
    }
}

/// What the variables of a walk are, step by step.
fn steps<'a>(over: &Value<'a>, two: bool) -> Result<Vec<(Value<'a>, Option<Value<'a>>)>, Fault> {
    match over {
        Value::List(list) => list
            .iter()
            .zip(0_i64..)
            .map(|(item, index)| Ok(if two { (Value::Int(index), Some(item?)) } else { (item?, None) }))
            .collect(),
        Value::Map(map) => map
            .keys()
            .iter()
            .map(|key| Ok((key.to_value(), if two { map.get(key).transpose()? } else { None })))
            .collect(),
        _ => Err(Fault::no_overload()),
    }
}

fn made<'a>(entries: impl Iterator<Item = Result<(Key, Value<'a>), Fault>>) -> Evaluated<'a> {
    let mut out = BTreeMap::new();
    for entry in entries {
        let (key, value) = entry?;
        insert(&mut out, key, value)?;
    }
    Ok(Value::Map(Map::Made(Arc::new(out))))
}

fn entries<'a>(value: &Value<'a>) -> Vec<Result<(Key, Value<'a>), Fault>> {
    match value {
        Value::Map(map) => {
            map.keys().into_iter().filter_map(|key| Some(map.get(&key)?.map(|value| (key, value)))).collect()
        }
        _ => vec![Err(Fault::no_overload())],
    }
}

fn insert<'a>(map: &mut BTreeMap<Key, Value<'a>>, key: Key, value: Value<'a>) -> Result<(), Fault> {
    match map.insert(key, value) {
        None => Ok(()),
        Some(_) => Err(Fault::new("insert failed: key already exists")),
    }
}

fn key_of(value: &Value<'_>) -> Result<Key, Fault> {
    value.to_key().ok_or_else(|| Fault::new(format!("unsupported key type: {}", value.type_name())))
}

/// The value of an optional element; none where it is to be left out.
fn unwrap(value: Value<'_>, optional: bool) -> Result<Option<Value<'_>>, Fault> {
    match (optional, value) {
        (false, value) => Ok(Some(value)),
        (true, Value::Optional(value)) => Ok(value.map(|value| value.as_ref().clone())),
        (true, _) => Err(Fault::no_overload()),
    }
}

/// True or false by the value that decides; a fault only if no later value decides.
fn settle(decisive: bool, truths: impl Iterator<Item = Result<bool, Fault>>) -> Result<bool, Fault> {
    let mut fault = None;
    for truth in truths {
        match truth {
            Ok(truth) if truth == decisive => return Ok(decisive),
            Ok(_) => {}
            Err(error) if error.is_cancelled() => return Err(error),
            Err(error) => fault = fault.or(Some(error)),
        }
    }
    fault.map_or(Ok(!decisive), Err)
}

fn access<'a>(of: &Value<'a>, at: &Value<'a>, mode: Access) -> Evaluated<'a> {
    if let Value::Optional(inner) = of {
        return match (inner, mode) {
            (None, Access::Has) => Ok(Value::Bool(false)),
            (None, _) => Ok(Value::Optional(None)),
            (Some(inner), Access::Has) => access(inner, at, mode),
            (Some(inner), _) => access(inner, at, Access::Optional),
        };
    }
    let found = match (of, at) {
        (Value::Map(map), key) => key.to_key().and_then(|key| map.get(&key)),
        (Value::List(list), index) => match index.to_key() {
            Some(Key::Number(index)) => usize::try_from(index).ok().and_then(|index| list.get(index)),
            _ => return Err(Fault::no_overload()),
        },
        _ => return Err(Fault::no_overload()),
    };
    match (mode, found.transpose()?) {
        (Access::Has, found) => Ok(Value::Bool(found.is_some())),
        (Access::Optional, found) => Ok(Value::Optional(found.map(Arc::new))),
        (Access::Get, Some(value)) => Ok(value),
        (Access::Get, None) => {
            let what = if matches!(of, Value::List(_)) { "index out of bounds" } else { "no such key" };
            Err(Fault::new(format!("{what}: {}", core::to_text(at).unwrap_or_default())))
        }
    }
}

/// What looking at a value costs beyond the step itself.
fn weight(value: &Value<'_>) -> u64 {
    let size = match value {
        Value::String(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(list) => list.len(),
        Value::Map(map) => map.len(),
        _ => 0,
    };
    u64::try_from(size / 10).unwrap_or(u64::MAX)
}

/// A library: the value of a function for these arguments, none where it has no such function or overload.
pub(super) type Library = for<'a> fn(&str, &[Value<'a>]) -> Option<Evaluated<'a>>;

const LIBRARIES: &[Library] = &[
    core::call,
    text::call,
    collections::call,
    time::call,
    url::call,
    addresses::call,
    quantity::call,
    semver::call,
    formats::call,
];

/// The value of a function; the object of a method is its first argument.
pub(super) fn call<'a>(function: &str, args: &[Value<'a>]) -> Evaluated<'a> {
    LIBRARIES.iter().find_map(|library| library(function, args)).unwrap_or_else(|| Err(Fault::no_overload()))
}
