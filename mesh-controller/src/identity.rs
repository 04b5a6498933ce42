//! Who is who: the authority of the mesh as the control plane runs it, and how callers prove who they are.
//!
//! Signing, checking tokens and reading certificates are mesh-ca's. Here they meet sockets: the certificate service beside
//! xDS, TLS on the secure port, and the rule that a proxy gets configuration of its own namespace only.

mod folder;
mod reviews;
mod secrets;
mod tls;
mod trust;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use http::Request;
use mesh_api::names::SpiffeId;
use mesh_ca::authenticate::{Authenticator, Credentials, authenticate};
use mesh_ca::server::proto::IstioCertificateServiceServer;
use mesh_ca::server::{CertificateService, Metrics, Verified};
use mesh_ca::{Current, Lifetimes, RootOptions};
use mesh_xds::Proxy;
use mesh_xds::server::{Caller, Peer};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use crate::mesh_config::of_revision;

pub use folder::CaFolder;
pub use reviews::{Clients, TokenReviews};
pub use secrets::{CaSecrets, CaSecretsError};
pub(crate) use tls::Acceptor;
pub use trust::Trust;

/// How an authority is made and what it makes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CaOptions {
    /// Of a root that has to be made.
    pub root: RootOptions,
    /// Of what it signs.
    pub lifetimes: Lifetimes,
    /// A root of our own is renewed in this last part of its life, in percent:
    /// `CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE`.
    pub grace_percent: u32,
}

impl Default for CaOptions {
    fn default() -> Self {
        Self { root: RootOptions::default(), lifetimes: Lifetimes::default(), grace_percent: 20 }
    }
}

/// Who signs, and who is believed.
#[derive(Clone)]
pub struct Identity {
    /// Who signs.
    pub authority: Arc<Current>,
    /// The ways to find out who calls, asked in this order.
    pub authenticators: Vec<Arc<dyn Authenticator>>,
    /// The names by which proxies reach us.
    pub hosts: Vec<String>,
}

impl Identity {
    /// The names of a control plane of this revision in `namespace`, as istiod's certificate has them.
    pub fn hosts_in(namespace: &str, revision: &str) -> Vec<String> {
        let own = of_revision("istiod", revision);
        let names = BTreeSet::from(["istiod", "istiod-remote", "istio-pilot", &own]);
        names.into_iter().map(|name| format!("{name}.{namespace}.svc")).collect()
    }

    /// The certificate service, counting in `metrics`.
    pub(crate) fn service(&self, metrics: Metrics) -> Vouched<IstioCertificateServiceServer<CertificateService>> {
        metrics.authority(&self.authority.get());
        let service = CertificateService::new(self.authority.clone()).metrics(metrics);
        Vouched(service.authenticators(self.authenticators.iter().cloned()).into_service())
    }

    /// Who a caller over TLS is.
    pub(crate) async fn authenticate(&self, caller: &Caller<'_>, now: SystemTime) -> Result<Arc<[String]>, Status> {
        let Peer { address, identities, .. } = caller.peer;
        let credentials = Credentials { address: *address, certificate: identities, headers: caller.headers };
        let known = authenticate(&self.authenticators, credentials, now).await.map_err(|why| {
            tracing::warn!(?address, %why, "a proxy is not known");
            Status::unauthenticated("authentication failure")
        })?;
        Ok([known.id.to_string()].into())
    }

    /// Whether who is of these identities may be that proxy: it must be of the proxy's namespace and account.
    pub(crate) fn admit(proxy: &Proxy, identities: &[String]) -> Result<(), Status> {
        let id: SpiffeId = match identities {
            [id] => id.parse().map_err(|error| Status::unauthenticated(format!("authentication failure: {error}")))?,
            _ => return Err(Status::unauthenticated("authentication failure")),
        };
        let account = proxy.metadata("SERVICE_ACCOUNT");
        if id.namespace != proxy.namespace || !(account.is_empty() || id.service_account == account) {
            let proxy = format!("{}/{account}", proxy.namespace);
            tracing::warn!(%id, proxy, "a proxy claims to be another");
            return Err(Status::permission_denied(format!("authorization failed: {id} is not of {proxy}")));
        }
        Ok(())
    }
}

/// Tells a service of mesh-ca what the server of mesh-xds knows of a connection; the two do not know each other.
#[derive(Clone)]
pub(crate) struct Vouched<S>(S);

impl<S: NamedService> NamedService for Vouched<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<Request<Body>, Error = Infallible>> Service<Request<Body>> for Vouched<S> {
    type Response = S::Response;
    type Error = Infallible;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let identities = request.extensions().get::<Peer>().map(|peer| peer.identities.clone());
        request.extensions_mut().insert(Verified(identities.unwrap_or_default()));
        self.0.call(request)
    }
}

#[cfg(test)]
mod tests;
