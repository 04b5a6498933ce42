//! From manifests to what a proxy is sent: the calls that `meshctl xds` makes, without its command line.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_api::mesh::MeshConfig;
use mesh_api::{Name, document};
use mesh_xds::explain::Resources;
use mesh_xds::model::{Features, Settings};
use mesh_xds::{Builder, Change, Proxy, ResourceSet, Snapshot, TypeUrl, json};
use serde_json::Value;

/// Manifests, the mesh's settings and a proxy.
pub(crate) struct Input<'a> {
    /// File name and text.
    pub(crate) documents: Vec<(&'a str, String)>,
    /// MeshConfig as YAML.
    pub(crate) mesh_config: &'a str,
    /// Features of the control plane.
    pub(crate) env: &'a BTreeMap<String, String>,
    /// `P.json` of the contract.
    pub(crate) proxy: &'a Value,
}

/// All that the proxy is sent, in both forms.
pub(crate) struct Dump {
    /// As `meshctl xds` prints it.
    pub(crate) json: Value,
    /// As explain reads it.
    pub(crate) resources: Resources,
}

/// The settings of a mesh with this MeshConfig and these features of its control plane.
pub(crate) fn settings(mesh_config: &str, env: &BTreeMap<String, String>) -> Settings {
    let mut settings = Settings::default();
    settings.mesh = Arc::new(MeshConfig::from_yaml(mesh_config).0);
    settings.features = Features::new(env.clone());
    settings
}

/// Builds everything for the proxy.
pub(crate) fn dump(input: &Input<'_>) -> Dump {
    let settings = settings(input.mesh_config, input.env);
    let mut changes = Vec::new();
    for (file, text) in &input.documents {
        changes.extend(document::parse(&Name::from(*file), text).objects().cloned().map(Change::Upsert));
    }
    let snapshot = Snapshot::new(settings).apply(changes);
    let proxy = Arc::new(Proxy::from_json(&input.proxy.to_string()).expect("a proxy as the contract has it"));
    let builder = Builder::default();
    let sets: Vec<(TypeUrl, ResourceSet)> =
        TypeUrl::ALL.into_iter().map(|kind| (kind, builder.build(&snapshot, &proxy, kind))).collect();
    Dump {
        json: json::dump(&sets).expect("resources of their types"),
        resources: Resources::decode(&sets).expect("resources of their types"),
    }
}
