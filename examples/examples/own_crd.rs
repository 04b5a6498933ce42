//! A custom resource of your own drives Envoys: a Website becomes a ServiceEntry, and the control plane does the rest.
//!
//! `cargo run -p mesh-examples --example own_crd -- 127.0.0.1:15010`, with the cluster of KUBECONFIG

use std::collections::BTreeSet;

use futures::StreamExt;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, CustomResource, ResourceExt};
use mesh_api::Object;
use mesh_api::networking::{Resolution, ServiceEntry, ServiceEntrySpec, ServicePort, WorkloadEntrySpec};
use mesh_controller::ControlPlane;
use mesh_controller::source::Memory;
use mesh_controller::source::memory::Edit;

/// A website and where it is.
#[derive(CustomResource, Clone, Debug, serde::Deserialize, serde::Serialize, schemars::JsonSchema)]
#[kube(group = "example.dev", version = "v1", kind = "Website", namespaced)]
struct WebsiteSpec {
    host: String,
    addresses: Vec<String>,
    port: u16,
}

/// What Envoys should know of a website: your reconciler, a pure function.
fn service_entry(website: &Website) -> Object {
    let WebsiteSpec { host, addresses, port } = &website.spec;
    let endpoint = |address: &String| WorkloadEntrySpec { address: address.clone(), ..Default::default() };
    let mut entry = ServiceEntry::new(
        &website.name_any(),
        ServiceEntrySpec {
            hosts: vec![host.clone()],
            ports: vec![ServicePort { number: u32::from(*port), name: "http".into(), ..Default::default() }],
            resolution: Resolution::Static,
            endpoints: addresses.iter().map(endpoint).collect(),
            ..Default::default()
        },
    );
    entry.metadata.namespace = website.namespace();
    Object::ServiceEntry(entry.into())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:15010".into()).parse()?;
    let (memory, (websites, writer)) = (Memory::default(), reflector::store());
    let control_plane = ControlPlane::builder().source(memory.source()).serve_xds(address).bind().await?;
    let watch = watcher(Api::<Website>::all(Client::try_default().await?), watcher::Config::default());
    let follow = reflector(writer, watch.default_backoff()).fold(BTreeSet::new(), |known, _| {
        let wanted: Vec<Object> = websites.state().iter().map(|website| service_entry(website)).collect();
        let now: BTreeSet<_> = wanted.iter().map(Object::object_ref).collect();
        let gone = known.difference(&now).cloned().map(Edit::Delete);
        memory.apply(gone.chain(wanted.into_iter().map(Edit::Upsert)));
        std::future::ready(now)
    });
    tokio::join!(control_plane.run_until(std::future::pending()), follow).0?;
    Ok(())
}
