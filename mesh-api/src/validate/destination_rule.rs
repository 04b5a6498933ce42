//! DestinationRule: the host, its subsets, and for whom the rule is.

use std::collections::HashSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::at::At;
use super::labels::{Exported, export_to, labels, selector};
use super::virtual_service::subset_name;
use super::{hosts, namespace, traffic_policy};
use crate::networking::DestinationRuleSpec;

pub(super) fn check(at: &At<'_>, metadata: &ObjectMeta, spec: &DestinationRuleSpec) {
    let namespace = namespace(metadata);
    at.field("host").check("InvalidHost", hosts::wildcard_domain(&spec.host));
    traffic_policy::check(at, spec.traffic_policy.as_ref(), namespace);
    let mut names = HashSet::new();
    for (index, subset) in spec.subsets.iter().enumerate() {
        let list = at.field("subsets");
        let at = list.index(index);
        if !names.insert(subset.name.as_str()) {
            let message = format!("duplicate subset names: {}; give each subset a name of its own", subset.name);
            at.field("name").error("DuplicateValue", message);
        }
        subset_name(&at, "name", &subset.name);
        labels(&at, "labels", &subset.labels);
        traffic_policy::check(&at, subset.traffic_policy.as_ref(), namespace);
    }
    let exported = if spec.workload_selector.is_some() { Exported::RuleForSomeClients } else { Exported::Rule };
    export_to(at, namespace, &spec.export_to, exported);
    selector(at, "workloadSelector", spec.workload_selector.as_ref());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::networking::DestinationRule;
    use crate::validate::testing::check;

    #[test]
    fn hosts_subsets_and_clients() {
        check::<DestinationRule>(&[
            (
                json!({"host": "reviews", "subsets": [{"name": "foo", "labels": {"version": "v1"}}, {"name": "bar"}]}),
                &[],
            ),
            (json!({"host": ""}), &["E spec.host: an empty domain name"]),
            (json!({"host": "foo.*.com"}), &["E spec.host: domain name"]),
            (
                json!({"host": "a", "subsets": [{"name": "foo"}, {"name": "foo"}]}),
                &["E spec.subsets[1].name: duplicate subset names: foo"],
            ),
            (json!({"host": "a", "subsets": [{}]}), &["E spec.subsets[0].name: subset name cannot be empty"]),
            (json!({"host": "a", "subsets": [{"name": "a_b"}]}), &["E spec.subsets[0].name: subset name is invalid"]),
            (
                json!({"host": "a", "subsets": [{"name": "a", "labels": {".": "b"}}]}),
                &["E spec.subsets[0].labels..: invalid tag key"],
            ),
            (
                json!({"host": "a", "subsets": [{"name": "a", "trafficPolicy": {}}]}),
                &["E spec.subsets[0].trafficPolicy: traffic policy must have at least one field"],
            ),
            (
                json!({"host": "a", "exportTo": ["*"], "workloadSelector": {"matchLabels": {"a": "b"}}}),
                &["E spec.exportTo: destination rule with workload selector"],
            ),
            (
                json!({"host": "a", "workloadSelector": {}}),
                &["W spec.workloadSelector: workload selector specified without labels"],
            ),
            (
                json!({"host": "a", "workloadSelector": {"matchLabels": {"": "b*"}}}),
                &["an empty key is not supported", "a wildcard is not supported in a selector: \"=b*\""],
            ),
        ]);
    }
}
