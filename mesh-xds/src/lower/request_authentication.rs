//! RequestAuthentications.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_api::security::{JwtRule as WrittenRule, RequestAuthentication as Written, TokenPresence};
use mesh_api::types::Duration;
use mesh_api::{Name, ObjectRef};

use super::attachment::attachment;
use super::{Lowered, Told, created, is_header_name};
use crate::model::InNamespace;
use crate::model::request_authentication::{JwtRule, KeySource, Keys, RequestAuthentication, is_key_set};
use crate::snapshot::Row;

/// Claims that are always lists separated by spaces.
const SPACE_DELIMITED: [&str; 2] = ["permission", "scope"];
/// How long fetching keys may take where nothing else is said, in seconds.
const TIMEOUT: i64 = 5;

/// Envoy refuses a whole listener for a header without a proper name.
const NO_HEADER: &str =
    "a header has a name without spaces, and what is read or written is named, too; this does not count";

/// Lowers a RequestAuthentication.
pub(crate) fn lower(object: &Written) -> Lowered {
    let source = ObjectRef::new(
        "RequestAuthentication",
        object.metadata.namespace.as_deref().unwrap_or_default(),
        object.metadata.name.as_deref().unwrap_or_default(),
    );
    let mut told = Told::about(&source);
    let spec = &object.spec;
    let attachment = attachment(spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs, &mut told);
    let rules = spec.jwt_rules.iter().enumerate();
    let rules = rules.map(|(i, written)| rule(&format!("spec.jwtRules[{i}]"), written, &mut told)).collect();
    let row = RequestAuthentication { created: created(&object.metadata), attachment, rules, source: source.clone() };
    (vec![Row::RequestAuthentication(InNamespace::from(&source), Arc::new(row))], told.diagnostics).into()
}

fn rule(path: &str, written: &WrittenRule, told: &mut Told<'_>) -> JwtRule {
    if written.issuer.is_empty() {
        let message = "a token is known by its issuer; name it as its claim `iss` has it";
        told.error("NoIssuer", format!("{path}.issuer"), message);
    }
    let delimited: BTreeSet<Name> =
        SPACE_DELIMITED.into_iter().map(Name::from).chain(names(&written.space_delimited_claims)).collect();
    let mut from_headers = Vec::new();
    for (i, from) in written.from_headers.iter().enumerate() {
        match is_header_name(&from.name) && !from.prefix.contains(char::is_control) {
            true => from_headers.push((from.name.as_str().into(), from.prefix.as_str().into())),
            false => told.error("InvalidHeader", format!("{path}.fromHeaders[{i}]"), NO_HEADER),
        }
    }
    let mut claims_to = Vec::new();
    for (i, to) in written.output_claim_to_headers.iter().enumerate() {
        match is_header_name(&to.header) && !to.claim.is_empty() {
            true => claims_to.push((to.header.as_str().into(), to.claim.as_str().into())),
            false => told.error("InvalidHeader", format!("{path}.outputClaimToHeaders[{i}]"), NO_HEADER),
        }
    }
    let payload_to = written.output_payload_to_header.as_str();
    if !payload_to.is_empty() && !is_header_name(payload_to) {
        told.error("InvalidHeader", format!("{path}.outputPayloadToHeader"), NO_HEADER);
    }
    JwtRule {
        issuer: written.issuer.as_str().into(),
        audiences: names(&written.audiences).collect(),
        keys: keys(path, written, told),
        from_headers,
        from_params: names(&written.from_params).collect(),
        from_cookies: names(&written.from_cookies).collect(),
        forward: written.forward_original_token,
        payload_to: Some(payload_to).filter(|name| is_header_name(name)).unwrap_or_default().into(),
        claims_to,
        timeout: written.timeout.filter(|t| !t.is_negative()).unwrap_or(Duration::from_secs(TIMEOUT)),
        space_delimited: delimited.into_iter().collect(),
        required: written.presence == TokenPresence::Required,
    }
}

/// Envoy refuses a whole listener for an empty name, so those are left out.
fn names(written: &[String]) -> impl Iterator<Item = Name> + '_ {
    written.iter().filter(|name| !name.is_empty()).map(|name| name.as_str().into())
}

/// Keys as written, or where to fetch them. Both together: those that are written.
fn keys(path: &str, written: &WrittenRule, told: &mut Told<'_>) -> Keys {
    if !written.jwks.is_empty() {
        if !is_key_set(&written.jwks) {
            let message = "this is no JSON Web Key Set, an object with a list of `keys`; no token is taken";
            told.error("InvalidKeys", format!("{path}.jwks"), message);
        }
        return Keys::Inline(written.jwks.as_str().into());
    }
    if written.jwks_uri.is_empty() {
        return Keys::Fetched(KeySource::Issuer(written.issuer.as_str().into()));
    }
    if !["http://", "https://"].iter().any(|scheme| written.jwks_uri.starts_with(scheme)) {
        let message = "keys can only be fetched from a URL that begins with http:// or https://; no token is taken";
        told.error("InvalidUrl", format!("{path}.jwksUri"), message);
    }
    Keys::Fetched(KeySource::Url(written.jwks_uri.as_str().into()))
}

#[cfg(test)]
mod tests {
    use mesh_api::Object;

    use super::*;
    use crate::testing::objects;

    fn lowered(rule: &str) -> (JwtRule, Vec<String>) {
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: r, namespace: ns}}\nspec: {{jwtRules: [{rule}]}}\n"
        );
        let Object::RequestAuthentication(object) = objects(&text).remove(0) else { panic!("no policy") };
        let Lowered { rows, diagnostics } = lower(&object);
        let Some(Row::RequestAuthentication(_, row)) = rows.into_iter().next() else { panic!("no row") };
        (row.rules[0].clone(), diagnostics.iter().map(|d| format!("{} {}", d.code, d.path)).collect())
    }

    #[test]
    fn defaults_and_sources_of_keys() {
        let (rule, told) = lowered("{issuer: a, spaceDelimitedClaims: [x, scope]}");
        assert!(told.is_empty(), "{told:?}");
        assert_eq!(rule.keys, Keys::Fetched(KeySource::Issuer("a".into())));
        assert_eq!((rule.timeout, rule.required), (Duration::from_secs(5), false));
        assert_eq!(rule.space_delimited, ["permission", "scope", "x"].map(Name::from));
        let (rule, _) = lowered("{issuer: a, jwksUri: 'https://a/keys'}");
        assert_eq!(rule.keys, Keys::Fetched(KeySource::Url("https://a/keys".into())));
        let (rule, told) = lowered("{issuer: a, jwks: '{\"keys\": []}', jwksUri: 'https://a'}");
        assert_eq!((rule.keys, told.len()), (Keys::Inline("{\"keys\": []}".into()), 0));
    }

    #[test]
    fn mistakes_are_told() {
        for (rule, want) in [
            ("{issuer: ''}", "NoIssuer spec.jwtRules[0].issuer"),
            ("{issuer: a, jwks: nonsense}", "InvalidKeys spec.jwtRules[0].jwks"),
            ("{issuer: a, jwksUri: 'file:///etc/passwd'}", "InvalidUrl spec.jwtRules[0].jwksUri"),
            ("{issuer: a, fromHeaders: [{name: ''}]}", "InvalidHeader spec.jwtRules[0].fromHeaders[0]"),
            (
                "{issuer: a, outputClaimToHeaders: [{header: a, claim: ''}]}",
                "InvalidHeader spec.jwtRules[0].outputClaimToHeaders[0]",
            ),
            ("{issuer: a, outputPayloadToHeader: 'a b'}", "InvalidHeader spec.jwtRules[0].outputPayloadToHeader"),
        ] {
            assert_eq!(lowered(rule).1, [want], "{rule}");
        }
    }
}
