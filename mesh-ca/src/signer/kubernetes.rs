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
use crate::authority::SignError;
use crate::certificate::Certificate;

/// Kubernetes makes no certificate for less.
const SHORTEST: u64 = 600;
const USAGES: [&str; 4] = ["digital signature", "key encipherment", "server auth", "client auth"];

/// The object to create and to approve, for the signer `<domain>/<name>`: `CERT_SIGNER_DOMAIN` and what the caller asks for,
/// or `default` where it asks for none.
///
/// # Errors
/// When the request asks for another name than the caller's, or for more than that.
pub fn signing_request(
    request: SigningRequest<'_>,
    domain: &str,
    default: &str,
) -> Result<CertificateSigningRequest, SignError> {
    if !request.csr.asks_only_for(request.id) {
        let asked = match request.csr.uris() {
            [] => "no SPIFFE id".to_owned(),
            uris => uris.join(", ") + " and perhaps other names",
        };
        return Err(SignError::NotYours { asked, caller: request.id.to_string() });
    }
    let signer = if request.signer.is_empty() { default } else { request.signer };
    let signer_name = if domain.is_empty() { signer.to_owned() } else { format!("{domain}/{signer}") };
    let spec = CertificateSigningRequestSpec {
        request: ByteString(request.csr_pem.as_bytes().to_vec()),
        signer_name,
        usages: Some(USAGES.map(str::to_owned).into()),
        expiration_seconds: request.ttl.map(|ttl| i32::try_from(ttl.as_secs().max(SHORTEST)).unwrap_or(i32::MAX)),
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

/// What has become of an object.
///
/// `None`: not yet anything; look again.
///
/// # Errors
/// When the request was denied or failed, or what was issued is not what was asked for.
pub fn outcome(
    object: &CertificateSigningRequest,
    request: SigningRequest<'_>,
    roots: &[Certificate],
) -> Result<Option<Vec<String>>, SignError> {
    let Some(status) = &object.status else { return Ok(None) };
    let refused = status.conditions.iter().flatten().find(|condition| matches!(&*condition.type_, "Denied" | "Failed"));
    if let Some(condition) = refused {
        let why = condition.message.as_deref().unwrap_or("no reason given");
        let signer = &object.spec.signer_name;
        return Err(SignError::Unavailable(format!("signer {signer}: {}: {why}", condition.type_)));
    }
    let issued = status.certificate.as_ref().filter(|certificate| !certificate.0.is_empty());
    issued.map(|pem| check(&String::from_utf8_lossy(&pem.0), request, roots)).transpose()
}
