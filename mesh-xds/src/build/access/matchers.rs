//! Envoy's matchers for what policies compare. Envoy refuses empty prefixes and suffixes, so `*` alone has a form of its own
//! everywhere.

use envoy_types::pb::envoy::config::core::v3::CidrRange;
use envoy_types::pb::envoy::config::route::v3::{HeaderMatcher, header_matcher::HeaderMatchSpecifier};
use envoy_types::pb::envoy::r#type::matcher::v3::{
    ListMatcher, MetadataMatcher, OrMatcher, RegexMatcher, StringMatcher, ValueMatcher, list_matcher,
    metadata_matcher::{PathSegment, path_segment::Segment},
    string_matcher::MatchPattern,
    value_matcher,
};
use mesh_api::Name;

use crate::build::u32_value;
use crate::model::authorization_policy::Pattern;
use crate::net::Cidr;

/// The name of the filter for tokens, under which it leaves what they say.
pub(super) const JWT_FILTER: &str = "envoy.filters.http.jwt_authn";
/// The key of a token's claims there.
pub(super) const JWT_PAYLOAD: &str = "payload";
/// What identities by mutual TLS begin with.
const SPIFFE: &str = "spiffe://";

fn of(pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() }
}

/// The whole text, by an expression of RE2.
pub(super) fn regex(regex: String) -> StringMatcher {
    of(MatchPattern::SafeRegex(RegexMatcher { regex, ..RegexMatcher::default() }))
}

/// Text as part of an expression of RE2.
pub(super) fn quoted(text: &str) -> String {
    let escape = |c: char| if r"\.+*?()|[]{}^$".contains(c) { vec!['\\', c] } else { vec![c] };
    text.chars().flat_map(escape).collect()
}

/// A text by a pattern.
pub(super) fn string(pattern: &Pattern) -> StringMatcher {
    match pattern {
        Pattern::Any => regex(".+".to_owned()),
        Pattern::Exact(text) => of(MatchPattern::Exact(text.to_string())),
        Pattern::Prefix(text) => of(MatchPattern::Prefix(text.to_string())),
        Pattern::Suffix(text) => of(MatchPattern::Suffix(text.to_string())),
    }
}

/// An identity by mutual TLS, by the principal of a policy.
pub(super) fn principal(written: &str) -> StringMatcher {
    match Pattern::parse(written) {
        Pattern::Any => regex(".+".to_owned()),
        Pattern::Exact(text) => of(MatchPattern::Exact(format!("{SPIFFE}{text}"))),
        Pattern::Prefix(text) => of(MatchPattern::Prefix(format!("{SPIFFE}{text}"))),
        Pattern::Suffix(text) => regex(format!("{SPIFFE}.*{}", quoted(&text))),
    }
}

/// An identity by mutual TLS, by its trust domain.
pub(super) fn trust_domain(written: &str) -> StringMatcher {
    match written.split_once('*') {
        Some(("", "")) => of(MatchPattern::Prefix(SPIFFE.to_owned())),
        Some((begin, end)) => regex(format!("{SPIFFE}{}[^/]*{}/.*", quoted(begin), quoted(end))),
        None => of(MatchPattern::Prefix(format!("{SPIFFE}{written}/"))),
    }
}

/// A header by a pattern.
pub(super) fn header(name: &str, pattern: &Pattern) -> HeaderMatcher {
    let specifier = match pattern {
        Pattern::Any => HeaderMatchSpecifier::PresentMatch(true),
        _ => HeaderMatchSpecifier::StringMatch(string(pattern)),
    };
    HeaderMatcher { name: name.to_owned(), header_match_specifier: Some(specifier), ..HeaderMatcher::default() }
}

/// The host, whatever its case.
pub(super) fn host(pattern: &Pattern) -> HeaderMatcher {
    let mut matcher = header(":authority", pattern);
    if let Some(HeaderMatchSpecifier::StringMatch(text)) = &mut matcher.header_match_specifier {
        text.ignore_case = true;
    }
    matcher
}

/// A range of addresses.
pub(super) fn cidr(range: &Cidr) -> CidrRange {
    CidrRange { address_prefix: range.address.to_string(), prefix_len: u32_value(range.len.into()) }
}

/// A value that is text.
pub(super) fn value(text: StringMatcher) -> ValueMatcher {
    ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::StringMatch(text)) }
}

/// A list with such a value.
pub(super) fn one_of_list(value: ValueMatcher) -> ValueMatcher {
    let list = ListMatcher { match_pattern: Some(list_matcher::MatchPattern::OneOf(Box::new(value))) };
    ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::ListMatch(Box::new(list))) }
}

/// What a filter has left behind.
pub(super) fn metadata(filter: &str, path: &[Name], value: ValueMatcher) -> MetadataMatcher {
    let segment = |key: &Name| PathSegment { segment: Some(Segment::Key(key.to_string())) };
    MetadataMatcher {
        filter: filter.to_owned(),
        path: path.iter().map(segment).collect(),
        value: Some(value),
        ..MetadataMatcher::default()
    }
}

/// A claim of the token that the filter for tokens has accepted; lists may hold the value among others.
pub(super) fn claim(path: &[Name], pattern: &Pattern, or_list: bool) -> MetadataMatcher {
    let path: Vec<Name> = std::iter::once(Name::from(JWT_PAYLOAD)).chain(path.iter().cloned()).collect();
    let alone = value(string(pattern));
    let matcher = if or_list {
        let value_matchers = vec![one_of_list(alone.clone()), alone];
        ValueMatcher { match_pattern: Some(value_matcher::MatchPattern::OrMatch(OrMatcher { value_matchers })) }
    } else {
        alone
    };
    metadata(JWT_FILTER, &path, matcher)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_mean_the_text() {
        assert_eq!(quoted("a.b[0]$-x"), r"a\.b\[0\]\$-x");
        let wanted = [
            ("*", regex(".+".to_owned())),
            ("*b.c", regex(r"spiffe://.*b\.c".to_owned())),
            ("td/ns/*", of(MatchPattern::Prefix("spiffe://td/ns/".to_owned()))),
            ("td/ns/a/sa/b", of(MatchPattern::Exact("spiffe://td/ns/a/sa/b".to_owned()))),
        ];
        for (written, want) in wanted {
            assert_eq!(principal(written), want, "{written}");
        }
        assert_eq!(trust_domain("a.*"), regex(r"spiffe://a\.[^/]*/.*".to_owned()));
        assert_eq!(trust_domain("a"), of(MatchPattern::Prefix("spiffe://a/".to_owned())));
    }
}
