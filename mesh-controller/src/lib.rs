//! The control plane: what the mesh is configured with comes in here, is put together, and goes out to the proxies.
//!
//! The journey of the data is the order of the modules: [`source`]s tell of objects, the [`store`] puts them together
//! and publishes snapshots, a [`ControlPlane`] serves them. The commands [`meshctl`] and [`meshd`] are thin shells over
//! the same functions.
//!
//! # Invariants
//! - The composition root: this crate may know all others; none but the examples knows it.
//! - Nothing here decides what an object means or what a proxy is sent; that is pure and lives below.
//! - Nothing spawns in a constructor: what needs a task is run by its owner and ends with it.

pub mod cli;
pub mod control_plane;
pub mod identity;
pub mod install;
mod jwks;
pub mod leader;
pub mod mesh_config;
pub mod meshctl;
pub mod meshd;
pub mod operator;
mod retry;
pub mod source;
pub mod status;
pub mod store;
pub mod webhooks;
pub use mesh_api::yaml;

pub use control_plane::ControlPlane;
pub use identity::Identity;
pub use source::Source;
pub use store::Store;
pub use webhooks::Webhooks;
