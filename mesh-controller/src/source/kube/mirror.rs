//! What the cluster has, as far as it was told. Pure: news come in, the events that they mean go out.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use mesh_api::mesh::LabelSelector;
use mesh_api::{Diagnostic, Name, Object, ObjectRef};

use super::scope::Scope;
use crate::source::{Batch, Event};

/// What one watch is over: a kind, in the whole cluster or in one namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    pub(super) kind: &'static str,
    pub(super) namespace: Option<Name>,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} in {namespace}", self.kind),
            None => f.write_str(self.kind),
        }
    }
}

/// What a watch has to say.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum News {
    /// The object of this name is so.
    Is(ObjectRef, Object),
    /// There is no such object, or none that the mesh has a use for.
    Gone(ObjectRef),
    /// The object cannot be read.
    Broken(ObjectRef, Diagnostic),
    /// These, and no others, are the objects of this part; what they are was said before.
    Listed(Part, BTreeSet<ObjectRef>),
}

/// The objects of a cluster.
#[derive(Debug)]
pub(super) struct Mirror {
    objects: BTreeMap<ObjectRef, Held>,
    scope: Scope,
    /// What has not been listed yet; none once all was told.
    unlisted: Option<BTreeSet<Part>>,
}

#[derive(Debug, Default)]
struct Held {
    /// The last version that could be read.
    good: Option<Object>,
    /// What is wrong with the newest version; hardly ever anything.
    problem: Option<Box<Diagnostic>>,
    /// True when the listener has the last good version.
    told: bool,
}

impl Mirror {
    /// Knows nothing yet, and waits for these parts.
    pub(super) fn new(parts: impl IntoIterator<Item = Part>) -> Self {
        Self { objects: BTreeMap::new(), scope: Scope::default(), unlisted: Some(parts.into_iter().collect()) }
    }

    /// Takes news in, and adds to the batch what they mean.
    pub(super) fn hear(&mut self, news: News, batch: &mut Batch) {
        match news {
            News::Is(key, object) => self.is(key, object, batch),
            News::Gone(key) => self.gone(&key, batch),
            News::Broken(key, problem) => {
                let held = self.objects.entry(key.clone()).or_default();
                if held.problem.as_deref() != Some(&problem) {
                    held.problem = Some(Box::new(problem.clone()));
                    batch.push(Event::Problems { part: part_of(&key), problems: vec![problem] });
                }
            }
            News::Listed(part, keys) => {
                for key in self.stale(&part, &keys) {
                    self.gone(&key, batch);
                }
                self.listed(&part, batch);
            }
        }
    }

    /// Replaces the `discoverySelectors`.
    pub(super) fn select(&mut self, selectors: &[LabelSelector], batch: &mut Batch) {
        if self.scope.select(selectors) {
            self.rescope(batch);
        }
    }

    fn is(&mut self, key: ObjectRef, object: Object, batch: &mut Batch) {
        let held = self.objects.entry(key.clone()).or_default();
        if held.problem.take().is_some() {
            batch.push(Event::Problems { part: part_of(&key), problems: Vec::new() });
        }
        if held.good.as_ref() == Some(&object) {
            return;
        }
        held.good = Some(object.clone());
        held.told = self.scope.includes(&key.namespace);
        if held.told {
            batch.push(Event::Upsert { object: object.clone(), location: None });
        }
        if let Object::Namespace(namespace) = &object {
            let none = BTreeMap::new();
            let labels = namespace.metadata.labels.as_ref().unwrap_or(&none);
            if self.scope.label(&key.name, Some(labels)) {
                self.rescope(batch);
            }
        }
    }

    fn gone(&mut self, key: &ObjectRef, batch: &mut Batch) {
        let Some(held) = self.objects.remove(key) else { return };
        if held.problem.is_some() {
            batch.push(Event::Problems { part: part_of(key), problems: Vec::new() });
        }
        if held.told {
            batch.push(Event::Delete(key.clone()));
        }
        if key.kind == "Namespace" && self.scope.label(&key.name, None) {
            self.rescope(batch);
        }
    }

    /// The objects of a part that are not among those listed.
    fn stale(&self, part: &Part, keys: &BTreeSet<ObjectRef>) -> Vec<ObjectRef> {
        let namespace = part.namespace.clone().unwrap_or_default();
        let known = self.objects.range(ObjectRef::new(part.kind, namespace, "")..).map(|(key, _)| key);
        let of_part = |key: &&ObjectRef| {
            key.kind == part.kind && part.namespace.as_ref().is_none_or(|namespace| key.namespace == *namespace)
        };
        known.take_while(of_part).filter(|key| !keys.contains(*key)).cloned().collect()
    }

    fn listed(&mut self, part: &Part, batch: &mut Batch) {
        if let Some(unlisted) = &mut self.unlisted {
            unlisted.remove(part);
            if unlisted.is_empty() {
                self.unlisted = None;
                batch.push(Event::Synced);
            }
        }
    }

    /// Tells of what counts now and did not, and takes back what counted and does not.
    fn rescope(&mut self, batch: &mut Batch) {
        for (key, held) in &mut self.objects {
            let Some(good) = &held.good else { continue };
            let counts = self.scope.includes(&key.namespace);
            match (held.told, counts) {
                (false, true) => batch.push(Event::Upsert { object: good.clone(), location: None }),
                (true, false) => batch.push(Event::Delete(key.clone())),
                _ => {}
            }
            held.told = counts;
        }
    }
}

/// What the problems of an object are filed under.
fn part_of(key: &ObjectRef) -> Name {
    key.to_string().into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(namespace: &str, name: &str, port: u16) -> News {
        let value = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
                           "spec": {"ports": [{"port": port}]}});
        let object = Object::from_value(&value).unwrap();
        News::Is(object.object_ref(), object)
    }

    fn namespace(name: &str, label: &str) -> News {
        let metadata = json!({"name": name, "labels": {"mesh": label}});
        let object =
            Object::from_value(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})).unwrap();
        News::Is(object.object_ref(), object)
    }

    fn key(namespace: &str, name: &str) -> ObjectRef {
        ObjectRef::new("Service", namespace, name)
    }

    fn part(kind: &'static str) -> Part {
        Part { kind, namespace: None }
    }

    fn listed(keys: &[(&str, &str)]) -> News {
        News::Listed(part("Service"), keys.iter().map(|(namespace, name)| key(namespace, name)).collect())
    }

    /// What the news mean, in short: `+` for told, `-` for taken back, `!` for problems, `.` for their end.
    fn told(mirror: &mut Mirror, news: impl IntoIterator<Item = News>) -> String {
        let mut batch = Batch::new();
        for news in news {
            mirror.hear(news, &mut batch);
        }
        short(&batch)
    }

    fn short(batch: &Batch) -> String {
        let short = |event: &Event| match event {
            Event::Upsert { object, .. } => format!("+{}", object.object_ref().name),
            Event::Delete(key) => format!("-{}", key.name),
            Event::Problems { problems, .. } if problems.is_empty() => ".".to_owned(),
            Event::Problems { .. } => "!".to_owned(),
            Event::Synced => "synced".to_owned(),
        };
        batch.iter().map(short).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_new_list_tells_what_has_changed_and_nothing_else() {
        let mut mirror = Mirror::new([part("Service"), part("Pod")]);
        let first = [service("n", "a", 1), service("n", "b", 1), listed(&[("n", "a"), ("n", "b")])];
        assert_eq!(told(&mut mirror, first), "+a +b");
        assert_eq!(told(&mut mirror, [News::Listed(part("Pod"), BTreeSet::new())]), "synced", "when all is listed");
        let again = [service("n", "a", 1), service("n", "c", 1), listed(&[("n", "a"), ("n", "c")])];
        assert_eq!(told(&mut mirror, again), "+c -b", "once only");
        assert_eq!(told(&mut mirror, [listed(&[])]), "-a -c", "a kind that is gone has no objects");
    }

    #[test]
    fn a_list_of_one_namespace_says_nothing_of_the_others() {
        let mut mirror = Mirror::new([part("Node")]);
        told(&mut mirror, [service("m", "a", 1), service("n", "b", 1), service("o", "c", 1)]);
        let part = Part { kind: "Service", namespace: Some("n".into()) };
        assert_eq!(told(&mut mirror, [News::Listed(part, BTreeSet::new())]), "-b");
    }

    #[test]
    fn a_broken_object_keeps_its_last_good_version() {
        let mut mirror = Mirror::new([part("Node")]);
        let broken = || News::Broken(key("n", "a"), Diagnostic::error("InvalidField", "no"));
        assert_eq!(told(&mut mirror, [service("n", "a", 1), broken(), broken()]), "+a !", "a problem is told once");
        assert_eq!(told(&mut mirror, [listed(&[("n", "a")])]), "", "it is still there");
        assert_eq!(told(&mut mirror, [service("n", "a", 1)]), ".");
        assert_eq!(told(&mut mirror, [broken(), News::Gone(key("n", "a"))]), "! . -a");
        assert_eq!(told(&mut mirror, [broken(), News::Gone(key("n", "a"))]), "! .", "never good, so never told");
    }

    #[test]
    fn namespaces_come_into_scope_and_leave_it() {
        let selector = |value: &str| LabelSelector {
            match_labels: [("mesh".to_owned(), value.to_owned())].into(),
            ..LabelSelector::default()
        };
        let mut mirror = Mirror::new([part("Node")]);
        let mut batch = Batch::new();
        mirror.select(&[selector("yes")], &mut batch);
        assert_eq!(told(&mut mirror, [service("n", "a", 1), service("m", "b", 1)]), "", "nothing is selected yet");
        assert_eq!(told(&mut mirror, [namespace("n", "yes"), namespace("m", "no")]), "+n +a +m");
        assert_eq!(told(&mut mirror, [service("m", "b", 2), service("n", "a", 2)]), "+a");
        assert_eq!(told(&mut mirror, [namespace("m", "yes")]), "+m +b");
        assert_eq!(told(&mut mirror, [namespace("n", "no")]), "+n -a");
        mirror.select(&[], &mut batch);
        assert_eq!(short(&batch), "+a", "without selectors all count");
        assert_eq!(told(&mut mirror, [News::Gone(key("m", "b"))]), "-b");
    }
}
