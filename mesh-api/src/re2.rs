//! RE2, the regular expressions that Envoy speaks, put into the notation of Rust's `regex`.
//!
//! The two differ at the edges: RE2 takes `{` for itself where no count follows, knows `\C`, octal escapes and
//! `\Q…\E`, and refuses doubled repetitions; Rust knows flags, word edges and class arithmetic that RE2 doesn't. A pattern
//! that Envoy refuses would stop a whole route configuration, so this must never accept what RE2 doesn't. Nothing is
//! compiled here: who matches brings an engine.

use std::iter::Peekable;
use std::str::Chars;

use regex_syntax::ast::{Ast, RepetitionKind, RepetitionRange, Visitor, visit};
use regex_syntax::hir::translate::Translator;

/// Istio's limit for the length of a pattern.
pub const MAX_LENGTH: usize = 1024;
/// RE2's limit for a counted repetition, also of repetitions.
const MAX_REPEAT: u32 = 1000;
/// How deep groups may be nested.
const MAX_DEPTH: u32 = 1000;

/// Looks whether RE2 takes the pattern, in time linear in its length.
///
/// ```
/// assert!(mesh_api::re2::check("/api/v[12]/.*").is_ok());
/// assert!(mesh_api::re2::check("(?=lookahead)").is_err());
/// ```
///
/// # Errors
/// Says what is wrong with the pattern.
pub fn check(pattern: &str) -> Result<(), String> {
    let pattern = to_rust(pattern)?;
    let ast = regex_syntax::ast::parse::ParserBuilder::new()
        .nest_limit(MAX_DEPTH)
        .build()
        .parse(&pattern)
        .map_err(|error| error.kind().to_string())?;
    visit(&ast, Repetitions::default())?;
    Translator::new().translate(&pattern, &ast).map_err(|error| error.kind().to_string())?;
    Ok(())
}

/// Multiplies the counts of nested repetitions.
#[derive(Default)]
struct Repetitions(Vec<u32>);

impl Repetitions {
    fn count(ast: &Ast) -> Option<u32> {
        let Ast::Repetition(repetition) = ast else { return None };
        let RepetitionKind::Range(range) = &repetition.op.kind else { return None };
        Some(match *range {
            RepetitionRange::Exactly(n) | RepetitionRange::AtLeast(n) => n,
            RepetitionRange::Bounded(_, most) => most,
        })
    }
}

impl Visitor for Repetitions {
    type Output = ();
    type Err = String;

    fn finish(self) -> Result<(), String> {
        Ok(())
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), String> {
        let Some(count) = Self::count(ast) else { return Ok(()) };
        let all = self.0.last().copied().unwrap_or(1).saturating_mul(count.max(1));
        self.0.push(all);
        if all > MAX_REPEAT { Err(format!("more than {MAX_REPEAT} repetitions")) } else { Ok(()) }
    }

    fn visit_post(&mut self, ast: &Ast) -> Result<(), String> {
        if Self::count(ast).is_some() {
            self.0.pop();
        }
        Ok(())
    }
}

/// The pattern in the notation of Rust's `regex`.
///
/// # Errors
/// Says what is wrong with the pattern, as far as the notations differ; the rest is for `regex` to find.
pub fn to_rust(pattern: &str) -> Result<String, String> {
    if pattern.is_empty() {
        return Err("the expression is empty".to_owned());
    }
    if pattern.len() > MAX_LENGTH {
        return Err(format!("the expression is longer than {MAX_LENGTH} characters"));
    }
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut rest = pattern.chars().peekable();
    // What the last token was: 0 something to repeat, 1 a repetition, 2 a lazy repetition.
    let mut repeated = 0;
    while let Some(c) = rest.next() {
        let repetition = match c {
            '*' | '+' => true,
            '?' if repeated == 1 => {
                out.push('?');
                repeated = 2;
                continue;
            }
            '?' => true,
            '{' => match count(&rest) {
                Some((low, high)) if low.max(high) > MAX_REPEAT => {
                    return Err(format!("more than {MAX_REPEAT} repetitions"));
                }
                found => found.is_some(),
            },
            _ => false,
        };
        if repetition {
            if repeated > 0 {
                return Err(format!("a repetition of a repetition at {c:?}"));
            }
            repeated = 1;
            out.push(c);
            if c == '{' {
                copy_through(&mut rest, '}', &mut out);
            }
            continue;
        }
        repeated = 0;
        match c {
            '{' => out.push_str(r"\{"),
            '\\' => escape(&mut rest, &mut out)?,
            '[' => class(&mut rest, &mut out)?,
            '(' => {
                out.push('(');
                group(&rest)?;
                if rest.peek() == Some(&'?') {
                    rest.next();
                    out.push('?');
                }
            }
            other => out.push(other),
        }
    }
    Ok(out)
}

/// The count that begins here, `{` already read: `3}`, `3,}`, `3,5}`.
fn count(rest: &Peekable<Chars<'_>>) -> Option<(u32, u32)> {
    let text: String = rest.clone().take_while(|c| *c != '}').take(16).collect();
    if rest.clone().nth(text.chars().count()) != Some('}') {
        return None;
    }
    let number = |t: &str| t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse().unwrap_or(u32::MAX));
    match text.split_once(',') {
        _ if text.is_empty() || text.starts_with(',') => None,
        None => number(&text).map(|n| (n, n)),
        Some((low, "")) => number(low).map(|n| (n, n)),
        Some((low, high)) => Some((number(low)?, number(high)?)),
    }
}

fn copy_through(rest: &mut Peekable<Chars<'_>>, end: char, out: &mut String) {
    for c in rest.by_ref() {
        out.push(c);
        if c == end {
            return;
        }
    }
}

fn escape(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    match rest.next() {
        Some('Q') => {
            let mut literal = String::new();
            while let Some(c) = rest.next() {
                if c == '\\' && rest.peek() == Some(&'E') {
                    rest.next();
                    break;
                }
                literal.push(c);
            }
            out.push_str(&regex_syntax::escape(&literal));
        }
        Some('C') => out.push_str("(?s:.)"),
        Some(other) => escaped(other, rest, out)?,
        None => return Err("a backslash at the end".to_owned()),
    }
    Ok(())
}

/// Escapes that mean the same in and out of a class.
fn escaped(c: char, rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    match c {
        '0' => {
            let mut value = 0;
            for _ in 0..2 {
                let Some(digit) = rest.peek().and_then(|d| d.to_digit(8)) else { break };
                value = value * 8 + digit;
                rest.next();
            }
            out.push_str(&format!("\\x{{{value:x}}}"));
        }
        'u' | 'U' | '1'..='9' => return Err(format!("RE2 doesn't know \\{c}")),
        'p' | 'P' | 'x' => {
            out.extend(['\\', c]);
            if rest.peek() == Some(&'{') {
                copy_through(rest, '}', out);
            }
        }
        'a'..='z' | 'A'..='Z' => out.extend(['\\', c]),
        other => out.push_str(&regex_syntax::escape(other.encode_utf8(&mut [0; 4]))),
    }
    Ok(())
}

/// A class, `[` already read.
fn class(rest: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<(), String> {
    out.push('[');
    if rest.peek() == Some(&'^') {
        rest.next();
        out.push('^');
    }
    let mut first = true;
    while let Some(c) = rest.next() {
        match c {
            ']' if !first => {
                out.push(']');
                return Ok(());
            }
            ']' => out.push_str(r"\]"),
            '[' if rest.peek() == Some(&':') => {
                out.push('[');
                copy_through(rest, ']', out);
            }
            '[' | '&' | '~' => out.extend(['\\', c]),
            '-' if rest.peek() == Some(&'-') => {
                rest.next();
                out.push_str(r"-\-");
            }
            '\\' => match rest.next() {
                Some(c) => escaped(c, rest, out)?,
                None => break,
            },
            other => out.push(other),
        }
        first = false;
    }
    Err("a class without its end".to_owned())
}

/// What follows an opening parenthesis: RE2 knows the flags i, m, s and U, and names.
fn group(rest: &Peekable<Chars<'_>>) -> Result<(), String> {
    let mut ahead = rest.clone();
    if ahead.next() != Some('?') {
        return Ok(());
    }
    match ahead.next() {
        Some('P' | ':') => Ok(()),
        Some('<') if ahead.next().is_some_and(|c| c.is_alphabetic() || c == '_') => Ok(()),
        first => {
            let mut flags = first.into_iter().chain(ahead).take_while(|c| !matches!(c, ':' | ')'));
            match flags.find(|c| !matches!(c, 'i' | 'm' | 's' | 'U' | '-')) {
                None => Ok(()),
                Some(c) => Err(format!("RE2 doesn't know (?{c}")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_re2_takes() {
        for pattern in [
            "/api/.*",
            "/api/{id}",
            "a{2,3}",
            "a{,3}",
            r"\Qa.b\E.",
            r"\C+",
            "[[:alpha:]]+",
            r"\p{Greek}",
            r"\pN\x{41}",
            "[a[b]+",
            "[a&&b]",
            "[]a]",
            "[+--]",
            r"\<a\>",
            r"\012",
            "(?i)abc",
            "(?P<n>a)(?:b)",
            "(?<n>a)",
            "a*?b",
            "(a{10}){100}",
            "^*$",
        ] {
            assert_eq!(check(pattern), Ok(()), "{pattern}");
        }
    }

    #[test]
    fn refuses_what_re2_refuses() {
        for pattern in [
            "",
            "*",
            "a**",
            "a+*",
            "a*??",
            "a{2}{3}",
            "a{1001}",
            "(a{100}){100}",
            "(",
            ")",
            "[a",
            "[z-a]",
            "(?x)a",
            "(?=a)",
            "(?<!a)",
            r"\1",
            r"\u0041",
            "a\\",
            r"\p{Nobody}",
            "(?P<n>a)(?P<n>b)",
            "a{3,2}",
        ] {
            assert!(check(pattern).is_err(), "{pattern}");
        }
        assert!(check(&"a".repeat(MAX_LENGTH)).is_ok());
        assert!(check(&"a".repeat(MAX_LENGTH + 1)).is_err());
        assert!(check(&"(".repeat(MAX_LENGTH)).is_err());
    }
}
