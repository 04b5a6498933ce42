//! The crate as its users see it: whole files in, objects and diagnostics out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test that meets what it does not expect fails"
)]

mod broken;
mod corpus;
mod crds;
mod fuzz;
mod hostile;
mod mesh_fields;
mod objects;
mod public_api;
mod round_trip;
mod samples;
mod semantic;
mod validation;
mod wasm;
