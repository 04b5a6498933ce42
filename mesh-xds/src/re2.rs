//! RE2, the regular expressions that Envoy speaks, compiled by Rust's `regex`.

use mesh_api::re2::to_rust;
use regex::Regex;

/// Compiles a pattern of RE2.
///
/// # Errors
/// Says what is wrong with the pattern.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    build(&to_rust(pattern)?)
}

/// Compiles a pattern of RE2 so that it matches whole texts only, as Envoy does everywhere but in rewrites.
///
/// # Errors
/// Says what is wrong with the pattern.
pub fn compile_full(pattern: &str) -> Result<Regex, String> {
    build(&format!("^(?:{})$", to_rust(pattern)?))
}

fn build(pattern: &str) -> Result<Regex, String> {
    Regex::new(pattern).map_err(|error| match error {
        regex::Error::Syntax(text) => text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_and_refuses_what_re2_does() {
        for (pattern, yes, no) in [
            ("/api/.*", Some("/api/x"), Some("/ap")),
            ("/api/{id}", Some("/api/{id}"), Some("/api/1")),
            ("a{2,3}", Some("aaa"), Some("a")),
            ("a{,3}", Some("a{,3}"), Some("aa")),
            (r"\Qa.b\E.", Some("a.bc"), Some("axbc")),
            (r"\C+", Some("ab"), Some("")),
            ("[[:alpha:]]+", Some("ab"), Some("1")),
            (r"\p{Greek}", Some("β"), Some("b")),
            (r"\pN\x{41}", Some("1A"), Some("AA")),
            ("[a[b]+", Some("a[b"), Some("c")),
            ("[a&&b]", Some("&"), Some("c")),
            ("[]a]", Some("]"), Some("b")),
            ("[+--]", Some(","), Some("/")),
            (r"\<a\>", Some("<a>"), Some("a")),
            (r"\012", Some("\n"), Some("012")),
            ("(?i)abc", Some("ABC"), Some("x")),
            ("(?P<n>a)(?:b)", Some("ab"), Some("a")),
            ("a*?b", Some("aab"), Some("aa")),
        ] {
            let regex = compile_full(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}"));
            assert!(yes.is_none_or(|t| regex.is_match(t)), "{pattern} {yes:?}");
            assert!(!no.is_some_and(|t| regex.is_match(t)), "{pattern} {no:?}");
        }
        for pattern in [
            "", "*", "a**", "a+*", "a*??", "a{2}{3}", "a{1001}", "(", "[a", "(?x)a", "(?=a)", "(?<!a)", r"\1",
            r"\u0041", "a\\",
        ] {
            assert!(compile(pattern).is_err(), "{pattern}");
        }
    }
}
