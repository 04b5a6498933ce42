//! Tokens of Kubernetes, by asking the API server, which knows of deleted pods, too.
//!
//! The asking is somebody else's: this crate knows no client. Here is what the answer means.

use std::time::SystemTime;

use k8s_openapi::api::authentication::v1::{TokenReviewStatus, UserInfo};

use super::{AUDIENCE, Authenticator, CLUSTER_ID, Caller, Credentials, Pod, Unknown, bearer, service_account};
use crate::signer::Later;

const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";

/// Creates a `TokenReview` at an API server.
pub trait TokenReviewer: Send + Sync {
    /// The status of a review of `token` for any of `audiences` in the cluster of that name; empty for our own.
    fn review<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
        cluster: &'a str,
    ) -> Later<'a, Result<TokenReviewStatus, Unknown>>;
}

/// Believes what an API server says of a token.
pub struct KubernetesTokens<R> {
    reviewer: R,
    audiences: Vec<String>,
    trust_domain: String,
}

impl<R> KubernetesTokens<R> {
    /// Asks `reviewer` about tokens that are meant for [`AUDIENCE`].
    pub fn new(reviewer: R, trust_domain: &str) -> Self {
        Self { reviewer, audiences: vec![AUDIENCE.to_owned()], trust_domain: trust_domain.to_owned() }
    }

    /// Accepts tokens for these audiences instead.
    #[must_use]
    pub fn audiences(mut self, audiences: Vec<String>) -> Self {
        self.audiences = audiences;
        self
    }
}

impl<R: TokenReviewer> Authenticator for KubernetesTokens<R> {
    fn name(&self) -> &'static str {
        "token by TokenReview"
    }

    fn authenticate<'a>(&'a self, credentials: Credentials<'a>, _: SystemTime) -> Later<'a, Result<Caller, Unknown>> {
        Box::pin(async move {
            let token = bearer(credentials.headers)?;
            let cluster = credentials.headers.get(CLUSTER_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
            let status = self.reviewer.review(token, &self.audiences, cluster).await?;
            caller(status, &self.audiences, &self.trust_domain)
        })
    }
}

/// Who an API server says the token is of.
fn caller(status: TokenReviewStatus, audiences: &[String], trust_domain: &str) -> Result<Caller, Unknown> {
    if let Some(error) = status.error.filter(|error| !error.is_empty()) {
        return Err(Unknown(format!("the API server does not accept the token: {error}")));
    }
    if status.authenticated != Some(true) {
        return Err(Unknown("the API server does not know the token".into()));
    }
    // An API server that knows nothing of audiences answers without; then the token may be one for the API server itself.
    if !status.audiences.iter().flatten().any(|audience| audiences.contains(audience)) {
        return Err(Unknown(format!("the token is not for {}", audiences.join(" or "))));
    }
    let UserInfo { username, groups, extra, .. } = status.user.unwrap_or_default();
    if !groups.iter().flatten().any(|group| group == SERVICE_ACCOUNTS) {
        return Err(Unknown("the token is not of a service account".into()));
    }
    let id = service_account(trust_domain, &username.unwrap_or_default())?;
    let said = |key: &str| extra.as_ref().and_then(|extra| extra.get(key)?.first().cloned());
    let pod = said(POD_NAME).zip(said(POD_UID)).map(|(name, uid)| Pod { name, uid });
    Ok(Caller { id, pod })
}
