//! YAML events to a tree, under limits: a hostile document is refused while it is read, before it has cost memory.
//!
//! Never recursive in the input's depth, never quadratic in its aliases.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Parser, ScalarStyle, Span, Tag};

use super::node::{Key, Mark, Node, Value};
use super::{json, plain, scalar};

/// Deepest nesting of a document. No Kubernetes kind comes near; schemas of CRDs stay below 60.
pub const MAX_DEPTH: usize = 128;
/// Most values in one document: a `List` of some ten thousand objects has fewer.
pub const MAX_NODES: usize = 4_000_000;
/// Most values in a document that only the parser for all of YAML can read, which takes its time.
const MAX_PARSED: usize = 1_000_000;
/// Longest line that this parser gets: it keeps what it reads of a line until it knows whether it is a key.
const MAX_LINE: usize = 1 << 20;
/// Most documents in one file, and most items in a `List`: what is refused is told one by one, and must not become a
/// report much longer than the text.
pub const MAX_DOCUMENTS: usize = 100_000;
/// What aliases may add to one document, in values and in units of 32 bytes of text.
pub const MAX_ALIASED: usize = 200_000;

/// Why a document is refused, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) message: String,
    pub(super) mark: Mark,
    pub(super) code: &'static str,
}

impl Refusal {
    pub(super) fn new(code: &'static str, mark: Mark, message: impl Into<String>) -> Self {
        Self { message: message.into(), mark, code }
    }
}

pub(super) enum Frame<'a> {
    Sequence { items: Vec<Node<'a>>, mark: Mark, anchor: usize },
    Mapping { entries: Vec<(Key<'a>, Node<'a>)>, merged: Vec<Node<'a>>, key: Pending<'a>, mark: Mark, anchor: usize },
}

/// The key whose value comes next.
pub(super) enum Pending<'a> {
    None,
    Key(Key<'a>),
    Merge,
}

/// The tree under construction, and what it has cost so far.
pub(super) struct Composer<'a, 'm> {
    stack: Vec<Frame<'a>>,
    anchors: HashMap<usize, Node<'a>>,
    nodes: usize,
    aliased: usize,
    first_line: u32,
    /// What isn't written after the last line stands in it.
    last_line: u32,
    moved: &'m [usize],
}

/// Reads the YAML documents of one piece of text whose first line is line `first_line` of its file. Documents before
/// an error are kept; what comes after it in this piece is lost. Empty documents are left out.
pub(super) fn compose(text: &str, first_line: u32) -> Vec<Result<Node<'_>, Refusal>> {
    if let Some(out) = json::read(text, first_line) {
        return out;
    }
    match plain::read(text, first_line) {
        Some(document) => vec![document],
        None => with_parser(text, first_line),
    }
}

/// The same, by the parser for all of YAML.
pub(super) fn with_parser(text: &str, first_line: u32) -> Vec<Result<Node<'_>, Refusal>> {
    if let Some(index) = text.lines().position(|line| line.len() > MAX_LINE) {
        let line = first_line.saturating_add(u32::try_from(index).unwrap_or(u32::MAX));
        let message = format!("a line of more than {MAX_LINE} bytes; write it as several, or as JSON");
        return vec![Err(Refusal::new("DocumentTooLarge", Mark { line, column: 1 }, message))];
    }
    match once(text, first_line, &[]) {
        (out, None) => out,
        (out, Some(line)) => relaxed(text, first_line, line).unwrap_or(out),
    }
}

/// The parser keeps to YAML's letter: a flow collection's closing bracket must stand deeper than its parent. Kubernetes'
/// reader accepts it anywhere, and manifests are written so. White space says nothing there, so the offending lines are
/// moved to the right, one at a time, within a budget.
fn relaxed(text: &str, first_line: u32, mut line: usize) -> Option<Vec<Result<Node<'static>, Refusal>>> {
    let mut budget = MAX_RELAXED;
    let mut moved = Vec::new();
    loop {
        budget = budget.checked_sub(text.len().max(1 << 12))?;
        match moved.binary_search(&line) {
            Ok(_) => return None,
            Err(at) => moved.insert(at, line),
        }
        let mut shifted = String::with_capacity(text.len() + moved.len() * SHIFT.len());
        for (index, row) in text.split_inclusive('\n').enumerate() {
            if moved.binary_search(&(index + 1)).is_ok() {
                shifted.push_str(SHIFT);
            }
            shifted.push_str(row);
        }
        match once(&shifted, first_line, &moved) {
            (out, None) => {
                return Some(out.into_iter().map(|document| document.map(Node::into_owned)).collect());
            }
            (_, Some(next)) => line = next,
        }
    }
}

/// Deeper than any indentation that [`MAX_DEPTH`] levels would have.
const SHIFT: &str = match std::str::from_utf8(&[b' '; 512]) {
    Ok(spaces) => spaces,
    Err(_) => "",
};
/// How many bytes may be read again for the sake of brackets that stand too far left.
const MAX_RELAXED: usize = 8 << 20;

/// The last line that says something.
fn last_line(text: &str, first_line: u32) -> u32 {
    let lines = text.trim_end().bytes().filter(|&b| b == b'\n').count();
    first_line.saturating_add(u32::try_from(lines).unwrap_or(u32::MAX))
}

/// The documents, and the line (of the piece) of a bracket that stands too far left.
fn once<'a>(text: &'a str, first_line: u32, moved: &[usize]) -> (Vec<Result<Node<'a>, Refusal>>, Option<usize>) {
    let mut out = Vec::new();
    let mut composer = Composer { last_line: last_line(text, first_line), ..Composer::new(first_line, moved) };
    let mut parser = Parser::new_from_str(text);
    let mut too_far_left = None;
    // A document counts once it has ended: what follows its root may still show that it was none.
    let mut finished = None;
    while let Some(next) = parser.next_event() {
        let step = match next {
            Ok((Event::StreamEnd, _)) => break,
            Ok((Event::DocumentEnd, _)) => {
                out.extend(finished.take().filter(|node: &Node<'_>| !matches!(node.value, Value::Null)).map(Ok));
                continue;
            }
            Ok((_, span)) if composer.nodes > MAX_PARSED => {
                let mark = composer.mark(span.start.line(), span.start.col());
                let message = format!("more than {MAX_PARSED} values in one document; split it, or write it as JSON");
                Err(Refusal::new("DocumentTooLarge", mark, message))
            }
            Ok((event, span)) => composer.event(event, &span),
            Err(error) => {
                too_far_left = matches!(error.info(), "invalid indentation" | "invalid indentation in flow construct")
                    .then(|| error.marker().line());
                let mark = composer.mark(error.marker().line(), error.marker().col());
                Err(Refusal::new("InvalidYAML", mark, format!("not YAML: {}", error.info())))
            }
        };
        match step {
            Ok(None) => {}
            Ok(document) => finished = document,
            Err(refusal) => {
                out.push(Err(refusal));
                break;
            }
        }
    }
    (out, too_far_left)
}

impl<'a, 'm> Composer<'a, 'm> {
    pub(super) fn new(first_line: u32, moved: &'m [usize]) -> Self {
        Self {
            stack: Vec::new(),
            anchors: HashMap::new(),
            nodes: 0,
            aliased: 0,
            first_line,
            last_line: u32::MAX,
            moved,
        }
    }

    /// Begins another document.
    pub(super) fn reset(&mut self) {
        self.stack.clear();
        self.anchors.clear();
        (self.nodes, self.aliased) = (0, 0);
    }

    fn mark(&self, line: usize, column: usize) -> Mark {
        let moved = if self.moved.binary_search(&line).is_ok() { SHIFT.len() } else { 0 };
        let column = column.saturating_sub(moved);
        let line = u32::try_from(line.saturating_sub(1)).unwrap_or(u32::MAX);
        let line = self.first_line.saturating_add(line);
        if line > self.last_line {
            return Mark { line: self.last_line, column: 0 };
        }
        Mark { line, column: u32::try_from(column.saturating_add(1)).unwrap_or(u32::MAX) }
    }

    fn event(&mut self, event: Event<'a>, span: &Span) -> Result<Option<Node<'a>>, Refusal> {
        let mark = self.mark(span.start.line(), span.start.col());
        match event {
            Event::DocumentStart(_) => {
                self.reset();
                Ok(None)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain;
                // The key `<<` merges only when it is written bare.
                if plain && text == "<<" && self.expects_key() {
                    return self.set_key(Key { text, mark }, true).map(|()| None);
                }
                let value = resolve(text, plain, tag.as_deref(), mark)?;
                if self.expects_key() {
                    let Some(text) = scalar::key(value) else { return Ok(None) };
                    let key = Key { text, mark };
                    if anchor > 0 {
                        self.anchor(anchor, &Node { value: Value::String(key.text.clone()), mark })?;
                    }
                    return self.set_key(key, false).map(|()| None);
                }
                let node = Node { value, mark };
                if anchor > 0 {
                    self.anchor(anchor, &node)?;
                }
                self.complete(node)
            }
            Event::SequenceStart(anchor, tag) => {
                collection_tag(tag.as_deref(), "seq", mark)?;
                self.open(Frame::Sequence { items: Vec::new(), mark, anchor }, mark)
            }
            Event::MappingStart(anchor, tag) => {
                collection_tag(tag.as_deref(), "map", mark)?;
                let frame =
                    Frame::Mapping { entries: Vec::new(), merged: Vec::new(), key: Pending::None, mark, anchor };
                self.open(frame, mark)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor) else {
                    return Err(Refusal::new("InvalidYAML", mark, "the alias names no anchor before it"));
                };
                let cost = cost(node);
                let node = node.clone();
                self.charge(cost, mark)?;
                if self.expects_key() {
                    return match scalar::key(node.value) {
                        Some(text) => self.set_key(Key { text, mark }, false).map(|()| None),
                        None => Err(Refusal::new("InvalidYAML", mark, "a key must be a scalar")),
                    };
                }
                self.complete(node)
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(None),
        }
    }

    fn expects_key(&self) -> bool {
        matches!(self.stack.last(), Some(Frame::Mapping { key: Pending::None, .. }))
    }

    pub(super) fn set_key(&mut self, new: Key<'a>, merges: bool) -> Result<(), Refusal> {
        if let Some(Frame::Mapping { entries, key, .. }) = self.stack.last_mut() {
            if !merges
                && entries.len() <= SMALL
                && let Some((first, _)) = entries.iter().find(|(k, _)| k.text == new.text)
            {
                return Err(duplicate(&new, first.mark));
            }
            *key = if merges { Pending::Merge } else { Pending::Key(new) };
        }
        Ok(())
    }

    pub(super) fn open(&mut self, frame: Frame<'a>, mark: Mark) -> Result<Option<Node<'a>>, Refusal> {
        if self.expects_key() {
            return Err(Refusal::new("InvalidYAML", mark, "a key must be a scalar"));
        }
        if self.stack.len() >= MAX_DEPTH {
            return Err(Refusal::new("DocumentTooLarge", mark, format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.stack.push(frame);
        Ok(None)
    }

    /// Ends the innermost list or mapping; gives it back when it is the whole document.
    pub(super) fn close(&mut self) -> Result<Option<Node<'a>>, Refusal> {
        let (node, anchor) = match self.stack.pop() {
            Some(Frame::Sequence { items, mark, anchor }) => (Node { value: Value::Sequence(items), mark }, anchor),
            Some(Frame::Mapping { entries, merged, mark, anchor, .. }) => {
                (Node { value: Value::Mapping(merge(entries, merged)?), mark }, anchor)
            }
            None => return Ok(None),
        };
        if anchor > 0 {
            self.anchor(anchor, &node)?;
        }
        self.complete(node)
    }

    /// The innermost open list or mapping.
    pub(super) fn innermost(&self) -> Option<&Frame<'a>> {
        self.stack.last()
    }

    /// Puts a finished value where it belongs; gives it back when it is the whole document.
    pub(super) fn complete(&mut self, node: Node<'a>) -> Result<Option<Node<'a>>, Refusal> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let message = format!("more than {MAX_NODES} values in one document; split it with `---`");
            return Err(Refusal::new("DocumentTooLarge", node.mark, message));
        }
        match self.stack.last_mut() {
            None => return Ok(Some(node)),
            Some(Frame::Sequence { items, .. }) => items.push(node),
            Some(Frame::Mapping { entries, merged, key, .. }) => match std::mem::replace(key, Pending::None) {
                Pending::Merge => merged.push(node),
                Pending::Key(key) => entries.push((key, node)),
                Pending::None => {}
            },
        }
        Ok(None)
    }

    fn anchor(&mut self, anchor: usize, node: &Node<'a>) -> Result<(), Refusal> {
        self.charge(cost(node), node.mark)?;
        self.anchors.insert(anchor, node.clone());
        Ok(())
    }

    fn charge(&mut self, cost: usize, mark: Mark) -> Result<(), Refusal> {
        self.aliased = self.aliased.saturating_add(cost);
        if self.aliased > MAX_ALIASED {
            return Err(Refusal::new("DocumentTooLarge", mark, "the anchors and aliases expand to too much"));
        }
        Ok(())
    }
}

/// Up to so many keys a new one is compared with each before it; a larger mapping is checked when it ends.
const SMALL: usize = 32;

fn duplicate(key: &Key<'_>, first: Mark) -> Refusal {
    let message = format!("the key {:?} is already there on line {}", key.text, first.line);
    Refusal::new("DuplicateKey", key.mark, message)
}

fn cost(node: &Node<'_>) -> usize {
    1 + match &node.value {
        Value::String(text) => text.len() / 32,
        Value::Sequence(items) => items.iter().map(cost).sum(),
        Value::Mapping(entries) => entries.iter().map(|(key, node)| 1 + key.text.len() / 32 + cost(node)).sum(),
        _ => 0,
    }
}

/// Checks a mapping's keys and lays it over the mappings that `<<` names.
fn merge<'a>(
    mut entries: Vec<(Key<'a>, Node<'a>)>,
    merged: Vec<Node<'a>>,
) -> Result<Vec<(Key<'a>, Node<'a>)>, Refusal> {
    if entries.len() > SMALL {
        let mut seen: HashMap<&str, Mark> = HashMap::with_capacity(entries.len());
        for (key, _) in &entries {
            if let Some(first) = seen.insert(&key.text, key.mark) {
                return Err(duplicate(key, first));
            }
        }
    }
    if merged.is_empty() {
        return Ok(entries);
    }
    let mut seen: HashSet<Cow<'_, str>> = entries.iter().map(|(key, _)| key.text.clone()).collect();
    for node in merged {
        let mark = node.mark;
        let sources = match node.value {
            Value::Sequence(items) => items,
            value => vec![Node { value, mark }],
        };
        for source in sources {
            let Value::Mapping(inherited) = source.value else {
                return Err(Refusal::new("InvalidYAML", mark, "`<<` merges a mapping or a list of mappings"));
            };
            for (key, node) in inherited {
                if seen.insert(key.text.clone()) {
                    entries.push((key, node));
                }
            }
        }
    }
    Ok(entries)
}

fn resolve<'a>(text: Cow<'a, str>, plain: bool, tag: Option<&Tag>, mark: Mark) -> Result<Value<'a>, Refusal> {
    let Some(tag) = tag else {
        return Ok(if plain { scalar::plain(text) } else { Value::String(text) });
    };
    let wrong = |what: &str| Refusal::new("InvalidYAML", mark, format!("{text:?} is not {what}"));
    if tag.is_yaml_core_schema() {
        let value = scalar::plain(text.clone());
        return match tag.suffix.as_str() {
            "str" => Ok(Value::String(text)),
            "null" => Ok(Value::Null),
            "bool" if matches!(value, Value::Bool(_)) => Ok(value),
            "bool" => Err(wrong("a boolean")),
            "int" if matches!(value, Value::Int(_) | Value::Uint(_)) => Ok(value),
            "int" => Err(wrong("a whole number")),
            "float" if matches!(value, Value::Float(_) | Value::Int(_) | Value::Uint(_)) => Ok(value),
            "float" => Err(wrong("a number")),
            _ => Err(unknown_tag(tag, mark)),
        };
    }
    // A lone `!` says "do not resolve".
    if tag.suffix.is_empty() || (tag.handle.is_empty() && tag.suffix == "!") {
        return Ok(Value::String(text));
    }
    Err(unknown_tag(tag, mark))
}

fn collection_tag(tag: Option<&Tag>, own: &str, mark: Mark) -> Result<(), Refusal> {
    match tag {
        Some(tag) if !(tag.suffix.is_empty() || tag.is_yaml_core_schema() && tag.suffix == own) => {
            Err(unknown_tag(tag, mark))
        }
        _ => Ok(()),
    }
}

fn unknown_tag(tag: &Tag, mark: Mark) -> Refusal {
    Refusal::new("InvalidYAML", mark, format!("the tag {tag} has no meaning here; remove it"))
}
