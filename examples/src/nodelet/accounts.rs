//! Tokens of service accounts, as a kubelet gets them from the apiserver. The control plane is told their key, so it believes
//! them without an apiserver.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mesh_ca::{KeyKind, PrivateKey};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::json;

/// Who signs.
pub const ISSUER: &str = "https://nodelet";
const KEY_ID: &str = "nodelet";

/// Signs tokens.
pub struct Accounts {
    key: EncodingKey,
}

impl std::fmt::Debug for Accounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Accounts")
    }
}

impl Accounts {
    /// With a key that nobody had before.
    ///
    /// # Errors
    /// The key cannot be made.
    pub fn new() -> Result<Self, String> {
        let pem = PrivateKey::generate(KeyKind::EcdsaP256).and_then(|key| key.to_pem());
        let pem = pem.map_err(|error| error.to_string())?;
        let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())?;
        Ok(Self { key: EncodingKey::from_ec_der(der.secret_der()) })
    }

    /// The key by which the tokens are checked: a JSON Web Key Set.
    ///
    /// # Errors
    /// The key cannot be written.
    pub fn jwks(&self) -> Result<String, String> {
        let mut jwk = Jwk::from_encoding_key(&self.key, Algorithm::ES256).map_err(|error| error.to_string())?;
        jwk.common.key_id = Some(KEY_ID.to_owned());
        serde_json::to_string(&JwkSet { keys: vec![jwk] }).map_err(|error| error.to_string())
    }

    /// A token of an account for an audience, living as long as asked for.
    ///
    /// # Errors
    /// It cannot be signed.
    pub fn token(&self, namespace: &str, account: &str, audience: &str, life: Duration) -> Result<String, String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|error| error.to_string())?;
        let claims = json!({
            "iss": ISSUER,
            "aud": [audience],
            "iat": now.as_secs(),
            "exp": (now + life).as_secs(),
            "sub": format!("system:serviceaccount:{namespace}:{account}"),
        });
        let header = Header { kid: Some(KEY_ID.to_owned()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, &claims, &self.key).map_err(|error| error.to_string())
    }
}
