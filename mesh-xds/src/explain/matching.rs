//! Envoy's small matchers: strings, headers, query parameters, cookies. Routes and RBAC policies are made of them.
//!
//! What the request can't know (dynamic metadata, filter state) counts as absent, as on a request where no filter has set it.

use envoy_types::pb::envoy::config::core::v3::RuntimeFractionalPercent;
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::query_parameter_matcher::QueryParameterMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::{CookieMatcher, HeaderMatcher, QueryParameterMatcher};
use envoy_types::pb::envoy::r#type::matcher::v3::StringMatcher;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::v3::FractionalPercent;
use envoy_types::pb::envoy::r#type::v3::fractional_percent::DenominatorType;

use super::Request;

/// RE2 as Envoy uses it: the whole text must match. A broken expression matches nothing.
pub(super) fn full_match(regex: &str, text: &str) -> bool {
    regex::Regex::new(&format!("^(?:{regex})$")).is_ok_and(|r| r.is_match(text))
}

pub(super) fn string(matcher: &StringMatcher, text: &str) -> bool {
    let (ignore, lower) = (matcher.ignore_case, text.to_lowercase());
    let fold = |pattern: &String| if ignore { pattern.to_lowercase() } else { pattern.clone() };
    let text = if ignore { lower.as_str() } else { text };
    match &matcher.match_pattern {
        Some(MatchPattern::Exact(p)) => text == fold(p),
        Some(MatchPattern::Prefix(p)) => text.starts_with(&fold(p)),
        Some(MatchPattern::Suffix(p)) => text.ends_with(&fold(p)),
        Some(MatchPattern::Contains(p)) => text.contains(&fold(p)),
        // Case does not apply to expressions, so the text is taken as it came.
        Some(MatchPattern::SafeRegex(r)) => full_match(&r.regex, text),
        Some(MatchPattern::Custom(_)) | None => false,
    }
}

#[allow(deprecated)] // the old forms still mean something to an Envoy that gets them from an EnvoyFilter
pub(super) fn header(matcher: &HeaderMatcher, request: &Request) -> bool {
    let found = request.header(&matcher.name.to_ascii_lowercase());
    let value = match (found, matcher.treat_missing_header_as_empty) {
        (None, true) => Some(""),
        (found, _) => found,
    };
    let specifier = matcher.header_match_specifier.as_ref();
    let Some(specifier) = specifier else { return value.is_some() != matcher.invert_match };
    if let HeaderMatchSpecifier::PresentMatch(present) = specifier {
        return (value.is_some() == *present) != matcher.invert_match;
    }
    // A missing header never matches, not even inverted.
    let Some(value) = value else { return false };
    let matched = match specifier {
        HeaderMatchSpecifier::ExactMatch(p) => value == p,
        HeaderMatchSpecifier::SafeRegexMatch(r) => full_match(&r.regex, value),
        HeaderMatchSpecifier::RangeMatch(r) => value.parse::<i64>().is_ok_and(|v| (r.start..r.end).contains(&v)),
        HeaderMatchSpecifier::PrefixMatch(p) => value.starts_with(p.as_str()),
        HeaderMatchSpecifier::SuffixMatch(p) => value.ends_with(p.as_str()),
        HeaderMatchSpecifier::ContainsMatch(p) => value.contains(p.as_str()),
        HeaderMatchSpecifier::StringMatch(m) => string(m, value),
        HeaderMatchSpecifier::PresentMatch(_) => false,
    };
    matched != matcher.invert_match
}

pub(super) fn query_parameter(matcher: &QueryParameterMatcher, request: &Request) -> bool {
    let query = request.path.split_once('?').map(|(_, q)| q.split('#').next().unwrap_or_default()).unwrap_or_default();
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let value = pairs.into_iter().find(|(key, _)| *key == matcher.name).map(|(_, value)| value);
    match (&matcher.query_parameter_match_specifier, value) {
        (Some(QueryParameterMatchSpecifier::StringMatch(m)), Some(value)) => string(m, value),
        (Some(QueryParameterMatchSpecifier::StringMatch(_)), None) => false,
        (Some(QueryParameterMatchSpecifier::PresentMatch(present)), value) => value.is_some() == *present,
        (None, value) => value.is_some(),
    }
}

pub(super) fn cookie(matcher: &CookieMatcher, request: &Request) -> bool {
    let cookies = request.header("cookie").unwrap_or_default();
    let mut pairs = cookies.split(';').filter_map(|pair| pair.trim().split_once('='));
    let value = pairs.find(|(name, _)| *name == matcher.name).map(|(_, value)| value);
    match (value, &matcher.string_match) {
        (Some(value), Some(m)) => string(m, value) != matcher.invert_match,
        (Some(_), None) => !matcher.invert_match,
        (None, _) => false,
    }
}

/// Percent of requests, 0 to 100.
pub(super) fn percent(runtime: &RuntimeFractionalPercent) -> f64 {
    fraction(runtime.default_value.as_ref())
}

/// Percent, 0 to 100; none is 0.
pub(super) fn fraction(value: Option<&FractionalPercent>) -> f64 {
    let Some(value) = value else { return 0.0 };
    let of = match DenominatorType::try_from(value.denominator) {
        Ok(DenominatorType::TenThousand) => 10_000.0,
        Ok(DenominatorType::Million) => 1_000_000.0,
        _ => 100.0,
    };
    f64::from(value.numerator) * 100.0 / of
}
