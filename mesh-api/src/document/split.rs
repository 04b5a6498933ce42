//! A file into pieces at its `---` lines, before any of it is parsed: so a syntax error ends with its own document.
//!
//! YAML itself forbids a `---` at the first column inside any scalar, so nothing is cut that belongs together.

/// A stretch of text that begins at the start of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The text, with the marker that begins it.
    pub text: &'a [u8],
    /// The first line's number in the file, from 1.
    pub first_line: u32,
}

/// The pieces between document markers, each with the marker that begins it.
pub fn pieces(text: &[u8]) -> Vec<Piece<'_>> {
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    let mut out = Vec::new();
    let (mut start, mut start_line, mut line) = (0, 1, 1u32);
    let mut offset = 0;
    for row in text.split_inclusive(|&b| b == b'\n') {
        if offset > start && begins_document(row) {
            push(&mut out, text.get(start..offset), start_line);
            (start, start_line) = (offset, line);
        }
        offset += row.len();
        line = line.saturating_add(1);
    }
    push(&mut out, text.get(start..), start_line);
    out
}

fn push<'a>(out: &mut Vec<Piece<'a>>, text: Option<&'a [u8]>, first_line: u32) {
    let Some(text) = text else { return };
    // Comments, blank lines and directives before a marker say nothing; a directive alone would be a syntax error.
    let says_something = text.split(|&b| b == b'\n').any(|row| {
        let row =
            row.strip_prefix(b"---").filter(|rest| rest.first().is_none_or(u8::is_ascii_whitespace)).unwrap_or(row);
        let row = row.trim_ascii();
        !(row.is_empty() || row.starts_with(b"#") || row.starts_with(b"%"))
    });
    if says_something {
        out.push(Piece { text, first_line });
    }
}

fn begins_document(row: &[u8]) -> bool {
    row.strip_prefix(b"---").is_some_and(|rest| rest.first().is_none_or(u8::is_ascii_whitespace))
}

/// What a text that does not parse seems to be about: the top-level `apiVersion` and `kind`, and `metadata`'s
/// `namespace` and `name`, read line by line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Guess<'a> {
    pub(super) api_version: &'a str,
    pub(super) kind: &'a str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

pub(super) fn guess(text: &str) -> Guess<'_> {
    let mut out = Guess::default();
    let mut in_metadata = false;
    let mut indent = None;
    for row in text.lines() {
        let bare = row.trim_start();
        if bare.is_empty() || bare.starts_with('#') {
            continue;
        }
        let depth = row.len() - bare.len();
        let Some((key, value)) = bare.split_once(':') else { continue };
        let value = value.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'', ',']);
        if depth == 0 {
            in_metadata = key == "metadata";
            match key {
                "apiVersion" if out.api_version.is_empty() => out.api_version = value,
                "kind" if out.kind.is_empty() => out.kind = value,
                _ => {}
            }
        } else if in_metadata && *indent.get_or_insert(depth) == depth {
            match key {
                "namespace" if out.namespace.is_empty() => out.namespace = value,
                "name" if out.name.is_empty() => out.name = value,
                _ => {}
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_cut_at_markers_only() {
        let text = "\u{feff}# head\n---\na: 1\n--- # two\nb: |\n  ---\n---x: 1\n---\n---\n--- {c: 1}\n";
        let found: Vec<_> = pieces(text.as_bytes())
            .iter()
            .map(|p| (p.first_line, String::from_utf8_lossy(p.text).into_owned()))
            .collect();
        assert_eq!(
            found,
            [
                (2, "---\na: 1\n".to_owned()),
                (4, "--- # two\nb: |\n  ---\n---x: 1\n".to_owned()),
                (10, "--- {c: 1}\n".to_owned()),
            ]
        );
    }

    #[test]
    fn a_broken_document_still_tells_its_name() {
        let text = "apiVersion: v1\nkind: Service # that\nmetadata:\n  labels:\n    name: no\n  name: \"web\"\n  namespace: shop\nspec: [";
        let want = Guess { api_version: "v1", kind: "Service", namespace: "shop", name: "web" };
        assert_eq!(guess(text), want);
    }
}
