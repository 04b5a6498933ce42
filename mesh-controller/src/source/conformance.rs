//! What every source must do, as one suite that each of them passes. The integration tests take it in as well, for the
//! sources that need a server.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh_api::{Diagnostic, Location, Name, Object, ObjectRef, Severity, document};

use super::{Event, Source};

/// Something with objects in it that a source can be made over.
pub(super) trait Subject {
    /// A source that has not started; what is there by now is its initial sync.
    fn source(&self) -> Box<dyn Source>;
    /// Puts an object there, or changes it.
    fn put(&self, name: &str, value: &str);
    /// Takes an object away.
    fn delete(&self, name: &str);
    /// Makes an object unreadable where it is; false where that cannot happen.
    fn spoil(&self, name: &str) -> bool;
}

/// The text of the suite's objects.
pub(super) fn manifest(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels:\n    value: \"{value}\"\n")
}

pub(super) fn object(name: &str, value: &str) -> Object {
    document::parse(&"test".into(), &manifest(name, value)).documents.remove(0).unwrap().object
}

pub(super) fn key(name: &str) -> ObjectRef {
    ObjectRef::new("Namespace", "", name)
}

/// What a listener knows of a source, and the rules that every event must keep.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) objects: BTreeMap<ObjectRef, (Object, Option<Location>)>,
    pub(super) problems: BTreeMap<Name, Vec<Diagnostic>>,
    pub(super) synced: bool,
    /// Every value that an object had, in order; empty for "deleted".
    pub(super) history: BTreeMap<ObjectRef, Vec<String>>,
}

impl Seen {
    pub(super) fn hear(&mut self, batch: Vec<Event>) {
        assert!(!batch.is_empty(), "a batch says something");
        for event in batch {
            match event {
                Event::Upsert { object, location } => {
                    let key = object.object_ref();
                    let value =
                        object.metadata().labels.as_ref().and_then(|l| l.get("value").cloned()).unwrap_or_default();
                    let old = self.objects.insert(key.clone(), (object.clone(), location.clone()));
                    assert_ne!(old, Some((object, location)), "{key} was told twice");
                    self.history.entry(key).or_default().push(value);
                }
                Event::Delete(key) => {
                    assert!(self.objects.remove(&key).is_some(), "{key} was deleted but never there");
                    self.history.entry(key).or_default().push(String::new());
                }
                Event::Problems { part, problems } if problems.is_empty() => {
                    assert!(self.problems.remove(&part).is_some(), "{part} is well and was");
                }
                Event::Problems { part, problems } => drop(self.problems.insert(part, problems)),
                other => {
                    assert_eq!(other, Event::Synced);
                    assert!(!std::mem::replace(&mut self.synced, true), "synced twice");
                }
            }
        }
    }

    /// Listens until something holds.
    pub(super) async fn until(&mut self, source: &mut dyn Source, what: &str, holds: impl Fn(&Self) -> bool) {
        while !holds(self) {
            let next = tokio::time::timeout(Duration::from_secs(10), source.next());
            let batch = next.await.unwrap_or_else(|_| panic!("{what} was never told; seen: {:?}", self.history));
            self.hear(batch.unwrap_or_else(|| panic!("the source ended before {what}")));
        }
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let (object, _) = self.objects.get(&key(name))?;
        object.metadata().labels.as_ref()?.get("value").map(String::as_str)
    }

    fn values(&self) -> BTreeMap<&str, &str> {
        self.objects.keys().map(|key| (key.name.as_str(), self.value(&key.name).unwrap())).collect()
    }
}

async fn started(subject: &dyn Subject) -> (Box<dyn Source>, Seen) {
    let mut source = subject.source();
    let mut seen = Seen::default();
    seen.until(source.as_mut(), "the initial sync", |seen| seen.synced).await;
    (source, seen)
}

/// Runs the whole suite over a subject that has nothing in it yet.
pub(super) async fn check(subject: &dyn Subject) {
    let (_, seen) = started(subject).await;
    assert!(seen.objects.is_empty(), "nothing there is a state like any other, and it syncs");

    subject.put("a", "1");
    subject.put("b", "1");
    let (mut source, mut seen) = started(subject).await;
    let source = source.as_mut();
    assert_eq!(seen.values(), [("a", "1"), ("b", "1")].into(), "what was there at the start comes before Synced");

    subject.put("c", "1");
    seen.until(source, "a new object", |seen| seen.value("c") == Some("1")).await;
    subject.put("a", "2");
    seen.until(source, "an edit", |seen| seen.value("a") == Some("2")).await;
    subject.delete("c");
    seen.until(source, "a deletion", |seen| seen.value("c").is_none()).await;
    assert_eq!(seen.values(), [("a", "2"), ("b", "1")].into(), "one object's changes touch no other");
    assert_eq!(seen.history[&key("b")], ["1"]);

    let told = seen.history[&key("a")].len();
    subject.put("a", "2");
    subject.put("d", "1");
    seen.until(source, "the object after an equal write", |seen| seen.value("d") == Some("1")).await;
    assert_eq!(seen.history[&key("a")].len(), told, "an equal write is silent");

    for value in 10..40 {
        subject.put("a", &value.to_string());
        tokio::task::yield_now().await;
    }
    seen.until(source, "the last of many edits", |seen| seen.value("a") == Some("39")).await;
    let order: Vec<u32> = seen.history[&key("a")].iter().map(|value| value.parse().expect("never deleted")).collect();
    assert!(order.is_sorted(), "the events of one object come in order: {order:?}");

    if subject.spoil("b") {
        seen.until(source, "a problem", |seen| !seen.problems.is_empty()).await;
        let problem = seen.problems.values().flatten().find(|p| p.severity == Severity::Error).expect("an error");
        assert!(problem.location.as_ref().is_some_and(|l| l.line > 0), "a problem names its place: {problem}");
        assert_eq!(seen.values(), [("a", "39"), ("b", "1"), ("d", "1")].into(), "the last good version stays in force");
        subject.put("d", "2");
        seen.until(source, "an edit beside a broken object", |seen| seen.value("d") == Some("2")).await;
        subject.put("b", "2");
        seen.until(source, "the repaired object", |seen| seen.value("b") == Some("2")).await;
        seen.until(source, "the end of the problem", |seen| seen.problems.is_empty()).await;
    } else {
        subject.put("b", "2");
        subject.put("d", "2");
        seen.until(source, "the edits", |seen| seen.value("b") == Some("2") && seen.value("d") == Some("2")).await;
    }

    let (_, again) = started(subject).await;
    assert_eq!(again.values(), seen.values(), "after a restart the same is told");
    assert!(again.history.values().all(|values| values.len() == 1), "and each object once");
}
