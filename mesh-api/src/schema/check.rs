//! Values against a schema, in the order and the words of the apiserver's OpenAPI validation.

use serde_json::{Map, Value as Json};

use super::node::{Kind, Node};
use super::problem::{Cause, Path, Problem};
use super::{formats, numbers};

/// All that is wrong with the values of an object.
pub(super) fn check(schema: &Node, object: &Json) -> Vec<Problem> {
    let mut out = Problems::default();
    value(schema, object, &Path::ROOT, &mut out);
    out.list
}

/// Problems, each told once.
#[derive(Default)]
struct Problems {
    list: Vec<Problem>,
}

impl Problems {
    fn push(&mut self, problem: Problem) {
        if !self.list.contains(&problem) {
            self.list.push(problem);
        }
    }
}

fn value(schema: &Node, json: &Json, path: &Path<'_>, out: &mut Problems) {
    types(schema, json, path, out);
    if json.is_null() {
        choices(schema, json, path, out);
        return;
    }
    combinations(schema, json, path, out);
    match json {
        Json::String(text) => self::text(schema, text, json, path, out),
        Json::Number(number) => self::number(schema, number, json, path, out),
        Json::Array(items) => list(schema, items, path, out),
        _ => {}
    }
    choices(schema, json, path, out);
    if let Json::Object(fields) = json {
        self::fields(schema, fields, path, out);
    }
}

fn type_of(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Number(number) if number.is_f64() => "number",
        Json::Number(_) => "integer",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    }
}

fn types(schema: &Node, json: &Json, path: &Path<'_>, out: &mut Problems) {
    let wanted = match schema.kind {
        _ if schema.int_or_string => "integer,string",
        Some(kind) => kind.name(),
        None => return,
    };
    let is = type_of(json);
    let wants = |name: &str| wanted.split(',').any(|wanted| wanted == name);
    let whole = json.as_f64().is_some_and(|number| number.fract() == 0.0);
    let fits = match json {
        Json::Null => schema.nullable,
        // Where a text has a format, nobody looks whether it is a list instead.
        Json::Array(_) if schema.kind == Some(Kind::String) && schema.format.is_some() => true,
        Json::Number(_) => wants(is) || wants("number") || (whole && wants("integer")),
        _ => wants(is),
    };
    if fits {
        return;
    }
    let number_format = schema.format.as_deref().filter(|_| schema.kind != Some(Kind::String));
    out.push(match (json, number_format) {
        (Json::Bool(_) | Json::Object(_) | Json::Number(_), Some(format)) => Problem::type_invalid(path, "", format),
        _ => Problem::type_invalid(path, is, wanted),
    });
}

fn choices(schema: &Node, json: &Json, path: &Path<'_>, out: &mut Problems) {
    let Some(choices) = &schema.choices else { return };
    if choices.contains(json) {
        return;
    }
    let named = |choice: &Json| match choice {
        Json::String(text) => format!("{text:?}"),
        other => format!("{:?}", other.to_string()),
    };
    let detail = format!("supported values: {}", choices.iter().map(named).collect::<Vec<_>>().join(", "));
    out.push(Problem::with(Cause::NotSupported, path, json, &detail));
}

/// What a value lacks for one of several schemas.
fn against(schema: &Node, json: &Json, path: &Path<'_>) -> Vec<Problem> {
    let mut out = Problems::default();
    value(schema, json, path, &mut out);
    out.list
}

fn combinations(schema: &Node, json: &Json, path: &Path<'_>, out: &mut Problems) {
    let problem = |detail: String| Problem::invalid(path, &"".into(), &detail);
    // Of alternatives that all fail, the one that comes closest is told.
    let closest = |failures: Vec<Vec<Problem>>| failures.into_iter().min_by_key(Vec::len).unwrap_or_default();
    if !schema.any_of.is_empty() {
        let results: Vec<_> = schema.any_of.iter().map(|schema| against(schema, json, path)).collect();
        if !results.iter().any(Vec::is_empty) {
            out.push(problem(format!("\"{path}\" must validate at least one schema (anyOf)")));
            closest(results).into_iter().for_each(|problem| out.push(problem));
        }
    }
    if !schema.one_of.is_empty() {
        let results: Vec<_> = schema.one_of.iter().map(|schema| against(schema, json, path)).collect();
        let valid = results.iter().filter(|problems| problems.is_empty()).count();
        let must = format!("\"{path}\" must validate one and only one schema (oneOf).");
        match valid {
            0 => {
                out.push(problem(format!("{must} Found none valid")));
                closest(results).into_iter().for_each(|problem| out.push(problem));
            }
            1 => {}
            more => out.push(problem(format!("{must} Found {more} valid alternatives"))),
        }
    }
    if !schema.all_of.is_empty() {
        let results: Vec<_> = schema.all_of.iter().map(|schema| against(schema, json, path)).collect();
        let valid = results.iter().filter(|problems| problems.is_empty()).count();
        if valid != results.len() {
            let none = if valid == 0 { ". None validated" } else { "" };
            results.into_iter().flatten().for_each(|problem| out.push(problem));
            out.push(problem(format!("\"{path}\" must validate all the schemas (allOf){none}")));
        }
    }
    if let Some(not) = &schema.not
        && against(not, json, path).is_empty()
    {
        out.push(problem(format!("\"{path}\" must not validate the schema (not)")));
    }
}

fn text(schema: &Node, text: &str, json: &Json, path: &Path<'_>, out: &mut Problems) {
    let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    if let Some(most) = schema.length.most.filter(|most| length > *most) {
        let bytes = if most == 1 { "byte" } else { "bytes" };
        out.push(Problem::bare(Cause::TooLong, path, &format!("may not be more than {most} {bytes}")));
    } else if let Some(least) = schema.length.least.filter(|least| length < *least) {
        out.push(Problem::invalid(path, json, &format!("{path} in body should be at least {least} chars long")));
    } else if let Some((pattern, expression)) = &schema.pattern
        && !expression.as_ref().is_some_and(|expression| expression.is_match(text))
    {
        let invalid = if expression.is_none() { ", but pattern is invalid" } else { "" };
        out.push(Problem::invalid(path, json, &format!("{path} in body should match '{pattern}{invalid}'")));
    }
    if let Some(format) = &schema.format
        && formats::fits(format, text) == Some(false)
    {
        let detail = format!("{path} in body must be of type {format}: {text:?}");
        out.push(Problem::with(Cause::TypeInvalid, path, json, &detail));
    }
}

fn number(schema: &Node, number: &serde_json::Number, json: &Json, path: &Path<'_>, out: &mut Problems) {
    let value = number.as_f64().unwrap_or_default();
    let limits = match (schema.kind, schema.format.as_deref()) {
        (Some(Kind::Integer), Some("int32")) => f64::from(i32::MIN)..=f64::from(i32::MAX),
        (Some(Kind::Number), Some("float")) => f64::from(f32::MIN)..=f64::from(f32::MAX),
        (Some(Kind::Integer), _) => i64::MIN as f64..=i64::MAX as f64,
        _ => f64::NEG_INFINITY..=f64::INFINITY,
    };
    if !limits.contains(&value) {
        let kind = schema.kind.map_or("", Kind::name);
        let format = schema.format.as_deref().map_or("(default format)".to_owned(), |f| format!("with format {f}"));
        let detail = format!("Checked value must be of type {kind} {format} in {path}");
        out.push(Problem::invalid(path, &"".into(), &detail));
    }
    // A limit of a whole number is shown as one.
    let shown = |limit: f64| if number.is_f64() { numbers::shortest(limit) } else { format!("{limit:.0}") };
    let range = &schema.range;
    if let Some(factor) = range.multiple_of
        && (value / factor).fract() != 0.0
    {
        let detail = format!("{path} in body should be a multiple of {}", shown(factor));
        out.push(Problem::invalid(path, json, &detail));
    }
    if let Some(most) = range.maximum
        && (value > most || (range.exclusive_maximum && value >= most))
    {
        let words = if range.exclusive_maximum { "less than" } else { "less than or equal to" };
        out.push(Problem::invalid(path, json, &format!("{path} in body should be {words} {}", shown(most))));
    }
    if let Some(least) = range.minimum
        && (value < least || (range.exclusive_minimum && value <= least))
    {
        let words = if range.exclusive_minimum { "greater than" } else { "greater than or equal to" };
        out.push(Problem::invalid(path, json, &format!("{path} in body should be {words} {}", shown(least))));
    }
}

fn list(schema: &Node, items: &[Json], path: &Path<'_>, out: &mut Problems) {
    if let Some(of) = &schema.items {
        for (index, item) in items.iter().enumerate() {
            value(of, item, &path.index(index), out);
        }
    }
    let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
    if let Some(least) = schema.elements.least.filter(|least| count < *least) {
        let detail = format!("{path} in body should have at least {least} items");
        out.push(Problem::invalid(path, &count.into(), &detail));
    }
    if let Some(most) = schema.elements.most.filter(|most| count > *most) {
        out.push(Problem::too_many(path, items.len(), most));
    }
    if schema.unique
        && (1..items.len()).any(|end| items.get(..end).zip(items.get(end)).is_some_and(|(a, b)| a.contains(b)))
    {
        out.push(Problem::invalid(path, &"".into(), &format!("{path} in body shouldn't contain duplicates")));
    }
}

fn fields(schema: &Node, fields: &Map<String, Json>, path: &Path<'_>, out: &mut Problems) {
    let count = i64::try_from(fields.len()).unwrap_or(i64::MAX);
    if let Some(least) = schema.fields.least.filter(|least| count < *least) {
        let detail = format!("{path} in body should have at least {least} properties");
        out.push(Problem::invalid(path, &count.into(), &detail));
    }
    if let Some(most) = schema.fields.most.filter(|most| count > *most) {
        out.push(Problem::too_many(path, fields.len(), most));
    }
    for (name, json) in fields {
        if let Some(schema) = schema.field(name) {
            value(schema, json, &path.field(name), out);
        }
    }
    for name in schema.required.iter().filter(|name| !fields.contains_key(*name)) {
        out.push(Problem::required(path.field(name)));
    }
}
