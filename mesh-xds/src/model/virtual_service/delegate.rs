//! Delegation: a rule of one VirtualService hands over to the `http` rules of another one.
//!
//! The root's conditions hold for every rule of the delegate, and what a delegate's rule leaves open it takes from the
//! root's. Rules that contradict the root are dropped, and each drop is told: Istio only logs it. A delegate is never
//! changed here: several roots may refer to it.

use mesh_api::{Diagnostic, FieldPath, Name, ObjectRef};

use super::super::keys::InNamespace;
use super::{HttpAction, HttpMatch, HttpRule, Source, TextMatch, VirtualService};
use crate::model::Labels;

/// The VirtualService with every delegation replaced by the rules that it stands for.
///
/// `find` looks a delegate up; whether it may be seen from the root's namespace is for `find` to say with
/// [`Found::NotExported`].
pub fn merge<'a>(root: &VirtualService, find: impl Fn(&InNamespace) -> Found<'a>) -> (VirtualService, Vec<Diagnostic>) {
    let mut out = VirtualService { http: Vec::with_capacity(root.http.len()), ..root.clone() };
    let mut told = Vec::new();
    for rule in &root.http {
        let HttpAction::Delegate(to) = &rule.action else {
            out.http.push(rule.clone());
            continue;
        };
        let mut tell = |code: &'static str, message: String| {
            let at = FieldPath::new(format!("spec.http[{}].delegate", rule.path.index));
            let object = ObjectRef::new("VirtualService", root.namespace.clone(), root.name.clone());
            told.push(Diagnostic::error(code, message).on(&object).at(at));
        };
        let delegate = match find(to) {
            Found::Delegate(found) => found,
            Found::Missing => {
                tell(
                    "DelegateNotFound",
                    format!("there is no delegate {}/{}; the rule is left out", to.namespace, to.name),
                );
                continue;
            }
            Found::NotExported => {
                let (ns, name) = (&to.namespace, &to.name);
                tell(
                    "DelegateNotExported",
                    format!("{ns}/{name} is not exported to {}; the rule is left out", root.namespace),
                );
                continue;
            }
        };
        for sub in &delegate.http {
            match merge_rule(rule, sub, to) {
                Some(merged) => out.http.push(merged),
                None => tell(
                    "DelegateConflict",
                    format!(
                        "spec.http[{}] of {}/{} matches nothing that this rule matches; it is left out",
                        sub.path.index, to.namespace, to.name
                    ),
                ),
            }
        }
    }
    (out, told)
}

/// What a look-up of a delegate found.
#[derive(Clone, Copy, Debug)]
pub enum Found<'a> {
    /// It is there and may be used.
    Delegate(&'a VirtualService),
    /// There is no VirtualService of that name without hosts.
    Missing,
    /// It is not exported to the root's namespace.
    NotExported,
}

/// One rule of the delegate under the conditions of the root's; `None` when they contradict.
fn merge_rule(root: &HttpRule, sub: &HttpRule, delegate: &InNamespace) -> Option<HttpRule> {
    // A delegate that delegates again has no meaning; lowering has told so.
    if matches!(sub.action, HttpAction::Delegate(_)) {
        return None;
    }
    let mut out = sub.clone();
    out.matches = merge_matches(&root.matches, &sub.matches)?;
    out.path.index = root.path.index;
    out.path.delegate = Some((delegate.clone(), sub.path.index));
    out.name = join_names(&root.name, &sub.name);
    out.rewrite = out.rewrite.or_else(|| root.rewrite.clone());
    out.timeout = out.timeout.or(root.timeout);
    out.retries = out.retries.or_else(|| root.retries.clone());
    out.fault = out.fault.or_else(|| root.fault.clone());
    out.cors = out.cors.or_else(|| root.cors.clone());
    if out.mirrors.is_empty() {
        out.mirrors.clone_from(&root.mirrors);
    }
    if out.headers.is_empty() {
        out.headers.clone_from(&root.headers);
    }
    Some(out)
}

fn join_names(root: &Name, sub: &Name) -> Name {
    match (root.is_empty(), sub.is_empty()) {
        (_, true) => root.clone(),
        (true, false) => sub.clone(),
        (false, false) => Name::from(format!("{root}-{sub}")),
    }
}

/// Every match of the delegate must agree with some match of the root.
fn merge_matches(root: &[HttpMatch], sub: &[HttpMatch]) -> Option<Vec<HttpMatch>> {
    if root.is_empty() {
        return Some(sub.to_vec());
    }
    if sub.is_empty() {
        return Some(root.to_vec());
    }
    let mut out = Vec::new();
    for leaf in sub {
        let before = out.len();
        out.extend(root.iter().filter(|r| !conflict(r, leaf)).map(|r| merge_match(r, leaf)));
        if out.len() == before {
            return None;
        }
    }
    Some(out)
}

fn merge_match(root: &HttpMatch, leaf: &HttpMatch) -> HttpMatch {
    let or = |a: &Option<TextMatch>, b: &Option<TextMatch>| a.clone().or_else(|| b.clone());
    let non_empty = |a: &Name, b: &Name| if a.is_empty() { b.clone() } else { a.clone() };
    HttpMatch {
        index: leaf.index,
        name: join_names(&root.name, &leaf.name),
        uri: or(&leaf.uri, &root.uri),
        ignore_uri_case: leaf.ignore_uri_case,
        scheme: or(&leaf.scheme, &root.scheme),
        method: or(&leaf.method, &root.method),
        authority: or(&leaf.authority, &root.authority),
        headers: overlay(&root.headers, &leaf.headers),
        without_headers: overlay(&root.without_headers, &leaf.without_headers),
        query_params: overlay(&root.query_params, &leaf.query_params),
        port: leaf.port.or(root.port),
        source: Source {
            labels: root
                .source
                .labels
                .iter()
                .chain(&leaf.source.labels)
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect::<Labels>(),
            namespace: non_empty(&leaf.source.namespace, &root.source.namespace),
            gateways: if leaf.source.gateways.is_empty() { &root.source } else { &leaf.source }.gateways.clone(),
        },
        stat_prefix: non_empty(&leaf.stat_prefix, &root.stat_prefix),
    }
}

type Named = [(Name, TextMatch)];

fn lookup<'a>(list: &'a Named, name: &Name) -> Option<&'a TextMatch> {
    list.iter().find(|(n, _)| n == name).map(|(_, m)| m)
}

/// Both lists; the leaf's wins where both have a name. Sorted by name, as lowering leaves them.
fn overlay(root: &Named, leaf: &Named) -> Vec<(Name, TextMatch)> {
    let mut out: Vec<_> = root.iter().filter(|(n, _)| lookup(leaf, n).is_none()).chain(leaf).cloned().collect();
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}

fn conflict(root: &HttpMatch, leaf: &HttpMatch) -> bool {
    let text = |a: &Option<TextMatch>, b: &Option<TextMatch>| text_conflict(a.as_ref(), b.as_ref());
    let named = |root: &Named, leaf: &Named| leaf.iter().any(|(n, m)| text_conflict(lookup(root, n), Some(m)));
    text(&root.uri, &leaf.uri)
        || text(&root.scheme, &leaf.scheme)
        || text(&root.method, &leaf.method)
        || text(&root.authority, &leaf.authority)
        || named(&root.headers, &leaf.headers)
        || named(&root.without_headers, &leaf.without_headers)
        || named(&root.query_params, &leaf.query_params)
        || root.ignore_uri_case != leaf.ignore_uri_case
        || matches!((root.port, leaf.port), (Some(a), Some(b)) if a != b)
        || source_conflict(&root.source, &leaf.source)
}

fn source_conflict(root: &Source, leaf: &Source) -> bool {
    let other_namespace = !root.namespace.is_empty() && leaf.namespace != root.namespace;
    let other_labels = leaf.labels.iter().any(|(k, v)| root.labels.get(k).is_some_and(|r| r != v));
    let other_gateways = !root.gateways.is_empty() && leaf.gateways.iter().any(|g| !root.gateways.contains(g));
    other_namespace || other_labels || other_gateways
}

/// True unless everything that the leaf matches is also matched by the root, as far as that can be told from the texts.
fn text_conflict(root: Option<&TextMatch>, leaf: Option<&TextMatch>) -> bool {
    let (Some(root), Some(leaf)) = (root, leaf) else { return false };
    match (root, leaf) {
        (TextMatch::Exact(a), TextMatch::Exact(b)) => a != b,
        (TextMatch::Prefix(a), TextMatch::Prefix(b) | TextMatch::Exact(b)) => !b.starts_with(a.as_str()),
        // Whether one pattern is within another can't be told.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::virtual_service::{Destination, HttpDestination, RulePath};

    fn uri(m: TextMatch) -> Vec<HttpMatch> {
        vec![HttpMatch { uri: Some(m), ..HttpMatch::default() }]
    }
    fn exact(t: &str) -> TextMatch {
        TextMatch::Exact(t.into())
    }
    fn prefix(t: &str) -> TextMatch {
        TextMatch::Prefix(t.into())
    }
    fn regex(t: &str) -> TextMatch {
        TextMatch::Regex(t.into())
    }
    fn root(matches: Vec<HttpMatch>) -> VirtualService {
        let action = HttpAction::Delegate(InNamespace::new("d", "sub"));
        VirtualService {
            namespace: "r".into(),
            name: "root".into(),
            hosts: vec!["a".into()],
            http: vec![HttpRule { name: "root".into(), matches, action, ..HttpRule::default() }],
            ..VirtualService::default()
        }
    }
    fn sub(rules: Vec<(&str, Vec<HttpMatch>)>) -> VirtualService {
        let http = rules.into_iter().enumerate().map(|(i, (name, matches))| HttpRule {
            path: RulePath::new(i),
            name: name.into(),
            matches,
            action: HttpAction::Route(vec![HttpDestination {
                destination: Destination { host: "b.svc".into(), ..Destination::default() },
                ..HttpDestination::default()
            }]),
            ..HttpRule::default()
        });
        VirtualService { namespace: "d".into(), name: "sub".into(), http: http.collect(), ..VirtualService::default() }
    }

    #[test]
    fn a_delegates_match_must_lie_within_the_roots() {
        for (r, s, merged) in [
            (Some(prefix("/a")), Some(prefix("/a/b")), Some(Some(prefix("/a/b")))),
            (Some(prefix("/a")), Some(exact("/a/b")), Some(Some(exact("/a/b")))),
            (Some(prefix("/a/b")), Some(prefix("/a")), None),
            (Some(exact("/a")), Some(exact("/a")), Some(Some(exact("/a")))),
            (Some(exact("/a")), Some(prefix("/a")), None),
            (Some(regex("/a.*")), Some(prefix("/a")), None),
            (Some(prefix("/a")), Some(regex("/a.*")), None),
            (Some(prefix("/a")), None, Some(Some(prefix("/a")))),
            (None, Some(regex("/a.*")), Some(Some(regex("/a.*")))),
            (None, None, Some(None)),
        ] {
            let root = root(r.clone().map(uri).unwrap_or_default());
            let sub = sub(vec![("", s.clone().map(uri).unwrap_or_default())]);
            let (out, told) = merge(&root, |_| Found::Delegate(&sub));
            let got = out.http.first().map(|rule| rule.matches.first().and_then(|m| m.uri.clone()));
            assert_eq!(got, merged, "{r:?} over {s:?}");
            assert_eq!(told.len(), usize::from(merged.is_none()), "{told:?}");
        }
    }

    #[test]
    fn names_paths_and_open_settings_come_from_both() {
        let mut root = root(uri(prefix("/a")));
        root.http[0].timeout = Some(std::time::Duration::from_secs(3));
        let sub = sub(vec![("one", uri(exact("/a/1"))), ("", uri(exact("/b"))), ("two", vec![])]);
        let (out, told) = merge(&root, |_| Found::Delegate(&sub));
        let names: Vec<_> = out.http.iter().map(|r| (r.name.as_str(), r.path.text("http", None))).collect();
        assert_eq!(
            names,
            [
                ("root-one", "spec.http[0] > d/sub spec.http[0]".to_owned()),
                ("root-two", "spec.http[0] > d/sub spec.http[2]".to_owned())
            ]
        );
        assert!(out.http.iter().all(|r| r.timeout == root.http[0].timeout));
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].code, "DelegateConflict");
    }

    #[test]
    fn gateways_labels_and_ports_must_not_contradict() {
        let with = |f: fn(&mut HttpMatch)| {
            let mut m = HttpMatch::default();
            f(&mut m);
            m
        };
        let gw = |list: &[&str]| list.iter().map(|g| Name::from(*g)).collect::<Vec<_>>();
        let mut root_gw = HttpMatch::default();
        root_gw.source.gateways = gw(&["a/gw", "mesh"]);
        let mut leaf_gw = HttpMatch::default();
        leaf_gw.source.gateways = gw(&["mesh"]);
        let mut other_gw = HttpMatch::default();
        other_gw.source.gateways = gw(&["b/gw"]);
        for (a, b, conflicts) in [
            (with(|m| m.port = Some(80)), with(|m| m.port = Some(81)), true),
            (with(|m| m.port = Some(80)), with(|m| m.port = None), false),
            (with(|m| m.ignore_uri_case = true), with(|_| ()), true),
            (with(|m| m.source.namespace = "x".into()), with(|_| ()), true),
            (root_gw.clone(), leaf_gw, false),
            (root_gw, other_gw, true),
        ] {
            assert_eq!(conflict(&a, &b), conflicts, "{a:?} {b:?}");
        }
    }

    #[test]
    fn missing_and_hidden_delegates_drop_the_rule_alone() {
        let mut root = root(vec![]);
        let kept = HttpRule { path: RulePath::new(1), ..HttpRule::default() };
        root.http.push(kept.clone());
        for (found, code) in [(Found::Missing, "DelegateNotFound"), (Found::NotExported, "DelegateNotExported")] {
            let (out, told) = merge(&root, |_| found);
            assert_eq!(out.http, std::slice::from_ref(&kept));
            assert_eq!(told[0].code, code);
            assert_eq!(told[0].path.as_str(), "spec.http[0].delegate");
        }
    }
}
