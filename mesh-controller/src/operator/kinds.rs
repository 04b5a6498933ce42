//! The kinds of objects that charts make, and so that are looked for.

use kube::api::{ApiResource, GroupVersionKind};
use mesh_api::object::group_and_version;
use serde_json::Value;

use crate::install::text;

/// A kind of object.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Managed {
    /// Its group; empty is the core group.
    pub group: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Its name.
    pub kind: &'static str,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
    /// Whether every cluster has it.
    pub built_in: bool,
}

const fn kind(group: &'static str, version: &'static str, kind: &'static str, namespaced: bool) -> Managed {
    Managed { group, version, kind, namespaced, built_in: true }
}

/// All kinds, in the order in which objects are deleted: first those that would hold up others.
pub const KINDS: [Managed; 15] = [
    kind("admissionregistration.k8s.io", "v1", "MutatingWebhookConfiguration", false),
    kind("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration", false),
    kind("autoscaling", "v2", "HorizontalPodAutoscaler", true),
    kind("policy", "v1", "PodDisruptionBudget", true),
    kind("apps", "v1", "Deployment", true),
    kind("", "v1", "Service", true),
    Managed { built_in: false, ..kind("monitoring.coreos.com", "v1", "ServiceMonitor", true) },
    kind("", "v1", "ConfigMap", true),
    kind("rbac.authorization.k8s.io", "v1", "RoleBinding", true),
    kind("rbac.authorization.k8s.io", "v1", "Role", true),
    kind("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", false),
    kind("rbac.authorization.k8s.io", "v1", "ClusterRole", false),
    kind("", "v1", "ServiceAccount", true),
    kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition", false),
    kind("", "v1", "Namespace", false),
];

impl Managed {
    /// The kind of an object; none for one that no chart makes.
    pub fn of(object: &Value) -> Option<&'static Self> {
        let (group, _) = group_and_version(text(object, "/apiVersion"));
        KINDS.iter().find(|managed| managed.group == group && managed.kind == text(object, "/kind"))
    }

    /// Where an apiserver has it.
    pub fn resource(&self) -> ApiResource {
        ApiResource::from_gvk(&GroupVersionKind::gvk(self.group, self.version, self.kind))
    }
}
