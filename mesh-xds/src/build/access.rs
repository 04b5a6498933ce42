//! What a request must pass before it is served: the filters for the policies of a workload, in Istio's order (CUSTOM, tokens,
//! AUDIT, which only marks, DENY, ALLOW).
//!
//! They depend on a namespace and labels alone, so all chains of all listeners of all pods of a workload share one result,
//! encoded once. What can't be enforced as written denies: a mistake must not open a door.

mod ext_authz;
mod jwt;
mod matchers;
mod rbac;
mod trust_domain;
mod upstream;

use std::collections::{BTreeMap, BTreeSet};

use envoy_types::pb::envoy::config::listener::v3::{Filter, filter};
use envoy_types::pb::envoy::config::rbac::v3::{Rbac, rbac::Action as RbacAction};
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac as HttpRbac;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use envoy_types::pb::envoy::extensions::filters::network::rbac::v3::Rbac as NetworkRbac;
use mesh_api::{Diagnostic, FieldPath, Name};

use crate::class::{self, Server};
use crate::memo::Query;
use crate::model::authorization_policy::{Action, AuthorizationPolicy};
use crate::model::{Labels, Settings};
use crate::resource::pack;
use crate::scope::settings;
use crate::shared::Shared;
use crate::view::View;

use ext_authz::ProviderOf;
pub(crate) use jwt::{KeyProblems, WantedKeys};
use rbac::{Layer, Rules};

/// The name of the RBAC filter for HTTP.
pub(crate) const HTTP_RBAC: &str = "envoy.filters.http.rbac";
/// The name of the RBAC filter for bytes.
pub(crate) const NETWORK_RBAC: &str = "envoy.filters.network.rbac";
/// The name of the filter that asks an authorizer about HTTP requests.
const HTTP_EXT_AUTHZ: &str = "envoy.filters.http.ext_authz";
/// The name of the filter that asks an authorizer about connections.
const NETWORK_EXT_AUTHZ: &str = "envoy.filters.network.ext_authz";

/// Lets several authorizers have a say about one workload.
const SEVERAL_PROVIDERS: &str = "PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS";
/// Appended to the names of rules that deny because nobody can decide.
const BAD_CUSTOM: &str = "-deny-due-to-bad-CUSTOM-action";

/// What the RBAC filter in front of an authorizer leaves in the metadata begins so.
const CUSTOM_PREFIX: &str = "istio_ext_authz_";

/// A workload, as far as policies can tell it from others.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Guarded {
    /// Its namespace.
    namespace: Name,
    /// Its labels, as far as selectors look at them.
    labels: Labels,
}

/// The filters for a workload's policies.
#[derive(Clone, PartialEq, Default, Debug)]
pub(crate) struct Access {
    /// First in a chain that speaks HTTP.
    pub(crate) http: Vec<HttpFilter>,
    /// First in a chain of bytes.
    pub(crate) tcp: Vec<Filter>,
}

/// The filters for a workload's policies.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct AccessTo {
    guarded: Guarded,
    /// Routes may be chosen by what tokens say.
    routes_by_claims: bool,
}

impl AccessTo {
    /// What is called at the ports of a sidecar, whose routes all lead to its application.
    pub(crate) fn sidecar(server: &Server) -> Self {
        let guarded = Guarded { namespace: server.namespace.clone(), labels: server.labels.clone() };
        Self { guarded, routes_by_claims: false }
    }
    /// What is called at the ports of a gateway.
    pub(crate) fn gateway(client: &class::Client) -> Self {
        let guarded = Guarded { namespace: client.namespace.clone(), labels: client.labels.clone() };
        Self { guarded, routes_by_claims: true }
    }
}

impl Query for AccessTo {
    type Out = Access;

    fn run(&self, view: &View<'_>) -> Access {
        let policies = view.get(&PoliciesOf(self.guarded.clone()));
        let settings = settings(view);
        let rules = Rules::new(&settings);
        let mut out = Access::default();
        policies.custom(view, &settings, &rules, &mut out);
        out.http.extend(jwt::filter(view, &self.guarded, self.routes_by_claims));
        policies.local(&rules, &mut out);
        out
    }
}

/// The AuthorizationPolicies for a workload: of the root namespace and of its own.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct PoliciesOf(Guarded);

/// AuthorizationPolicies by name.
#[derive(PartialEq, Debug, Default)]
struct Policies(Vec<Shared<AuthorizationPolicy>>);

impl Query for PoliciesOf {
    type Out = Policies;

    fn run(&self, view: &View<'_>) -> Policies {
        let Guarded { namespace, labels } = &self.0;
        let settings = settings(view);
        let root = &settings.root_namespace;
        let in_root = view.bucket(|s| &s.authorization_policies, root);
        let own = view.bucket(|s| &s.authorization_policies, namespace).filter(|_| namespace != root);
        let all = in_root.chain(own).map(|(_, policy)| policy);
        let meant =
            |p: &AuthorizationPolicy| p.attachment.includes(&p.source.namespace, (namespace, labels), &settings);
        Policies(all.filter(|policy| meant(policy)).map(Shared::from).collect())
    }
}

impl Policies {
    fn with<'p>(&'p self, action: &'p Action) -> impl Iterator<Item = &'p AuthorizationPolicy> {
        self.0.iter().map(|policy| &**policy).filter(move |policy| policy.action == *action)
    }

    /// Filters that decide by themselves.
    fn local(&self, rules: &Rules, out: &mut Access) {
        let actions = [
            (Action::Audit, RbacAction::Log, ""),
            (Action::Deny, RbacAction::Deny, "istio_dry_run_deny_"),
            (Action::Allow, RbacAction::Allow, "istio_dry_run_allow_"),
        ];
        for (action, rbac, shadow_prefix) in actions {
            let some = |layer, dry_run| {
                let mut policies = self.with(&action).filter(|policy| policy.dry_run == dry_run).peekable();
                policies.peek()?;
                Some(rules.rbac(rbac, layer, policies, str::to_owned))
            };
            let (in_force, shadow) = (some(Layer::Http, false), some(Layer::Http, true));
            if in_force.is_none() && shadow.is_none() {
                continue;
            }
            let prefix = if shadow.is_some() { shadow_prefix } else { "" };
            out.http.push(http_rbac(in_force, shadow, prefix));
            out.tcp.push(network_rbac(some(Layer::Tcp, false), some(Layer::Tcp, true), prefix));
        }
    }

    /// The policies that leave the decision to a provider, by its name.
    fn by_provider(&self) -> BTreeMap<&Name, Vec<&AuthorizationPolicy>> {
        let mut out: BTreeMap<&Name, Vec<&AuthorizationPolicy>> = BTreeMap::new();
        for policy in &self.0 {
            if let Action::Custom(provider) = &policy.action {
                out.entry(provider).or_default().push(policy);
            }
        }
        out
    }

    /// Filters that find out whether an authorizer is to be asked, each with the one that asks it.
    fn custom(&self, view: &View<'_>, settings: &Settings, rules: &Rules, out: &mut Access) {
        let by_provider = self.by_provider();
        let too_many = by_provider.len() > 1 && !settings.features.flag(SEVERAL_PROVIDERS, false);
        for (name, policies) in by_provider {
            let provider = view.get(&ProviderOf(name.clone()));
            let rbac = |layer, named: &dyn Fn(&str) -> String| {
                rules.rbac(RbacAction::Deny, layer, policies.iter().copied(), named)
            };
            let asked = |rule: &str| format!("{}{rule}", ext_authz::rule_prefix(name));
            match &*provider {
                Ok(provider) if !too_many => {
                    out.http.push(http_rbac(None, Some(rbac(Layer::Http, &asked)), CUSTOM_PREFIX));
                    out.http.push(provider.http.clone());
                    // An authorizer that speaks HTTP can't be asked about bytes.
                    if let Some(tcp) = &provider.tcp {
                        out.tcp.push(network_rbac(None, Some(rbac(Layer::Tcp, &asked)), CUSTOM_PREFIX));
                        out.tcp.push(tcp.clone());
                    }
                }
                _ => {
                    let denied = |rule: &str| format!("{}{BAD_CUSTOM}", asked(rule));
                    out.http.push(http_rbac(Some(rbac(Layer::Http, &denied)), None, ""));
                    out.tcp.push(network_rbac(Some(rbac(Layer::Tcp, &denied)), None, ""));
                }
            }
        }
    }
}

fn http_rbac(rules: Option<Rbac>, shadow_rules: Option<Rbac>, shadow_prefix: &str) -> HttpFilter {
    let config =
        HttpRbac { rules, shadow_rules, shadow_rules_stat_prefix: shadow_prefix.to_owned(), ..HttpRbac::default() };
    HttpFilter {
        name: HTTP_RBAC.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(pack(&config))),
        ..HttpFilter::default()
    }
}

fn network_rbac(rules: Option<Rbac>, shadow_rules: Option<Rbac>, shadow_prefix: &str) -> Filter {
    let config = NetworkRbac {
        rules,
        shadow_rules,
        stat_prefix: "tcp.".to_owned(),
        shadow_rules_stat_prefix: shadow_prefix.to_owned(),
        ..NetworkRbac::default()
    };
    Filter { name: NETWORK_RBAC.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(pack(&config))) }
}

/// CUSTOM policies whose provider can't be asked: what they mean is denied.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct ProviderProblems;

impl Query for ProviderProblems {
    type Out = Vec<Diagnostic>;

    fn run(&self, view: &View<'_>) -> Vec<Diagnostic> {
        let policies = view.all(|s| &s.authorization_policies).map(|(_, policy)| policy);
        let told = policies.filter_map(|policy| {
            let Action::Custom(provider) = &policy.action else { return None };
            // That none is named lowering has told.
            let problem = view.get(&ProviderOf(provider.clone())).as_ref().as_ref().err()?.clone();
            (!provider.is_empty()).then(|| bad_provider(policy, &problem))
        });
        told.collect()
    }
}

/// CUSTOM policies of several providers for one workload, unless that was asked for: what they mean is denied.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct CompetingProviders(Guarded);

impl CompetingProviders {
    /// Those that a proxy has to follow.
    pub(crate) fn of(client: &class::Client) -> Self {
        Self(Guarded { namespace: client.namespace.clone(), labels: client.labels.clone() })
    }
}

impl Query for CompetingProviders {
    type Out = Vec<Diagnostic>;

    fn run(&self, view: &View<'_>) -> Vec<Diagnostic> {
        let policies = view.get(&PoliciesOf(self.0.clone()));
        let by_provider = policies.by_provider();
        if by_provider.len() < 2 || settings(view).features.flag(SEVERAL_PROVIDERS, false) {
            return Vec::new();
        }
        let names: BTreeSet<&str> = by_provider.keys().map(|name| name.as_str()).collect();
        let names: Vec<&str> = names.into_iter().collect();
        let problem = format!(
            "policies for one workload name several providers ({}); name one, or set {SEVERAL_PROVIDERS}=true",
            names.join(", ")
        );
        by_provider.values().flatten().map(|policy| bad_provider(policy, &problem)).collect()
    }
}

fn bad_provider(policy: &AuthorizationPolicy, problem: &str) -> Diagnostic {
    let message = format!("{problem}; until then the requests that the policy means are denied");
    Diagnostic::error("BadProvider", message).on(&policy.source).at(FieldPath::new("spec.provider.name"))
}

#[cfg(test)]
mod tests;
