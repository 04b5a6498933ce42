//! TLS that ends at a gateway: certificates over SDS, from Secrets, from files, or the mesh's own.

use envoy_types::pb::envoy::config::core::v3::TransportSocket;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CommonTlsContext, SdsSecretConfig, TlsParameters, common_tls_context::ValidationContextType,
    tls_parameters::TlsProtocol,
};
use mesh_api::Name;
use mesh_api::networking::ServerTlsMode;

use crate::build::cluster::Traits;
use crate::build::cluster::tls::credential_secret;
use crate::build::cluster::{Defaults, FileSource, TlsDefaults, credential_name, file_secret, mesh_secret};
use crate::build::tls::{Checks, alpn, downstream as socket, own_or_mesh};
use crate::model::gateway::{Authorities, Certificate, Server, ServerTls};

/// The transport socket of a server; `None` where no TLS ends.
pub(super) fn downstream(server: &Server, defaults: &Defaults) -> Option<TransportSocket> {
    let tls = server.tls.as_ref()?;
    let requires = matches!(tls.mode, ServerTlsMode::Mutual | ServerTlsMode::IstioMutual);
    Some(socket(common(tls, defaults), requires, defaults))
}

fn common(tls: &ServerTls, defaults: &Defaults) -> CommonTlsContext {
    let mut out = CommonTlsContext { alpn_protocols: alpn(), ..CommonTlsContext::default() };
    if tls.mode == ServerTlsMode::IstioMutual {
        out.tls_certificate_sds_secret_configs = vec![mesh_secret("default")];
        out.validation_context_type = Some(validation(tls, mesh_secret("ROOTCA")));
    } else {
        out.tls_certificate_sds_secret_configs = tls.certificates.iter().map(certificate).collect();
        out.validation_context_type = tls.authorities.as_ref().map(|from| validation(tls, authorities(from)));
        out.tls_params = parameters(tls, &defaults.tls);
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
    let checks = Checks {
        subject_alt_names: &tls.subject_alt_names,
        spki: texts(&tls.verify_spki),
        hashes: texts(&tls.verify_hash),
        revoked: &tls.revoked,
        accept_untrusted: tls.accept_untrusted,
    };
    checks.with(authorities)
}

/// Versions, suites and curves; `None` where all are Envoy's own.
fn parameters(tls: &ServerTls, of_mesh: &TlsDefaults) -> Option<TlsParameters> {
    let version = |version: u8| match version {
        10 => TlsProtocol::TlSv10,
        11 => TlsProtocol::TlSv11,
        12 => TlsProtocol::TlSv12,
        13 => TlsProtocol::TlSv13,
        _ => TlsProtocol::TlsAuto,
    };
    let at_least = if tls.min_version == 0 && of_mesh.only_13 { 13 } else { tls.min_version };
    let out = TlsParameters {
        tls_minimum_protocol_version: version(at_least).into(),
        tls_maximum_protocol_version: version(tls.max_version).into(),
        cipher_suites: own_or_mesh(&tls.cipher_suites, &of_mesh.cipher_suites),
        ecdh_curves: own_or_mesh(&tls.ecdh_curves, &of_mesh.ecdh_curves),
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
