//! What runs beside Envoy in a pod. It writes Envoy's bootstrap, starts Envoy and stays with it to the end, answers the
//! kubelet's question whether the pod may have traffic, and, before all that, sets the rules that bring traffic to Envoy.
//!
//! Invariants:
//! - [`bootstrap::bootstrap`] and [`init::rules`] are pure: what they need of the pod is handed in as [`Environment`],
//!   [`node::Node`] and [`proxy_config::ProxyConfig`]. Only the binary's edge ([`cli`]) reads variables, files and interfaces.
//! - Envoy that ended is never started again: its exit status becomes ours, and the kubelet decides.
//! - The pod is ready only once Envoy has its listeners and clusters from the control plane and its workers run.
//! - What is asked for and not supported is said in the log or refused; nothing is left out silently.
//!
//! Deliberately absent until their issues come: certificates and SDS, the xDS relay, the DNS server, merged metrics.
//! Envoy therefore speaks to the control plane itself, in plaintext.

pub mod admin;
pub mod bootstrap;
pub mod cli;
pub mod duration;
pub mod environment;
pub mod init;
pub mod node;
pub mod proxy_config;
pub mod status;
pub mod supervise;

pub use environment::Environment;
