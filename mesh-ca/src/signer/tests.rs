use std::time::UNIX_EPOCH;

use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{CertificateSigningRequestCondition, CertificateSigningRequestStatus};
use serde_json::{Value, json};

use super::kubernetes::{outcome, signing_request};
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
    let (mount, role, token, ttl) = ("pki".into(), "mesh".into(), "s.token".into(), Duration::from_secs(3600));
    let vault = Vault::new(fake, VaultOptions { mount, role, token, ttl, roots });
    let pem = csr(None);
    let (csr, id) = (Csr::from_pem(pem.as_bytes()).unwrap(), id("sleep"));
    vault.sign(SigningRequest { csr: &csr, csr_pem: &pem, id: &id, ttl: None, signer: "", now: now() }).await
}

#[tokio::test]
async fn vault_signs_and_is_not_trusted_blindly() {
    let chain = by_vault(None, 200).await.unwrap();
    assert_eq!(chain.len(), 3, "leaf, issuer, roots");
    let leaf = Certificate::all_from_pem(chain[0].as_bytes()).unwrap();
    assert_eq!(leaf[0].uris(), [id("sleep").to_string()]);
    for failed in [by_vault(Some(id("other")), 200).await, by_vault(None, 403).await] {
        assert!(matches!(failed, Err(SignError::Unavailable(_))), "{failed:?}");
    }
}

#[test]
fn kubernetes_is_asked_for_the_callers_name_only() {
    let (sleep, other) = (id("sleep"), id("other"));
    for (asks_for, good) in [(Some(&sleep), true), (Some(&other), false), (None, false)] {
        let pem = csr(asks_for);
        let csr = Csr::from_pem(pem.as_bytes()).unwrap();
        let ttl = Some(Duration::from_secs(60));
        let request = SigningRequest { csr: &csr, csr_pem: &pem, id: &sleep, ttl, signer: "foo", now: now() };
        let object = signing_request(request, "signers.example", "default");
        assert_eq!(object.is_ok(), good, "{asks_for:?}");
        let Ok(mut object) = object else { continue };
        assert_eq!(object.spec.signer_name, "signers.example/foo");
        assert_eq!(object.spec.expiration_seconds, Some(600));
        let root = root();
        assert!(outcome(&object, request, root.roots()).unwrap().is_none(), "pending");
        let issued = |id: &SpiffeId| {
            let chain = root.sign(&Csr::from_pem(self::csr(None).as_bytes()).unwrap(), id, None, now()).unwrap();
            Some(ByteString(chain.presented_pem().into_bytes()))
        };
        let own = root.sign(&csr, &sleep, None, now()).unwrap();
        let certificate = Some(ByteString(own.presented_pem().into_bytes()));
        let mut status = CertificateSigningRequestStatus { certificate, ..Default::default() };
        object.status = Some(status.clone());
        assert_eq!(outcome(&object, request, root.roots()).unwrap().unwrap(), own.response());
        status.certificate = issued(&sleep);
        object.status = Some(status.clone());
        assert!(outcome(&object, request, root.roots()).is_err(), "of another key");
        let condition = CertificateSigningRequestCondition { type_: "Denied".into(), ..Default::default() };
        status.conditions = Some(vec![condition]);
        object.status = Some(status);
        assert!(outcome(&object, request, root.roots()).unwrap_err().to_string().contains("Denied"));
    }
}
