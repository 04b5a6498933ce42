//! The rules of a schema, evaluated on the values that they stand at, from the outside in.

use serde_json::Value as Json;

use super::cel::{Budget, Value};
use super::node::{Kind, Node, Rule};
use super::problem::{Cause, Path, Problem};

/// Longer messages of `messageExpression` are not used.
const LONGEST_MESSAGE: usize = 5 * 1024;

pub(super) fn check(schema: &Node, object: &Json) -> Vec<Problem> {
    let mut check = Check { budget: Budget::default(), problems: Vec::new() };
    check.value(schema, object, &Path::ROOT);
    check.problems
}

struct Check {
    budget: Budget,
    problems: Vec<Problem>,
}

impl Check {
    fn value(&mut self, schema: &Node, json: &Json, path: &Path<'_>) {
        if !schema.has_rules || json.is_null() || self.budget.is_exhausted() {
            return;
        }
        for rule in &schema.rules {
            self.rule(rule, schema, json, path);
        }
        for part in &schema.all_of {
            self.value(part, json, path);
        }
        match json {
            Json::Array(items) => {
                let Some(of) = &schema.items else { return };
                for (index, item) in items.iter().enumerate() {
                    self.value(of, item, &path.index(index));
                }
            }
            Json::Object(fields) => {
                for (name, json) in fields {
                    if let Some(property) = schema.properties.get(name) {
                        self.value(property, json, &path.field(name));
                    } else if let Some(values) = schema.values() {
                        self.value(values, json, &path.key(name));
                    }
                }
            }
            _ => {}
        }
    }

    fn rule(&mut self, rule: &Rule, schema: &Node, json: &Json, path: &Path<'_>) {
        // A message about evaluation shows the type in place of the value.
        let kind = Json::from(schema.kind.map_or("", Kind::name));
        let failed = |why: String| Problem::invalid(path, &kind, &why);
        let program = match &rule.program {
            Ok(program) => program,
            Err(fault) => return self.problems.push(failed(format!("rule compile error: {fault}"))),
        };
        if program.uses_old_self {
            return;
        }
        let name = rule.name();
        let this = Value::of(json, schema);
        match this.and_then(|this| program.evaluate(this, &self.budget)) {
            Ok(Value::Bool(true)) => {}
            Ok(_) => {
                let problem = self.broken(rule, schema, json, path);
                self.problems.push(problem);
            }
            Err(_) if self.budget.is_exhausted() => self.problems.push(failed(
                "validation failed due to running out of cost budget, no further validation rules will be run".to_owned(),
            )),
            Err(fault) if fault.0.starts_with("no such overload") => self.problems.push(failed(format!(
                "'{fault}': call arguments did not match a supported operator, function or macro signature for rule: {name}"
            ))),
            Err(fault) if fault.is_cancelled() => self.problems.push(failed(format!(
                "'{fault}': no further validation rules will be run due to call cost exceeds limit for rule: {name}"
            ))),
            Err(fault) => self.problems.push(failed(format!("{fault} evaluating rule: {name}"))),
        }
    }

    /// What is said where a rule isn't kept.
    fn broken(&self, rule: &Rule, schema: &Node, json: &Json, path: &Path<'_>) -> Problem {
        let computed = rule.message.as_ref().and_then(|program| self.message(program, schema, json));
        let written = || match rule.source.message.as_deref() {
            None | Some("") => format!("failed rule: {}", rule.name()),
            Some(message) => message.trim().to_owned(),
        };
        let detail = computed.unwrap_or_else(written);
        let field = rule.source.field_path.as_deref().unwrap_or_default();
        let path = format!("{path}{field}");
        let path = path.trim_start_matches('.');
        let cause = match rule.source.reason.as_deref() {
            Some("FieldValueForbidden") => Cause::Forbidden,
            Some("FieldValueRequired") => Cause::Required,
            Some("FieldValueDuplicate") => Cause::Duplicate,
            _ => Cause::Invalid,
        };
        let whole = matches!(schema.kind, Some(Kind::Object | Kind::Array));
        match cause {
            Cause::Duplicate => Problem::with(cause, path, json, ""),
            Cause::Invalid if !whole => Problem::with(cause, path, json, &detail),
            _ => Problem::bare(cause, path, &detail),
        }
    }

    /// The value of a `messageExpression`, if it can serve as a message.
    fn message(&self, program: &super::cel::Program, schema: &Node, json: &Json) -> Option<String> {
        match program.evaluate(Value::of(json, schema).ok()?, &self.budget).ok()? {
            Value::String(text) => {
                let usable = !text.trim().is_empty() && !text.contains('\n') && text.len() <= LONGEST_MESSAGE;
                usable.then(|| text.trim().to_owned())
            }
            _ => None,
        }
    }
}
