//! What a part's `k8s` settings change of the objects that its chart makes: some fields by strategic merge, and then
//! whatever `overlays` name.

use mesh_api::{Diagnostic, FieldPath};
use mesh_webhook::inject::strategic_merge;
use serde_json::{Value, json};

use super::{RenderError, path, text};

/// Where a setting goes.
enum Place {
    /// A field of the workload's container.
    Container(&'static str),
    /// A path within the object of this kind.
    Object(&'static str, &'static [&'static str]),
}

use Place::{Container, Object};

const WORKLOAD: &str = "Deployment";
const POD: [&str; 3] = ["spec", "template", "spec"];

/// All settings but `overlays`.
const SETTINGS: [(&str, Place); 18] = [
    ("affinity", Object(WORKLOAD, &["spec", "template", "spec", "affinity"])),
    ("env", Container("env")),
    ("hpaSpec", Object("HorizontalPodAutoscaler", &["spec"])),
    ("imagePullPolicy", Container("imagePullPolicy")),
    ("nodeSelector", Object(WORKLOAD, &["spec", "template", "spec", "nodeSelector"])),
    ("podAnnotations", Object(WORKLOAD, &["spec", "template", "metadata", "annotations"])),
    ("podDisruptionBudget", Object("PodDisruptionBudget", &["spec"])),
    ("priorityClassName", Object(WORKLOAD, &["spec", "template", "spec", "priorityClassName"])),
    ("readinessProbe", Container("readinessProbe")),
    ("replicaCount", Object(WORKLOAD, &["spec", "replicas"])),
    ("resources", Container("resources")),
    ("securityContext", Object(WORKLOAD, &["spec", "template", "spec", "securityContext"])),
    ("service", Object("Service", &["spec"])),
    ("serviceAnnotations", Object("Service", &["metadata", "annotations"])),
    ("strategy", Object(WORKLOAD, &["spec", "strategy"])),
    ("tolerations", Object(WORKLOAD, &["spec", "template", "spec", "tolerations"])),
    ("volumeMounts", Container("volumeMounts")),
    ("volumes", Object(WORKLOAD, &["spec", "template", "spec", "volumes"])),
];

/// Whose settings they are.
pub(super) struct Workload<'a> {
    /// The name of the Deployment, and of what goes with it.
    pub(super) name: &'a str,
    /// Its container.
    pub(super) container: &'a str,
}

/// Lays the settings over the objects. A setting that meets no object is told.
///
/// # Errors
/// Where a setting can't be laid over what it meets.
pub(super) fn apply(
    objects: &mut [Value],
    of: &Workload<'_>,
    settings: &Value,
    at: &FieldPath,
    told: &mut Vec<Diagnostic>,
) -> Result<(), RenderError> {
    for (name, place) in &SETTINGS {
        let Some(value) = settings.get(*name) else { continue };
        let at = at.field(name);
        let (kind, mut patch) = match place {
            Container(field) => {
                (WORKLOAD, nested(&POD, json!({"containers": [{"name": of.container, *field: value}]})))
            }
            Object(kind, path) => (*kind, nested(path, value.clone())),
        };
        let Some(object) = find(objects, kind, of.name) else {
            told.push(nothing_to_change(kind, of.name, at));
            continue;
        };
        // Lists of a Service's ports can't be merged: one number may be there for TCP and for UDP.
        let ports = patch.pointer_mut("/spec/ports").map(Value::take).filter(|_| kind == "Service");
        if ports.is_some() {
            patch.pointer_mut("/spec").and_then(Value::as_object_mut).map(|spec| spec.remove("ports"));
        }
        strategic_merge(object, patch)
            .map_err(|error| RenderError::Overlay { path: at.to_string(), why: error.to_string() })?;
        if let (Some(ports), Some(spec)) = (ports, object.pointer_mut("/spec")) {
            super::set(spec, &["ports"], ports);
        }
        if kind == "PodDisruptionBudget" {
            one_limit(object, value);
        }
    }
    overlays(objects, settings, at, told);
    Ok(())
}

/// A budget has one limit: the chart's gives way to the user's.
fn one_limit(budget: &mut Value, written: &Value) {
    let Some(spec) = budget.pointer_mut("/spec").and_then(Value::as_object_mut) else { return };
    if written.get("maxUnavailable").is_some() && spec.contains_key("minAvailable") {
        spec.remove("minAvailable");
    } else if written.get("minAvailable").is_some() {
        spec.remove("maxUnavailable");
    }
}

fn overlays(objects: &mut [Value], settings: &Value, at: &FieldPath, told: &mut Vec<Diagnostic>) {
    for (index, overlay) in list(settings, "overlays").enumerate() {
        let at = at.field("overlays").index(index);
        let (kind, name) = (text(overlay, "/kind"), text(overlay, "/name"));
        let Some(object) = find(objects, kind, name) else {
            told.push(nothing_to_change(kind, name, at));
            continue;
        };
        for (index, patch) in list(overlay, "patches").enumerate() {
            let value = patch.get("value").cloned().unwrap_or_default();
            if let Err(why) = path::write(object, text(patch, "/path"), value) {
                let message = format!("nothing is done about it: {why} in the {kind} {name} of this installation");
                let at = at.field("patches").index(index).field("path");
                told.push(Diagnostic::error("NothingToChange", message).at(at));
            }
        }
    }
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn find<'a>(objects: &'a mut [Value], kind: &str, name: &str) -> Option<&'a mut Value> {
    objects.iter_mut().find(|object| text(object, "/kind") == kind && text(object, "/metadata/name") == name)
}

fn nested(path: &[&str], value: Value) -> Value {
    path.iter().rev().fold(value, |inner, key| json!({*key: inner}))
}

fn nothing_to_change(kind: &str, name: &str, at: FieldPath) -> Diagnostic {
    let message = format!("nothing is done about it, for this installation has no {kind} {name}");
    Diagnostic::error("NothingToChange", message).at(at)
}
