//! Where a check is and what it finds: the way to a field is a chain on the stack, and becomes text only when there is
//! something to tell. So a valid object costs no path at all.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::diagnostic::Step;
use crate::{Diagnostic, FieldPath, ObjectRef, Severity};

/// What a value has to say of itself: `Err` names the value and the way out.
pub(super) type Check = Result<(), String>;

/// A hostile object must not make more of what is said about it than of itself.
const MOST: usize = 1000;

/// What was found in one object.
#[derive(Default)]
pub(super) struct Findings(RefCell<Vec<Diagnostic>>);

impl Findings {
    /// All of it, with the name of the object, which is asked for only if it is needed.
    pub(super) fn about(self, object: impl FnOnce() -> Option<ObjectRef>) -> Vec<Diagnostic> {
        let mut told = self.0.into_inner();
        if !told.is_empty() {
            let object = object();
            told.iter_mut().for_each(|diagnostic| diagnostic.object.clone_from(&object));
        }
        told
    }
}

/// A place in an object.
#[derive(Clone, Copy)]
pub(super) struct At<'p> {
    up: Option<&'p At<'p>>,
    step: Step<'p>,
    findings: &'p Findings,
}

impl<'p> At<'p> {
    /// The object as a whole.
    pub(super) fn root(findings: &'p Findings) -> Self {
        Self { up: None, step: Step::Root, findings }
    }

    /// A field, or the entry of a map.
    pub(super) fn field<'c>(&'c self, name: &'c str) -> At<'c> {
        At { up: Some(self), step: Step::Field(name), findings: self.findings }
    }

    /// An element of a list.
    pub(super) fn index(&self, index: usize) -> At<'_> {
        At { up: Some(self), step: Step::Index(index), findings: self.findings }
    }

    /// Checks each element of the list in a field.
    pub(super) fn each<T>(&self, name: &str, list: &[T], mut check: impl FnMut(&At<'_>, &T)) {
        let at = self.field(name);
        for (index, element) in list.iter().enumerate() {
            check(&at.index(index), element);
        }
    }

    /// Checks each entry of the map in a field.
    pub(super) fn entries<K: AsRef<str>, V>(
        &self,
        name: &str,
        map: &BTreeMap<K, V>,
        mut check: impl FnMut(&At<'_>, &str, &V),
    ) {
        let at = self.field(name);
        for (key, value) in map {
            check(&at.field(key.as_ref()), key.as_ref(), value);
        }
    }

    /// An error if `result` is one.
    pub(super) fn check(&self, code: &'static str, result: Check) {
        if let Err(message) = result {
            self.error(code, message);
        }
    }

    /// An error if `wrong`.
    pub(super) fn refuse(&self, wrong: bool, code: &'static str, message: &str) {
        if wrong {
            self.error(code, message);
        }
    }

    /// What the field asks for cannot be done.
    pub(super) fn error(&self, code: &'static str, message: impl Into<String>) {
        self.tell(Severity::Error, code, message.into());
    }

    /// It can be done, but is probably not what was meant.
    pub(super) fn warning(&self, code: &'static str, message: impl Into<String>) {
        self.tell(Severity::Warning, code, message.into());
    }

    fn tell(&self, severity: Severity, code: &'static str, message: String) {
        let mut told = self.findings.0.borrow_mut();
        if told.len() < MOST {
            told.push(Diagnostic::new(severity, code, message).at(self.path()));
        }
    }

    fn path(&self) -> FieldPath {
        self.step.after(self.up.map(At::path).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_to_the_field_and_findings_are_limited() {
        let findings = Findings::default();
        let root = At::root(&findings);
        root.field("spec").each("http", &[1, 2], |at, _| at.error("Code", "message"));
        root.entries("labels", &BTreeMap::from([("a.b", 1)]), |at, _, _| at.warning("Code", "message"));
        for _ in 0..2 * MOST {
            root.error("Code", "message");
        }
        let told = findings.about(|| None);
        let paths: Vec<&str> = told.iter().take(4).map(|d| d.path.as_str()).collect();
        assert_eq!(paths, ["spec.http[0]", "spec.http[1]", "labels.a.b", ""]);
        assert_eq!(told.len(), MOST);
    }
}
