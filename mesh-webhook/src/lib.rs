//! Admission: sidecar injection and validation of Istio's objects, as tower services that need no socket to be tested.
//!
//! A [`Webhook`] has routes; behind each is an [`Admit`], such as an [`Injector`]. A review comes in, goes to the route's
//! service as a [`review::Request`], and comes back answered.
//!
//! # Invariants
//! - A review always gets an answer: a malformed one an error within the review, never a dropped connection, never a panic.
//! - Injection is idempotent: a pod that was injected before comes back unchanged.
//! - Validation says what [`mesh_api::Diagnostic`] says: the same words as the command line and the status.
//! - The webhook can't block the pods and namespaces that it needs itself.
//! - mesh-xds and mesh-ca are unknown here. What all three need is in mesh-api.

pub mod inject;
pub mod review;
#[cfg(feature = "server")]
#[allow(clippy::disallowed_methods, reason = "a shell: it asks the clock for metrics")]
pub mod server;
mod validate;
mod webhook;

pub use inject::{Config, Injector};
pub use validate::Validator;
pub use webhook::{Admit, MAX_BODY, Webhook};
