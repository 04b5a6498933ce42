//! Who signs may be somebody else: an authority here, Vault, the Kubernetes CSR API. They differ in when they answer, so the
//! answer is a future; what they are asked is the same.

pub mod kubernetes;
pub mod vault;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use mesh_api::names::SpiffeId;

use crate::authority::{Authority, BACKDATE, SignError};
use crate::certificate::Certificate;
use crate::request::Csr;

/// An answer that comes later.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What is to be certified.
#[derive(Clone, Copy, Debug)]
pub struct SigningRequest<'a> {
    /// The request, verified.
    pub csr: &'a Csr,
    /// The same as it came, for signers that want to see it themselves.
    pub csr_pem: &'a str,
    /// Who the caller proved to be.
    pub id: &'a SpiffeId,
    /// How long the certificate is to live, if the caller has a wish.
    pub ttl: Option<Duration>,
    /// Which signer the caller wants: `CertSigner` of the request's metadata. Empty, mostly.
    pub signer: &'a str,
    /// When.
    pub now: SystemTime,
}

/// Signs certificates of workloads.
pub trait Signer: Send + Sync {
    /// The chain as the certificate service answers it: leaf first, one certificate in each, all roots together last.
    fn sign<'a>(&'a self, request: SigningRequest<'a>) -> Later<'a, Result<Vec<String>, SignError>>;
}

impl Signer for Authority {
    fn sign<'a>(&'a self, request: SigningRequest<'a>) -> Later<'a, Result<Vec<String>, SignError>> {
        let chain = Authority::sign(self, request.csr, request.id, request.ttl, request.now);
        Box::pin(std::future::ready(chain.map(|chain| chain.response())))
    }
}

/// The authority of the moment. A reload or a rotation puts another in its place; whoever is signing finishes with the old.
#[derive(Debug)]
pub struct Current(RwLock<Arc<Authority>>);

impl Current {
    /// Begins with `authority`.
    pub fn new(authority: Authority) -> Self {
        Self(RwLock::new(Arc::new(authority)))
    }

    /// The authority now.
    pub fn get(&self) -> Arc<Authority> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another from now on.
    pub fn set(&self, authority: Authority) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(authority);
    }
}

impl Signer for Current {
    fn sign<'a>(&'a self, request: SigningRequest<'a>) -> Later<'a, Result<Vec<String>, SignError>> {
        let chain = self.get().sign(request.csr, request.id, request.ttl, request.now);
        Box::pin(std::future::ready(chain.map(|chain| chain.response())))
    }
}

/// What a signer elsewhere made: it must be of the caller's key, of its name alone, no authority, and lead to one of the
/// roots. Where no roots are known, to the one that the signer sent along. The answer for the caller, if it does.
fn check(pem: &str, request: SigningRequest<'_>, roots: &[Certificate]) -> Result<Vec<String>, SignError> {
    let wrong = |why: &str| SignError::Unavailable(format!("the signer's certificate for {} {why}", request.id));
    let chain = Certificate::all_from_pem(pem.as_bytes()).map_err(|error| wrong(&error.to_string()))?;
    let mut chain = chain.into_iter();
    let leaf = chain.next().ok_or_else(|| wrong("is missing"))?;
    let (sent_along, intermediates): (Vec<_>, Vec<_>) = chain.partition(Certificate::is_root);
    if leaf.public_key() != request.csr.public_key() {
        return Err(wrong("is of another key"));
    }
    if leaf.uris() != [request.id.to_string()] || !leaf.hosts().is_empty() || leaf.is_authority() {
        return Err(wrong("says something else; check the signer's rules on names"));
    }
    let roots = if roots.is_empty() { &sent_along } else { roots };
    // It is made after it was asked for, by a clock that may be ahead of ours.
    let now = leaf.not_before().clamp(request.now, request.now + BACKDATE);
    leaf.leads_to(roots, &intermediates, now)
        .map_err(|why| wrong(&format!("does not lead to the roots that are known here: {why:?}")))?;
    let roots = roots.iter().map(Certificate::to_pem).collect();
    let presented = std::iter::once(&leaf).chain(&intermediates).map(Certificate::to_pem);
    Ok(presented.chain(std::iter::once(roots)).collect())
}

#[cfg(test)]
mod tests;
