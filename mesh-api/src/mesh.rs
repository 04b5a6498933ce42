//! The settings of the mesh as a whole: what istiod reads from its `istio` ConfigMap or a file, laid over the defaults.
//!
//! Every field of Istio's MeshConfig is here and holds a value as it is in force, so nobody else knows a default. A field
//! that cannot be read is reported and keeps the value it had: one typing error never takes a mesh's settings away.

mod defaults;
mod networks;
mod overlay;
mod providers;
mod proxy_config;

pub use networks::*;
pub use providers::*;
pub use proxy_config::*;

use std::collections::{BTreeMap, BTreeSet};

use crate::document::{Node, Value};
use crate::networking::{
    ClientTlsSettings, ConnectionPoolSettings, HttpRetry, LocalityLoadBalancerSetting, OutlierDetection, TcpKeepalive,
    ZoneAwareLoadBalancerSetting,
};
use crate::types::{Duration, enumeration};
use crate::{Diagnostic, Name};
use overlay::settings;

settings! {
    /// The settings of the mesh as a whole. [`MeshConfig::default`] is what istiod assumes when nothing is said.
    ///
    /// ```
    /// use mesh_api::mesh::MeshConfig;
    /// let (mesh, told) = MeshConfig::from_yaml("trustDomain: prod.example\ndefaultConfig: {concurrency: 4}\n");
    /// assert!(told.is_empty());
    /// assert_eq!(mesh.trust_domain, "prod.example");
    /// assert_eq!((mesh.default_config.concurrency, mesh.default_config.status_port), (Some(4), 15020));
    /// ```
    pub struct MeshConfig {
        /// Port on which proxies take outbound traffic.
        pub proxy_listen_port: i32,
        /// Port on which proxies take inbound traffic.
        pub proxy_inbound_listen_port: i32,
        /// Port of an explicit HTTP proxy; 0 for none.
        pub proxy_http_port: i32,
        /// How long a TCP connection may take to come about.
        pub connect_timeout: Duration,
        /// After so long without a stream an HBONE connection is closed.
        pub hbone_idle_timeout: Option<Duration>,
        /// How long to wait for bytes that tell the protocol; 0 is no limit.
        pub protocol_detection_timeout: Duration,
        /// TCP keepalive towards services.
        pub tcp_keepalive: Option<TcpKeepalive>,
        /// Class of the Ingresses that the mesh serves.
        pub ingress_class: String,
        /// Service of the ingress gateway, for the status of Ingresses.
        pub ingress_service: String,
        /// Which Ingresses are served.
        pub ingress_controller_mode: IngressControllerMode,
        /// Value of the label `istio` of the gateways that serve Ingresses. Empty: `ingressgateway`.
        pub ingress_selector: String,
        /// Whether requests are traced.
        pub enable_tracing: bool,
        /// File for access logs; empty for none.
        pub access_log_file: String,
        /// Format of access logs; empty for Istio's own.
        pub access_log_format: String,
        /// Whether lines of the access log are text or JSON.
        pub access_log_encoding: AccessLogEncoding,
        /// Whether access logs go to the service that `default_config.envoy_access_log_service` names.
        pub enable_envoy_access_log_service: bool,
        /// Turns off the listener's own access log.
        pub disable_envoy_listener_log: bool,
        /// Settings for proxies that say nothing else.
        pub default_config: ProxyConfig,
        /// What happens to traffic for destinations that the mesh doesn't know.
        pub outbound_traffic_policy: OutboundTrafficPolicy,
        /// What happens to inbound traffic on ports of no service.
        pub inbound_traffic_policy: InboundTrafficPolicy,
        /// Where configuration is read, besides the cluster.
        pub config_sources: Vec<ConfigSource>,
        /// Whether traffic in the mesh is sent by mutual TLS where both ends can.
        pub enable_auto_mtls: bool,
        /// Trust domain of the mesh's identities.
        pub trust_domain: String,
        /// Other names of the trust domain; sorted, each once.
        pub trust_domain_aliases: Vec<String>,
        /// Further roots that are trusted for workloads.
        pub ca_certificates: Vec<CertificateData>,
        /// To which namespaces a service is visible that doesn't say.
        pub default_service_export_to: Vec<String>,
        /// To which namespaces a VirtualService applies that doesn't say.
        pub default_virtual_service_export_to: Vec<String>,
        /// To which namespaces a DestinationRule applies that doesn't say.
        pub default_destination_rule_export_to: Vec<String>,
        /// Namespace whose configuration is for all others.
        pub root_namespace: String,
        /// Preferences among localities, unless a DestinationRule has its own.
        pub locality_lb_setting: Option<LocalityLoadBalancerSetting>,
        /// Preference for the own zone, unless a DestinationRule has its own.
        pub zone_aware_lb_setting: Option<ZoneAwareLoadBalancerSetting>,
        /// How long a failed DNS answer counts.
        pub dns_refresh_rate: Duration,
        /// Whether HTTP/1.1 is sent on as HTTP/2 where a DestinationRule doesn't say.
        pub h2_upgrade_policy: H2UpgradePolicy,
        /// Pattern for the names of inbound clusters in statistics.
        pub inbound_cluster_stat_name: String,
        /// Pattern for the names of outbound clusters in statistics.
        pub outbound_cluster_stat_name: String,
        /// Certificates that istiod shall order for others. Has no effect any more.
        pub certificates: Vec<Certificate>,
        /// Settings for services by host.
        pub service_settings: Vec<ServiceSettings>,
        /// Which services are visible to other clusters.
        pub service_scope_configs: Vec<ServiceScopeConfigs>,
        /// Whether the agent merges the application's metrics into its own.
        pub enable_prometheus_merge: bool,
        /// Whether TLS to a host that no rule describes is verified. Deprecated.
        pub verify_certificate_at_client: Option<bool>,
        /// A CA of others that signs for workloads.
        pub ca: Option<Ca>,
        /// Services for tracing, logging, metrics and authorization, by name.
        pub extension_providers: Vec<ExtensionProvider>,
        /// Which of the providers are used where a Telemetry doesn't say.
        pub default_providers: DefaultProviders,
        /// Namespaces that the control plane looks at: any one of these, all if empty.
        pub discovery_selectors: Vec<LabelSelector>,
        /// How paths are normalized before they are matched.
        pub path_normalization: Option<ProxyPathNormalization>,
        /// Retries of HTTP routes that don't say. Default: Istio's, twice on failures to connect.
        pub default_http_retry_policy: Option<HttpRetry>,
        /// Retries of a sidecar towards its own application. Default: none.
        pub default_inbound_http_retry_policy: Option<HttpRetry>,
        /// Limits for mutual TLS in the mesh.
        #[serde(rename = "meshMTLS")]
        pub mesh_mtls: Option<TlsConfig>,
        /// Limits for all other TLS.
        pub tls_defaults: Option<TlsConfig>,
        /// Traffic policy for services of which no DestinationRule speaks.
        pub default_traffic_policy: Option<DefaultTrafficPolicy>,
        /// How far ServiceEntries may be visible.
        pub service_entry_visibility: Option<ServiceEntryVisibility>,
    }
}

enumeration! {
    /// Which Ingresses the mesh serves.
    pub enum IngressControllerMode {
        /// As `Default`.
        #[default]
        Unspecified,
        /// None.
        Off,
        /// Those of the mesh's class and those without a class.
        Default,
        /// Those of the mesh's class.
        Strict,
    }
}

enumeration! {
    /// Form of the access log's lines.
    pub enum AccessLogEncoding {
        /// Text.
        #[default]
        Text,
        /// JSON.
        Json,
    }
}

settings! {
    /// What happens to traffic for destinations that the mesh doesn't know.
    #[derive(Default)]
    pub struct OutboundTrafficPolicy {
        /// What happens.
        pub mode: OutboundTrafficPolicyMode,
        /// TLS towards such destinations, with `ALLOW_ANY_DYNAMIC_DNS`.
        pub tls: Option<ClientTlsSettings>,
    }
}

enumeration! {
    /// What happens to traffic for unknown destinations.
    pub enum OutboundTrafficPolicyMode {
        /// It is refused.
        #[default]
        RegistryOnly,
        /// It is let through.
        AllowAny,
        /// It is let through, and HTTP hosts and server names are resolved by DNS.
        AllowAnyDynamicDns = 3,
    }
}

settings! {
    /// What happens to inbound traffic on ports of no service.
    #[derive(Default)]
    pub struct InboundTrafficPolicy {
        /// Where it goes.
        pub mode: InboundTrafficPolicyMode,
    }
}

enumeration! {
    /// Where inbound traffic goes.
    pub enum InboundTrafficPolicyMode {
        /// To the address that the client asked for.
        #[default]
        Passthrough,
        /// To the loopback address.
        Localhost,
    }
}

settings! {
    /// A place that configuration is read from.
    #[derive(Default)]
    pub struct ConfigSource {
        /// `fs:///path`, `k8s://` or the address of an xDS server.
        pub address: String,
        /// TLS towards it.
        pub tls_settings: Option<ClientTlsSettings>,
        /// What is read there.
        pub subscribed_resources: Vec<Resource>,
    }
}

enumeration! {
    /// What a source can hold besides configuration.
    pub enum Resource {
        /// Services.
        #[default]
        ServiceRegistry,
    }
}

settings! {
    /// A root that is trusted for workloads.
    #[derive(Default)]
    pub struct CertificateData {
        /// Signers whose certificates it vouches for.
        pub cert_signers: Vec<String>,
        /// Trust domains that it is for. Default: the mesh's.
        pub trust_domains: Vec<String>,
        oneof {
            /// The root itself, or where it is.
            pub certificate_data: CertificateSource {
                /// In PEM.
                pem => Pem(String),
                /// URL of a SPIFFE bundle.
                spiffe_bundle_url => SpiffeBundleUrl(String),
            }
        }
    }
}

enumeration! {
    /// Whether HTTP/1.1 is sent on as HTTP/2.
    pub enum H2UpgradePolicy {
        /// No.
        #[default]
        DoNotUpgrade,
        /// Yes.
        Upgrade,
    }
}

settings! {
    /// A certificate that istiod shall order.
    #[derive(Default)]
    pub struct Certificate {
        /// Secret to hold it.
        pub secret_name: String,
        /// Names that it is for.
        pub dns_names: Vec<String>,
    }
}

settings! {
    /// Settings for some services.
    #[derive(Default)]
    pub struct ServiceSettings {
        /// The settings.
        pub settings: Option<ServiceSettingsSettings>,
        /// The services' hosts; wildcards allowed.
        pub hosts: Vec<String>,
    }
}

settings! {
    /// What can be set for a service.
    #[derive(Default)]
    pub struct ServiceSettingsSettings {
        /// Whether only endpoints of the client's own cluster are used.
        pub cluster_local: bool,
    }
}

settings! {
    /// Scope of the services that the selectors choose.
    #[derive(Default)]
    pub struct ServiceScopeConfigs {
        /// Namespaces of the services.
        pub namespace_selector: Option<LabelSelector>,
        /// Labels of the services.
        pub services_selector: Option<LabelSelector>,
        /// Their scope.
        pub scope: ServiceScope,
    }
}

enumeration! {
    /// How far a service is known.
    pub enum ServiceScope {
        /// In its own cluster.
        #[default]
        Local,
        /// In every cluster of the mesh.
        Global,
    }
}

settings! {
    /// A CA of others.
    #[derive(Default)]
    pub struct Ca {
        /// Its address.
        pub address: String,
        /// TLS towards it.
        pub tls_settings: Option<ClientTlsSettings>,
        /// How long a certificate may take. Default: 10 s.
        pub request_timeout: Option<Duration>,
        /// Whether istiod asks it (otherwise agents do).
        pub istiod_side: bool,
    }
}

settings! {
    /// Providers used where a Telemetry doesn't say.
    #[derive(Default)]
    pub struct DefaultProviders {
        /// For traces.
        pub tracing: Vec<String>,
        /// For metrics.
        pub metrics: Vec<String>,
        /// For access logs.
        pub access_logging: Vec<String>,
    }
}

settings! {
    /// Chooses objects by label, as Kubernetes does.
    #[derive(Default)]
    pub struct LabelSelector {
        /// Labels that must all be there.
        pub match_labels: BTreeMap<String, String>,
        /// Conditions that must all hold.
        pub match_expressions: Vec<LabelSelectorRequirement>,
    }
}

settings! {
    /// A condition on one label.
    #[derive(Default)]
    pub struct LabelSelectorRequirement {
        /// The label.
        pub key: String,
        /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
        pub operator: String,
        /// The values for `In` and `NotIn`.
        pub values: Vec<String>,
    }
}

impl LabelSelector {
    /// True when an object with these labels is chosen. An empty selector chooses all; a condition with an unknown
    /// operator chooses none.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|condition| {
                let value = labels.get(&condition.key);
                match condition.operator.as_str() {
                    "In" => value.is_some_and(|v| condition.values.contains(v)),
                    "NotIn" => value.is_none_or(|v| !condition.values.contains(v)),
                    "Exists" => value.is_some(),
                    "DoesNotExist" => value.is_none(),
                    _ => false,
                }
            })
    }
}

settings! {
    /// How paths are normalized.
    #[derive(Default)]
    pub struct ProxyPathNormalization {
        /// Which steps are done.
        pub normalization: PathNormalization,
    }
}

enumeration! {
    /// Steps of path normalization.
    pub enum PathNormalization {
        /// As `Base`.
        #[default]
        Default,
        /// Nothing is done.
        None,
        /// RFC 3986: dots and percent encoding.
        Base,
        /// Also joins slashes.
        MergeSlashes,
        /// Also decodes `%2F` and `%5C` first.
        DecodeAndMergeSlashes,
    }
}

settings! {
    /// Limits for TLS.
    #[derive(Default)]
    pub struct TlsConfig {
        /// The oldest version allowed.
        pub min_protocol_version: TlsProtocol,
        /// Curves for the key exchange, by preference.
        pub ecdh_curves: Vec<String>,
        /// Ciphers, by preference.
        pub cipher_suites: Vec<String>,
    }
}

enumeration! {
    /// A version of TLS.
    pub enum TlsProtocol {
        /// Istio's choice, which is 1.2.
        #[default]
        TlsAuto,
        /// 1.2.
        #[serde(rename = "TLSV1_2")]
        Tlsv1_2,
        /// 1.3.
        #[serde(rename = "TLSV1_3")]
        Tlsv1_3,
    }
}

settings! {
    /// Traffic policy for services of which no DestinationRule speaks.
    #[derive(Default)]
    pub struct DefaultTrafficPolicy {
        /// Limits on connections and requests.
        pub connection_pool: Option<ConnectionPoolSettings>,
        /// When an endpoint that fails is left out for a while.
        pub outlier_detection: Option<OutlierDetection>,
    }
}

settings! {
    /// How far ServiceEntries may be visible. It only narrows what they say themselves.
    #[derive(Default)]
    pub struct ServiceEntryVisibility {
        /// For namespaces of no policy.
        pub default_visibility: Visibility,
        /// Whether sidecars are held to it too.
        pub apply_to_sidecars: bool,
        /// By namespace; the first that matches counts.
        pub policies: Vec<VisibilityPolicy>,
    }
}

enumeration! {
    /// How far something is visible.
    pub enum Visibility {
        /// Not said.
        #[default]
        VisibilityUnspecified,
        /// To nobody.
        None,
        /// In its own namespace.
        Namespace,
        /// Everywhere.
        Public,
    }
}

settings! {
    /// Visibility in some namespaces.
    #[derive(Default)]
    pub struct VisibilityPolicy {
        /// How far.
        pub visibility: Visibility,
        /// Where: any one of these.
        pub matching_rules: Vec<VisibilityRule>,
    }
}

settings! {
    /// Chooses namespaces.
    #[derive(Default)]
    pub struct VisibilityRule {
        /// By their labels.
        pub namespace_selector: Option<LabelSelector>,
    }
}

impl MeshConfig {
    /// Lays a YAML text over the defaults. What cannot be read is reported and stays at its default.
    pub fn from_yaml(text: &str) -> (Self, Vec<Diagnostic>) {
        Self::default().apply(&Name::from("MeshConfig"), text)
    }

    /// Lays a YAML text over these settings, as istiod does: a field replaces the one before it as a whole, except that
    /// `defaultConfig` is merged field by field, `defaultProviders` likewise, providers by their names, and that trust
    /// domain aliases add up. `file` is the name that diagnostics tell.
    pub fn apply(&self, file: &Name, text: &str) -> (Self, Vec<Diagnostic>) {
        let mut told = Vec::new();
        let Some(node) = overlay::mapping(file, text, &mut told) else { return (self.clone(), told) };
        let (nested, own) = overlay::split(node, &["defaultConfig", "defaultProviders"]);
        let mut mesh: Self = overlay::lay(self, own, file, "", &mut told);
        for (key, node) in nested {
            if key == "defaultConfig" {
                mesh.default_config = self.default_config.overlaid(node, file, "defaultConfig", &mut told);
            } else {
                mesh.default_providers =
                    overlay::lay(&self.default_providers, node, file, "defaultProviders", &mut told);
            }
        }
        let mut providers = self.extension_providers.clone();
        for provider in std::mem::take(&mut mesh.extension_providers) {
            match providers.iter_mut().find(|p| p.name == provider.name) {
                Some(known) => *known = provider,
                None => providers.push(provider),
            }
        }
        mesh.extension_providers = providers;
        let aliases: BTreeSet<String> =
            mesh.trust_domain_aliases.drain(..).chain(self.trust_domain_aliases.iter().cloned()).collect();
        mesh.trust_domain_aliases = aliases.into_iter().collect();
        (mesh, told)
    }

    /// The provider of that name.
    pub fn extension_provider(&self, name: &str) -> Option<&ExtensionProvider> {
        self.extension_providers.iter().find(|provider| provider.name == name)
    }
}

impl ProxyConfig {
    /// Lays a YAML text (such as a pod's annotation `proxy.istio.io/config`) over these settings: a field replaces the
    /// one before it, `proxyMetadata` is merged by key.
    pub fn apply(&self, file: &Name, text: &str) -> (Self, Vec<Diagnostic>) {
        let mut told = Vec::new();
        let merged = match overlay::mapping(file, text, &mut told) {
            Some(node) => self.overlaid(node, file, "", &mut told),
            None => self.clone(),
        };
        (merged, told)
    }

    fn overlaid(&self, node: Node<'_>, file: &Name, prefix: &str, told: &mut Vec<Diagnostic>) -> Self {
        let mut base = self.clone();
        // The two are arms of one union.
        let says = |key: &str| node.get(key).is_some_and(|n| !matches!(n.value, Value::Null));
        if says("tracingServiceName") {
            base.service_cluster.clear();
        } else if says("serviceCluster") {
            base.tracing_service_name = None;
        }
        let mut merged: Self = overlay::lay(&base, node, file, prefix, told);
        for (key, value) in &self.proxy_metadata {
            merged.proxy_metadata.entry(key.clone()).or_insert_with(|| value.clone());
        }
        if let (Some(headers), Some(before)) = (&mut merged.proxy_headers, &self.proxy_headers) {
            headers.inherit(before);
        }
        merged
    }
}

#[cfg(test)]
mod tests;
