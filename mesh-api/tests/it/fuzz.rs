//! The bodies of the fuzz targets on stable Rust: edits of manifests of every kind, instead of libFuzzer's.

#[path = "../../fuzz/bodies.rs"]
mod bodies;

use mesh_api::document;
use mesh_api::object::KINDS;
use proptest::prelude::*;
use proptest::sample::Index;

const SEEDS: &str = include_str!("../../fuzz/seeds.yaml");

/// Values and pieces of syntax that mean something at many places.
const WORDS: &[&str] = &[
    "null",
    "~",
    "true",
    "0",
    "-1",
    "1.5",
    ".nan",
    "1e309",
    "18446744073709551615",
    "\"\"",
    "''",
    "[]",
    "{}",
    "[{}]",
    "[null]",
    "{a: null}",
    "&a x",
    "*a",
    "<<: *label",
    "|\n  x\n",
    "-",
    ":",
    "- ",
    "\n",
    "\n  ",
    "---\n",
    "...\n",
    "# ",
    "!!str 1",
    "\u{feff}",
    "\u{1F600}",
    "\t",
    "\\",
    "5s",
    "_",
    "1h1",
    "apiVersion",
    "spec",
];

#[test]
fn the_seeds_hold_every_kind_of_istio() {
    let parsed = document::parse(&"seeds.yaml".into(), SEEDS);
    let told: Vec<_> = parsed.diagnostics().map(ToString::to_string).collect();
    assert_eq!(told, [""; 0]);
    for kind in KINDS.iter().filter(|kind| kind.group.ends_with(".istio.io")) {
        assert!(parsed.objects().any(|object| object.kind_name() == kind.name), "{}", kind.name);
    }
    bodies::yaml(SEEDS.as_bytes());
}

/// What edits have found.
#[test]
fn found_before() {
    for text in [
        // The place of what isn't written at the end of a text.
        "apiVersion: v1\nkind: List\nitems:\n- {kind: Service}\n-",
        "apiVersion: v1\nkind: List\nitems:\n- &a {kind: Service}\n-\n\n",
    ] {
        bodies::yaml(text.as_bytes());
    }
}

/// One document of the seeds with some of its text replaced.
fn edited() -> impl Strategy<Value = String> {
    let word = prop_oneof![4 => prop::sample::select(WORDS).prop_map(str::to_owned), 1 => "[ -~\n]{0,6}"];
    let edit = (any::<Index>(), 0usize..12, word);
    (any::<Index>(), prop::collection::vec(edit, 1..4)).prop_map(|(document, edits)| {
        let documents: Vec<&str> = SEEDS.split("---\n").collect();
        let mut text: Vec<char> = document.get(&documents).chars().collect();
        for (at, length, new) in edits {
            let at = at.index(text.len() + 1);
            let end = (at + length).min(text.len());
            text.splice(at..end, new.chars());
        }
        text.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn edited_yaml(text in edited()) {
        bodies::yaml(text.as_bytes());
    }

    #[test]
    fn edited_json(text in edited()) {
        for document in document::raw(&"f".into(), &text).into_iter().flatten() {
            bodies::json(document.node.to_json().to_string().as_bytes());
        }
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        bodies::yaml(&bytes);
        bodies::json(&bytes);
    }
}
