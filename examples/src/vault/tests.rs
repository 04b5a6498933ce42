//! Against a server that answers as Vault's PKI engine does: `POST /v1/<mount>/sign/<role>`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use mesh_ca::signer::vault::{Vault, VaultOptions};
use mesh_ca::signer::{Signer, SigningRequest};
use mesh_ca::{Authority, Certificate, Csr, KeyKind, Lifetimes, PrivateKey, RootOptions, SignError};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;

const TOKEN: &str = "hvs.mesh";

/// The PKI engine, with a role that signs SPIFFE ids of one trust domain.
struct Engine {
    authority: Authority,
    is_sealed: bool,
}

impl Engine {
    fn answer(&self, path: &str, token: Option<&str>, body: &Value) -> (u16, Value) {
        let refused = |status: u16, why: &str| (status, json!({ "errors": [why] }));
        if self.is_sealed {
            return refused(503, "Vault is sealed");
        }
        if token != Some(TOKEN) {
            return refused(403, "1 error occurred:\n\t* permission denied\n\n");
        }
        let Some(role) = path.strip_prefix("/v1/pki/sign/") else { return refused(404, "no handler for route") };
        if role != "mesh" {
            return refused(400, &format!("unknown role: {role}"));
        }
        let Ok(csr) = Csr::from_pem(body["csr"].as_str().unwrap_or_default().as_bytes()) else {
            return refused(400, "certificate request could not be parsed");
        };
        let uri = body["uri_sans"].as_str().unwrap_or_default();
        let (true, Ok(id)) = (uri.starts_with("spiffe://mesh/"), uri.parse()) else {
            return refused(400, "URI Subject Alternative Names not allowed by this role");
        };
        let ttl = body["ttl"].as_str().and_then(|ttl| ttl.strip_suffix('s')).and_then(|ttl| ttl.parse().ok());
        let chain = self.authority.sign(&csr, &id, ttl.map(Duration::from_secs), SystemTime::now()).unwrap();
        let (leaf, issuer) = (chain.leaf(), self.authority.certificate().to_pem());
        let expiration = leaf.not_after().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let serial = leaf.serial().iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
        let data = json!({
            "ca_chain": [issuer.trim_end()], "certificate": leaf.to_pem().trim_end(), "expiration": expiration,
            "issuing_ca": issuer.trim_end(), "serial_number": serial,
        });
        let envelope = json!({
            "request_id": "1", "lease_id": "", "renewable": false, "lease_duration": 0, "data": data,
            "wrap_info": null, "warnings": null, "auth": null,
        });
        (200, envelope)
    }

    /// Serves, and says where.
    async fn serve(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let engine = Arc::new(self);
        tokio::spawn(async move {
            while let Ok((io, _)) = listener.accept().await {
                let engine = engine.clone();
                let service = service_fn(move |request: hyper::Request<Incoming>| {
                    let engine = engine.clone();
                    async move {
                        let (parts, body) = request.into_parts();
                        let body = body.collect().await.unwrap().to_bytes();
                        let token = parts.headers.get("x-vault-token").and_then(|token| token.to_str().ok());
                        let body = serde_json::from_slice(&body).unwrap_or_default();
                        let (status, answer) = engine.answer(parts.uri.path(), token, &body);
                        let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
                        *response.status_mut() = StatusCode::from_u16(status).unwrap();
                        Ok::<_, Infallible>(response)
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(io), service);
                tokio::spawn(connection);
            }
        });
        format!("http://{address}")
    }
}

fn authority() -> Authority {
    let mut options = RootOptions::default();
    options.key = KeyKind::EcdsaP256;
    Authority::self_signed(&options, Lifetimes::default(), SystemTime::now()).unwrap()
}

fn options(roots: &[Certificate]) -> VaultOptions {
    let (mount, role, token) = ("pki".into(), "mesh".into(), TOKEN.into());
    VaultOptions { mount, role, token, lifetimes: Lifetimes::default(), roots: roots.to_vec() }
}

async fn sign(url: &str, options: VaultOptions, id: &str, ttl: u64) -> Result<Vec<String>, SignError> {
    let pem = Csr::write(&PrivateKey::generate(KeyKind::EcdsaP256).unwrap(), None).unwrap();
    let (csr, id) = (Csr::from_pem(pem.as_bytes()).unwrap(), id.parse().unwrap());
    let (ttl, now) = (Some(Duration::from_secs(ttl)), SystemTime::now());
    let request = SigningRequest { csr: &csr, csr_pem: &pem, id: &id, ttl, signer: "", now };
    Vault::new(Agent(url.to_owned()), options).sign(request).await
}

const SLEEP: &str = "spiffe://mesh/ns/default/sa/sleep";

#[tokio::test]
async fn vault_signs_for_the_mesh() {
    let authority = authority();
    let roots = authority.roots().to_vec();
    let url = Engine { authority, is_sealed: false }.serve().await;
    let chain = sign(&url, options(&roots), SLEEP, 3600).await.unwrap();
    let leaf = &Certificate::all_from_pem(chain[0].as_bytes()).unwrap()[0];
    assert_eq!(leaf.uris(), [SLEEP]);
    let left = leaf.not_after().duration_since(SystemTime::now()).unwrap().as_secs();
    assert!((3500..=3600).contains(&left), "{left}");
    assert_eq!(chain[1..], [roots[0].to_pem()], "the root comes last, and once");

    let with = |change: fn(&mut VaultOptions)| {
        let mut options = options(&roots);
        change(&mut options);
        options
    };
    for (options, id, why) in [
        (with(|options| options.token = "other".into()), SLEEP, "status 403: 1 error occurred"),
        (with(|options| options.role = "other".into()), SLEEP, "unknown role: other"),
        (with(|options| options.mount = "other".into()), SLEEP, "status 404"),
        (with(|_| {}), "spiffe://else/ns/default/sa/sleep", "not allowed by this role"),
        (with(|options| options.roots = self::authority().roots().to_vec()), SLEEP, "does not lead to the roots"),
    ] {
        let told = sign(&url, options, id, 3600).await.unwrap_err();
        assert!(matches!(told, SignError::Unavailable(_)) && told.to_string().contains(why), "{told}");
    }
    let long = sign(&url, options(&roots), SLEEP, 91 * 24 * 3600).await;
    assert!(matches!(long, Err(SignError::Ttl { .. })));
}

#[tokio::test]
async fn a_vault_that_does_not_sign_is_not_available() {
    let url = Engine { authority: authority(), is_sealed: true }.serve().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (url, why) in
        [(url, "Vault is sealed"), (format!("http://{nobody}"), "refused"), ("/x".into(), "names no host")]
    {
        let told = sign(&url, options(&[]), SLEEP, 3600).await.unwrap_err();
        assert!(matches!(told, SignError::Unavailable(_)) && told.to_string().contains(why), "{told}");
    }
}
