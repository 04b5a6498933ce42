//! `istio.v1.auth.IstioCertificateService`: who calls, may it have that, sign, answer.
//!
//! A shell: it asks the clock and counts. What is refused is refused with the code that istiod uses, or a truer one: another's
//! name is `PERMISSION_DENIED`, and a signer that can't be reached `UNAVAILABLE`, so that agents try again. Why a caller was not
//! believed stands in the log and not in the answer.
//!
//! The service looks for two extensions of a request: tonic's `TcpConnectInfo`, and [`Verified`], which whoever ended TLS
//! puts there.

mod metrics;
mod node;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_api::names::SpiffeId;
use tonic::transport::server::TcpConnectInfo;
use tonic::{Code, Request, Response, Status};

pub use crate::proto;
pub use metrics::Metrics;
pub use node::{NodeAuthorizer, NodePod, Pods, TrustedNodes};

use crate::authenticate::{Authenticator, Caller, Credentials, authenticate};
use crate::authority::SignError;
use crate::request::{Csr, CsrError};
use crate::signer::{Signer, SigningRequest};
use proto::{
    CERT_SIGNER, IMPERSONATED_IDENTITY, IstioCertificateRequest, IstioCertificateResponse, IstioCertificateService,
    IstioCertificateServiceServer,
};

/// The largest message that is read: a request of [`MAX_REQUEST`](crate::request::MAX_REQUEST) with room for metadata.
const MAX_MESSAGE: usize = 64 * 1024;

/// The URIs of the certificate that TLS verified: an extension of requests, set by whoever ended TLS.
#[derive(Clone, Debug, Default)]
pub struct Verified(pub Arc<[String]>);

/// The certificate service.
pub struct CertificateService {
    signer: Arc<dyn Signer>,
    authenticators: Vec<Arc<dyn Authenticator>>,
    nodes: Option<Box<dyn NodeAuthorizer>>,
    metrics: Metrics,
}

impl CertificateService {
    /// Signs with `signer` for whom nobody knows yet.
    pub fn new(signer: Arc<dyn Signer>) -> Self {
        Self { signer, authenticators: Vec::new(), nodes: None, metrics: Metrics::default() }
    }

    /// Adds a way to find out who calls. They are asked in the order in which they were added.
    #[must_use]
    pub fn authenticator(mut self, authenticator: impl Authenticator + 'static) -> Self {
        self.authenticators.push(Arc::new(authenticator));
        self
    }

    /// Adds ways to find out who calls that others use as well.
    #[must_use]
    pub fn authenticators(mut self, authenticators: impl IntoIterator<Item = Arc<dyn Authenticator>>) -> Self {
        self.authenticators.extend(authenticators);
        self
    }

    /// Lets proxies of nodes ask for the workloads of their node.
    #[must_use]
    pub fn nodes(mut self, nodes: impl NodeAuthorizer + 'static) -> Self {
        self.nodes = Some(Box::new(nodes));
        self
    }

    /// Counts in these metrics.
    #[must_use]
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// The service for a tonic router.
    pub fn into_service(self) -> IstioCertificateServiceServer<Self> {
        IstioCertificateServiceServer::new(self).max_decoding_message_size(MAX_MESSAGE)
    }

    /// Answers one request.
    ///
    /// # Errors
    /// With the status for the caller.
    pub async fn create(
        &self,
        credentials: Credentials<'_>,
        request: &IstioCertificateRequest,
        now: SystemTime,
    ) -> Result<IstioCertificateResponse, Status> {
        self.metrics.received();
        let caller = authenticate(&self.authenticators, credentials, now).await.map_err(|why| {
            self.metrics.not_authenticated();
            tracing::warn!(address = ?credentials.address, %why, "a caller for a certificate is not known");
            Status::unauthenticated("request authenticate failure")
        })?;
        let id = self.identity(&caller, request.metadata(IMPERSONATED_IDENTITY))?;
        let csr = Csr::from_pem(request.csr.as_bytes()).map_err(|error| {
            self.metrics.unreadable();
            self.metrics.not_signed("CSR_ERROR");
            tracing::warn!(%id, %error, "a request for a certificate is refused");
            refused(&error)
        })?;
        let signing = SigningRequest {
            csr: &csr,
            csr_pem: &request.csr,
            id: &id,
            ttl: u64::try_from(request.validity_duration).ok().filter(|s| *s > 0).map(Duration::from_secs),
            signer: request.metadata(CERT_SIGNER),
            now,
        };
        let cert_chain = self.signer.sign(signing).await.map_err(|error| {
            let (kind, code) = kind(&error);
            self.metrics.not_signed(kind);
            tracing::warn!(%id, %error, "a certificate is not signed");
            Status::new(code, format!("CSR signing error ({error})"))
        })?;
        self.metrics.issued();
        tracing::debug!(%id, "certified");
        Ok(IstioCertificateResponse { cert_chain })
    }

    /// The caller's identity, or that of a workload on its node.
    fn identity(&self, caller: &Caller, impersonated: &str) -> Result<SpiffeId, Status> {
        if impersonated.is_empty() {
            return Ok(caller.id.clone());
        }
        let allowed = match (&self.nodes, impersonated.parse::<SpiffeId>()) {
            (None, _) => Err("no node accounts are trusted; see CA_TRUSTED_NODE_ACCOUNTS".to_owned()),
            (_, Err(error)) => Err(error.to_string()),
            (Some(nodes), Ok(id)) => nodes.may_impersonate(caller, &id).map(|()| id),
        };
        allowed.map_err(|why| {
            self.metrics.not_authenticated();
            tracing::warn!(caller = %caller.id, impersonated, %why, "impersonation is refused");
            Status::unauthenticated("request impersonation authentication failure")
        })
    }
}

fn refused(error: &CsrError) -> Status {
    Status::invalid_argument(format!("CSR signing error ({error})"))
}

/// istiod's name of an error, for the metric, and the code for the caller.
fn kind(error: &SignError) -> (&'static str, Code) {
    match error {
        SignError::Ttl { .. } => ("TTL_ERROR", Code::InvalidArgument),
        SignError::NotYours { .. } => ("CSR_ERROR", Code::PermissionDenied),
        SignError::NoSigner(_) => ("CERT_GEN_ERROR", Code::InvalidArgument),
        SignError::Unavailable(_) | SignError::Expired => ("CA_NOT_READY", Code::Unavailable),
        SignError::Failed(_) => ("CERT_GEN_ERROR", Code::Internal),
    }
}

#[tonic::async_trait]
impl IstioCertificateService for CertificateService {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let (metadata, extensions, message) = request.into_parts();
        let headers = metadata.into_headers();
        let credentials = Credentials {
            address: extensions.get().and_then(|info: &TcpConnectInfo| info.remote_addr()),
            certificate: extensions.get().map_or(&[], |verified: &Verified| &verified.0),
            headers: &headers,
        };
        self.create(credentials, &message, SystemTime::now()).await.map(Response::new)
    }
}

#[cfg(test)]
mod tests;
