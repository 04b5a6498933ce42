//! Who is who: the authority of the mesh as the control plane runs it, and how callers prove who they are.
//!
//! Signing, checking tokens and reading certificates are mesh-ca's. Here they meet sockets: the certificate service beside
//! xDS, TLS on the secure port, and the rule that a proxy gets configuration of its own namespace only.

mod folder;
mod tls;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use http::Request;
use mesh_api::names::SpiffeId;
use mesh_ca::Current;
use mesh_ca::authenticate::{ClientCertificate, Jwks, Xfcc, bearer};
use mesh_ca::server::proto::IstioCertificateServiceServer;
use mesh_ca::server::{CertificateService, Metrics, Verified};
use mesh_xds::Proxy;
use mesh_xds::server::{Caller, Peer};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

pub use folder::{CaFolder, CaOptions};
pub(crate) use tls::Acceptor;

/// Who signs, and who is believed.
#[derive(Clone)]
pub struct Identity {
    /// Who signs.
    pub authority: Arc<Current>,
    /// Tokens that are believed.
    pub tokens: Option<Arc<Jwks>>,
    /// Gateways that are believed.
    pub gateways: Option<Xfcc>,
    /// The names by which proxies reach us.
    pub hosts: Vec<String>,
}

impl Identity {
    /// The names of a control plane in `namespace`, as istiod's certificate has them.
    pub fn hosts_in(namespace: &str) -> Vec<String> {
        ["istiod", "istiod-remote", "istio-pilot"].map(|name| format!("{name}.{namespace}.svc")).into()
    }

    /// The certificate service, counting in `metrics`.
    pub(crate) fn service(&self, metrics: Metrics) -> Vouched<IstioCertificateServiceServer<CertificateService>> {
        metrics.authority(&self.authority.get());
        let mut service =
            CertificateService::new(self.authority.clone()).metrics(metrics).authenticator(ClientCertificate);
        if let Some(tokens) = &self.tokens {
            service = service.authenticator(tokens.clone());
        }
        if let Some(gateways) = &self.gateways {
            service = service.authenticator(gateways.clone());
        }
        Vouched(service.into_service())
    }

    /// Whether a caller over TLS may be that proxy: it must prove an identity, and be of the proxy's namespace and account.
    pub(crate) fn admit(&self, proxy: &Proxy, caller: &Caller<'_>, now: SystemTime) -> Result<(), Status> {
        let id = self.caller(caller, now)?;
        let account = proxy.metadata("SERVICE_ACCOUNT");
        if id.namespace != proxy.namespace || !(account.is_empty() || id.service_account == account) {
            let proxy = format!("{}/{account}", proxy.namespace);
            tracing::warn!(%id, proxy, "a proxy claims to be another");
            return Err(Status::permission_denied(format!("authorization failed: {id} is not of {proxy}")));
        }
        Ok(())
    }

    fn caller(&self, caller: &Caller<'_>, now: SystemTime) -> Result<SpiffeId, Status> {
        if let [id] = &*caller.peer.identities {
            return id.parse().map_err(|error| Status::unauthenticated(format!("authentication failure: {error}")));
        }
        let by_token = match &self.tokens {
            Some(tokens) => {
                bearer(caller.headers).and_then(|token| tokens.verify(token, now)).map_err(|why| why.to_string())
            }
            None => Err("no client certificate with one identity; tokens are believed with --jwks only".to_owned()),
        };
        by_token.map(|caller| caller.id).map_err(|why| {
            tracing::warn!(address = ?caller.peer.address, why, "a proxy is not known");
            Status::unauthenticated("authentication failure")
        })
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
