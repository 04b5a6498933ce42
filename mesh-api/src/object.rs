//! One type for everything that the mesh accepts: Istio's kinds, Gateway API's, the parts of Kubernetes that matter to
//! a mesh, and whatever else a folder holds.
//!
//! An object is as written, shared and immutable. Kinds that are not ours are carried, never refused: only an unserved
//! version of a kind that *is* ours is a mistake.

mod kinds;
mod versions;

pub use kinds::{KINDS, Object};
pub(crate) use versions::served;
pub use versions::{Served, V1Alpha1, V1Alpha3, V1Beta1, Version};

use std::cmp::Ordering;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::DynamicObject;
use kube::core::object::{HasSpec, HasStatus};
use serde::Deserialize;
use serde::de::Error;
use serde_json::Value as Json;

use crate::document::at::{self, TypeError, Unknown};
use crate::document::de;
use crate::document::{Mark, Node, Value};
use crate::types::message::{self, Field};
use crate::{FieldPath, Name, ObjectRef};

/// The namespace of a document that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// A kind that we read into a type of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Kind {
    /// What an [`ObjectRef`] calls it: the kind, or `kind.group` where two groups share the kind.
    pub name: &'static str,
    /// `networking.istio.io`; empty for the core group.
    pub group: &'static str,
    /// The kind as the user writes it.
    pub kind: &'static str,
    /// The served versions, the preferred one first.
    pub versions: &'static [&'static str],
    /// False for kinds that belong to the cluster, such as Namespace.
    pub namespaced: bool,
}

impl Kind {
    /// The kind of a group, in whatever version.
    pub fn find(group: &str, kind: &str) -> Option<&'static Kind> {
        KINDS.iter().find(|k| k.kind == kind && k.group == group)
    }
}

/// An object of a kind that is not ours, or not yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Other {
    /// `group/version`, or the version alone.
    pub api_version: String,
    /// The kind as written.
    pub kind: String,
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// The whole document.
    pub content: Json,
}

/// Why a tree is no object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
#[non_exhaustive]
pub struct NotAnObject {
    /// The field that is wrong; empty for the object as a whole.
    pub path: FieldPath,
    /// Where it is, unknown for what comes from no text.
    pub mark: Mark,
    /// What is wrong and what would be right.
    pub message: String,
    /// The code for a [`crate::Diagnostic`].
    pub code: &'static str,
}

impl From<TypeError> for NotAnObject {
    fn from(error: TypeError) -> Self {
        let (path, mark, message) = error.into_parts();
        Self { path, mark, message, code: "InvalidField" }
    }
}

/// Splits `group/version`; the core group is empty.
pub fn group_and_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

impl Object {
    /// Reads an object of the given kind; beside it, the fields that its kind does not have. Without a namespace it is
    /// in `default`, or in none where its kind belongs to the cluster.
    ///
    /// # Errors
    /// Where a value does not fit its field, or the version of one of our kinds is not served.
    pub fn from_node(
        api_version: &str,
        kind: &str,
        node: &Node<'_>,
    ) -> Result<(Self, Vec<(FieldPath, Mark)>), NotAnObject> {
        let (group, version) = group_and_version(api_version);
        let Some(known) = Kind::find(group, kind) else {
            return if is_group_of_ours(group) {
                Err(NotAnObject {
                    path: FieldPath::new("kind"),
                    mark: node.locate("kind"),
                    message: format!("{group} has no kind {kind}"),
                    code: "UnknownKind",
                })
            } else {
                other(api_version, kind, node)
            };
        };
        if !known.versions.contains(&version) {
            let served: Vec<String> = known
                .versions
                .iter()
                .map(|v| if group.is_empty() { (*v).to_owned() } else { format!("{group}/{v}") })
                .collect();
            return Err(NotAnObject {
                path: FieldPath::new("apiVersion"),
                mark: node.locate("apiVersion"),
                message: format!("{kind} is not served as {api_version}; write {}", served.join(" or ")),
                code: "UnservedVersion",
            });
        }
        let (object, mut unknown) = Self::typed(known, node)?;
        // Types of custom resources do not carry these two: they say which type to read.
        unknown.retain(|(path, _)| !matches!(path.as_str(), "apiVersion" | "kind"));
        Ok((object, unknown))
    }

    /// [`Object::from_node`] for a value that says its kind itself, without places.
    ///
    /// # Errors
    /// As there.
    pub fn from_value(value: &Json) -> Result<Self, NotAnObject> {
        let text = |key: &'static str| match value.get(key).and_then(Json::as_str) {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(NotAnObject {
                path: FieldPath::new(key),
                mark: Mark::default(),
                message: format!("not a Kubernetes object: {key} is missing"),
                code: "NotAnObject",
            }),
        };
        Self::from_node(text("apiVersion")?, text("kind")?, &Node::from_json(value)).map(|(object, _)| object)
    }

    /// The object's name in diagnostics, tables and indices.
    pub fn object_ref(&self) -> ObjectRef {
        let metadata = self.metadata();
        ObjectRef {
            kind: self.kind_name(),
            namespace: Name::from(metadata.namespace.as_deref().unwrap_or_default()),
            name: Name::from(metadata.name.as_deref().unwrap_or_default()),
        }
    }

    /// Istio's order wherever the elder wins: creation, then namespace, then name. An object that does not say when it
    /// was made counts as the eldest.
    pub fn cmp_age(&self, other: &Self) -> Ordering {
        age(self.metadata()).cmp(&age(other.metadata()))
    }
}

impl TryFrom<&DynamicObject> for Object {
    type Error = NotAnObject;
    /// Reads what a client got without knowing its kind, in whichever served version.
    fn try_from(object: &DynamicObject) -> Result<Self, NotAnObject> {
        // A dynamic object is JSON and metadata, so it can be written.
        Self::from_value(&serde_json::to_value(object).unwrap_or_default())
    }
}

/// The key of Istio's order: creation time, namespace, name.
pub fn age(metadata: &ObjectMeta) -> impl Ord + '_ {
    (metadata.creation_timestamp.as_ref(), metadata.namespace.as_deref(), metadata.name.as_deref())
}

fn other(api_version: &str, kind: &str, node: &Node<'_>) -> Result<(Object, Unknown), NotAnObject> {
    let nothing = Node { value: Value::Null, mark: node.mark };
    let (mut metadata, _) = de::from_node::<ObjectMeta>(node.get("metadata").unwrap_or(&nothing)).map_err(|error| {
        let mut error = NotAnObject::from(error);
        let path = error.path.as_str();
        error.path = FieldPath::new(if path.is_empty() { "metadata".to_owned() } else { format!("metadata.{path}") });
        error
    })?;
    place(&mut metadata, !CLUSTER_SCOPED.contains(&kind));
    let content = node.to_json();
    Ok((
        Object::Other(std::sync::Arc::new(Other {
            api_version: api_version.into(),
            kind: kind.into(),
            metadata,
            content,
        })),
        Vec::new(),
    ))
}

/// True for Istio's groups: a kind of theirs that is not in the table is misspelt, and no apiserver would take it.
fn is_group_of_ours(group: &str) -> bool {
    group.ends_with(".istio.io") && KINDS.iter().any(|known| known.group == group)
}

/// Reads an object of one of Istio's kinds. Its spec may be left out; then it says nothing.
fn istio<K>(node: &Node<'_>) -> Result<(K, Unknown), TypeError>
where
    K: Resource + HasSpec + HasStatus + Default,
    K::Spec: Field,
    K::Status: Field,
{
    let mut object = K::default();
    let mut has_metadata = false;
    let ((), unknown) = at::read(node, |at| {
        at.fields(&mut |name, at| match name {
            name if name.means("metadata") => {
                *object.meta_mut() = ObjectMeta::deserialize(*at)?;
                has_metadata = true;
                Ok(Some("metadata"))
            }
            name if name.means("spec") => message::set(object.spec_mut(), "spec", at),
            name if name.means("status") => message::set(object.status_mut(), "status", at),
            _ => Ok(None),
        })
    })?;
    if has_metadata { Ok((object, unknown)) } else { Err(TypeError::custom("missing field `metadata`")) }
}

fn place(metadata: &mut ObjectMeta, namespaced: bool) {
    if !namespaced {
        metadata.namespace = None;
    } else if metadata.namespace.as_deref().unwrap_or_default().is_empty() {
        metadata.namespace = Some(DEFAULT_NAMESPACE.to_owned());
    }
}

/// Which object a text is about, as far as it says so; none without a kind and a name.
pub(crate) fn reference(api_version: &str, kind: &str, namespace: &str, name: &str) -> Option<ObjectRef> {
    if kind.is_empty() || name.is_empty() {
        return None;
    }
    let known = Kind::find(group_and_version(api_version).0, kind);
    let namespaced = known.map_or_else(|| !CLUSTER_SCOPED.contains(&kind), |k| k.namespaced);
    let namespace = match (namespaced, namespace) {
        (false, _) => "",
        (true, "") => DEFAULT_NAMESPACE,
        (true, namespace) => namespace,
    };
    Some(ObjectRef::new(known.map_or(kind, |k| k.name), namespace, name))
}

/// Kinds of Kubernetes that have no namespace, among those that we do not read.
const CLUSTER_SCOPED: &[&str] = &[
    "APIService",
    "CSIDriver",
    "CSINode",
    "CertificateSigningRequest",
    "ClusterFederatedTrustDomain",
    "ClusterIssuer",
    "ClusterRole",
    "ClusterRoleBinding",
    "ClusterSPIFFEID",
    "ClusterTrustBundle",
    "CustomResourceDefinition",
    "FlowSchema",
    "IngressClass",
    "MutatingAdmissionPolicy",
    "MutatingWebhookConfiguration",
    "PersistentVolume",
    "PodSecurityPolicy",
    "PriorityClass",
    "PriorityLevelConfiguration",
    "RuntimeClass",
    "StorageClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
    "VolumeAttachment",
];
