//! The crate as its users meet it: over sockets, with clients that are not ours.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::disallowed_methods)]

#[cfg(feature = "server")]
mod envoy;
#[cfg(feature = "server")]
mod server;
