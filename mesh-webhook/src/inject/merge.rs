//! Kubernetes' strategic merge patch, for pods: mappings are merged field by field, lists of named things by their names,
//! all other lists and values are replaced, and null removes.
//!
//! Of the directives, `$patch` is known (`delete`, `replace`, `merge`); any other fails, as it would change the meaning of
//! what stands beside it.

use serde_json::{Map, Value};

use super::InjectError;

/// By which field the items of a list are told apart; lists that are not here are replaced as a whole.
/// From the API's `patchMergeKey`.
fn merge_key(list: &str) -> Option<&'static str> {
    Some(match list {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "imagePullSecrets"
        | "env"
        | "resourceClaims"
        | "schedulingGates" => "name",
        "ports" => "containerPort",
        "volumeMounts" => "mountPath",
        "volumeDevices" => "devicePath",
        "hostAliases" => "ip",
        "topologySpreadConstraints" => "topologyKey",
        "ownerReferences" => "uid",
        _ => return None,
    })
}

/// Lays a strategic merge patch over a pod, or over an object that has the template of one.
///
/// # Errors
/// Where the patch can't be read as one.
pub fn strategic_merge(base: &mut Value, patch: Value) -> Result<(), InjectError> {
    merge(base, patch)
}

/// Lays `patch` over `base`.
pub(super) fn merge(base: &mut Value, patch: Value) -> Result<(), InjectError> {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => merge_fields(base, patch),
        (base, patch) => {
            *base = without_nulls(patch);
            Ok(())
        }
    }
}

fn merge_fields(base: &mut Map<String, Value>, mut patch: Map<String, Value>) -> Result<(), InjectError> {
    if directive(&mut patch)? == Some(Directive::Replace) {
        base.clear();
    }
    for (key, new) in patch {
        match (base.get_mut(&key), new) {
            (_, Value::Null) => {
                base.remove(&key);
            }
            (Some(Value::Array(old)), Value::Array(new)) if merge_key(&key).is_some() => {
                merge_list(old, new, merge_key(&key).unwrap_or_default())?;
            }
            (Some(old @ Value::Object(_)), new @ Value::Object(_)) => merge(old, new)?,
            (_, new) => {
                base.insert(key, without_nulls(new));
            }
        }
    }
    Ok(())
}

/// Merges lists whose items are told apart by `key`. The items of the patch come in its order; those that are in `base`
/// alone stay before what they stood before.
fn merge_list(base: &mut Vec<Value>, patch: Vec<Value>, key: &str) -> Result<(), InjectError> {
    let before: Vec<Value> = base.iter().map(|item| id(item, key).clone()).collect();
    let mut kept = std::mem::take(base);
    let mut patched = Vec::with_capacity(patch.len());
    for mut item in patch {
        let directive = match &mut item {
            Value::Object(fields) => directive(fields)?,
            _ => return Err(InjectError::Merge(format!("an item of a list that is merged by {key} is no mapping"))),
        };
        if directive == Some(Directive::Replace) && id(&item, key).is_null() {
            kept.clear();
            continue;
        }
        if id(&item, key).is_null() {
            return Err(InjectError::Merge(format!("an item of a list that is merged by {key} has none")));
        }
        let of = |items: &[Value]| items.iter().position(|old| id(old, key) == id(&item, key));
        if directive == Some(Directive::Delete) {
            kept.retain(|old| id(old, key) != id(&item, key));
        } else if let Some(old) = of(&patched).and_then(|at| patched.get_mut(at)) {
            merge(old, item)?;
        } else if let Some(at) = of(&kept) {
            let mut old = kept.remove(at);
            merge(&mut old, item)?;
            patched.push(old);
        } else {
            patched.push(without_nulls(item));
        }
    }
    let place = |item: &Value| before.iter().position(|old| old == id(item, key));
    let mut kept = kept.into_iter().peekable();
    for item in patched {
        while let (Some(next), Some(at)) = (kept.peek(), place(&item)) {
            if place(next).is_none_or(|next| next > at) {
                break;
            }
            base.extend(kept.next());
        }
        base.push(item);
    }
    base.extend(kept);
    Ok(())
}

fn id<'a>(item: &'a Value, key: &str) -> &'a Value {
    item.get(key).unwrap_or(&Value::Null)
}

#[derive(PartialEq, Eq)]
enum Directive {
    Delete,
    Replace,
    Merge,
}

/// Takes the directive out of a mapping.
fn directive(fields: &mut Map<String, Value>) -> Result<Option<Directive>, InjectError> {
    if let Some(other) = fields.keys().find(|key| key.starts_with('$') && *key != "$patch") {
        return Err(InjectError::Merge(format!("the directive {other} is not supported, only $patch is")));
    }
    Ok(match fields.remove("$patch").as_ref().map(Value::as_str) {
        None => None,
        Some(Some("delete")) => Some(Directive::Delete),
        Some(Some("replace")) => Some(Directive::Replace),
        Some(Some("merge")) => Some(Directive::Merge),
        Some(_) => return Err(InjectError::Merge("$patch must be delete, replace or merge".to_owned())),
    })
}

/// The value without fields that are null: in a patch they stand for absence.
fn without_nulls(mut value: Value) -> Value {
    remove_nulls(&mut value);
    value
}

fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(remove_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn as_kubernetes_merges() {
        for (base, patch, want) in [
            (json!({"a": 1, "b": {"c": 1}}), json!({"b": {"d": 2}, "a": null}), json!({"b": {"c": 1, "d": 2}})),
            (json!({"tolerations": [1, 2]}), json!({"tolerations": [3]}), json!({"tolerations": [3]})),
            // New items first, known ones merged, the rest where they were.
            (
                json!({"env": [{"name": "a", "value": "1"}, {"name": "b"}, {"name": "c"}]}),
                json!({"env": [{"name": "n"}, {"name": "b", "value": "2"}]}),
                json!({"env": [{"name": "n"}, {"name": "a", "value": "1"}, {"name": "b", "value": "2"}, {"name": "c"}]}),
            ),
            (
                json!({"ports": [{"containerPort": 80, "name": "http"}]}),
                json!({"ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 81}]}),
                json!({"ports": [{"containerPort": 80, "name": "http", "protocol": "TCP"}, {"containerPort": 81}]}),
            ),
            (
                json!({"volumes": [{"name": "a", "emptyDir": {}}]}),
                json!({"volumes": [{"name": "a", "emptyDir": null, "csi": {"driver": "d"}}, {"name": "b", "emptyDir": null}]}),
                json!({"volumes": [{"name": "a", "csi": {"driver": "d"}}, {"name": "b"}]}),
            ),
            (
                json!({"env": [{"name": "a"}, {"name": "b"}]}),
                json!({"env": [{"name": "a", "$patch": "delete"}]}),
                json!({"env": [{"name": "b"}]}),
            ),
            (
                json!({"env": [{"name": "a"}]}),
                json!({"env": [{"$patch": "replace"}, {"name": "b"}]}),
                json!({"env": [{"name": "b"}]}),
            ),
            (json!({"b": {"c": 1}}), json!({"b": {"$patch": "replace", "d": 1}}), json!({"b": {"d": 1}})),
        ] {
            let mut got = base;
            merge(&mut got, patch).unwrap();
            assert_eq!(got, want);
        }
    }

    #[test]
    fn what_cannot_be_merged_is_told() {
        for patch in
            [json!({"env": [1]}), json!({"env": [{}]}), json!({"$retainKeys": []}), json!({"a": {"$patch": 1}})]
        {
            let mut base = json!({"env": [], "a": {}});
            assert!(matches!(merge(&mut base, patch), Err(InjectError::Merge(_))));
        }
    }
}
