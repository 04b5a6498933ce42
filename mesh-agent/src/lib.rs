//! What runs beside Envoy in a pod. It writes Envoy's bootstrap, starts Envoy and stays with it to the end, answers the
//! kubelet's question whether the pod may have traffic, and, before all that, sets the rules that bring traffic to Envoy.
//!
//! Invariants:
//! - The bootstrap ([`mesh_xds::bootstrap`]) and [`init::rules`] are pure: what they need of the pod is handed in as
//!   [`Environment`], node and ProxyConfig. Only the binary's edge ([`cli`]) reads variables, files and interfaces.
//! - Envoy that ended is never started again: its exit status becomes ours, and the kubelet decides.
//! - The pod is ready only once Envoy has its listeners and clusters from the control plane and its workers run.
//! - What is asked for and not supported is said in the log or refused; nothing is left out silently.
//! - The workload's key is made here and goes to nobody but Envoy; it is on no disk unless that is asked for.
//! - A root of the mesh is acknowledged to the control plane only when Envoy has it.
//! - Names of the mesh are answered without asking anybody, also while the control plane is away.
//! - Configuration passes through: it is never collected, decoded or copied. Envoy serves what it has while the control plane
//!   is away.
//! - One thread: everything is a task of one runtime, so that a pod pays for little.

pub mod admin;
pub mod backoff;
pub mod cli;
pub mod client;
pub mod dns;
pub mod endpoint;
pub mod environment;
pub mod identity;
pub mod init;
pub mod metrics;
pub mod node;
pub mod relay;
pub mod sds;
pub mod secrets;
pub mod status;
pub mod subscription;
pub mod supervise;
pub mod trust;
pub mod unix;
pub mod wait;

pub use environment::Environment;
