//! What must change for a cluster to have what it should: a function of what should be and what is.

use std::fmt;

use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::kinds::{KINDS, Managed};
use crate::install::{Part, Plan, text};

/// The label with the name of the IstioOperator that an object belongs to.
pub const OWNER: &str = "install.operator.istio.io/owning-resource";
/// The label with that one's namespace.
pub const OWNER_NAMESPACE: &str = "install.operator.istio.io/owning-resource-namespace";
/// The label with the part that an object belongs to.
pub const COMPONENT: &str = "operator.istio.io/component";
/// The annotation with the hash of what was applied last: so a field that is no longer wanted is noticed.
const APPLIED: &str = "install.operator.istio.io/applied";

/// The IstioOperator that objects belong to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

impl Owner {
    /// The owner that a plan's objects have.
    pub fn of_plan(plan: &Plan) -> Self {
        Self { name: plan.operator.name.to_string(), namespace: plan.operator.namespace.to_string() }
    }

    /// The owner that an object says it has.
    pub fn of(object: &Value) -> Option<Self> {
        let label = |name: &str| object.pointer("/metadata/labels")?.get(name)?.as_str();
        Some(Self { name: label(OWNER)?.to_owned(), namespace: label(OWNER_NAMESPACE)?.to_owned() })
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IstioOperator {}/{}", self.namespace, self.name)
    }
}

/// Which object: kind, namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its kind.
    pub kind: String,
    /// Its namespace, empty for none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Key {
    /// The key of an object.
    pub fn of(object: &Value) -> Self {
        let text = |pointer| text(object, pointer).to_owned();
        Self { kind: text("/kind"), namespace: text("/metadata/namespace"), name: text("/metadata/name") }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = if self.namespace.is_empty() { "" } else { "/" };
        write!(f, "{} {}{slash}{}", self.kind, self.namespace, self.name)
    }
}

/// What must change.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Objects that are missing or differ, in the order in which they are to be applied.
    pub apply: Vec<Value>,
    /// Objects that should not be, in the order in which they are to be deleted.
    pub delete: Vec<Value>,
    /// Objects that are wanted, but belong to another.
    pub foreign: Vec<(Key, Owner)>,
}

impl Changes {
    /// True when all is as it should be.
    pub fn is_empty(&self) -> bool {
        self.apply.is_empty() && self.delete.is_empty()
    }
}

/// The objects of a plan's parts as they are applied: with labels that say whose they are, and without what others decide.
pub fn desired(plan: &Plan, rendered: Vec<Vec<Value>>) -> Vec<Value> {
    let owner = Owner::of_plan(plan);
    let scaled: Vec<Key> = rendered.iter().flatten().filter_map(scales).collect();
    let parts = plan.parts.iter().zip(rendered);
    parts.flat_map(|(part, objects)| objects.into_iter().map(|object| own(object, part, &owner, &scaled))).collect()
}

fn own(mut object: Value, part: &Part, owner: &Owner, scaled: &[Key]) -> Value {
    let mut labels = vec![
        (COMPONENT, part.component.to_owned()),
        ("operator.istio.io/managed", "Reconcile".to_owned()),
        ("operator.istio.io/version", part.chart.version()),
    ];
    // Definitions stay when whoever brought them goes.
    if text(&object, "/kind") != "CustomResourceDefinition" {
        labels.extend([(OWNER, owner.name.clone()), (OWNER_NAMESPACE, owner.namespace.clone())]);
    }
    if scaled.contains(&Key::of(&object))
        && let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut)
    {
        spec.remove("replicas");
    }
    extend(&mut object, "labels", labels);
    let hash = format!("{:016x}", xxh3_64(object.to_string().as_bytes()));
    extend(&mut object, "annotations", vec![(APPLIED, hash)]);
    object
}

/// The workload whose replicas an autoscaler decides on.
fn scales(object: &Value) -> Option<Key> {
    let target =
        object.pointer("/spec/scaleTargetRef").filter(|_| text(object, "/kind") == "HorizontalPodAutoscaler")?;
    Some(Key {
        kind: text(target, "/kind").to_owned(),
        namespace: text(object, "/metadata/namespace").to_owned(),
        name: text(target, "/name").to_owned(),
    })
}

fn extend(object: &mut Value, field: &str, entries: Vec<(&str, String)>) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if let Value::Object(fields) = metadata.entry(field).or_insert_with(|| json!({})) {
        fields.extend(entries.into_iter().map(|(key, value)| (key.to_owned(), value.into())));
    }
}

/// What must change for the cluster to have these objects of this owner, and none else of its.
///
/// `observed` are all objects that bear the label [`COMPONENT`]; others count as not there, and are taken over.
pub fn changes(desired: &[Value], observed: &[Value], owner: &Owner) -> Changes {
    let mut changes = Changes::default();
    for object in desired {
        let key = Key::of(object);
        let there = observed.iter().find(|other| Key::of(other) == key);
        let other = there.and_then(Owner::of).filter(|other| other != owner && Owner::of(object).is_some());
        match (there, other) {
            (_, Some(other)) => changes.foreign.push((key, other)),
            (Some(there), None) if covers(object, there) => {}
            _ => changes.apply.push(object.clone()),
        }
    }
    let wanted: Vec<Key> = desired.iter().map(Key::of).collect();
    let own = observed.iter().filter(|object| Owner::of(object).as_ref() == Some(owner));
    changes.delete = own.filter(|object| !wanted.contains(&Key::of(object))).cloned().collect();
    let rank = |object: &Value| KINDS.iter().position(|kind| Some(kind) == Managed::of(object));
    changes.delete.sort_by_key(rank);
    changes
}

/// Whether what is there says all that is wanted; it may say more, as an apiserver and others add fields.
fn covers(wanted: &Value, there: &Value) -> bool {
    match (wanted, there) {
        (Value::Object(wanted), Value::Object(there)) => wanted.iter().all(|(key, value)| match there.get(key) {
            Some(there) => covers(value, there),
            None => is_empty(value),
        }),
        (Value::Array(wanted), Value::Array(there)) => match wanted.iter().map(|item| item.get("name")).collect() {
            // Named items are told apart by their names, and others may have added theirs.
            Some(names) => {
                let names: Vec<&Value> = names;
                let named = |name: &Value| there.iter().find(|item| item.get("name") == Some(name));
                names.iter().zip(wanted).all(|(name, item)| named(name).is_some_and(|there| covers(item, there)))
            }
            None => {
                wanted.len() == there.len() && wanted.iter().zip(there).all(|(wanted, there)| covers(wanted, there))
            }
        },
        (Value::Number(wanted), Value::Number(there)) => wanted.as_f64() == there.as_f64(),
        (Value::String(wanted), Value::String(there)) => {
            wanted == there || quantity(wanted).is_some_and(|wanted| quantity(there) == Some(wanted))
        }
        (wanted, there) => wanted == there,
    }
}

/// What an apiserver doesn't keep.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        _ => false,
    }
}

/// An amount such as `1000m` or `1Gi`: an apiserver writes the same amount in its own way.
fn quantity(text: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 8] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("m", 0.001),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("", 1.0),
    ];
    let (number, unit) = UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
    number.parse::<f64>().ok().map(|number| number * unit)
}

#[cfg(test)]
mod tests;
