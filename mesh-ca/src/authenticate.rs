//! Who is calling? Several ways to find out, asked one after the other; the first that knows is believed.
//!
//! An identity is what somebody whom we trust has vouched for: a certificate that we issued, the API server, an issuer of
//! tokens, a gateway at an address that was named to us. What callers say of themselves counts for nothing.

mod jwt;
mod kubernetes;
mod xfcc;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use http::HeaderMap;
use mesh_api::names::SpiffeId;

pub use jwt::{Jwks, JwksError};
pub use kubernetes::{KubernetesTokens, TokenReviewer};
pub use xfcc::Xfcc;

use crate::signer::Later;

/// The audience of tokens that are meant for us.
pub const AUDIENCE: &str = "istio-ca";
/// The header by which a proxy names its cluster.
const CLUSTER_ID: &str = "clusterid";

/// What a caller brought along.
#[derive(Clone, Copy, Debug)]
pub struct Credentials<'a> {
    /// Where it connects from.
    pub address: Option<SocketAddr>,
    /// The URIs of its certificate, where TLS verified one.
    pub certificate: &'a [String],
    /// The metadata of its call.
    pub headers: &'a HeaderMap,
}

/// A caller that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Caller {
    /// Who it is.
    pub id: SpiffeId,
    /// The pod that it is in, where the token says so.
    pub pod: Option<Pod>,
}

/// A pod, as a token names it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pod {
    /// Its name; the namespace is that of the identity.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
}

impl Caller {
    /// A caller without a pod.
    pub fn new(id: SpiffeId) -> Self {
        Self { id, pod: None }
    }
}

/// Why a caller is not known. It is for the log; the caller learns only that it is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unknown(pub String);

/// A way to find out who is calling.
pub trait Authenticator: Send + Sync {
    /// Its name in the log.
    fn name(&self) -> &'static str;
    /// Who brought these credentials.
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>, now: SystemTime) -> Later<'a, Result<Caller, Unknown>>;
}

impl<A: Authenticator + ?Sized> Authenticator for Arc<A> {
    fn name(&self) -> &'static str {
        (**self).name()
    }
    fn authenticate<'a>(&'a self, credentials: Credentials<'a>, now: SystemTime) -> Later<'a, Result<Caller, Unknown>> {
        (**self).authenticate(credentials, now)
    }
}

/// Asks each in turn.
///
/// # Errors
/// With all that they said, when none knows the caller.
pub async fn authenticate(
    authenticators: &[Arc<dyn Authenticator>],
    credentials: Credentials<'_>,
    now: SystemTime,
) -> Result<Caller, Unknown> {
    let mut said = Vec::new();
    for authenticator in authenticators {
        match authenticator.authenticate(credentials, now).await {
            Ok(caller) => return Ok(caller),
            Err(Unknown(why)) => said.push(format!("{}: {why}", authenticator.name())),
        }
    }
    Err(Unknown(said.join("; ")))
}

/// Believes the certificate by which the caller opened its connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientCertificate;

impl Authenticator for ClientCertificate {
    fn name(&self) -> &'static str {
        "client certificate"
    }

    fn authenticate<'a>(&'a self, credentials: Credentials<'a>, _: SystemTime) -> Later<'a, Result<Caller, Unknown>> {
        Box::pin(std::future::ready(only_identity(credentials.certificate)))
    }
}

/// SPIFFE allows one URI in a certificate, and one is all that can be believed.
fn only_identity(uris: &[String]) -> Result<Caller, Unknown> {
    match uris {
        [] => Err(Unknown("no client certificate is presented".into())),
        [uri] => uri.parse().map(Caller::new).map_err(|error| Unknown(format!("{error}"))),
        _ => Err(Unknown(format!("the certificate has {} URIs; an identity is one", uris.len()))),
    }
}

/// The bearer token of a call.
///
/// # Errors
/// When it has none.
pub fn bearer(headers: &HeaderMap) -> Result<&str, Unknown> {
    let mut values = headers.get_all(http::header::AUTHORIZATION).iter().filter_map(|value| value.to_str().ok());
    let token = values.find_map(|value| value.strip_prefix("Bearer "));
    token.map(str::trim).filter(|token| !token.is_empty()).ok_or_else(|| Unknown("no bearer token".into()))
}

/// The identity of a service account, `system:serviceaccount:<namespace>:<name>`.
fn service_account(trust_domain: &str, subject: &str) -> Result<SpiffeId, Unknown> {
    let wrong = || Unknown(format!("{subject:?} is no service account"));
    let (namespace, name) =
        subject.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')).ok_or_else(wrong)?;
    // An identity is read back by its slashes, so none may come from a name.
    let is_name = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.')
    };
    if !is_name(namespace) || !is_name(name) {
        return Err(wrong());
    }
    Ok(SpiffeId { trust_domain: trust_domain.into(), namespace: namespace.into(), service_account: name.into() })
}

#[cfg(test)]
pub(crate) mod tests;
