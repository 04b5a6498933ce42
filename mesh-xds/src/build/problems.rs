//! Rules that cannot be followed for one proxy though they are right for others.

use std::collections::BTreeMap;

use mesh_api::{Diagnostic, FieldPath, ObjectRef};

use super::defaults::traits;
use super::destination::Rules;
use crate::class::Client;
use crate::memo::Query;
use crate::model::destination_rule::{DestinationRule, TlsMode, TrafficPolicy};
use crate::scope::{ScopeOf, ServicesOf};
use crate::view::View;

/// Rules that ask for mesh mTLS of a client that has no certificates of the mesh: its connections are in plaintext.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct WithoutCertificates(pub(crate) Client);

impl Query for WithoutCertificates {
    type Out = Vec<Diagnostic>;

    fn run(&self, view: &View<'_>) -> Vec<Diagnostic> {
        let traits = traits(&self.0);
        if traits.identity || traits.client_files.is_some() {
            return Vec::new();
        }
        let rules = Rules::new(view, &self.0);
        let services = view.get(&ServicesOf(ScopeOf::client(&self.0)));
        let mut asking: BTreeMap<ObjectRef, FieldPath> = BTreeMap::new();
        for rule in services.iter().filter_map(|service| rules.outbound(service)) {
            if let Some(policy) = policies(&rule).find(|policy| asks_for_mesh_mtls(policy)) {
                let path = policy.origin.path.field("tls").field("mode");
                asking.entry(policy.origin.object.clone()).or_insert(path);
            }
        }
        let message = "ISTIO_MUTUAL needs certificates of the mesh and some proxies have none: their connections are in \
                       plaintext; start them with MESH_MTLS=true, or ask for DISABLE";
        let told = |(object, path)| Diagnostic::warning("NoCertificates", message).on(&object).at(path);
        asking.into_iter().map(told).collect()
    }
}

/// All policies of a rule, at every level.
fn policies(rule: &DestinationRule) -> impl Iterator<Item = &TrafficPolicy> {
    let of_subsets = rule.subsets.iter().filter_map(|subset| subset.policy.as_deref());
    let levels = rule.policy.as_deref().into_iter().chain(of_subsets);
    levels.flat_map(|policy| std::iter::once(policy).chain(policy.ports.iter().map(|port| &*port.policy)))
}

fn asks_for_mesh_mtls(policy: &TrafficPolicy) -> bool {
    policy.tls.as_ref().is_some_and(|tls| tls.mode == TlsMode::IstioMutual)
}
