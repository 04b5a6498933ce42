//! Integration tests of the control plane: one binary, one module for each corpus or part.

// Clippy takes only functions marked as tests for tests; the helpers here are as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

mod accounts;
mod authz;
mod broken;
mod certificates;
mod chaos;
mod charts;
mod cluster;
mod commands;
#[path = "../../../mesh-api/tests/it/corpus.rs"]
mod corpus;
mod crds;
mod daemon;
mod definitions;
mod edges;
mod envoy;
mod envtest;
mod hostile;
mod invariants;
mod kube;
mod leader;
mod manifest;
mod operator;
mod pipeline;
mod proxy;
mod registration;
mod rights;
mod samples;
mod simulation;
mod status;
mod validate;
mod webhooks;
mod wire;
