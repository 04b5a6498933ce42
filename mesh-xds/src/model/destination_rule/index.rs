//! Which rule holds for a call: merging rules of one host, looking a host up, picking by workload.
//!
//! All pure functions over the rules of a namespace, so that the query around them only has to fetch those.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::{Hostname, Name};

use super::DestinationRule;
use crate::model::{Labels, Visibility, selects};
use crate::shared::Shared;

/// Which rules of a namespace are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Level {
    /// Those that the namespace itself may use.
    Local,
    /// Those that may leave the namespace.
    Exported,
    /// Those that may not leave it: what a proxy of the root namespace looks at first.
    Private,
}

/// The rules of one namespace at one level, merged by host.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RuleIndex {
    exact: BTreeMap<Hostname, Vec<Shared<DestinationRule>>>,
    /// Most specific first.
    wildcard: Vec<(Hostname, Vec<Shared<DestinationRule>>)>,
}

impl RuleIndex {
    /// Merges the rules of a namespace. `private_by_default` is the mesh's `defaultDestinationRuleExportTo: ["."]`,
    /// the only default that Istio honours besides `*`.
    pub fn new<'a>(
        rules: impl IntoIterator<Item = &'a Arc<DestinationRule>>,
        level: Level,
        private_by_default: bool,
    ) -> Self {
        let mut rules: Vec<Shared<DestinationRule>> =
            rules.into_iter().filter(|r| belongs(r, level, private_by_default)).map(Shared::from).collect();
        rules.sort_by_key(|r| (r.selector.is_none(), r.created, r.source.name.clone()));
        let mut by_host: BTreeMap<Hostname, Vec<Shared<DestinationRule>>> = BTreeMap::new();
        for rule in rules {
            add(by_host.entry(rule.host.clone()).or_default(), &rule);
        }
        let mut index = Self::default();
        for (host, rules) in by_host {
            if host.is_wildcard() {
                index.wildcard.push((host, rules));
            } else {
                index.exact.insert(host, rules);
            }
        }
        index.wildcard.sort_by(|(a, _), (b, _)| b.as_str().len().cmp(&a.as_str().len()).then_with(|| a.cmp(b)));
        index
    }

    /// The rules of the most specific host that means all of `host`.
    pub fn most_specific(&self, host: &Hostname) -> &[Shared<DestinationRule>] {
        if let Some(rules) = self.exact.get(host) {
            return rules;
        }
        self.wildcard.iter().find(|(pattern, _)| pattern.covers(host)).map_or(&[], |(_, rules)| rules)
    }

    /// True when there is no rule.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.wildcard.is_empty()
    }
}

fn belongs(rule: &DestinationRule, level: Level, private_by_default: bool) -> bool {
    let own = &rule.source.namespace;
    let private = match &rule.export_to {
        Visibility::Default => private_by_default,
        Visibility::Namespaces(list) => list.len() == 1 && list.contains(own),
        Visibility::Public | Visibility::Nobody => false,
    };
    match level {
        Level::Local => rule.export_to.allows(own),
        Level::Exported => !private,
        Level::Private => private,
    }
}

/// Adds a rule to those of its host: merged into the ones that it is exported with, or beside them.
fn add(rules: &mut Vec<Shared<DestinationRule>>, rule: &Shared<DestinationRule>) {
    let mut separate = true;
    for existing in rules.iter_mut() {
        let same = existing.export_to == rule.export_to;
        if !same && !is_superset(&rule.export_to, &existing.export_to) {
            continue;
        }
        match (&existing.selector, &rule.selector) {
            (Some(a), Some(b)) if a != b => continue,
            (a, b) if same && a.is_some() == b.is_some() => separate = false,
            _ => {}
        }
        *existing = Shared::new(merged(existing, rule));
    }
    if separate {
        rules.push(rule.clone());
    }
}

/// True when `wide` says where it is exported to and that is at least where `narrow` says.
fn is_superset(wide: &Visibility, narrow: &Visibility) -> bool {
    match (wide, narrow) {
        (Visibility::Public, Visibility::Namespaces(_)) => true,
        (Visibility::Namespaces(wide), Visibility::Namespaces(narrow)) => wide.is_superset(narrow),
        _ => false,
    }
}

/// The first policy stays, subsets of new names are added.
fn merged(first: &DestinationRule, rule: &DestinationRule) -> DestinationRule {
    let mut into = first.clone();
    into.merged.push(rule.source.clone());
    for subset in &rule.subsets {
        if into.subset(&subset.name).is_none() {
            into.subsets.push(subset.clone());
        }
    }
    if into.policy.is_none() {
        into.policy = rule.policy.clone();
    }
    into
}

/// The rules for calls from `client` to a host of `service_namespace`: the caller's namespace, then the service's, then
/// the root namespace; the first that has any decides.
///
/// `index` hands out the rules of a namespace at a level.
pub fn lookup(
    client: &Name,
    service_namespace: &Name,
    root: &Name,
    host: &Hostname,
    mut index: impl FnMut(&Name, Level) -> Arc<RuleIndex>,
) -> Vec<Shared<DestinationRule>> {
    // A catch-all rule of the root namespace is meant for everybody and must not hide a service's own rule from
    // gateways that happen to run there.
    let own_level = if client == root { Level::Private } else { Level::Local };
    let own = index(client, own_level).most_specific(host).to_vec();
    if !own.is_empty() {
        return own;
    }
    for namespace in [service_namespace, root] {
        if namespace.is_empty() {
            continue;
        }
        let exported: Vec<_> = index(namespace, Level::Exported)
            .most_specific(host)
            .iter()
            .filter(|rule| rule.export_to.allows(client))
            .cloned()
            .collect();
        if !exported.is_empty() {
            return exported;
        }
    }
    Vec::new()
}

/// The rule for a workload among those that [`lookup`] found: the first whose selector selects it, else the last one
/// without selector.
///
/// `labels` is `None` for calls that the workload receives: selectors only speak of callers.
pub fn pick<'a>(
    rules: &'a [Shared<DestinationRule>],
    client: &Name,
    labels: Option<&Labels>,
) -> Option<&'a Shared<DestinationRule>> {
    let selected = labels.and_then(|labels| {
        rules
            .iter()
            .find(|rule| rule.source.namespace == *client && rule.selector.as_ref().is_some_and(|s| selects(s, labels)))
    });
    selected.or_else(|| rules.iter().rfind(|rule| rule.selector.is_none()))
}

#[cfg(test)]
mod tests {
    use mesh_api::{FieldPath, ObjectRef};

    use super::super::{Origin, Subset};
    use super::*;

    struct Rule(DestinationRule);

    fn rule(namespace: &str, name: &str, host: &str) -> Rule {
        Rule(DestinationRule {
            source: ObjectRef::new("DestinationRule", namespace, name),
            merged: Vec::new(),
            created: 0,
            host: host.into(),
            export_to: Visibility::Default,
            selector: None,
            policy: None,
            subsets: Vec::new(),
        })
    }

    impl Rule {
        fn export(mut self, to: &[&str]) -> Self {
            self.0.export_to = Visibility::parse(to, &self.0.source.namespace);
            self
        }
        fn select(mut self, app: &str) -> Self {
            self.0.selector = Some([("app".into(), app.into())].into());
            self.export(&["."])
        }
        fn age(mut self, created: i64) -> Self {
            self.0.created = created;
            self
        }
        fn subsets(mut self, names: &[&str]) -> Self {
            let origin = Origin { object: self.0.source.clone(), path: FieldPath::new("spec.subsets") };
            let subset = |name: &&str| Subset {
                name: (*name).into(),
                labels: Labels::new(),
                policy: None,
                origin: origin.clone(),
            };
            self.0.subsets = names.iter().map(|n| Arc::new(subset(n))).collect();
            self
        }
    }

    fn index(rules: Vec<Rule>, level: Level) -> RuleIndex {
        let rules: Vec<_> = rules.into_iter().map(|r| Arc::new(r.0)).collect();
        RuleIndex::new(&rules, level, false)
    }

    fn names(rules: &[Shared<DestinationRule>]) -> Vec<String> {
        rules
            .iter()
            .map(|r| {
                let subsets: Vec<_> = r.subsets.iter().map(|s| s.name.as_str()).collect();
                let from: Vec<_> =
                    std::iter::once(&r.source).chain(&r.merged).map(|source| source.name.as_str()).collect();
                format!("{}:{}", from.join("+"), subsets.join(","))
            })
            .collect()
    }

    #[test]
    fn rules_of_one_host_merge_by_age_and_drop_duplicate_subsets() {
        let rules = vec![
            rule("ns", "young", "a.com").age(2).subsets(&["v2", "v3"]),
            rule("ns", "old", "a.com").age(1).subsets(&["v1", "v2"]),
        ];
        assert_eq!(names(index(rules, Level::Local).most_specific(&"a.com".into())), ["old+young:v1,v2,v3"]);
    }

    #[test]
    fn rules_exported_elsewhere_stay_apart() {
        let rules = || {
            vec![
                rule("ns", "rule1", "a.com").age(1).subsets(&["s1"]),
                rule("ns", "rule2", "a.com").age(2).subsets(&["s2"]),
                rule("ns", "rule3", "a.com").age(3).subsets(&["s3"]).export(&["other"]),
            ]
        };
        assert_eq!(names(index(rules(), Level::Local).most_specific(&"a.com".into())), ["rule1+rule2:s1,s2"]);
        let exported = index(rules(), Level::Exported);
        assert_eq!(names(exported.most_specific(&"a.com".into())), ["rule1+rule2:s1,s2", "rule3:s3"]);
    }

    #[test]
    fn a_rule_for_more_namespaces_is_merged_and_kept() {
        let rules = vec![
            rule("ns", "narrow", "a.com").age(1).subsets(&["s1"]).export(&[".", "x"]),
            rule("ns", "wide", "a.com").age(2).subsets(&["s2"]).export(&[".", "x", "y"]),
        ];
        assert_eq!(
            names(index(rules, Level::Exported).most_specific(&"a.com".into())),
            ["narrow+wide:s1,s2", "wide:s2"]
        );
    }

    #[test]
    fn selectors_come_first_and_only_equal_ones_merge() {
        let client = Name::from("ns");
        let rules = vec![
            rule("ns", "all", "a.com").age(0).subsets(&["s0"]).export(&[".", "x"]),
            rule("ns", "app1", "a.com").age(1).subsets(&["s1"]).select("app1"),
            rule("ns", "app2", "a.com").age(2).subsets(&["s2"]).select("app2"),
            rule("ns", "app2b", "a.com").age(3).subsets(&["s3"]).select("app2"),
        ];
        let index = index(rules, Level::Local);
        let found = index.most_specific(&"a.com".into());
        assert_eq!(names(found), ["app1+all:s1,s0", "app2+app2b+all:s2,s3,s0", "all:s0"]);
        let app = |app: &str| -> Labels { [("app".into(), app.into()), ("v".into(), "1".into())].into() };
        for (labels, want) in [(Some(app("app2")), "app2"), (Some(app("other")), "all"), (None, "all")] {
            let picked = pick(found, &client, labels.as_ref()).unwrap();
            assert_eq!(picked.source.name, want);
        }
        // Selectors only speak of workloads of the rule's own namespace.
        assert_eq!(pick(found, &"x".into(), Some(&app("app1"))).unwrap().source.name, "all");
    }

    #[test]
    fn lookup_goes_client_service_root_and_stops_at_the_first_hit() {
        let all = || {
            vec![
                rule("client", "c", "*.svc"),
                rule("svc", "s", "a.svc"),
                rule("svc", "hidden", "b.svc").export(&["nobody-else"]),
                rule("root", "r", "*"),
                rule("root", "private", "a.svc").export(&["."]),
            ]
        };
        let find = |client: &str, host: &str| {
            let rules: Vec<_> = all().into_iter().map(|r| Arc::new(r.0)).collect();
            let found = lookup(&client.into(), &"svc".into(), &"root".into(), &host.into(), |ns, level| {
                Arc::new(RuleIndex::new(rules.iter().filter(|r| r.source.namespace == *ns), level, false))
            });
            found.iter().map(|r| r.source.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(find("client", "a.svc"), ["c"], "the caller's wildcard hides the service's exact rule");
        assert_eq!(find("other", "a.svc"), ["s"]);
        assert_eq!(find("other", "b.svc"), ["r"], "a rule that is not exported here does not stop the search");
        assert_eq!(find("root", "a.svc"), ["private"]);
        assert_eq!(find("root", "c.svc"), ["r"]);
    }

    #[test]
    fn the_most_specific_host_wins() {
        let rules = vec![rule("ns", "all", "*"), rule("ns", "com", "*.com"), rule("ns", "foo", "*.foo.com")];
        let index = index(rules, Level::Local);
        for (host, want) in [("a.foo.com", "foo"), ("foo.com", "com"), ("a.org", "all"), ("*.foo.com", "foo")] {
            assert_eq!(index.most_specific(&host.into())[0].source.name, want, "{host}");
        }
    }

    #[test]
    fn a_private_default_keeps_rules_at_home() {
        let rules = [Arc::new(rule("ns", "r", "a.com").0)];
        assert!(RuleIndex::new(&rules, Level::Exported, true).is_empty());
        assert!(!RuleIndex::new(&rules, Level::Local, true).is_empty());
    }
}
