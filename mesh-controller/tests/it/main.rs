//! Integration tests of the control plane: one binary, one module for each corpus or part.

mod corpus;
mod envoy;
mod invariants;
mod pipeline;
mod samples;
mod simulation;
