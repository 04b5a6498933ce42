//! DestinationRule, from written to meant.
//!
//! A value that cannot be meant (a negative limit, a port of 0) is left out and said; the rest of the rule stands. What
//! Istio's validation refuses but an apiserver without webhook lets through ends here, not in a NACK of the data plane.

pub(crate) mod policy;
pub(crate) mod pool;

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_api::networking::DestinationRule as Written;
use mesh_api::{FieldPath, Name, ObjectRef};

pub(crate) use policy::{locality_settings, outlier_detection, zone_aware};
pub(crate) use pool::{connection_pool, tcp_keepalive};

use super::{Lowered, Told, created};
use crate::model::destination_rule::{DestinationRule, Origin, Subset};
use crate::model::{InNamespace, Labels, Settings, Visibility};
use crate::snapshot::Row;

/// What the rule means.
pub(crate) fn lower(rule: &Written, settings: &Settings) -> Lowered {
    let namespace = rule.metadata.namespace.as_deref().unwrap_or_default();
    let name = rule.metadata.name.as_deref().unwrap_or_default();
    let source = ObjectRef::new("DestinationRule", namespace, name);
    let mut told = Told::about(&source);
    let spec = FieldPath::new("spec");
    if rule.spec.host.is_empty() {
        told.error("MissingHost", spec.field("host").as_str(), "a rule needs a host; name the service that it is for");
    }
    let selector = rule.spec.workload_selector.as_ref().map(|s| labels(&s.match_labels));
    let written = Visibility::parse(&rule.spec.export_to, &source.namespace);
    let private = || Visibility::Namespaces([source.namespace.clone()].into());
    if selector.is_some() && written != Visibility::Default && written != private() {
        told.warning(
            "SelectorIsPrivate",
            spec.field("exportTo").as_str(),
            "a rule with a workloadSelector holds in its own namespace only; remove exportTo, or the selector",
        );
    }
    let policy = rule.spec.traffic_policy.as_ref();
    let policy = policy.map(|p| policy::traffic_policy(p, &spec.field("trafficPolicy"), &mut told));
    let mut names = BTreeSet::new();
    let mut subsets = Vec::new();
    for (i, subset) in rule.spec.subsets.iter().enumerate() {
        let path = spec.field("subsets").index(i);
        if subset.name.is_empty() {
            told.error(
                "MissingSubsetName",
                path.field("name").as_str(),
                "a subset that has no name cannot be routed to",
            );
        } else if !names.insert(subset.name.as_str()) {
            let message = format!("subset {:?} is defined twice; the first one holds, rename this one", subset.name);
            told.error("DuplicateSubset", path.field("name").as_str(), message);
        } else {
            let own = subset.traffic_policy.as_ref();
            let policy = own.map(|p| policy::traffic_policy(p, &path.field("trafficPolicy"), &mut told));
            subsets.push(Arc::new(Subset {
                name: subset.name.as_str().into(),
                labels: labels(&subset.labels),
                policy,
                origin: origin(&told, &path),
            }));
        }
    }
    let lowered = DestinationRule {
        merged: Vec::new(),
        created: created(&rule.metadata),
        host: settings.resolve_short_name(&rule.spec.host, namespace),
        export_to: if selector.is_some() { private() } else { written },
        selector,
        policy,
        subsets,
        source: source.clone(),
    };
    Lowered {
        rows: vec![Row::DestinationRule(InNamespace::from(&source), Arc::new(lowered))],
        diagnostics: told.diagnostics,
    }
}

fn origin(told: &Told<'_>, path: &FieldPath) -> Origin {
    Origin { object: told.object.clone(), path: path.clone() }
}

fn labels(written: &std::collections::BTreeMap<String, String>) -> Labels {
    written.iter().map(|(k, v)| (Name::from(k.as_str()), Name::from(v.as_str()))).collect()
}
