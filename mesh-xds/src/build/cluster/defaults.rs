//! What holds for every cluster of the mesh, read from MeshConfig once.

use std::sync::Arc;

use mesh_api::mesh::H2UpgradePolicy;
use mesh_api::types::Duration;
use mesh_api::{Diagnostic, FieldPath, Name, ObjectRef};

use crate::lower::Told;
use crate::lower::destination_rule::{
    connection_pool, locality_settings, outlier_detection, tcp_keepalive, zone_aware,
};
use crate::model::Settings;
use crate::model::destination_rule::{
    ConnectionPool, LocalityLb, Origin, OutlierDetection, TcpKeepalive, TrafficPolicy,
};

/// What holds for every cluster of the mesh.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Defaults {
    /// For establishing connections.
    pub connect_timeout: Duration,
    /// Probes on idle connections.
    pub keepalive: Option<TcpKeepalive>,
    /// Between two resolutions of a name.
    pub dns_refresh_rate: Duration,
    /// The pattern of statistics of outbound clusters; empty: their names.
    pub outbound_stat_name: Name,
    /// The pattern of statistics of inbound clusters; empty: their names.
    pub inbound_stat_name: Name,
    /// HTTP/1.1 is upgraded where a rule says nothing.
    pub h2_upgrade: bool,
    /// Mesh mTLS wherever both sides can.
    pub auto_mtls: bool,
    /// Between localities, where neither rule nor service say anything.
    pub locality: Option<LocalityLb>,
    /// For rules that have none.
    pub connection_pool: Option<Arc<ConnectionPool>>,
    /// For rules that have none.
    pub outlier_detection: Option<Arc<OutlierDetection>>,
    /// Cipher suites and curves for TLS that a user originates.
    pub tls: TlsDefaults,
    /// Endpoints that are not ready are sent, so panic must not use them.
    pub send_unhealthy: bool,
}

/// Cipher suites and curves for TLS that a user originates; empty: the data plane's.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsDefaults {
    /// In order of preference.
    pub cipher_suites: Vec<Name>,
    /// In order of preference.
    pub ecdh_curves: Vec<Name>,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            keepalive: None,
            dns_refresh_rate: Duration::from_secs(60),
            outbound_stat_name: Name::default(),
            inbound_stat_name: Name::default(),
            h2_upgrade: false,
            auto_mtls: true,
            locality: None,
            connection_pool: None,
            outlier_detection: None,
            tls: TlsDefaults::default(),
            send_unhealthy: true,
        }
    }
}

impl Defaults {
    /// The defaults that the settings ask for.
    pub fn of(settings: &Settings) -> Self {
        Self::lower(settings).0
    }

    /// A rule's policy, or that of services without a rule, over what the mesh says.
    pub(super) fn policy(&self, of_rule: Option<Arc<TrafficPolicy>>) -> Option<Arc<TrafficPolicy>> {
        let path = FieldPath::new("defaultTrafficPolicy");
        let origin = Origin { object: ObjectRef::new("MeshConfig", "", "mesh"), path };
        let (pool, outlier) = (self.connection_pool.as_ref(), self.outlier_detection.as_ref());
        TrafficPolicy::with_defaults(of_rule, &origin, pool, outlier)
    }

    /// The defaults that the settings ask for, and what is wrong with them.
    pub fn lower(settings: &Settings) -> (Self, Vec<Diagnostic>) {
        let mesh = &settings.mesh;
        let object = ObjectRef::new("MeshConfig", "", "mesh");
        let mut told = Told::about(&object);
        let policy = FieldPath::new("defaultTrafficPolicy");
        let written = mesh.default_traffic_policy.as_ref();
        let names = |list: &[String]| list.iter().map(|name| Name::from(name.as_str())).collect();
        let locality = match (&mesh.zone_aware_lb_setting, &mesh.locality_lb_setting) {
            (Some(zone), _) => Some(LocalityLb::ZoneAware(zone_aware(zone))),
            (None, Some(locality)) => {
                Some(locality_settings(locality, &FieldPath::new("localityLbSetting"), &mut told))
            }
            (None, None) => None,
        };
        if mesh.default_config.proxy_headers.is_some() {
            told.unsupported("defaultConfig.proxyHeaders", "headers of proxies cannot be set yet");
        }
        let defaults = Self {
            connect_timeout: mesh.connect_timeout,
            keepalive: mesh
                .tcp_keepalive
                .as_ref()
                .map(|k| tcp_keepalive(k, &FieldPath::new("tcpKeepalive"), &mut told)),
            dns_refresh_rate: mesh.dns_refresh_rate,
            outbound_stat_name: mesh.outbound_cluster_stat_name.as_str().into(),
            inbound_stat_name: mesh.inbound_cluster_stat_name.as_str().into(),
            h2_upgrade: mesh.h2_upgrade_policy == H2UpgradePolicy::Upgrade,
            auto_mtls: mesh.enable_auto_mtls,
            locality,
            connection_pool: written
                .and_then(|p| p.connection_pool.as_ref())
                .map(|p| Arc::new(connection_pool(p, &policy.field("connectionPool"), &mut told))),
            outlier_detection: written
                .and_then(|p| p.outlier_detection.as_ref())
                .map(|o| Arc::new(outlier_detection(o, &policy.field("outlierDetection"), &mut told))),
            tls: mesh.tls_defaults.as_ref().map_or_else(TlsDefaults::default, |tls| TlsDefaults {
                cipher_suites: names(&tls.cipher_suites),
                ecdh_curves: names(&tls.ecdh_curves),
            }),
            send_unhealthy: settings.features.flag("PILOT_AUTO_SEND_UNHEALTHY_ENDPOINTS", true),
        };
        (defaults, told.diagnostics)
    }
}
