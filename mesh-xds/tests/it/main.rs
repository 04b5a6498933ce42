//! The crate as its users meet it: over sockets, with clients that are not ours.

#[cfg(feature = "server")]
mod server;
