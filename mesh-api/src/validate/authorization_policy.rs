//! AuthorizationPolicy: that each rule can match something, and that its values can be compared.

use super::at::{At, Check};
use super::labels::policy_targets;
use super::net;
use crate::security::{Action, ActionDetail, AuthorizationPolicySpec, Condition, Operation, Rule, Source};

pub(super) fn check(at: &At<'_>, spec: &AuthorizationPolicySpec) {
    policy_targets(at, spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs);
    action(at, spec);
    at.each("rules", &spec.rules, |at, written| {
        if spec.action == Action::Custom {
            custom_rule(at, written);
        }
        rule(at, written);
        if spec.action == Action::Deny && needs_http(written) {
            at.warning(
                "DeniesTcp",
                "configured AuthorizationPolicy will deny all traffic to TCP ports under its scope due to the use of only HTTP \
                 attributes in a DENY rule; it is recommended to explicitly specify the port in to.operation.ports",
            );
        }
    });
}

fn action(at: &At<'_>, spec: &AuthorizationPolicySpec) {
    let name = match spec.action {
        Action::Allow => "ALLOW",
        Action::Deny => "DENY",
        Action::Audit => "AUDIT",
        Action::Custom => "CUSTOM",
    };
    let provider = spec.action_detail.as_ref().map(|ActionDetail::Provider(provider)| provider);
    if matches!(spec.action, Action::Custom | Action::Deny) && spec.rules.is_empty() {
        let message = format!(
            "{name} action without `rules` is meaningless as it will never be triggered, add an empty rule `{{}}` if you want it be triggered for every request"
        );
        at.field("rules").error("MissingRule", message);
    } else if spec.action == Action::Custom && provider.is_none_or(|provider| provider.name.is_empty()) {
        at.field("provider")
            .field("name")
            .error("MissingProvider", "`provider.name` must not be empty; name one of the mesh's extensionProviders");
    }
    if spec.action != Action::Custom && provider.is_some() {
        let message =
            format!("`provider` must not be with non CUSTOM action, found {name}; remove it, or set action to CUSTOM");
        at.field("provider").error("ConflictingFields", message);
    }
}

/// What the filter that asks a provider cannot tell.
fn custom_rule(at: &At<'_>, rule: &Rule) {
    let refuse = |at: &At<'_>, name: &str| {
        let message = format!("{name} is currently not supported with CUSTOM action; remove it");
        at.error("NotWithCustom", message);
    };
    at.each("from", &rule.from, |at, from| {
        let at = at.field("source");
        for field in from.source.iter().flat_map(lists).filter(|(_, values)| !values.is_empty()).map(|(field, _)| field)
        {
            if !is_address_list(field) {
                refuse(&at.field(field), field);
            }
        }
    });
    at.each("when", &rule.when, |at, condition| {
        let key = condition.key.as_str();
        let by_certificate =
            matches!(key, "source.namespace" | "source.serviceAccount" | "source.trustDomain" | "source.principal");
        if by_certificate || key.starts_with("request.auth.") {
            refuse(&at.field("key"), key);
        }
    });
}

/// All lists of a source, by their names.
fn lists(source: &Source) -> [(&'static str, &Vec<String>); 14] {
    [
        ("principals", &source.principals),
        ("notPrincipals", &source.not_principals),
        ("requestPrincipals", &source.request_principals),
        ("notRequestPrincipals", &source.not_request_principals),
        ("namespaces", &source.namespaces),
        ("notNamespaces", &source.not_namespaces),
        ("serviceAccounts", &source.service_accounts),
        ("notServiceAccounts", &source.not_service_accounts),
        ("ipBlocks", &source.ip_blocks),
        ("notIpBlocks", &source.not_ip_blocks),
        ("remoteIpBlocks", &source.remote_ip_blocks),
        ("notRemoteIpBlocks", &source.not_remote_ip_blocks),
        ("trustDomains", &source.trust_domains),
        ("notTrustDomains", &source.not_trust_domains),
    ]
}

fn is_address_list(field: &str) -> bool {
    field.ends_with("pBlocks")
}

/// True for a rule that looks at requests and not at connections: Envoy leaves those conditions out for TCP, and what is
/// left denies everything.
fn needs_http(rule: &Rule) -> bool {
    let sources = || rule.from.iter().filter_map(|from| from.source.as_ref());
    let operations = || rule.to.iter().filter_map(|to| to.operation.as_ref());
    // Istio doesn't count trust domains among what TCP tells.
    let of_http = ["requestPrincipals", "notRequestPrincipals", "trustDomains", "notTrustDomains"];
    let tells_tcp = |(field, values): &(&str, &Vec<String>)| !values.is_empty() && !of_http.contains(field);
    let from_tcp = sources().any(|source| lists(source).iter().any(tells_tcp));
    let to_tcp = operations().any(|operation| !operation.ports.is_empty() || !operation.not_ports.is_empty());
    let (has_from, has_to) = (sources().next().is_some(), operations().next().is_some());
    (has_from && !has_to && !from_tcp) || (has_to && !to_tcp)
}

fn rule(at: &At<'_>, rule: &Rule) {
    at.each("from", &rule.from, |at, from| match &from.source {
        Some(written) => source(&at.field("source"), written),
        None => {
            at.field("source").error("MissingSource", "`from.source` must not be nil; add it, or remove this entry")
        }
    });
    at.each("to", &rule.to, |at, to| match &to.operation {
        Some(written) => operation(&at.field("operation"), written),
        None => at
            .field("operation")
            .error("MissingOperation", "`to.operation` must not be nil; add it, or remove this entry"),
    });
    at.each("when", &rule.when, condition);
}

fn source(at: &At<'_>, source: &Source) {
    let accounts = !source.service_accounts.is_empty() || !source.not_service_accounts.is_empty();
    let others = [&source.principals, &source.not_principals, &source.namespaces, &source.not_namespaces];
    at.refuse(
        accounts && others.iter().any(|list| !list.is_empty()),
        "ConflictingFields",
        "cannot set serviceAccounts with namespaces or principals; remove either",
    );
    at.refuse(
        lists(source).iter().all(|(_, values)| values.is_empty()),
        "EmptySource",
        "`from.source` must not be empty; say something, or remove this entry",
    );
    for (field, values) in lists(source) {
        let at = at.field(field);
        match field {
            "serviceAccounts" | "notServiceAccounts" => at.check("InvalidAccount", service_accounts(values)),
            "trustDomains" | "notTrustDomains" => at.check("InvalidTrustDomain", trust_domains(values)),
            _ => not_empty(&at, values),
        }
        if is_address_list(field) {
            at.check("InvalidAddress", addresses(values));
        }
    }
}

fn operation(at: &At<'_>, operation: &Operation) {
    let lists = [
        ("hosts", &operation.hosts),
        ("notHosts", &operation.not_hosts),
        ("ports", &operation.ports),
        ("notPorts", &operation.not_ports),
        ("methods", &operation.methods),
        ("notMethods", &operation.not_methods),
        ("paths", &operation.paths),
        ("notPaths", &operation.not_paths),
    ];
    at.refuse(
        lists.iter().all(|(_, values)| values.is_empty()),
        "EmptyOperation",
        "`to.operation` must not be empty; say something, or remove this entry",
    );
    for (field, values) in lists {
        let at = at.field(field);
        not_empty(&at, values);
        match field {
            "ports" | "notPorts" => at.check("InvalidPort", ports(values)),
            "paths" | "notPaths" => at.check("InvalidPath", values.iter().try_for_each(|path| path_template(path))),
            _ => {}
        }
    }
}

fn condition(at: &At<'_>, condition: &Condition) {
    let key = condition.key.as_str();
    if key.is_empty() {
        return at.field("key").error("MissingKey", "`key` must not be empty; name an attribute such as source.ip");
    }
    if condition.values.is_empty() && condition.not_values.is_empty() {
        return at.error("MissingValue", format!("at least one of `values` or `notValues` must be set for key {key}"));
    }
    for (field, values) in [("values", &condition.values), ("notValues", &condition.not_values)] {
        let result = values.iter().any(String::is_empty).then(|| Err("empty value not allowed; remove it".to_owned()));
        let result = result.unwrap_or_else(|| attribute(key, values));
        at.field(field)
            .check("InvalidCondition", result.map_err(|why| format!("invalid values for `key` {key}: {why}")));
    }
}

/// Whether an attribute can have these values.
fn attribute(key: &str, values: &[String]) -> Check {
    const BRACKETED: [&str; 3] = ["request.headers", "request.auth.claims", "experimental.envoy.filters."];
    match key {
        "source.ip" | "remote.ip" | "destination.ip" => addresses(values),
        "destination.port" => ports(values),
        "source.serviceAccount" => service_accounts(values),
        "source.trustDomain" => values.iter().try_for_each(|value| wildcard(value)),
        "source.namespace" | "source.principal" | "connection.sni" => Ok(()),
        "request.auth.principal" | "request.auth.audiences" | "request.auth.presenter" => Ok(()),
        _ if BRACKETED.iter().any(|start| key.starts_with(start)) => {
            match key.strip_suffix(']').and_then(|k| k.find('[')) {
                Some(open) if open > 0 && open + 2 < key.len() => Ok(()),
                _ => Err(format!("bad key ({key}): should have format a[b]")),
            }
        }
        "destination.namespace" => Err(format!("attribute {key} is replaced by the metadata.namespace")),
        _ if key.starts_with("destination.labels") => {
            Err(format!("attribute {key} is replaced by the workload selector"))
        }
        "destination.name" | "destination.user" => {
            Err(format!("deprecated attribute {key}: only supported in v1alpha1; use the workload selector"))
        }
        _ => Err(format!("unknown attribute: {key}; write one such as request.headers[x-user] or source.ip")),
    }
}

fn not_empty(at: &At<'_>, values: &[String]) {
    for (index, _) in values.iter().enumerate().filter(|(_, value)| value.is_empty()) {
        at.index(index).error("EmptyValue", "empty value not allowed; remove it, or write * for any value");
    }
}

fn addresses(values: &[String]) -> Check {
    values.iter().try_for_each(|value| match net::subnet(value) {
        Err(_) if value.contains('/') => Err(format!("bad CIDR range ({value}); write one such as 10.1.0.0/16")),
        Err(_) => Err(format!("bad IP address ({value}); write one such as 10.1.2.3")),
        Ok(()) => Ok(()),
    })
}

fn ports(values: &[String]) -> Check {
    let wrong = values.iter().find(|value| value.starts_with('+') || value.parse::<u16>().is_err());
    wrong.map_or(Ok(()), |value| Err(format!("bad port ({value}); write a number up to 65535")))
}

fn service_accounts(values: &[String]) -> Check {
    if values.len() > 16 {
        return Err("may not have more than 16 values; split the rule".to_owned());
    }
    values.iter().try_for_each(|value| {
        let mut parts = value.split('/');
        let (Some(first), second, None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(format!("expected format 'serviceAccount' or 'namespace/serviceAccount', found {value:?}"));
        };
        if first.is_empty() || second == Some("") {
            return Err(format!(
                "empty value not allowed, found {value:?}; write 'serviceAccount' or 'namespace/serviceAccount'"
            ));
        }
        if value.contains('*') {
            return Err(format!("wildcard not allowed, found {value:?}; use principals for wildcards"));
        }
        if value.len() > 320 {
            return Err(format!("value cannot exceed 320 characters, found {}", value.len()));
        }
        Ok(())
    })
}

fn trust_domains(values: &[String]) -> Check {
    values.iter().try_for_each(|value| {
        wildcard(value)?;
        match value.contains('/') {
            true => Err(format!("trust domain must not contain '/', found {value:?}; write the domain alone")),
            false => Ok(()),
        }
    })
}

/// A value with `*` at its beginning, at its end or nowhere.
fn wildcard(value: &str) -> Check {
    match value.matches('*').count() {
        _ if value.is_empty() => Err("empty value not allowed; remove it, or write * for any value".to_owned()),
        0 => Ok(()),
        1 if value.starts_with('*') || value.ends_with('*') => Ok(()),
        1 => Err(format!("wildcard is only allowed at the start or end, found {value:?}")),
        _ => Err(format!("at most one wildcard is allowed, found {value:?}")),
    }
}

/// A path; `{*}` stands for a segment, `{**}` for all that follows.
fn path_template(path: &str) -> Check {
    const ONE: &str = "{*}";
    const REST: &str = "{**}";
    let is_template = path.contains(ONE) || path.contains(REST);
    let literal = |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&b);
    let mut ended = false;
    for segment in path.trim_matches('/').split('/') {
        let why = match segment {
            ONE | REST if ended => "{**} is not the last operator".to_owned(),
            ONE => continue,
            REST => {
                ended = true;
                continue;
            }
            _ if segment.contains(['{', '}']) => "Contains '{' or '}' beyond a supported path template".to_owned(),
            _ if is_template && (segment.is_empty() || !segment.bytes().all(literal)) => {
                format!("Contains segment {segment:?} with invalid string literal")
            }
            _ => continue,
        };
        return Err(format!("invalid or unsupported path {path}. {why}; write such as /a/{{*}}/{{**}}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::security::AuthorizationPolicy;
    use crate::validate::testing::check;

    #[test]
    fn actions() {
        let custom = |rule: Value| json!({"action": "CUSTOM", "provider": {"name": "p"}, "rules": [rule]});
        check::<AuthorizationPolicy>(&[
            (json!({}), &[]),
            (json!({"action": "AUDIT"}), &[]),
            (json!({"action": "DENY"}), &["E spec.rules: DENY action without `rules`"]),
            (json!({"action": "CUSTOM"}), &["E spec.rules: CUSTOM action without `rules`"]),
            (json!({"action": "CUSTOM", "rules": [{}]}), &["E spec.provider.name: `provider.name` must not be empty"]),
            (
                json!({"provider": {"name": "p"}}),
                &["E spec.provider: `provider` must not be with non CUSTOM action, found ALLOW"],
            ),
            (custom(json!({})), &[]),
            (
                custom(
                    json!({"from": [{"source": {"ipBlocks": ["1.2.3.4"]}}], "when": [{"key": "source.ip", "values": ["1.2.3.4"]}]}),
                ),
                &[],
            ),
            (
                custom(json!({"from": [{"source": {"namespaces": ["a"]}}]})),
                &["E spec.rules[0].from[0].source.namespaces: namespaces is currently not supported"],
            ),
            (
                custom(json!({"when": [{"key": "request.auth.claims[a]", "values": ["b"]}]})),
                &["E spec.rules[0].when[0].key"],
            ),
            (json!({"selector": {"matchLabels": {"a": "*"}}}), &["a wildcard is not supported"]),
            (
                json!({"selector": {}, "targetRefs": [{"kind": "Service", "name": "a"}]}),
                &["only one of targetRefs", "W spec.selector"],
            ),
            (
                json!({"targetRef": {"kind": "Pod", "namespace": "a"}}),
                &[
                    "E spec.targetRef.name",
                    "E spec.targetRef.namespace",
                    "E spec.targetRef: targetRef must be to one of",
                ],
            ),
        ]);
    }

    #[test]
    fn rules() {
        let from = |source: Value| json!({"rules": [{"from": [{"source": source}]}]});
        let to = |operation: Value| json!({"rules": [{"to": [{"operation": operation}]}]});
        let when = |condition: Value| json!({"rules": [{"when": [condition]}]});
        check::<AuthorizationPolicy>(&[
            (from(json!({"principals": ["a"], "ipBlocks": ["1.2.3.4", "10.0.0.0/8"]})), &[]),
            (from(json!({})), &["E spec.rules[0].from[0].source: `from.source` must not be empty"]),
            (
                json!({"rules": [{"from": [{}], "to": [{}]}]}),
                &["`from.source` must not be nil", "`to.operation` must not be nil"],
            ),
            (
                from(json!({"principals": [""], "notRemoteIpBlocks": ["x/8"]})),
                &["source.principals[0]: empty value", "bad CIDR range (x/8)"],
            ),
            (from(json!({"serviceAccounts": ["a"], "notNamespaces": ["b"]})), &["cannot set serviceAccounts with"]),
            (to(json!({"methods": ["GET"], "paths": ["/a/{*}"], "ports": ["80"]})), &[]),
            (to(json!({})), &["`to.operation` must not be empty"]),
            (
                to(json!({"ports": ["80000"], "hosts": [""], "notPaths": ["/{a}"]})),
                &["hosts[0]: empty value", "ports: bad port (80000)", "notPaths: invalid or unsupported path"],
            ),
            (when(json!({"key": "request.headers[x]", "values": ["a"]})), &[]),
            (when(json!({"values": ["a"]})), &["E spec.rules[0].when[0].key: `key` must not be empty"]),
            (
                when(json!({"key": "source.ip"})),
                &["at least one of `values` or `notValues` must be set for key source.ip"],
            ),
            (
                when(json!({"key": "source.ip", "notValues": ["a"]})),
                &["when[0].notValues: invalid values for `key` source.ip: bad IP address (a)"],
            ),
            (
                when(json!({"key": "source.principal", "values": [""]})),
                &["when[0].values: invalid values for `key` source.principal: empty value"],
            ),
        ]);
    }

    #[test]
    fn attributes() {
        for (key, value, fits) in [
            ("request.headers", "a", false),
            ("request.headers[]", "a", false),
            ("request.auth.claims[a][b]", "c", true),
            ("experimental.envoy.filters.a.b[c]", "d", true),
            ("destination.port", "80", true),
            ("destination.port", "x", false),
            ("source.trustDomain", "a*b", false),
            ("source.serviceAccount", "a/b", true),
            ("destination.namespace", "a", false),
            ("destination.labels[a]", "b", false),
            ("destination.user", "a", false),
            ("unknown", "a", false),
        ] {
            assert_eq!(attribute(key, &[value.to_owned()]).is_ok(), fits, "{key} {value}");
        }
    }

    #[test]
    fn values() {
        let list = |values: &[&str]| values.iter().map(|v| (*v).to_owned()).collect::<Vec<_>>();
        for (value, fits) in
            [("a", true), ("ns/a", true), ("a/b/c", false), ("/a", false), ("ns/", false), ("a*", false), ("", false)]
        {
            assert_eq!(service_accounts(&list(&[value])).is_ok(), fits, "{value}");
        }
        assert!(service_accounts(&list(&["a"; 17])).is_err() && service_accounts(&[("a".repeat(321))]).is_err());
        for (value, fits) in [
            ("a", true),
            ("*", true),
            ("*.a", true),
            ("a*", true),
            ("a*b", false),
            ("*a*", false),
            ("a/b", false),
            ("", false),
        ] {
            assert_eq!(trust_domains(&list(&[value])).is_ok(), fits, "{value}");
        }
        for (path, fits) in [
            ("/a/b*", true),
            ("/a/{*}/b", true),
            ("/{**}", true),
            ("/{*}/{**}/b", true),
            ("/{**}/{*}", false),
            ("/{**}/{**}", false),
            ("/{*", false),
            ("/a{*}", false),
            ("/{*}/a*", false),
            ("/{*}//a", false),
            ("/{*}/a b", false),
        ] {
            assert_eq!(path_template(path).is_ok(), fits, "{path}");
        }
    }

    #[test]
    fn rules_that_deny_all_tcp() {
        for (rule, warns) in [
            (json!({}), false),
            (json!({"from": [{"source": {"requestPrincipals": ["a"]}}]}), true),
            (json!({"from": [{"source": {"principals": ["a"]}}]}), false),
            (json!({"to": [{"operation": {"methods": ["GET"]}}]}), true),
            (json!({"to": [{"operation": {"methods": ["GET"], "ports": ["80"]}}]}), false),
            (
                json!({"from": [{"source": {"requestPrincipals": ["a"]}}], "to": [{"operation": {"ports": ["80"]}}]}),
                false,
            ),
            (json!({"from": [{"source": {"principals": ["a"]}}], "to": [{"operation": {"methods": ["GET"]}}]}), true),
        ] {
            let expected: &[&str] =
                if warns { &["W spec.rules[0]: configured AuthorizationPolicy will deny"] } else { &[] };
            check::<AuthorizationPolicy>(&[(json!({"action": "DENY", "rules": [rule]}), expected)]);
        }
    }
}
