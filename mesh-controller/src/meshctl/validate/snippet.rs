//! A problem as a compiler would show it: the line of the text, with carets under what is wrong.
//!
//! Only the line itself is given to the renderer, so a report costs what it says and not what the file weighs. Colours
//! are for terminals, as the environment (`NO_COLOR`, `CLICOLOR`) wants them.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use mesh_api::{Diagnostic, Severity};

/// A line longer than this is not shown: nobody reads it.
const LONGEST_LINE: usize = 4096;

/// With colours or without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Coloured,
}

impl Style {
    /// What standard output wants.
    pub(super) fn of_stdout() -> Self {
        match anstream::AutoStream::choice(&std::io::stdout()) {
            anstream::ColorChoice::Never => Self::Plain,
            _ => Self::Coloured,
        }
    }
}

/// A text whose problems are shown.
pub(super) struct Shown<'a> {
    lines: Vec<&'a [u8]>,
    renderer: Renderer,
}

impl<'a> Shown<'a> {
    pub(super) fn new(text: &'a [u8], style: Style) -> Self {
        let renderer = match style {
            Style::Plain => Renderer::plain(),
            Style::Coloured => Renderer::styled(),
        };
        Self { lines: text.split(|&byte| byte == b'\n').collect(), renderer }
    }

    /// The problem and the line that it is about, with an empty line after it.
    pub(super) fn problem(&self, problem: &Diagnostic) -> String {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
            Severity::Info => Level::INFO,
        };
        let object = problem.object.as_ref().map(|object| format!("in {object}"));
        let title = level.primary_title(&problem.message).id(problem.code.as_ref());
        let mut group = Group::with_title(title);
        let source;
        if let Some(place) = &problem.location {
            let (line, column) = (place.line as usize, place.column as usize);
            source = self.line(line);
            group = match &source {
                Some(text) => {
                    let mut annotation = AnnotationKind::Primary.span(span(text, column));
                    if !problem.path.is_empty() {
                        annotation = annotation.label(problem.path.as_str());
                    }
                    let snippet = Snippet::source(text.as_str()).path(place.file.as_str()).line_start(line);
                    group.element(snippet.annotation(annotation))
                }
                None => group.element(Origin::path(place.file.as_str()).line(line).char_column(column)),
            };
        }
        if let Some(object) = &object {
            group = group.element(Level::NOTE.message(object));
        }
        self.renderer.render(&[group]) + "\n\n"
    }

    fn line(&self, number: usize) -> Option<String> {
        let line = self.lines.get(number.checked_sub(1)?)?;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        (line.len() <= LONGEST_LINE).then(|| String::from_utf8_lossy(line).into_owned())
    }
}

/// The bytes of what begins at a column (in characters, from 1): a key, a scalar, or the bracket of a list or mapping.
fn span(line: &str, column: usize) -> Range<usize> {
    let start = line.char_indices().nth(column.saturating_sub(1)).map_or(line.trim_end().len(), |(at, _)| at);
    let rest = line.get(start..).unwrap_or_default();
    let length = match rest.chars().next() {
        Some(quote @ ('"' | '\'')) => rest.get(1..).and_then(|inner| inner.find(quote)).map(|end| end + 2),
        Some(bracket @ ('{' | '[')) => closing(rest, bracket).map(|end| end + 1),
        // A column beyond what is said: the end of what is said.
        None => Some(0),
        Some(_) => Some(plain_end(rest, in_brackets(line.get(..start).unwrap_or_default()))),
    };
    let end = length.map_or(line.trim_end().len(), |length| start + length);
    start..end.max(start)
}

/// Where the bracket that opens `text` closes.
fn closing(text: &str, bracket: char) -> Option<usize> {
    let counterpart = if bracket == '{' { '}' } else { ']' };
    let mut depth = 0usize;
    text.char_indices().find_map(|(at, c)| {
        depth = match c {
            _ if c == bracket => depth + 1,
            _ if c == counterpart => depth.checked_sub(1)?,
            _ => depth,
        };
        (depth == 0).then_some(at)
    })
}

fn in_brackets(before: &str) -> bool {
    let count = |of: [char; 2]| before.matches(of).count();
    count(['{', '[']) > count(['}', ']'])
}

/// The end of an unquoted key or scalar.
fn plain_end(text: &str, in_brackets: bool) -> usize {
    let bounds = [" #", ": "].into_iter().filter_map(|bound| text.find(bound));
    let bracket = in_brackets.then(|| text.find([',', ']', '}'])).flatten();
    let end = bounds.chain(bracket).min().unwrap_or(text.len());
    let said = text.get(..end).unwrap_or(text).trim_end();
    said.strip_suffix(':').unwrap_or(said).len().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_api::{FieldPath, Location, ObjectRef};

    #[test]
    fn the_offending_text_is_found() {
        for (line, column, want) in [
            ("  weight: 101 # percent", 11, "101"),
            ("  hosts:", 3, "hosts"),
            ("  host: \"a b\" # c", 9, "\"a b\""),
            ("  host: \"a", 9, "\"a"),
            ("spec: {hosts: [a, b], x: y z}", 7, "{hosts: [a, b], x: y z}"),
            ("spec: {hosts: [a, b], x: y z}", 15, "[a, b]"),
            ("spec: {hosts: [a, b], x: y z}", 16, "a"),
            ("spec: {hosts: [a, b], x: y z}", 26, "y z"),
            ("spec: {hosts: [a,", 15, "[a,"),
            ("text: a, b", 7, "a, b"),
            ("é: ü", 4, "ü"),
            ("a: b", 99, ""),
            ("", 1, ""),
            ("   ", 2, " "),
        ] {
            assert_eq!(line.get(span(line, column)), Some(want), "{line} {column}");
        }
    }

    #[test]
    fn a_problem_reads_as_a_compilers() {
        let text = b"kind: VirtualService\nspec:\n  weight: 101\r\n";
        let problem = |line, column| {
            Diagnostic::error("InvalidField", "weight is above 100")
                .on(&ObjectRef::new("VirtualService", "default", "reviews"))
                .at(FieldPath::new("spec.weight"))
                .from_text(Location { file: "vs.yaml".into(), line, column })
        };
        let shown = Shown::new(text, Style::Plain);
        assert_eq!(
            shown.problem(&problem(3, 11)),
            "\
error[InvalidField]: weight is above 100
 --> vs.yaml:3:11
  |
3 |   weight: 101
  |           ^^^ spec.weight
  |
  = note: in VirtualService default/reviews

"
        );
        let nowhere = shown.problem(&problem(9, 1));
        assert!(nowhere.contains("--> vs.yaml:9:1"), "{nowhere}");
        assert!(Shown::new(text, Style::Coloured).problem(&problem(3, 11)).contains("\u{1b}["));
    }
}
