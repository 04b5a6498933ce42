//! Keys and certificates of a mesh: sign, chain, rotate, and answer requests for certificates.
//!
//! What an operator's author needs: a root that is made once, a caller that somebody vouches for, its request.
//!
//! ```
//! use std::time::SystemTime;
//! use mesh_ca::reconcile::{self, OwnRoot};
//! use mesh_ca::{Csr, KeyKind, Lifetimes, PrivateKey, RootOptions};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (options, lifetimes, now) = (RootOptions::default(), Lifetimes::default(), SystemTime::now());
//! // No Secret was found: create this one, and use what is then there.
//! let authority = match reconcile::own_root(None, "istio-system", &options, lifetimes, now)? {
//!     OwnRoot::Use(authority) => authority,
//!     OwnRoot::Create(secret) => match reconcile::own_root(Some(&secret), "istio-system", &options, lifetimes, now)? {
//!         OwnRoot::Use(authority) => authority,
//!         OwnRoot::Create(_) => unreachable!("it is there"),
//!     },
//! };
//! // In the workload: a key that stays there, and a request.
//! let key = PrivateKey::generate(KeyKind::EcdsaP256)?;
//! let csr = Csr::from_pem(Csr::write(&key, None)?.as_bytes())?;
//! // In the control plane: the identity is what the caller proved.
//! let id = "spiffe://cluster.local/ns/default/sa/sleep".parse()?;
//! let chain = authority.sign(&csr, &id, None, now)?;
//! assert_eq!(chain.leaf().uris(), ["spiffe://cluster.local/ns/default/sa/sleep"]);
//! assert_eq!(chain.roots_pem(), &**authority.roots_pem());
//! # Ok(())
//! # }
//! ```
//!
//! Feature `client` adds the messages of the gRPC service and its client; `server` the service and the ways to find out who
//! calls.
//!
//! # Invariants
//! - A certificate's identity comes from the authenticated caller, never from the request that the caller wrote.
//! - Signing is a function of key, request, identity, lifetime and *now*; clocks are handed in. The only randomness is
//!   AWS-LC's, in new keys, serial numbers and signatures.
//! - A private key of a workload never leaves the workload; the key of the authority is never logged, printed or sent.
//! - mesh-xds and mesh-webhook are unknown here. What all three need (names, identities) is in mesh-api.

#[cfg(feature = "server")]
pub mod authenticate;
pub mod authority;
pub mod bundle;
pub mod certificate;
mod issue;
pub mod key;
#[cfg(feature = "client")]
pub mod proto;
pub mod reconcile;
pub mod request;
pub mod rotation;
#[cfg(feature = "server")]
#[allow(clippy::disallowed_methods, reason = "a shell: it asks the clock")]
pub mod server;
mod signed;
pub mod signer;
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "certificates of tests are valid now")]
mod tests;

pub use authority::{Authority, Chain, Lifetimes, RootOptions, SignError};
pub use certificate::Certificate;
pub use key::{KeyKind, PrivateKey};
pub use request::Csr;
pub use signer::{Current, Signer};
