//! What a pod belongs to, found out from what a pod itself bears.

use serde_json::Value;

use super::pod::Pod;

/// The workload that a pod is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// Its API version.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace; empty where the text doesn't say.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Owner {
    /// The workload that a pod says to be of. A pod without a controller is its own workload. Deployments, Argo's
    /// Rollouts, OpenShift's DeploymentConfigs and CronJobs stand behind their controllers, and are told by name.
    pub(super) fn of(pod: &Pod, namespace: &str) -> Self {
        let text = |key: &str| pod.metadata.get(key).and_then(Value::as_str).unwrap_or_default();
        let new = |api_version: &str, kind: &str, name: &str| Self {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let references = pod.metadata.get("ownerReferences").and_then(Value::as_array);
        let controller = references
            .into_iter()
            .flatten()
            .find(|reference| reference.get("controller") == Some(&Value::Bool(true)))
            .filter(|_| !text("generateName").is_empty());
        let Some(controller) = controller else { return new("v1", "Pod", text("name")) };
        let field = |key: &str| controller.get(key).and_then(Value::as_str).unwrap_or_default();
        let (version, kind, name) = (field("apiVersion"), field("kind"), field("name"));
        let without_hash = |label: &str| {
            let hash = pod.label(label).filter(|hash| !hash.is_empty())?;
            name.strip_suffix(hash)?.strip_suffix('-')
        };
        match kind {
            "ReplicaSet" => {
                if let Some(deployment) = without_hash("pod-template-hash") {
                    return new(version, "Deployment", deployment);
                }
                if let Some(rollout) = without_hash("rollouts-pod-template-hash") {
                    return new("v1alpha1", "Rollout", rollout);
                }
            }
            "ReplicationController" => {
                if let Some(config) = pod.label("deploymentconfig").filter(|name| !name.is_empty()) {
                    return new(version, "DeploymentConfig", config);
                }
            }
            "Job" => {
                if let Some((cron, _)) = name.rsplit_once('-').filter(|(cron, time)| !cron.is_empty() && is_time(time))
                {
                    return new("batch/v1", "CronJob", cron);
                }
            }
            _ => {}
        }
        new(version, kind, name)
    }
}

/// What a CronJob appends to the names of its Jobs: when they were due, in minutes (or seconds) since 1970.
fn is_time(text: &str) -> bool {
    (8..=10).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
}
