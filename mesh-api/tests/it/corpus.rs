//! The conformance corpus: where it is, and the score that must never fall. The tests of other crates include this file.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// The folder that `MESH_CORPUS` names. `None` is said loudly: a test without its cases has tested nothing.
pub(crate) fn folder(test: &str, name: &str) -> Option<PathBuf> {
    let Some(corpus) = std::env::var_os("MESH_CORPUS") else {
        eprintln!("SKIPPED {test}: MESH_CORPUS is not set; it names the folder of the conformance corpus");
        return None;
    };
    let folder = PathBuf::from(corpus).join(name);
    assert!(folder.is_dir(), "MESH_CORPUS has no folder {name}: {}", folder.display());
    Some(folder)
}

/// Passed and failed checks by category, failures with their reasons.
#[derive(Default)]
pub(crate) struct Score {
    categories: BTreeMap<String, (usize, usize)>,
    failures: Vec<String>,
}

impl Score {
    /// One check: `Ok`, or why not.
    pub(crate) fn check(&mut self, category: &str, what: &str, result: Result<(), String>) {
        let counts = self.categories.entry(category.to_owned()).or_default();
        counts.1 += 1;
        match result {
            Ok(()) => counts.0 += 1,
            Err(why) => self.failures.push(format!("{what}: {why}")),
        }
    }

    /// Prints the score, the failures first, and fails if a category has fewer passes than `floors` (lines `category
    /// passes`). `UPDATE_SCORES=1` prints the new lines instead of failing.
    pub(crate) fn finish(&self, floors: &str) {
        let mut report = String::new();
        for failure in &self.failures {
            let _ = writeln!(report, "FAIL {failure}");
        }
        let mut lines = String::new();
        for (category, (passed, all)) in &self.categories {
            let _ = writeln!(report, "{category}: {passed} of {all}");
            let _ = writeln!(lines, "{category} {passed}");
        }
        println!("{report}");
        if std::env::var_os("UPDATE_SCORES").is_some() {
            println!("the new floors:\n{lines}");
            return;
        }
        for line in floors.lines().filter(|l| !l.is_empty()) {
            let (category, floor) = line.rsplit_once(' ').expect("a floor is `category passes`");
            let floor: usize = floor.parse().expect("a floor is a number");
            // What could not be tried at all was said to be skipped.
            let Some((passed, _)) = self.categories.get(category) else { continue };
            assert!(*passed >= floor, "{category} fell from {floor} to {passed}");
        }
    }
}
