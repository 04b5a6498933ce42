//! PeerAuthentication: modes for single ports need workloads to whom the ports belong.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::at::At;
use super::labels::selector;
use super::net;
use crate::security::PeerAuthenticationSpec;

pub(super) fn check(at: &At<'_>, _: &ObjectMeta, spec: &PeerAuthenticationSpec) {
    let chooses = spec.selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty());
    if !chooses && !spec.port_level_mtls.is_empty() {
        at.field("portLevelMtls").error(
            "MissingSelector",
            "mesh/namespace peer authentication cannot have port level mTLS; choose workloads with a selector",
        );
    }
    for port in spec.port_level_mtls.keys() {
        at.field("portLevelMtls").field(&port.to_string()).check("InvalidPort", net::port(*port));
    }
    selector(at, "selector", spec.selector.as_ref());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::security::PeerAuthentication;
    use crate::validate::testing::check;

    #[test]
    fn ports_belong_to_workloads() {
        check::<PeerAuthentication>(&[
            (json!({}), &[]),
            (json!({"selector": {"matchLabels": {"app": "a"}}, "portLevelMtls": {"8080": {"mode": "STRICT"}}}), &[]),
            (json!({"portLevelMtls": {"8080": {}}}), &["E spec.portLevelMtls: mesh/namespace peer authentication"]),
            (
                json!({"selector": {"matchLabels": {"app": "a"}}, "portLevelMtls": {"0": {}}}),
                &["E spec.portLevelMtls.0: port number 0"],
            ),
            (json!({"selector": {}}), &["W spec.selector: workload selector specified without labels"]),
            (
                json!({"selector": {"matchLabels": {"a": "*"}}}),
                &["E spec.selector.matchLabels.a: a wildcard is not supported"],
            ),
        ]);
    }
}
