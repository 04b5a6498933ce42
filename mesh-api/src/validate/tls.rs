//! TLS towards services and towards clients: where certificates come from, and what a mode leaves no room for.

use std::collections::BTreeSet;

use super::at::{At, Check};
use crate::networking::{
    ClientTlsMode, ClientTlsSettings, ServerTlsMode, ServerTlsSettings, TlsCertificate, TlsProtocol,
};

/// TLS towards a service. A ConfigMap must be in `namespace`, the object's own.
pub(super) fn client(at: &At<'_>, field: &str, tls: Option<&ClientTlsSettings>, namespace: &str) {
    let Some(tls) = tls else { return };
    let at = at.field(field);
    at.field("credentialName").check("InvalidCredential", config_map(&tls.credential_name, namespace));
    unverified(&at, tls);
    let has_credential = !tls.credential_name.is_empty();
    if has_credential && matches!(tls.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual) {
        let files = [&tls.client_certificate, &tls.ca_certificates, &tls.private_key, &tls.ca_crl];
        at.refuse(
            files.iter().any(|file| !file.is_empty()),
            "ConflictingFields",
            "cannot specify client certificates or CA certificate or CA CRL If credentialName is set; remove either",
        );
    } else if tls.mode == ClientTlsMode::Mutual {
        for (field, words, file) in [
            ("clientCertificate", "client certificate", &tls.client_certificate),
            ("privateKey", "private key", &tls.private_key),
        ] {
            if file.is_empty() {
                let message = format!("{words} required for mutual tls; name its file, or set credentialName");
                at.field(field).error("MissingCertificate", message);
            }
        }
    }
}

fn config_map(credential: &str, own: &str) -> Check {
    let Some(rest) = credential.strip_prefix("configmap://") else { return Ok(()) };
    let mut parts = rest.split('/');
    match (parts.next(), parts.next()) {
        (Some(namespace), Some(name)) if !namespace.is_empty() && !name.is_empty() => {
            if namespace == own {
                Ok(())
            } else {
                Err(format!(
                    "invalid configmap:// credentialName: namespace must match the configuration namespace {own:?}, not {namespace:?}"
                ))
            }
        }
        _ => Err(format!("invalid configmap:// credentialName: {credential:?}; write configmap://{own}/name")),
    }
}

/// Nothing may be said about a certificate that isn't looked at.
fn unverified(at: &At<'_>, tls: &ClientTlsSettings) {
    let ca = !tls.ca_certificates.is_empty();
    let names = !tls.subject_alt_names.is_empty();
    let credential = !tls.credential_name.is_empty();
    let (said, what) = match tls.mode {
        _ if tls.insecure_skip_verify != Some(true) => return,
        ClientTlsMode::Simple => (ca || credential || names, "CaCertificates or CredentialName or SubjectAltNames"),
        // The credential may hold the client's certificate alone.
        ClientTlsMode::Mutual => (ca || names, "CaCertificates or SubjectAltNames"),
        ClientTlsMode::Disable | ClientTlsMode::IstioMutual => return,
    };
    if said {
        let message = format!("cannot specify {what} when InsecureSkipVerify is set true; remove either");
        at.field("insecureSkipVerify").error("ConflictingFields", message);
    }
}

/// TLS towards clients.
pub(super) fn server(at: &At<'_>, tls: &ServerTlsSettings) {
    if matches!(tls.min_protocol_version, TlsProtocol::TlsV1_0 | TlsProtocol::TlsV1_1) && tls.cipher_suites.is_empty() {
        at.field("minProtocolVersion").warning(
            "MissingCiphers",
            "TLS version below TLSV1_2 require setting compatible ciphers as by default they no longer include compatible \
             ciphers; set cipherSuites",
        );
    }
    known_once(at, "cipherSuites", &tls.cipher_suites, ("cipher suites", "ignoring invalid"), is_cipher);
    if tls.mode == ServerTlsMode::IstioMutual {
        return mesh_certificates(at, tls);
    }
    let passes_through = matches!(tls.mode, ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough);
    if passes_through && (!tls.ca_crl.is_empty() || sources(tls).iter().any(|(_, there, _)| *there)) {
        at.warning(
            "NoEffect",
            "this mode does not use certificates, they will be ignored; remove them, or set mode to SIMPLE",
        );
    }
    certificate_source(at, tls);
    let by_credential = !tls.credential_name.is_empty() || !tls.credential_names.is_empty();
    if passes_through {
        revoked(at, tls);
    } else if !by_credential {
        files(at, tls);
        revoked(at, tls);
    }
}

/// All that says where certificates come from: field, whether it is there, words for it.
fn sources(tls: &ServerTlsSettings) -> [(&'static str, bool, &'static str); 6] {
    [
        ("serverCertificate", !tls.server_certificate.is_empty(), "server certificate"),
        ("privateKey", !tls.private_key.is_empty(), "private key"),
        ("caCertificates", !tls.ca_certificates.is_empty(), "CA bundle"),
        ("tlsCertificates", !tls.tls_certificates.is_empty(), "tlsCertificates"),
        ("credentialName", !tls.credential_name.is_empty(), "credentialName"),
        ("credentialNames", !tls.credential_names.is_empty(), "credentialNames"),
    ]
}

/// The mesh's own certificates are used, no others.
fn mesh_certificates(at: &At<'_>, tls: &ServerTlsSettings) {
    for (field, _, what) in sources(tls).iter().filter(|(_, there, _)| *there) {
        let message = format!("ISTIO_MUTUAL TLS cannot have associated {what}; remove it, or set mode to MUTUAL");
        at.field(field).error("ConflictingFields", message);
    }
}

fn certificate_source(at: &At<'_>, tls: &ServerTlsSettings) {
    let ways = [
        !tls.server_certificate.is_empty() && !tls.private_key.is_empty(),
        !tls.credential_name.is_empty(),
        !tls.credential_names.is_empty(),
        !tls.tls_certificates.is_empty(),
    ];
    at.refuse(
        ways.iter().filter(|way| **way).count() > 1,
        "ConflictingFields",
        "only one of credential_name, credential_names, server_certificate/private_key, tls_certificates should be specified",
    );
}

fn files(at: &At<'_>, tls: &ServerTlsSettings) {
    let mode = if tls.mode == ServerTlsMode::Simple { "SIMPLE TLS" } else { "MUTUAL TLS" };
    let need = |at: &At<'_>, field: &str, file: &str, what: &str| {
        if file.is_empty() {
            let message = format!("{mode} requires {what}; name its file, or set credentialName");
            at.field(field).error("MissingCertificate", message);
        }
    };
    if tls.mode != ServerTlsMode::Simple {
        need(at, "caCertificates", &tls.ca_certificates, "a client CA bundle");
    }
    let pair = |at: &At<'_>, certificate: &str, key: &str| {
        need(at, "serverCertificate", certificate, "a server certificate");
        need(at, "privateKey", key, "a private key");
    };
    if tls.tls_certificates.is_empty() {
        return pair(at, &tls.server_certificate, &tls.private_key);
    }
    if tls.tls_certificates.len() > 2 {
        at.field("tlsCertificates")
            .warning("TooMany", format!("{mode} can support up to 2 server certificates; remove the others"));
    }
    at.each("tlsCertificates", &tls.tls_certificates, |at, TlsCertificate { server_certificate, private_key, .. }| {
        pair(at, server_certificate, private_key);
    });
}

fn revoked(at: &At<'_>, tls: &ServerTlsSettings) {
    if tls.ca_crl.is_empty() {
        return;
    }
    let at = at.field("caCrl");
    at.refuse(
        !tls.credential_name.is_empty(),
        "ConflictingFields",
        "CRL is not supported with credentialName. CRL has to be specified in the credential",
    );
    at.refuse(
        tls.mode == ServerTlsMode::Simple,
        "ConflictingFields",
        "CRL is not supported with SIMPLE TLS; remove it",
    );
}

/// Warns of names that aren't known or come twice. `words` are what they are called and what is done with unknown ones.
pub(super) fn known_once(at: &At<'_>, field: &str, list: &[String], words: (&str, &str), known: impl Fn(&str) -> bool) {
    let (what, unknown) = words;
    let (mut once, mut invalid, mut duplicate) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for name in list {
        if !known(name) {
            invalid.insert(name.as_str());
        } else if !once.insert(name.as_str()) {
            duplicate.insert(name.as_str());
        }
    }
    for (sort, names) in [(unknown, invalid), ("ignoring duplicate", duplicate)] {
        if !names.is_empty() {
            let names: Vec<&str> = names.into_iter().collect();
            at.field(field).warning("InvalidName", format!("{sort} {what}: {}; remove them", names.join(", ")));
        }
    }
}

fn is_cipher(name: &str) -> bool {
    const KNOWN: [&str; 16] = [
        "ALL",
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "ECDHE-ECDSA-AES128-SHA",
        "ECDHE-RSA-AES128-SHA",
        "ECDHE-ECDSA-AES256-SHA",
        "ECDHE-RSA-AES256-SHA",
        "AES128-GCM-SHA256",
        "AES256-GCM-SHA384",
        "AES128-SHA",
        "AES256-SHA",
        "DES-CBC3-SHA",
    ];
    // What doesn't begin as a name is an operator of OpenSSL's lists.
    !name.starts_with(|c: char| c.is_ascii_alphanumeric()) || KNOWN.contains(&name)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::networking::{DestinationRule, Gateway};
    use crate::validate::testing::check;

    #[test]
    fn towards_services() {
        let with = |tls: Value| json!({"host": "a", "trafficPolicy": {"tls": tls}});
        check::<DestinationRule>(&[
            (with(json!({"mode": "SIMPLE", "caCertificates": "/ca"})), &[]),
            (with(json!({"mode": "MUTUAL", "clientCertificate": "/c", "privateKey": "/k"})), &[]),
            (
                with(json!({"mode": "MUTUAL"})),
                &["clientCertificate: client certificate required", "privateKey: private key required"],
            ),
            (with(json!({"mode": "MUTUAL", "credentialName": "s"})), &[]),
            (
                with(json!({"mode": "SIMPLE", "credentialName": "s", "caCertificates": "/ca"})),
                &["cannot specify client certificates"],
            ),
            (
                with(json!({"mode": "MUTUAL", "credentialName": "s", "caCrl": "/crl"})),
                &["cannot specify client certificates"],
            ),
            (with(json!({"mode": "SIMPLE", "insecureSkipVerify": true})), &[]),
            (
                with(json!({"mode": "SIMPLE", "insecureSkipVerify": true, "subjectAltNames": ["a"]})),
                &["when InsecureSkipVerify is set true"],
            ),
            (
                with(json!({"mode": "SIMPLE", "insecureSkipVerify": true, "credentialName": "s"})),
                &["when InsecureSkipVerify is set true"],
            ),
            (with(json!({"mode": "MUTUAL", "insecureSkipVerify": true, "credentialName": "s"})), &[]),
            (with(json!({"mode": "SIMPLE", "credentialName": "configmap://bar/ca"})), &[]),
            (with(json!({"mode": "SIMPLE", "credentialName": "configmap://other/ca"})), &["namespace must match"]),
            (
                with(json!({"mode": "SIMPLE", "credentialName": "configmap://ca"})),
                &["invalid configmap:// credentialName"],
            ),
        ]);
    }

    #[test]
    fn towards_clients() {
        let with = |tls: Value| json!({"servers": [{"hosts": ["a.b"], "port": {"number": 443, "name": "https", "protocol": "HTTPS"}, "tls": tls}]});
        let pair = |more: Value| {
            let mut tls = json!({"mode": "SIMPLE", "serverCertificate": "/c", "privateKey": "/k"});
            tls.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            with(tls)
        };
        check::<Gateway>(&[
            (with(json!({})), &[]),
            (pair(json!({})), &[]),
            (with(json!({"mode": "SIMPLE", "credentialName": "s"})), &[]),
            (
                with(json!({"mode": "SIMPLE"})),
                &["serverCertificate: SIMPLE TLS requires a server certificate", "privateKey: SIMPLE TLS"],
            ),
            (pair(json!({"mode": "MUTUAL"})), &["caCertificates: MUTUAL TLS requires a client CA bundle"]),
            (pair(json!({"mode": "OPTIONAL_MUTUAL", "caCertificates": "/ca", "caCrl": "/crl"})), &[]),
            (pair(json!({"caCrl": "/crl"})), &["caCrl: CRL is not supported with SIMPLE TLS"]),
            (pair(json!({"credentialName": "s"})), &["only one of credential_name"]),
            (pair(json!({"minProtocolVersion": "TLSV1_1"})), &["W spec.servers[0].tls.minProtocolVersion"]),
            (pair(json!({"minProtocolVersion": "TLSV1_1", "cipherSuites": ["AES128-SHA", "-ALL"]})), &[]),
            (
                pair(json!({"cipherSuites": ["x", "AES128-SHA", "AES128-SHA"]})),
                &[
                    "W spec.servers[0].tls.cipherSuites: ignoring invalid cipher suites: x",
                    "ignoring duplicate cipher suites: AES128-SHA",
                ],
            ),
            (with(json!({"mode": "ISTIO_MUTUAL"})), &[]),
            (
                with(json!({"mode": "ISTIO_MUTUAL", "credentialName": "s", "privateKey": "/k"})),
                &["associated private key", "associated credentialName"],
            ),
            (
                with(json!({"mode": "PASSTHROUGH", "credentialName": "s"})),
                &["W spec.servers[0].tls: this mode does not use certificates"],
            ),
            (
                with(
                    json!({"mode": "SIMPLE", "tlsCertificates": [{"serverCertificate": "/c", "privateKey": "/k"}, {}]}),
                ),
                &["tlsCertificates[1].serverCertificate", "tlsCertificates[1].privateKey"],
            ),
        ]);
    }
}
