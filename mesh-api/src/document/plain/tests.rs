//! The plain reader against the parser: it may give up, but it may not differ.

use proptest::prelude::*;

use super::super::compose;
use super::*;

/// Nulls have no text, and the parser lets some lists begin at their first dash and some behind it.
fn without_odd_places(node: &mut Node<'_>) {
    match &mut node.value {
        Value::Null => node.mark = Mark::default(),
        Value::Sequence(items) => {
            node.mark = Mark::default();
            items.iter_mut().for_each(without_odd_places);
        }
        Value::Mapping(entries) => entries.iter_mut().for_each(|(_, node)| without_odd_places(node)),
        _ => {}
    }
}

fn agree(text: &str) -> Result<bool, String> {
    // The one thing that is read otherwise on purpose.
    if text.as_bytes().windows(2).any(|w| w[0] == b':' && b",[]{}".contains(&w[1])) {
        return Ok(false);
    }
    let Some(mut plain) = read(text, 7).and_then(Result::ok) else { return Ok(false) };
    let mut parsed = compose::with_parser(text, 7);
    let Some(Ok(whole)) = parsed.first_mut() else { return Err(format!("{text:?}: {plain:?}\nparser: {parsed:?}")) };
    without_odd_places(&mut plain);
    without_odd_places(whole);
    if parsed.len() == 1 && parsed[0].as_ref().is_ok_and(|whole| *whole == plain) {
        Ok(true)
    } else {
        Err(format!("{text:?}\nplain:  {plain:?}\nparser: {parsed:?}"))
    }
}

const MANIFEST: &str = "---  # one\n\
    apiVersion: networking.istio.io/v1\n\
    kind: VirtualService   # what\n\
    metadata:\n\
    \x20 name: reviews\n\
    \x20 labels: {app: reviews, 'v': \"1\", nested: {a: [1, 2]}}\n\
    \x20 annotations:\n\
    \x20   a.b/c: 'it''s: so #1'\n\
    \x20   text: |\n\
    \x20     one\n\
    \n\
    \x20       two: #\n\
    \n\
    \x20   kept: |+\n\
    \x20     x\n\
    \n\
    \x20   stripped: |-\n\
    \x20     y\n\
    spec:\n\
    \x20 hosts:\n\
    \x20 - reviews\n\
    \x20 - \"*.b\"\n\
    \x20 nothing:\n\
    \x20 tls: []\n\
    \x20 http:\n\
    \x20   - match:\n\
    \x20     - uri:\n\
    \x20         prefix: /api?x=1&y=a#z\n\
    \x20       headers: {}\n\
    \x20     -\n\
    \x20       port: 0x50\n\
    \x20     -\n\
    \x20   - - a\n\
    \x20     - b: http://c:80/\n\
    \x20       é: ü # ö\n\
    \x20 # a comment\n\
    \x20 exportTo: [., \"*\", -1, a:b]\n";

#[test]
fn manifests_are_read_the_same_way() {
    for text in [
        MANIFEST,
        "a: 1",
        "- a\n- b\n",
        "a:\n- b\n-\n  c: 1\n- - d\nb:\n  e\n",
        "a:\n\n  b: 1\n# c\n",
        "a: |\n  x\nb: |\n  y\n",
        "a:\n  - |\n    x\n    y\n  - z\n",
        "\"a\": b\n'c': \"d\"\n",
        "1: a\nyes: b\n~: c\n",
        "a: - \n".trim_end_matches("- \n"),
        "a: b#c\nd: e #f\ng: \"h\" # i\n",
    ] {
        assert_eq!(agree(text), Ok(true), "{text}");
    }
}

#[test]
fn an_address_may_end_in_colons() {
    let node = read("a: [1.2.3.4, 2001:db8::, b:]\n", 1).unwrap().unwrap();
    assert_eq!(serde_json::to_string(&node).unwrap(), r#"{"a":["1.2.3.4","2001:db8::","b:"]}"#);
}

#[test]
fn samples_are_read_the_same_way() {
    let Some(corpus) = std::env::var_os("MESH_CORPUS") else {
        eprintln!("SKIPPED samples_are_read_the_same_way: MESH_CORPUS is not set");
        return;
    };
    let (mut folders, mut plain, mut all) = (vec![std::path::PathBuf::from(corpus)], 0, 0);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "yaml") {
                let text = std::fs::read(&path).unwrap();
                for piece in super::super::split::pieces(&text) {
                    let text = std::str::from_utf8(piece.text).unwrap();
                    let agreed = agree(text);
                    assert!(agreed.is_ok(), "{}: {agreed:?}", path.display());
                    plain += usize::from(read(text, 1).is_some_and(|read| read.is_ok()));
                    all += 1;
                }
            }
        }
    }
    assert!(plain * 10 > all * 9, "only {plain} of {all} documents are plain");
}

#[test]
fn the_rest_of_yaml_is_left_to_the_parser() {
    for text in [
        "a: &x 1\n",
        "a: *x\n",
        "a: !t b\n",
        "<<: {}\n",
        "a: >\n  b\n",
        "a: [b,\n c]\n",
        "a: \"b\n  c\"\n",
        "a: b\n  c\n",
        "a: b: c\n",
        "a:\n\tb: 1\n",
        "a: 1\r\n",
        "? a\n: b\n",
        "text\n",
        "{a: b}: c\n",
        "a: 1\na: 2\n",
        "a: 1\n  b: 2\n",
        "a: |2\n   b\n",
        "a: \"\\n\"\n",
        "%YAML 1.2\n",
        "a: 1\n...\n",
        "a: - b\n",
        "- a\nb: c\n",
        "a: [b: c]\n",
        "a: {b}\n",
        "a: [b, ]\n",
        "",
        "# only\n",
    ] {
        assert_eq!(read(text, 1).and_then(Result::ok), None, "{text:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn never_read_differently(text in "((  |    |)(- |-|)(- |)(a|b|'c'|\"d\"|e f|1|é|)(: |:|)(x|'y'|\"z w\"|\\||\\|-|\\|\\+|\\[\\]|\\{\\}|\\{a: b, c: \\[1, x y\\]\\}|\\[a, 'b', \\{c: d\\}\\]|-1|~|#q| #r|)\n){0,8}") {
        if let Err(difference) = agree(&text) {
            prop_assert!(false, "{difference}");
        }
    }

    #[test]
    fn no_edit_is_read_differently(at in 0usize..700, gone in 0usize..8, new in "[-a:{}\\[\\],&*!|>'\"#%@ \n.~<]{0,5}") {
        let mut text = MANIFEST.to_owned();
        let floor = |text: &str, mut at: usize| { while !text.is_char_boundary(at) { at -= 1; } at };
        let from = floor(&text, at.min(text.len()));
        let to = floor(&text, (from + gone).min(text.len()));
        text.replace_range(from..to.max(from), &new);
        if !text.lines().skip(1).any(|line| line.starts_with("---")) && let Err(difference) = agree(&text) {
            prop_assert!(false, "{difference}");
        }
    }
}
