//! The control plane daemon; filled by the next commits.
fn main() {}
