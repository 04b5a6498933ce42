//! Integration tests of the control plane: one binary, one module for each corpus or part.

mod invariants;
