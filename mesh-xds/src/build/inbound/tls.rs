//! TLS that ends at a sidecar: the mesh's, and that of a user's Sidecar.

use envoy_types::pb::envoy::config::core::v3::TransportSocket;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, SdsSecretConfig, SubjectAltNameMatcher, TlsParameters,
    subject_alt_name_matcher::SanType, tls_parameters::TlsProtocol as Version,
};
use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
use mesh_api::Name;
use mesh_api::networking::{ServerTlsMode, ServerTlsSettings, TlsProtocol};

use crate::build::cluster::tls::credential_secret;
use crate::build::cluster::{Defaults, FileSource, Traits, file_secret, mesh_secret};
use crate::build::tls::{Checks, alpn, combined, downstream, own_or_mesh, texts};
use crate::class::Server;
use crate::model::Settings;

/// What mesh mTLS may be encrypted with where the mesh says nothing else.
const CIPHERS: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];

/// Mesh mTLS: both sides show certificates of a trust domain of ours.
pub(super) fn mesh(settings: &Settings, defaults: &Defaults, server: &Server) -> TransportSocket {
    let of_mesh = &defaults.mesh_tls;
    let suites = texts(&of_mesh.cipher_suites);
    let trusted = if settings.features.flag("PILOT_SKIP_VALIDATE_TRUST_DOMAIN", false) {
        Vec::new()
    } else {
        let aliases = settings.mesh.trust_domain_aliases.iter().map(String::as_str);
        let domains = std::iter::once(settings.trust_domain()).chain(aliases);
        domains.filter(|domain| !domain.is_empty()).map(trust_domain).collect()
    };
    let validation = CertificateValidationContext { match_typed_subject_alt_names: trusted, ..Default::default() };
    let (chain, key) = (server.metadata("TLS_SERVER_CERT_CHAIN"), server.metadata("TLS_SERVER_KEY"));
    let certificate = if chain.is_empty() || key.is_empty() {
        mesh_secret("default")
    } else {
        file_secret(FileSource::KeyPair(chain, key), false)
    };
    let authorities = match server.metadata("TLS_SERVER_ROOT_CERT") {
        "" => mesh_secret("ROOTCA"),
        root => file_secret(FileSource::Root(root), false),
    };
    let common = CommonTlsContext {
        alpn_protocols: alpn(),
        tls_params: Some(TlsParameters {
            cipher_suites: if suites.is_empty() { CIPHERS.map(str::to_owned).into() } else { suites },
            ecdh_curves: texts(&of_mesh.ecdh_curves),
            tls_minimum_protocol_version: if of_mesh.only_13 { Version::TlSv13 } else { Version::TlSv12 } as i32,
            tls_maximum_protocol_version: Version::TlSv13 as i32,
            ..TlsParameters::default()
        }),
        tls_certificate_sds_secret_configs: vec![certificate],
        validation_context_type: Some(combined(validation, authorities)),
        ..CommonTlsContext::default()
    };
    downstream(common, true, defaults)
}

fn trust_domain(domain: &str) -> SubjectAltNameMatcher {
    SubjectAltNameMatcher {
        san_type: SanType::Uri as i32,
        matcher: Some(StringMatcher {
            match_pattern: Some(MatchPattern::Prefix(format!("spiffe://{domain}/"))),
            ..StringMatcher::default()
        }),
        ..SubjectAltNameMatcher::default()
    }
}

/// TLS of a Sidecar's ingress listener.
pub(super) fn user(
    tls: &ServerTlsSettings,
    settings: &Settings,
    defaults: &Defaults,
    server: &Server,
) -> TransportSocket {
    if tls.mode == ServerTlsMode::IstioMutual {
        return mesh(settings, defaults, server);
    }
    let required = tls.mode == ServerTlsMode::Mutual;
    let verifies = required || tls.mode == ServerTlsMode::OptionalMutual;
    let by_name = std::iter::once(&tls.credential_name).chain(&tls.credential_names).filter(|n| !n.is_empty());
    let credentials: Vec<&String> = by_name.collect();
    let traits = Traits::default();
    let certificates: Vec<SdsSecretConfig> = if !credentials.is_empty() {
        credentials.iter().map(|name| credential_secret(name, false, &traits)).collect()
    } else if !tls.tls_certificates.is_empty() {
        let files = tls.tls_certificates.iter().map(|c| FileSource::KeyPair(&c.server_certificate, &c.private_key));
        files.map(|file| file_secret(file, false)).collect()
    } else if tls.server_certificate.is_empty() {
        vec![mesh_secret("default")]
    } else {
        vec![file_secret(FileSource::KeyPair(&tls.server_certificate, &tls.private_key), false)]
    };
    let authorities = match (credentials.first(), tls.ca_cert_credential_name.as_str(), tls.ca_certificates.as_str()) {
        (Some(_), name, _) if !name.is_empty() => credential_secret(name, false, &traits),
        (Some(name), _, _) => credential_secret(name, true, &traits),
        (None, _, "") => mesh_secret("ROOTCA"),
        (None, _, file) => file_secret(FileSource::Root(file), false),
    };
    let names: Vec<Name> = tls.subject_alt_names.iter().map(|name| Name::from(name.as_str())).collect();
    let checks = Checks {
        subject_alt_names: &names,
        spki: tls.verify_certificate_spki.clone(),
        hashes: tls.verify_certificate_hash.clone(),
        revoked: &tls.ca_crl,
        accept_untrusted: tls.insecure_skip_verify == Some(true),
    };
    let at_least = match tls.min_protocol_version {
        TlsProtocol::TlsAuto if defaults.tls.only_13 => TlsProtocol::TlsV1_3,
        own => own,
    };
    let common = CommonTlsContext {
        alpn_protocols: alpn(),
        tls_params: Some(TlsParameters {
            tls_minimum_protocol_version: version(at_least) as i32,
            tls_maximum_protocol_version: version(tls.max_protocol_version) as i32,
            cipher_suites: own_or_mesh(&tls.cipher_suites, &defaults.tls.cipher_suites),
            ecdh_curves: own_or_mesh(&tls.ecdh_curves, &defaults.tls.ecdh_curves),
            ..TlsParameters::default()
        }),
        tls_certificate_sds_secret_configs: certificates,
        validation_context_type: verifies.then(|| checks.with(authorities)),
        ..CommonTlsContext::default()
    };
    downstream(common, required, defaults)
}

fn version(version: TlsProtocol) -> Version {
    match version {
        TlsProtocol::TlsAuto => Version::TlsAuto,
        TlsProtocol::TlsV1_0 => Version::TlSv10,
        TlsProtocol::TlsV1_1 => Version::TlSv11,
        TlsProtocol::TlsV1_2 => Version::TlSv12,
        TlsProtocol::TlsV1_3 => Version::TlSv13,
    }
}
