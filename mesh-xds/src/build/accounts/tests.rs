use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use envoy_types::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use mesh_api::mesh::MeshConfig;

use crate::build::cluster::tests::tls;
use crate::model::Settings;
use crate::testing::{envoy_accepts, objects, snapshot};
use crate::{Builder, Change, Proxy, Snapshot, TypeUrl};

const REVIEWS: &str = "
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default}
spec: {clusterIP: 10.0.0.1, selector: {app: reviews}, ports: [{name: http, port: 80}]}
";

/// A pod of `reviews` and its slice.
fn pod(name: &str, account: &str, ip: &str) -> String {
    format!(
        "
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: default, labels: {{app: reviews, security.istio.io/tlsMode: istio}}}}
spec: {{serviceAccountName: '{account}', containers: []}}
status: {{podIP: {ip}}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: default, labels: {{kubernetes.io/service-name: reviews}}}}
addressType: IPv4
ports: [{{name: http, port: 80}}]
endpoints: [{{addresses: [{ip}], targetRef: {{kind: Pod, name: {name}, namespace: default}}}}]
"
    )
}

fn proxy() -> Arc<Proxy> {
    Arc::new(Proxy::sidecar("a.default", "default", [10, 2, 0, 1].into()))
}

fn settings(mesh: &str) -> Settings {
    let (mesh, told) = MeshConfig::from_yaml(mesh);
    assert!(told.is_empty(), "{told:?}");
    Settings { mesh: Arc::new(mesh), ..Settings::default() }
}

/// The names that servers of the only service may bear, without `spiffe://`, as the cluster for its only port says.
fn names(builder: &Builder, world: &Snapshot) -> String {
    let clusters = builder.build(world, &proxy(), TypeUrl::Cluster);
    let cluster = clusters.iter().find(|c| c.name().starts_with("outbound|")).expect("a cluster");
    let mut cluster: Cluster = cluster.decode().unwrap();
    let matched = cluster.transport_socket_matches.first().and_then(|m| m.transport_socket.clone());
    let context = tls(&matched.or(cluster.transport_socket.clone()).expect("TLS"));
    cluster.eds_cluster_config = None;
    cluster.cluster_discovery_type = None;
    envoy_accepts(Vec::new(), vec![cluster]);
    let common = context.common_tls_context.unwrap();
    let Some(ValidationContextType::CombinedValidationContext(combined)) = common.validation_context_type else {
        panic!("{common:?}")
    };
    assert_eq!(combined.validation_context_sds_secret_config.unwrap().name, "ROOTCA");
    let matchers = combined.default_validation_context.unwrap().match_typed_subject_alt_names;
    let exact = matchers.into_iter().map(|m| match m.matcher.unwrap().match_pattern.unwrap() {
        MatchPattern::Exact(name) => name.trim_start_matches("spiffe://").to_owned(),
        other => panic!("{other:?}"),
    });
    exact.collect::<Vec<_>>().join(" ")
}

fn of(yaml: &str, mesh: &str) -> String {
    names(&Builder::default(), &snapshot(yaml, settings(mesh)))
}

#[test]
fn servers_are_who_the_endpoints_run_as() {
    let two = format!("{REVIEWS}{}{}", pod("a", "b", "10.1.0.1"), pod("c", "", "10.1.0.2"));
    assert_eq!(of(REVIEWS, "{}"), "", "nobody is known");
    assert_eq!(of(&two, "{}"), "cluster.local/ns/default/sa/b cluster.local/ns/default/sa/default");
    let one = format!("{REVIEWS}{}{}", pod("a", "b", "10.1.0.1"), pod("c", "b", "10.1.0.2"));
    assert_eq!(
        of(&one, "{trustDomain: td, trustDomainAliases: [old, td]}"),
        "old/ns/default/sa/b td/ns/default/sa/b",
        "in every trust domain of the mesh"
    );
    let rule = "
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: r, namespace: default}
spec: {host: reviews, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}
";
    assert_eq!(of(&format!("{one}{rule}"), "{}"), "cluster.local/ns/default/sa/b");
    let own = rule.replace("ISTIO_MUTUAL", "ISTIO_MUTUAL, subjectAltNames: [x.example]");
    assert_eq!(
        of(&format!("{one}{own}"), "{trustDomainAliases: [old]}"),
        "x.example",
        "the rule's own are all there are"
    );
}

#[test]
fn services_may_list_accounts() {
    let annotated = REVIEWS.replace(
        "namespace: default}",
        "namespace: default, annotations: {alpha.istio.io/kubernetes-serviceaccounts: 'x, y', \
         alpha.istio.io/canonical-serviceaccounts: 'me@example.com'}}",
    );
    assert_eq!(of(&annotated, "{}"), "me@example.com cluster.local/ns/default/sa/x cluster.local/ns/default/sa/y");
    let entry = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: vm, namespace: default}
spec:
  hosts: [vm.example]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  subjectAltNames: ['spiffe://other/ns/n/sa/s']
  endpoints: [{address: 10.3.0.1, serviceAccount: vm}, {address: 10.3.0.2}]
";
    assert_eq!(
        of(entry, "{trustDomainAliases: [old]}"),
        "cluster.local/ns/default/sa/vm old/ns/default/sa/vm old/ns/n/sa/s other/ns/n/sa/s"
    );
}

#[test]
fn a_workload_with_an_account_speaks_mtls() {
    let entry = "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm, namespace: default, labels: {app: reviews}}
spec: {address: 10.3.0.1, serviceAccount: vm}
";
    let world = |entry: &str| snapshot(&format!("{REVIEWS}---{entry}"), Settings::default());
    assert_eq!(names(&Builder::default(), &world(entry)), "cluster.local/ns/default/sa/vm");
    let mtls = |entry: &str| {
        let endpoints = Builder::default().build(&world(entry), &proxy(), TypeUrl::Endpoint);
        let text = |r: &crate::Resource| String::from_utf8_lossy(&r.value()).into_owned();
        endpoints.iter().any(|r| text(r).contains("istio"))
    };
    assert!(mtls(entry));
    assert!(!mtls(&entry.replace(", serviceAccount: vm", "")));
    assert!(!mtls(&entry.replace("app: reviews", "app: reviews, security.istio.io/tlsMode: disabled")));
}

#[test]
fn pods_that_come_and_go_change_no_cluster() {
    let builder = Builder::default();
    let first = snapshot(&format!("{REVIEWS}{}", pod("a", "b", "10.1.0.1")), Settings::default());
    let mut last = first.clone();
    let mut step = |change: &str| {
        last = last.apply(objects(change).into_iter().map(Change::Upsert));
        let before = builder.stats().runs;
        let names = names(&builder, &last);
        let ran = |query| builder.stats().runs.get(query) != before.get(query);
        (names, ran("ServerNames"), ran("ServiceClusters"))
    };
    let b = || "cluster.local/ns/default/sa/b".to_owned();
    assert_eq!(names(&builder, &first), b());
    assert_eq!(step(&pod("c", "b", "10.1.0.2")), (b(), true, false), "one more of the same account");
    assert_eq!(step(&pod("c", "d", "10.1.0.2")), (format!("{} cluster.local/ns/default/sa/d", b()), true, true));
    assert_eq!(step(&pod("c", "b", "10.1.0.2")), (b(), true, true));
}
