//! Chains are looked at by others: webpki as rustls uses it, and the openssl command where there is one.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh_api::ObjectRef;
use mesh_api::names::SpiffeId;
use proptest::prelude::*;
use rustls_pki_types::UnixTime;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::authority::BACKDATE;
use crate::bundle::{self, Entries};
use crate::issue::{self, Issuer, Template};
use crate::request::{CsrError, MAX_REQUEST};
use crate::{Authority, Certificate, Chain, Csr, KeyKind, Lifetimes, PrivateKey, RootOptions, SignError};

const HOUR: Duration = Duration::from_secs(3600);

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn id() -> SpiffeId {
    "spiffe://cluster.local/ns/default/sa/sleep".parse().unwrap()
}

fn root(key: KeyKind) -> Authority {
    let options = RootOptions { key, ..RootOptions::default() };
    Authority::self_signed(&options, Lifetimes::default(), now()).unwrap()
}

fn csr(key: KeyKind) -> Csr {
    let key = PrivateKey::generate(key).unwrap();
    Csr::from_pem(Csr::write(&key, Some(&id())).unwrap().as_bytes()).unwrap()
}

/// A certificate that `issuer` signed for `key`, which may sign where `authority` says so.
fn certified(issuer: &Authority, key: &PrivateKey, authority: bool, ttl: Duration) -> Certificate {
    let template = Template {
        subject: issue::organization("intermediate").unwrap(),
        public_key: key.public(),
        not_before: now() - BACKDATE,
        not_after: now() + ttl,
        authority,
        names: Vec::new(),
    };
    let by = issuer.certificate();
    let issuer = Issuer { name: by.subject_name(), key_id: by.key_id(), key: issuer.key() };
    Certificate::from_der(&issue::issue(template, &issuer).unwrap()).unwrap()
}

/// What webpki says of a chain as a client presents it.
fn verify(chain: &Chain, roots: &[Certificate], at: SystemTime) -> Result<(), webpki::Error> {
    let presented = Certificate::all_from_pem(chain.presented_pem().as_bytes()).unwrap();
    let (leaf, rest) = presented.split_first().unwrap();
    let rest: Vec<_> = rest.iter().map(|certificate| certificate.der().clone()).collect();
    let anchors: Vec<_> = roots.iter().map(|root| anchor_from_trusted_cert(root.der()).unwrap()).collect();
    let at = UnixTime::since_unix_epoch(at.duration_since(UNIX_EPOCH).unwrap());
    let algorithms = webpki::ALL_VERIFICATION_ALGS;
    for usage in [KeyUsage::client_auth(), KeyUsage::server_auth()] {
        EndEntityCert::try_from(leaf.der())?.verify_for_usage(algorithms, &anchors, &rest, at, usage, None, None)?;
    }
    Ok(())
}

/// Runs openssl; none where it isn't installed.
pub(crate) fn openssl(args: &[&str], input: &str) -> Option<String> {
    let command =
        Command::new("openssl").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut command) = command else {
        eprintln!("SKIPPED: openssl is not installed; its opinion was not asked");
        return None;
    };
    command.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = command.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn every_kind_of_root_certifies_every_kind_of_key() {
    use KeyKind::{EcdsaP256, EcdsaP384, Rsa2048, Rsa4096};
    for authority in [Rsa2048, Rsa4096, EcdsaP256, EcdsaP384] {
        let authority = root(authority);
        for key in [Rsa2048, EcdsaP256, EcdsaP384] {
            let chain = authority.sign(&csr(key), &id(), None, now()).unwrap();
            verify(&chain, authority.roots(), now()).unwrap();
            assert_eq!(chain.leaf().uris(), [id().to_string()]);
            assert_eq!(chain.response(), [chain.leaf().to_pem(), authority.roots_pem().to_string()]);
        }
    }
}

#[test]
fn openssl_reads_what_istiod_would_have_written() {
    let authority = root(KeyKind::EcdsaP256);
    let chain = authority.sign(&csr(KeyKind::EcdsaP256), &id(), None, now()).unwrap();
    let Some(text) = openssl(&["x509", "-noout", "-text"], &chain.leaf().to_pem()) else { return };
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let after = |name: &str| lines.iter().skip_while(|line| **line != name).nth(1).copied();
    assert_eq!(after("X509v3 Key Usage: critical"), Some("Digital Signature, Key Encipherment"));
    assert_eq!(
        after("X509v3 Extended Key Usage:"),
        Some("TLS Web Server Authentication, TLS Web Client Authentication")
    );
    assert_eq!(after("X509v3 Basic Constraints: critical"), Some("CA:FALSE"));
    assert_eq!(
        after("X509v3 Subject Alternative Name: critical"),
        Some("URI:spiffe://cluster.local/ns/default/sa/sleep")
    );
    assert!(text.contains("Issuer: O = cluster.local") || text.contains("Issuer: O=cluster.local"), "{text}");
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root.pem");
    std::fs::write(&root, authority.roots_pem().as_bytes()).unwrap();
    let at = now().duration_since(UNIX_EPOCH).unwrap().as_secs().to_string();
    let args = ["verify", "-x509_strict", "-attime", &at, "-CAfile", root.to_str().unwrap()];
    openssl(&args, &chain.leaf().to_pem()).unwrap();
}

#[test]
fn requests_of_openssl_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key.pem");
    let key = key.to_str().unwrap();
    for kind in [
        &["rsa:2048"][..],
        &["ec", "-pkeyopt", "ec_paramgen_curve:P-256"],
        &["ec", "-pkeyopt", "ec_paramgen_curve:P-521"],
        &["ed25519"],
    ] {
        let args = [&["req", "-new", "-nodes", "-subj", "/CN=me", "-keyout", key, "-newkey"][..], kind].concat();
        let Some(pem) = openssl(&args, "") else { return };
        let csr = Csr::from_pem(pem.as_bytes()).unwrap();
        let authority = root(KeyKind::EcdsaP256);
        let chain = authority.sign(&csr, &id(), None, now()).unwrap();
        verify(&chain, authority.roots(), now()).unwrap();
        assert_eq!(
            chain.leaf().subject(),
            "CN=spiffe://cluster.local/ns/default/sa/sleep",
            "the name asked for is not taken"
        );
    }
    let weak = ["req", "-new", "-nodes", "-subj", "/", "-keyout", key, "-newkey", "rsa:1024"];
    assert_eq!(Csr::from_pem(openssl(&weak, "").unwrap().as_bytes()).unwrap_err(), CsrError::Key);
    for (kind, readable) in [("prime256v1", true), ("secp384r1", true), ("secp521r1", false)] {
        let sec1 = openssl(&["ecparam", "-genkey", "-noout", "-name", kind], "").unwrap();
        assert_eq!(PrivateKey::from_pem(sec1.as_bytes()).is_ok(), readable, "{kind}");
    }
    let pkcs1 = openssl(&["genrsa", "-traditional", "2048"], "").unwrap();
    assert!(pkcs1.contains("RSA PRIVATE KEY"));
    assert_eq!(format!("{:?}", PrivateKey::from_pem(pkcs1.as_bytes()).unwrap()), "PrivateKey(RSA)");
}

#[test]
fn lifetimes_have_a_default_a_limit_and_the_issuers_end() {
    let options = RootOptions { ttl: 100 * 24 * HOUR, key: KeyKind::EcdsaP256, ..RootOptions::default() };
    let authority = Authority::self_signed(&options, Lifetimes::default(), now()).unwrap();
    let csr = csr(KeyKind::EcdsaP256);
    let late = now() + 99 * 24 * HOUR;
    for (ttl, at, want) in [
        (None, now(), Some(now() + 24 * HOUR)),
        (Some(Duration::ZERO), now(), Some(now() + 24 * HOUR)),
        (Some(HOUR), now(), Some(now() + HOUR)),
        (Some(90 * 24 * HOUR), now(), Some(now() + 90 * 24 * HOUR)),
        (Some(91 * 24 * HOUR), now(), None),
        (Some(48 * HOUR), late, Some(authority.not_after())),
        (None, authority.not_after(), None),
    ] {
        match (authority.sign(&csr, &id(), ttl, at), want) {
            (Ok(chain), Some(want)) => {
                assert_eq!(chain.leaf().not_after(), want, "{ttl:?}");
                assert_eq!(chain.leaf().not_before(), at - BACKDATE);
                verify(&chain, authority.roots(), at).unwrap();
                assert!(verify(&chain, authority.roots(), want + HOUR).is_err());
            }
            (Err(SignError::Ttl { .. } | SignError::Expired), None) => {}
            (got, want) => panic!("{ttl:?}: {got:?}, not {want:?}"),
        }
    }
}

#[test]
fn serials_differ_and_are_long() {
    let authority = root(KeyKind::EcdsaP256);
    let csr = csr(KeyKind::EcdsaP256);
    let serials: std::collections::BTreeSet<_> =
        (0..100).map(|_| authority.sign(&csr, &id(), None, now()).unwrap().leaf().serial().to_vec()).collect();
    assert_eq!(serials.len(), 100);
    assert!(serials.iter().all(|serial| serial.len() == 16));
}

#[test]
fn nobody_gets_the_name_of_another() {
    let authority = root(KeyKind::EcdsaP256);
    let ask = |uri: &str| {
        let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
        let pem = Csr::write(&key, Some(&uri.parse().unwrap())).unwrap();
        authority.sign(&Csr::from_pem(pem.as_bytes()).unwrap(), &id(), None, now())
    };
    // An agent may know the trust domain by another name; what it gets is ours.
    assert_eq!(ask("spiffe://alias/ns/default/sa/sleep").unwrap().leaf().uris(), [id().to_string()]);
    for other in ["spiffe://cluster.local/ns/default/sa/other", "spiffe://cluster.local/ns/kube-system/sa/sleep"] {
        assert!(matches!(ask(other), Err(SignError::NotYours { .. })), "{other}");
    }
}

#[test]
fn requests_that_must_not_be_signed_are_told_apart() {
    let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
    let pem = Csr::write(&key, Some(&id())).unwrap();
    let mut der = rustls_pki_types::pem::PemObject::from_pem_slice(pem.as_bytes())
        .map(|der: rustls_pki_types::CertificateSigningRequestDer<'_>| der.to_vec())
        .unwrap();
    *der.last_mut().unwrap() ^= 1;
    assert!(matches!(Csr::from_der(&der), Err(CsrError::Signature)));
    assert!(matches!(Csr::from_der(&[0; MAX_REQUEST + 1]), Err(CsrError::TooLong(_))));
    assert!(matches!(Csr::from_pem(b"hello"), Err(CsrError::NotPem)));
    assert!(matches!(Csr::from_der(b"hello"), Err(CsrError::Malformed)));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.pem");
    let args = [
        "req",
        "-new",
        "-nodes",
        "-subj",
        "/",
        "-newkey",
        "rsa:2048",
        "-addext",
        "basicConstraints=CA:TRUE",
        "-keyout",
    ];
    let Some(ca) = openssl(&[&args[..], &[file.to_str().unwrap()]].concat(), "") else { return };
    assert!(matches!(Csr::from_pem(ca.as_bytes()), Err(CsrError::Authority)));
}

proptest! {
    #[test]
    fn no_request_stops_us(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = Csr::from_der(&bytes);
        let _ = Csr::from_pem(&bytes);
        let _ = Certificate::from_der(&bytes);
    }

    #[test]
    fn no_damage_goes_unnoticed(at in 0usize..4096, with in 1u8..) {
        static GOOD: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
            let pem = Csr::write(&PrivateKey::generate(KeyKind::EcdsaP256).unwrap(), Some(&id())).unwrap();
            let der: rustls_pki_types::CertificateSigningRequestDer<'_> =
                rustls_pki_types::pem::PemObject::from_pem_slice(pem.as_bytes()).unwrap();
            der.to_vec()
        });
        let mut bytes = GOOD.clone();
        let at = at % bytes.len();
        bytes[at] ^= with;
        prop_assert!(Csr::from_der(&bytes).is_err());
    }
}

/// A root, an intermediate and its key, as users plug them in.
struct Plugged {
    root: Authority,
    key: PrivateKey,
    cert: Certificate,
}

impl Plugged {
    fn new(ttl: Duration) -> Self {
        let root = root(KeyKind::Rsa2048);
        let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
        let cert = certified(&root, &key, true, ttl);
        Self { root, key, cert }
    }

    fn istiod(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("ca-cert.pem", self.cert.to_pem()),
            ("ca-key.pem", self.key.to_pem().unwrap()),
            ("cert-chain.pem", self.cert.to_pem() + self.root.roots_pem()),
            ("root-cert.pem", self.root.roots_pem().to_string()),
        ])
    }

    fn tls(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("tls.crt", self.cert.to_pem()),
            ("tls.key", self.key.to_pem().unwrap()),
            ("ca.crt", self.root.roots_pem().to_string()),
        ])
    }
}

fn read(entries: &BTreeMap<&'static str, String>) -> Result<Authority, bundle::BundleError> {
    let entries: Entries<'_> = entries.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
    bundle::plugged_in(&entries, Lifetimes::default(), now())
}

#[test]
fn both_layouts_are_read_and_send_their_chain_in_istiods_order() {
    let plugged = Plugged::new(1000 * HOUR);
    for entries in [plugged.istiod(), plugged.tls()] {
        let authority = read(&entries).unwrap();
        let chain = authority.sign(&csr(KeyKind::EcdsaP256), &id(), None, now()).unwrap();
        verify(&chain, plugged.root.roots(), now()).unwrap();
        let root = plugged.root.roots_pem().to_string();
        assert_eq!(chain.response(), [chain.leaf().to_pem(), plugged.cert.to_pem(), root.clone(), root]);
    }
    let short = Plugged::new(HOUR);
    let chain = read(&short.tls()).unwrap().sign(&csr(KeyKind::EcdsaP256), &id(), None, now()).unwrap();
    assert_eq!(chain.leaf().not_after(), short.cert.not_after(), "never beyond the issuer's end");
}

#[test]
fn what_does_not_belong_together_is_refused_by_name() {
    let plugged = Plugged::new(1000 * HOUR);
    let stranger = Plugged::new(1000 * HOUR);
    let expired = Plugged::new(Duration::ZERO);
    let leaf = certified(&plugged.root, &plugged.key, false, HOUR);
    let key = |plugged: &Plugged| plugged.key.to_pem().unwrap();
    let root = |plugged: &Plugged| plugged.root.roots_pem().to_string();
    for (name, value, field, says) in [
        ("ca-key.pem", key(&stranger), "ca-key.pem", "not the key of"),
        ("ca-key.pem", "nonsense".into(), "ca-key.pem", "no private key"),
        ("ca-key.pem", String::new(), "ca-key.pem", "missing"),
        ("ca-cert.pem", leaf.to_pem(), "ca-cert.pem", "CA:TRUE"),
        ("ca-cert.pem", expired.cert.to_pem(), "ca-cert.pem", "expired"),
        (
            "ca-cert.pem",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
            "ca-cert.pem",
            "number 1",
        ),
        ("root-cert.pem", root(&stranger), "cert-chain.pem", "another root"),
        ("root-cert.pem", String::new(), "root-cert.pem", "missing"),
        ("cert-chain.pem", root(&plugged), "cert-chain.pem", "put it first"),
        ("cert-chain.pem", String::new(), "cert-chain.pem", "missing"),
        ("ca-crl.pem", "-----BEGIN X509 CRL-----\nMAA=\n-----END X509 CRL-----\n".into(), "ca-crl.pem", "no DER"),
    ] {
        let mut entries = plugged.istiod();
        entries.insert(name, value);
        let error = read(&entries).unwrap_err();
        assert_eq!(error.entry, field, "{error}");
        assert!(error.message.contains(says), "{error}");
    }
    let mut entries = plugged.tls();
    entries.insert("tls.key", key(&stranger));
    let told = read(&entries).unwrap_err().diagnostic(&ObjectRef::new("Secret", "istio-system", "cacerts")).to_string();
    assert_eq!(
        told,
        "Secret istio-system/cacerts data[tls.key]: is not the key of the first certificate in tls.crt; \
         replace both together [InvalidCABundle]"
    );
}

#[test]
fn a_root_may_be_plugged_in_without_a_chain() {
    let root = root(KeyKind::EcdsaP384);
    let mut entries = BTreeMap::from([
        ("ca-cert.pem", root.certificate().to_pem()),
        ("ca-key.pem", root.key().to_pem().unwrap()),
        ("root-cert.pem", root.roots_pem().to_string()),
    ]);
    let again = read(&entries).unwrap();
    let chain = again.sign(&csr(KeyKind::EcdsaP256), &id(), None, now()).unwrap();
    assert_eq!(chain.response().len(), 2);
    verify(&chain, root.roots(), now()).unwrap();
    entries.remove("root-cert.pem");
    let entries: Entries<'_> = entries.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
    assert!(bundle::self_signed(&entries, Lifetimes::default(), now()).is_ok(), "as istio-ca-secret holds it");
}

#[test]
fn a_chain_with_revocation_lists_needs_one_of_every_authority() {
    let plugged = Plugged::new(1000 * HOUR);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("index.txt"), "").unwrap();
    std::fs::write(path("crlnumber"), "01\n").unwrap();
    let config = format!(
        "[ca]\ndefault_ca=x\n[x]\ndatabase={}\ncrlnumber={}\ndefault_md=sha256\n",
        path("index.txt"),
        path("crlnumber")
    );
    std::fs::write(path("ca.cnf"), config).unwrap();
    let crl = |cert: &Certificate, key: &PrivateKey| {
        std::fs::write(path("cert.pem"), cert.to_pem()).unwrap();
        std::fs::write(path("key.pem"), key.to_pem().unwrap()).unwrap();
        let (config, cert, key) = (path("ca.cnf"), path("cert.pem"), path("key.pem"));
        openssl(&["ca", "-gencrl", "-config", &config, "-cert", &cert, "-keyfile", &key, "-crldays", "30"], "")
    };
    let Some(of_intermediate) = crl(&plugged.cert, &plugged.key) else { return };
    let of_root = crl(plugged.root.certificate(), plugged.root.key()).unwrap();
    let mut entries = plugged.istiod();
    entries.insert("ca-crl.pem", of_intermediate.clone());
    let error = read(&entries).unwrap_err();
    assert!(error.entry == "ca-crl.pem" && error.message.contains("O=cluster.local"), "{error}");
    entries.insert("ca-crl.pem", of_intermediate.clone() + &of_root);
    let authority = read(&entries).unwrap();
    assert_eq!(authority.crl_pem().map(|pem| pem.to_string()), Some(of_intermediate + &of_root));
}

#[test]
fn names_of_issuers_stay_as_they_are() {
    // Two components of one kind, as companies' directories have them.
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (key, cert) = (path("key.pem"), path("cert.pem"));
    let args = [
        "req",
        "-x509",
        "-nodes",
        "-newkey",
        "rsa:2048",
        "-subj",
        "/DC=com/DC=example/OU=a/OU=b/CN=Root \u{e9}",
        "-utf8",
    ];
    let files = ["-keyout", &key, "-out", &cert, "-days", "36500", "-addext", "keyUsage=critical,keyCertSign"];
    if openssl(&[&args[..], &files].concat(), "").is_none() {
        return;
    }
    let file = |path: &str| std::fs::read_to_string(path).unwrap();
    let entries =
        BTreeMap::from([("ca-cert.pem", file(&cert)), ("ca-key.pem", file(&key)), ("root-cert.pem", file(&cert))]);
    let later = SystemTime::now() + HOUR;
    let bytes: Entries<'_> = entries.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
    let authority = bundle::plugged_in(&bytes, Lifetimes::default(), later).unwrap();
    let chain = authority.sign(&csr(KeyKind::EcdsaP256), &id(), None, later).unwrap();
    verify(&chain, authority.roots(), later).unwrap();
}
