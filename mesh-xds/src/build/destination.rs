//! The DestinationRule behind a call: the only place where builders ask for rules.
//!
//! Rules are merged once for each namespace; a call asks for a host and gets one merged rule, by pointer. A rule that
//! changes touches the calls that it holds for, and no others.

use std::cell::RefCell;
use std::sync::Arc;

use mesh_api::{Hostname, Name};
use rustc_hash::FxHashMap;

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

/// The rules for a client's calls.
///
/// No query: callers ask for every service of their scope, and the indices behind the answers are few, so they are kept
/// here for the time of one run.
pub(crate) struct Rules<'a, 'v> {
    view: &'a View<'v>,
    client: &'a Client,
    root: Name,
    indices: RefCell<FxHashMap<(Name, Level), Arc<RuleIndex>>>,
}

impl<'a, 'v> Rules<'a, 'v> {
    pub(crate) fn new(view: &'a View<'v>, client: &'a Client) -> Self {
        Self { view, client, root: settings(view).root_namespace.clone(), indices: RefCell::default() }
    }

    /// The rule for the client's calls to a service.
    pub(crate) fn outbound(&self, service: &Service) -> Option<Shared<DestinationRule>> {
        let index = |namespace: &Name, level: Level| {
            let key = (namespace.clone(), level);
            let known = self.indices.borrow().get(&key).cloned();
            known.unwrap_or_else(|| {
                let index = self.view.get(&RulesOf(namespace.clone(), level));
                self.indices.borrow_mut().insert(key, index.clone());
                index
            })
        };
        let found = lookup(&self.client.namespace, &service.namespace, &self.root, &service.hostname, index);
        pick(&found, &self.client.namespace, Some(&self.client.labels)).cloned()
    }
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
