//! The profiles: what an IstioOperator is laid over, by the names that Istio has for them.

use mesh_api::{Diagnostic, FieldPath};
use serde_json::Value;

use super::{chart, lay};

/// Each with its text; `default` first, over which the others lie.
const PROFILES: [(&str, &str); 6] = [
    ("default", include_str!("../../profiles/default.yaml")),
    ("demo", include_str!("../../profiles/demo.yaml")),
    ("empty", include_str!("../../profiles/empty.yaml")),
    ("minimal", include_str!("../../profiles/minimal.yaml")),
    ("preview", include_str!("../../profiles/preview.yaml")),
    ("stable", include_str!("../../profiles/stable.yaml")),
];

/// The spec of a profile; empty is `default`.
///
/// # Errors
/// For one that is not there, with those that are.
pub(super) fn spec(name: &str) -> Result<Value, Diagnostic> {
    let name = if name.is_empty() { "default" } else { name };
    if !PROFILES.iter().any(|(known, _)| *known == name) {
        let known: Vec<&str> = PROFILES.iter().map(|(known, _)| *known).collect();
        let message = format!("there is no profile {name:?}; choose one of {}", known.join(", "));
        return Err(Diagnostic::error("UnknownProfile", message).at(FieldPath::new("spec.profile")));
    }
    let mut spec = Value::Null;
    for (_, text) in PROFILES.iter().filter(|(known, _)| *known == "default" || *known == name) {
        lay(&mut spec, chart::yaml(text).get("spec").cloned().unwrap_or_default());
    }
    Ok(spec)
}
