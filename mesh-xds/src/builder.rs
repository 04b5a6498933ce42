//! The public face of the builders: a snapshot, a proxy and a type in; everything of that type that the proxy should have
//! out. All proxies and all snapshots share one memo.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::Diagnostic;
use mesh_api::types::Duration;

use crate::build::access::{CompetingProviders, KeyProblems, ProviderProblems, WantedKeys};
use crate::build::endpoints::{ClientEndpoints, SniDnatEndpoints};
use crate::build::gateway::{AutoPassthrough, GatewayListeners, GatewayRoutes, GatewaySecrets, MergedGateway, Router};
use crate::build::inbound::{InboundClusters, InboundListeners};
use crate::build::names::NamesFor;
use crate::build::outbound::clusters::{OutboundClusters, SniDnatClusters};
use crate::build::outbound::{OutboundListeners, OutboundRoutes};
use crate::build::problems::WithoutCertificates;
use crate::build::secrets::ClientSecrets;
use crate::build::trust::TrustBundle;
use crate::class::{Class, ClassOf};
use crate::memo::{Memo, Query, Stats};
use crate::model::request_authentication::KeySource;
use crate::proxy::{Proxy, ProxyType};
use crate::resource::{Resource, ResourceSet, TypeUrl};
use crate::scope::DelegationProblems;
use crate::snapshot::Snapshot;
use crate::view::View;

/// Builds what proxies are sent.
///
/// ```
/// use std::sync::Arc;
/// use mesh_xds::{Builder, Proxy, Snapshot, TypeUrl};
///
/// let proxy = Arc::new(Proxy::sidecar("app.default", "default", [10, 0, 0, 1].into()));
/// let listeners = Builder::default().build(&Snapshot::default(), &proxy, TypeUrl::Listener);
/// assert!(listeners.get("virtualOutbound").is_some());
/// ```
#[derive(Default, Debug)]
pub struct Builder {
    memo: Memo,
}

impl Builder {
    /// Everything of a type that the proxy should have, sorted by name. Proxies of one class get the same set, and an
    /// unchanged set is the same allocation as before.
    pub fn build(&self, snapshot: &Snapshot, proxy: &Arc<Proxy>, kind: TypeUrl) -> ResourceSet {
        self.memo.with(snapshot, |view| {
            let class = (*view.get(&ClassOf(proxy.clone()))).clone();
            (*view.get(&ResourcesOf { class, kind })).clone()
        })
    }

    /// The class of a proxy: proxies with equal classes are sent the same.
    pub fn class(&self, snapshot: &Snapshot, proxy: &Arc<Proxy>) -> Arc<Class> {
        self.memo.with(snapshot, |view| (*view.get(&ClassOf(proxy.clone()))).clone())
    }

    /// What is wrong between objects, whichever proxy looks at them. What is wrong with one object alone the snapshot says.
    pub fn problems(&self, snapshot: &Snapshot) -> Vec<Diagnostic> {
        self.memo.with(snapshot, |view| {
            let mut out = (*view.get(&DelegationProblems)).clone();
            out.extend(view.get(&ProviderProblems).iter().cloned());
            out.extend(view.get(&KeyProblems).iter().cloned());
            out
        })
    }

    /// Where someone has to fetch keys for tokens, and how long a fetch may take. What comes of it is told by [`Change::Keys`](crate::Change::Keys).
    pub fn wanted_keys(&self, snapshot: &Snapshot) -> Arc<BTreeMap<KeySource, Duration>> {
        self.memo.with(snapshot, |view| view.get(&WantedKeys))
    }

    /// What could not be done for a proxy that may well be right for others: servers that its Gateways lose to each
    /// other, rules that it has no certificates for.
    pub fn problems_of(&self, snapshot: &Snapshot, proxy: &Arc<Proxy>) -> Vec<Diagnostic> {
        self.memo.with(snapshot, |view| {
            let class = view.get(&ClassOf(proxy.clone()));
            let mut out = (*view.get(&WithoutCertificates(class.client.clone()))).clone();
            out.extend(view.get(&CompetingProviders::of(&class.client)).iter().cloned());
            if class.client.kind == ProxyType::Router {
                out.extend(view.get(&MergedGateway(Router::of(&class))).told.iter().cloned());
            }
            out
        })
    }

    /// What the builders have done so far.
    pub fn stats(&self) -> Stats {
        self.memo.stats()
    }
}

/// Everything of a type for a class of proxies.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct ResourcesOf {
    class: Arc<Class>,
    kind: TypeUrl,
}

impl Query for ResourcesOf {
    type Out = ResourceSet;
    fn run(&self, view: &View<'_>) -> ResourceSet {
        let client = &self.class.client;
        let sidecar = client.kind == ProxyType::Sidecar;
        let router = client.kind == ProxyType::Router;
        let gateway = || Router::of(&self.class);
        let mut out: Vec<Arc<Resource>> = Vec::new();
        match self.kind {
            TypeUrl::Cluster => {
                out.extend(view.get(&OutboundClusters(client.clone())).iter().cloned());
                if router && *view.get(&AutoPassthrough(gateway())) {
                    out.extend(view.get(&SniDnatClusters(client.clone())).iter().cloned());
                }
                if sidecar {
                    out.extend(view.get(&InboundClusters(self.class.server.clone())).iter().cloned());
                }
            }
            TypeUrl::Endpoint => {
                out.extend(view.get(&ClientEndpoints(client.clone())).iter().cloned());
                if router && *view.get(&AutoPassthrough(gateway())) {
                    out.extend(view.get(&SniDnatEndpoints(client.clone())).iter().cloned());
                }
            }
            TypeUrl::Listener if sidecar => {
                out.extend(view.get(&OutboundListeners(client.clone())).resources.iter().cloned());
                out.extend(view.get(&InboundListeners(self.class.server.clone())).iter().cloned());
            }
            TypeUrl::Route if sidecar => out.extend(view.get(&OutboundRoutes(client.clone())).iter().cloned()),
            TypeUrl::Listener if router => out.extend(view.get(&GatewayListeners(gateway())).iter().cloned()),
            TypeUrl::Route if router => out.extend(view.get(&GatewayRoutes(gateway())).iter().cloned()),
            TypeUrl::Secret => {
                out.extend(view.get(&ClientSecrets(client.clone())).iter().cloned());
                if router {
                    out.extend(view.get(&GatewaySecrets(gateway())).iter().cloned());
                }
            }
            TypeUrl::NameTable => out.push((*view.get(&NamesFor::client(client))).clone()),
            TypeUrl::ProxyConfig => return (*view.get(&TrustBundle)).clone(),
            _ => {}
        }
        ResourceSet::new(out)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "CI asks for more histories by the environment")]
mod law;
#[cfg(test)]
mod scale;
#[cfg(test)]
mod tests;
