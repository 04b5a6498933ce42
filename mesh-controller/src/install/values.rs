//! From an IstioOperator's values to those of a gateway's chart: Istio's operator has other names for them than Istio's
//! chart of one gateway, which ours follows.

use std::sync::LazyLock;

use mesh_api::{Diagnostic, FieldPath};
use serde_json::{Map, Value, json};

use super::{chart, schema, set};

/// The names under `values.gateways.istio-ingressgateway`, and those of the chart.
const GATEWAY: [(&str, &str); 29] = [
    ("name", "name"),
    ("labels", "labels"),
    ("replicaCount", "replicaCount"),
    ("autoscaleEnabled", "autoscaling.enabled"),
    ("autoscaleMin", "autoscaling.minReplicas"),
    ("autoscaleMax", "autoscaling.maxReplicas"),
    ("autoscaleBehavior", "autoscaling.autoscaleBehavior"),
    ("cpu.targetAverageUtilization", "autoscaling.targetCPUUtilizationPercentage"),
    ("memory.targetAverageUtilization", "autoscaling.targetMemoryUtilizationPercentage"),
    ("rollingMaxSurge", "strategy.rollingUpdate.maxSurge"),
    ("rollingMaxUnavailable", "strategy.rollingUpdate.maxUnavailable"),
    ("type", "service.type"),
    ("ports", "service.ports"),
    ("serviceAnnotations", "service.annotations"),
    ("loadBalancerIP", "service.loadBalancerIP"),
    ("loadBalancerSourceRanges", "service.loadBalancerSourceRanges"),
    ("externalTrafficPolicy", "service.externalTrafficPolicy"),
    ("externalIPs", "service.externalIPs"),
    ("ipFamilyPolicy", "service.ipFamilyPolicy"),
    ("ipFamilies", "service.ipFamilies"),
    ("serviceAccount.annotations", "serviceAccount.annotations"),
    ("podAnnotations", "podAnnotations"),
    ("resources", "resources"),
    ("env", "env"),
    ("nodeSelector", "nodeSelector"),
    ("tolerations", "tolerations"),
    ("topologySpreadConstraints", "topologySpreadConstraints"),
    ("securityContext", "securityContext"),
    ("volumes", "volumes"),
];

/// The schema of an IstioOperator's `values`: those of the charts that have them together, and the gateways'.
pub(super) static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let mut all = chart::MESHD.schema();
    merge_properties(&mut all, &chart::BASE.schema());
    for gateway in ["istio-ingressgateway", "istio-egressgateway"] {
        set(&mut all, &["properties", "gateways", "properties", gateway], json!({"type": "object"}));
    }
    all
});

fn merge_properties(all: &mut Value, other: &Value) {
    let Some(fields) = other.get("properties").and_then(Value::as_object) else { return };
    for (key, value) in fields {
        match all.pointer_mut("/properties").and_then(|known| known.get_mut(key)) {
            Some(known) => merge_properties(known, value),
            None => set(all, &["properties", key], value.clone()),
        }
    }
}

/// The values of the gateways' chart that these of the operator's stand for. What has no place there is told.
pub(super) fn gateway(mut written: Value, path: &FieldPath, told: &mut Vec<Diagnostic>) -> Value {
    let mut values = json!({});
    for (old, new) in GATEWAY {
        if let Some(value) = take(&mut written, &old.split('.').collect::<Vec<_>>()) {
            set(&mut values, &new.split('.').collect::<Vec<_>>(), value);
        }
    }
    // Whether it is there at all has been decided.
    take(&mut written, &["enabled"]);
    leaves(&written, path, &mut |path| told.push(schema::unsupported(path)));
    schema::fit(&chart::GATEWAY.schema(), values, path, told).unwrap_or_default()
}

/// Takes what is at a path of keys out of mappings.
fn take(root: &mut Value, path: &[&str]) -> Option<Value> {
    let (last, way) = path.split_last()?;
    way.iter().try_fold(root, |at, key| at.get_mut(*key))?.as_object_mut()?.remove(*last)
}

fn leaves(value: &Value, path: &FieldPath, see: &mut impl FnMut(FieldPath)) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| leaves(value, &path.field(key), see)),
        _ => see(path.clone()),
    }
}

/// The part of values that a chart knows.
pub(super) fn known_to(chart: &chart::Chart, values: &Value) -> Value {
    let unheard = &mut Vec::new();
    schema::fit(&chart.schema(), values.clone(), &FieldPath::default(), unheard).unwrap_or(Value::Object(Map::new()))
}
