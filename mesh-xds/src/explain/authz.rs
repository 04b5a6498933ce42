//! What the RBAC filters of a chain say to a request.
//!
//! A verdict does not end the explanation: where the request would have gone is worth knowing too. Dry-run (shadow) rules
//! decide nothing and are passed over; what an external authorizer will say nobody can know here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3::{CidrRange, TypedExtensionConfig};
use envoy_types::pb::envoy::config::listener::v3::Filter;
use envoy_types::pb::envoy::config::rbac::v3::permission::Rule;
use envoy_types::pb::envoy::config::rbac::v3::principal::Identifier;
use envoy_types::pb::envoy::config::rbac::v3::{Permission, Policy, Principal, Rbac, rbac};
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3::ExtAuthz;
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac as HttpRbac;
use envoy_types::pb::envoy::extensions::filters::network::ext_authz::v3::ExtAuthz as NetworkExtAuthz;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3::Rbac as NetworkRbac;
use envoy_types::pb::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use envoy_types::pb::envoy::extensions::rbac::principals::mtls_authenticated::v3::Config as MtlsAuthenticated;
use envoy_types::pb::envoy::r#type::matcher::v3::{PathMatcher, filter_state_matcher, path_matcher};

use super::connection::{filter_config, in_range, unpack};
use super::{Authz, Explanation, Request, matching};

/// Network filters, before any HTTP is read.
pub(super) fn judge_network(filters: &[Filter], request: &Request, out: &mut Explanation) {
    for filter in filters {
        if let Some(NetworkRbac { rules: Some(rules), .. }) = filter_config(filter) {
            judge(&filter.name, &rules, request, out);
        } else if filter_config::<NetworkExtAuthz>(filter).is_some() {
            ask_external(&filter.name, out);
        }
    }
}

/// HTTP filters.
pub(super) fn judge_http(hcm: &HttpConnectionManager, request: &Request, out: &mut Explanation) {
    for filter in &hcm.http_filters {
        let Some(ConfigType::TypedConfig(any)) = &filter.config_type else { continue };
        if let Some(HttpRbac { rules: Some(rules), .. }) = unpack(any) {
            judge(&filter.name, &rules, request, out);
        } else if unpack::<ExtAuthz>(any).is_some() {
            ask_external(&filter.name, out);
        }
    }
}

fn verdict(out: &mut Explanation) -> &mut Authz {
    out.authz.get_or_insert(Authz { allowed: true, policy: String::new(), asks_external: false })
}

fn ask_external(filter: &str, out: &mut Explanation) {
    verdict(out).asks_external = true;
    out.step("authz", filter, "an external authorizer may be asked", None);
}

fn judge(filter: &str, rules: &Rbac, request: &Request, out: &mut Explanation) {
    // Envoy goes through the policies by name.
    let policies: BTreeMap<&String, &Policy> = rules.policies.iter().collect();
    let matched = policies.into_iter().find(|(_, p)| policy(p, request)).map(|(name, _)| name.as_str());
    let (allowed, because) = match (rbac::Action::try_from(rules.action), matched) {
        (Ok(rbac::Action::Log), _) | (Err(_), _) => return,
        (Ok(rbac::Action::Allow), Some(name)) => (true, format!("{name} allows it")),
        (Ok(rbac::Action::Allow), None) => (false, "no ALLOW policy matches".to_owned()),
        (Ok(rbac::Action::Deny), Some(name)) => (false, format!("{name} denies it")),
        (Ok(rbac::Action::Deny), None) => (true, "no DENY policy matches".to_owned()),
    };
    let so_far = verdict(out);
    if so_far.allowed {
        so_far.allowed = allowed;
        if let Some(name) = matched {
            so_far.policy = name.to_owned();
        } else if !allowed {
            so_far.policy.clear();
        }
    }
    out.step("authz", filter, because, None);
}

fn policy(policy: &Policy, request: &Request) -> bool {
    policy.condition.is_none()
        && policy.permissions.iter().any(|p| permission(p, request))
        && policy.principals.iter().any(|p| principal(p, request))
}

#[allow(deprecated)] // the old form of metadata matchers is what Envoys of today still get
fn permission(p: &Permission, request: &Request) -> bool {
    match &p.rule {
        Some(Rule::AndRules(set)) => set.rules.iter().all(|p| permission(p, request)),
        Some(Rule::OrRules(set)) => set.rules.iter().any(|p| permission(p, request)),
        Some(Rule::NotRule(p)) => !permission(p, request),
        Some(Rule::Any(any)) => *any,
        Some(Rule::Header(h)) => matching::header(h, request),
        Some(Rule::UrlPath(m)) => path(m, request),
        Some(Rule::DestinationIp(range)) => in_range(range, request.address),
        Some(Rule::DestinationPort(port)) => *port == u32::from(request.port),
        Some(Rule::DestinationPortRange(range)) => (range.start..range.end).contains(&i32::from(request.port)),
        Some(Rule::Metadata(m)) => m.invert,
        Some(Rule::SourcedMetadata(m)) => m.metadata_matcher.as_ref().is_some_and(|m| m.invert),
        Some(Rule::RequestedServerName(m)) => matching::string(m, request.server_name()),
        Some(Rule::UriTemplate(template)) => uri_template(template, request),
        Some(Rule::Matcher(_)) | None => false,
    }
}

#[allow(deprecated)]
fn principal(p: &Principal, request: &Request) -> bool {
    match &p.identifier {
        Some(Identifier::AndIds(set)) => set.ids.iter().all(|p| principal(p, request)),
        Some(Identifier::OrIds(set)) => set.ids.iter().any(|p| principal(p, request)),
        Some(Identifier::NotId(p)) => !principal(p, request),
        Some(Identifier::Any(any)) => *any,
        Some(Identifier::Authenticated(a)) => request
            .principal()
            .is_some_and(|principal| a.principal_name.as_ref().is_none_or(|m| matching::string(m, &principal))),
        Some(Identifier::FilterState(m)) => match (&m.matcher, request.principal()) {
            (Some(filter_state_matcher::Matcher::StringMatch(m)), Some(principal)) => matching::string(m, &principal),
            _ => false,
        },
        Some(Identifier::Custom(extension)) => mtls_authenticated(extension, request),
        Some(Identifier::SourceIp(range) | Identifier::DirectRemoteIp(range) | Identifier::RemoteIp(range)) => {
            from(range, request)
        }
        Some(Identifier::Header(h)) => matching::header(h, request),
        Some(Identifier::UrlPath(m)) => path(m, request),
        Some(Identifier::Metadata(m)) => m.invert,
        Some(Identifier::SourcedMetadata(m)) => m.metadata_matcher.as_ref().is_some_and(|m| m.invert),
        None => false,
    }
}

fn mtls_authenticated(extension: &TypedExtensionConfig, request: &Request) -> bool {
    let config: Option<MtlsAuthenticated> = extension.typed_config.as_ref().and_then(unpack);
    match (config, request.principal()) {
        (Some(config), Some(principal)) => {
            let san = config.san_matcher.and_then(|san| san.matcher);
            san.map_or(config.any_validated_client_certificate, |m| matching::string(&m, &principal))
        }
        _ => false,
    }
}

fn from(range: &CidrRange, request: &Request) -> bool {
    request.source_ip.parse::<IpAddr>().is_ok_and(|ip| in_range(range, ip))
}

fn path(m: &PathMatcher, request: &Request) -> bool {
    match &m.rule {
        Some(path_matcher::Rule::Path(m)) => matching::string(m, request.path_only()),
        None => false,
    }
}

/// `{*}` and `{name}` are one segment, `{**}` is any number of them.
fn uri_template(extension: &TypedExtensionConfig, request: &Request) -> bool {
    let config: Option<UriTemplateMatchConfig> = extension.typed_config.as_ref().and_then(unpack);
    config.is_some_and(|config| {
        let mut expression = String::new();
        for (i, part) in config.path_template.split(['{', '}']).enumerate() {
            match (i % 2, part) {
                (0, text) => expression.push_str(&regex::escape(text)),
                (_, "**") => expression.push_str(".*"),
                _ => expression.push_str("[^/]+"),
            }
        }
        matching::full_match(&expression, request.path_only())
    })
}
