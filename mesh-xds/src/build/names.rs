//! The names of the mesh for the DNS server beside a proxy (NDS): one table for all proxies that see the same services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use mesh_api::Name;
use prost::Message;

use crate::class::Client;
use crate::endpoints::EndpointsOf;
use crate::memo::Query;
use crate::model::{Endpoint, Health, Registry, Service};
use crate::resource::{Resource, TypeUrl};
use crate::scope::{ScopeOf, ServicesOf, settings};
use crate::shared::ByPtr;
use crate::view::View;

/// Hosts of the multi-cluster services API have no short names: those are the cluster's own services'.
const CLUSTER_SET: &str = ".clusterset.local";
/// The registry of Services of Kubernetes.
const KUBERNETES: &str = "Kubernetes";

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
    place: Place,
}

impl NamesFor {
    /// The table of a client.
    pub fn client(client: &Client) -> Self {
        let place = Place { network: client.network.clone(), cluster: client.cluster_id.clone() };
        Self { scope: ScopeOf::client(client), place }
    }
}

impl Query for NamesFor {
    type Out = Arc<Resource>;

    fn run(&self, view: &View<'_>) -> Arc<Resource> {
        let services = view.get(&ServicesOf(self.scope.clone()));
        let mut services: Vec<_> = services.iter().cloned().map(ByPtr).collect();
        // Most namespaces see the same, if not in the same order: then they share one table.
        services.sort_unstable_by(|a, b| a.hostname.cmp(&b.hostname));
        (*view.get(&NamesOf { services: services.into(), place: self.place.clone() })).clone()
    }
}

/// From where names are looked at.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Place {
    network: Name,
    cluster: Name,
}

/// The table of these services, one a host, as seen from a place.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct NamesOf {
    services: Arc<[ByPtr<Service>]>,
    place: Place,
}

impl NamesOf {
    /// The pods of a headless service that can be reached from here, in the order of its endpoints.
    fn pods<'e>(&self, endpoints: &'e [Endpoint]) -> Vec<&'e Endpoint> {
        let network = &self.place.network;
        let mut seen = BTreeSet::new();
        let is_near = |e: &&Endpoint| e.network.is_empty() || network.is_empty() || e.network == *network;
        let good = endpoints.iter().filter(is_near).filter(|e| e.health == Health::Healthy);
        // Every port has its endpoints, and a pod is named once.
        good.filter(|e| e.address.parse::<IpAddr>().is_ok() && seen.insert(&e.address)).collect()
    }

    /// The names that pods of a headless service have of their own, as Kubernetes makes them: `hostname.subdomain` before
    /// the service's namespace and domain. Two clusters may well use a name twice: then it is the near one's.
    fn name_pods(&self, service: &Service, pods: &[&Endpoint], own_cluster: &Name, names: &mut NameTable) {
        let Some((_, domain)) = service.hostname.as_str().split_once('.') else { return };
        let is_own = |pod: &Endpoint| {
            let cluster = if pod.cluster.is_empty() { own_cluster } else { &pod.cluster };
            self.place.cluster.is_empty() || *cluster == self.place.cluster
        };
        let near: BTreeSet<&Name> = pods.iter().filter(|pod| is_own(pod)).map(|pod| &pod.pod_name).collect();
        let named = pods.iter().filter(|pod| !pod.pod_name.is_empty());
        for pod in named.filter(|pod| is_own(pod) || !near.contains(&pod.pod_name)) {
            let info = names.table.entry(format!("{}.{domain}", pod.pod_name)).or_insert_with(|| NameInfo {
                registry: KUBERNETES.into(),
                shortname: pod.pod_name.to_string(),
                namespace: service.namespace.to_string(),
                ..NameInfo::default()
            });
            let address = pod.address.to_string();
            // Another service may choose the same pods.
            if !info.ips.contains(&address) {
                info.ips.push(address);
            }
        }
    }
}

impl Query for NamesOf {
    type Out = Arc<Resource>;

    fn run(&self, view: &View<'_>) -> Arc<Resource> {
        let own_cluster = settings(view).cluster_id.clone();
        let mut names = NameTable::default();
        for service in self.services.iter().filter(|service| service.alias().is_none()) {
            let ips: Vec<String> = if service.is_headless() {
                let endpoints = view.get(&EndpointsOf(service.key()));
                let pods = self.pods(&endpoints);
                self.name_pods(service, &pods, &own_cluster, &mut names);
                pods.iter().map(|pod| pod.address.to_string()).collect()
            } else {
                service.ips().map(|ip| ip.to_string()).collect()
            };
            if ips.is_empty() {
                continue;
            }
            let mut info = NameInfo { ips, ..NameInfo::default() };
            let host = service.hostname.as_str().to_owned();
            match service.registry {
                Registry::External => info.registry = "External".into(),
                Registry::Kubernetes => {
                    info.registry = KUBERNETES.into();
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
        names_in(WORLD, namespace, "")
    }

    fn names_in(world: &str, namespace: &str, cluster: &str) -> BTreeMap<String, NameInfo> {
        let world = snapshot(world, Settings::default());
        let mut proxy = Proxy::sidecar(format!("a.{namespace}"), namespace, [10, 2, 0, 1].into());
        proxy.cluster_id = cluster.into();
        let proxy = Arc::new(proxy);
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

    /// A pod of `db` with a slice of its own.
    fn pod(object: &str, hostname: &str, ip: &str) -> String {
        format!(
            "
---
apiVersion: v1
kind: Pod
metadata: {{name: '{object}', namespace: default, labels: {{app: db}}}}
spec: {{{hostname}subdomain: db, containers: []}}
status: {{podIP: {ip}}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: 'of-{object}', namespace: default, labels: {{kubernetes.io/service-name: db}}}}
addressType: IPv4
ports: [{{name: tcp, port: 1}}, {{name: tcp-2, port: 2}}]
endpoints: [{{addresses: [{ip}], targetRef: {{kind: Pod, name: '{object}', namespace: default}}}}]
"
        )
    }

    #[test]
    fn pods_of_headless_services_have_names_of_their_own() {
        let pods = [
            pod("db-0", "hostname: db-0, ", "10.3.0.1"),
            pod("db-0@west", "", "10.4.0.1"),
            pod("db-1@west", "", "10.4.0.2"),
        ]
        .concat();
        // Another service with the same pods names none of them twice.
        let again = pods.replace("service-name: db", "service-name: all").replace("'of-", "'all-");
        let service = "
---
apiVersion: v1
kind: Service
metadata: {name: all, namespace: default}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: tcp, port: 1}]}
";
        let world = format!("{WORLD}{pods}{service}{again}");
        for (cluster, first) in [("", "10.3.0.1 10.4.0.1"), ("Kubernetes", "10.3.0.1"), ("west", "10.4.0.1")] {
            let all = names_in(&world, "default", cluster);
            let ips = |host: &str| all.get(host).map(|info| info.ips.join(" ")).unwrap_or_default();
            assert_eq!(ips("db-0.db.default.svc.cluster.local"), first, "{cluster}");
            assert_eq!(ips("db-1.db.default.svc.cluster.local"), "10.4.0.2", "{cluster}");
            assert!(ips("db.default.svc.cluster.local").ends_with(" 10.3.0.1 10.4.0.1 10.4.0.2"), "{cluster}");
            let of_pod = &all["db-1.db.default.svc.cluster.local"];
            assert_eq!((&*of_pod.shortname, &*of_pod.namespace), ("db-1.db", "default"));
        }
    }
}
