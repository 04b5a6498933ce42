//! `istio.v1.auth`: the messages of the certificate service, and its client and server.

/// A certificate signing request.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IstioCertificateRequest {
    /// PKCS#10 in PEM.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// How long the certificate is to live, in seconds; 0 leaves it to the authority.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    /// What else the caller says: [`CERT_SIGNER`], [`IMPERSONATED_IDENTITY`].
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<prost_types::Struct>,
}

/// A certificate and its chain.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IstioCertificateResponse {
    /// PEM: leaf first, one certificate in each, and all roots together in the last.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

/// Metadata: the name of the Kubernetes signer that is to sign.
pub const CERT_SIGNER: &str = "CertSigner";
/// Metadata: the workload that a node's proxy asks for.
pub const IMPERSONATED_IDENTITY: &str = "ImpersonatedIdentity";

/// Texts as metadata of a request.
pub fn metadata<'a>(texts: impl IntoIterator<Item = (&'a str, &'a str)>) -> prost_types::Struct {
    let value = |text: &str| prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(text.to_owned())) };
    prost_types::Struct { fields: texts.into_iter().map(|(name, text)| (name.to_owned(), value(text))).collect() }
}

impl IstioCertificateRequest {
    /// A text among the metadata; empty where it is absent.
    pub fn metadata(&self, name: &str) -> &str {
        let value = self.metadata.as_ref().and_then(|metadata| metadata.fields.get(name));
        match value.and_then(|value| value.kind.as_ref()) {
            Some(prost_types::value::Kind::StringValue(text)) => text,
            _ => "",
        }
    }
}

mod generated {
    #![allow(missing_docs, unreachable_pub)]
    include!(concat!(env!("OUT_DIR"), "/istio.v1.auth.IstioCertificateService.rs"));
}
pub use generated::istio_certificate_service_client::IstioCertificateServiceClient;
pub use generated::istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer};
