//! The agent against the real parts: the kernel's iptables in a network namespace of its own, and a real Envoy.

mod envoy;
mod kernel;
