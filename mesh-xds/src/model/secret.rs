//! Certificates and keys that gateways serve, from Secrets, and authorities from Secrets and ConfigMaps.
//!
//! Rows hold private keys, so nothing of them is ever shown: not in debug output, not in diagnostics.

use std::fmt;

/// What a Secret or ConfigMap has for TLS; PEM as written, empty where there is none.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct TlsSecret {
    /// The chain, the server's own certificate first.
    pub chain: Vec<u8>,
    /// Its private key.
    pub key: Vec<u8>,
    /// A stapled OCSP answer, in DER.
    pub staple: Vec<u8>,
    /// Authorities to check others by.
    pub authorities: Vec<u8>,
    /// Revoked certificates.
    pub revoked: Vec<u8>,
}

impl TlsSecret {
    /// True when it has a certificate and its key.
    pub fn has_certificate(&self) -> bool {
        !self.chain.is_empty() && !self.key.is_empty()
    }
}

impl fmt::Debug for TlsSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has = |part: &[u8]| !part.is_empty();
        f.debug_struct("TlsSecret")
            .field("certificate", &self.has_certificate())
            .field("authorities", &has(&self.authorities))
            .finish_non_exhaustive()
    }
}
