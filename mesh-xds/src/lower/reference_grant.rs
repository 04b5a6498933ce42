//! ReferenceGrants, as far as they are about Secrets for Gateways.

use std::sync::Arc;

use gateway_api::experimental::referencegrants::ReferenceGrant as Written;
use mesh_api::Name;

use super::Lowered;
use crate::model::InNamespace;
use crate::model::reference_grant::ReferenceGrant;
use crate::snapshot::Row;

/// Lowers a ReferenceGrant; one for other kinds is no row.
pub(crate) fn reference_grant(object: &Written) -> Lowered {
    let is_gateway = |group: &str, kind: &str| group == "gateway.networking.k8s.io" && kind == "Gateway";
    let from = object.spec.from.iter().filter(|from| is_gateway(&from.group, &from.kind));
    let from: Vec<Name> = from.map(|from| Name::from(from.namespace.as_str())).collect();
    let secrets: Vec<_> = object.spec.to.iter().filter(|to| to.group.is_empty() && to.kind == "Secret").collect();
    if from.is_empty() || secrets.is_empty() {
        return Lowered::default();
    }
    // One entry without a name means all.
    let named = secrets.iter().map(|to| to.name.as_deref().map(Name::from)).collect();
    let key = InNamespace::new(
        object.metadata.namespace.as_deref().unwrap_or_default(),
        object.metadata.name.as_deref().unwrap_or_default(),
    );
    (vec![Row::ReferenceGrant(key, Arc::new(ReferenceGrant { from, secrets: named }))], Vec::new()).into()
}
