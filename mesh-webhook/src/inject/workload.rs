//! Documents with pods in them: workloads, whose pod template is injected, and lists of these.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Decision, InjectError, Injector, Outcome, Owner};

/// Kinds that have a pod template, and where.
const WORKLOADS: [(&str, &str, &str); 10] = [
    ("", "Pod", ""),
    ("", "ReplicationController", "/spec/template"),
    ("apps", "Deployment", "/spec/template"),
    ("apps", "DaemonSet", "/spec/template"),
    ("apps", "ReplicaSet", "/spec/template"),
    ("apps", "StatefulSet", "/spec/template"),
    ("batch", "Job", "/spec/template"),
    ("batch", "CronJob", "/spec/jobTemplate/spec/template"),
    ("apps.openshift.io", "DeploymentConfig", "/spec/template"),
    // As OpenShift had it before groups.
    ("", "DeploymentConfig", "/spec/template"),
];

/// Whose metadata count as the pod's: of a CronJob, as in Istio, those of the Job that it makes.
fn bears_metadata<'a>(kind: &str, template: &'a str) -> &'a str {
    if kind == "CronJob" { "/spec/jobTemplate" } else { template }
}

/// A workload that got no proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its kind, namespace (empty where it says none) and name.
    pub workload: Owner,
    /// Why.
    pub decision: Decision,
}

impl Injector {
    /// Injects the workload that a document is, or all workloads of a `List`; any other document stays as it is. What got
    /// no proxy is told.
    ///
    /// # Errors
    /// Where a workload can't be injected; the document may then be injected in part.
    pub fn inject_document(&self, document: &mut Value) -> Result<Vec<Skipped>, InjectError> {
        let text = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if kind == "List" {
            let Some(items) = document.get_mut("items").and_then(Value::as_array_mut) else { return Ok(Vec::new()) };
            let skipped: Result<Vec<_>, _> = items.iter_mut().map(|item| self.inject_document(item)).collect();
            return skipped.map(|skipped| skipped.into_iter().flatten().collect());
        }
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        let known = WORKLOADS.iter().find(|(of, name, _)| (*of, *name) == (group, kind.as_str()));
        let Some(&(_, _, place)) = known else { return Ok(Vec::new()) };
        let metadata = |key: &str| {
            document.pointer(&format!("/metadata/{key}")).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let workload = Owner { api_version, namespace: metadata("namespace"), name: metadata("name"), kind };
        let missing = || InjectError::Malformed(format!("{} {} has no pod template", workload.kind, workload.name));
        let mut pod = document.pointer(place).cloned().ok_or_else(missing)?;
        let of_metadata = bears_metadata(&workload.kind, place);
        if of_metadata != place {
            let metadata = document.pointer(of_metadata).and_then(|bearer| bearer.get("metadata")).cloned();
            pod = json!({"metadata": metadata, "spec": pod.get("spec")});
        }
        // A pod's owner may be another than itself.
        let owner = Some(&workload).filter(|_| !place.is_empty());
        let mut injected = match self.inject(pod, &workload.namespace, owner, BTreeMap::new())? {
            Outcome::Injected(injected) => injected,
            Outcome::Skipped(decision) => return Ok(vec![Skipped { workload, decision }]),
        };
        if of_metadata != place
            && let Some(bearer) = document.pointer_mut(of_metadata)
        {
            hand_over("metadata", &mut injected, bearer);
            if let Some(template) = document.pointer_mut(place) {
                hand_over("spec", &mut injected, template);
            }
        } else if let Some(template) = document.pointer_mut(place) {
            *template = injected;
        }
        Ok(Vec::new())
    }
}

fn hand_over(key: &str, from: &mut Value, to: &mut Value) {
    if let (Some(value), Value::Object(fields)) = (from.get_mut(key).map(Value::take), to) {
        fields.insert(key.to_owned(), value);
    }
}

impl std::fmt::Display for Skipped {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Owner { kind, namespace, name, .. } = &self.workload;
        let namespace = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        write!(formatter, "{kind} {namespace}{name} is not injected: {}", self.decision)
    }
}
