use std::time::{Duration, UNIX_EPOCH};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use http::HeaderValue;
use k8s_openapi::api::authentication::v1::{TokenReviewStatus, UserInfo};
use serde_json::{Value, json};

use super::*;

/// An issuer of tokens.
pub(crate) struct Issuer {
    key: EcdsaKeyPair,
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits =
        |chunk: &[u8]| chunk.iter().fold(0u32, |all, byte| all << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
    let of = |chunk: &[u8]| {
        let bits = bits(chunk);
        let letters = (0..=chunk.len()).map(|i| ALPHABET[(bits >> (18 - 6 * i)) as usize & 63] as char);
        letters.collect::<String>()
    };
    bytes.chunks(3).map(of).collect()
}

impl Issuer {
    pub(crate) fn new() -> Self {
        Self { key: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap() }
    }

    pub(crate) fn jwks(&self) -> String {
        let point = self.key.public_key().as_ref();
        let (x, y) = (base64(&point[1..33]), base64(&point[33..]));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "use": "sig", "kid": "k", "alg": "ES256", "x": x, "y": y}]})
            .to_string()
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({"alg": "ES256", "kid": "k"}), claims)
    }

    fn token_with(&self, header: &Value, claims: &Value) -> String {
        let body = format!("{}.{}", base64(header.to_string().as_bytes()), base64(claims.to_string().as_bytes()));
        let signature = self.key.sign(&aws_lc_rs::rand::SystemRandom::new(), body.as_bytes()).unwrap();
        format!("{body}.{}", base64(signature.as_ref()))
    }
}

/// Claims of a good token for a service account.
pub(crate) fn claims(namespace: &str, account: &str, exp: u64) -> Value {
    json!({
        "iss": "https://issuer", "aud": ["istio-ca"], "exp": exp, "sub": format!("system:serviceaccount:{namespace}:{account}"),
        "kubernetes.io": {"namespace": namespace, "pod": {"name": "p-1", "uid": "u-1"}},
    })
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn changed(key: &str, value: Value) -> Value {
    let mut claims = claims("default", "sleep", 1_800_000_060);
    claims[key] = value;
    claims
}

#[test]
fn tokens_are_believed_only_when_all_is_right() {
    let (issuer, stranger) = (Issuer::new(), Issuer::new());
    let jwks = Jwks::new(&issuer.jwks(), "https://issuer", "td").unwrap();
    let good = claims("default", "sleep", 1_800_000_060);
    let caller = jwks.verify(&issuer.token(&good), now()).unwrap();
    assert_eq!(caller.id.to_string(), "spiffe://td/ns/default/sa/sleep");
    assert_eq!(caller.pod, Some(Pod { name: "p-1".into(), uid: "u-1".into() }));
    assert!(jwks.verify(&issuer.token(&changed("aud", json!("istio-ca"))), now()).is_ok(), "one audience as a text");
    let token = issuer.token(&good);
    let (body, signature) = token.rsplit_once('.').unwrap();
    let none = format!("{}.{}.", base64(br#"{"alg":"none"}"#), body.split_once('.').unwrap().1);
    for (case, token) in [
        ("expired", issuer.token(&changed("exp", json!(1_800_000_000)))),
        ("no end", issuer.token(&changed("exp", Value::Null))),
        ("not yet", issuer.token(&changed("nbf", json!(1_800_000_301)))),
        ("wrong audience", issuer.token(&changed("aud", json!(["vault"])))),
        ("wrong issuer", issuer.token(&changed("iss", json!("https://other")))),
        ("no account", issuer.token(&changed("sub", json!("alice")))),
        ("part of an account", issuer.token(&changed("sub", json!("system:serviceaccount:default")))),
        ("a path in the name", issuer.token(&changed("sub", json!("system:serviceaccount:default:a/ns/b")))),
        ("another's key", stranger.token(&good)),
        ("another kid", issuer.token_with(&json!({"alg": "ES256", "kid": "other"}), &good)),
        ("another algorithm", issuer.token_with(&json!({"alg": "RS256", "kid": "k"}), &good)),
        ("symmetric", issuer.token_with(&json!({"alg": "HS256", "kid": "k"}), &good)),
        ("unsigned", none),
        ("cut", body.to_owned()),
        ("other claims, same signature", format!("{}A.{signature}", body)),
        ("long", "a".repeat(20_000)),
        ("empty", String::new()),
    ] {
        assert!(jwks.verify(&token, now()).is_err(), "{case}");
    }
}

#[test]
fn key_sets_without_public_keys_are_refused() {
    for text in ["", "{}", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#] {
        assert!(Jwks::new(text, "i", "td").is_err(), "{text}");
    }
}

fn header(name: &'static str, value: &str) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())])
}

#[test]
fn forwarded_certificates_count_from_trusted_addresses_and_only_the_last() {
    let xfcc = Xfcc::new(["10.0.0.0/8", "fd00::/16"]).unwrap();
    let a = "By=spiffe://td/ns/x/sa/gw;Hash=00;Subject=\"CN=a,O=b\";URI=spiffe://td/ns/a/sa/a";
    let b = "Hash=11;URI=spiffe://td/ns/b/sa/b;DNS=b.example";
    let both = format!("{a},{b}");
    for (from, header_text, want) in [
        ("10.1.2.3:5", a, Some("spiffe://td/ns/a/sa/a")),
        ("10.1.2.3:5", both.as_str(), Some("spiffe://td/ns/b/sa/b")),
        ("[::ffff:10.1.2.3]:5", a, Some("spiffe://td/ns/a/sa/a")),
        ("[fd00::1]:5", a, Some("spiffe://td/ns/a/sa/a")),
        ("127.0.0.1:5", a, Some("spiffe://td/ns/a/sa/a")),
        ("11.1.2.3:5", a, None),
        ("[fd01::1]:5", a, None),
        ("10.1.2.3:5", "Hash=11;DNS=b.example", None),
        ("10.1.2.3:5", "", None),
    ] {
        let headers = header("x-forwarded-client-cert", header_text);
        let credentials = Credentials { address: from.parse().ok(), certificate: &[], headers: &headers };
        let caller = futures_now(xfcc.authenticate(credentials, now()));
        assert_eq!(caller.ok().map(|caller| caller.id.to_string()).as_deref(), want, "{from} {header_text}");
    }
    for wrong in ["10.0.0.0", "10.0.0.0/33", "x/8"] {
        assert!(Xfcc::new([wrong]).is_err(), "{wrong}");
    }
}

/// The value of a future that is there already.
fn futures_now<T>(mut future: Later<'_, T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("not ready"),
    }
}

struct Fixed(TokenReviewStatus);

impl TokenReviewer for Fixed {
    fn review<'a>(
        &'a self,
        token: &'a str,
        audiences: &'a [String],
        cluster: &'a str,
    ) -> Later<'a, Result<TokenReviewStatus, Unknown>> {
        assert_eq!((token, audiences, cluster), ("t", &["istio-ca".to_owned()][..], ""));
        Box::pin(std::future::ready(Ok(self.0.clone())))
    }
}

#[test]
fn reviews_of_tokens_are_read_with_care() {
    let user = UserInfo {
        username: Some("system:serviceaccount:default:sleep".into()),
        groups: Some(vec!["system:serviceaccounts".into()]),
        extra: Some(
            [("authentication.kubernetes.io/pod-name", "p"), ("authentication.kubernetes.io/pod-uid", "u")]
                .map(|(key, value)| (key.to_owned(), vec![value.to_owned()]))
                .into(),
        ),
        ..UserInfo::default()
    };
    let good = TokenReviewStatus {
        authenticated: Some(true),
        audiences: Some(vec!["istio-ca".into()]),
        user: Some(user.clone()),
        error: None,
    };
    let ask = |status: TokenReviewStatus| {
        let headers = header("authorization", "Bearer t");
        let credentials = Credentials { address: None, certificate: &[], headers: &headers };
        futures_now(KubernetesTokens::new(Fixed(status), "td").authenticate(credentials, now()))
    };
    let caller = ask(good.clone()).unwrap();
    assert_eq!(caller.id.to_string(), "spiffe://td/ns/default/sa/sleep");
    assert_eq!(caller.pod, Some(Pod { name: "p".into(), uid: "u".into() }));
    for (case, status) in [
        ("error", TokenReviewStatus { error: Some("bad".into()), ..good.clone() }),
        ("not authenticated", TokenReviewStatus { authenticated: Some(false), ..good.clone() }),
        ("no audience", TokenReviewStatus { audiences: None, ..good.clone() }),
        ("another audience", TokenReviewStatus { audiences: Some(vec!["vault".into()]), ..good.clone() }),
        ("a person", TokenReviewStatus { user: Some(UserInfo { groups: None, ..user.clone() }), ..good.clone() }),
        ("no user", TokenReviewStatus { user: None, ..good }),
    ] {
        assert!(ask(status).is_err(), "{case}");
    }
}

#[test]
fn a_certificate_has_one_identity_or_none() {
    let headers = HeaderMap::new();
    let of = |uris: &[&str]| {
        let uris: Vec<String> = uris.iter().map(|uri| (*uri).to_owned()).collect();
        futures_now(
            ClientCertificate.authenticate(Credentials { address: None, certificate: &uris, headers: &headers }, now()),
        )
    };
    assert_eq!(of(&["spiffe://td/ns/a/sa/b"]).unwrap().id.to_string(), "spiffe://td/ns/a/sa/b");
    for wrong in [&[][..], &["https://a"], &["spiffe://td/ns/a/sa/b", "spiffe://td/ns/a/sa/c"]] {
        assert!(of(wrong).is_err(), "{wrong:?}");
    }
}
