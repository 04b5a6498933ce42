//! The ground floor of mesh-rs: everything that a mesh's configuration *is*, before anybody acts on it.
//!
//! A reader meets, in this order: [`names`] (what things are called, parsed once), [`diagnostic`] (what we say of a
//! user's mistake), the kinds as users write them ([`networking`], [`security`], [`telemetry`], [`extensions`]), the text
//! they are read from ([`document`]), and the mesh-wide settings ([`mesh`]).
//!
//! # A tour
//! **Read** whole files, whatever they hold. A bad document costs no neighbour, and a field that a kind doesn't have is
//! named. [`document::one`] is for a text of one object whose kind is known.
//! ```
//! use mesh_api::{Object, document};
//! let text = "
//! apiVersion: networking.istio.io/v1beta1
//! kind: VirtualService
//! metadata: {name: reviews}
//! spec:
//!   hosts: [reviews]
//!   https: []
//! ---
//! kind: [
//! ";
//! let parsed = document::parse(&"shop.yaml".into(), text);
//! assert!(matches!(parsed.objects().next(), Some(Object::VirtualService(vs)) if vs.spec.hosts == ["reviews"]));
//! let told: Vec<String> = parsed.diagnostics().map(ToString::to_string).collect();
//! assert!(told[0].starts_with("shop.yaml:7:3: VirtualService default/reviews spec.https: "));
//! assert!(told[1].starts_with("shop.yaml:9: not YAML"));
//! ```
//! **Write** objects as plain structs. Every type has a default, which is what an absent field means; so name the fields
//! that matter and end with `..Default::default()`, always: a field that Istio adds is then no breaking change, and we
//! don't count it as one. Each kind's spec has an example. What is written is protobuf JSON in its canonical form.
//! ```
//! use mesh_api::networking::{HttpRoute, VirtualService, VirtualServiceSpec};
//! use mesh_api::yaml;
//! let quick = HttpRoute { timeout: Some("250ms".parse()?), ..Default::default() };
//! let spec = VirtualServiceSpec { hosts: vec!["reviews".into()], http: vec![quick], ..Default::default() };
//! let reviews = serde_json::to_value(VirtualService::new("reviews", spec))?;
//! assert!(yaml::to_string(&reviews["spec"]).contains("timeout: \"0.250s\""));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//! **Validate**, with an apiserver's eyes ([`schema::Validator`]: the schema and its CEL rules) and with those of Istio's
//! webhook ([`Validate`]: what the fields mean together). Both answer with [`Diagnostic`]s and need no cluster.
//! ```
//! use mesh_api::{Validate, networking::ServiceEntry, schema::Validator};
//! let text = r#"{"apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry", "metadata": {"name": "all"},
//!     "spec": {"hosts": ["*"], "ports": [{"number": 443, "name": "https", "protocol": "TLSS"}]}}"#;
//! let told = Validator::new().validate(&serde_json::from_str(text)?);
//! assert_eq!(told[0].path.as_str(), "spec.hosts[0]");
//! let told = serde_json::from_str::<ServiceEntry>(text)?.validate();
//! assert!(told.iter().any(|problem| problem.path.as_str() == "spec.ports[0].protocol"));
//! # Ok::<(), serde_json::Error>(())
//! ```
//! **Ask an apiserver**: the kinds are `kube::Resource`s, so `kube::Api<VirtualService>` works; for clusters that serve only
//! an older version there is [`networking::v1beta1`] and its like ([`object::Served`]). What came as a `DynamicObject`, in
//! any version, becomes an [`Object`] by `Object::try_from`.
//!
//! **Define** the kinds for an apiserver with [`crds`].
//!
//! # What it takes
//! Input may be hostile: depth, size, aliases and the number of documents are limited
//! ([`document::MAX_DEPTH`] and its like), and the time is linear in the text. Nothing here needs a system: the crate is
//! meant for wasm32-unknown-unknown, too. It has 50 dependencies, of which 32 are in the program and the rest only build
//! it. One core reads some 95,000 VirtualServices of 470 bytes a second, 80,000 with [`Validate`], 30,000 with their schema
//! as well.
//!
//! # Invariants
//! - Nobody below: this crate knows no runtime, no socket, no clock, no Envoy. It must compile in seconds.
//! - A user's mistake is a [`Diagnostic`], never an `Err` that stops others and never a panic.
//! - Kinds are *as written*: a field here has the name, the type and the leniency that Istio's CRD has, and no meaning yet.

pub mod diagnostic;
pub mod document;
pub mod extensions;
pub mod install;
pub mod mesh;
pub mod names;
pub mod networking;
pub mod object;
pub mod re2;
pub mod schema;
pub mod security;
pub mod telemetry;
pub mod types;
pub mod validate;
pub mod yaml;

pub use diagnostic::{Diagnostic, FieldPath, Location, Severity};
pub use document::{Document, Parsed};
pub use names::{Hostname, Name, ObjectRef};
pub use object::{Kind, Object};
pub use validate::Validate;

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
