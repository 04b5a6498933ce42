//! The Kubernetes CSR API as the signer: we are its registration authority.
//!
//! This is the part without a cluster: which object to create, what its status means. Kubernetes' signers put into the
//! certificate what the request asks for, so here, and only here, a request must ask for the caller's name and nothing else.

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{SigningRequest, check};
use crate::authority::{Lifetimes, SignError};
use crate::certificate::Certificate;

/// Kubernetes makes no certificate for less.
const SHORTEST: u64 = 600;
const USAGES: [&str; 4] = ["digital signature", "key encipherment", "server auth", "client auth"];

/// Which of Kubernetes' signers sign.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signers {
    /// Who signs for callers that have no wish: a whole name such as `clusterissuers.cert-manager.io/mesh`, `K8S_SIGNER`.
    pub default: String,
    /// The domain of the signers that callers may choose from, `CERT_SIGNER_DOMAIN`. Empty: they may not choose.
    pub domain: String,
}

impl Signers {
    fn of(&self, wish: &str) -> Result<String, SignError> {
        match (wish, &*self.domain) {
            ("", _) if !self.default.is_empty() => Ok(self.default.clone()),
            (wish, domain) if !wish.is_empty() && !domain.is_empty() => Ok(format!("{domain}/{wish}")),
            _ => Err(SignError::NoSigner(wish.to_owned())),
        }
    }
}

/// The object to create and to approve.
///
/// # Errors
/// When the request asks for another name than the caller's or for more than that, for too long a life, or for a signer that
/// is not known.
pub fn signing_request(
    request: SigningRequest<'_>,
    signers: &Signers,
    lifetimes: Lifetimes,
) -> Result<CertificateSigningRequest, SignError> {
    if !request.csr.asks_only_for(request.id) {
        let asked = match request.csr.uris() {
            [] => "no SPIFFE id".to_owned(),
            uris => uris.join(", ") + " and perhaps more",
        };
        return Err(SignError::NotYours { asked, caller: request.id.to_string() });
    }
    let ttl = lifetimes.of(request.ttl)?.as_secs().max(SHORTEST);
    let spec = CertificateSigningRequestSpec {
        request: ByteString(request.csr_pem.as_bytes().to_vec()),
        signer_name: signers.of(request.signer)?,
        usages: Some(USAGES.map(str::to_owned).into()),
        expiration_seconds: Some(i32::try_from(ttl).unwrap_or(i32::MAX)),
        ..Default::default()
    };
    let metadata = ObjectMeta { generate_name: Some("csr-workload-".to_owned()), ..Default::default() };
    Ok(CertificateSigningRequest { metadata, spec, status: None })
}

/// The condition by which we approve what we created.
pub fn approval() -> CertificateSigningRequestCondition {
    CertificateSigningRequestCondition {
        type_: "Approved".to_owned(),
        status: "True".to_owned(),
        reason: Some("MeshApproved".to_owned()),
        message: Some("the caller was authenticated, and asks for its own name".to_owned()),
        ..Default::default()
    }
}

/// Whether nothing more will become of an object: it is signed, or will never be.
pub fn is_decided(object: &CertificateSigningRequest) -> bool {
    refusal(object).is_some() || certificate(object).is_some()
}

/// What has become of an object that is decided: the answer for the caller.
///
/// # Errors
/// When the request was denied or failed, or what was issued is not what was asked for.
pub fn outcome(
    object: &CertificateSigningRequest,
    request: SigningRequest<'_>,
    roots: &[Certificate],
) -> Result<Vec<String>, SignError> {
    let told = |what: &str, why: &str| {
        let signer = &object.spec.signer_name;
        SignError::Unavailable(format!("signer {signer}: {what}: {why}"))
    };
    if let Some(condition) = refusal(object) {
        return Err(told(&condition.type_, condition.message.as_deref().unwrap_or("no reason given")));
    }
    let pem = certificate(object).ok_or_else(|| told("Pending", "it has not signed yet; does its controller run?"))?;
    check(&String::from_utf8_lossy(pem), request, roots)
}

fn refusal(object: &CertificateSigningRequest) -> Option<&CertificateSigningRequestCondition> {
    let mut conditions = object.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.find(|condition| matches!(&*condition.type_, "Denied" | "Failed"))
}

fn certificate(object: &CertificateSigningRequest) -> Option<&[u8]> {
    let pem = &object.status.as_ref()?.certificate.as_ref()?.0;
    Some(pem.as_slice()).filter(|pem| !pem.is_empty())
}
