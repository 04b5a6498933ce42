//! Tokens: Envoy's filter that takes what RequestAuthentications accept.
//!
//! A request without a token passes, unless one is required; a request with a bad one doesn't. What the token says is left
//! in the metadata, where AuthorizationPolicies and routes read it. Keys that nobody could fetch yet are replaced by one
//! that nobody can sign with: no token is taken until there are keys.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::{DataSource, HttpUri, data_source, http_uri::HttpUpstreamType};
use envoy_types::pb::envoy::config::route::v3::{RouteMatch, route_match::PathSpecifier};
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3::{
    JwtAuthentication, JwtClaimToHeader, JwtHeader, JwtProvider, JwtRequirement, JwtRequirementAndList,
    JwtRequirementOrList, RemoteJwks, RequirementRule,
    jwt_provider::{JwksSourceSpecifier, NormalizePayload},
    jwt_requirement::RequiresType,
    requirement_rule::RequirementType,
};
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use envoy_types::pb::google::protobuf::Empty;
use mesh_api::{Diagnostic, FieldPath, Name};
use serde_json::Value;

use super::Guarded;
use super::matchers::{JWT_FILTER, JWT_PAYLOAD};
use super::upstream::Upstream;
use crate::build::cluster::{outbound_name, wire};
use crate::build::duration;
use crate::memo::Query;
use crate::model::request_authentication::{FetchedKeys, JwtRule, KeySource, Keys, RequestAuthentication};
use crate::model::{Features, Settings};
use crate::resource::pack;
use crate::scope::settings;
use crate::shared::Shared;
use crate::view::View;

/// A public key whose private half was never kept.
const NOBODYS_KEY: &str = concat!(
    r#"{"keys":[{"kty":"RSA","e":"AQAB","n":""#,
    "rJXEYW5YSq3TWTdcOdOqHR6pdsjbmtjvgRGIsW5n-O--iMTPzk0MB04TEWm3hkNi12L_oA0yYhX-D_4apwYbPs1aPT8KdNcErVqo",
    "LCLAult7E0LaMfV-ZDkFEPfzwjK5gwZvx2WercLN9MEwrKtgopNVwCv4DK2eynWU_SSpTsAdqs6whq4BxjRrZmAramevE6_AAUpB",
    "N4yxsfiCTLEbmhjxrsF7J7o3nT2QbFlJJZ4HWYAeuNld4PjljhBTCOvqp50nn75_XdW0mX2X075YPUK90tqLmJCwij7P8E_Grh3T",
    "tV09x6KIhtR2j8DzhsnuZ81FYWBJbv8Sr4lguM_VLw",
    r#""}]}"#
);

/// How long Envoy keeps keys that it fetches itself, in seconds.
const KEPT: i64 = 300;

/// The sorts of token that a workload takes, by issuer, older policies first.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct TokensOf(Guarded);

impl Query for TokensOf {
    type Out = Vec<(Shared<RequestAuthentication>, usize)>;

    fn run(&self, view: &View<'_>) -> Self::Out {
        let Guarded { namespace, labels } = &self.0;
        let settings = settings(view);
        let root = &settings.root_namespace;
        let in_root = view.bucket(|s| &s.request_authentications, root);
        let own = view.bucket(|s| &s.request_authentications, namespace).filter(|_| namespace != root);
        let mut policies: Vec<Shared<RequestAuthentication>> = in_root
            .chain(own)
            .filter(|(key, policy)| policy.attachment.includes(&key.namespace, (namespace, labels), &settings))
            .map(|(_, policy)| Shared::from(policy))
            .collect();
        policies.sort_by_key(|policy| policy.created);
        let mut rules: Vec<_> =
            policies.iter().flat_map(|policy| (0..policy.rules.len()).map(|i| (policy.clone(), i))).collect();
        rules.sort_by_key(|(policy, i)| policy.rules.get(*i).map(|rule| rule.issuer.clone()));
        rules
    }
}

/// The filter for the tokens of a workload; `None` when it takes none. Where routes are chosen by claims, they are chosen
/// again once these are known.
pub(super) fn filter(view: &View<'_>, guarded: &Guarded, choose_route_again: bool) -> Option<HttpFilter> {
    let tokens = view.get(&TokensOf(guarded.clone()));
    let rules: Vec<&JwtRule> = tokens.iter().filter_map(|(policy, i)| policy.rules.get(*i)).collect();
    if rules.is_empty() {
        return None;
    }
    let mut providers = HashMap::new();
    for (i, rule) in rules.iter().enumerate() {
        let provider = JwtProvider { clear_route_cache: choose_route_again, ..provider(view, rule) };
        providers.insert(provider_name(i), provider);
    }
    let config = JwtAuthentication {
        providers,
        rules: vec![RequirementRule {
            r#match: Some(RouteMatch {
                path_specifier: Some(PathSpecifier::Prefix("/".to_owned())),
                ..RouteMatch::default()
            }),
            requirement_type: Some(RequirementType::Requires(requirement(&rules))),
        }],
        bypass_cors_preflight: true,
        ..JwtAuthentication::default()
    };
    Some(HttpFilter {
        name: JWT_FILTER.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(pack(&config))),
        ..HttpFilter::default()
    })
}

fn provider_name(index: usize) -> String {
    format!("origins-{index}")
}

/// One of the tokens; or of each sort a good one or none. The former is for tokens of several issuers in one place, where the
/// latter would never hold. What is required must be there besides.
fn requirement(rules: &[&JwtRule]) -> JwtRequirement {
    let of = |requires: RequiresType| JwtRequirement { requires_type: Some(requires) };
    let good = |i: usize| of(RequiresType::ProviderName(provider_name(i)));
    let any = |requirements| of(RequiresType::RequiresAny(JwtRequirementOrList { requirements }));
    let all = |requirements| of(RequiresType::RequiresAll(JwtRequirementAndList { requirements }));
    let good_or_none = |i| any(vec![good(i), of(RequiresType::AllowMissing(Empty {}))]);
    let taken = match rules.len() {
        1 => good_or_none(0),
        several => any((0..several).map(good).chain([all((0..several).map(good_or_none).collect())]).collect()),
    };
    let mut required: Vec<JwtRequirement> =
        rules.iter().enumerate().filter(|(_, rule)| rule.required).map(|(i, _)| good(i)).collect();
    if required.is_empty() {
        return taken;
    }
    required.push(taken);
    all(required)
}

fn provider(view: &View<'_>, rule: &JwtRule) -> JwtProvider {
    let texts = |names: &[Name]| names.iter().map(Name::to_string).collect();
    let header = |(name, prefix): &(Name, Name)| JwtHeader { name: name.to_string(), value_prefix: prefix.to_string() };
    let claim = |(header, claim): &(Name, Name)| JwtClaimToHeader {
        header_name: header.to_string(),
        claim_name: claim.to_string(),
        ..JwtClaimToHeader::default()
    };
    JwtProvider {
        issuer: rule.issuer.to_string(),
        audiences: texts(&rule.audiences),
        forward: rule.forward,
        forward_payload_header: rule.payload_to.to_string(),
        payload_in_metadata: JWT_PAYLOAD.to_owned(),
        normalize_payload_in_metadata: Some(NormalizePayload { space_delimited_claims: texts(&rule.space_delimited) }),
        from_headers: rule.from_headers.iter().map(header).collect(),
        from_params: texts(&rule.from_params),
        from_cookies: texts(&rule.from_cookies),
        claim_to_headers: rule.claims_to.iter().map(claim).collect(),
        jwks_source_specifier: Some(keys(view, rule)),
        ..JwtProvider::default()
    }
}

/// Who fetches keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fetcher {
    ControlPlane,
    /// Envoy from servers in the mesh, the control plane from others.
    Nearest,
    Envoy,
}

impl Fetcher {
    fn of(features: &Features) -> Self {
        match features.get("PILOT_JWT_ENABLE_REMOTE_JWKS") {
            Some("true" | "hybrid") => Self::Nearest,
            Some("envoy") => Self::Envoy,
            _ => Self::ControlPlane,
        }
    }
}

fn keys(view: &View<'_>, rule: &JwtRule) -> JwksSourceSpecifier {
    let settings = settings(view);
    let source = match &rule.keys {
        Keys::Inline(keys) => return local(keys),
        Keys::Fetched(source) => source,
    };
    if let Some(cluster) = fetched_by_envoy(view, source, &settings)
        && let KeySource::Url(url) = source
    {
        return JwksSourceSpecifier::RemoteJwks(RemoteJwks {
            http_uri: Some(HttpUri {
                uri: url.to_string(),
                timeout: Some(wire::duration(rule.timeout)),
                http_upstream_type: Some(HttpUpstreamType::Cluster(cluster)),
            }),
            cache_duration: duration(KEPT),
            ..RemoteJwks::default()
        });
    }
    match view.row(|s| &s.fetched_keys, source).map(Arc::as_ref) {
        Some(FetchedKeys::Set(keys)) => local(keys),
        Some(FetchedKeys::Failed(_)) | None => local(NOBODYS_KEY),
    }
}

fn local(keys: &str) -> JwksSourceSpecifier {
    let specifier = Some(data_source::Specifier::InlineString(acceptable(keys).into_owned()));
    JwksSourceSpecifier::LocalJwks(DataSource { specifier, ..DataSource::default() })
}

/// Envoy refuses a whole listener for a key set with no key that it can use. Whether it can is hard to tell of any but RSA
/// keys, so sets without one get a key that it surely can use.
fn acceptable(keys: &str) -> Cow<'_, str> {
    let nobodys = || -> Option<Value> {
        serde_json::from_str::<Value>(NOBODYS_KEY).ok()?.get_mut("keys")?.get_mut(0).map(Value::take)
    };
    let Ok(mut set) = serde_json::from_str::<Value>(keys) else { return NOBODYS_KEY.into() };
    let Some(list) = set.get_mut("keys").and_then(Value::as_array_mut) else { return NOBODYS_KEY.into() };
    if list.iter().any(is_rsa) {
        return keys.into();
    }
    list.retain(Value::is_object);
    list.extend(nobodys());
    set.to_string().into()
}

fn is_rsa(key: &Value) -> bool {
    let text = |field: &str| key.get(field).and_then(Value::as_str);
    let is_number = |field: &str| {
        let base64 = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        text(field).is_some_and(|number| !number.is_empty() && number.bytes().all(base64))
    };
    let absent_or = |field: &str, fits: fn(&str) -> bool| key.get(field).is_none() || text(field).is_some_and(fits);
    text("kty") == Some("RSA")
        && is_number("n")
        && is_number("e")
        && absent_or("alg", |alg| alg.starts_with("RS") || alg.starts_with("PS"))
        && absent_or("kid", |_| true)
}

/// The cluster over which Envoy itself fetches keys; `None`: the control plane does.
fn fetched_by_envoy(view: &View<'_>, source: &KeySource, settings: &Settings) -> Option<String> {
    let fetcher = Fetcher::of(&settings.features);
    let KeySource::Url(url) = source else { return None };
    if fetcher == Fetcher::ControlPlane {
        return None;
    }
    let (host, port) = server(url)?;
    match Upstream::find(view, &host, u32::from(port)) {
        Ok(upstream) => Some(upstream.cluster),
        // A cluster that may yet come, with a ServiceEntry for it.
        Err(_) if fetcher == Fetcher::Envoy => Some(outbound_name(port, "", &host)),
        Err(_) => None,
    }
}

/// Host and port of a URL.
fn server(url: &str) -> Option<(String, u16)> {
    let url: http::Uri = url.parse().ok()?;
    let default = match url.scheme_str()? {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    Some((url.host()?.to_owned(), url.port_u16().unwrap_or(default)))
}

/// The keys that someone has to fetch for Envoys, each with how long that may take.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct WantedKeys;

impl Query for WantedKeys {
    type Out = std::collections::BTreeMap<KeySource, mesh_api::types::Duration>;

    fn run(&self, view: &View<'_>) -> Self::Out {
        let settings = settings(view);
        let mut out = Self::Out::new();
        let rules = view.all(|s| &s.request_authentications).flat_map(|(_, policy)| policy.rules.iter());
        for rule in rules {
            if let Keys::Fetched(source) = &rule.keys
                && fetched_by_envoy(view, source, &settings).is_none()
            {
                let timeout = out.entry(source.clone()).or_insert(rule.timeout);
                *timeout = (*timeout).max(rule.timeout);
            }
        }
        out
    }
}

/// Policies whose keys could not be fetched: they take no token.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct KeyProblems;

impl Query for KeyProblems {
    type Out = Vec<Diagnostic>;

    fn run(&self, view: &View<'_>) -> Vec<Diagnostic> {
        let wanted = view.get(&WantedKeys);
        let mut out = Vec::new();
        for (_, policy) in view.all(|s| &s.request_authentications) {
            for (i, rule) in policy.rules.iter().enumerate() {
                let Keys::Fetched(source) = &rule.keys else { continue };
                let fetched = view.row(|s| &s.fetched_keys, source).map(Arc::as_ref);
                if let (true, Some(FetchedKeys::Failed(why))) = (wanted.contains_key(source), fetched) {
                    let path = format!(
                        "spec.jwtRules[{i}].{}",
                        if matches!(source, KeySource::Url(_)) { "jwksUri" } else { "issuer" }
                    );
                    let message = format!(
                        "its keys could not be fetched: {why}; until then no token of {} is taken",
                        rule.issuer
                    );
                    out.push(Diagnostic::error("KeysUnavailable", message).on(&policy.source).at(FieldPath::new(path)));
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests;
