//! JSON documents. JSON is almost a part of YAML, but only almost: tabs, surrogate pairs and documents that follow each
//! other without a marker are JSON alone. What is no JSON is left to the YAML parser, never half read here.

use std::borrow::Cow;

use super::compose::{Composer, Frame, MAX_DOCUMENTS, Pending, Refusal};
use super::node::{Key, Mark, Node, Value};
use super::scalar;

/// The JSON documents of a piece; none when its first one is not JSON.
pub(super) fn read(text: &str, first_line: u32) -> Option<Vec<Result<Node<'_>, Refusal>>> {
    let marker = text.strip_prefix("---").unwrap_or(text);
    if !marker.trim_start().starts_with('{') {
        return None;
    }
    let start = text.len() - marker.len();
    let mut reader = Reader { text, at: start, line: first_line, column_at: start, column: to_column(start) + 1 };
    let mut composer = Composer::new(first_line, &[]);
    let mut out = Vec::new();
    while reader.peek().is_some() {
        if out.len() >= MAX_DOCUMENTS {
            let message = format!("more than {MAX_DOCUMENTS} documents in one file; what follows is not read");
            out.push(Err(Refusal::new("DocumentTooLarge", reader.mark(), message)));
            break;
        }
        composer.reset();
        match reader.document(&mut composer) {
            Ok(node) => out.push(Ok(node)),
            // The first thing wrong may be that it is YAML.
            Err(Wrong::Syntax(_)) if out.is_empty() => return None,
            Err(Wrong::Syntax(mark)) => {
                out.push(Err(Refusal::new("InvalidYAML", mark, "not JSON")));
                break;
            }
            Err(Wrong::Refused(refusal)) => {
                out.push(Err(refusal));
                break;
            }
        }
    }
    Some(out)
}

enum Wrong {
    Syntax(Mark),
    Refused(Refusal),
}

impl From<Refusal> for Wrong {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    line: u32,
    /// Up to here the columns of the line are counted.
    column_at: usize,
    column: u32,
}

fn to_column(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn mark(&mut self) -> Mark {
        let passed = self.text.get(self.column_at..self.at).unwrap_or_default();
        self.column = self.column.saturating_add(to_column(passed.chars().count()));
        self.column_at = self.at;
        Mark { line: self.line, column: self.column }
    }

    fn wrong(&mut self) -> Wrong {
        Wrong::Syntax(self.mark())
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        for &byte in self.rest().as_bytes() {
            match byte {
                b'\n' => {
                    self.at += 1;
                    self.line = self.line.saturating_add(1);
                    (self.column_at, self.column) = (self.at, 1);
                }
                b' ' | b'\t' | b'\r' => self.at += 1,
                _ => return Some(byte),
            }
        }
        None
    }

    fn document(&mut self, composer: &mut Composer<'a, '_>) -> Result<Node<'a>, Wrong> {
        let mut done = self.value(composer)?;
        loop {
            if let Some(node) = done.take() {
                return Ok(node);
            }
            // Just after an opening bracket, or after a value.
            let (closing, mapping, first) = match composer.innermost() {
                Some(Frame::Sequence { items, .. }) => (b']', false, items.is_empty()),
                Some(Frame::Mapping { entries, .. }) => (b'}', true, entries.is_empty()),
                None => return Err(self.wrong()),
            };
            let next = self.peek();
            if next == Some(closing) {
                self.at += 1;
                done = composer.close()?;
                continue;
            }
            if !first {
                if next != Some(b',') {
                    return Err(self.wrong());
                }
                self.at += 1;
                self.peek();
            }
            if mapping {
                let mark = self.mark();
                let text = self.string()?;
                composer.set_key(Key { text, mark }, false)?;
                if self.peek() != Some(b':') {
                    return Err(self.wrong());
                }
                self.at += 1;
            }
            done = self.value(composer)?;
        }
    }

    /// Reads a scalar, or the beginning of a list or mapping.
    fn value(&mut self, composer: &mut Composer<'a, '_>) -> Result<Option<Node<'a>>, Wrong> {
        let Some(byte) = self.peek() else { return Err(self.wrong()) };
        let mark = self.mark();
        let value = match byte {
            b'{' => {
                self.at += 1;
                let frame =
                    Frame::Mapping { entries: Vec::new(), merged: Vec::new(), key: Pending::None, mark, anchor: 0 };
                return Ok(composer.open(frame, mark)?);
            }
            b'[' => {
                self.at += 1;
                return Ok(composer.open(Frame::Sequence { items: Vec::new(), mark, anchor: 0 }, mark)?);
            }
            b'"' => Value::String(self.string()?),
            _ => {
                let rest = self.rest();
                let end = rest
                    .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.')))
                    .unwrap_or(rest.len());
                let word = rest.get(..end).unwrap_or_default();
                let value = match word {
                    "null" => Value::Null,
                    "true" => Value::Bool(true),
                    "false" => Value::Bool(false),
                    _ if is_number(word) => scalar::number(word).ok_or_else(|| self.wrong())?,
                    _ => return Err(self.wrong()),
                };
                self.at += end;
                value
            }
        };
        Ok(composer.complete(Node { value, mark })?)
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Wrong> {
        let Some(body) = self.rest().strip_prefix('"') else { return Err(self.wrong()) };
        let stop = |text: &str| text.bytes().position(|b| b == b'"' || b == b'\\' || b < b' ');
        let Some(end) = stop(body) else { return Err(self.wrong()) };
        if body.as_bytes().get(end) == Some(&b'"') {
            self.at += end + 2;
            return Ok(Cow::Borrowed(body.get(..end).unwrap_or_default()));
        }
        let mut out = String::new();
        let mut rest = body;
        loop {
            let Some(end) = stop(rest) else { return Err(self.wrong()) };
            out.push_str(rest.get(..end).unwrap_or_default());
            rest = rest.get(end..).unwrap_or_default();
            if let Some(after) = rest.strip_prefix('"') {
                self.at += 1 + body.len() - after.len();
                return Ok(Cow::Owned(out));
            }
            match unescape(rest) {
                Some((c, after)) => {
                    out.push(c);
                    rest = after;
                }
                None => return Err(self.wrong()),
            }
        }
    }
}

/// The character that an escape stands for, and what comes after it.
fn unescape(text: &str) -> Option<(char, &str)> {
    let rest = text.strip_prefix('\\')?;
    let plain = match rest.as_bytes().first()? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let (high, rest) = unit(rest)?;
            if !(0xD800..0xDC00).contains(&high) {
                // A lone low surrogate is no character; Go reads it as the replacement character.
                return Some((char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER), rest));
            }
            return match rest.strip_prefix('\\').and_then(unit) {
                Some((low @ 0xDC00..0xE000, rest)) => {
                    let code = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
                    Some((char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), rest))
                }
                _ => Some((char::REPLACEMENT_CHARACTER, rest)),
            };
        }
        _ => return None,
    };
    Some((plain, rest.get(1..)?))
}

/// The code unit of `uXXXX`.
fn unit(text: &str) -> Option<(u32, &str)> {
    let digits = text.strip_prefix('u')?.get(..4)?;
    if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    Some((u32::from_str_radix(digits, 16).ok()?, text.get(5..)?))
}

fn is_number(word: &str) -> bool {
    let digits = word.strip_prefix('-').unwrap_or(word);
    let whole = digits.split(['.', 'e', 'E']).next().unwrap_or_default();
    whole == "0" || (digits.starts_with(|c: char| c.is_ascii_digit()) && !whole.starts_with('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Option<Vec<String>> {
        read(text, 1).map(|out| {
            out.into_iter()
                .map(|document| match document {
                    Ok(node) => serde_json::to_string(&node).unwrap(),
                    Err(refusal) => format!("{}:{} {}", refusal.mark.line, refusal.mark.column, refusal.message),
                })
                .collect()
        })
    }

    #[test]
    fn json_is_read_as_json() {
        for (text, want) in [
            ("{}", &["{}"][..]),
            ("---\n{\"a\":\t[1, -2.5, true, null, \"x\", {}, []]}", &[r#"{"a":[1,-2.5,true,null,"x",{},[]]}"#]),
            ("{\"a\":1}{\"b\":2}\n {\"c\":3}", &[r#"{"a":1}"#, r#"{"b":2}"#, r#"{"c":3}"#]),
            (
                r#"{"a":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\ud83d-"}"#,
                &["{\"a\":\"\\\"\\\\/\\b\\f\\n\\r\\té😀\u{fffd}-\"}"],
            ),
            ("{\"a\": 1,\n \"a\": 2}", &["2:2 the key \"a\" is already there on line 1"]),
            ("{\"a\":1}\n{\"é\": 1x}", &[r#"{"a":1}"#, "2:7 not JSON"]),
            ("{\"big\": 18446744073709551615, \"e\": 1e2}", &[r#"{"big":18446744073709551615,"e":100}"#]),
        ] {
            let want: Vec<String> = want.iter().map(|w| (*w).to_owned()).collect();
            assert_eq!(texts(text), Some(want), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_left_to_yaml() {
        for text in
            ["{a: 1}", "{\"a\":}", "{\"a\":1,}", "{", "{\"a\":01}", "a: 1", "{\"a\": \"x\ny\"}", "{\"a\":1]", "{'a':1}"]
        {
            assert_eq!(texts(text), None, "{text}");
        }
    }
}
