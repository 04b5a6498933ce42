//! Keys and certificates of a mesh: sign, chain, rotate, and answer requests for certificates.
//!
//! This crate begins with its invariants; its content comes with the identity of workloads (issue "Identity"). Nothing here
//! pretends to work: what is not exported does not exist.
//!
//! # Invariants
//! - A certificate's identity comes from the authenticated caller, never from the request that the caller wrote.
//! - Signing is a pure function of key, request, identity, lifetime and *now*; clocks and randomness are handed in.
//! - A private key of a workload never leaves the workload; the key of the authority is never logged, printed or sent.
//! - mesh-xds and mesh-webhook are unknown here. What all three need (names, identities) is in mesh-api.
