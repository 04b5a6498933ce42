//! The definition of a kind for an apiserver, made from its Rust type alone: no list of fields is kept beside the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::CustomResourceExt;

/// The definition of `K`. Its own version is the stored one; `older` are served with the same schema. `spec_required`
/// tells whether an object without a spec is refused.
pub(crate) fn crd<K: CustomResourceExt>(older: &[&str], spec_required: bool) -> CustomResourceDefinition {
    let mut crd = K::crd();
    let names = &mut crd.spec.names;
    names.list_kind = Some(format!("{}List", names.kind));
    if let Some(stored) = crd.spec.versions.first_mut()
        && let Some(schema) = stored.schema.as_mut().and_then(|validation| validation.open_api_v3_schema.as_mut())
    {
        finish(schema, spec_required);
    }
    let Some(stored) = crd.spec.versions.first().cloned() else { return crd };
    for version in older {
        let mut served = stored.clone();
        served.name = (*version).to_owned();
        served.storage = false;
        crd.spec.versions.push(served);
    }
    crd
}

fn finish(schema: &mut JSONSchemaProps, spec_required: bool) {
    schema.title = None;
    schema.required = spec_required.then(|| vec!["spec".to_owned()]);
    if let Some(status) = schema.properties.as_mut().and_then(|properties| properties.get_mut("status")) {
        status.x_kubernetes_preserve_unknown_fields = Some(true);
        never_null(status);
    }
}

/// Takes back that a value may be `null`, which kube says of all that has no type.
fn never_null(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(never_null);
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        never_null(items);
    }
}
