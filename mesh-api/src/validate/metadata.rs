//! What is true of all metadata: annotations that only Istio itself may set, and the one for a dry run.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::at::At;
use crate::security::Action;

const DRY_RUN: &str = "istio.io/dry-run";

/// Annotations that nobody may set, with the reason.
const FORBIDDEN: [(&str, &str); 3] = [
    (
        "internal.istio.io/webhook-always-reject",
        "annotation found, rejecting: it is there to test that this is refused",
    ),
    ("internal.istio.io/parent-namespace", "annotation found, this may not be set by users; remove it"),
    ("internal.istio.io/parents", "annotation found, this may not be set by users; remove it"),
];

/// False if the metadata is wrong; then nothing else is said of the object.
pub(super) fn check(at: &At<'_>, metadata: &ObjectMeta) -> bool {
    let dry_run = annotation(metadata, DRY_RUN).is_some();
    if dry_run {
        refuse(at, DRY_RUN, format!("unsupported annotation {DRY_RUN}, please remove the annotation"));
    }
    !dry_run & users(at, metadata)
}

/// [`check`] for an AuthorizationPolicy, which alone may run dry.
pub(super) fn check_policy(at: &At<'_>, metadata: &ObjectMeta, action: Action) -> bool {
    const BOOLEANS: [&str; 12] = ["1", "t", "T", "TRUE", "true", "True", "0", "f", "F", "FALSE", "false", "False"];
    let problem = match (annotation(metadata, DRY_RUN), action) {
        (None, _) => None,
        (Some(value), Action::Allow | Action::Deny) => (!BOOLEANS.contains(&value))
            .then(|| format!("annotation {DRY_RUN} with invalid value ({value}); write \"true\" or \"false\"")),
        (Some(_), Action::Audit | Action::Custom) => {
            Some(format!("the annotation {DRY_RUN} currently only supports action ALLOW/DENY; remove it"))
        }
    };
    let fits = problem.is_none();
    if let Some(problem) = problem {
        refuse(at, DRY_RUN, problem);
    }
    fits & users(at, metadata)
}

/// The value of an annotation.
pub(super) fn annotation<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

fn users(at: &At<'_>, metadata: &ObjectMeta) -> bool {
    let mut fits = true;
    for (name, why) in FORBIDDEN {
        if annotation(metadata, name).is_some() {
            fits = false;
            refuse(at, name, format!("{name:?} {why}"));
        }
    }
    fits
}

fn refuse(at: &At<'_>, annotation: &str, message: String) {
    at.field("metadata").field("annotations").field(annotation).error("ForbiddenAnnotation", message);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::security::{AuthorizationPolicy, PeerAuthentication};
    use crate::validate::testing::{object, problems};

    #[test]
    fn annotations() {
        for (name, value, problem) in [
            ("istio.io/dry-run", "true", true),
            ("internal.istio.io/webhook-always-reject", "", true),
            ("internal.istio.io/parents", "a", true),
            ("internal.istio.io/parent-namespace", "a", true),
            ("istio.io/rev", "a", false),
        ] {
            let mut written: PeerAuthentication = object(json!({"selector": {}}));
            written.metadata.annotations = Some([(name.to_owned(), value.to_owned())].into());
            let found = problems(&written);
            // What else is wrong isn't told.
            assert_eq!(found.iter().any(|p| p.contains("ForbiddenAnnotation")), problem, "{name}: {found:?}");
            assert_eq!(found.len(), 1, "{found:?}");
        }
    }

    #[test]
    fn only_allow_and_deny_run_dry() {
        for (action, value, fits) in [
            ("ALLOW", "true", true),
            ("DENY", "F", true),
            ("ALLOW", "yes", false),
            ("AUDIT", "true", false),
            ("CUSTOM", "true", false),
        ] {
            let mut policy: AuthorizationPolicy = object(
                json!({"action": action, "rules": [{}], "provider": (action == "CUSTOM").then_some(json!({"name": "p"}))}),
            );
            policy.metadata.annotations = Some([("istio.io/dry-run".to_owned(), value.to_owned())].into());
            assert_eq!(problems(&policy).is_empty(), fits, "{action} {value}: {:?}", problems(&policy));
        }
    }
}
