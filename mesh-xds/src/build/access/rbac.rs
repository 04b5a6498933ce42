//! Rules as Envoy's RBAC filters read them.

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::config::rbac::v3::{
    Permission, Policy, Principal, Rbac,
    permission::{Rule as PermissionRule, Set as PermissionSet},
    principal::{Authenticated, Identifier, Set as PrincipalSet},
    rbac::Action,
};
use envoy_types::pb::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use envoy_types::pb::envoy::r#type::matcher::v3::{MetadataMatcher, PathMatcher, StringMatcher, path_matcher};

use super::matchers::{self, cidr, claim, header, host, metadata, quoted, regex, string};
use super::trust_domain::TrustDomains;
use crate::build::pack;
use crate::model::Settings;
use crate::model::authorization_policy::{AuthorizationPolicy, Clause, Client, Fact, Operation, Rule};

/// What is known where a filter stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Layer {
    /// Requests.
    Http,
    /// Connections alone.
    Tcp,
}

/// Builds rules of policies.
pub(super) struct Rules {
    domains: TrustDomains,
}

impl Rules {
    pub(super) fn new(settings: &Settings) -> Self {
        Self { domains: TrustDomains::new(&settings.mesh) }
    }

    /// The rules of some policies, by their names as `named` makes them.
    pub(super) fn rbac<'p>(
        &self,
        action: Action,
        layer: Layer,
        policies: impl Iterator<Item = &'p AuthorizationPolicy>,
        named: impl Fn(&str) -> String,
    ) -> Rbac {
        let rules = policies.flat_map(|policy| policy.rules.iter().map(move |rule| (policy, rule)));
        let built = rules.filter_map(|(policy, rule)| {
            Some((named(&policy.rule_name(rule)), self.rule(rule, layer, action == Action::Allow)?))
        });
        Rbac { action: action as i32, policies: built.collect(), ..Rbac::default() }
    }

    /// `None` for a rule of an ALLOW policy that asks what can't be known here: it allows nothing. In other policies such a
    /// condition does not count, so that they mean more.
    fn rule(&self, rule: &Rule, layer: Layer, strict: bool) -> Option<Policy> {
        let principals = alternatives(&rule.from, layer, strict, |client| self.principals(client))?;
        let permissions = alternatives(&rule.to, layer, strict, |operation| vec![permission(operation)])?;
        Some(Policy { permissions, principals, ..Policy::default() })
    }

    /// One of these holds exactly when the client is meant.
    fn principals(&self, client: &Client) -> Vec<Principal> {
        let peer =
            |name: StringMatcher| principal(Identifier::Authenticated(Authenticated { principal_name: Some(name) }));
        match client {
            Client::Principal(written) => {
                let own = self.domains.principals(written);
                own.iter().map(|name| peer(matchers::principal(name))).collect()
            }
            Client::TrustDomain(written) => {
                let own = self.domains.domains(written);
                own.iter().map(|domain| peer(matchers::trust_domain(domain))).collect()
            }
            Client::Namespace(written) => {
                let namespace: Vec<String> = written.split('*').map(quoted).collect();
                vec![peer(regex(format!(".*/ns/{}/.*", namespace.join(".*"))))]
            }
            Client::ServiceAccount { namespace, name } => {
                let (namespace, name) = (quoted(namespace), quoted(name));
                vec![peer(regex(format!("spiffe://.+/ns/{namespace}/(.+/|)sa/{name}(/.+)?")))]
            }
            Client::Address(range) => vec![principal(Identifier::DirectRemoteIp(cidr(range)))],
            Client::RemoteAddress(range) => vec![principal(Identifier::RemoteIp(cidr(range)))],
            Client::RequestPrincipal { issuer, subject } => {
                let both = [("iss", issuer), ("sub", subject)];
                let both = both.map(|(name, value)| metadata_principal(claim(&[name.into()], value, false)));
                vec![Principal::all(both.into())]
            }
            Client::Claim { path, value } => vec![metadata_principal(claim(path, value, true))],
            Client::Header { name, value } => vec![principal(Identifier::Header(header(name, value)))],
        }
    }
}

fn permission(operation: &Operation) -> Permission {
    let rule = match operation {
        Operation::Host(value) => PermissionRule::Header(host(value)),
        Operation::Method(value) => PermissionRule::Header(header(":method", value)),
        Operation::Path(value) => {
            PermissionRule::UrlPath(PathMatcher { rule: Some(path_matcher::Rule::Path(string(value))) })
        }
        Operation::PathTemplate(template) => {
            let config = UriTemplateMatchConfig { path_template: template.to_string() };
            PermissionRule::UriTemplate(TypedExtensionConfig {
                name: "uri-template".to_owned(),
                typed_config: Some(pack(&config)),
            })
        }
        Operation::Port(port) => PermissionRule::DestinationPort(u32::from(*port)),
        Operation::Address(range) => PermissionRule::DestinationIp(cidr(range)),
        Operation::ServerName(value) => PermissionRule::RequestedServerName(string(value)),
        Operation::Metadata { filter, key, in_list, value } => {
            let value = matchers::value(string(value));
            let value = if *in_list { matchers::one_of_list(value) } else { value };
            return metadata_permission(metadata(filter, std::slice::from_ref(key), value));
        }
    };
    Permission { rule: Some(rule) }
}

fn principal(identifier: Identifier) -> Principal {
    Principal { identifier: Some(identifier) }
}

#[allow(deprecated)] // Istio's form, which filters of users and tools know; the newer one says the same
fn metadata_permission(matcher: MetadataMatcher) -> Permission {
    Permission { rule: Some(PermissionRule::Metadata(matcher)) }
}

#[allow(deprecated)] // as above
fn metadata_principal(matcher: MetadataMatcher) -> Principal {
    principal(Identifier::Metadata(matcher))
}

/// The terms of which RBAC's two languages are made.
trait Term: Sized {
    fn any() -> Self;
    fn all(terms: Vec<Self>) -> Self;
    fn one(terms: Vec<Self>) -> Self;
    fn not(term: Self) -> Self;
}

impl Term for Permission {
    fn any() -> Self {
        Self { rule: Some(PermissionRule::Any(true)) }
    }
    fn all(rules: Vec<Self>) -> Self {
        Self { rule: Some(PermissionRule::AndRules(PermissionSet { rules })) }
    }
    fn one(rules: Vec<Self>) -> Self {
        Self { rule: Some(PermissionRule::OrRules(PermissionSet { rules })) }
    }
    fn not(rule: Self) -> Self {
        Self { rule: Some(PermissionRule::NotRule(Box::new(rule))) }
    }
}

impl Term for Principal {
    fn any() -> Self {
        Self { identifier: Some(Identifier::Any(true)) }
    }
    fn all(ids: Vec<Self>) -> Self {
        Self { identifier: Some(Identifier::AndIds(PrincipalSet { ids })) }
    }
    fn one(ids: Vec<Self>) -> Self {
        Self { identifier: Some(Identifier::OrIds(PrincipalSet { ids })) }
    }
    fn not(id: Self) -> Self {
        Self { identifier: Some(Identifier::NotId(Box::new(id))) }
    }
}

/// One of these holds exactly when one of the conjunctions does. Envoy wants at least one term.
fn alternatives<T: Fact, M: Term>(
    conjunctions: &[Vec<Clause<T>>],
    layer: Layer,
    strict: bool,
    build: impl Fn(&T) -> Vec<M>,
) -> Option<Vec<M>> {
    if conjunctions.is_empty() {
        return Some(vec![M::not(M::any())]);
    }
    conjunctions.iter().map(|clauses| conjunction(clauses, layer, strict, &build)).collect()
}

fn conjunction<T: Fact, M: Term>(
    clauses: &[Clause<T>],
    layer: Layer,
    strict: bool,
    build: &impl Fn(&T) -> Vec<M>,
) -> Option<M> {
    let terms = |facts: &[T]| -> Option<Vec<M>> {
        let unknown = |fact: &&T| layer == Layer::Tcp && fact.is_of_http();
        if strict && facts.iter().any(|fact| unknown(&fact)) {
            return None;
        }
        Some(facts.iter().filter(|fact| !unknown(fact)).flat_map(build).collect())
    };
    let mut all = Vec::new();
    for clause in clauses {
        let (one_of, none_of) = (terms(&clause.one_of)?, terms(&clause.none_of)?);
        if !one_of.is_empty() {
            all.push(M::one(one_of));
        }
        if !none_of.is_empty() {
            all.push(M::not(M::one(none_of)));
        }
    }
    if all.is_empty() {
        all.push(M::any());
    }
    Some(M::all(all))
}
