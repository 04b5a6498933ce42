//! The ground floor of mesh-rs: everything that a mesh's configuration *is*, before anybody acts on it.
//!
//! A reader meets, in this order: [`names`] (what things are called, parsed once), [`diagnostic`] (what we say of a
//! user's mistake), the kinds as users write them, the text they are read from, and the mesh-wide settings.
//!
//! # Invariants
//! - Nobody below: this crate knows no runtime, no socket, no clock, no Envoy. It must compile in seconds.
//! - A user's mistake is a [`Diagnostic`], never an `Err` that stops others and never a panic.
//! - Kinds are *as written*: a field here has the name, the type and the leniency that Istio's CRD has, and no meaning yet.

pub mod diagnostic;
pub mod document;
pub mod extensions;
pub mod mesh;
pub mod names;
pub mod networking;
pub mod object;
pub mod schema;
pub mod security;
pub mod telemetry;
pub mod types;
pub mod yaml;

pub use diagnostic::{Diagnostic, FieldPath, Location, Severity};
pub use document::{Document, Parsed};
pub use names::{Hostname, Name, ObjectRef};
pub use object::{Kind, Object};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;

/// The definitions of all of Istio's kinds, for an apiserver: every served version with its schema, ordered by group and
/// kind. They are made from the Rust types.
///
/// ```
/// let names: Vec<_> = mesh_api::crds().into_iter().filter_map(|crd| crd.metadata.name).collect();
/// assert_eq!(names.len(), 15);
/// assert_eq!(names[0], "trafficextensions.extensions.istio.io");
/// ```
pub fn crds() -> Vec<CustomResourceDefinition> {
    [extensions::crds(), networking::crds(), security::crds(), telemetry::crds()].into_iter().flatten().collect()
}
