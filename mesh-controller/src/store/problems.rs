//! All that is wrong with the configuration at this moment, kept for the debug pages, each told once in the log.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use mesh_api::{Diagnostic, Location, Name, ObjectRef, Severity};

/// What the sources could not read, and what is wrong with the objects that they could.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    sources: Arc<[Name]>,
    parts: BTreeMap<(usize, Name), Arc<[Diagnostic]>>,
    objects: BTreeMap<ObjectRef, Arc<[Diagnostic]>>,
    /// What is wrong between objects.
    between: Arc<[Diagnostic]>,
    changed: bool,
}

impl Problems {
    pub(super) fn new(sources: Arc<[Name]>) -> Self {
        Self { sources, ..Self::default() }
    }

    /// All problems, the sources' own first, in the order of their files, then those of objects by object, then those
    /// between objects.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        let own = self.parts.values().chain(self.objects.values());
        own.chain([&self.between]).flat_map(|problems| problems.iter())
    }

    /// The problems that a source has with one of its parts: `("files", "routes.yaml", …)`.
    pub fn parts(&self) -> impl Iterator<Item = (&Name, &Name, &[Diagnostic])> {
        self.parts
            .iter()
            .filter_map(|((source, part), problems)| Some((self.sources.get(*source)?, part, problems.as_ref())))
    }

    /// True when nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.objects.is_empty() && self.between.is_empty()
    }

    /// Replaces what a source has to say of one of its parts.
    pub(super) fn of_part(&mut self, source: usize, part: Name, problems: Vec<Diagnostic>) {
        let key = (source, part);
        tell(self.parts.get(&key).into_iter().flat_map(|old| old.iter()), &problems);
        self.changed |= set(&mut self.parts, key, problems);
    }

    /// Replaces what is wrong with the meaning of an object.
    pub(super) fn of_object(&mut self, object: ObjectRef, mut problems: Vec<Diagnostic>, location: Option<Location>) {
        for problem in &mut problems {
            if problem.location.is_none() {
                problem.location.clone_from(&location);
            }
        }
        tell(self.objects.get(&object).into_iter().flat_map(|old| old.iter()), &problems);
        self.changed |= set(&mut self.objects, object, problems);
    }

    /// Replaces what is wrong between objects.
    pub(super) fn between_objects(&mut self, problems: Vec<Diagnostic>) {
        tell(self.between.iter(), &problems);
        if *self.between != *problems {
            self.between = problems.into();
            self.changed = true;
        }
    }

    /// Puts itself in the place of an older version; false when that one was the same.
    pub(super) fn publish(&mut self, older: &mut Arc<Self>) -> bool {
        if std::mem::take(&mut self.changed) {
            *older = Arc::new(self.clone());
            return true;
        }
        false
    }
}

fn set<K: Ord>(map: &mut BTreeMap<K, Arc<[Diagnostic]>>, key: K, problems: Vec<Diagnostic>) -> bool {
    if problems.is_empty() {
        return map.remove(&key).is_some();
    }
    let same = map.get(&key).is_some_and(|old| **old == *problems);
    map.insert(key, problems.into());
    !same
}

/// Logs what was not there before. That a text moved by some lines is no news.
pub(crate) fn tell<'a>(before: impl IntoIterator<Item = &'a Diagnostic>, now: &[Diagnostic]) {
    let known: HashSet<_> = before.into_iter().map(gist).collect();
    for problem in now.iter().filter(|problem| !known.contains(&gist(problem))) {
        match problem.severity {
            Severity::Error | Severity::Warning => tracing::warn!("{problem}"),
            Severity::Info => tracing::info!("{problem}"),
        }
    }
}

fn gist(problem: &Diagnostic) -> (&str, &str, Option<&ObjectRef>, &str) {
    (&problem.code, &problem.message, problem.object.as_ref(), problem.path.as_str())
}
