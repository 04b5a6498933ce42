//! Which rules of a VirtualService are never reached: the first rule that matches decides, so one that repeats the
//! conditions of an earlier one, or follows one without conditions, says nothing. Nor does a prefix of a path that an
//! earlier, shorter one covers.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Serialize;

use crate::networking::{HttpMatchRequest, HttpRoute, VirtualServiceSpec};
use crate::types::StringMatch;
use crate::validate::at::At;

pub(super) fn check(at: &At<'_>, spec: &VirtualServiceSpec) {
    let http = spec.http.iter().map(|route| Rule { name: &route.name, matches: &route.r#match });
    repeated(at, "http", http, |found| {
        (name(&found.name), Cow::Owned(HttpMatchRequest { name: String::new(), ..found.clone() }))
    });
    covered(at, &spec.http);
    let tcp = spec.tcp.iter().map(|route| Rule { name: "", matches: &route.r#match });
    repeated(at, "tcp", tcp, |found| (None, Cow::Borrowed(found)));
    let tls = spec.tls.iter().map(|route| Rule { name: "", matches: &route.r#match });
    repeated(at, "tls", tls, |found| (None, Cow::Borrowed(found)));
}

/// A rule, as far as it matters here.
struct Rule<'a, M> {
    name: &'a str,
    matches: &'a [M],
}

fn name(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// What a rule or match is called: by its name, otherwise by its number.
fn label(name: Option<&str>, index: usize) -> String {
    name.map_or_else(|| format!("#{index}"), |name| format!("{name:?}"))
}

/// `condition` gives a match's name and what is left of it without.
fn repeated<'a, M: Clone + Serialize + 'a>(
    at: &At<'_>,
    field: &str,
    rules: impl ExactSizeIterator<Item = Rule<'a, M>>,
    condition: impl Fn(&'a M) -> (Option<&'a str>, Cow<'a, M>),
) {
    // One rule can only repeat itself.
    let at = at.field(field);
    let single = rules.len() == 1;
    let mut encountered: HashMap<String, usize> = HashMap::new();
    let mut names = Vec::new();
    let mut without_matches = false;
    for (number, rule) in rules.enumerate() {
        if single && rule.matches.len() < 2 {
            return;
        }
        let at = at.index(number);
        let own = label(name(rule.name), number);
        let unreachable = |at: &At<'_>, reason: &str| {
            let message = format!("virtualService rule {own} not used ({reason}); remove it or move it up");
            at.warning("UnreachableRule", message);
        };
        names.push(own.clone());
        if rule.matches.is_empty() {
            if without_matches {
                unreachable(&at, "only the last rule can have no matches");
            }
            without_matches = true;
            continue;
        }
        let mut duplicates = 0;
        for (index, found) in rule.matches.iter().enumerate() {
            if without_matches {
                unreachable(&at, "route without matches defined before");
                break;
            }
            let (name, condition) = condition(found);
            let Ok(text) = serde_json::to_string(condition.as_ref()) else { continue };
            match encountered.get(&text) {
                None => {
                    encountered.insert(text, number);
                }
                Some(other) => {
                    duplicates += 1;
                    let other = names.get(*other).map_or("", String::as_str);
                    ineffective(&at, index, &own, &label(name, index), other);
                }
            }
        }
        if duplicates == rule.matches.len() {
            unreachable(&at, "all matches used by prior rules");
        }
    }
}

fn ineffective(rule: &At<'_>, index: usize, own: &str, found: &str, other: &str) {
    rule.field("match").index(index).warning(
        "IneffectiveMatch",
        format!(
            "virtualService rule {own} match {found} is not used (duplicate/overlapping match in rule {other}); remove it or move it up"
        ),
    );
}

/// A match of paths by prefix, with the other conditions that Istio compares.
struct ByPrefix<'a> {
    prefix: &'a str,
    rule: usize,
    index: usize,
    route: &'a HttpRoute,
    found: &'a HttpMatchRequest,
}

/// So many earlier matches are compared with each: enough for what people write, and a limit for what others do.
const MOST_COMPARED: usize = 64;

/// Prefixes that an earlier, shorter one covers.
fn covered(at: &At<'_>, routes: &[HttpRoute]) {
    let mut all = by_prefix(routes);
    if all.len() < 2 {
        return;
    }
    // In the order of their prefixes, those that a prefix begins with come before it, and all that lies between begins
    // with them, too: they are what is left on the stack.
    all.sort_by(|a, b| a.prefix.cmp(b.prefix));
    let mut shorter: Vec<&ByPrefix<'_>> = Vec::new();
    let mut overlaps = Vec::new();
    for own in &all {
        while shorter.last().is_some_and(|last| !own.prefix.starts_with(last.prefix)) {
            shorter.pop();
        }
        let earlier = shorter.iter().rev().take(MOST_COMPARED).filter(|other| {
            other.prefix != own.prefix
                && (other.rule, other.index) < (own.rule, own.index)
                && covers(other.found, own.found)
        });
        overlaps.extend(earlier.min_by_key(|other| (other.rule, other.index)).map(|other| (own, *other)));
        shorter.push(own);
    }
    overlaps.sort_by_key(|(own, _)| (own.rule, own.index));
    for (own, other) in overlaps {
        let describe = |m: &ByPrefix<'_>| format!("{} of prefix {}", label(name(&m.found.name), m.index), m.prefix);
        let rule = |m: &ByPrefix<'_>| label(name(&m.route.name), m.rule);
        let other = format!("{} on {}", describe(other), rule(other));
        ineffective(&at.field("http").index(own.rule), own.index, &rule(own), &describe(own), &other);
    }
}

/// The matches by prefix that can be reached, each condition once.
fn by_prefix(routes: &[HttpRoute]) -> Vec<ByPrefix<'_>> {
    let until_all_match = routes.iter().enumerate().take_while(|(_, route)| !route.r#match.is_empty());
    let matches = until_all_match.flat_map(|(rule, route)| {
        route.r#match.iter().enumerate().map(move |(index, found)| (rule, index, route, found))
    });
    let by_prefix = matches.filter_map(|(rule, index, route, found)| match &found.uri {
        Some(StringMatch::Prefix(prefix)) if !prefix.is_empty() => Some(ByPrefix { prefix, rule, index, route, found }),
        _ => None,
    });
    by_prefix.collect()
}

/// True when all that `b` lets through, `a` does, too. Texts are compared as Istio does: what `a` asks for must begin with
/// what `b` asks for.
fn covers(a: &HttpMatchRequest, b: &HttpMatchRequest) -> bool {
    let same = |a: &std::collections::BTreeMap<String, StringMatch>,
                b: &std::collections::BTreeMap<String, StringMatch>| {
        a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| narrows(text(Some(a)), text(Some(b)))))
    };
    let method = |found: &HttpMatchRequest| match text(found.method.as_ref()) {
        (_, "") => ("exact:", "GET".to_owned()),
        (sort, text) => (sort, text.to_owned()),
    };
    let ((a_sort, a_method), (b_sort, b_method)) = (method(a), method(b));
    a.port == b.port
        && narrows((a_sort, &a_method), (b_sort, &b_method))
        && narrows(text(a.authority.as_ref()), text(b.authority.as_ref()))
        && same(&a.headers, &b.headers)
        && same(&a.query_params, &b.query_params)
        && same(&a.without_headers, &b.without_headers)
}

/// A condition's sort and text; an expression counts as no condition.
fn text(found: Option<&StringMatch>) -> (&'static str, &str) {
    match found {
        Some(StringMatch::Exact(text)) => ("exact:", text),
        Some(StringMatch::Prefix(text)) => ("prefix:", text),
        Some(StringMatch::Regex(_) | StringMatch::Present) | None => ("", ""),
    }
}

fn narrows((a_sort, a): (&str, &str), (b_sort, b): (&str, &str)) -> bool {
    b.is_empty() || (a_sort == b_sort && a.starts_with(b))
}
