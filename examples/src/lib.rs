//! What the examples share: the demo's shows with their box, their nodelet and their applications, the fleet client, the way
//! to Vault, and the tools that they fetch.
//!
//! Nothing here is meant for production. It uses the other crates as any of their users would, through their public
//! interfaces only.

pub mod bookinfo;
pub mod demo;
pub mod echo;
pub mod fleet;
pub mod http;
pub mod nodelet;
pub mod sandbox;
pub mod tools;
pub mod vault;

/// The code of the README, which must compile and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
