//! What an IstioOperator asks for, as Kubernetes objects: the same for `meshctl manifest generate`, for
//! `meshctl install` and for the operator.
//!
//! The journey: the user's spec is held against what is supported (`schema`), laid over its `profile`, turned into values
//! for each part's chart (`plan`), rendered by the [`chart`], and changed as the part's `k8s` settings say (`overlay`). All
//! of it is pure.
//!
//! The charts in the folder `charts` are the only source of manifests: Helm renders the same files with the same values to
//! the same objects, which a test checks.

#![allow(clippy::result_large_err, reason = "a refused plan is as much a result as a plan, and there is one at a time")]

pub mod chart;
mod overlay;
pub(crate) mod path;
mod plan;
mod profile;
mod schema;
mod values;

pub use chart::{Chart, Release, RenderError};
pub use plan::{Part, Plan};

use serde_json::{Map, Value};

/// Lays values over others as Helm does: mappings field by field, and null removes.
pub fn lay(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match value {
                    Value::Null => {
                        base.remove(&key);
                    }
                    value => lay(base.entry(key).or_insert(Value::Null), value),
                }
            }
        }
        (_, Value::Null) => {}
        (base, over) => *base = over,
    }
}

/// Sets what is at a path of keys, making the mappings on the way.
fn set(root: &mut Value, path: &[&str], value: Value) {
    let mut at = root;
    for key in path {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        let Value::Object(fields) = at else { return };
        at = fields.entry(*key).or_insert(Value::Null);
    }
    *at = value;
}

/// The text at a JSON pointer; empty where there is none.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests;
