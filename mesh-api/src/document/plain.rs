//! The plain sort of YAML that nearly every manifest is written in, read line by line: some five times as fast as the
//! parser for all of YAML.
//!
//! It reads blocks, one-line flow collections, one-line scalars and literal text. Whatever else it meets, and whatever is
//! wrong, it leaves the whole document to the parser: so it never decides what is an error, and it must never read a
//! document differently. A test compares the two. Only what the composer refuses to both of them, a key that is there
//! twice and what is too large, is refused at once: to read it again would cost a hostile text twice.

use std::borrow::Cow;

use super::compose::{Composer, Frame, Pending, Refusal};
use super::node::{Key, Mark, Node, Value};
use super::scalar;

/// The document of a piece, or why it is refused; none where it takes the whole of YAML to read it.
pub(super) fn read(text: &str, first_line: u32) -> Option<Result<Node<'_>, Refusal>> {
    // Tabs, carriage returns and control characters have rules of their own.
    if text.bytes().any(|b| b < b' ' && b != b'\n') || text.contains('\u{feff}') {
        return None;
    }
    let mut reader = Reader {
        composer: Composer::new(first_line, &[]),
        open: Vec::new(),
        pending: true,
        due: Mark { line: first_line, column: 1 },
        ascii: text.is_ascii(),
        line: "",
        number: first_line,
        refused: None,
    };
    match reader.document(text) {
        Some(node) => Some(Ok(node)),
        None => reader.refused.map(Err),
    }
}

/// A list or mapping that is not at its end.
#[derive(Clone, Copy, PartialEq)]
struct Open {
    column: usize,
    list: bool,
}

struct Reader<'a> {
    composer: Composer<'a, 'static>,
    open: Vec<Open>,
    /// Whether a value must come next: at the beginning, after a key, after a dash.
    pending: bool,
    /// Where that value was announced: what isn't written stands there.
    due: Mark,
    ascii: bool,
    line: &'a str,
    number: u32,
    refused: Option<Refusal>,
}

/// How a literal text ends: `|` one line break, `|-` none, `|+` all there are.
#[derive(Clone, Copy, PartialEq)]
enum Chomp {
    Clip,
    Strip,
    Keep,
}

/// True when nothing but white space or a comment follows a token.
fn is_end(text: &str) -> bool {
    let bare = text.trim_start_matches(' ');
    bare.is_empty() || (bare.starts_with('#') && bare.len() < text.len())
}

impl<'a> Reader<'a> {
    fn document(&mut self, text: &'a str) -> Option<Node<'a>> {
        let mut rest = text;
        if let Some(after) = text.strip_prefix("---") {
            let (marker, next) = after.split_once('\n')?;
            if !is_end(marker) {
                return None;
            }
            rest = next;
            self.number += 1;
        }
        loop {
            let (line, next) = rest.split_once('\n').unwrap_or((rest, ""));
            let ended = line.len() == rest.len();
            rest = next;
            self.line = line;
            if let Some(header) = self.line()? {
                rest = self.literal(rest, header)?;
            }
            self.number = self.number.checked_add(1)?;
            if ended || rest.is_empty() {
                break;
            }
        }
        let mut document = None;
        if self.pending && !self.open.is_empty() {
            self.complete_unsaid()?;
        }
        while self.open.pop().is_some() {
            let closed = self.composer.close();
            document = self.kept(closed)?;
        }
        document
    }

    /// What the composer says, its refusal being remembered.
    fn kept<T>(&mut self, outcome: Result<T, Refusal>) -> Option<T> {
        outcome.map_err(|refusal| self.refused = Some(refusal)).ok()
    }

    fn mark(&self, column: usize) -> Mark {
        let before = if self.ascii { column } else { self.line.get(..column).unwrap_or_default().chars().count() };
        Mark { line: self.number, column: u32::try_from(before + 1).unwrap_or(u32::MAX) }
    }

    fn complete(&mut self, value: Value<'a>, column: usize) -> Option<()> {
        let mark = self.mark(column);
        self.complete_node(Node { value, mark })
    }

    fn complete_unsaid(&mut self) -> Option<()> {
        self.complete_node(Node { value: Value::Null, mark: self.due })
    }

    fn complete_node(&mut self, node: Node<'a>) -> Option<()> {
        self.pending = false;
        // A scalar as the whole document comes back; that is the parser's.
        let completed = self.composer.complete(node);
        self.kept(completed)?.is_none().then_some(())
    }

    fn push(&mut self, column: usize, list: bool) -> Option<()> {
        let mark = self.mark(column);
        let frame = if list {
            Frame::Sequence { items: Vec::new(), mark, anchor: 0 }
        } else {
            Frame::Mapping { entries: Vec::new(), merged: Vec::new(), key: Pending::None, mark, anchor: 0 }
        };
        let opened = self.composer.open(frame, mark);
        self.kept(opened)?;
        self.open.push(Open { column, list });
        Some(())
    }

    /// Reads a line; a literal text may begin at its end.
    fn line(&mut self) -> Option<Option<Chomp>> {
        let bare = self.line.trim_start_matches(' ');
        if bare.is_empty() || bare.starts_with('#') {
            return Some(None);
        }
        let mut column = self.line.len() - bare.len();
        if column == 0 && (bare.starts_with('%') || bare.starts_with("...")) {
            return None;
        }
        self.leave(column, is_dash(bare))?;
        let mut rest = bare;
        while is_dash(rest) {
            if self.pending {
                let fits = match self.open.last() {
                    None => true,
                    // A list may stand as far left as the key that it belongs to.
                    Some(open) => column > open.column || (column == open.column && !open.list),
                };
                fits.then(|| self.push(column, true))??;
            } else if self.open.last() != Some(&Open { column, list: true }) {
                return None;
            }
            (self.pending, self.due) = (true, self.mark(column));
            let after = rest.get(1..)?;
            if is_end(after) {
                return Some(None);
            }
            rest = after.trim_start_matches(' ');
            column = self.line.len() - rest.len();
        }
        match self.key(rest)? {
            Some((key, after)) => {
                if self.pending {
                    self.open.last().is_none_or(|open| column > open.column).then(|| self.push(column, false))??;
                } else if self.open.last() != Some(&Open { column, list: false }) {
                    return None;
                }
                let mark = self.mark(column);
                let set = self.composer.set_key(Key { text: key, mark }, false);
                self.kept(set)?;
                (self.pending, self.due) = (true, mark);
                if is_end(after) {
                    return Some(None);
                }
                self.value(after.trim_start_matches(' '), true)
            }
            None if self.pending && self.open.last().is_some_and(|open| column > open.column) => {
                self.value(rest, false)
            }
            None => None,
        }
    }

    /// Ends the lists and mappings that a line at `column` is no longer part of.
    fn leave(&mut self, column: usize, dash: bool) -> Option<()> {
        loop {
            let Some(&open) = self.open.last() else { return self.pending.then_some(()) };
            let within = column > open.column || (column == open.column && (!open.list || dash));
            if self.pending && !(column > open.column || (column == open.column && !open.list && dash)) {
                self.complete_unsaid()?;
            }
            if within {
                return Some(());
            }
            self.open.pop();
            let closed = self.composer.close();
            if self.kept(closed)?.is_some() {
                return None;
            }
        }
    }

    /// The key that a text begins with, and what follows its colon; none inside when it begins with no key.
    fn key(&self, text: &'a str) -> Option<Option<(Cow<'a, str>, &'a str)>> {
        let first = *text.as_bytes().first()?;
        if matches!(first, b'"' | b'\'') {
            let (key, after) = quoted(text)?;
            return Some(
                after.strip_prefix(':').filter(|a| a.is_empty() || a.starts_with(' ')).map(|after| (key, after)),
            );
        }
        if matches!(first, b'[' | b'{' | b'|' | b'>') {
            return Some(None);
        }
        let (length, colon) = plain(text)?;
        if !colon {
            return Some(None);
        }
        let name = text.get(..length)?.trim_end_matches(' ');
        // Longer keys are an error, a merge is the parser's.
        if name == "<<" || name.len() > 1000 {
            return None;
        }
        let key = scalar::key(scalar::plain(Cow::Borrowed(name)))?;
        Some(Some((key, text.get(length + 1..)?)))
    }

    /// Reads a value that begins and mostly ends on this line.
    fn value(&mut self, text: &'a str, after_key: bool) -> Option<Option<Chomp>> {
        let column = self.line.len() - text.len();
        match *text.as_bytes().first()? {
            b'"' | b'\'' => {
                let (value, after) = quoted(text)?;
                is_end(after).then(|| self.complete(Value::String(value), column))??;
            }
            b'[' | b'{' => self.flow(text)?,
            b'|' => {
                let (chomp, after) = match text.as_bytes().get(1) {
                    Some(b'-') => (Chomp::Strip, text.get(2..)?),
                    Some(b'+') => (Chomp::Keep, text.get(2..)?),
                    _ => (Chomp::Clip, text.get(1..)?),
                };
                return is_end(after).then_some(Some(chomp));
            }
            _ if after_key && is_dash(text) => return None,
            _ => {
                let (length, colon) = plain(text)?;
                if colon {
                    return None;
                }
                let word = text.get(..length)?.trim_end_matches(' ');
                self.complete(scalar::plain(Cow::Borrowed(word)), column)?;
            }
        }
        Some(None)
    }

    /// Reads a flow collection that ends on this line.
    fn flow(&mut self, text: &'a str) -> Option<()> {
        let depth = self.open.len();
        let mut rest = text;
        let mut value = true;
        loop {
            rest = rest.trim_start_matches(' ');
            let column = self.line.len() - rest.len();
            let first = *rest.as_bytes().first()?;
            let innermost = self.open.last().copied();
            if value {
                // A key comes first in a mapping, but not where its value is due.
                if !self.pending && innermost.is_some_and(|open| !open.list) {
                    let mark = self.mark(column);
                    let key;
                    (key, rest) = match first {
                        b'"' | b'\'' => {
                            let (key, after) = quoted(rest)?;
                            (key, after.strip_prefix(':')?)
                        }
                        _ => {
                            let length = flow_plain(rest)?;
                            let name = rest.get(..length)?.trim_end_matches(' ');
                            if name == "<<" {
                                return None;
                            }
                            let after = rest.get(length..)?.strip_prefix(':')?;
                            (scalar::key(scalar::plain(Cow::Borrowed(name)))?, after.starts_with(' ').then_some(after)?)
                        }
                    };
                    let set = self.composer.set_key(Key { text: key, mark }, false);
                    self.kept(set)?;
                    self.pending = true;
                    continue;
                }
                match first {
                    b'[' | b'{' => {
                        let list = first == b'[';
                        self.push(column, list)?;
                        rest = rest.get(1..)?.trim_start_matches(' ');
                        self.pending = false;
                        value = !rest.starts_with(if list { ']' } else { '}' });
                        continue;
                    }
                    b'"' | b'\'' => {
                        let (text, after) = quoted(rest)?;
                        self.complete(Value::String(text), column)?;
                        rest = after;
                    }
                    _ => {
                        let length = flow_plain(rest)?;
                        let word = rest.get(..length)?.trim_end_matches(' ');
                        self.complete(scalar::plain(Cow::Borrowed(word)), column)?;
                        rest = rest.get(length..)?;
                    }
                }
                value = false;
                continue;
            }
            let list = innermost?.list;
            match first {
                b',' => value = true,
                b']' if list => self.end_flow()?,
                b'}' if !list => self.end_flow()?,
                _ => return None,
            }
            rest = rest.get(1..)?;
            if self.open.len() == depth {
                return is_end(rest).then_some(());
            }
        }
    }

    fn end_flow(&mut self) -> Option<()> {
        self.open.pop();
        self.pending = false;
        let closed = self.composer.close();
        self.kept(closed)?.is_none().then_some(())
    }

    /// Reads the lines of a literal text; gives back what follows it.
    fn literal(&mut self, text: &'a str, chomp: Chomp) -> Option<&'a str> {
        let parent = self.open.last()?.column;
        let mut indent = None;
        let mut mark = self.mark(0);
        let mut out = String::new();
        let (mut blank, mut lines, mut rest) = (0, 0u32, text);
        while let Some((line, next)) = rest.split_once('\n') {
            let bare = line.trim_start_matches(' ');
            let depth = line.len() - bare.len();
            if bare.is_empty() {
                // Spaces beyond the indentation are text, before it is known they are an error.
                if indent.is_none_or(|indent| depth > indent) && depth > 0 {
                    return None;
                }
                blank += 1;
            } else {
                let indent = *indent.get_or_insert_with(|| {
                    // A text is where its first line is.
                    mark = Mark {
                        line: self.number.saturating_add(lines + 1),
                        column: u32::try_from(depth + 1).unwrap_or(u32::MAX),
                    };
                    depth
                });
                if depth < indent || depth <= parent {
                    // Text may end further left only where its parent goes on.
                    if depth > parent || (out.is_empty() && blank > 0) {
                        return None;
                    }
                    break;
                }
                out.extend(std::iter::repeat_n('\n', blank));
                blank = 0;
                out.push_str(line.get(indent..)?);
                out.push('\n');
            }
            lines += 1;
            rest = next;
        }
        // The last line has no end, or there is no line at all: rare, and the parser's.
        if out.is_empty()
            || !rest.split('\n').next().unwrap_or_default().trim_start_matches(' ').is_empty() && !rest.contains('\n')
        {
            return None;
        }
        match chomp {
            Chomp::Clip => {}
            Chomp::Strip => out.truncate(out.trim_end_matches('\n').len()),
            Chomp::Keep => out.extend(std::iter::repeat_n('\n', blank)),
        }
        self.pending = false;
        let completed = self.composer.complete(Node { value: Value::String(Cow::Owned(out)), mark });
        self.kept(completed)?;
        self.number = self.number.checked_add(lines)?;
        Some(rest)
    }
}

fn is_dash(text: &str) -> bool {
    text.strip_prefix('-').is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// What no plain scalar may begin with, or what means something there.
fn is_special(first: u8) -> bool {
    matches!(
        first,
        b'?' | b':'
            | b','
            | b'['
            | b']'
            | b'{'
            | b'}'
            | b'#'
            | b'&'
            | b'*'
            | b'!'
            | b'|'
            | b'>'
            | b'\''
            | b'"'
            | b'%'
            | b'@'
            | b'`'
    )
}

/// The length of the plain scalar at the beginning, spaces behind it included, and whether a colon ends it.
fn plain(text: &str) -> Option<(usize, bool)> {
    let bytes = text.as_bytes();
    if is_special(*bytes.first()?) || is_dash(text) {
        return None;
    }
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b':' if matches!(bytes.get(at + 1), None | Some(b' ')) => return Some((at, true)),
            b'#' if at > 0 && bytes.get(at - 1) == Some(&b' ') => return Some((at, false)),
            _ => {}
        }
    }
    Some((bytes.len(), false))
}

/// The same inside a flow collection, where brackets and commas end it too.
fn flow_plain(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    if is_special(*bytes.first()?) || is_dash(text) || text.starts_with("-,") || text.starts_with("-]") {
        return None;
    }
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b',' | b']' | b'}' => return Some(at),
            b'[' | b'{' => return None,
            // By YAML 1.2 a bracket after a colon makes it a key; Kubernetes' reader wants white space, which lets
            // `[2001:db8::]` be an address.
            b':' if matches!(bytes.get(at + 1), None | Some(b' ')) => return Some(at),
            b'#' if bytes.get(at.wrapping_sub(1)) == Some(&b' ') => return None,
            _ => {}
        }
    }
    None
}

/// A quoted scalar that ends on this line, and what follows it. Escapes are the parser's.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    if let Some(body) = text.strip_prefix('"') {
        let end = body.bytes().position(|b| b == b'"' || b == b'\\')?;
        if body.as_bytes().get(end) == Some(&b'\\') {
            return None;
        }
        return Some((Cow::Borrowed(body.get(..end)?), body.get(end + 1..)?));
    }
    let body = text.strip_prefix('\'')?;
    let mut from = 0;
    loop {
        let end = from + body.get(from..)?.find('\'')?;
        if body.as_bytes().get(end + 1) == Some(&b'\'') {
            from = end + 2;
            continue;
        }
        let inner = body.get(..end)?;
        let value = if from > 0 { Cow::Owned(inner.replace("''", "'")) } else { Cow::Borrowed(inner) };
        return Some((value, body.get(end + 1..)?));
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests are told by the environment where the corpus is")]
mod tests;
