//! Vault's PKI engine as the signer.
//!
//! The role decides what Vault signs; it needs `allowed_uri_sans=spiffe://*`, `require_cn=false`, `use_csr_sans=false` and
//! `use_csr_common_name=false`. What comes back is checked as if Vault were a stranger: it must be of the caller's key
//! and name and nothing more, and lead to the roots that are known here.

use serde::Deserialize;
use serde_json::json;

use super::{Later, Signer, SigningRequest, check};
use crate::authority::{Lifetimes, SignError};
use crate::certificate::Certificate;

/// Sends requests over HTTP. The transport is the caller's: with its TLS, its proxies, its retries.
pub trait Http: Send + Sync {
    /// Posts JSON to a path of Vault with a token, and returns status and body.
    ///
    /// # Errors
    /// With a text for the log, where there was no answer.
    fn post<'a>(&'a self, path: &'a str, token: &'a str, body: String) -> Later<'a, Result<(u16, String), String>>;
}

/// Where and as whom to sign.
#[derive(Clone)]
pub struct VaultOptions {
    /// Where the engine is mounted, such as `pki`.
    pub mount: String,
    /// The role that signs.
    pub role: String,
    /// A token that may `update` the role's `sign` path.
    pub token: String,
    /// How long certificates live. The role's `max_ttl` must allow it, or Vault cuts them short.
    pub lifetimes: Lifetimes,
    /// The roots that everybody trusts.
    pub roots: Vec<Certificate>,
}

/// Signs by Vault.
pub struct Vault<H> {
    http: H,
    options: VaultOptions,
}

#[derive(Deserialize)]
struct Answer {
    data: Issued,
}

#[derive(Deserialize)]
struct Issued {
    certificate: String,
    #[serde(default)]
    issuing_ca: String,
    #[serde(default)]
    ca_chain: Vec<String>,
}

/// What Vault answers when it does not sign.
#[derive(Deserialize, Default)]
struct Refusal {
    #[serde(default)]
    errors: Vec<String>,
}

impl<H: Http> Vault<H> {
    /// Signs through `http`.
    pub fn new(http: H, options: VaultOptions) -> Self {
        Self { http, options }
    }

    async fn ask(&self, request: SigningRequest<'_>) -> Result<Vec<String>, SignError> {
        let VaultOptions { mount, role, token, lifetimes, roots } = &self.options;
        let ttl = lifetimes.of(request.ttl)?.as_secs();
        let body = json!({
            "csr": request.csr_pem,
            "uri_sans": request.id.to_string(),
            "ttl": format!("{ttl}s"),
            "format": "pem",
        });
        let path = format!("/v1/{mount}/sign/{role}");
        let unavailable = |why: String| SignError::Unavailable(format!("Vault {path}: {why}"));
        let (status, text) = self.http.post(&path, token, body.to_string()).await.map_err(unavailable)?;
        if status != 200 {
            let told = serde_json::from_str::<Refusal>(&text).unwrap_or_default().errors.join("; ");
            return Err(unavailable(format!("status {status}: {told}; check the role and the token's policy")));
        }
        let issued = serde_json::from_str::<Answer>(&text).map_err(|error| unavailable(error.to_string()))?.data;
        // The chain has the issuer, too; older Vaults send the issuer alone.
        let above = if issued.ca_chain.is_empty() { vec![issued.issuing_ca] } else { issued.ca_chain };
        let pem = std::iter::once(issued.certificate).chain(above).collect::<Vec<_>>().join("\n");
        check(&pem, request, roots)
    }
}

impl<H: Http> Signer for Vault<H> {
    fn sign<'a>(&'a self, request: SigningRequest<'a>) -> Later<'a, Result<Vec<String>, SignError>> {
        Box::pin(self.ask(request))
    }
}
