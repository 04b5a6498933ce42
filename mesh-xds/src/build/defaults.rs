//! MeshConfig as clusters need it: lowered once for the whole mesh.

use std::sync::Arc;

use mesh_api::mesh::H2UpgradePolicy;
use mesh_api::{FieldPath, ObjectRef};

use super::cluster::{Defaults, IpFamily, TlsDefaults, Traits};
use crate::class::Client;
use crate::lower::Told;
use crate::lower::destination_rule::{policy, pool};
use crate::memo::Query;
use crate::model::destination_rule::LocalityLb;
use crate::scope::settings;
use crate::view::View;

/// What holds for every cluster of the mesh.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct MeshDefaults;

impl Query for MeshDefaults {
    type Out = Defaults;
    fn run(&self, view: &View<'_>) -> Defaults {
        let settings = settings(view);
        let mesh = &settings.mesh;
        let object = ObjectRef::new("MeshConfig", "", "");
        let mut told = Told::about(&object);
        let at = |field: &str| FieldPath::new(field);
        let policies = mesh.default_traffic_policy.as_ref();
        Defaults {
            connect_timeout: mesh.connect_timeout,
            keepalive: mesh.tcp_keepalive.as_ref().map(|k| pool::tcp_keepalive(k, &at("tcpKeepalive"), &mut told)),
            dns_refresh_rate: mesh.dns_refresh_rate,
            outbound_stat_name: mesh.outbound_cluster_stat_name.as_str().into(),
            inbound_stat_name: mesh.inbound_cluster_stat_name.as_str().into(),
            h2_upgrade: mesh.h2_upgrade_policy == H2UpgradePolicy::Upgrade,
            auto_mtls: mesh.enable_auto_mtls,
            locality: mesh
                .locality_lb_setting
                .as_ref()
                .map(|l| policy::locality_settings(l, &at("localityLbSetting"), &mut told))
                .filter(|l| !matches!(l, LocalityLb::Off)),
            connection_pool: policies
                .and_then(|p| p.connection_pool.as_ref())
                .map(|p| Arc::new(pool::connection_pool(p, &at("defaultTrafficPolicy.connectionPool"), &mut told))),
            outlier_detection: policies.and_then(|p| p.outlier_detection.as_ref()).map(|o| {
                Arc::new(policy::outlier_detection(o, &at("defaultTrafficPolicy.outlierDetection"), &mut told))
            }),
            tls: TlsDefaults {
                cipher_suites: mesh
                    .tls_defaults
                    .iter()
                    .flat_map(|t| &t.cipher_suites)
                    .map(|s| s.as_str().into())
                    .collect(),
                ecdh_curves: mesh.tls_defaults.iter().flat_map(|t| &t.ecdh_curves).map(|s| s.as_str().into()).collect(),
            },
            send_unhealthy: true,
        }
    }
}

/// The part of a client that makes a difference to clusters, its place aside.
pub(crate) fn traits(client: &Client) -> Traits {
    Traits {
        kind: client.kind,
        ip_family: if client.ipv6 && !client.ipv4 { IpFamily::V6 } else { IpFamily::V4 },
        ..Traits::default()
    }
}
