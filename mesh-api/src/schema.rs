//! What an apiserver would say of an object, without an apiserver: the schema of its definition and the rules in it,
//! evaluated here, with the apiserver's words.
//!
//! The steps are those of a creation: the object is decoded (unknown fields named and dropped, nulls that no field takes
//! dropped, defaults set), its metadata checked, its values held against the schema, lists that are sets or maps looked
//! through for duplicates, and last, unless something was wrong that rules could stumble over, the rules are evaluated.
//! Rules about a change (`oldSelf`) are passed over, as in any creation.
//!
//! # Invariants
//! - Definitions are compiled once. A bad expression in one is told of each object that it would have to judge, as an
//!   apiserver does; it never stops the others.
//! - Work is bounded by the size of object and schema; rules have the apiserver's budget.

mod cel;
mod check;
mod decode;
mod formats;
mod lists;
mod metadata;
mod node;
mod numbers;
mod problem;
mod rules;

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionVersion,
};
use serde_json::Value as Json;

use crate::object::{group_and_version, reference};
use crate::{Diagnostic, FieldPath};
use node::Node;
use problem::Problem;

/// Whether a text can be read as an expression, whatever is in it.
///
/// # Errors
/// Says where it ceases to be one.
pub(crate) fn expression(text: &str) -> Result<(), String> {
    match cel::Program::compile(text) {
        Err(fault) if fault.is_syntax() => Err(fault.to_string()),
        _ => Ok(()),
    }
}

/// Says what an apiserver that has some definitions would say of objects.
///
/// ```
/// use mesh_api::schema::Validator;
/// let told = Validator::new().validate(&serde_json::json!({
///     "apiVersion": "security.istio.io/v1",
///     "kind": "PeerAuthentication",
///     "metadata": {"name": "default", "namespace": "bookinfo"},
///     "spec": {"mtls": {"mode": "STRIKT"}},
/// }));
/// assert_eq!(told[0].path.as_str(), "spec.mtls.mode");
/// assert_eq!(
///     told[0].message,
///     "Unsupported value: \"STRIKT\": supported values: \"UNSET\", \"DISABLE\", \"PERMISSIVE\", \"STRICT\""
/// );
/// ```
#[derive(Debug, Clone)]
pub struct Validator {
    versions: HashMap<Served, Arc<Version>>,
}

/// Group, version and kind.
type Served = (String, String, String);

/// What a version says of its objects.
#[derive(Debug)]
struct Version {
    schema: Node,
    /// A creation drops the status where it is a subresource.
    has_status: bool,
}

impl Default for Validator {
    fn default() -> Self {
        Self::new()
    }
}

impl Validator {
    /// With the definitions of Istio's kinds, [`crate::crds`].
    pub fn new() -> Self {
        Self::with(&crate::crds())
    }

    /// With other definitions, such as those of a downstream operator's own kinds.
    pub fn with(crds: &[CustomResourceDefinition]) -> Self {
        let mut versions = HashMap::new();
        for crd in crds {
            let mut compiled: Vec<(&CustomResourceDefinitionVersion, Arc<Version>)> = Vec::new();
            for version in crd.spec.versions.iter().filter(|version| version.served) {
                // Versions mostly have one schema in common.
                let same = compiled
                    .iter()
                    .find(|(other, _)| other.schema == version.schema && other.subresources == version.subresources);
                let judge = same.map_or_else(|| Arc::new(Version::compile(version)), |(_, judge)| Arc::clone(judge));
                let served = (crd.spec.group.clone(), version.name.clone(), crd.spec.names.kind.clone());
                versions.insert(served, Arc::clone(&judge));
                compiled.push((version, judge));
            }
        }
        Self { versions }
    }

    /// True when it has a definition of the kind in this version (`networking.istio.io/v1`).
    pub fn knows(&self, api_version: &str, kind: &str) -> bool {
        self.find(api_version, kind).is_some()
    }

    fn find(&self, api_version: &str, kind: &str) -> Option<&Version> {
        let (group, version) = group_and_version(api_version);
        self.versions.get(&(group.to_owned(), version.to_owned(), kind.to_owned())).map(Arc::as_ref)
    }

    /// All that speaks against the object's creation; nothing for a kind or version without definition. The codes are the
    /// causes that an apiserver's answer has (`FieldValueRequired`, `FieldValueInvalid`, …) and `UnknownField`.
    pub fn validate(&self, object: &Json) -> Vec<Diagnostic> {
        let text = |key| object.get(key).and_then(Json::as_str).unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let Some(version) = self.find(api_version, kind) else { return Vec::new() };
        let named = |key| object.get("metadata").and_then(|metadata| metadata.get(key)).and_then(Json::as_str);
        let about =
            reference(api_version, kind, named("namespace").unwrap_or_default(), named("name").unwrap_or_default());
        let told = version.judge(object.clone()).into_iter().map(|problem| {
            let mut told = Diagnostic::error(problem.cause.code(), problem.message).at(FieldPath::new(problem.path));
            told.object.clone_from(&about);
            told
        });
        told.collect()
    }
}

impl Version {
    fn compile(version: &CustomResourceDefinitionVersion) -> Self {
        let schema = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
        let mut schema = schema.map(Node::compile).unwrap_or_default();
        // Every object has these, whatever its schema says.
        schema.embedded = true;
        let has_status = version.subresources.as_ref().is_some_and(|subresources| subresources.status.is_some());
        Self { schema, has_status }
    }

    fn judge(&self, mut object: Json) -> Vec<Problem> {
        let mut problems = decode::decode(&mut object, &self.schema);
        if self.has_status
            && let Some(fields) = object.as_object_mut()
        {
            fields.remove("status");
        }
        problems.extend(metadata::check(object.get("metadata")));
        problems.extend(check::check(&self.schema, &object));
        problems.extend(lists::check(&self.schema, &object));
        if problems.iter().any(|problem| problem.cause.blocks_rules()) {
            if self.schema.has_rules {
                problems.push(Problem::rules_not_checked());
            }
        } else {
            problems.extend(rules::check(&self.schema, &object));
        }
        problems
    }
}

#[cfg(test)]
mod tests;
