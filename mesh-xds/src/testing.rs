//! What tests of several builders share: objects from YAML, and a real Envoy's opinion of what was built.

use std::process::Command;

use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use envoy_types::pb::envoy::config::bootstrap::v3::bootstrap::{DynamicResources, StaticResources};
use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::api_config_source::ApiType;
use envoy_types::pb::envoy::config::core::v3::grpc_service::{self, EnvoyGrpc};
use envoy_types::pb::envoy::config::core::v3::{ApiConfigSource, ApiVersion, GrpcService, Node};
use envoy_types::pb::envoy::config::listener::v3::{FilterChain, Listener};
use envoy_types::pb::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};
use mesh_api::document;
use mesh_api::object::Object;
use prost::Message;

use crate::build::http::{Http, Routes, Side};
use crate::model::{Protocol, Settings};
use crate::snapshot::{Change, Snapshot};

/// The objects of a YAML text; panics on what can't be read.
pub(crate) fn objects(yaml: &str) -> Vec<Object> {
    let parsed = document::parse(&"test.yaml".into(), yaml);
    let told: Vec<_> = parsed.diagnostics().map(ToString::to_string).collect();
    assert!(told.is_empty(), "{told:?}");
    parsed.objects().cloned().collect()
}

/// Panics with Envoy's reason when it refuses the resources. Without an Envoy at `ENVOY_PATH` it says so and accepts.
pub(crate) fn envoy_accepts(listeners: Vec<Listener>, mut clusters: Vec<Cluster>) {
    let Some(envoy) = std::env::var_os("ENVOY_PATH") else {
        eprintln!("SKIPPED: no Envoy to ask; set ENVOY_PATH to its binary");
        return;
    };
    // What every bootstrap of ours has: the streams that the resources refer to.
    clusters.extend(["xds-grpc", "sds-grpc"].map(|name| Cluster { name: name.into(), ..Default::default() }));
    let grpc = GrpcService {
        target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
            cluster_name: "xds-grpc".into(),
            ..Default::default()
        })),
        ..Default::default()
    };
    let ads_config = ApiConfigSource {
        api_type: ApiType::DeltaGrpc.into(),
        transport_api_version: ApiVersion::V3.into(),
        grpc_services: vec![grpc],
        ..Default::default()
    };
    let bootstrap = Bootstrap {
        node: Some(Node { id: "test".into(), cluster: "test".into(), ..Default::default() }),
        static_resources: Some(StaticResources { listeners, clusters, ..Default::default() }),
        dynamic_resources: Some(DynamicResources { ads_config: Some(ads_config), ..Default::default() }),
        ..Default::default()
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("bootstrap.pb");
    std::fs::write(&file, bootstrap.encode_to_vec()).unwrap();
    let out = Command::new(envoy).args(["--mode", "validate", "-l", "error", "-c"]).arg(&file).output().unwrap();
    assert!(out.status.success(), "Envoy refuses: {}", String::from_utf8_lossy(&out.stderr));
}

/// As [`envoy_accepts`], for a route configuration. Clusters that it names need not be there.
pub(crate) fn envoy_accepts_route_config(config: RouteConfiguration) {
    let http = Http::new(Side::Gateway, "test", Routes::Inline(Box::new(config)), Protocol::Http);
    let chain = FilterChain { filters: vec![http.filter(&Settings::default())], ..Default::default() };
    let listener = Listener {
        name: "test".into(),
        address: Some(crate::build::socket_address("127.0.0.1", 0)),
        filter_chains: vec![chain],
        ..Default::default()
    };
    envoy_accepts(vec![listener], Vec::new());
}

/// As [`envoy_accepts`], for routes alone.
pub(crate) fn envoy_accepts_routes(routes: Vec<Route>) {
    let host = VirtualHost { name: "test".into(), domains: vec!["*".into()], routes, ..Default::default() };
    envoy_accepts_route_config(RouteConfiguration {
        name: "test".into(),
        virtual_hosts: vec![host],
        validate_clusters: crate::build::bool_value(false),
        max_direct_response_body_size_bytes: crate::build::u32_value(crate::build::route::MAX_DIRECT_RESPONSE_BODY),
        ..Default::default()
    });
}

/// A world of these objects.
pub(crate) fn snapshot(yaml: &str, settings: Settings) -> Snapshot {
    Snapshot::new(settings).apply(objects(yaml).into_iter().map(Change::Upsert))
}
