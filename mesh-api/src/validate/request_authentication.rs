//! RequestAuthentication: where keys and tokens are found.

mod jwks;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::at::{At, Check};
use super::labels::policy_targets;
use super::numbers::duration;
use super::{headers, url};
use crate::security::{JwtRule, RequestAuthenticationSpec};

pub(super) fn check(at: &At<'_>, _: &ObjectMeta, spec: &RequestAuthenticationSpec) {
    policy_targets(at, spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs);
    at.each("jwtRules", &spec.jwt_rules, rule);
}

fn rule(at: &At<'_>, rule: &JwtRule) {
    not_empty(at, "audiences", &rule.audiences, "audience");
    if rule.issuer.is_empty() && rule.jwks_uri.is_empty() {
        at.field("issuer").error("MissingIssuer", "issuer or jwksUri must be non-empty string; add one");
    }
    if !rule.jwks_uri.is_empty() {
        at.field("jwksUri").check("InvalidUrl", keys_url(&rule.jwks_uri));
    }
    if !rule.jwks.is_empty() {
        keys(&at.field("jwks"), &rule.jwks);
    }
    at.each("fromHeaders", &rule.from_headers, |at, header| {
        at.field("name").refuse(header.name.is_empty(), "MissingName", "location header name must be non-empty string");
    });
    not_empty(at, "fromParams", &rule.from_params, "location query");
    not_empty(at, "fromCookies", &rule.from_cookies, "cookie name");
    at.each("outputClaimToHeaders", &rule.output_claim_to_headers, |at, output| {
        if output.claim.is_empty() || output.header.is_empty() {
            at.error("MissingName", "outputClaimToHeaders header and claim value must be non-empty string; add both");
        } else {
            at.field("header").check("InvalidHeader", headers::plain_name(&output.header, true));
        }
    });
    duration(at, "timeout", rule.timeout);
}

fn not_empty(at: &At<'_>, field: &str, list: &[String], what: &str) {
    at.each(field, list, |at, text| {
        if text.is_empty() {
            at.error("EmptyValue", format!("{what} must be non-empty string; remove it"));
        }
    });
}

fn keys_url(text: &str) -> Check {
    let url = url::parse(text, false)?;
    if !matches!(url.scheme.as_str(), "http" | "https") {
        return Err(format!("URI scheme {:?} is not supported; write https://", url.scheme));
    }
    if !url.port.is_empty() && url.port.parse::<i64>().is_err() {
        return Err(format!("port {} of {text:?} is not a port", url.port));
    }
    Ok(())
}

fn keys(at: &At<'_>, text: &str) {
    match jwks::parse(text) {
        Err(why) => at.error("InvalidJwks", format!("jwks parse error: {why}")),
        Ok(keys) => {
            for (index, _) in keys.iter().enumerate().filter(|(_, key)| **key == jwks::Key::Private) {
                let message = format!(
                    "jwks key at index {index} contains private key material; only public keys are used for verification, so take it out"
                );
                at.warning("PrivateKey", message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::security::RequestAuthentication;
    use crate::validate::testing::check;

    #[test]
    fn rules() {
        let with = |rule: Value| json!({"jwtRules": [rule]});
        check::<RequestAuthentication>(&[
            (json!({}), &[]),
            (json!({"selector": {}}), &["W spec.selector"]),
            (with(json!({})), &["E spec.jwtRules[0].issuer: issuer or jwksUri must be non-empty"]),
            (with(json!({"issuer": "a"})), &[]),
            (with(json!({"jwksUri": "https://foo.com/cert"})), &[]),
            (with(json!({"jwksUri": "foo.com"})), &["E spec.jwtRules[0].jwksUri: URI scheme \"\" is not supported"]),
            (
                with(json!({"jwksUri": "https://foo.com:x"})),
                &["jwksUri: \"https://foo.com:x\" is not a URL: its port is not a number"],
            ),
            (with(json!({"jwksUri": "https://foo.com:99999999999999999999"})), &["is not a port"]),
            (
                with(json!({"issuer": "a", "audiences": [""], "fromParams": [""], "fromCookies": [""]})),
                &["audiences[0]", "fromParams[0]", "fromCookies[0]"],
            ),
            (
                with(json!({"issuer": "a", "fromHeaders": [{"prefix": "x"}]})),
                &["fromHeaders[0].name: location header name"],
            ),
            (with(json!({"issuer": "a", "outputClaimToHeaders": [{"header": "x-a", "claim": "b"}]})), &[]),
            (
                with(json!({"issuer": "a", "outputClaimToHeaders": [{"header": "x"}]})),
                &["header and claim value must be non-empty"],
            ),
            (
                with(json!({"issuer": "a", "outputClaimToHeaders": [{"header": "x.a", "claim": "b"}]})),
                &["outputClaimToHeaders[0].header"],
            ),
            (with(json!({"issuer": "a", "timeout": "0s"})), &["timeout: duration 0s"]),
            (with(json!({"issuer": "a", "jwks": "foo"})), &["jwks: jwks parse error"]),
            (
                with(json!({"issuer": "a", "jwks": r#"{"keys":[{"kty":"oct","k":"AQAB"}]}"#})),
                &["W spec.jwtRules[0].jwks: jwks key at index 0"],
            ),
        ]);
    }
}
