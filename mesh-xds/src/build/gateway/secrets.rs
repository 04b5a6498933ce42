//! The credentials that the servers of a router name.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_api::Name;

use super::{MergedGateway, Router, tls};
use crate::Resource;
use crate::build::secrets::{is_of_gateway_api, may_have, resources};
use crate::memo::Query;
use crate::view::View;

/// The secrets that a router may have for its Gateways.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct GatewaySecrets(pub Router);

impl Query for GatewaySecrets {
    type Out = Vec<Arc<Resource>>;

    fn run(&self, view: &View<'_>) -> Self::Out {
        let own = &self.0.client.namespace;
        let merged = view.get(&MergedGateway(self.0.clone()));
        let mut names: BTreeSet<Name> = BTreeSet::new();
        for bound in merged.ports.iter().flat_map(|p| &p.servers) {
            let named = bound.server.tls.iter().flat_map(tls::secret_names);
            let trusted = |name: &String| !is_of_gateway_api(name) || bound.gateway.namespace == *own;
            names.extend(named.filter(|name| may_have(view, name, own) && trusted(name)).map(Name::from));
        }
        resources(view, names, own)
    }
}
