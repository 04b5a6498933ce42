//! TLS that ends at a gateway: certificates over SDS, from Secrets, from files, or the mesh's own.

use envoy_types::pb::envoy::config::core::v3::{DataSource, TransportSocket, data_source};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, TlsParameters,
    certificate_validation_context::TrustChainVerification,
    common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
    tls_parameters::TlsProtocol,
};
use mesh_api::Name;
use mesh_api::networking::ServerTlsMode;

use crate::build::bool_value;
use crate::build::cluster::Traits;
use crate::build::cluster::tls::{credential_secret, subject_names};
use crate::build::cluster::{FileSource, credential_name, file_secret, mesh_secret, transport_socket};
use crate::model::Settings;
use crate::model::gateway::{Authorities, Certificate, Server, ServerTls};

/// The transport socket of a server; `None` where no TLS ends.
pub(super) fn downstream(server: &Server, settings: &Settings) -> Option<TransportSocket> {
    let tls = server.tls.as_ref()?;
    let requires = matches!(tls.mode, ServerTlsMode::Mutual | ServerTlsMode::IstioMutual);
    let context = DownstreamTlsContext {
        common_tls_context: Some(common(tls, settings)),
        require_client_certificate: bool_value(requires),
        ..DownstreamTlsContext::default()
    };
    Some(transport_socket("envoy.transport_sockets.tls", &context))
}

fn common(tls: &ServerTls, settings: &Settings) -> CommonTlsContext {
    let mut out = CommonTlsContext {
        alpn_protocols: vec!["h2".to_owned(), "http/1.1".to_owned()],
        ..CommonTlsContext::default()
    };
    if tls.mode == ServerTlsMode::IstioMutual {
        out.tls_certificate_sds_secret_configs = vec![mesh_secret("default")];
        out.validation_context_type = Some(validation(tls, mesh_secret("ROOTCA")));
    } else {
        out.tls_certificate_sds_secret_configs = tls.certificates.iter().map(certificate).collect();
        out.validation_context_type = tls.authorities.as_ref().map(|from| validation(tls, authorities(from)));
        out.tls_params = parameters(tls, settings);
    }
    out
}

fn certificate(from: &Certificate) -> SdsSecretConfig {
    match from {
        Certificate::Credential(name) => credential_secret(name, false, &Traits::default()),
        Certificate::Files { chain, key } => file_secret(FileSource::KeyPair(chain, key), false),
    }
}

fn authorities(from: &Authorities) -> SdsSecretConfig {
    match from {
        // The suffix is part of the name by now, and belongs to the mesh's own authorities too.
        Authorities::Credential(name) if name.starts_with("builtin://") => mesh_secret("ROOTCA"),
        Authorities::Credential(name) => credential_secret(name, false, &Traits::default()),
        Authorities::File(file) => file_secret(FileSource::Root(file), false),
    }
}

fn validation(tls: &ServerTls, authorities: SdsSecretConfig) -> ValidationContextType {
    let texts = |names: &[Name]| names.iter().map(Name::to_string).collect();
    let trust = if tls.accept_untrusted {
        TrustChainVerification::AcceptUntrusted
    } else {
        TrustChainVerification::VerifyTrustChain
    };
    let revoked = (!tls.revoked.is_empty()).then(|| DataSource {
        specifier: Some(data_source::Specifier::Filename(tls.revoked.to_string())),
        ..DataSource::default()
    });
    ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(CertificateValidationContext {
            match_typed_subject_alt_names: subject_names(&tls.subject_alt_names),
            verify_certificate_spki: texts(&tls.verify_spki),
            verify_certificate_hash: texts(&tls.verify_hash),
            trust_chain_verification: trust.into(),
            crl: revoked,
            ..CertificateValidationContext::default()
        }),
        validation_context_sds_secret_config: Some(authorities),
        ..CombinedCertificateValidationContext::default()
    })
}

/// Versions, suites and curves: the server's, else the mesh's for TLS outside the mesh, else Envoy's.
fn parameters(tls: &ServerTls, settings: &Settings) -> Option<TlsParameters> {
    let defaults = settings.mesh.tls_defaults.as_ref();
    let or = |own: &[Name], mesh: Option<&Vec<String>>| -> Vec<String> {
        if own.is_empty() { mesh.cloned().unwrap_or_default() } else { own.iter().map(Name::to_string).collect() }
    };
    let version = |version: u8| match version {
        10 => TlsProtocol::TlSv10,
        11 => TlsProtocol::TlSv11,
        12 => TlsProtocol::TlSv12,
        13 => TlsProtocol::TlSv13,
        _ => TlsProtocol::TlsAuto,
    };
    let out = TlsParameters {
        tls_minimum_protocol_version: version(tls.min_version).into(),
        tls_maximum_protocol_version: version(tls.max_version).into(),
        cipher_suites: or(&tls.cipher_suites, defaults.map(|d| &d.cipher_suites)),
        ecdh_curves: or(&tls.ecdh_curves, defaults.map(|d| &d.ecdh_curves)),
        ..TlsParameters::default()
    };
    (out != TlsParameters::default()).then_some(out)
}

/// The names of the secrets that a server's TLS asks the control plane for.
pub(super) fn secret_names(tls: &ServerTls) -> Vec<String> {
    let mut out = Vec::new();
    for certificate in &tls.certificates {
        if let Certificate::Credential(name) = certificate {
            out.push(credential_name(name));
        }
    }
    if let Some(Authorities::Credential(name)) = &tls.authorities {
        out.push(credential_name(name));
    }
    out
}
