//! The authority: a key that signs, the chain that is sent along, the roots that everybody trusts.
//!
//! It is immutable. A reload or a rotation makes another one, and who serves swaps the pointer: a request is signed by one
//! authority as a whole, never by the key of one and with the chain of another.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh_api::names::SpiffeId;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::RdnSequence;
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use crate::bundle;
use crate::certificate::{Certificate, CertificateError};
use crate::issue::{self, Issuer, Template};
use crate::key::{KeyError, KeyKind, PrivateKey};
use crate::request::Csr;

/// Certificates count from this long before they are made, for clocks that are late.
pub const BACKDATE: Duration = Duration::from_secs(120);

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long certificates live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Lifetimes {
    /// Where the caller asks for nothing: `DEFAULT_WORKLOAD_CERT_TTL`, 24 hours.
    pub default: Duration,
    /// The longest that a caller may ask for: `MAX_WORKLOAD_CERT_TTL`, 90 days.
    pub max: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self { default: 24 * HOUR, max: 90 * DAY }
    }
}

impl Lifetimes {
    /// How long a certificate lives for which this much is asked; without a wish, or for zero, the default.
    ///
    /// # Errors
    /// [`SignError::Ttl`] when it is too much.
    pub fn of(&self, asked: Option<Duration>) -> Result<Duration, SignError> {
        match asked.filter(|ttl| !ttl.is_zero()) {
            None => Ok(self.default),
            Some(asked) if asked > self.max => Err(SignError::Ttl { asked, max: self.max }),
            Some(asked) => Ok(asked),
        }
    }
}

/// What a self-signed root is like.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RootOptions {
    /// Its key.
    pub key: KeyKind,
    /// Its organization: istiod writes the trust domain.
    pub organization: String,
    /// How long it lives: `CITADEL_SELF_SIGNED_CA_CERT_TTL`, ten years.
    pub ttl: Duration,
}

impl Default for RootOptions {
    fn default() -> Self {
        Self { key: KeyKind::default(), organization: "cluster.local".to_owned(), ttl: 3650 * DAY }
    }
}

/// Who signs.
#[derive(Debug)]
pub struct Authority {
    key: PrivateKey,
    certificate: Certificate,
    name: RdnSequence,
    key_id: Option<Vec<u8>>,
    /// The first moment at which a link of what is sent doesn't count any more.
    not_after: SystemTime,
    roots: Vec<Certificate>,
    /// What is sent after the leaf, one certificate each.
    chain_pem: Arc<[String]>,
    roots_pem: Arc<str>,
    crl_pem: Option<Arc<str>>,
    lifetimes: Lifetimes,
}

/// A certificate with all that a verifier needs besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    leaf: Certificate,
    intermediates: Arc<[String]>,
    roots: Arc<str>,
}

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The caller asked for more than it may have.
    #[error("requested TTL {asked:?} is greater than the max allowed TTL {max:?}")]
    Ttl {
        /// What was asked for.
        asked: Duration,
        /// What is allowed.
        max: Duration,
    },
    /// The request names another workload than the one that sent it.
    #[error(
        "the request is for {asked}, but its sender is {caller}; a workload gets certificates of its own name only"
    )]
    NotYours {
        /// The identity in the request.
        asked: String,
        /// The authenticated one.
        caller: String,
    },
    /// The authority itself has expired, or is not valid yet.
    #[error("the signing certificate is not valid now; renew it: see the CA's Secret")]
    Expired,
    /// The caller wants a signer that there is not.
    #[error("no signer {0:?} is known here; name the signers that callers may choose by CERT_SIGNER_DOMAIN")]
    NoSigner(String),
    /// A signer elsewhere cannot be reached or is not ready; try again.
    #[error("the signer is not available: {0}")]
    Unavailable(String),
    /// A name that cannot stand in a certificate, or a library that failed.
    #[error("the certificate could not be made: {0}")]
    Failed(#[from] KeyError),
}

impl From<CertificateError> for SignError {
    fn from(_: CertificateError) -> Self {
        Self::Failed(KeyError::Library)
    }
}

impl Authority {
    /// Makes a key and a root of its own.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn self_signed(options: &RootOptions, lifetimes: Lifetimes, now: SystemTime) -> Result<Self, SignError> {
        Self::with_root_key(PrivateKey::generate(options.key)?, options, lifetimes, now)
    }

    /// Makes a new root certificate of a key that exists: what istiod does when its root comes near its end.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn with_root_key(
        key: PrivateKey,
        options: &RootOptions,
        lifetimes: Lifetimes,
        now: SystemTime,
    ) -> Result<Self, SignError> {
        let name = issue::organization(&options.organization)?;
        let template = Template {
            subject: name.clone(),
            public_key: key.public(),
            not_before: now - BACKDATE,
            not_after: now + options.ttl,
            authority: true,
            names: Vec::new(),
        };
        let root = issue::issue(template, &Issuer { name, key_id: None, key: &key })?;
        let root = Certificate::from_der(&root)?;
        Ok(Self::new(key, root.clone(), &[], vec![root], None, lifetimes))
    }

    /// An authority of parts that were verified to belong together.
    pub(crate) fn new(
        key: PrivateKey,
        certificate: Certificate,
        chain: &[Certificate],
        roots: Vec<Certificate>,
        crl_pem: Option<String>,
        lifetimes: Lifetimes,
    ) -> Self {
        let ends = chain.iter().map(Certificate::not_after);
        Self {
            name: certificate.subject_name(),
            key_id: certificate.key_id(),
            not_after: ends.fold(certificate.not_after(), SystemTime::min),
            chain_pem: chain.iter().map(Certificate::to_pem).collect(),
            roots_pem: pem_of(&roots).into(),
            crl_pem: crl_pem.map(Arc::from),
            key,
            certificate,
            roots,
            lifetimes,
        }
    }

    /// Trusts these roots, too: workloads that were certified by others are recognised, and others' verifiers ours.
    #[must_use]
    pub fn also_trusting(mut self, roots: &[Certificate]) -> Self {
        let new = roots.iter().filter(|root| !self.roots.contains(root)).cloned().collect::<Vec<_>>();
        self.roots.extend(new);
        self.roots_pem = pem_of(&self.roots).into();
        self
    }

    /// Checks another authority's lists besides. Those of one alone would refuse what the other signs: then the text is empty,
    /// so that whoever has lists drops them.
    pub(crate) fn also_checking(mut self, lists: Option<&str>) -> Self {
        self.crl_pem = match (self.crl_pem.as_deref(), lists) {
            (None, None) => None,
            (Some(own), Some(lists)) => Some(format!("{own}\n{lists}").into()),
            _ => Some("".into()),
        };
        self
    }

    /// Certifies the caller. `id` is who it proved to be; the request brings the key and nothing else. Without `ttl` the
    /// default holds. No certificate outlives a link of its chain.
    ///
    /// # Errors
    /// When the caller asks for what it may not have, or the authority is not valid.
    pub fn sign(&self, csr: &Csr, id: &SpiffeId, ttl: Option<Duration>, now: SystemTime) -> Result<Chain, SignError> {
        only_own(csr, id)?;
        let ttl = self.lifetimes.of(ttl)?;
        let id = id.to_string();
        let subject = if csr.has_common_name() { issue::common_name(&id)? } else { RdnSequence::default() };
        self.certify(csr.public_key(), subject, vec![issue::uri(&id)?], ttl, now)
    }

    /// A key and a certificate for a server of the control plane that clients reach by these hosts: DNS names or addresses.
    ///
    /// # Errors
    /// When a name is not ASCII, or the authority is not valid.
    pub fn serving(&self, hosts: &[String], ttl: Duration, now: SystemTime) -> Result<(PrivateKey, Chain), SignError> {
        let key = PrivateKey::generate(KeyKind::EcdsaP256)?;
        let names = hosts.iter().map(|host| issue::host(host)).collect::<Result<_, _>>()?;
        let chain = self.certify(key.public(), RdnSequence::default(), names, ttl, now)?;
        Ok((key, chain))
    }

    pub(crate) fn certify(
        &self,
        public_key: &SubjectPublicKeyInfoOwned,
        subject: RdnSequence,
        names: Vec<GeneralName>,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Chain, SignError> {
        if now >= self.not_after {
            return Err(SignError::Expired);
        }
        let not_after = (now + ttl).min(self.not_after);
        let template = Template { subject, public_key, not_before: now - BACKDATE, not_after, authority: false, names };
        let issuer = Issuer { name: self.name.clone(), key_id: self.key_id.clone(), key: &self.key };
        let leaf = Certificate::from_der(&issue::issue(template, &issuer)?)?;
        Ok(Chain { leaf, intermediates: self.chain_pem.clone(), roots: self.roots_pem.clone() })
    }

    /// All of it as a Secret or a folder in istiod's layout has it, the key included.
    ///
    /// # Errors
    /// When the key cannot be written.
    pub fn entries(&self) -> Result<Vec<(&'static str, String)>, KeyError> {
        let mut entries = vec![
            (bundle::CA_CERT, self.certificate.to_pem()),
            (bundle::CA_KEY, self.key.to_pem()?),
            (bundle::CERT_CHAIN, self.chain_pem.concat()),
            (bundle::ROOT_CERT, self.roots_pem.to_string()),
        ];
        entries.extend(self.crl_pem.iter().map(|lists| (bundle::CA_CRL, lists.to_string())));
        Ok(entries)
    }

    /// The signing certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// The key that signs, for whoever keeps it.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// Whom everybody trusts.
    pub fn roots(&self) -> &[Certificate] {
        &self.roots
    }

    /// The roots in PEM, one after the other: `root-cert.pem` of the ConfigMap `istio-ca-root-cert`.
    pub fn roots_pem(&self) -> &Arc<str> {
        &self.roots_pem
    }

    /// The revocation lists in PEM, where there are any: `ca-crl.pem` of the ConfigMap `istio-ca-crl`.
    pub fn crl_pem(&self) -> Option<&Arc<str>> {
        self.crl_pem.as_ref()
    }

    /// When it can sign no more.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// How long what it signs lives.
    pub fn lifetimes(&self) -> Lifetimes {
        self.lifetimes
    }
}

/// Trust domains are not compared: agents write the one that they know, which may be an alias of ours.
fn only_own(csr: &Csr, id: &SpiffeId) -> Result<(), SignError> {
    let is_own = |uri: &&String| {
        uri.parse::<SpiffeId>()
            .is_ok_and(|asked| asked.namespace == id.namespace && asked.service_account == id.service_account)
    };
    match csr.uris().iter().find(|uri| !is_own(uri)) {
        None => Ok(()),
        Some(asked) => Err(SignError::NotYours { asked: asked.clone(), caller: id.to_string() }),
    }
}

fn pem_of(certificates: &[Certificate]) -> String {
    certificates.iter().map(Certificate::to_pem).collect()
}

impl Chain {
    /// The certificate that was asked for.
    pub fn leaf(&self) -> &Certificate {
        &self.leaf
    }

    /// What a server or client presents: the leaf and the intermediates after it, in PEM.
    pub fn presented_pem(&self) -> String {
        std::iter::once(self.leaf.to_pem()).chain(self.intermediates.iter().cloned()).collect()
    }

    /// The roots, in PEM.
    pub fn roots_pem(&self) -> &str {
        &self.roots
    }

    /// `cert_chain` of the certificate service: leaf first, one certificate in each, and all roots together last.
    pub fn response(&self) -> Vec<String> {
        let certificates = std::iter::once(self.leaf.to_pem()).chain(self.intermediates.iter().cloned());
        certificates.chain(std::iter::once(self.roots.to_string())).collect()
    }
}
