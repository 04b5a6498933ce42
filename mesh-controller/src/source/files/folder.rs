//! What the files say, without any file: bytes by name in, events out. All rules about broken documents, about last
//! good versions and about two files that define one object are here, and are pure.
//!
//! An object that cannot be read now but could be before stays in force; it goes only when its file, whole and
//! readable, no longer has it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use mesh_api::document::Document;
use mesh_api::{Diagnostic, Location, Name, ObjectRef, Severity};

use super::text::{self, Cache, Parsed};
use crate::source::{Batch, Event};

/// The news of one file.
pub(super) enum Content {
    /// This is in it.
    Bytes(Vec<u8>),
    /// It is there but cannot be read, for the given reason.
    Unreadable(String),
    /// It is no more.
    Gone,
}

/// A file and its place in the order of precedence: of two files that define one object, the later one counts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct FileId {
    /// Which of the roots that the user gave it belongs to.
    pub(super) root: usize,
    /// What the file is called to users.
    pub(super) name: Name,
}

/// All files and what they define.
#[derive(Default)]
pub(super) struct Folder {
    files: BTreeMap<FileId, File>,
    /// The files that define an object; the last one counts.
    claims: HashMap<ObjectRef, BTreeSet<FileId>>,
}

type Objects = BTreeMap<ObjectRef, Entry>;

#[derive(Default)]
struct File {
    cache: Cache,
    objects: Objects,
    /// The pieces that are broken so that nobody can say which object they mean.
    nameless: HashSet<u64>,
    problems: Vec<Diagnostic>,
    told: Vec<Diagnostic>,
}

/// One object of a file: a document of a parsed piece.
#[derive(Clone)]
struct Entry {
    part: Arc<Parsed>,
    index: usize,
    lines_before: u32,
    /// The text has it no longer in a form that can be read.
    kept: bool,
}

impl Entry {
    fn document(&self) -> Option<&Document> {
        self.part.documents.get(self.index)?.as_ref().ok()
    }

    fn location(&self) -> Option<Location> {
        self.document().map(|document| moved(document.location.clone(), self.lines_before))
    }

    fn event(&self) -> Option<Event> {
        let document = self.document()?;
        Some(Event::Upsert { object: document.object.clone(), location: self.location() })
    }

    /// True when both are the same piece at the same place; what is otherwise equal may be, too.
    fn is(&self, other: &Self) -> bool {
        self.lines_before == other.lines_before && self.index == other.index && Arc::ptr_eq(&self.part, &other.part)
    }

    fn same(a: Option<&Self>, b: Option<&Self>) -> bool {
        let (a, b) = match (a, b) {
            (Some(a), Some(b)) => (a, b),
            (None, None) => return true,
            _ => return false,
        };
        a.is(b) || a.location() == b.location() && a.document().map(|d| &d.object) == b.document().map(|d| &d.object)
    }
}

impl Folder {
    /// Takes in the news of some files and tells what follows from all of them together: a file that was renamed
    /// touches no object.
    pub(super) fn apply(&mut self, news: Vec<(FileId, Content)>) -> Batch {
        let mut before: BTreeMap<ObjectRef, Option<Entry>> = BTreeMap::new();
        let mut touched: BTreeSet<FileId> = BTreeSet::new();
        for (id, content) in news {
            let mut file = self.files.remove(&id).unwrap_or_default();
            let old = match content {
                Content::Bytes(bytes) => file.read(&id.name, &bytes),
                Content::Unreadable(why) => {
                    file.unreadable(&id.name, &why);
                    file.objects.clone()
                }
                Content::Gone => {
                    let gone = std::mem::take(&mut file);
                    file.told = gone.told;
                    gone.objects
                }
            };
            let differs = |object: &&ObjectRef| match (old.get(*object), file.objects.get(*object)) {
                (Some(old), Some(new)) => !old.is(new),
                _ => true,
            };
            let gone = old.keys().filter(|object| !file.objects.contains_key(*object));
            for object in file.objects.keys().chain(gone).filter(differs) {
                before.entry(object.clone()).or_insert_with(|| self.winner(object, Some((&id, &old))));
                touched.extend(self.claims.get(object).into_iter().flatten().cloned());
                if file.objects.contains_key(object) {
                    self.claims.entry(object.clone()).or_default().insert(id.clone());
                } else if let Some(claims) = self.claims.get_mut(object) {
                    claims.remove(&id);
                    if claims.is_empty() {
                        self.claims.remove(object);
                    }
                }
            }
            touched.insert(id.clone());
            self.files.insert(id, file);
        }

        let mut batch = Batch::new();
        for (object, old) in before {
            let new = self.winner(&object, None);
            if Entry::same(old.as_ref(), new.as_ref()) {
                continue;
            }
            touched.extend(self.claims.get(&object).into_iter().flatten().cloned());
            batch.push(new.and_then(|entry| entry.event()).unwrap_or(Event::Delete(object)));
        }
        for id in touched {
            let problems = self.problems(&id);
            let Some(file) = self.files.get_mut(&id) else { continue };
            if file.told != problems {
                file.told.clone_from(&problems);
                batch.push(Event::Problems { part: id.name, problems });
            }
        }
        self.files.retain(|_, file| !(file.objects.is_empty() && file.told.is_empty() && file.cache.is_empty()));
        batch
    }

    /// The entry that counts. `extra` is what a file said that is not in the map at the moment.
    fn winner(&self, object: &ObjectRef, extra: Option<(&FileId, &Objects)>) -> Option<Entry> {
        let id = self.claims.get(object)?.last()?;
        let objects = match extra {
            Some((extra, objects)) if extra == id => objects,
            _ => &self.files.get(id)?.objects,
        };
        objects.get(object).cloned()
    }

    /// The file's own problems, and its objects that another file defines, too.
    fn problems(&self, id: &FileId) -> Vec<Diagnostic> {
        let Some(file) = self.files.get(id) else { return Vec::new() };
        let mut problems = file.problems.clone();
        for (object, entry) in &file.objects {
            let Some(winner) = self.claims.get(object).and_then(BTreeSet::last).filter(|last| *last != id) else {
                continue;
            };
            let there = self.files.get(winner).and_then(|file| file.objects.get(object)).and_then(Entry::location);
            let there = there.map_or_else(|| winner.name.to_string(), |location| location.to_string());
            let told = Diagnostic::warning("DuplicateObject", format!("also defined at {there}, and that one counts"));
            problems.push(at(told.on(object), entry.location()));
        }
        problems.sort_by(|a, b| a.location.cmp(&b.location));
        problems
    }
}

impl File {
    /// Takes in a text; returns what was in force before.
    fn read(&mut self, name: &Name, bytes: &[u8]) -> Objects {
        let (parts, cache) = text::parse(name, bytes, &self.cache);
        let mut objects = Objects::new();
        let mut problems = Vec::new();
        let mut broken: BTreeMap<ObjectRef, Location> = BTreeMap::new();
        let mut nameless = HashMap::new();
        for (part, lines_before) in &parts {
            for (index, outcome) in part.documents.iter().enumerate() {
                let place = |mut told: Diagnostic| {
                    let location =
                        told.location.take().unwrap_or_else(|| Location { file: name.clone(), line: 1, column: 0 });
                    told.from_text(moved(location, *lines_before))
                };
                match outcome {
                    Ok(document) => {
                        problems.extend(document.diagnostics.iter().cloned().map(place));
                        let entry = Entry { part: Arc::clone(part), index, lines_before: *lines_before, kept: false };
                        let location = entry.location();
                        let object = document.object.object_ref();
                        if let Some(earlier) = objects.insert(object.clone(), entry) {
                            let there = location.map(|l| l.to_string()).unwrap_or_default();
                            let told = format!("also defined at {there}, and that one counts");
                            let told = Diagnostic::warning("DuplicateObject", told).on(&object);
                            problems.push(at(told, earlier.location()));
                        }
                    }
                    Err(problem) => {
                        let problem = place(problem.clone());
                        let location = problem.location.clone().unwrap_or_default();
                        match &problem.object {
                            Some(object) => {
                                broken.insert(object.clone(), location);
                            }
                            None => {
                                nameless.insert(part.hash, location);
                            }
                        }
                        problems.push(problem);
                    }
                }
            }
        }

        // A piece that was nameless before cannot be what has become of an object that was good until now.
        let newly_nameless = nameless.iter().find(|(part, _)| !self.nameless.contains(part));
        let excuse = newly_nameless.map(|(_, location)| location.clone());
        let still_nameless = nameless.values().min().cloned();
        let old = std::mem::take(&mut self.objects);
        for (object, entry) in &old {
            if objects.contains_key(object) {
                continue;
            }
            let because = broken
                .get(object)
                .or(excuse.as_ref())
                .or_else(|| still_nameless.as_ref().filter(|_| entry.kept))
                .cloned();
            if let Some(location) = because {
                let told = "its last good version stays in force until the text can be read again";
                problems.push(Diagnostic::new(Severity::Info, "LastGoodVersion", told).on(object).from_text(location));
                objects.insert(object.clone(), Entry { kept: true, ..entry.clone() });
            }
        }
        self.objects = objects;
        self.cache = cache;
        self.nameless = nameless.into_keys().collect();
        self.problems = problems;
        old
    }

    fn unreadable(&mut self, name: &Name, why: &str) {
        let location = Location { file: name.clone(), line: 1, column: 0 };
        let told = format!("cannot be read: {why}; what it said before stays in force");
        self.problems = vec![Diagnostic::error("UnreadableFile", told).from_text(location)];
    }
}

fn moved(mut location: Location, lines: u32) -> Location {
    location.line = location.line.max(1).saturating_add(lines);
    location
}

fn at(told: Diagnostic, location: Option<Location>) -> Diagnostic {
    match location {
        Some(location) => told.from_text(location),
        None => told,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::conformance::{Seen, manifest};

    /// Feeds versions of one file, each a list of documents, and checks which objects are in force after each.
    fn check(what: &str, versions: &[(&[&str], &[&str])]) {
        let mut folder = Folder::default();
        let mut seen = Seen::default();
        for (step, (documents, want)) in versions.iter().enumerate() {
            let text: Vec<String> = documents
                .iter()
                .map(|document| match document.split_once('=') {
                    Some((name, value)) => manifest(name, value),
                    None => (*document).to_owned(),
                })
                .collect();
            let id = FileId { root: 0, name: "f.yaml".into() };
            let batch = folder.apply(vec![(id, Content::Bytes(text.join("\n---\n").into_bytes()))]);
            if !batch.is_empty() {
                seen.hear(batch);
            }
            let got: Vec<String> = seen
                .objects
                .keys()
                .map(|key| format!("{}={}", key.name, seen.value(&key.name).unwrap_or_default()))
                .collect();
            assert_eq!(&got, want, "{what}, version {step}: {:?}", seen.problems);
            let broken = documents.iter().any(|document| !document.contains('='));
            assert_eq!(!seen.problems.is_empty(), broken, "{what}, version {step}: {:?}", seen.problems);
        }
    }

    #[test]
    fn the_last_good_version_stays_as_long_as_the_text_may_mean_it() {
        const BROKEN: &str = "kind: [";
        const ALSO_BROKEN: &str = "kind: {";
        const BROKEN_A: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: a\n  labels: 5\n";
        check(
            "a broken document may be any that is missing",
            &[
                (&["a=1", "b=1"], &["a=1", "b=1"]),
                (&["a=1", BROKEN], &["a=1", "b=1"]),
                (&["a=2", BROKEN], &["a=2", "b=1"]),
                (&["a=2", ALSO_BROKEN], &["a=2", "b=1"]),
                (&["a=2", "b=2"], &["a=2", "b=2"]),
            ],
        );
        check(
            "what was broken before is not what goes now",
            &[(&["a=1", "b=1", BROKEN], &["a=1", "b=1"]), (&["a=1", BROKEN], &["a=1"])],
        );
        check(
            "a broken document that tells its name keeps that object only",
            &[
                (&["a=1", "b=1"], &["a=1", "b=1"]),
                (&[BROKEN_A], &["a=1"]),
                (&[BROKEN_A, "c=1"], &["a=1", "c=1"]),
                (&["c=1"], &["c=1"]),
            ],
        );
        check(
            "a repaired file decides again",
            &[(&["a=1", "b=1"], &["a=1", "b=1"]), (&[BROKEN], &["a=1", "b=1"]), (&["a=1"], &["a=1"])],
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_keeps_all_it_said() {
        let mut folder = Folder::default();
        let mut seen = Seen::default();
        let id = || FileId { root: 0, name: "f.yaml".into() };
        seen.hear(folder.apply(vec![(id(), Content::Bytes(manifest("a", "1").into_bytes()))]));
        seen.hear(folder.apply(vec![(id(), Content::Unreadable("no permission".into()))]));
        assert_eq!((seen.value("a"), seen.problems.len()), (Some("1"), 1));
        assert!(folder.apply(vec![(id(), Content::Unreadable("no permission".into()))]).is_empty(), "told once");
        seen.hear(folder.apply(vec![(id(), Content::Gone)]));
        assert!(seen.objects.is_empty() && seen.problems.is_empty() && folder.files.is_empty());
    }

    #[test]
    fn an_object_twice_in_one_file_is_reported() {
        let mut folder = Folder::default();
        let mut seen = Seen::default();
        let text = format!("{}---\n{}", manifest("a", "1"), manifest("a", "2"));
        let id = FileId { root: 0, name: "f.yaml".into() };
        seen.hear(folder.apply(vec![(id, Content::Bytes(text.into_bytes()))]));
        assert_eq!(seen.value("a"), Some("2"), "the later one counts, as for kubectl apply");
        let problem = &seen.problems.values().next().unwrap()[0];
        assert_eq!((problem.code.as_ref(), problem.location.as_ref().unwrap().line), ("DuplicateObject", 1));
        assert!(problem.message.contains("f.yaml:8"), "{problem}");
    }
}
