use std::time::UNIX_EPOCH;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use serde_json::{Value, json};

use super::kubernetes::{Signers, is_decided, outcome, signing_request};
use super::vault::{Http, Vault, VaultOptions};
use super::*;
use crate::{KeyKind, Lifetimes, PrivateKey, RootOptions};

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn id(account: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/default/sa/{account}").parse().unwrap()
}

fn root() -> Authority {
    let options = RootOptions { key: KeyKind::EcdsaP256, ..RootOptions::default() };
    Authority::self_signed(&options, Lifetimes::default(), now()).unwrap()
}

fn csr(asks_for: Option<&SpiffeId>) -> String {
    Csr::write(&PrivateKey::generate(KeyKind::EcdsaP256).unwrap(), asks_for).unwrap()
}

/// Vault, as far as it is asked here.
struct Fake {
    root: Authority,
    /// Signs for this one instead of who is asked for.
    confused: Option<SpiffeId>,
    status: u16,
}

impl Http for Fake {
    fn post<'a>(&'a self, path: &'a str, token: &'a str, body: String) -> Later<'a, Result<(u16, String), String>> {
        assert_eq!((path, token), ("/v1/pki/sign/mesh", "s.token"));
        let asked: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(asked["ttl"], "3600s");
        let csr = Csr::from_pem(asked["csr"].as_str().unwrap().as_bytes()).unwrap();
        let id = self.confused.clone().unwrap_or_else(|| asked["uri_sans"].as_str().unwrap().parse().unwrap());
        let chain = self.root.sign(&csr, &id, None, now()).unwrap();
        let data = json!({"certificate": chain.leaf().to_pem(), "issuing_ca": chain.roots_pem(), "serial_number": "1"});
        Box::pin(std::future::ready(Ok((self.status, json!({ "data": data }).to_string()))))
    }
}

async fn by_vault(confused: Option<SpiffeId>, status: u16) -> Result<Vec<String>, SignError> {
    let fake = Fake { root: root(), confused, status };
    let roots = fake.root.roots().to_vec();
    let (mount, role, token) = ("pki".into(), "mesh".into(), "s.token".into());
    let lifetimes = Lifetimes { default: Duration::from_secs(3600), ..Lifetimes::default() };
    let vault = Vault::new(fake, VaultOptions { mount, role, token, lifetimes, roots });
    let pem = csr(None);
    let (csr, id) = (Csr::from_pem(pem.as_bytes()).unwrap(), id("sleep"));
    vault.sign(SigningRequest { csr: &csr, csr_pem: &pem, id: &id, ttl: None, signer: "", now: now() }).await
}

#[tokio::test]
async fn vault_signs_and_is_not_trusted_blindly() {
    let chain = by_vault(None, 200).await.unwrap();
    assert_eq!(chain.len(), 2, "leaf and roots: the issuer is one");
    let leaf = Certificate::all_from_pem(chain[0].as_bytes()).unwrap();
    assert_eq!(leaf[0].uris(), [id("sleep").to_string()]);
    for failed in [by_vault(Some(id("other")), 200).await, by_vault(None, 403).await] {
        assert!(matches!(failed, Err(SignError::Unavailable(_))), "{failed:?}");
    }
}

/// A request of `id` by this text.
fn signed<T>(pem: &str, id: &SpiffeId, signer: &str, f: impl FnOnce(SigningRequest<'_>) -> T) -> T {
    let csr = Csr::from_pem(pem.as_bytes()).unwrap();
    let ttl = Some(Duration::from_secs(60));
    f(SigningRequest { csr: &csr, csr_pem: pem, id, ttl, signer, now: now() })
}

#[test]
fn kubernetes_is_asked_for_the_callers_name_only() {
    let (sleep, other) = (id("sleep"), id("other"));
    for (asks_for, good) in [(Some(&sleep), true), (Some(&other), false), (None, false)] {
        let object = signed(&csr(asks_for), &sleep, "", |request| {
            signing_request(request, &Signers { default: "x/y".into(), ..Signers::default() }, Lifetimes::default())
        });
        assert_eq!(object.is_ok(), good, "{asks_for:?}");
    }
    // A signer would take the subject and the extensions as they stand in the request.
    let san = format!("subjectAltName=URI:{sleep}");
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key.pem");
    for (subject, extension, good) in [
        ("/O=", None, true),
        ("/O=system:masters", None, false),
        ("/CN=me", None, false),
        ("/O=", Some("keyUsage=cRLSign"), false),
        ("/O=", Some("subjectKeyIdentifier=hash"), false),
    ] {
        let mut args = vec!["req", "-new", "-nodes", "-newkey", "ed25519", "-subj", subject, "-addext", &san];
        args.extend(extension.iter().flat_map(|extension| ["-addext", *extension]));
        args.extend(["-keyout", key.to_str().unwrap()]);
        let Some(pem) = crate::tests::openssl(&args, "") else { return };
        let csr = Csr::from_pem(pem.as_bytes()).unwrap();
        assert_eq!(csr.asks_only_for(&sleep), good, "{subject} {extension:?}");
    }
}

#[test]
fn callers_choose_among_the_signers_of_a_domain() {
    let sleep = id("sleep");
    let pem = csr(Some(&sleep));
    for (default, domain, wish, want) in [
        ("x.io/mesh", "", "", Some("x.io/mesh")),
        ("x.io/mesh", "y.io", "", Some("x.io/mesh")),
        ("x.io/mesh", "y.io", "foo", Some("y.io/foo")),
        ("", "y.io", "foo", Some("y.io/foo")),
        ("x.io/mesh", "", "foo", None),
        ("", "y.io", "", None),
    ] {
        let signers = Signers { default: default.into(), domain: domain.into() };
        let object = signed(&pem, &sleep, wish, |request| signing_request(request, &signers, Lifetimes::default()));
        let name = object.as_ref().ok().map(|object| &*object.spec.signer_name);
        assert_eq!(name, want, "{signers:?} {wish:?}");
        assert!(object.is_ok_and(|object| object.spec.expiration_seconds == Some(600)) || want.is_none());
    }
}

#[test]
fn what_a_signer_of_kubernetes_made_is_looked_at() {
    let sleep = id("sleep");
    let (root, stranger) = (root(), root());
    let pem = csr(Some(&sleep));
    let with = |certificate: Option<String>, condition: Option<&str>| CertificateSigningRequest {
        status: Some(CertificateSigningRequestStatus {
            certificate: certificate.map(|pem| ByteString(pem.into_bytes())),
            conditions: condition
                .map(|type_| vec![CertificateSigningRequestCondition { type_: type_.into(), ..Default::default() }]),
        }),
        ..Default::default()
    };
    let issued = |by: &Authority, pem: &str, id: &SpiffeId| {
        by.sign(&Csr::from_pem(pem.as_bytes()).unwrap(), id, None, now()).unwrap()
    };
    let own = issued(&root, &pem, &sleep);
    let outcome = |object: &CertificateSigningRequest, roots: &[Certificate]| {
        signed(&pem, &sleep, "", |request| outcome(object, request, roots)).map_err(|error| error.to_string())
    };
    let good = with(Some(own.presented_pem()), Some("Approved"));
    assert_eq!(outcome(&good, root.roots()).unwrap(), own.response());
    let with_root = with(Some(own.presented_pem() + own.roots_pem()), Some("Approved"));
    assert_eq!(outcome(&with_root, root.roots()).unwrap(), own.response(), "the root comes once");
    assert_eq!(outcome(&with_root, &[]).unwrap(), own.response(), "the root that the signer sent");
    for (object, decided, why) in [
        (with(None, Some("Approved")), false, "Pending"),
        (with(None, Some("Denied")), true, "Denied"),
        (with(Some(own.presented_pem()), Some("Failed")), true, "Failed"),
        (with(Some(issued(&root, &csr(None), &sleep).presented_pem()), None), true, "another key"),
        (with(Some(issued(&stranger, &pem, &sleep).presented_pem()), None), true, "does not lead to the roots"),
        (with(Some("nonsense".into()), None), true, "no certificates in PEM"),
    ] {
        assert_eq!(is_decided(&object), decided, "{why}");
        let told = outcome(&object, root.roots()).unwrap_err();
        assert!(told.contains(why), "{told}");
    }
    assert!(outcome(&good, &[]).is_err(), "no root is known at all");
    for (later, good) in [(2 * BACKDATE, true), (3 * BACKDATE, false)] {
        let own = root.sign(&Csr::from_pem(pem.as_bytes()).unwrap(), &sleep, None, now() + later).unwrap();
        let object = with(Some(own.presented_pem()), None);
        assert_eq!(outcome(&object, root.roots()).is_ok(), good, "it counts from {later:?} on");
    }
}
