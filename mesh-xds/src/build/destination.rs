//! The DestinationRule behind a call: the only place where builders ask for rules.
//!
//! Rules are merged once for each namespace; a call asks for a host and gets one merged rule, by pointer. A rule that
//! changes touches the calls that it holds for, and no others.

use mesh_api::{Hostname, Name};

use crate::class::Client;
use crate::memo::Query;
use crate::model::destination_rule::{DestinationRule, Level, RuleIndex, lookup, pick};
use crate::model::{Labels, Service};
use crate::scope::settings;
use crate::shared::Shared;
use crate::view::View;

/// The rules of a namespace, merged by host.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct RulesOf(Name, Level);

impl Query for RulesOf {
    type Out = RuleIndex;
    fn run(&self, view: &View<'_>) -> RuleIndex {
        let private = settings(view).mesh.default_destination_rule_export_to.iter().any(|to| to == ".");
        let rules = view.bucket(|s| &s.destination_rules, &self.0).map(|(_, rule)| rule);
        RuleIndex::new(rules, self.1, private)
    }
}

/// The rule for a client's calls to a service.
///
/// A function and no query: callers ask for every service of their scope, and the indices that it reads are few.
pub(crate) fn outbound(view: &View<'_>, client: &Client, service: &Service) -> Option<Shared<DestinationRule>> {
    let root = settings(view).root_namespace.clone();
    let index = |namespace: &Name, level: Level| view.get(&RulesOf(namespace.clone(), level));
    let found = lookup(&client.namespace, &service.namespace, &root, &service.hostname, index);
    pick(&found, &client.namespace, Some(&client.labels)).cloned()
}

/// All rules that may hold for calls from a namespace to a host: several only where workload selectors differ.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct RulesFor {
    client: Name,
    host: Hostname,
    namespace: Name,
}

impl Query for RulesFor {
    type Out = Vec<Shared<DestinationRule>>;
    fn run(&self, view: &View<'_>) -> Self::Out {
        let root = settings(view).root_namespace.clone();
        let index = |namespace: &Name, level: Level| view.get(&RulesOf(namespace.clone(), level));
        lookup(&self.client, &self.namespace, &root, &self.host, index)
    }
}

/// The rule that holds for calls of a workload to a host; for calls that it receives, without labels.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct RuleFor {
    /// The caller's namespace.
    pub client: Name,
    /// The caller's labels, as far as selectors look at them; `None` for inbound.
    pub labels: Option<Labels>,
    /// The host.
    pub host: Hostname,
    /// The namespace of the host's service.
    pub namespace: Name,
}

impl Query for RuleFor {
    type Out = Option<Shared<DestinationRule>>;
    fn run(&self, view: &View<'_>) -> Self::Out {
        let query =
            RulesFor { client: self.client.clone(), host: self.host.clone(), namespace: self.namespace.clone() };
        pick(&view.get(&query), &self.client, self.labels.as_ref()).cloned()
    }
}
