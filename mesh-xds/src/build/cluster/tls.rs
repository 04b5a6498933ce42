//! TLS towards endpoints: what a rule asks for, mesh mTLS where both sides can, and where secrets come from.

use envoy_types::pb::envoy::config::cluster::v3::cluster::TransportSocketMatch;
use envoy_types::pb::envoy::config::core::v3::{
    AggregatedConfigSource, ApiConfigSource, ApiVersion, ConfigSource, DataSource, GrpcService, ProxyProtocolConfig,
    TransportSocket,
    api_config_source::ApiType,
    config_source::ConfigSourceSpecifier,
    data_source::Specifier,
    grpc_service::{EnvoyGrpc, TargetSpecifier},
    proxy_protocol_config::Version,
    transport_socket::ConfigType,
};
use envoy_types::pb::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use envoy_types::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, SdsSecretConfig, SubjectAltNameMatcher, TlsParameters,
    UpstreamTlsContext, common_tls_context::ValidationContextType, subject_alt_name_matcher::SanType,
    tls_parameters::TlsProtocol,
};
use envoy_types::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
use mesh_api::Name;
use mesh_api::types::Duration;

use super::{Defaults, Discovery, Draft, Outbound, Traits, metadata, wire};
use crate::build::pack;
use crate::build::tls::{combined, comply, texts};
use crate::model::Registry;
use crate::model::destination_rule::{ClientTls, ProxyProtocol, TlsMode};
use crate::model::peer_authentication::MtlsMode;
use crate::proxy::ProxyType;

/// The name of the TLS transport socket.
pub(crate) const TLS_SOCKET: &str = "envoy.transport_sockets.tls";
/// The name of the match for endpoints that terminate mesh mTLS.
pub(super) const MESH_MTLS_MATCH: &str = "tlsMode-istio";

/// The name of the resource for a `credentialName`: `kubernetes://name` where it doesn't say where it is.
pub fn credential_name(name: &str) -> String {
    let said = ["kubernetes://", "configmap://", "kubernetes-gateway://"].iter().any(|scheme| name.starts_with(scheme));
    if name.starts_with("builtin://") {
        "default".to_owned()
    } else if said {
        name.to_owned()
    } else {
        format!("kubernetes://{}", name.strip_prefix("sds://").unwrap_or(name))
    }
}

/// "From the ADS stream".
pub(crate) fn ads(initial_fetch_timeout: Option<Duration>) -> ConfigSource {
    ConfigSource {
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        initial_fetch_timeout: initial_fetch_timeout.map(wire::duration),
        resource_api_version: ApiVersion::V3 as i32,
        ..ConfigSource::default()
    }
}

/// From a gRPC server that the bootstrap names: the agent, or another one beside the proxy.
fn sds_server(cluster: &str, wait: bool) -> ConfigSource {
    let server = TargetSpecifier::EnvoyGrpc(EnvoyGrpc { cluster_name: cluster.to_owned(), ..EnvoyGrpc::default() });
    let api = ApiConfigSource {
        api_type: ApiType::Grpc as i32,
        transport_api_version: ApiVersion::V3 as i32,
        set_node_on_first_message_only: true,
        grpc_services: vec![GrpcService { target_specifier: Some(server), ..GrpcService::default() }],
        ..ApiConfigSource::default()
    };
    ConfigSource {
        config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(api)),
        initial_fetch_timeout: wait.then(|| wire::duration(Duration::ZERO)),
        resource_api_version: ApiVersion::V3 as i32,
        ..ConfigSource::default()
    }
}

/// A secret that the agent serves: `default` and `ROOTCA` are the mesh's, which a connection has to wait for.
pub(crate) fn mesh_secret(name: &str) -> SdsSecretConfig {
    let wait = matches!(name, "default" | "ROOTCA");
    SdsSecretConfig { name: name.to_owned(), sds_config: Some(sds_server("sds-grpc", wait)) }
}

/// Files in the proxy's container, served as secrets so that they can be rotated.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FileSource<'a> {
    /// A certificate chain and its key.
    KeyPair(&'a str, &'a str),
    /// Authorities.
    Root(&'a str),
}

/// The secret for files in the proxy's container.
pub(crate) fn file_secret(file: FileSource<'_>, own_server: bool) -> SdsSecretConfig {
    let name = match file {
        FileSource::KeyPair(certificate, key) => format!("file-cert:{certificate}~{key}"),
        FileSource::Root(root) => format!("file-root:{root}"),
    };
    let server = if own_server { "sds-files-grpc" } else { "sds-grpc" };
    SdsSecretConfig { name, sds_config: Some(sds_server(server, false)) }
}

/// The secret for a `credentialName`.
pub(crate) fn credential_secret(name: &str, ca: bool, traits: &Traits) -> SdsSecretConfig {
    match (name.starts_with("builtin://"), ca) {
        (true, true) => return mesh_secret("ROOTCA"),
        (true, false) => return mesh_secret("default"),
        _ => {}
    }
    let full = if ca { format!("{name}-cacert") } else { name.to_owned() };
    if name.starts_with("sds://") && traits.credential_socket {
        return SdsSecretConfig { name: full, sds_config: Some(sds_server("sds-external", false)) };
    }
    SdsSecretConfig { name: credential_name(&full), sds_config: Some(ads(None)) }
}

/// A transport socket with its configuration.
pub(crate) fn transport_socket<M: prost::Message + prost::Name>(name: &str, config: &M) -> TransportSocket {
    TransportSocket { name: name.to_owned(), config_type: Some(ConfigType::TypedConfig(pack(config))) }
}

fn plaintext() -> TransportSocket {
    transport_socket("envoy.transport_sockets.raw_buffer", &RawBuffer::default())
}

/// For endpoints that do not terminate mesh mTLS.
pub(super) fn plaintext_match() -> TransportSocketMatch {
    TransportSocketMatch {
        name: "tlsMode-disabled".to_owned(),
        r#match: Some(Default::default()),
        transport_socket: Some(plaintext()),
    }
}

/// TLS 1.2 or newer.
fn parameters() -> TlsParameters {
    TlsParameters {
        tls_minimum_protocol_version: TlsProtocol::TlSv12 as i32,
        tls_maximum_protocol_version: TlsProtocol::TlSv13 as i32,
        ..TlsParameters::default()
    }
}

/// One of these names must be in a certificate. A name's form tells what kind of subject name it is.
pub(crate) fn subject_names(names: &[Name]) -> Vec<SubjectAltNameMatcher> {
    let matcher = |name: &Name| SubjectAltNameMatcher {
        san_type: if name.contains("://") {
            SanType::Uri
        } else if name.parse::<std::net::IpAddr>().is_ok() {
            SanType::IpAddress
        } else if name.contains('@') {
            SanType::Email
        } else {
            SanType::Dns
        } as i32,
        matcher: Some(StringMatcher {
            match_pattern: Some(MatchPattern::Exact(name.to_string())),
            ..StringMatcher::default()
        }),
        ..SubjectAltNameMatcher::default()
    };
    names.iter().map(matcher).collect()
}

impl Outbound<'_> {
    /// True when mesh mTLS is meant where no rule says anything: wherever both sides can.
    pub(super) fn is_auto_mtls(&self) -> bool {
        let accepted = matches!(self.mtls, MtlsMode::Permissive | MtlsMode::Strict);
        self.defaults.auto_mtls && !self.service.mesh_external && accepted
    }
}

impl Draft {
    /// TLS as the rule says, or mesh mTLS where the rule says nothing and both sides can.
    pub(super) fn tls(
        &mut self,
        tls: Option<&ClientTls>,
        outbound: &Outbound<'_>,
        mesh_sni: &str,
        discovery: Discovery,
    ) {
        let traits = outbound.traits;
        if let Some(tls) = tls {
            let socket = match tls.mode {
                TlsMode::Disable => None,
                TlsMode::Simple => self.own_tls(tls, outbound, false),
                _ if traits.client_files.is_some() && !outbound.service.mesh_external => {
                    self.files_tls(&tls.subject_alt_names, &tls.sni, tls.insecure_skip_verify, outbound)
                }
                TlsMode::Mutual => self.own_tls(tls, outbound, true),
                TlsMode::IstioMutual => {
                    let names = if tls.subject_alt_names.is_empty() {
                        outbound.subject_alt_names
                    } else {
                        &tls.subject_alt_names
                    };
                    let sni = if tls.sni.is_empty() && !self.forwards { mesh_sni } else { tls.sni.as_str() };
                    traits.identity.then(|| transport_socket(TLS_SOCKET, &self.mesh_tls(names, sni, outbound.defaults)))
                }
            };
            self.cluster.transport_socket = socket;
            return;
        }
        if !outbound.is_auto_mtls() {
            return;
        }
        let names = outbound.subject_alt_names;
        if traits.client_files.is_some() {
            self.cluster.transport_socket = self.files_tls(names, mesh_sni, false, outbound);
            return;
        }
        if !traits.identity {
            return;
        }
        let socket = transport_socket(TLS_SOCKET, &self.mesh_tls(names, mesh_sni, outbound.defaults));
        if discovery == Discovery::OriginalDst {
            // No endpoint is known that could say what it accepts; the mode was inferred from all of them.
            self.cluster.transport_socket = Some(socket);
            return;
        }
        let mesh = TransportSocketMatch {
            name: MESH_MTLS_MATCH.to_owned(),
            r#match: Some(metadata::mesh_mtls()),
            transport_socket: Some(socket),
        };
        self.cluster.transport_socket_matches = vec![mesh, plaintext_match()];
    }

    /// With certificates of the mesh.
    pub(super) fn mesh_tls(&mut self, names: &[Name], sni: &str, defaults: &Defaults) -> UpstreamTlsContext {
        let alpn: &[&str] = if self.is_http2() { &["istio", "h2"] } else { &["istio"] };
        let validation = CertificateValidationContext {
            match_typed_subject_alt_names: subject_names(names),
            ..CertificateValidationContext::default()
        };
        let mut common = CommonTlsContext {
            // Servers choose the suite; but a curve has to be offered.
            tls_params: Some(TlsParameters { ecdh_curves: texts(&defaults.mesh_tls.ecdh_curves), ..parameters() }),
            tls_certificate_sds_secret_configs: vec![mesh_secret("default")],
            alpn_protocols: alpn.iter().map(|p| (*p).to_owned()).collect(),
            validation_context_type: Some(combined(validation, mesh_secret("ROOTCA"))),
            ..CommonTlsContext::default()
        };
        comply(defaults.compliance, &mut common);
        UpstreamTlsContext {
            sni: if sni.is_empty() && !self.forwards { self.cluster.name.clone() } else { sni.to_owned() },
            common_tls_context: Some(common),
            ..UpstreamTlsContext::default()
        }
    }

    /// With the files that the proxy names in its metadata in place of mesh certificates.
    fn files_tls(
        &mut self,
        names: &[Name],
        sni: &str,
        insecure: bool,
        outbound: &Outbound<'_>,
    ) -> Option<TransportSocket> {
        let (certificate, key, root) = outbound.traits.client_files.clone()?;
        let tls = ClientTls {
            mode: TlsMode::Mutual,
            client_certificate: certificate,
            private_key: key,
            ca_certificates: root,
            subject_alt_names: names.to_vec(),
            sni: sni.into(),
            insecure_skip_verify: insecure,
            ..ClientTls::default()
        };
        self.own_tls(&tls, outbound, true)
    }

    /// With certificates of the user. `None` where they must not or cannot be used.
    fn own_tls(&mut self, tls: &ClientTls, outbound: &Outbound<'_>, mutual: bool) -> Option<TransportSocket> {
        let traits = outbound.traits;
        let credential = tls.credential_name.as_str();
        let selected = outbound.rule.is_some_and(|rule| rule.selector.is_some());
        // A Secret that every sidecar of the mesh would have to wait for, and most must not read.
        let secret = !credential.is_empty() && !credential.starts_with("configmap://");
        if secret && traits.kind == ProxyType::Sidecar && !selected {
            return None;
        }
        let names: &[Name] = if tls.subject_alt_names.is_empty() && outbound.service.registry == Registry::External {
            outbound.subject_alt_names
        } else {
            &tls.subject_alt_names
        };
        let mut validation = CertificateValidationContext {
            match_typed_subject_alt_names: subject_names(names),
            ..CertificateValidationContext::default()
        };
        let mut common = CommonTlsContext { tls_params: Some(parameters()), ..CommonTlsContext::default() };
        if credential.is_empty() {
            if mutual {
                if tls.client_certificate.is_empty() || tls.private_key.is_empty() {
                    return None;
                }
                let pair = FileSource::KeyPair(&tls.client_certificate, &tls.private_key);
                common.tls_certificate_sds_secret_configs = vec![file_secret(pair, traits.file_socket)];
            }
            common.validation_context_type = Some(if tls.insecure_skip_verify {
                ValidationContextType::ValidationContext(CertificateValidationContext::default())
            } else {
                if !tls.ca_crl.is_empty() {
                    let specifier = Some(Specifier::Filename(tls.ca_crl.to_string()));
                    validation.crl = Some(DataSource { specifier, ..DataSource::default() });
                }
                let root = if tls.ca_certificates.is_empty() { "system" } else { &tls.ca_certificates };
                combined(validation, file_secret(FileSource::Root(root), traits.file_socket))
            });
        } else {
            if mutual {
                common.tls_certificate_sds_secret_configs = vec![credential_secret(credential, false, traits)];
            }
            if !tls.insecure_skip_verify {
                let authorities = credential_secret(credential, true, traits);
                common.validation_context_type = Some(combined(validation, authorities));
            }
        }
        let defaults = &outbound.defaults.tls;
        if let Some(parameters) = &mut common.tls_params {
            parameters.cipher_suites = texts(&defaults.cipher_suites);
            parameters.ecdh_curves = texts(&defaults.ecdh_curves);
        }
        if self.is_http2() {
            common.alpn_protocols = vec!["h2".to_owned()];
        }
        comply(outbound.defaults.compliance, &mut common);
        self.names_from_requests(tls);
        let context = UpstreamTlsContext {
            sni: tls.sni.to_string(),
            common_tls_context: Some(common),
            ..UpstreamTlsContext::default()
        };
        Some(transport_socket(TLS_SOCKET, &context))
    }

    /// Without a server name of the user the request's host is the server name, and the certificate must be for it.
    fn names_from_requests(&mut self, tls: &ClientTls) {
        let auto_sni = tls.sni.is_empty();
        let auto_san = !tls.insecure_skip_verify && (self.forwards || (auto_sni && tls.subject_alt_names.is_empty()));
        if auto_sni || auto_san {
            let options = self.upstream_http();
            options.auto_sni = auto_sni;
            options.auto_san_validation = auto_san;
        }
    }

    /// The PROXY protocol header before everything else on the connection.
    pub(super) fn proxy_protocol(&mut self, version: Option<ProxyProtocol>) {
        let Some(version) = version else { return };
        let wrap = |inner: TransportSocket| {
            let version = match version {
                ProxyProtocol::V1 => Version::V1,
                ProxyProtocol::V2 => Version::V2,
            };
            let config = ProxyProtocolUpstreamTransport {
                config: Some(ProxyProtocolConfig { version: version as i32, ..ProxyProtocolConfig::default() }),
                transport_socket: Some(inner),
                ..ProxyProtocolUpstreamTransport::default()
            };
            transport_socket("envoy.transport_sockets.upstream_proxy_protocol", &config)
        };
        if self.cluster.transport_socket_matches.is_empty() {
            let inner = self.cluster.transport_socket.take().unwrap_or_else(plaintext);
            self.cluster.transport_socket = Some(wrap(inner));
        }
        for matched in &mut self.cluster.transport_socket_matches {
            matched.transport_socket = matched.transport_socket.take().map(wrap);
        }
    }
}
