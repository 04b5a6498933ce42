//! Runnable examples of mesh-rs. Not published.

pub mod fleet;
