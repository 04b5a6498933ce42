//! What TLS has in common wherever it ends: at a sidecar, for the mesh or as its Sidecar says, and at a gateway.

use envoy_types::pb::envoy::config::core::v3::{DataSource, TransportSocket, data_source::Specifier};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
    certificate_validation_context::TrustChainVerification,
    common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
};
use mesh_api::Name;

use super::bool_value;
use super::cluster::tls::{TLS_SOCKET, subject_names};
use super::cluster::transport_socket;

/// The protocols inside; the mesh's own names only choose the chain, and offering them would keep HTTP/2 out.
pub(super) fn alpn() -> Vec<String> {
    ["h2", "http/1.1"].map(str::to_owned).to_vec()
}

/// What is checked of a client's certificate, its authority aside.
#[derive(Default)]
pub(super) struct Checks<'a> {
    /// Names of which it must bear one; empty: any.
    pub(super) subject_alt_names: &'a [Name],
    /// Hashes of public keys.
    pub(super) spki: Vec<String>,
    /// Hashes of certificates.
    pub(super) hashes: Vec<String>,
    /// The file of revoked certificates; empty: none.
    pub(super) revoked: &'a str,
    /// It need not be of a known authority.
    pub(super) accept_untrusted: bool,
}

impl Checks<'_> {
    /// The validation with these authorities.
    pub(super) fn with(self, authorities: SdsSecretConfig) -> ValidationContextType {
        let trust = if self.accept_untrusted {
            TrustChainVerification::AcceptUntrusted
        } else {
            TrustChainVerification::VerifyTrustChain
        };
        let revoked = (!self.revoked.is_empty()).then(|| DataSource {
            specifier: Some(Specifier::Filename(self.revoked.to_owned())),
            ..DataSource::default()
        });
        let checks = CertificateValidationContext {
            match_typed_subject_alt_names: subject_names(self.subject_alt_names),
            verify_certificate_spki: self.spki,
            verify_certificate_hash: self.hashes,
            crl: revoked,
            trust_chain_verification: trust.into(),
            ..CertificateValidationContext::default()
        };
        combined(checks, authorities)
    }
}

/// Checks, with authorities that are a secret.
pub(super) fn combined(checks: CertificateValidationContext, authorities: SdsSecretConfig) -> ValidationContextType {
    ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(checks),
        validation_context_sds_secret_config: Some(authorities),
        ..CombinedCertificateValidationContext::default()
    })
}

/// Cipher suites or curves: a server's own, else the mesh's for TLS of users, else Envoy's.
pub(super) fn own_or_mesh<T: ToString>(own: &[T], mesh: Option<&Vec<String>>) -> Vec<String> {
    if own.is_empty() { mesh.cloned().unwrap_or_default() } else { own.iter().map(T::to_string).collect() }
}

/// The transport socket of a server.
pub(super) fn downstream(common: CommonTlsContext, requires_client_certificate: bool) -> TransportSocket {
    let context = DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: bool_value(requires_client_certificate),
        ..DownstreamTlsContext::default()
    };
    transport_socket(TLS_SOCKET, &context)
}
