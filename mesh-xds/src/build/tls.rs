//! What TLS has in common wherever it ends: at a sidecar, for the mesh or as its Sidecar says, and at a gateway.

use envoy_types::pb::envoy::config::core::v3::{DataSource, TransportSocket, data_source::Specifier};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig,
    certificate_validation_context::TrustChainVerification,
    common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
    tls_parameters::{CompliancePolicy, TlsProtocol},
};
use mesh_api::Name;

use super::bool_value;
use super::cluster::tls::{TLS_SOCKET, subject_names};
use super::cluster::{Compliance, Defaults, transport_socket};

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
pub(super) fn own_or_mesh<T: ToString>(own: &[T], mesh: &[Name]) -> Vec<String> {
    if own.is_empty() { texts(mesh) } else { own.iter().map(T::to_string).collect() }
}

pub(super) fn texts(names: &[Name]) -> Vec<String> {
    names.iter().map(Name::to_string).collect()
}

/// Suites with forward secrecy and AES-GCM, which every policy has left.
const APPROVED: [&str; 4] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
];

/// Limits TLS to what a policy allows, whatever was asked for.
pub(super) fn comply(policy: Compliance, common: &mut CommonTlsContext) {
    if policy == Compliance::None {
        return;
    }
    let parameters = common.tls_params.get_or_insert_default();
    match policy {
        Compliance::None => {}
        Compliance::Fips140v2 => {
            parameters.tls_minimum_protocol_version = TlsProtocol::TlSv12.into();
            parameters.tls_maximum_protocol_version = TlsProtocol::TlSv12.into();
            parameters.cipher_suites.retain(|suite| APPROVED.contains(&suite.as_str()));
            parameters.ecdh_curves.clear();
        }
        Compliance::Fips140v3 => parameters.compliance_policies = vec![CompliancePolicy::Fips202205.into()],
        Compliance::PostQuantum => {
            parameters.tls_minimum_protocol_version = TlsProtocol::TlSv13.into();
            parameters.cipher_suites = APPROVED.map(str::to_owned).into();
            parameters.ecdh_curves = vec!["X25519MLKEM768".to_owned()];
        }
    }
}

/// The transport socket of a server.
pub(super) fn downstream(
    mut common: CommonTlsContext,
    requires_client_certificate: bool,
    defaults: &Defaults,
) -> TransportSocket {
    comply(defaults.compliance, &mut common);
    let context = DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: bool_value(requires_client_certificate),
        ..DownstreamTlsContext::default()
    };
    transport_socket(TLS_SOCKET, &context)
}

#[cfg(test)]
mod tests;
