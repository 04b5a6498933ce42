//! Private keys: made by AWS-LC or read from PEM, asked for signatures, and never shown.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use der::Decode;
use der::asn1::ObjectIdentifier;
use der::pem::LineEnding;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use crate::certificate::Certificate;

const RSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");
const ECDSA_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");

/// The smallest RSA modulus, in bits, that is still a secret.
pub(crate) const MIN_RSA_BITS: usize = 2048;

/// What kind of key to make.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum KeyKind {
    /// RSA with 2048 bits, what istiod makes unless told otherwise.
    #[default]
    Rsa2048,
    /// RSA with 4096 bits.
    Rsa4096,
    /// ECDSA on P-256: the quickest to make, to sign with and to send.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
}

/// A private key, of an authority or of a workload. Its `Debug` form tells what kind it is and no more.
pub struct PrivateKey {
    pair: Pair,
    public: SubjectPublicKeyInfoOwned,
}

enum Pair {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// No PEM block of a private key was found.
    #[error("no private key in PEM: expected a block PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY, not encrypted")]
    NotPem,
    /// A key that cannot be used here.
    #[error("the private key is of no supported kind; use RSA of 2048 to 8192 bits, ECDSA P-256 or ECDSA P-384")]
    Unsupported,
    /// AWS-LC failed; the machine may have no entropy or no memory.
    #[error("the cryptographic library failed; the machine may be out of memory")]
    Library,
}

impl From<aws_lc_rs::error::Unspecified> for KeyError {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self::Library
    }
}

impl From<der::Error> for KeyError {
    fn from(_: der::Error) -> Self {
        Self::Library
    }
}

impl PrivateKey {
    /// Makes a new key. This is one of the crate's two sources of randomness; the other are serial numbers.
    ///
    /// # Errors
    /// [`KeyError::Library`].
    pub fn generate(kind: KeyKind) -> Result<Self, KeyError> {
        Self::of(match kind {
            KeyKind::Rsa2048 => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048)?),
            KeyKind::Rsa4096 => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa4096)?),
            KeyKind::EcdsaP256 => Pair::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?),
            KeyKind::EcdsaP384 => Pair::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING)?),
        })
    }

    /// Reads a key from PEM: PKCS#8, PKCS#1 (`RSA PRIVATE KEY`) or SEC1 (`EC PRIVATE KEY`).
    ///
    /// # Errors
    /// When there is none, or one that cannot be used.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| KeyError::NotPem)?;
        let rsa = match &der {
            PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der()).ok(),
            PrivateKeyDer::Pkcs8(key) => RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).ok(),
            _ => None,
        };
        if let Some(rsa) = rsa {
            let strong = rsa.public_modulus_len() * 8 >= MIN_RSA_BITS;
            return if strong { Self::of(Pair::Rsa(rsa)) } else { Err(KeyError::Unsupported) };
        }
        let bytes = der.secret_der();
        let p256 = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, bytes).map(Pair::P256);
        let p384 = || EcdsaKeyPair::from_private_key_der(&ECDSA_P384_SHA384_ASN1_SIGNING, bytes).map(Pair::P384);
        Self::of(p256.or_else(|_| p384()).map_err(|_| KeyError::Unsupported)?)
    }

    fn of(pair: Pair) -> Result<Self, KeyError> {
        let spki: PublicKeyX509Der<'_> = match &pair {
            Pair::Rsa(rsa) => rsa.public_key().as_der()?,
            Pair::P256(ec) | Pair::P384(ec) => ec.public_key().as_der()?,
        };
        let public = SubjectPublicKeyInfoOwned::from_der(spki.as_ref())?;
        Ok(Self { pair, public })
    }

    /// The key as PKCS#8 in PEM. Whoever has this text has the identity: it belongs into a Secret or nowhere.
    ///
    /// # Errors
    /// [`KeyError::Library`].
    pub fn to_pem(&self) -> Result<String, KeyError> {
        let text =
            |der: &[u8]| der::pem::encode_string("PRIVATE KEY", LineEnding::LF, der).map_err(|_| KeyError::Library);
        match &self.pair {
            Pair::Rsa(rsa) => text(AsDer::<Pkcs8V1Der<'_>>::as_der(rsa)?.as_ref()),
            Pair::P256(ec) | Pair::P384(ec) => text(ec.to_pkcs8v1()?.as_ref()),
        }
    }

    /// True where the certificate is of this key.
    pub fn is_of(&self, certificate: &Certificate) -> bool {
        self.public.subject_public_key == certificate.public_key().subject_public_key
    }

    /// The public half.
    pub(crate) fn public(&self) -> &SubjectPublicKeyInfoOwned {
        &self.public
    }

    /// The name of the algorithm that [`sign`](Self::sign) uses.
    pub(crate) fn algorithm(&self) -> AlgorithmIdentifierOwned {
        let (oid, parameters) = match self.pair {
            Pair::Rsa(_) => (RSA_SHA256, Some(der::asn1::Null.into())),
            Pair::P256(_) => (ECDSA_SHA256, None),
            Pair::P384(_) => (ECDSA_SHA384, None),
        };
        AlgorithmIdentifierOwned { oid, parameters }
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(rsa) => {
                let mut signature = vec![0; rsa.public_modulus_len()];
                rsa.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)?;
                Ok(signature)
            }
            Pair::P256(ec) | Pair::P384(ec) => Ok(ec.sign(&random, message)?.as_ref().to_vec()),
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.pair {
            Pair::Rsa(_) => "PrivateKey(RSA)",
            Pair::P256(_) => "PrivateKey(ECDSA P-256)",
            Pair::P384(_) => "PrivateKey(ECDSA P-384)",
        })
    }
}
