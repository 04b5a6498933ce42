//! What holds for every cluster of the mesh, read from MeshConfig once.

use std::sync::Arc;

use mesh_api::mesh::{H2UpgradePolicy, TlsConfig, TlsProtocol};
use mesh_api::types::Duration;
use mesh_api::{Diagnostic, FieldPath, Name, ObjectRef};

use crate::lower::Told;
use crate::lower::destination_rule::{
    connection_pool, locality_settings, outlier_detection, tcp_keepalive, zone_aware,
};
use crate::lower::tls::{cipher_suites, curves};
use crate::model::destination_rule::{
    ConnectionPool, LocalityLb, Origin, OutlierDetection, TcpKeepalive, TrafficPolicy,
};
use crate::model::{Features, Settings};

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
    /// For TLS of users, where they say nothing themselves.
    pub tls: TlsDefaults,
    /// For the mesh's own mTLS.
    pub mesh_tls: TlsDefaults,
    /// What any TLS is limited to.
    pub compliance: Compliance,
    /// Endpoints that are not ready are sent, so panic must not use them.
    pub send_unhealthy: bool,
}

/// Parameters of TLS.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsDefaults {
    /// Nothing older than TLS 1.3.
    pub only_13: bool,
    /// Cipher suites in order of preference; empty: the data plane's.
    pub cipher_suites: Vec<Name>,
    /// Curves in order of preference; empty: the data plane's.
    pub ecdh_curves: Vec<Name>,
}

impl TlsDefaults {
    fn lower(written: Option<&TlsConfig>, path: &FieldPath, told: &mut Told<'_>) -> Self {
        written.map_or_else(Self::default, |written| Self {
            only_13: written.min_protocol_version == TlsProtocol::Tlsv1_3,
            cipher_suites: cipher_suites(&written.cipher_suites, path, told),
            ecdh_curves: curves(&written.ecdh_curves, path, told),
        })
    }
}

/// What `COMPLIANCE_POLICY` limits TLS to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Compliance {
    /// Nothing.
    #[default]
    None,
    /// FIPS 140-2: TLS 1.2 with AES-GCM over P-256.
    Fips140v2,
    /// FIPS 140-3, as Envoy's own policy `FIPS_202205` has it.
    Fips140v3,
    /// Post-quantum: TLS 1.3 over X25519MLKEM768.
    PostQuantum,
}

impl Compliance {
    fn lower(features: &Features, told: &mut Told<'_>) -> Self {
        match features.get("COMPLIANCE_POLICY").unwrap_or_default() {
            "" => Self::None,
            "fips-140-2" => Self::Fips140v2,
            "fips-140-3" => Self::Fips140v3,
            "pqc" => Self::PostQuantum,
            other => {
                let message =
                    format!("COMPLIANCE_POLICY {other:?} is none of fips-140-2, fips-140-3, pqc; it limits nothing");
                told.error("UnknownPolicy", "", message);
                Self::None
            }
        }
    }
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
            mesh_tls: TlsDefaults::default(),
            compliance: Compliance::default(),
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
            tls: TlsDefaults::lower(mesh.tls_defaults.as_ref(), &FieldPath::new("tlsDefaults"), &mut told),
            mesh_tls: TlsDefaults::lower(mesh.mesh_mtls.as_ref(), &FieldPath::new("meshMTLS"), &mut told),
            compliance: Compliance::lower(&settings.features, &mut told),
            send_unhealthy: settings.features.flag("PILOT_AUTO_SEND_UNHEALTHY_ENDPOINTS", true),
        };
        (defaults, told.diagnostics)
    }
}
