//! PeerAuthentication: modes for single ports need workloads to whom the ports belong.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::at::At;
use super::labels::selector;
use super::net;
use crate::security::PeerAuthenticationSpec;

pub(super) fn check(at: &At<'_>, _: &ObjectMeta, spec: &PeerAuthenticationSpec) {
    let chooses = spec.selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty());
    if let Some(ports) = &spec.port_level_mtls {
        let at = at.field("portLevelMtls");
        at.refuse(
            !chooses && !ports.is_empty(),
            "MissingSelector",
            "mesh/namespace peer authentication cannot have port level mTLS; choose workloads with a selector",
        );
        at.refuse(
            ports.is_empty(),
            "EmptyValue",
            "port level mTLS, if defined, must have at least one element; name a port or remove the field",
        );
        for port in ports.keys() {
            at.field(&port.to_string()).check("InvalidPort", net::port(*port));
        }
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
            (
                json!({"selector": {"matchLabels": {"app": "a"}}, "portLevelMtls": {}}),
                &["E spec.portLevelMtls: port level mTLS, if defined, must have at least one element"],
            ),
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
