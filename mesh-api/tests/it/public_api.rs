//! What others can name: every public item, field, variant and impl, as written, in a file that a review sees change.
//!
//! The sources are read as text. rustfmt keeps them in one shape, and what the macros of the types hold looks like plain
//! items; so this needs no compiler's internals. A line less or a changed one is a breaking change.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/public-api.txt");

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
            out.push(path);
        }
    }
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

/// Whatever is public, and impls of traits. What is inside a macro's rules stands for no item.
fn is_item(line: &str) -> bool {
    let item = line.starts_with("pub ") || (line.starts_with("impl") && line.contains(" for "));
    item && !line.contains('$')
}

/// The public items of a source, one a line.
fn items(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    // Inside a public enum or the arms of a `oneof`: the indentation of its head.
    let mut variants: Option<usize> = None;
    let mut lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
    while let Some(line) = lines.next() {
        let said = line.trim();
        if said.is_empty() || said.starts_with("//") || said.starts_with('#') {
            continue;
        }
        if variants.is_some_and(|head| indent(line) <= head) {
            variants = None;
        }
        if variants.is_some() && !said.starts_with('$') {
            out.push(said.to_owned());
        } else if is_item(said) {
            let mut item = said.to_owned();
            // A signature of several lines.
            while !item.ends_with(['{', ';', ',', '}']) || (item.contains("fn ") && item.ends_with(',')) {
                let Some(more) = lines.next() else { break };
                let _ = write!(item, " {}", more.trim());
            }
            let is_one_of = said.starts_with("pub ") && said.contains(": ") && said.ends_with('{');
            if said.starts_with("pub enum ") || (is_one_of && !said.contains("fn ")) {
                variants = Some(indent(line));
            }
            out.push(item.trim_end_matches([' ', '{']).to_owned());
        }
    }
    out
}

/// True unless it is an impl for a type that is not public.
fn is_nameable(item: &str, types: &BTreeSet<String>) -> bool {
    let implements = item.strip_prefix("impl").and_then(|item| item.rsplit_once(" for "));
    implements.is_none_or(|(_, name)| types.contains(&name_of(name)))
}

/// The identifier that a declaration begins with.
fn name_of(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn the_public_api_is_as_reviewed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    files.sort();
    let mut found = Vec::new();
    for file in files {
        let name = file.strip_prefix(&root).unwrap().display().to_string();
        found.extend(items(&std::fs::read_to_string(&file).unwrap()).into_iter().map(|item| (name.clone(), item)));
    }
    let declared =
        |item: &str| ["pub struct ", "pub enum "].iter().find_map(|head| item.strip_prefix(head)).map(name_of);
    let types = found.iter().filter_map(|(_, item)| declared(item)).collect();
    let mut now = String::new();
    for (name, item) in found.iter().filter(|(_, item)| is_nameable(item, &types)) {
        let _ = writeln!(now, "{name}: {item}");
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, &now).unwrap();
    }
    let before = std::fs::read_to_string(GOLDEN).unwrap_or_default();
    let gone: Vec<_> = before.lines().filter(|item| !now.lines().any(|line| line == *item)).collect();
    let new: Vec<_> = now.lines().filter(|item| !before.lines().any(|line| line == *item)).collect();
    let told = "the public API of mesh-api has changed; where that is meant, UPDATE_GOLDEN=1 writes it down";
    assert!(gone.is_empty() && new.is_empty(), "{told}\ngone: {gone:#?}\nnew: {new:#?}");
}

#[test]
fn items_are_found_whatever_holds_them() {
    let text = "message! {\n    /// A.\n    pub struct A {\n        /// B.\n        pub b: u32,\n        oneof {\n            pub c: C {\n\
                \x20               /// D.\n                d => D(u32),\n            }\n        }\n    }\n}\npub enum E {\n    F,\n}\n\
                impl From<A> for E {\n    fn from(a: A) -> E {\n    }\n}\npub fn g(\n    a: A,\n) -> E {\n    pub(crate) x;\n}\n\
                #[cfg(test)]\npub fn h() {}\n";
    assert_eq!(
        items(text),
        [
            "pub struct A",
            "pub b: u32,",
            "pub c: C",
            "d => D(u32),",
            "pub enum E",
            "F,",
            "impl From<A> for E",
            "pub fn g( a: A, ) -> E"
        ]
    );
}
