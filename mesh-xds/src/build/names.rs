//! The names of the mesh for the DNS server beside a proxy (NDS): one table for all proxies that see the same services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use mesh_api::Name;
use prost::Message;

use crate::class::Client;
use crate::endpoints::EndpointsOf;
use crate::memo::Query;
use crate::model::{Health, Registry, Service};
use crate::resource::{Resource, TypeUrl};
use crate::scope::{ScopeOf, ServicesOf};
use crate::shared::ByPtr;
use crate::view::View;

/// Hosts of the multi-cluster services API have no short names: those are the cluster's own services'.
const CLUSTER_SET: &str = ".clusterset.local";

/// `istio.networking.nds.v1.NameTable`.
#[derive(Clone, PartialEq, Message)]
pub struct NameTable {
    /// By host name, which may be a wildcard.
    #[prost(btree_map = "string, message", tag = "1")]
    pub table: BTreeMap<String, NameInfo>,
}

/// `istio.networking.nds.v1.NameTable.NameInfo`.
#[derive(Clone, PartialEq, Message)]
pub struct NameInfo {
    /// Addresses.
    #[prost(string, repeated, tag = "1")]
    pub ips: Vec<String>,
    /// `Kubernetes` or `External`.
    #[prost(string, tag = "2")]
    pub registry: String,
    /// The name of a Service of Kubernetes, by which its own namespace knows it.
    #[prost(string, tag = "3")]
    pub shortname: String,
    /// Its namespace.
    #[prost(string, tag = "4")]
    pub namespace: String,
}

/// The table for a group of proxies.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct NamesFor {
    scope: ScopeOf,
    network: Name,
}

impl NamesFor {
    /// The table of a client.
    pub fn client(client: &Client) -> Self {
        Self { scope: ScopeOf::client(client), network: client.network.clone() }
    }
}

impl Query for NamesFor {
    type Out = Arc<Resource>;

    fn run(&self, view: &View<'_>) -> Arc<Resource> {
        let services = view.get(&ServicesOf(self.scope.clone()));
        let mut services: Vec<_> = services.iter().cloned().map(ByPtr).collect();
        // Most namespaces see the same, if not in the same order: then they share one table.
        services.sort_unstable_by(|a, b| a.hostname.cmp(&b.hostname));
        (*view.get(&NamesOf { services: services.into(), network: self.network.clone() })).clone()
    }
}

/// The table of these services, one a host, as seen from a network.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct NamesOf {
    services: Arc<[ByPtr<Service>]>,
    network: Name,
}

impl NamesOf {
    fn addresses(&self, view: &View<'_>, service: &Service) -> Vec<String> {
        if !service.is_headless() {
            return service.ips().map(|ip| ip.to_string()).collect();
        }
        let mut out: Vec<String> = Vec::new();
        let mut seen = BTreeSet::new();
        for endpoint in view.get(&EndpointsOf(service.key())).iter() {
            let is_near = endpoint.network.is_empty() || self.network.is_empty() || endpoint.network == self.network;
            let address = endpoint.address.as_str();
            let is_good = is_near && endpoint.health == Health::Healthy && address.parse::<IpAddr>().is_ok();
            // Every port has its endpoints, and a pod is named once.
            if is_good && seen.insert(endpoint.address.clone()) {
                out.push(address.to_owned());
            }
        }
        out
    }
}

impl Query for NamesOf {
    type Out = Arc<Resource>;

    fn run(&self, view: &View<'_>) -> Arc<Resource> {
        let mut names = NameTable::default();
        for service in self.services.iter().filter(|service| service.alias().is_none()) {
            let ips = self.addresses(view, service);
            if ips.is_empty() {
                continue;
            }
            let mut info = NameInfo { ips, ..NameInfo::default() };
            let host = service.hostname.as_str().to_owned();
            match service.registry {
                Registry::External => info.registry = "External".into(),
                Registry::Kubernetes => {
                    info.registry = "Kubernetes".into();
                    if !host.ends_with(CLUSTER_SET) {
                        info.shortname = service.name.as_str().to_owned();
                        info.namespace = service.namespace.as_str().to_owned();
                    }
                }
            }
            names.table.insert(host, info);
        }
        let url = TypeUrl::NameTable.as_str();
        Arc::new(Resource::from_value("nds".into(), url, &names.encode_to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Settings;
    use crate::testing::snapshot;
    use crate::{Builder, Proxy};

    const WORLD: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: default}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: tcp, port: 1}, {name: tcp-2, port: 2}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, namespace: default, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: tcp, port: 1}, {name: tcp-2, port: 2}]
endpoints:
- {addresses: [10.1.0.1], conditions: {ready: true}}
- {addresses: [10.1.0.2], conditions: {ready: false}}
- {addresses: [10.1.0.3], conditions: {ready: true}}
---
apiVersion: v1
kind: Service
metadata: {name: alias, namespace: default}
spec: {type: ExternalName, externalName: example.com}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out, namespace: default}
spec:
  hosts: ["*.example.org", api.example.org]
  addresses: [240.0.0.1, 240.1.0.0/16]
  ports: [{name: tls, number: 443, protocol: TLS}]
  resolution: NONE
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: narrow, namespace: narrow}
spec: {egress: [{hosts: ["default/reviews.default.svc.cluster.local"]}]}
"#;

    fn names(namespace: &str) -> BTreeMap<String, NameInfo> {
        let world = snapshot(WORLD, Settings::default());
        let proxy = Arc::new(Proxy::sidecar(format!("a.{namespace}"), namespace, [10, 2, 0, 1].into()));
        let set = Builder::default().build(&world, &proxy, TypeUrl::NameTable);
        let [table] = set.as_slice() else { panic!("{set:?}") };
        NameTable::decode(table.value()).unwrap().table
    }

    #[test]
    fn what_a_proxy_sees_has_addresses() {
        let all = names("default");
        let ips = |host: &str| all.get(host).map(|info| info.ips.join(" "));
        let of = |ips: &str| Some(ips.to_owned());
        assert_eq!(ips("reviews.default.svc.cluster.local"), of("10.0.0.1"));
        assert_eq!(ips("db.default.svc.cluster.local"), of("10.1.0.1 10.1.0.3"), "pods that are ready, once each");
        assert_eq!(ips("*.example.org"), of("240.0.0.1"), "a range is no address");
        assert_eq!(ips("api.example.org"), of("240.0.0.1"));
        assert_eq!(all.len(), 4, "{:?}", all.keys());
        let reviews = &all["reviews.default.svc.cluster.local"];
        assert_eq!(
            (&*reviews.registry, &*reviews.shortname, &*reviews.namespace),
            ("Kubernetes", "reviews", "default")
        );
        assert_eq!(all["api.example.org"].registry, "External");
        assert_eq!(names("narrow").into_keys().collect::<Vec<_>>(), ["reviews.default.svc.cluster.local"]);
    }
}
