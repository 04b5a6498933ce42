//! The agent against the real parts: the kernel's iptables in a network namespace of its own, and a real Envoy.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot be set up has failed"
)]

mod envoy;
mod kernel;
mod mesh;
mod network;
