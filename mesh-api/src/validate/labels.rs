//! Labels, the selectors made of them, and the other ways in which an object says whom it is for: references to other
//! objects, and the namespaces that it is exported to.

use std::collections::{BTreeMap, HashSet};

use super::at::{At, Check};
use super::hosts::is_label;
use crate::types::{PolicyTargetReference, WorkloadSelector};

/// Labels that something bears or must bear.
pub(super) fn labels(at: &At<'_>, field: &str, labels: &BTreeMap<String, String>) {
    at.entries(field, labels, |at, key, value| {
        at.check("InvalidLabel", label_key(key));
        if !value.is_empty() && !is_qualified(value) {
            at.error("InvalidLabel", format!("invalid tag value {value:?}; {QUALIFIED}"));
        }
    });
}

const QUALIFIED: &str = "use letters, digits, -, _ and ., with a letter or digit at both ends";

fn label_key(key: &str) -> Check {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let label = |label: &str| {
        !label.starts_with('-')
            && !label.ends_with('-')
            && !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    if !is_qualified(name) || prefix.is_some_and(|prefix| !prefix.split('.').all(label)) {
        return Err(format!("invalid tag key {key:?}; {QUALIFIED}, after an optional DNS name and a /"));
    }
    if prefix.is_some_and(|prefix| prefix.len() > 253) {
        return Err(format!("invalid tag key {key:?}: the DNS name before the / is too long (max 253)"));
    }
    if name.len() > 63 {
        return Err(format!("invalid tag key {key:?}: the name is too long (max 63)"));
    }
    Ok(())
}

fn is_qualified(name: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    edge(name.as_bytes().first())
        && edge(name.as_bytes().last())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// The labels of a selector, which know no wildcards. False if one is wrong.
pub(super) fn selector_labels(at: &At<'_>, field: &str, labels: &BTreeMap<String, String>) -> bool {
    let mut fits = true;
    at.entries(field, labels, |at, key, value| {
        if key.is_empty() {
            fits = false;
            at.error(
                "InvalidSelector",
                format!("an empty key is not supported in a selector: \"={value}\"; name a label"),
            );
        }
        if key.contains('*') || value.contains('*') {
            fits = false;
            at.error(
                "InvalidSelector",
                format!("a wildcard is not supported in a selector: \"{key}={value}\"; write the label as it is"),
            );
        }
    });
    fits
}

/// What an older selector without labels is told; there it is `spec.workloadSelector.labels`.
pub(super) fn without_labels(at: &At<'_>) {
    at.warning(
        "EmptySelector",
        "workload selector specified without labels, will be applied to all services in namespace; name labels, or leave \
         the selector out if that is meant",
    );
}

/// The selector of a policy.
pub(super) fn selector(at: &At<'_>, field: &str, selector: Option<&WorkloadSelector>) {
    let Some(selector) = selector else { return };
    let at = at.field(field);
    selector_labels(&at, "matchLabels", &selector.match_labels);
    if selector.match_labels.is_empty() {
        at.warning(
            "EmptySelector",
            "workload selector specified without labels chooses every workload; name labels, or leave the selector out if \
             that is meant",
        );
    }
}

/// The three ways in which a policy chooses workloads, of which one may be used.
pub(super) fn policy_targets(
    at: &At<'_>,
    chosen: Option<&WorkloadSelector>,
    target: Option<&PolicyTargetReference>,
    targets: &[PolicyTargetReference],
) {
    if usize::from(chosen.is_some()) + usize::from(target.is_some()) + usize::from(!targets.is_empty()) > 1 {
        at.error("ConflictingFields", "only one of targetRefs and selector can be set; remove the others");
    }
    selector(at, "selector", chosen);
    if let Some(target) = target {
        target_ref(&at.field("targetRef"), target);
    }
    at.each("targetRefs", targets, target_ref);
}

/// Kinds that a policy can be attached to; the core group is written as nothing or as `core`.
const TARGETS: [(&str, &str); 4] = [
    ("core", "Service"),
    ("networking.istio.io", "ServiceEntry"),
    ("gateway.networking.k8s.io", "Gateway"),
    ("gateway.networking.k8s.io", "GatewayClass"),
];

fn target_ref(at: &At<'_>, target: &PolicyTargetReference) {
    at.field("name").refuse(target.name.is_empty(), "MissingName", "targetRef name must be set");
    at.field("namespace").refuse(
        !target.namespace.is_empty(),
        "InvalidTarget",
        "targetRef namespace must not be set: cross namespace referencing is not supported; put the policy into that namespace",
    );
    let group = if target.group.is_empty() { "core" } else { target.group.as_str() };
    if !TARGETS.contains(&(group, target.kind.as_str())) {
        let allowed = TARGETS.map(|(group, kind)| format!("{kind} ({group})")).join(", ");
        let written = format!("{}/{}", target.group, target.kind);
        at.error("InvalidTarget", format!("targetRef must be to one of {allowed}, but was {written}"));
    }
}

/// Whose `exportTo` it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Exported {
    /// Rules: VirtualServices and DestinationRules.
    Rule,
    /// A DestinationRule that some clients of its own namespace apply.
    RuleForSomeClients,
    /// A service, which may be exported to nobody.
    Service,
}

/// The namespaces that an object is exported to.
pub(super) fn export_to(at: &At<'_>, own: &str, list: &[String], what: Exported) {
    let at = at.field("exportTo");
    let mut seen: HashSet<&str> = HashSet::new();
    for (index, entry) in list.iter().enumerate() {
        let namespace = if entry == "." { own } else { entry.as_str() };
        let problem = if seen.contains(namespace) {
            let which =
                if entry == "." { format!(": . and current namespace {own}") } else { format!(" for entry {entry}") };
            ("DuplicateValue", format!("duplicate entries in exportTo{which}; keep one of them"))
        } else if namespace == "~" && what != Exported::Service {
            let what = "exportTo ~ (none) is not allowed for Istio configuration objects; write . or remove it";
            ("InvalidExport", what.to_owned())
        } else if !matches!(namespace, "*" | "~") && !is_label(namespace) {
            ("InvalidExport", format!("{entry:?} is not allowed in exportTo, only ., * or the name of a namespace"))
        } else {
            seen.insert(namespace);
            continue;
        };
        at.index(index).error(problem.0, problem.1);
    }
    if what == Exported::RuleForSomeClients && !seen.is_empty() {
        if !seen.contains(own) {
            at.error(
                "InvalidExport",
                "destination rule with workload selector cannot have exportTo beyond current namespace; write .",
            );
        } else if seen.len() > 1 {
            at.error(
                "InvalidExport",
                "destination rule with workload selector cannot have multiple entries in exportTo; keep .",
            );
        }
    }
    if seen.contains("*") && list.len() > 1 {
        at.error(
            "ConflictingFields",
            "cannot have both public (*) and non-public exportTo values; keep * alone or remove it",
        );
    }
    if seen.contains("~") && list.len() > 1 {
        at.error(
            "ConflictingFields",
            "cannot export service entry to no one (~) and someone; keep ~ alone or remove it",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::at::Findings;

    #[test]
    fn keys_and_values_of_labels() {
        for (key, fits) in [
            ("app", true),
            ("app.kubernetes.io/name", true),
            ("a_b.c-D", true),
            ("", false),
            (".", false),
            ("/a", false),
            ("a/", false),
            ("-a/b", false),
            ("a..b/c", false),
            ("a b", false),
            ("é", false),
        ] {
            assert_eq!(label_key(key).is_ok(), fits, "{key}");
        }
        assert!(label_key(&"a".repeat(63)).is_ok() && label_key(&"a".repeat(64)).is_err());
        assert!(label_key(&format!("{}/a", "a.".repeat(127))).is_err());
    }

    #[test]
    fn exports() {
        use Exported::*;
        for (list, what, problems) in [
            (&[] as &[&str], Rule, 0),
            (&["."], Rule, 0),
            (&["*"], Service, 0),
            (&["a", "b"], Rule, 0),
            (&["~"], Service, 0),
            (&["~"], Rule, 1),
            (&["own", "."], Rule, 1),
            (&["a", "a"], Rule, 1),
            (&["*", "a"], Rule, 1),
            (&["~", "a"], Service, 1),
            (&["a_b"], Rule, 1),
            (&["."], RuleForSomeClients, 0),
            (&["own"], RuleForSomeClients, 0),
            (&["a"], RuleForSomeClients, 1),
            (&["a", "."], RuleForSomeClients, 1),
        ] {
            let list: Vec<String> = list.iter().map(|e| (*e).to_owned()).collect();
            let findings = Findings::default();
            export_to(&At::root(&findings), "own", &list, what);
            assert_eq!(findings.about(|| None).len(), problems, "{list:?}");
        }
    }
}
