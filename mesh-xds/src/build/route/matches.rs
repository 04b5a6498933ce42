//! The conditions of a route. What Istio's matches mean in Envoy's terms, above all the odd corners: `*` as a regular
//! expression means "is there", a header that must not match may be missing, JWT claims are matched as metadata.

use envoy_types::pb::envoy::config::route::v3::{
    HeaderMatcher, QueryParameterMatcher, RouteMatch, header_matcher::HeaderMatchSpecifier,
    query_parameter_matcher::QueryParameterMatchSpecifier, route_match::PathSpecifier,
};
use envoy_types::pb::envoy::r#type::matcher::v3::{
    ListMatcher, MetadataMatcher, OrMatcher, RegexMatcher, StringMatcher, ValueMatcher, list_matcher, metadata_matcher,
    string_matcher::MatchPattern, value_matcher,
};
use envoy_types::pb::google::protobuf::BoolValue;

use crate::model::virtual_service::{HttpMatch, Semantics, TextMatch};

/// The match of a route; none at all matches every path.
pub(super) fn route_match(matched: Option<&HttpMatch>, semantics: Semantics) -> RouteMatch {
    let Some(m) = matched else {
        return RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".to_owned())), ..RouteMatch::default() };
    };
    let mut out = RouteMatch {
        path_specifier: Some(path(m.uri.as_ref(), semantics)),
        case_sensitive: Some(BoolValue { value: !m.ignore_uri_case }),
        ..RouteMatch::default()
    };
    for (name, text) in &m.headers {
        match claim(name) {
            Some(claims) => out.dynamic_metadata.push(claim_matcher(claims, text, false)),
            None => out.headers.push(header(name, text)),
        }
    }
    for (name, text) in &m.without_headers {
        match claim(name) {
            Some(claims) => out.dynamic_metadata.push(claim_matcher(claims, text, true)),
            None => out.headers.push(HeaderMatcher {
                invert_match: true,
                // Envoy refuses it together with a presence match.
                treat_missing_header_as_empty: *text != TextMatch::Present,
                ..header(name, text)
            }),
        }
    }
    out.headers.sort_by(|a, b| a.name.cmp(&b.name));
    for (name, text) in [(":method", &m.method), (":authority", &m.authority), (":scheme", &m.scheme)] {
        out.headers.extend(text.as_ref().map(|t| header(name, t)));
    }
    out.query_parameters.extend(m.query_params.iter().map(|(name, text)| QueryParameterMatcher {
        name: name.to_string(),
        query_parameter_match_specifier: Some(match string_matcher(text) {
            Some(matcher) => QueryParameterMatchSpecifier::StringMatch(matcher),
            None => QueryParameterMatchSpecifier::PresentMatch(true),
        }),
    }));
    out
}

fn path(uri: Option<&TextMatch>, semantics: Semantics) -> PathSpecifier {
    match uri {
        None | Some(TextMatch::Present) => PathSpecifier::Prefix("/".to_owned()),
        Some(TextMatch::Exact(path)) => PathSpecifier::Path(path.to_string()),
        Some(TextMatch::Prefix(prefix)) => {
            let separated = prefix.strip_suffix('/').unwrap_or(prefix);
            // Envoy's own condition for a prefix that ends at a slash.
            let possible = separated.len() > 1 && !separated.contains(['?', '#']) && !separated.ends_with('/');
            if semantics != Semantics::Istio && possible {
                PathSpecifier::PathSeparatedPrefix(separated.to_owned())
            } else {
                PathSpecifier::Prefix(prefix.to_string())
            }
        }
        Some(TextMatch::Regex(regex)) => PathSpecifier::SafeRegex(re2(regex)),
    }
}

fn header(name: &str, text: &TextMatch) -> HeaderMatcher {
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(match string_matcher(text) {
            Some(matcher) => HeaderMatchSpecifier::StringMatch(matcher),
            None => HeaderMatchSpecifier::PresentMatch(true),
        }),
        ..HeaderMatcher::default()
    }
}

/// Envoy's matcher for a text; `None` when any text will do.
pub fn string_matcher(text: &TextMatch) -> Option<StringMatcher> {
    let pattern = match text {
        TextMatch::Exact(t) => MatchPattern::Exact(t.to_string()),
        TextMatch::Prefix(t) => MatchPattern::Prefix(t.to_string()),
        TextMatch::Regex(t) => MatchPattern::SafeRegex(re2(t)),
        TextMatch::Present => return None,
    };
    Some(StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() })
}

pub(super) fn re2(regex: &str) -> RegexMatcher {
    RegexMatcher { regex: regex.to_owned(), engine_type: None }
}

/// The claims that a header name stands for: `@request.auth.claims.a.b` or `@request.auth.claims[a][b]`.
fn claim(name: &str) -> Option<Vec<&str>> {
    const CLAIMS: &str = "@request.auth.claims";
    let (head, rest) = name.split_at_checked(CLAIMS.len())?;
    if !head.eq_ignore_ascii_case(CLAIMS) {
        return None;
    }
    if let Some(dotted) = rest.strip_prefix('.').filter(|r| !r.is_empty()) {
        return Some(dotted.split('.').collect());
    }
    let inner = rest.strip_prefix('[')?.strip_suffix(']').filter(|r| !r.is_empty())?;
    Some(inner.split("][").collect())
}

/// True when a header name means a JWT claim.
pub(crate) fn is_claim(name: &str) -> bool {
    claim(name).is_some()
}

/// A claim is a text or a list of texts; either may hold the value.
fn claim_matcher(claims: Vec<&str>, text: &TextMatch, invert: bool) -> MetadataMatcher {
    let value = ValueMatcher {
        match_pattern: Some(match string_matcher(text) {
            Some(matcher) => value_matcher::MatchPattern::StringMatch(matcher),
            None => value_matcher::MatchPattern::PresentMatch(true),
        }),
    };
    let one_of = ListMatcher { match_pattern: Some(list_matcher::MatchPattern::OneOf(Box::new(value.clone()))) };
    let list = ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::ListMatch(Box::new(one_of))) };
    let either = value_matcher::MatchPattern::OrMatch(OrMatcher { value_matchers: vec![list, value] });
    let segment = |key: &str| metadata_matcher::PathSegment {
        segment: Some(metadata_matcher::path_segment::Segment::Key(key.to_owned())),
    };
    MetadataMatcher {
        filter: "envoy.filters.http.jwt_authn".to_owned(),
        path: std::iter::once("payload").chain(claims).map(segment).collect(),
        value: Some(ValueMatcher { match_pattern: Some(either) }),
        invert,
    }
}
