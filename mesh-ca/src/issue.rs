//! Writing certificates. The bytes are those that istiod writes for the same input: the same fields, the same extensions
//! in the same order, the same ones critical.
//!
//! x509-cert's types are used for all parts; its own builder wants RustCrypto's signers, and our keys are AWS-LC's.

use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use der::asn1::{Ia5String, OctetString, Utf8StringRef};
use der::{Encode, Sequence};
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::certificate::Version;
use x509_cert::der::oid::{AssociatedOid, ObjectIdentifier};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
    SubjectKeyIdentifier,
};
use x509_cert::ext::{Extension, Extensions};
use x509_cert::name::{RdnSequence, RelativeDistinguishedName};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};
use x509_cert::time::{Time, Validity};

use crate::key::{KeyError, PrivateKey};
use crate::signed::signed;

const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");
/// X.509's upper bound of a common name.
const MAX_COMMON_NAME: usize = 64;

/// What a certificate is to say.
pub(crate) struct Template<'a> {
    pub(crate) subject: RdnSequence,
    pub(crate) public_key: &'a SubjectPublicKeyInfoOwned,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    pub(crate) authority: bool,
    pub(crate) names: Vec<GeneralName>,
}

/// Who says so.
pub(crate) struct Issuer<'a> {
    pub(crate) name: RdnSequence,
    pub(crate) key_id: Option<Vec<u8>>,
    pub(crate) key: &'a PrivateKey,
}

#[derive(Sequence)]
struct TbsCertificate {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    version: Version,
    serial_number: SerialNumber,
    signature: AlgorithmIdentifierOwned,
    issuer: RdnSequence,
    validity: Validity,
    subject: RdnSequence,
    public_key: SubjectPublicKeyInfoOwned,
    #[asn1(context_specific = "3", tag_mode = "EXPLICIT")]
    extensions: Extensions,
}

/// A certificate in DER.
pub(crate) fn issue(template: Template<'_>, issuer: &Issuer<'_>) -> Result<Vec<u8>, KeyError> {
    let extensions = extensions(&template, issuer)?;
    let body = TbsCertificate {
        version: Version::V3,
        serial_number: serial()?,
        signature: issuer.key.algorithm(),
        issuer: issuer.name.clone(),
        validity: Validity::new(Time::try_from(template.not_before)?, Time::try_from(template.not_after)?),
        subject: template.subject,
        public_key: template.public_key.clone(),
        extensions,
    };
    signed(&body.to_der()?, issuer.key)
}

/// Go's order: key usage, extended key usage, basic constraints, key ids, and the names last.
fn extensions(template: &Template<'_>, issuer: &Issuer<'_>) -> Result<Extensions, KeyError> {
    let usage = if template.authority {
        KeyUsages::KeyCertSign.into()
    } else {
        KeyUsages::DigitalSignature | KeyUsages::KeyEncipherment
    };
    let mut extensions = vec![extension(true, &KeyUsage(usage))?];
    if !template.authority {
        extensions.push(extension(false, &ExtendedKeyUsage(vec![SERVER_AUTH, CLIENT_AUTH]))?);
    }
    let basic = BasicConstraints { ca: template.authority, path_len_constraint: None };
    extensions.push(extension(true, &basic)?);
    if template.authority {
        extensions.push(extension(false, &SubjectKeyIdentifier(OctetString::new(key_id(template.public_key))?))?);
    }
    if let Some(id) = issuer.key_id.as_deref().filter(|_| !template.authority) {
        let id = AuthorityKeyIdentifier { key_identifier: Some(OctetString::new(id)?), ..Default::default() };
        extensions.push(extension(false, &id)?);
    }
    if !template.names.is_empty() {
        // Critical, because the subject is empty: X.509 asks for it, and so does SPIFFE.
        extensions.push(extension(true, &SubjectAltName(template.names.clone()))?);
    }
    Ok(extensions)
}

fn extension<T: AssociatedOid + Encode>(critical: bool, value: &T) -> Result<Extension, KeyError> {
    Ok(Extension { extn_id: T::OID, critical, extn_value: OctetString::new(value.to_der()?)? })
}

/// A key's name: the first 160 bits of the SHA-256 of its bits, RFC 7093's first method.
pub(crate) fn key_id(key: &SubjectPublicKeyInfoOwned) -> Vec<u8> {
    let hash = digest(&SHA256, key.subject_public_key.raw_bytes());
    hash.as_ref().iter().copied().take(20).collect()
}

/// 127 random bits: nobody can guess the next one, and none comes twice.
fn serial() -> Result<SerialNumber, KeyError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes)?;
    // Positive without a further byte, and of the full length.
    if let Some(first) = bytes.first_mut() {
        *first = *first & 0x7f | 0x40;
    }
    Ok(SerialNumber::new(&bytes)?)
}

/// `O=<organization>`.
pub(crate) fn organization(organization: &str) -> Result<RdnSequence, KeyError> {
    name(ORGANIZATION, organization)
}

/// `CN=<text>`; nothing where the text is too long for a common name, as istiod does.
pub(crate) fn common_name(text: &str) -> Result<RdnSequence, KeyError> {
    if text.len() > MAX_COMMON_NAME { Ok(RdnSequence::default()) } else { name(COMMON_NAME, text) }
}

fn name(oid: ObjectIdentifier, value: &str) -> Result<RdnSequence, KeyError> {
    let mut part = RelativeDistinguishedName::default();
    part.insert(AttributeTypeAndValue { oid, value: Utf8StringRef::new(value)?.into() })?;
    let mut name = RdnSequence::default();
    name.push(part);
    Ok(name)
}

/// `spiffe://…` as a URI.
pub(crate) fn uri(uri: &str) -> Result<GeneralName, KeyError> {
    Ok(GeneralName::UniformResourceIdentifier(Ia5String::new(uri)?))
}

/// A host of a serving certificate: an IP address or a DNS name.
pub(crate) fn host(host: &str) -> Result<GeneralName, KeyError> {
    match host.parse::<std::net::IpAddr>() {
        Ok(ip) => Ok(ip.into()),
        Err(_) => Ok(GeneralName::DnsName(Ia5String::new(host)?)),
    }
}
