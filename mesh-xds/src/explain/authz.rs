//! What the RBAC filters of a chain say to a request.
//!
//! A verdict does not end the explanation: where the request would have gone is worth knowing too. Dry-run (shadow) rules
//! decide nothing; they only say whether an external authorizer is asked, and what that will say nobody can know here.

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
use envoy_types::pb::envoy::r#type::matcher::v3::{
    MetadataMatcher, PathMatcher, filter_state_matcher, path_matcher, value_matcher,
};

use super::connection::{filter_config, in_range, unpack};
use super::origin::policy_object;
use super::{Authz, Explanation, Request, matching};

/// Network filters, before any HTTP is read.
pub(super) fn judge_network(filters: &[Filter], request: &Request, out: &mut Explanation) {
    let mut judge = Judge { request, out, marks: BTreeMap::new() };
    for filter in filters {
        if let Some(NetworkRbac { rules, shadow_rules, shadow_rules_stat_prefix, .. }) = filter_config(filter) {
            judge.mark(shadow_rules, &shadow_rules_stat_prefix);
            judge.judge(&filter.name, rules);
        } else if let Some(NetworkExtAuthz { filter_enabled_metadata, .. }) = filter_config(filter) {
            judge.ask(&filter.name, filter_enabled_metadata);
        }
    }
}

/// HTTP filters.
pub(super) fn judge_http(hcm: &HttpConnectionManager, request: &Request, out: &mut Explanation) {
    let mut judge = Judge { request, out, marks: BTreeMap::new() };
    for filter in &hcm.http_filters {
        let Some(ConfigType::TypedConfig(any)) = &filter.config_type else { continue };
        if let Some(HttpRbac { rules, shadow_rules, shadow_rules_stat_prefix, .. }) = unpack(any) {
            judge.mark(shadow_rules, &shadow_rules_stat_prefix);
            judge.judge(&filter.name, rules);
        } else if let Some(ExtAuthz { filter_enabled_metadata, .. }) = unpack(any) {
            judge.ask(&filter.name, filter_enabled_metadata);
        }
    }
}

struct Judge<'a> {
    request: &'a Request,
    out: &'a mut Explanation,
    /// The shadow rules that hold, by the key in the metadata: filters behind read them.
    marks: BTreeMap<String, String>,
}

impl Judge<'_> {
    fn verdict(&mut self) -> &mut Authz {
        self.out.authz.get_or_insert(Authz { allowed: true, policy: String::new(), asks_external: false })
    }

    fn mark(&mut self, shadow_rules: Option<Rbac>, prefix: &str) {
        if let Some(name) = shadow_rules.as_ref().and_then(|rules| first(rules, self.request)) {
            self.marks.insert(format!("{prefix}shadow_effective_policy_id"), name.to_owned());
        }
    }

    /// An authorizer, unless it is only asked about marked requests and this one has no such mark.
    fn ask(&mut self, filter: &str, enabled: Option<MetadataMatcher>) {
        let mut because = "an external authorizer is asked".to_owned();
        let mut object = None;
        if let Some(enabled) = enabled {
            let mark = self.marks.values().find(|mark| marked(&enabled, mark));
            let Some(mark) = mark else { return };
            because = format!("{mark} has an external authorizer asked");
            object = policy_object(mark);
        }
        self.verdict().asks_external = true;
        self.out.step("authz", filter, because, object);
    }

    fn judge(&mut self, filter: &str, rules: Option<Rbac>) {
        let Some(rules) = rules else { return };
        let matched = first(&rules, self.request);
        let (allowed, because) = match (rbac::Action::try_from(rules.action), matched) {
            (Ok(rbac::Action::Log), _) | (Err(_), _) => return,
            (Ok(rbac::Action::Allow), Some(name)) => (true, format!("{name} allows it")),
            (Ok(rbac::Action::Allow), None) => (false, "no ALLOW policy matches".to_owned()),
            (Ok(rbac::Action::Deny), Some(name)) => (false, format!("{name} denies it")),
            (Ok(rbac::Action::Deny), None) => (true, "no DENY policy matches".to_owned()),
        };
        let so_far = self.verdict();
        if so_far.allowed {
            so_far.allowed = allowed;
            if let Some(name) = matched {
                so_far.policy = name.to_owned();
            } else if !allowed {
                so_far.policy.clear();
            }
        }
        self.out.step("authz", filter, because, matched.and_then(policy_object));
    }
}

/// The first rule that holds. Envoy goes through them by name.
fn first<'r>(rules: &'r Rbac, request: &Request) -> Option<&'r str> {
    let policies: BTreeMap<&String, &Policy> = rules.policies.iter().collect();
    policies.into_iter().find(|(_, p)| policy(p, request)).map(|(name, _)| name.as_str())
}

/// True when a filter that looks at the metadata works on requests with this mark.
fn marked(enabled: &MetadataMatcher, mark: &str) -> bool {
    match enabled.value.as_ref().and_then(|value| value.match_pattern.as_ref()) {
        Some(value_matcher::MatchPattern::StringMatch(m)) => matching::string(m, mark),
        _ => false,
    }
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

/// `*` and `{name}` are one segment, `**` is any number of them.
fn uri_template(extension: &TypedExtensionConfig, request: &Request) -> bool {
    let config: Option<UriTemplateMatchConfig> = extension.typed_config.as_ref().and_then(unpack);
    config.is_some_and(|config| {
        let segment = |segment: &str| match segment {
            "**" => ".*".to_owned(),
            "*" => "[^/]+".to_owned(),
            name if name.starts_with('{') => "[^/]+".to_owned(),
            text => regex::escape(text),
        };
        let segments: Vec<String> = config.path_template.split('/').map(segment).collect();
        matching::full_match(&segments.join("/"), request.path_only())
    })
}
