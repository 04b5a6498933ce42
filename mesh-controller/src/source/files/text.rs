//! One file's bytes, piece by piece, each parsed once: an edit of one document of a large file parses that document
//! and no other.

use std::collections::HashMap;
use std::sync::Arc;

use mesh_api::document::{self, Document};
use mesh_api::{Diagnostic, Name};
use xxhash_rust::xxh3::xxh3_64;

/// What a piece says, with lines counted from its own start, so that it stays true when the piece moves.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) hash: u64,
    pub(super) documents: Vec<Result<Document, Diagnostic>>,
}

/// The parsed pieces of a file by the hash of their text.
pub(super) type Cache = HashMap<u64, Arc<Parsed>>;

/// Parses a text; each piece comes with the number of lines before it. Pieces that `known` holds are not parsed again.
/// The second result is the cache for the next time, and holds nothing that the text no longer has.
pub(super) fn parse(file: &Name, bytes: &[u8], known: &Cache) -> (Vec<(Arc<Parsed>, u32)>, Cache) {
    let mut cache = Cache::new();
    let pieces = document::pieces(bytes)
        .into_iter()
        .map(|piece| {
            let hash = xxh3_64(piece.text);
            let parsed = cache.entry(hash).or_insert_with(|| {
                known.get(&hash).cloned().unwrap_or_else(|| {
                    Arc::new(Parsed { hash, documents: document::parse(file, piece.text).documents })
                })
            });
            (Arc::clone(parsed), piece.first_line.saturating_sub(1))
        })
        .collect();
    (pieces, cache)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_that_is_known_is_not_parsed_again() {
        let file = Name::from("f.yaml");
        let (first, cache) = parse(&file, b"kind: A\n---\nkind: B\n", &Cache::new());
        let (second, cache) = parse(&file, b"a: line more\n---\nkind: C\n---\nkind: B\n", &cache);
        // The marker belongs to the piece, so the first piece of a file differs from the same text further down.
        assert!(Arc::ptr_eq(&first[1].0, &second[2].0));
        assert_eq!((first[1].1, second[2].1), (1, 3));
        assert_eq!(cache.len(), 3, "what is gone from the text is gone from the cache");
    }
}
