//! Gateways. A server that can't be used as written is left out as a whole and named; the others stay in force.

use std::sync::Arc;

use mesh_api::networking::{self, ServerTlsMode, ServerTlsSettings, TlsProtocol};
use mesh_api::{Diagnostic, FieldPath, Hostname, Name, ObjectRef};

use super::tls::{cipher_suites, curves};
use super::{Lowered, Told, created};
use crate::model::Protocol;
use crate::model::gateway::{Authorities, Certificate, Gateway, Server, ServerHost, ServerTls};
use crate::model::service::labels;
use crate::snapshot::Row;

/// Names the Services whose ports a Gateway means, instead of a selector.
const GATEWAY_SERVICE: &str = "internal.istio.io/gateway-service";

/// Lowers a Gateway.
pub(crate) fn gateway(object: &networking::Gateway) -> Lowered {
    let (row, diagnostics) = lower(object);
    (vec![Row::Gateway(row.key(), Arc::new(row))], diagnostics).into()
}

fn lower(object: &networking::Gateway) -> (Gateway, Vec<Diagnostic>) {
    let metadata = &object.metadata;
    let source = ObjectRef::new(
        "Gateway",
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    );
    let mut lower = Lower { namespace: &source.namespace, told: Told::about(&source), usable: true };
    let services = metadata.annotations.as_ref().and_then(|a| a.get(GATEWAY_SERVICE));
    let servers = object.spec.servers.iter().enumerate().filter_map(|(i, s)| lower.server(i, s)).collect();
    let row = Gateway {
        namespace: source.namespace.clone(),
        name: source.name.clone(),
        created: created(metadata),
        selector: labels(Some(&object.spec.selector)),
        services: services.map(|list| list.split(',').map(Hostname::from).collect()),
        servers,
    };
    (row, lower.told.diagnostics)
}

/// One object on its way. `usable` is that of the server in hand.
struct Lower<'o> {
    namespace: &'o Name,
    told: Told<'o>,
    usable: bool,
}

impl Lower<'_> {
    /// The server in hand can't be used.
    fn wrong(&mut self, code: &'static str, path: String, message: impl AsRef<str>) {
        self.usable = false;
        self.told.error(code, path, format!("{}; the server is left out", message.as_ref()));
    }

    fn server(&mut self, index: usize, written: &networking::Server) -> Option<Server> {
        self.usable = true;
        let path = format!("spec.servers[{index}]");
        let port = u16::try_from(written.port.number).unwrap_or_default();
        if port == 0 {
            let message = format!("port {} is not within 1..65535", written.port.number);
            self.wrong("InvalidPort", format!("{path}.port.number"), message);
        }
        let protocol = Protocol::parse(&written.port.protocol);
        if matches!(protocol, Protocol::Unsupported | Protocol::Udp) {
            let message = format!("{:?} is no protocol of a gateway", written.port.protocol);
            self.wrong("InvalidProtocol", format!("{path}.port.protocol"), message);
        }
        if !written.bind.is_empty() && written.bind.parse::<std::net::IpAddr>().is_err() {
            self.wrong("InvalidAddress", format!("{path}.bind"), format!("{:?} is no IP address", written.bind));
        }
        if !written.default_endpoint.is_empty() {
            self.told.unsupported(format!("{path}.defaultEndpoint"), "endpoints are those of routes, in Istio too");
        }
        if written.port.target_port != 0 {
            self.told.unsupported(format!("{path}.port.targetPort"), "the Service in front of the gateway says it");
        }
        if protocol.is_tls() && written.tls.is_none() {
            let message = format!("{} needs tls", written.port.protocol);
            self.wrong("NoTls", format!("{path}.tls"), message);
        }
        let hosts = self.hosts(&written.hosts, &format!("{path}.hosts"));
        let tls = written.tls.as_ref().map(|tls| self.tls(tls, protocol, &format!("{path}.tls")));
        self.usable.then(|| Server {
            index,
            name: written.name.as_str().into(),
            port,
            port_name: written.port.name.as_str().into(),
            protocol,
            bind: written.bind.as_str().into(),
            hosts,
            tls,
        })
    }

    /// `host`, `namespace/host`, `./host` or `*/host`.
    fn hosts(&mut self, written: &[String], path: &str) -> Vec<ServerHost> {
        if written.is_empty() {
            self.wrong("NoHosts", path.to_owned(), "a server needs hosts; * means all");
        }
        let mut out: Vec<ServerHost> = Vec::with_capacity(written.len());
        for (i, text) in written.iter().enumerate() {
            let (namespace, host) = match text.split_once('/') {
                None | Some(("*", _)) => (None, text.rsplit('/').next().unwrap_or_default()),
                Some((".", host)) => (Some(self.namespace.clone()), host),
                Some((namespace, host)) => (Some(Name::from(namespace)), host),
            };
            let rest = host.strip_prefix("*.").unwrap_or(host);
            if host != "*" && (rest.is_empty() || rest.contains(['*', '/'])) {
                let message = format!("{text:?} is no host: write a name, `*.example.com` or `*`");
                self.wrong("InvalidHost", format!("{path}[{i}]"), message);
            }
            let host = ServerHost { namespace, host: host.into() };
            if !out.contains(&host) {
                out.push(host);
            }
        }
        out
    }

    fn tls(&mut self, written: &ServerTlsSettings, protocol: Protocol, path: &str) -> ServerTls {
        let mode = written.mode;
        let mut out = ServerTls { https_redirect: written.https_redirect, mode, ..ServerTls::default() };
        let passthrough = matches!(mode, ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough);
        if !protocol.is_tls() {
            if !(protocol.is_http() && passthrough) {
                let message = format!("{protocol} in plaintext has no TLS settings but httpsRedirect");
                self.wrong("ConflictingFields", path.to_owned(), message);
            }
            return out;
        }
        let has_certificate = !written.credential_name.is_empty()
            || !written.credential_names.is_empty()
            || !written.server_certificate.is_empty()
            || !written.private_key.is_empty()
            || !written.tls_certificates.is_empty();
        if passthrough || mode == ServerTlsMode::IstioMutual {
            if has_certificate {
                let message = "this mode uses no certificates of its own; those named have no effect";
                self.told.warning("ConflictingFields", path, message);
            }
        } else {
            self.certificates(written, path, &mut out);
        }
        let asks_clients = matches!(mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual);
        if asks_clients {
            out.authorities = self.authorities(written, path);
        }
        if asks_clients || mode == ServerTlsMode::IstioMutual {
            out.subject_alt_names = written.subject_alt_names.iter().map(|n| Name::from(n.as_str())).collect();
            out.accept_untrusted = written.insecure_skip_verify.unwrap_or(false);
            out.revoked = written.ca_crl.as_str().into();
            self.pins(written, path, &mut out);
        } else if !written.subject_alt_names.is_empty() {
            self.told.unsupported(format!("{path}.subjectAltNames"), "in this mode clients show no certificates");
        }
        self.parameters(written, path, &mut out);
        out
    }

    fn certificates(&mut self, written: &ServerTlsSettings, path: &str, out: &mut ServerTls) {
        let credential = |name: &String| Certificate::Credential(name.as_str().into());
        if !written.credential_names.is_empty() {
            out.certificates = written.credential_names.iter().map(credential).collect();
        } else if !written.credential_name.is_empty() {
            out.certificates = vec![credential(&written.credential_name)];
        } else {
            let single = (&written.server_certificate, &written.private_key);
            let several = written.tls_certificates.iter().map(|c| (&c.server_certificate, &c.private_key));
            let files: Vec<_> = if written.tls_certificates.is_empty() { vec![single] } else { several.collect() };
            if files.iter().any(|(chain, key)| chain.is_empty() || key.is_empty()) {
                let message = "this mode needs credentialName, or serverCertificate and privateKey";
                self.wrong("NoCertificate", path.to_owned(), message);
            }
            let files = |(chain, key): (&String, &String)| Certificate::Files {
                chain: chain.as_str().into(),
                key: key.as_str().into(),
            };
            out.certificates = match written.tls_certificates.as_slice() {
                [] => vec![files(single)],
                several => several.iter().map(|c| files((&c.server_certificate, &c.private_key))).collect(),
            };
        }
    }

    fn authorities(&mut self, written: &ServerTlsSettings, path: &str) -> Option<Authorities> {
        let beside = written.credential_names.first().unwrap_or(&written.credential_name);
        if !written.ca_cert_credential_name.is_empty() {
            Some(Authorities::Credential(written.ca_cert_credential_name.as_str().into()))
        } else if !beside.is_empty() {
            Some(Authorities::Credential(format!("{beside}-cacert").into()))
        } else {
            let listed = written.tls_certificates.iter().map(|c| &c.ca_certificates);
            match std::iter::once(&written.ca_certificates).chain(listed).find(|file| !file.is_empty()) {
                Some(file) => Some(Authorities::File(file.as_str().into())),
                None => {
                    self.wrong(
                        "NoAuthorities",
                        format!("{path}.caCertificates"),
                        "clients are asked for certificates, but by whom these must be signed is not said",
                    );
                    None
                }
            }
        }
    }

    /// Fingerprints of the only acceptable certificates; Envoy refuses those of another length.
    fn pins(&mut self, written: &ServerTlsSettings, path: &str, out: &mut ServerTls) {
        for (i, spki) in written.verify_certificate_spki.iter().enumerate() {
            if spki.len() != 44 {
                let path = format!("{path}.verifyCertificateSpki[{i}]");
                self.wrong("InvalidHash", path, "a SHA-256 in base64 has 44 characters");
            }
            out.verify_spki.push(spki.as_str().into());
        }
        for (i, hash) in written.verify_certificate_hash.iter().enumerate() {
            if hash.chars().filter(char::is_ascii_hexdigit).count() != 64 || !matches!(hash.len(), 64 | 95) {
                let path = format!("{path}.verifyCertificateHash[{i}]");
                self.wrong("InvalidHash", path, "a SHA-256 in hexadecimal has 64 digits");
            }
            out.verify_hash.push(hash.as_str().into());
        }
    }

    fn parameters(&mut self, written: &ServerTlsSettings, path: &str, out: &mut ServerTls) {
        out.min_version = version(written.min_protocol_version);
        out.max_version = version(written.max_protocol_version);
        if out.max_version != 0 && out.min_version > out.max_version {
            let message = "the lowest version is above the highest one";
            self.wrong("ConflictingFields", format!("{path}.minProtocolVersion"), message);
        }
        let path = FieldPath::new(path);
        out.cipher_suites = cipher_suites(&written.cipher_suites, &path, &mut self.told);
        out.ecdh_curves = curves(&written.ecdh_curves, &path, &mut self.told);
    }
}

fn version(written: TlsProtocol) -> u8 {
    match written {
        TlsProtocol::TlsAuto => 0,
        TlsProtocol::TlsV1_0 => 10,
        TlsProtocol::TlsV1_1 => 11,
        TlsProtocol::TlsV1_2 => 12,
        TlsProtocol::TlsV1_3 => 13,
    }
}

#[cfg(test)]
mod tests;
