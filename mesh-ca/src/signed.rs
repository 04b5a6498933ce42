//! What certificates, requests and revocation lists have in common: a body, and a signature over its bytes as they came.

use der::asn1::{AnyRef, BitStringRef};
use der::{Decode, Encode, Sequence};
use rustls_pki_types::SignatureVerificationAlgorithm;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use crate::key::{KeyError, PrivateKey};

/// A signed structure before anybody has looked into it.
#[derive(Sequence)]
pub(crate) struct Signed<'a> {
    pub(crate) body: AnyRef<'a>,
    pub(crate) algorithm: AlgorithmIdentifierOwned,
    pub(crate) signature: BitStringRef<'a>,
}

/// A body in DER, signed by `key`: the whole in DER.
pub(crate) fn signed(body: &[u8], key: &PrivateKey) -> Result<Vec<u8>, KeyError> {
    let signature = key.sign(body)?;
    let signature = BitStringRef::from_bytes(&signature)?;
    Ok(Signed { body: AnyRef::from_der(body)?, algorithm: key.algorithm(), signature }.to_der()?)
}

/// Why a signature does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unverified {
    #[error("it is no DER of a signed structure")]
    Malformed,
    #[error("its key and signature algorithms are none that we accept together")]
    Algorithm,
    #[error("the signature is wrong")]
    Wrong,
}

impl<'a> Signed<'a> {
    pub(crate) fn from_der(der: &'a [u8]) -> Result<Self, Unverified> {
        <Self as Decode>::from_der(der).map_err(|_| Unverified::Malformed)
    }

    /// Whether the owner of `key` signed this.
    pub(crate) fn verify(&self, key: &SubjectPublicKeyInfoOwned) -> Result<(), Unverified> {
        let message = self.body.to_der().map_err(|_| Unverified::Malformed)?;
        let public = key.subject_public_key.as_bytes().ok_or(Unverified::Malformed)?;
        let signature = self.signature.as_bytes().ok_or(Unverified::Malformed)?;
        let (key, algorithm) = (identifier(&key.algorithm)?, identifier(&self.algorithm)?);
        let mut known = webpki::ALL_VERIFICATION_ALGS.iter().filter(|known| is(**known, &key, &algorithm)).peekable();
        known.peek().ok_or(Unverified::Algorithm)?;
        let verified = known.any(|known| known.verify_signature(public, &message, signature).is_ok());
        if verified { Ok(()) } else { Err(Unverified::Wrong) }
    }
}

fn is(known: &dyn SignatureVerificationAlgorithm, key: &[u8], signature: &[u8]) -> bool {
    known.public_key_alg_id().as_ref() == key && known.signature_alg_id().as_ref() == signature
}

/// An algorithm's identifier without its header, which is how webpki writes them.
fn identifier(algorithm: &AlgorithmIdentifierOwned) -> Result<Vec<u8>, Unverified> {
    let der = algorithm.to_der().map_err(|_| Unverified::Malformed)?;
    Ok(AnyRef::from_der(&der).map_err(|_| Unverified::Malformed)?.value().to_vec())
}

/// Whether a key is of a kind, and of a size, that signatures are accepted of.
pub(crate) fn is_strong(key: &SubjectPublicKeyInfoOwned) -> bool {
    let Ok(kind) = identifier(&key.algorithm) else { return false };
    let known = webpki::ALL_VERIFICATION_ALGS.iter().any(|known| known.public_key_alg_id().as_ref() == kind);
    known && rsa_bits(key).is_none_or(|bits| bits >= crate::key::MIN_RSA_BITS)
}

/// The size of the modulus, for RSA.
fn rsa_bits(key: &SubjectPublicKeyInfoOwned) -> Option<usize> {
    #[derive(Sequence)]
    struct RsaPublicKey<'a> {
        modulus: der::asn1::UintRef<'a>,
        exponent: der::asn1::UintRef<'a>,
    }
    const RSA: der::asn1::ObjectIdentifier = der::asn1::ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
    if key.algorithm.oid != RSA {
        return None;
    }
    let modulus = key.subject_public_key.as_bytes().and_then(|bytes| RsaPublicKey::from_der(bytes).ok());
    Some(modulus.map_or(0, |key| {
        let bytes = key.modulus.as_bytes();
        let unused = bytes.first().map_or(0, |first| first.leading_zeros() as usize);
        (bytes.len() * 8).saturating_sub(unused)
    }))
}
