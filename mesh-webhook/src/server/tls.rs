//! The certificate that the server shows, which whoever issues it may replace at any time.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;

/// A certificate that can't be served. The fault is of whoever wrote the files or the Secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// The chain can't be read.
    #[error("the chain of certificates is no PEM: {0}")]
    Chain(#[source] rustls_pki_types::pem::Error),
    /// The chain is empty.
    #[error("there is no certificate in the chain; write BEGIN CERTIFICATE, the serving one first")]
    Empty,
    /// The key can't be read.
    #[error("the key is no private key in PEM: {0}")]
    Key(#[source] rustls_pki_types::pem::Error),
    /// Both can be read but not used.
    #[error("the certificate and its key can't be used together: {0}")]
    Unusable(#[source] rustls::Error),
}

/// A certificate with its chain and its key, ready to be served.
#[derive(Clone, Debug)]
pub struct ServingCertificate(Arc<CertifiedKey>);

impl ServingCertificate {
    /// Reads a chain, the serving certificate first, and the key that belongs to it.
    ///
    /// # Errors
    /// When one of them can't be read, or they don't belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain: Vec<_> =
            CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(CertificateError::Chain)?;
        if chain.is_empty() {
            return Err(CertificateError::Empty);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(CertificateError::Key)?;
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(CertificateError::Unusable)?;
        Ok(Self(Arc::new(certified)))
    }
}

/// The newest certificate of a channel.
#[derive(Debug)]
struct Newest(watch::Receiver<Option<ServingCertificate>>);

impl ResolvesServerCert for Newest {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.borrow().as_ref().map(|certificate| certificate.0.clone())
    }
}

fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

pub(super) fn config(certificate: watch::Receiver<Option<ServingCertificate>>) -> Result<ServerConfig, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Newest(certificate)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_served_is_told() {
        let [one, two] = [
            (include_str!("../../benches/shared/one.crt.pem"), include_str!("../../benches/shared/one.key.pem")),
            (include_str!("../../benches/shared/two.crt.pem"), include_str!("../../benches/shared/two.key.pem")),
        ];
        for (chain, key, told) in [
            (one.0, one.1, ""),
            ("", one.1, "there is no certificate in the chain"),
            (one.1, one.1, "there is no certificate in the chain"),
            (one.0, "", "the key is no private key"),
            (one.0, two.1, "can't be used together"),
        ] {
            let read = ServingCertificate::from_pem(chain.as_bytes(), key.as_bytes());
            let error = read.err().map(|error| error.to_string()).unwrap_or_default();
            assert_eq!(error.is_empty(), told.is_empty(), "{error}");
            assert!(error.contains(told), "{error}");
        }
    }
}
