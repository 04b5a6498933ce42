//! MeshConfig as clusters and routes need it: lowered once for the whole mesh.

use super::authn::has_identity;
use super::cluster::{Defaults, IpFamily, Traits};
use mesh_api::Name;

use crate::class::Client;
use crate::lower::virtual_service::mesh_retries;
use crate::memo::Query;
use crate::model::virtual_service::Retries;
use crate::scope::settings;
use crate::view::View;

/// What holds for every cluster of the mesh.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct MeshDefaults;

impl Query for MeshDefaults {
    type Out = Defaults;
    fn run(&self, view: &View<'_>) -> Defaults {
        Defaults::of(&settings(view))
    }
}

/// The mesh's retry policy for rules and services that have none of their own (`defaultHttpRetryPolicy`).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct MeshRetries;

impl Query for MeshRetries {
    type Out = Option<Retries>;
    fn run(&self, view: &View<'_>) -> Option<Retries> {
        mesh_retries(&settings(view))
    }
}

/// The part of a client that makes a difference to clusters, its place aside.
pub(crate) fn traits(client: &Client) -> Traits {
    Traits {
        kind: client.kind,
        ip_family: if client.ipv6 && !client.ipv4 { IpFamily::V6 } else { IpFamily::V4 },
        identity: has_identity(&client.traits),
        client_files: client_files(client),
        ..Traits::default()
    }
}

/// The files that a proxy uses instead of the mesh's certificates.
fn client_files(client: &Client) -> Option<(Name, Name, Name)> {
    let file = |key: &str| Name::from(client.metadata(key));
    let chain = file("TLS_CLIENT_CERT_CHAIN");
    (!chain.is_empty()).then(|| (chain, file("TLS_CLIENT_KEY"), file("TLS_CLIENT_ROOT_CERT")))
}
