//! Text that wants to do harm: refused quickly, and never with a panic.

use std::time::{Duration, Instant};

use mesh_api::document;
use proptest::prelude::*;

mod texts;

#[test]
fn hostile_text_is_refused_quickly() {
    let laughs: String = (1..30).fold("a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned(), |mut text, n| {
        let prior = format!("*a{}", n - 1);
        text.push_str(&format!("a{n}: &a{n} [{}]\n", [prior.as_str(); 9].join(", ")));
        text
    });
    let merges = {
        let keys: String = (0..1000).map(|n| format!("  k{n}: 1\n")).collect();
        format!("a: &a\n{keys}b:\n  <<: [{}]\n", vec!["*a"; 1000].join(", "))
    };
    let text = |s: &str, n: usize| s.repeat(n);
    for (what, text) in [
        ("laughs", laughs),
        ("merges", merges),
        ("lists", text("[", 1 << 20)),
        ("mappings", text("{a: ", 1 << 18)),
        ("JSON", text("{\"a\":", 1 << 18)),
        ("JSON lists", format!("{{\"a\": {}", text("[", 1 << 20))),
        ("blocks", text("- ", 1 << 19)),
        ("keys", text("? ", 1 << 19)),
        ("indentation", (0..3000).map(|n| format!("{}a:\n", " ".repeat(n))).collect()),
        ("anchors", (0..20_000).map(|n| format!("&a{n} [")).collect()),
        ("nested anchors", (0..120).map(|n| format!("&a{n} [")).collect::<String>() + &text("x, ", 100_000)),
        ("one key", format!("{}: 1", text("a", 1 << 20))),
        ("duplicate at the end", (0..200_000).map(|n| format!("k{n}: 1\n")).collect::<String>() + "k7: 2\n"),
        ("brackets too far left", format!("a:\n  b: [\n{}", text("]\n", 20_000))),
        ("lines too far left", format!("a:\n  b: [\n{}", text("x,\n", 200_000))),
        ("tags", text("!a ", 1 << 18)),
        ("quotes", text("\"\" ", 1 << 18)),
        ("commas", format!("[{}]", text(",", 1 << 20))),
        ("colons", text(": ", 1 << 19)),
    ] {
        let start = Instant::now();
        let parsed = document::parse(&"hostile.yaml".into(), &text);
        assert!(start.elapsed() < Duration::from_secs(10), "{what} took {:?}", start.elapsed());
        assert_eq!(parsed.objects().count(), 0, "{what}");
        assert!(parsed.diagnostics().count() >= 1, "{what} was not told");
    }
}

/// How much longer it may take: a build without optimisation, and a machine that does other things beside.
const SLACK: u32 = if cfg!(debug_assertions) { 10 } else { 3 };

#[test]
fn ten_megabytes_cost_a_second_at_most() {
    for (what, text) in texts::all() {
        let start = Instant::now();
        let parsed = document::parse(&"hostile.yaml".into(), &text);
        let took = start.elapsed();
        assert!(took < SLACK * Duration::from_secs(1), "{what} took {took:?}");
        assert!(parsed.documents.len() <= document::MAX_DOCUMENTS + 1, "{what}");
    }
}

#[test]
fn many_documents_are_no_attack() {
    let text = "--- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n".repeat(20_000);
    assert_eq!(document::parse(&"f".into(), &text).objects().count(), 20_000);
    let empty = "---\n".repeat(1 << 20);
    assert!(document::parse(&"f".into(), &empty).documents.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        document::parse(&"f".into(), &bytes);
    }

    #[test]
    fn no_yaml_like_text_panics(text in "([-a:{}\\[\\],&*!|>'\"#%@ \n\t?~<0.]|---\n|<<: |kind: |- |\\\\x|é|\u{feff}|\r\n){0,60}") {
        for document in document::parse(&"f".into(), &text).documents {
            if let Err(told) = document {
                let line = told.location.map_or(0, |l| l.line) as usize;
                prop_assert!(line >= 1 && line <= text.matches('\n').count() + 1, "line {line}");
            }
        }
    }

    #[test]
    fn no_edit_of_a_manifest_panics(
        at in 0usize..600, gone in 0usize..20, new in "[-a:{}\\[\\],&*!|>'\"#%@ \n\t?~<]{0,8}",
    ) {
        let mut text = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: reviews\n  labels: {a: &x b}\n\
            spec:\n  hosts: [reviews, \"*.b\"]\n  http:\n  - match:\n    - uri: {prefix: /api}\n      headers:\n        end-user:\n\
            \x20         exact: 'jason'\n    route:\n    - destination: {host: reviews, subset: v1}\n      weight: 80\n    - destination:\n\
            \x20         host: *x\n        subset: >-\n          v2\n      weight: 0x14\n    timeout: 1.5s\n---\napiVersion: v1\nkind: Service\n\
            metadata: {name: a}\n".to_owned();
        let at = at.min(text.len());
        text.replace_range(at..(at + gone).min(text.len()), &new);
        let parsed = document::parse(&"f".into(), &text);
        for told in parsed.diagnostics() {
            prop_assert!(told.location.as_ref().is_some_and(|l| l.line >= 1));
        }
    }
}
