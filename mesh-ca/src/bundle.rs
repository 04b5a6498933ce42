//! Keys and certificates that users plug in, and those that we keep: the entries of a Secret, or files of the same names.
//!
//! Two layouts are read, as istiod reads them: its own (`ca-cert.pem`, `ca-key.pem`, `cert-chain.pem`, `root-cert.pem`) and
//! that of `kubernetes.io/tls` Secrets, which cert-manager writes (`tls.crt`, `tls.key`, `ca.crt`). Nothing is taken on
//! trust: before an authority is handed out, it signs a certificate for nobody, and that is verified as a proxy would.
//! What fails there would otherwise fail in every handshake of the mesh.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Secret;
use mesh_api::{Diagnostic, FieldPath, ObjectRef};
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;
use webpki::BorrowedCertRevocationList;
use x509_cert::name::RdnSequence;

use crate::authority::{Authority, Lifetimes, SignError};
use crate::certificate::Certificate;
use crate::key::{KeyError, PrivateKey};
use crate::signed::Signed;

/// The signing certificate, in istiod's layout.
pub const CA_CERT: &str = "ca-cert.pem";
/// Its key.
pub const CA_KEY: &str = "ca-key.pem";
/// What is sent after a workload's certificate, from the signing certificate on.
pub const CERT_CHAIN: &str = "cert-chain.pem";
/// Whom everybody trusts.
pub const ROOT_CERT: &str = "root-cert.pem";
/// Revocation lists, in either layout; may be absent.
pub const CA_CRL: &str = "ca-crl.pem";
/// The signing certificate and its chain, in the layout of `kubernetes.io/tls`.
pub const TLS_CERT: &str = "tls.crt";
/// Its key.
pub const TLS_KEY: &str = "tls.key";
/// Whom everybody trusts.
pub const TLS_CA: &str = "ca.crt";

/// The entries of a Secret or of a folder.
pub type Entries<'a> = BTreeMap<&'a str, &'a [u8]>;

/// The entries of a Secret.
pub fn entries(secret: &Secret) -> Entries<'_> {
    let data = secret.data.iter().flatten();
    data.map(|(key, value)| (key.as_str(), value.0.as_slice())).collect()
}

/// Why entries make no authority: which one, what is wrong with it, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct BundleError {
    /// The entry, such as `ca-key.pem`.
    pub entry: &'static str,
    /// What is wrong and what to do about it.
    pub message: String,
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.entry, self.message)
    }
}

impl BundleError {
    fn new(entry: &'static str, message: impl Into<String>) -> Self {
        Self { entry, message: message.into() }
    }

    /// The same, to the Secret's owner.
    pub fn diagnostic(&self, secret: &ObjectRef) -> Diagnostic {
        let path = FieldPath::new(format!("data[{}]", self.entry));
        Diagnostic::error("InvalidCABundle", &self.message).on(secret).at(path)
    }
}

/// The names of a layout's entries.
struct Layout {
    cert: &'static str,
    key: &'static str,
    /// What is sent along: these entries, one after the other.
    chain: &'static [&'static str],
    roots: &'static str,
}

const ISTIOD: Layout = Layout { cert: CA_CERT, key: CA_KEY, chain: &[CERT_CHAIN], roots: ROOT_CERT };
const TLS: Layout = Layout { cert: TLS_CERT, key: TLS_KEY, chain: &[TLS_CERT, TLS_CA], roots: TLS_CA };
/// `istio-ca-secret`: the certificate is its own root, and nothing is sent along.
const SELF_SIGNED: Layout = Layout { cert: CA_CERT, key: CA_KEY, chain: &[], roots: CA_CERT };

/// The authority of what a user plugged in: the Secret `cacerts`, or files.
///
/// # Errors
/// When an entry is missing or doesn't fit to the others.
pub fn plugged_in(entries: &Entries<'_>, lifetimes: Lifetimes, now: SystemTime) -> Result<Authority, BundleError> {
    let layout = if entries.contains_key(TLS_CERT) { &TLS } else { &ISTIOD };
    read(layout, entries, lifetimes, now)
}

/// The authority of a root that a control plane made: the Secret `istio-ca-secret`.
///
/// # Errors
/// When an entry is missing or doesn't fit to the others.
pub fn self_signed(entries: &Entries<'_>, lifetimes: Lifetimes, now: SystemTime) -> Result<Authority, BundleError> {
    read(&SELF_SIGNED, entries, lifetimes, now)
}

/// True where at least one entry of a plugged-in authority is there: then [`plugged_in`] must succeed, and nothing else may
/// take its place.
pub fn is_plugged_in(entries: &Entries<'_>) -> bool {
    [CA_CERT, CA_KEY, CERT_CHAIN, TLS_CERT, TLS_KEY].iter().any(|entry| entries.contains_key(entry))
}

fn read(
    layout: &Layout,
    entries: &Entries<'_>,
    lifetimes: Lifetimes,
    now: SystemTime,
) -> Result<Authority, BundleError> {
    let signing = certificates(entries, layout.cert)?;
    let Some(signing) = signing.into_iter().next() else {
        return Err(BundleError::new(layout.cert, "holds no certificate"));
    };
    may_sign(&signing, layout.cert, now)?;
    let key = key_of(&signing, layout, entries)?;
    let roots = certificates(entries, layout.roots)?;
    let is_root = roots.contains(&signing);
    let mut chain = Vec::new();
    for entry in layout.chain {
        // A root sends nothing along, so it may do without the entry.
        if entries.get(entry).is_some_and(|pem| !pem.is_empty()) || !is_root {
            chain.extend(certificates(entries, entry)?);
        }
    }
    if let Some(entry) = layout.chain.first().filter(|_| !is_root && !chain.contains(&signing)) {
        let cert = layout.cert;
        return Err(BundleError::new(
            entry,
            format!("lacks the certificate of {cert}; put it first, then its issuers"),
        ));
    }
    let crl = crl(entries, &chain)?;
    let authority = Authority::new(key, signing, &chain, roots, crl, lifetimes);
    leads_to_a_root(&authority, layout, now)?;
    Ok(authority)
}

fn entry<'a>(entries: &Entries<'a>, name: &'static str) -> Result<&'a [u8], BundleError> {
    let missing = || BundleError::new(name, "is missing; add it, or remove the other entries as well to do without");
    entries.get(name).copied().filter(|value| !value.is_empty()).ok_or_else(missing)
}

fn certificates(entries: &Entries<'_>, name: &'static str) -> Result<Vec<Certificate>, BundleError> {
    Certificate::all_from_pem(entry(entries, name)?).map_err(|error| BundleError::new(name, error.to_string()))
}

fn may_sign(certificate: &Certificate, entry: &'static str, now: SystemTime) -> Result<(), BundleError> {
    let problem = if !certificate.is_authority() {
        "the first certificate may not sign others; issue it with basicConstraints CA:TRUE and keyUsage keyCertSign"
    } else if now >= certificate.not_after() {
        "the first certificate has expired; issue a new one"
    } else if now < certificate.not_before() {
        "the first certificate is not valid yet; check its notBefore and this machine's clock"
    } else {
        return Ok(());
    };
    Err(BundleError::new(entry, problem))
}

fn key_of(certificate: &Certificate, layout: &Layout, entries: &Entries<'_>) -> Result<PrivateKey, BundleError> {
    let key = PrivateKey::from_pem(entry(entries, layout.key)?);
    let key = key.map_err(|error| BundleError::new(layout.key, error.to_string()))?;
    if key.is_of(certificate) {
        return Ok(key);
    }
    let cert = layout.cert;
    Err(BundleError::new(
        layout.key,
        format!("is not the key of the first certificate in {cert}; replace both together"),
    ))
}

/// Envoy wants a list of every authority in a chain as soon as it has one of any, and refuses every peer otherwise. The control
/// plane's own TLS must be able to read the lists as well, or it refuses everybody.
fn crl(entries: &Entries<'_>, chain: &[Certificate]) -> Result<Option<String>, BundleError> {
    let Some(pem) = entries.get(CA_CRL).filter(|pem| !pem.is_empty()) else { return Ok(None) };
    let wrong = |message: String| BundleError::new(CA_CRL, message);
    let lists: Vec<_> = CertificateRevocationListDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| wrong("holds a PEM block that is cut off".into()))?;
    let signed = lists.iter().map(|list| Signed::from_der(list)).collect::<Result<Vec<_>, _>>();
    let signed = signed.map_err(|_| wrong("holds a revocation list that is no DER".into()))?;
    if lists.iter().any(|list| BorrowedCertRevocationList::from_der(list).is_err()) {
        let why = "holds a list that TLS cannot use; put a whole one of version 2 there, no delta and not indirect";
        return Err(wrong(why.into()));
    }
    let missing = chain.iter().find(|issuer| !signed.iter().any(|list| list.verify(issuer.public_key()).is_ok()));
    if let Some(issuer) = missing {
        let subject = issuer.subject();
        return Err(wrong(format!(
            "has no revocation list signed by {subject:?}; Envoy needs one of every CA in the chain"
        )));
    }
    String::from_utf8(pem.to_vec()).map(Some).map_err(|_| wrong("is no text".into()))
}

/// Why nobody would trust what an authority signs.
enum Untrusted {
    Sign(SignError),
    Chain(webpki::Error),
}

impl From<SignError> for Untrusted {
    fn from(error: SignError) -> Self {
        Self::Sign(error)
    }
}

/// Whether those who trust these roots trust what the authority signs.
pub(crate) fn is_trusted_by(authority: &Authority, roots: &[Certificate], now: SystemTime) -> bool {
    verify(authority, roots, now).is_ok()
}

/// Signs for nobody, and looks at the result as a proxy would.
fn verify(authority: &Authority, roots: &[Certificate], now: SystemTime) -> Result<(), Untrusted> {
    let nobody = crate::issue::uri("spiffe://probe").map_err(SignError::from)?;
    let (public, name) = (authority.key().public(), RdnSequence::default());
    let probe = authority.certify(public, name, vec![nobody], Duration::from_secs(60), now)?;
    let presented = Certificate::all_from_pem(probe.presented_pem().as_bytes()).map_err(SignError::from)?;
    let (leaf, through) = presented.split_first().ok_or(SignError::Failed(KeyError::Library))?;
    leaf.leads_to(roots, through, now).map_err(Untrusted::Chain)
}

fn leads_to_a_root(authority: &Authority, layout: &Layout, now: SystemTime) -> Result<(), BundleError> {
    let entry = layout.chain.first().unwrap_or(&layout.cert);
    let failed =
        |why: &str| BundleError::new(entry, format!("{why}; it must lead from {} to {}", layout.cert, layout.roots));
    verify(authority, authority.roots(), now).map_err(|why| match why {
        Untrusted::Sign(error) => failed(&error.to_string()),
        Untrusted::Chain(webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey) => {
            failed("the chain has a gap or ends in another root")
        }
        Untrusted::Chain(webpki::Error::CertExpired { .. }) => failed("a certificate of the chain has expired"),
        Untrusted::Chain(other) => failed(&format!("the chain cannot be verified: {other:?}")),
    })
}
