//! Integration tests of the webhooks: one binary, one module for each corpus or part.

// Clippy takes only functions marked as tests for tests; the helpers here are as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]
#![allow(clippy::disallowed_methods, reason = "tests are told by the environment where the corpus is, and run servers")]

#[path = "../../../mesh-api/tests/it/corpus.rs"]
mod corpus;
mod decisions;
mod facts;
mod inject;
mod reviews;
#[cfg(feature = "server")]
mod server;
