//! Selectors and target references of policies.

use mesh_api::security::{PolicyTargetReference, WorkloadSelector};

use super::Told;
use crate::model::attachment::Attachment;
use crate::model::service::labels;

const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// Lowers what a policy says about the workloads that it is for. `target` is the older form of `targets`.
pub(super) fn attachment(
    selector: Option<&WorkloadSelector>,
    target: Option<&PolicyTargetReference>,
    targets: &[PolicyTargetReference],
    told: &mut Told<'_>,
) -> Attachment {
    let targets: Vec<(String, &PolicyTargetReference)> = match (targets, target) {
        ([], Some(only)) => vec![("spec.targetRef".to_owned(), only)],
        (list, _) => list.iter().enumerate().map(|(i, target)| (format!("spec.targetRefs[{i}]"), target)).collect(),
    };
    if targets.is_empty() {
        return Attachment::Selected(selector.map(|s| labels(Some(&s.match_labels))).unwrap_or_default());
    }
    let mut gateways = Vec::new();
    for (path, target) in targets {
        if target.group != GATEWAY_API || target.kind != "Gateway" {
            let what =
                format!("no proxy here follows policies of a {}, only of a Gateway of {GATEWAY_API}", target.kind);
            told.unsupported(path, &what);
        } else if !target.namespace.is_empty() && target.namespace != *told.object.namespace {
            told.error(
                "OtherNamespace",
                format!("{path}.namespace"),
                "a policy can only be for objects of its own namespace",
            );
        } else {
            gateways.push(target.name.as_str().into());
        }
    }
    Attachment::Gateways(gateways)
}
