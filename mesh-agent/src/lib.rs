//! What runs beside Envoy in a pod. It writes Envoy's bootstrap, starts Envoy and stays with it to the end, answers the
//! kubelet's question whether the pod may have traffic, and, before all that, sets the rules that bring traffic to Envoy.
//!
//! Invariants:
//! - The bootstrap ([`mesh_xds::bootstrap`]) and [`init::rules`] are pure: what they need of the pod is handed in as
//!   [`Environment`], node and ProxyConfig. Only the binary's edge ([`cli`]) reads variables, files and interfaces.
//! - Envoy that ended is never started again: its exit status becomes ours, and the kubelet decides.
//! - The pod is ready only once Envoy has its listeners and clusters from the control plane and its workers run.
//! - What is asked for and not supported is said in the log or refused; nothing is left out silently.
//!
//! Deliberately absent until their issues come: certificates and SDS, the xDS relay, the DNS server, merged metrics.
//! Envoy therefore speaks to the control plane itself, in plaintext.

pub mod admin;
pub mod cli;
pub mod environment;
pub mod init;
pub mod node;
pub mod status;
pub mod supervise;
pub mod wait;

pub use environment::Environment;
