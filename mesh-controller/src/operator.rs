//! The operator: it makes the cluster have what IstioOperator objects ask for, and keeps it so.
//!
//! What is to be is [`install::Plan`](crate::install::Plan)'s to say. From that and from what there is follow the
//! [`changes`](mod@changes), and from all of it the [`status`]: pure functions, both. Around them, [`cluster`] reads and writes
//! objects, and the [`controller`] calls it all whenever something has changed. `meshctl install` and `uninstall` are the
//! same functions, called once.
//!
//! # Invariants
//! - Only fields that a chart sets are written, by server-side apply under a field manager of our own; what others set
//!   beside them stays.
//! - An object belongs to one IstioOperator. What another one owns is left to it.
//! - What can't be planned changes nothing: a mistake in an IstioOperator never removes what runs.
//! - Definitions (CRDs) are never deleted: with them would go all that users have configured.

pub mod changes;
pub mod cluster;
pub mod controller;
pub mod kinds;
pub mod status;

pub use changes::{Changes, Owner, changes, desired};
pub use cluster::Cluster;
pub use controller::{Metrics, Operator, Options};
