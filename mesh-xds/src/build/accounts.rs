//! Who may serve a service: the names of which a server's certificate must bear one, so that nobody else can answer for it.
//!
//! The accounts count, not the endpoints that run as them: pods come and go and the names stay as they are, so no cluster
//! is built again.

use std::collections::BTreeSet;

use mesh_api::Name;
use mesh_api::names::SpiffeId;

use crate::endpoints::EndpointsOf;
use crate::memo::Query;
use crate::model::Service;
use crate::scope::settings;
use crate::shared::ByPtr;
use crate::view::View;

/// The identities of a service's endpoints and the names that the service lists itself, in every trust domain of the mesh;
/// sorted. None: any certificate of the mesh will do.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct ServerNames(pub(crate) ByPtr<Service>);

impl Query for ServerNames {
    type Out = Vec<Name>;
    fn run(&self, view: &View<'_>) -> Vec<Name> {
        let service = &*self.0;
        let settings = settings(view);
        let endpoints = view.get(&EndpointsOf(service.key()));
        let of_endpoints = endpoints.iter().map(|e| (&e.namespace, &e.service_account));
        let listed = service.service_accounts.iter().map(|account| (&service.namespace, account));
        let accounts: BTreeSet<_> = of_endpoints.chain(listed).filter(|(_, account)| !account.is_empty()).collect();
        let own_domain = Name::from(settings.trust_domain());
        let own = accounts.into_iter().map(|(namespace, account)| SpiffeId {
            trust_domain: own_domain.clone(),
            namespace: namespace.clone(),
            service_account: account.clone(),
        });
        let mut names: BTreeSet<Name> = own.map(|id| id.to_string().into()).collect();
        names.extend(service.subject_alt_names.iter().cloned());
        let of_aliases: Vec<Name> = in_domains(&names, &settings.mesh.trust_domain_aliases).collect();
        names.extend(of_aliases);
        names.into_iter().collect()
    }
}

/// The identities among these names, in each of these trust domains.
fn in_domains<'a>(names: &'a BTreeSet<Name>, domains: &'a [String]) -> impl Iterator<Item = Name> + 'a {
    let ids = names.iter().filter(|_| !domains.is_empty()).filter_map(|name| name.parse::<SpiffeId>().ok());
    ids.flat_map(|id| {
        domains.iter().map(move |domain| {
            let of_domain = SpiffeId { trust_domain: domain.as_str().into(), ..id.clone() };
            of_domain.to_string().into()
        })
    })
}

#[cfg(test)]
mod tests;
