//! Who is who: the authority of the mesh as the control plane runs it, and how callers prove who they are.
//!
//! Signing, checking tokens and reading certificates are mesh-ca's. Here they meet sockets: the certificate service beside
//! xDS, TLS on the secure port, and the rule that a proxy gets configuration of its own namespace only.

mod folder;
mod registration;
mod reviews;
mod rotation;
mod secrets;
mod tls;
mod trust;
mod vouched;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use mesh_api::names::SpiffeId;
use mesh_ca::authenticate::{Authenticator, Credentials, authenticate};
use mesh_ca::rotation::Timing;
use mesh_ca::server::proto::IstioCertificateServiceServer;
use mesh_ca::server::{CertificateService, Metrics};
use mesh_ca::{Certificate, Current, Lifetimes, RootOptions, Signer};
use mesh_xds::Proxy;
use mesh_xds::server::{Caller, Peer};
use tonic::Status;

use crate::mesh_config::of_revision;

pub use folder::CaFolder;
pub use registration::{RegistrationAuthority, SignerRoots};
pub use reviews::{Clients, TokenReviews};
pub(crate) use rotation::observe;
pub use rotation::{Proxies, Rotating};
pub use secrets::{CaSecrets, CaSecretsError};
pub(crate) use tls::Acceptor;
pub use trust::Trust;
pub(crate) use trust::changes_of;
use vouched::Vouched;

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
    /// How long the phases of a root's rotation take.
    pub timing: Timing,
}

impl Default for CaOptions {
    fn default() -> Self {
        let lifetimes = Lifetimes::default();
        let mut timing = Timing::default();
        timing.longest = lifetimes.max;
        Self { root: RootOptions::default(), lifetimes, grace_percent: 20, timing }
    }
}

/// Who signs, and who is believed.
#[derive(Clone)]
#[non_exhaustive]
pub struct Identity {
    /// The authority of the mesh: its certificates we show ourselves, and those of its roots we believe.
    pub authority: Arc<Current>,
    /// Who signs for workloads; the authority, unless that is somebody else's task.
    pub signer: Arc<dyn Signer>,
    /// Roots of such a signer, which are believed as well.
    pub signer_roots: Vec<Certificate>,
    /// The ways to find out who calls, asked in this order.
    pub authenticators: Vec<Arc<dyn Authenticator>>,
    /// The names by which proxies reach us.
    pub hosts: Vec<String>,
}

impl Identity {
    /// An authority that signs itself, believes these, and is reached by these names.
    pub fn new(authority: Arc<Current>, authenticators: Vec<Arc<dyn Authenticator>>, hosts: Vec<String>) -> Self {
        Self { signer: authority.clone(), authority, signer_roots: Vec::new(), authenticators, hosts }
    }

    /// Lets another sign for workloads, whose certificates lead to these roots.
    #[must_use]
    pub fn signer(mut self, signer: impl Signer + 'static, roots: Vec<Certificate>) -> Self {
        (self.signer, self.signer_roots) = (Arc::new(signer), roots);
        self
    }

    /// The names of a control plane of this revision in `namespace`, as istiod's certificate has them.
    pub fn hosts_in(namespace: &str, revision: &str) -> Vec<String> {
        let own = of_revision("istiod", revision);
        let names = BTreeSet::from(["istiod", "istiod-remote", "istio-pilot", &own]);
        names.into_iter().map(|name| format!("{name}.{namespace}.svc")).collect()
    }

    /// The certificate service, counting in `metrics`.
    pub(crate) fn service(&self, metrics: Metrics) -> Vouched<IstioCertificateServiceServer<CertificateService>> {
        metrics.authority(&self.authority.get());
        let service = CertificateService::new(self.signer.clone()).metrics(metrics.clone());
        let service = service.authenticators(self.authenticators.iter().cloned()).into_service();
        Vouched { service, metrics }
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

#[cfg(test)]
mod tests;
