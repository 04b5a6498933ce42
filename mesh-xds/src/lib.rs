//! From Kubernetes and Istio objects to Envoy configuration, incrementally.
//!
//! The journey of the data is the order of the modules: objects *as written* (`mesh_api`) are lowered to rows *as meant*
//! ([`model`]) of an immutable [`snapshot`]; builders read rows through a view that remembers what was read, and their
//! results are kept in one memo for all proxies; [`resource`]s are encoded once; a session decides what a proxy is sent.
//!
//! # Invariants
//! - No clock, no randomness, no I/O, no environment, no spawn outside the `server` feature.
//! - A builder sees its key and the view, nothing else: no globals, no hand-kept dependency lists, no cache keys.
//! - A user's mistake never stops a push.

pub mod ads;
pub mod bootstrap;
pub mod build;
mod builder;
pub mod class;
pub mod conflicts;
pub mod endpoints;
#[cfg(feature = "json")]
pub mod envoy_filter;
pub mod explain;
#[cfg(feature = "json")]
pub mod json;
mod lower;
pub mod memo;
pub mod model;
mod net;
pub mod proxy;
pub mod re2;
pub mod resource;
pub mod scope;
#[cfg(feature = "server")]
#[allow(clippy::disallowed_methods, reason = "a shell: it asks the clock for metrics and deadlines")]
pub mod server;
mod shared;
pub mod snapshot;
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "tests are told by the environment where an Envoy is")]
mod testing;
pub mod view;

pub use builder::Builder;
pub use class::Class;
pub use memo::{Memo, Query};
pub use net::Cidr;
pub use proxy::Proxy;
pub use resource::{Resource, ResourceSet, TypeUrl};
pub use shared::Shared;
pub use snapshot::{Change, Snapshot};
pub use view::View;
