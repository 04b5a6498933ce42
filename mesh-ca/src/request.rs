//! Certificate signing requests (PKCS#10): read from callers who may be hostile, and written for ourselves.
//!
//! A request brings a public key and the proof that its sender holds the private one. Nothing else in it has a say: names
//! and extensions are looked at only to refuse who asks for what is not his.

use der::asn1::{AnyRef, Ia5String, OctetString, SetOfVec};
use der::pem::LineEnding;
use der::{Decode, Encode};
use mesh_api::names::SpiffeId;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_cert::attr::Attribute;
use x509_cert::der::oid::AssociatedOid;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, SubjectAltName};
use x509_cert::name::Name;
use x509_cert::request::{CertReqInfo, ExtensionReq};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use crate::key::{KeyError, PrivateKey};
use crate::signed::{Signed, Unverified, is_strong, signed};

/// The longest request that is read, in bytes of PEM or DER: RSA with 8192 bits and many names need a third of it.
pub const MAX_REQUEST: usize = 16 * 1024;

/// A request whose signature was verified.
#[derive(Clone, Debug)]
pub struct Csr {
    public_key: SubjectPublicKeyInfoOwned,
    has_common_name: bool,
    uris: Vec<String>,
    /// A subject, other names than URIs, or other extensions than names.
    asks_for_more: bool,
}

/// Why a request is refused: always its sender's fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CsrError {
    /// Longer than [`MAX_REQUEST`].
    #[error("the request has {0} bytes, more than {MAX_REQUEST}")]
    TooLong(usize),
    /// No PEM block of a request was found.
    #[error("no request in PEM: expected one block CERTIFICATE REQUEST")]
    NotPem,
    /// Not PKCS#10.
    #[error("the request is no PKCS#10 in DER")]
    Malformed,
    /// A key that we do not certify.
    #[error(
        "the key is too weak or of no supported kind; use RSA of 2048 to 8192 bits, ECDSA P-256, P-384 or P-521, or Ed25519"
    )]
    Key,
    /// The sender did not prove that it holds the key.
    #[error("the request's signature is not one of its own key")]
    Signature,
    /// `CA:TRUE`.
    #[error("the request asks for a certificate that may sign others; workloads get none")]
    Authority,
}

impl Csr {
    /// Reads and verifies a request in PEM.
    ///
    /// # Errors
    /// When it must not be signed.
    pub fn from_pem(pem: &[u8]) -> Result<Self, CsrError> {
        if pem.len() > MAX_REQUEST {
            return Err(CsrError::TooLong(pem.len()));
        }
        let der = CertificateSigningRequestDer::from_pem_slice(pem).map_err(|_| CsrError::NotPem)?;
        Self::from_der(&der)
    }

    /// Reads and verifies a request in DER.
    ///
    /// # Errors
    /// When it must not be signed.
    pub fn from_der(der: &[u8]) -> Result<Self, CsrError> {
        if der.len() > MAX_REQUEST {
            return Err(CsrError::TooLong(der.len()));
        }
        let request = Signed::from_der(der).map_err(|_| CsrError::Malformed)?;
        let CertReqInfo { subject, public_key, attributes, .. } =
            request.body.decode_as().map_err(|_| CsrError::Malformed)?;
        if !is_strong(&public_key) {
            return Err(CsrError::Key);
        }
        request.verify(&public_key).map_err(|why| match why {
            Unverified::Malformed => CsrError::Malformed,
            Unverified::Algorithm => CsrError::Key,
            Unverified::Wrong => CsrError::Signature,
        })?;
        let extensions = requested_extensions(attributes.iter())?;
        if asks_to_sign(&extensions)? {
            return Err(CsrError::Authority);
        }
        let has_common_name = matches!(subject.common_name(), Ok(Some(name)) if !name.value().is_empty());
        // Istio's agents write an organization without a name.
        let has_subject = subject.iter().any(|part| !part.value.value().is_empty());
        let has_more_extensions = extensions.iter().any(|extension| extension.extn_id != SubjectAltName::OID);
        let names: Vec<_> = decoded::<SubjectAltName>(&extensions)?.into_iter().flat_map(|names| names.0).collect();
        let uris: Vec<_> = names.iter().filter_map(uri).map(str::to_owned).collect();
        let asks_for_more = has_subject || has_more_extensions || uris.len() < names.len();
        Ok(Self { public_key, has_common_name, asks_for_more, uris })
    }

    /// Writes a request of `key`'s owner in PEM. The name in it is a courtesy: who signs decides.
    ///
    /// # Errors
    /// When the key cannot sign, or the identity is not ASCII.
    pub fn write(key: &PrivateKey, id: Option<&SpiffeId>) -> Result<String, KeyError> {
        let mut attributes = SetOfVec::new();
        if let Some(id) = id {
            let names = vec![GeneralName::UniformResourceIdentifier(Ia5String::new(&id.to_string())?)];
            let names = Extension {
                extn_id: SubjectAltName::OID,
                critical: true,
                extn_value: OctetString::new(SubjectAltName(names).to_der()?)?,
            };
            attributes.insert(Attribute::try_from(ExtensionReq(vec![names]))?)?;
        }
        let public_key = key.public().clone();
        let info = CertReqInfo { version: Default::default(), subject: Name::default(), public_key, attributes };
        let request = signed(&info.to_der()?, key)?;
        der::pem::encode_string("CERTIFICATE REQUEST", LineEnding::LF, &request).map_err(|_| KeyError::Library)
    }

    pub(crate) fn public_key(&self) -> &SubjectPublicKeyInfoOwned {
        &self.public_key
    }

    /// True where the subject has a common name. istiod then writes the identity there, too.
    pub(crate) fn has_common_name(&self) -> bool {
        self.has_common_name
    }

    /// True where it asks for this identity and for nothing else: no subject, no other name, no other extension.
    pub(crate) fn asks_only_for(&self, id: &SpiffeId) -> bool {
        self.uris == [id.to_string()] && !self.asks_for_more
    }

    /// The URIs that were asked for.
    pub fn uris(&self) -> &[String] {
        &self.uris
    }
}

fn requested_extensions<'a>(attributes: impl Iterator<Item = &'a Attribute>) -> Result<Vec<Extension>, CsrError> {
    let requests = attributes.filter(|attribute| attribute.oid == ExtensionReq::OID);
    let mut all = Vec::new();
    for value in requests.flat_map(|attribute| attribute.values.iter()) {
        let extensions: Vec<Extension> = AnyRef::from(value).decode_as().map_err(|_| CsrError::Malformed)?;
        all.extend(extensions);
    }
    Ok(all)
}

fn decoded<T: AssociatedOid + for<'a> Decode<'a>>(extensions: &[Extension]) -> Result<Vec<T>, CsrError> {
    let found = extensions.iter().filter(|extension| extension.extn_id == T::OID);
    found.map(|extension| T::from_der(extension.extn_value.as_bytes()).map_err(|_| CsrError::Malformed)).collect()
}

fn asks_to_sign(extensions: &[Extension]) -> Result<bool, CsrError> {
    Ok(decoded::<BasicConstraints>(extensions)?.iter().any(|basic| basic.ca))
}

fn uri(name: &GeneralName) -> Option<&str> {
    match name {
        GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str()),
        _ => None,
    }
}
