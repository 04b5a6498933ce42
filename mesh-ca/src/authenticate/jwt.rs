//! Tokens of an issuer whose keys are at hand: projected service account tokens, checked without asking a cluster.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;

use super::{AUDIENCE, Authenticator, Caller, Credentials, Pod, Unknown, bearer, service_account};
use crate::signer::Later;

/// How early a token may be used before its `nbf`, for clocks that differ: as go-oidc allows.
const EARLY: Duration = Duration::from_secs(5 * 60);
/// The longest token that is looked at.
const MAX_TOKEN: usize = 16 * 1024;
/// Signatures that only the holder of a private key can make. Never HMAC: there, whoever can verify can sign.
const ALGORITHMS: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Believes tokens that one of these keys signed.
pub struct Jwks {
    keys: Vec<(Option<String>, DecodingKey)>,
    issuer: String,
    audiences: Vec<String>,
    trust_domain: String,
}

/// Why a key set is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JwksError {
    /// Not JSON, or not of the form `{"keys": [...]}`.
    #[error("no JSON Web Key Set: {0}; expected {{\"keys\": [...]}}")]
    Malformed(#[from] serde_json::Error),
    /// Nothing in it can verify a signature.
    #[error("the JSON Web Key Set has no RSA, EC or Ed25519 key for signatures; symmetric keys are not accepted")]
    NoKeys,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    nbf: Option<f64>,
    #[serde(rename = "kubernetes.io")]
    kubernetes: Option<Bound>,
}

/// What a token is bound to.
#[derive(Deserialize)]
struct Bound {
    pod: Option<BoundPod>,
}

#[derive(Deserialize)]
struct BoundPod {
    name: String,
    uid: String,
}

impl Jwks {
    /// Keys from the text of a JSON Web Key Set, whose tokens name `issuer` and are meant for [`AUDIENCE`].
    ///
    /// # Errors
    /// When there is no key in it that we can use.
    pub fn new(json: &str, issuer: &str, trust_domain: &str) -> Result<Self, JwksError> {
        let set: JwkSet = serde_json::from_str(json)?;
        let keys: Vec<_> = set.keys.iter().filter_map(key).collect();
        if keys.is_empty() {
            return Err(JwksError::NoKeys);
        }
        let audiences = vec![AUDIENCE.to_owned()];
        Ok(Self { keys, issuer: issuer.to_owned(), audiences, trust_domain: trust_domain.to_owned() })
    }

    /// Accepts tokens for these audiences instead.
    #[must_use]
    pub fn audiences(mut self, audiences: Vec<String>) -> Self {
        self.audiences = audiences;
        self
    }

    /// Who a token is of.
    ///
    /// # Errors
    /// When it is not to be believed, or not now.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Caller, Unknown> {
        if token.len() > MAX_TOKEN {
            return Err(Unknown(format!("the token has more than {MAX_TOKEN} bytes")));
        }
        let unreadable = |error: jsonwebtoken::errors::Error| Unknown(format!("the token is not accepted: {error}"));
        let header = decode_header(token).map_err(unreadable)?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(Unknown(format!("tokens signed by {:?} are not accepted", header.alg)));
        }
        let mut rules = Validation::new(header.alg);
        rules.set_issuer(&[&self.issuer]);
        rules.set_audience(&self.audiences);
        rules.set_required_spec_claims(&["iss", "aud", "exp"]);
        // The library would ask the machine for the time.
        rules.validate_exp = false;
        rules.validate_nbf = false;
        let named = |id: &Option<String>| header.kid.is_none() || id.is_none() || *id == header.kid;
        let mut verified = Err(Unknown("no key of the issuer has the token's kid".into()));
        for (_, key) in self.keys.iter().filter(|(id, key)| named(id) && key.family() == header.alg.family()) {
            verified = decode::<Claims>(token, key, &rules).map_err(unreadable);
            if verified.is_ok() {
                break;
            }
        }
        let claims = verified?.claims;
        let at = |seconds: f64| UNIX_EPOCH + Duration::try_from_secs_f64(seconds).unwrap_or_default();
        if now >= at(claims.exp) {
            return Err(Unknown("the token has expired".into()));
        }
        if claims.nbf.is_some_and(|from| now + EARLY < at(from)) {
            return Err(Unknown("the token is not valid yet".into()));
        }
        let id = service_account(&self.trust_domain, &claims.sub)?;
        let pod = claims.kubernetes.and_then(|bound| bound.pod).map(|pod| Pod { name: pod.name, uid: pod.uid });
        Ok(Caller { id, pod })
    }
}

/// A key that signs, with its name.
fn key(jwk: &Jwk) -> Option<(Option<String>, DecodingKey)> {
    let symmetric = matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_));
    let signs = !matches!(jwk.common.public_key_use, Some(jsonwebtoken::jwk::PublicKeyUse::Encryption));
    let key = DecodingKey::from_jwk(jwk).ok().filter(|_| signs && !symmetric)?;
    Some((jwk.common.key_id.clone(), key))
}

impl Authenticator for Jwks {
    fn name(&self) -> &'static str {
        "token by JWKS"
    }

    fn authenticate<'a>(&'a self, credentials: Credentials<'a>, now: SystemTime) -> Later<'a, Result<Caller, Unknown>> {
        Box::pin(std::future::ready(bearer(credentials.headers).and_then(|token| self.verify(token, now))))
    }
}
