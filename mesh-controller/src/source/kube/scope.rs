//! Which namespaces the mesh looks at: those that any one of its `discoverySelectors` selects, or all without such.

use std::collections::{BTreeMap, BTreeSet};

use mesh_api::Name;
use mesh_api::mesh::LabelSelector;

/// The selectors, and the namespaces as they are labelled.
#[derive(Debug, Default)]
pub(super) struct Scope {
    selectors: Vec<LabelSelector>,
    labels: BTreeMap<Name, BTreeMap<String, String>>,
    selected: BTreeSet<Name>,
}

impl Scope {
    /// True for the namespaces that count. Objects that belong to no namespace (an empty one) always do.
    pub(super) fn includes(&self, namespace: &Name) -> bool {
        self.selectors.is_empty() || namespace.is_empty() || self.selected.contains(namespace)
    }

    /// Replaces the selectors; false when nothing differs.
    pub(super) fn select(&mut self, selectors: &[LabelSelector]) -> bool {
        if selectors == self.selectors {
            return false;
        }
        self.selectors = selectors.to_vec();
        self.selected = self.labels.iter().filter(|(_, labels)| self.selects(labels)).map(|(n, _)| n.clone()).collect();
        true
    }

    /// Replaces the labels of a namespace; `None` when it is gone. True when it counts now and did not, or the other way.
    pub(super) fn label(&mut self, namespace: &Name, labels: Option<&BTreeMap<String, String>>) -> bool {
        let before = self.includes(namespace);
        match labels {
            Some(labels) if self.selects(labels) => drop(self.selected.insert(namespace.clone())),
            _ => drop(self.selected.remove(namespace)),
        }
        match labels {
            Some(labels) => drop(self.labels.insert(namespace.clone(), labels.clone())),
            None => drop(self.labels.remove(namespace)),
        }
        before != self.includes(namespace)
    }

    fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selectors.iter().any(|selector| selector.matches(labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(value: &str) -> BTreeMap<String, String> {
        [("mesh".to_owned(), value.to_owned())].into()
    }

    fn selector(value: &str) -> LabelSelector {
        LabelSelector { match_labels: labels(value), ..LabelSelector::default() }
    }

    #[test]
    fn any_selector_selects_and_none_selects_all() {
        let mut scope = Scope::default();
        let (a, b) = (Name::from("a"), Name::from("b"));
        assert!(scope.includes(&a), "without selectors all count, known or not");
        assert!(!scope.label(&a, Some(&labels("one"))), "and a label changes nothing");

        assert!(scope.select(&[selector("one"), selector("two")]));
        assert!(!scope.select(&[selector("one"), selector("two")]), "the same again");
        assert!(scope.includes(&a) && !scope.includes(&b) && scope.includes(&Name::default()));
        assert!(scope.label(&b, Some(&labels("two"))) && scope.includes(&b));
        assert!(scope.label(&a, Some(&labels("three"))) && !scope.includes(&a));
        assert!(scope.label(&b, None) && !scope.includes(&b), "a namespace that is gone");
        assert!(scope.select(&[]) && scope.includes(&a));
    }
}
