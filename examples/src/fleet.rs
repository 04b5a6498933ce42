//! The fleet client: a control plane under the load of N proxies, measured from outside.
//!
//! The parts: [`world`] writes the input, [`wire`] reads responses without decoding what it does not need, [`stream`] is one
//! proxy (its own connection and stream, Envoy's order of types, an ACK for everything), [`process`] reads the kernel's
//! accounting of the server. A push is timed by writing a marker that occurs nowhere else into the input and finding it in
//! the received bytes.

pub mod process;
pub mod stream;
pub mod wire;
pub mod world;
