//! Ten megabytes of harm each, of every sort we know; a tenth of that where nothing is optimised. The example `hostile`
//! measures the same texts.

/// How much of each.
pub(crate) const SIZE: usize = if cfg!(debug_assertions) { 1 << 20 } else { 10 << 20 };

/// What it is called, and the text.
pub(crate) type Hostile = (&'static str, String);

fn filled(unit: &str) -> String {
    unit.repeat(SIZE / unit.len())
}

fn lines(line: impl Fn(usize) -> String) -> String {
    let mut out = String::with_capacity(SIZE + 100);
    for number in 0.. {
        if out.len() >= SIZE {
            break;
        }
        out.push_str(&line(number));
    }
    out
}

/// All of them.
pub(crate) fn all() -> Vec<Hostile> {
    let head = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\n";
    vec![
        ("billion laughs", {
            let level = |n: usize| format!("a{n}: &a{n} [{}]\n", [format!("*a{}", n - 1).as_str(); 9].join(", "));
            "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned()
                + &(1..40).map(level).collect::<String>()
                + &filled("# x\n")
        }),
        ("aliases of a long text", format!("a: &a {}\nb: [{}]", "x".repeat(SIZE / 2), "*a,".repeat(SIZE / 6))),
        ("aliases of nothing", format!("a: &a x\nb: [{}]", filled("*a,"))),
        ("anchors", format!("[{}]", lines(|n| format!("&a{n} x,")))),
        ("nested anchors", lines(|n| format!("&a{n} ["))),
        ("merges", {
            let keys: String = (0..1000).map(|n| format!("  k{n}: 1\n")).collect();
            format!("a: &a\n{keys}b:\n  <<: [{}]\n", filled("*a,"))
        }),
        ("deep lists", filled("[")),
        ("deep mappings", filled("{a: ")),
        ("deep JSON", filled("{\"a\":")),
        ("deep JSON lists", format!("{{\"a\": {}", filled("["))),
        ("deep blocks", filled("- ")),
        ("deep keys", filled("? ")),
        ("deep indentation", (0..4500).map(|n| format!("{}a:\n", " ".repeat(n))).collect()),
        ("a huge key", format!("{}: 1", filled("a"))),
        ("a huge plain text", format!("{head}spec: {{hosts: [{}]}}", filled("a"))),
        ("a huge quoted text", format!("{head}spec: {{hosts: [\"{}\"]}}", filled("\\n"))),
        ("a huge block text", format!("{head}x: |\n{}", filled("  a\n"))),
        ("a huge folded text", format!("{head}x: >\n{}", filled("  a\n\n"))),
        ("a huge comment", format!("{head}{}", filled("#"))),
        ("a huge number", format!("{head}x: {}", filled("1"))),
        ("a huge tag", format!("!{} a", filled("a"))),
        ("tags", filled("!a ")),
        ("many keys", head.to_owned() + &lines(|n| format!("k{n}: 1\n"))),
        ("many unknown fields", head.to_owned() + "spec:\n" + &lines(|n| format!("  k{n}: 1\n"))),
        ("many keys of JSON", format!("{{{}\"z\":1}}", lines(|n| format!("\"k{n}\":1,")))),
        ("a key twice, at the end", lines(|n| format!("k{n}: 1\n")) + "k7: 2\n"),
        ("many values", format!("a: [{}]", filled("x,"))),
        ("many values of JSON", format!("{{\"a\":[{}1]}}", filled("1,"))),
        ("many rows", filled("- a\n")),
        ("many empty documents", filled("---\n")),
        ("many tiny documents", filled("a\n---\n")),
        ("many broken documents", filled("[\n---\n")),
        ("many JSON documents", filled("{}")),
        ("a list of nothing", format!("{{kind: List, items: [{}]}}", filled("1,"))),
        ("many objects", filled("--- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n")),
        ("brackets too far left", format!("a:\n  b: [\n{}", filled("]\n"))),
        ("lines too far left", format!("a:\n  b: [\n{}", filled("x,\n"))),
        ("quotes", filled("\"\" ")),
        ("an open quote", format!("a: \"{}", filled("x\n"))),
        ("commas", format!("[{}]", filled(","))),
        ("colons", filled(": ")),
        ("tabs", filled("\t")),
        ("spaces", filled(" ")),
        ("lines", filled("\n")),
        ("returns", filled("\r")),
        ("markers of order", filled("\u{feff}")),
        ("zeros", filled("\0")),
        ("directives", filled("%YAML 1.2\n")),
        ("ends", filled("...\n")),
    ]
}
