//! Names of TLS that Envoy may or may not know. It refuses whole listeners and clusters for one that it doesn't.

use mesh_api::{FieldPath, Name};

use super::Told;

/// The cipher suites that Envoy knows up to TLS 1.2; one that it doesn't would cost the whole listener.
const CIPHER_SUITES: [&str; 18] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-PSK-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-PSK-AES128-CBC-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "ECDHE-PSK-AES256-CBC-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "DES-CBC3-SHA",
];

/// The curves that Envoy knows.
const CURVES: [&str; 6] = ["P-256", "P-384", "P-521", "X25519", "X25519Kyber768Draft00", "X25519MLKEM768"];

/// The cipher suites of a field `cipherSuites` that Envoy knows.
pub(crate) fn cipher_suites(written: &[String], path: &FieldPath, told: &mut Told<'_>) -> Vec<Name> {
    let at = path.field("cipherSuites");
    known(&CIPHER_SUITES, written, |suite, i| {
        told.warning(
            "UnknownCipherSuite",
            at.index(i).as_str(),
            format!("Envoy knows no cipher suite {suite:?}; it is left out"),
        );
    })
}

/// The curves of a field `ecdhCurves` that Envoy knows.
pub(crate) fn curves(written: &[String], path: &FieldPath, told: &mut Told<'_>) -> Vec<Name> {
    let at = path.field("ecdhCurves");
    known(&CURVES, written, |curve, i| {
        told.warning("UnknownCurve", at.index(i).as_str(), format!("Envoy knows no curve {curve:?}; it is left out"));
    })
}

fn known(known: &[&str], written: &[String], mut tell: impl FnMut(&str, usize)) -> Vec<Name> {
    let mut out = Vec::new();
    for (i, name) in written.iter().enumerate() {
        match known.contains(&name.as_str()) {
            true => out.push(name.as_str().into()),
            false => tell(name, i),
        }
    }
    out
}
