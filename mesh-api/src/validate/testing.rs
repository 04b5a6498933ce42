//! Objects for tests and their problems as text.

use kube::Resource;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Validate;
use crate::Severity;

/// An object of the kind with this spec, named `foo` in the namespace `bar`.
pub(super) fn object<K: Resource<DynamicType = ()> + DeserializeOwned>(spec: Value) -> K {
    serde_json::from_value(json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": "foo", "namespace": "bar"},
        "spec": spec,
    }))
    .unwrap()
}

/// `E path: message [code]` for errors, `W` for warnings.
pub(super) fn problems(object: &impl Validate) -> Vec<String> {
    let told = object.validate().into_iter();
    told.map(|problem| {
        let severity = if problem.severity == Severity::Error { "E" } else { "W" };
        format!("{severity} {}: {} [{}]", problem.path, problem.message, problem.code)
    })
    .collect()
}

/// Asserts for each spec which problems there are: `""` none, otherwise the beginning of the first one and how many there are.
pub(super) fn check<K: Resource<DynamicType = ()> + DeserializeOwned + Validate>(cases: &[(Value, &[&str])]) {
    for (spec, expected) in cases {
        let found = problems(&object::<K>(spec.clone()));
        let fits =
            found.len() == expected.len() && found.iter().zip(*expected).all(|(found, part)| found.contains(part));
        assert!(fits, "{spec}\nfound {found:#?}\nexpected {expected:#?}");
    }
}
