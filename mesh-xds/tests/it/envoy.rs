//! The server against a real Envoy: what the protocol's text leaves open is settled here. `ENVOY_PATH` names the binary.
//!
//! All config sources wait without limit, as Istio's do: a cluster whose endpoints are not sent again hangs for ever.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig};
use envoy_types::pb::envoy::config::cluster::v3::{Cluster, cluster};
use envoy_types::pb::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, SocketAddress, address,
    config_source::ConfigSourceSpecifier, socket_address::PortSpecifier,
};
use envoy_types::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};
use envoy_types::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter::ConfigType};
use envoy_types::pb::envoy::config::route::v3::{
    Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost, route, route_action::ClusterSpecifier,
    route_match::PathSpecifier,
};
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, http_connection_manager::RouteSpecifier, http_filter,
};
use envoy_types::pb::google::protobuf::{Any, Duration as PbDuration};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use mesh_xds::{Resource, ResourceSet, TypeUrl};
use prost::{Message, Name};

use crate::server::{Running, World, start_at};

struct Envoy {
    child: Child,
    admin: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Envoy {
    fn start(binary: &std::ffi::OsStr, api_type: &str, xds: u16) -> Self {
        let admin = free_port();
        let source = serde_json::json!({ "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" });
        let address = |port: u16| serde_json::json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
        let bootstrap = serde_json::json!({
            "node": { "id": "sidecar~10.0.0.1~a.default~default.svc.cluster.local", "cluster": "a" },
            "admin": { "address": address(admin) },
            "dynamic_resources": {
                "ads_config": {
                    "api_type": api_type, "transport_api_version": "V3", "set_node_on_first_message_only": true,
                    "grpc_services": [{ "envoy_grpc": { "cluster_name": "xds" } }],
                },
                "cds_config": source.clone(), "lds_config": source,
            },
            "static_resources": { "clusters": [{
                "name": "xds", "type": "STATIC", "connect_timeout": "1s",
                "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": { "http2_protocol_options": {} },
                } },
                "load_assignment": { "cluster_name": "xds", "endpoints": [{ "lb_endpoints": [
                    { "endpoint": { "address": address(xds) } },
                ] }] },
            }] },
        });
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bootstrap.json");
        std::fs::write(&file, bootstrap.to_string()).unwrap();
        let child = Command::new(binary)
            .args(["--disable-hot-restart", "--concurrency", "1", "-l", "warning", "-c"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Self { child, admin, _folder: folder }
    }

    async fn dump(&self, resource: &str) -> Vec<serde_json::Value> {
        let body = self.get(&format!("/config_dump?resource={resource}")).await.unwrap_or_default();
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        value["configs"].as_array().cloned().unwrap_or_default()
    }

    async fn get(&self, path: &str) -> Option<Bytes> {
        let io = tokio::net::TcpStream::connect(("127.0.0.1", self.admin)).await.ok()?;
        let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await.ok()?;
        let request = http::Request::get(path).header("host", "admin").body(Empty::<Bytes>::new()).unwrap();
        let answer = async { send.send_request(request).await.ok()?.into_body().collect().await.ok() };
        let answer = tokio::select! {
            answer = answer => answer,
            _ = connection => None,
        };
        Some(answer?.to_bytes())
    }

    /// Waits until exactly these clusters serve, each with its timeout, and the routes of `r` lead to `target`.
    async fn until(&self, what: &str, clusters: &[(&str, i64)], target: &str) {
        let wanted: Vec<(String, String)> =
            clusters.iter().map(|(n, t)| ((*n).to_owned(), format!("{}s", f64::from(*t as i32)))).collect();
        let mut seen = (Vec::new(), String::new());
        for _ in 0..400 {
            let mut active: Vec<(String, String)> = self
                .dump("dynamic_active_clusters")
                .await
                .iter()
                .map(|c| &c["cluster"])
                .map(|c| (text(&c["name"]), text(&c["connect_timeout"])))
                .collect();
            active.sort();
            let routes = self.dump("dynamic_route_configs").await;
            let leads = routes.first().map_or(String::new(), |r| {
                text(&r["route_config"]["virtual_hosts"][0]["routes"][0]["route"]["cluster"])
            });
            if active == wanted && leads == target {
                return;
            }
            seen = (active, leads);
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        let warming = self.dump("dynamic_warming_clusters").await;
        let log = std::fs::read_to_string(self._folder.path().join("log")).unwrap();
        panic!("{what}: wanted {wanted:?} {target}, have {seen:?}, warming {warming:?}\n{log}");
    }
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn ads() -> Option<ConfigSource> {
    Some(ConfigSource {
        initial_fetch_timeout: Some(PbDuration::default()),
        resource_api_version: ApiVersion::V3 as i32,
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource::default())),
        ..ConfigSource::default()
    })
}

fn address(port: u16) -> Option<Address> {
    let socket = SocketAddress {
        address: "127.0.0.1".into(),
        port_specifier: Some(PortSpecifier::PortValue(port.into())),
        ..SocketAddress::default()
    };
    Some(Address { address: Some(address::Address::SocketAddress(socket)) })
}

fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

fn set<M: Message + Name>(messages: impl Iterator<Item = (String, M)>) -> ResourceSet {
    ResourceSet::new(messages.map(|(name, m)| Arc::new(Resource::encode(name, &m))).collect())
}

fn clusters(list: &[(&str, i64)]) -> ResourceSet {
    set(list.iter().map(|(name, timeout)| {
        let cluster = Cluster {
            name: (*name).into(),
            connect_timeout: Some(PbDuration { seconds: *timeout, nanos: 0 }),
            cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds as i32)),
            eds_cluster_config: Some(EdsClusterConfig { eds_config: ads(), service_name: (*name).into() }),
            lb_policy: cluster::LbPolicy::RoundRobin as i32,
            ..Cluster::default()
        };
        ((*name).to_owned(), cluster)
    }))
}

fn endpoints(names: &[&str]) -> ResourceSet {
    set(names.iter().map(|name| {
        let endpoint = Endpoint { address: address(9), ..Endpoint::default() };
        let lb = LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..LbEndpoint::default() };
        let assignment = ClusterLoadAssignment {
            cluster_name: (*name).into(),
            endpoints: vec![LocalityLbEndpoints { lb_endpoints: vec![lb], ..LocalityLbEndpoints::default() }],
            ..ClusterLoadAssignment::default()
        };
        ((*name).to_owned(), assignment)
    }))
}

fn listener(port: u16, stat_prefix: &str) -> ResourceSet {
    let router = HttpFilter {
        name: "envoy.filters.http.router".into(),
        config_type: Some(http_filter::ConfigType::TypedConfig(any(&Router::default()))),
        ..HttpFilter::default()
    };
    let manager = HttpConnectionManager {
        stat_prefix: stat_prefix.into(),
        http_filters: vec![router],
        route_specifier: Some(RouteSpecifier::Rds(Rds { config_source: ads(), route_config_name: "r".into() })),
        ..HttpConnectionManager::default()
    };
    let filter = Filter {
        name: "envoy.filters.network.http_connection_manager".into(),
        config_type: Some(ConfigType::TypedConfig(any(&manager))),
    };
    let chain = FilterChain { filters: vec![filter], ..FilterChain::default() };
    let listener =
        Listener { name: "l".into(), address: address(port), filter_chains: vec![chain], ..Listener::default() };
    set([("l".to_owned(), listener)].into_iter())
}

fn routes(target: &str) -> ResourceSet {
    let action =
        RouteAction { cluster_specifier: Some(ClusterSpecifier::Cluster(target.into())), ..RouteAction::default() };
    let route = Route {
        r#match: Some(RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".into())), ..RouteMatch::default() }),
        action: Some(route::Action::Route(action)),
        ..Route::default()
    };
    let host =
        VirtualHost { name: "h".into(), domains: vec!["*".into()], routes: vec![route], ..VirtualHost::default() };
    let config = RouteConfiguration { name: "r".into(), virtual_hosts: vec![host], ..RouteConfiguration::default() };
    set([("r".to_owned(), config)].into_iter())
}

fn assert_no_rejects(running: &Running) {
    for connection in running.server.clients().list() {
        for ty in TypeUrl::ALL {
            assert_eq!(connection.status(ty).and_then(|s| s.nack), None, "{ty}");
        }
    }
}

async fn clusters_never_hang_in_warming(api_type: &str) {
    let Some(binary) = std::env::var_os("ENVOY_PATH") else {
        eprintln!("SKIPPED clusters_never_hang_in_warming {api_type}: ENVOY_PATH names no Envoy");
        return;
    };
    let port = free_port();
    let world = World::from([
        (TypeUrl::Cluster, clusters(&[("a", 1), ("b", 1)])),
        (TypeUrl::Endpoint, endpoints(&["a", "b"])),
        (TypeUrl::Listener, listener(port, "one")),
        (TypeUrl::Route, routes("a")),
    ]);
    let mut running = start_at(world, ([127, 0, 0, 1], 0).into()).await;
    let envoy = Envoy::start(&binary, api_type, running.address.port());
    envoy.until("the start", &[("a", 1), ("b", 1)], "a").await;

    running.set(TypeUrl::Cluster, clusters(&[("a", 2), ("b", 1)]));
    envoy.until("a cluster changed, its endpoints did not", &[("a", 2), ("b", 1)], "a").await;

    for round in 3..8 {
        running.set(TypeUrl::Cluster, clusters(&[("a", round), ("b", round)]));
        running.set(TypeUrl::Endpoint, endpoints(&["a", "b", "c"]));
    }
    envoy.until("clusters changed many times", &[("a", 7), ("b", 7)], "a").await;

    running.set_all(World::from([
        (TypeUrl::Cluster, clusters(&[("b", 7), ("c", 1)])),
        (TypeUrl::Endpoint, endpoints(&["b", "c"])),
        (TypeUrl::Listener, listener(port, "two")),
        (TypeUrl::Route, routes("c")),
    ]));
    envoy.until("one cluster for another, and everything that follows", &[("b", 7), ("c", 1)], "c").await;

    running.set(TypeUrl::Cluster, clusters(&[("b", 7)]));
    running.set(TypeUrl::Cluster, clusters(&[("b", 7), ("c", 1)]));
    envoy.until("a cluster removed and there again", &[("b", 7), ("c", 1)], "c").await;
    assert_no_rejects(&running);

    // The control plane goes and another comes, which knows a newer world.
    drop(running.stop.take());
    let address = running.address;
    running.task.await.unwrap().unwrap();
    let world = World::from([
        (TypeUrl::Cluster, clusters(&[("b", 7), ("c", 5), ("d", 1)])),
        (TypeUrl::Endpoint, endpoints(&["b", "c", "d"])),
        (TypeUrl::Listener, listener(port, "two")),
        (TypeUrl::Route, routes("d")),
    ]);
    let running = start_at(world, address).await;
    envoy.until("another control plane", &[("b", 7), ("c", 5), ("d", 1)], "d").await;
    running.set(TypeUrl::Cluster, clusters(&[("b", 8), ("c", 5), ("d", 2)]));
    envoy.until("and it goes on", &[("b", 8), ("c", 5), ("d", 2)], "d").await;
    assert_no_rejects(&running);
    let connection = running.server.clients().list().remove(0);
    assert!(connection.is_settled());
}

#[tokio::test]
async fn delta_clusters_never_hang_in_warming() {
    clusters_never_hang_in_warming("DELTA_GRPC").await;
}

#[tokio::test]
async fn sotw_clusters_never_hang_in_warming() {
    clusters_never_hang_in_warming("GRPC").await;
}
