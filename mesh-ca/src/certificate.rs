//! Certificates as we read them: the bytes as they came, and what we want to know of them.

use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use der::Decode;
use der::pem::LineEnding;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage as Purpose, anchor_from_trusted_cert};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, SubjectAltName, SubjectKeyIdentifier};
use x509_cert::name::RdnSequence;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

/// One X.509 certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: CertificateDer<'static>,
    parsed: x509_cert::Certificate,
}

/// Why a text holds no certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// No PEM block of a certificate was found, or one is cut off.
    #[error("no certificates in PEM: expected blocks that begin with -----BEGIN CERTIFICATE----- and end")]
    NotPem,
    /// The block at this place, counted from 1, is no certificate.
    #[error("certificate number {0} is no X.509 certificate in DER")]
    Malformed(usize),
}

impl Certificate {
    /// Reads one certificate.
    ///
    /// # Errors
    /// [`CertificateError::Malformed`].
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let parsed = x509_cert::Certificate::from_der(der).map_err(|_| CertificateError::Malformed(1))?;
        Ok(Self { der: CertificateDer::from(der.to_vec()), parsed })
    }

    /// Reads all certificates of a text, in order; other blocks are passed over.
    ///
    /// # Errors
    /// When there is none, or one cannot be read.
    pub fn all_from_pem(pem: &[u8]) -> Result<Vec<Self>, CertificateError> {
        let blocks: Vec<_> =
            CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|_| CertificateError::NotPem)?;
        if blocks.is_empty() {
            return Err(CertificateError::NotPem);
        }
        let read = |(index, der): (usize, &CertificateDer<'_>)| {
            Self::from_der(der).map_err(|_| CertificateError::Malformed(index + 1))
        };
        blocks.iter().enumerate().map(read).collect()
    }

    /// The certificate in PEM, with a line break at its end.
    pub fn to_pem(&self) -> String {
        // Fails only for lengths beyond what a certificate can have.
        der::pem::encode_string("CERTIFICATE", LineEnding::LF, &self.der).unwrap_or_default()
    }

    /// The certificate in DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// From when on it counts.
    pub fn not_before(&self) -> SystemTime {
        self.parsed.tbs_certificate().validity().not_before.to_system_time()
    }

    /// Until when it counts.
    pub fn not_after(&self) -> SystemTime {
        self.parsed.tbs_certificate().validity().not_after.to_system_time()
    }

    /// True where it may sign certificates.
    pub fn is_authority(&self) -> bool {
        let tbs = self.parsed.tbs_certificate();
        let is_ca = matches!(tbs.get_extension::<BasicConstraints>(), Ok(Some((_, basic))) if basic.ca);
        let may_sign = match tbs.get_extension::<KeyUsage>() {
            Ok(usage) => usage.is_none_or(|(_, usage)| usage.key_cert_sign()),
            Err(_) => false,
        };
        is_ca && may_sign
    }

    /// Its serial number, big-endian.
    pub fn serial(&self) -> &[u8] {
        self.parsed.tbs_certificate().serial_number().as_bytes()
    }

    /// The URIs among its names, such as SPIFFE ids.
    pub fn uris(&self) -> Vec<String> {
        self.names(|name| match name {
            GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str().to_owned()),
            _ => None,
        })
    }

    /// The hosts among its names: DNS names and addresses.
    pub fn hosts(&self) -> Vec<String> {
        self.names(|name| match name {
            GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
            GeneralName::IpAddress(bytes) => address(bytes.as_bytes()).map(|address| address.to_string()),
            _ => None,
        })
    }

    fn names(&self, pick: impl Fn(&GeneralName) -> Option<String>) -> Vec<String> {
        match self.parsed.tbs_certificate().get_extension::<SubjectAltName>() {
            Ok(Some((_, SubjectAltName(names)))) => names.iter().filter_map(pick).collect(),
            _ => Vec::new(),
        }
    }

    /// Who it is of, as RFC 4514 writes names.
    pub fn subject(&self) -> String {
        self.parsed.tbs_certificate().subject().to_string()
    }

    /// Whether it is valid now, as a client's, and one of the roots stands at the end of its chain, as a peer would look at it.
    pub(crate) fn leads_to(&self, roots: &[Self], through: &[Self], now: SystemTime) -> Result<(), webpki::Error> {
        let anchors: Vec<_> = roots.iter().filter_map(|root| anchor_from_trusted_cert(root.der()).ok()).collect();
        let through: Vec<_> = through.iter().map(|certificate| certificate.der().clone()).collect();
        let time = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
        let known = webpki::ALL_VERIFICATION_ALGS;
        let leaf = EndEntityCert::try_from(self.der())?;
        leaf.verify_for_usage(known, &anchors, &through, time, Purpose::client_auth(), None, None).map(|_| ())
    }

    /// True where it is its own issuer.
    pub(crate) fn is_root(&self) -> bool {
        let tbs = self.parsed.tbs_certificate();
        tbs.issuer() == tbs.subject()
    }

    pub(crate) fn subject_name(&self) -> RdnSequence {
        self.parsed.tbs_certificate().subject().clone().into()
    }

    pub(crate) fn public_key(&self) -> &SubjectPublicKeyInfoOwned {
        self.parsed.tbs_certificate().subject_public_key_info()
    }

    /// True where both are of one key and one name: whoever trusts one trusts what the other signs.
    pub(crate) fn is_same_authority(&self, other: &Self) -> bool {
        self.subject_name() == other.subject_name() && self.public_key() == other.public_key()
    }

    /// The key's name in what it signs: as the certificate says, if it does.
    pub(crate) fn key_id(&self) -> Option<Vec<u8>> {
        match self.parsed.tbs_certificate().get_extension::<SubjectKeyIdentifier>() {
            Ok(Some((_, id))) => Some(id.0.as_bytes().to_vec()),
            _ => None,
        }
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}
