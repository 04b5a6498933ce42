//! The definition of a kind for an apiserver, made from its Rust type alone: no list of fields is kept beside the types.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use super::message::camel_case;

/// What a definition says beyond the type.
#[derive(Clone, Copy, Default)]
pub(crate) struct Serving {
    /// Versions that are served with the same schema as the type's own.
    pub(crate) older: &'static [&'static str],
    /// The version in which objects are stored. Default: the type's own.
    pub(crate) stored: Option<&'static str>,
    /// Whether an object without a spec is refused.
    pub(crate) spec_required: bool,
}

/// The definition of `K`.
pub(crate) fn crd<K: CustomResourceExt>(serving: Serving) -> CustomResourceDefinition {
    let mut crd = K::crd();
    let names = &mut crd.spec.names;
    names.list_kind = Some(format!("{}List", names.kind));
    let Some(mut own) = crd.spec.versions.pop() else { return crd };
    if let Some(schema) = own.schema.as_mut().and_then(|validation| validation.open_api_v3_schema.as_mut()) {
        finish(schema, serving.spec_required);
    }
    let stored = serving.stored.unwrap_or(&own.name).to_owned();
    for name in std::iter::once(own.name.clone()).chain(serving.older.iter().map(|name| (*name).to_owned())) {
        let mut version = own.clone();
        version.storage = name == stored;
        version.name = name;
        crd.spec.versions.push(version);
    }
    crd
}

fn finish(schema: &mut JSONSchemaProps, spec_required: bool) {
    schema.title = None;
    let mut fields = BTreeSet::new();
    each(schema, &mut |schema| fields.extend(schema.properties.iter().flat_map(BTreeMap::keys).cloned()));
    each(schema, &mut |schema| {
        schema.description = schema.description.as_deref().map(|text| description(text, &fields));
    });
    schema.required = spec_required.then(|| vec!["spec".to_owned()]);
    if let Some(status) = schema.properties.as_mut().and_then(|properties| properties.get_mut("status")) {
        status.x_kubernetes_preserve_unknown_fields = Some(true);
        // kube says of all that has no type that it may be `null`.
        each(status, &mut |schema| schema.nullable = None);
    }
}

/// Makes an apiserver keep fields that the schema doesn't have, instead of dropping them.
pub(crate) fn keep_unknown_fields(schema: &mut JSONSchemaProps) {
    each(schema, &mut |schema| {
        if schema.properties.is_some() {
            schema.x_kubernetes_preserve_unknown_fields = Some(true);
        }
    });
}

/// Calls `see` for a schema and every schema of a value inside.
fn each(schema: &mut JSONSchemaProps, see: &mut impl FnMut(&mut JSONSchemaProps)) {
    see(schema);
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(|inner| each(inner, see));
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        each(items, see);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        each(values, see);
    }
}

/// Our documentation as its readers on a cluster need it: without the example in Rust, without our line breaks, and with
/// fields named as they are written.
fn description(text: &str, fields: &BTreeSet<String>) -> String {
    let text = text.split("\n\n```").next().unwrap_or_default();
    let unwrapped = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " ")).collect::<Vec<_>>().join("\n\n");
    let words = unwrapped.split('`').map(|word| fields.get(&camel_case(word)).map_or(word, String::as_str));
    words.collect::<Vec<_>>().join("`")
}
