//! The part of MeshConfig's ProxyConfig that the agent itself acts on. What it does not know is kept and passed on to the
//! control plane in the node's metadata (`PROXY_CONFIG`), because there it may well mean something.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Settings of one proxy, with Istio's names and defaults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct ProxyConfig {
    /// The folder for the bootstrap that the agent writes.
    pub config_path: String,
    /// Where Envoy is.
    pub binary_path: String,
    /// Envoy's `node.cluster`; `istio-proxy` means "derive it from the workload".
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_cluster: String,
    /// `host:port` of the control plane.
    pub discovery_address: String,
    /// How long Envoy takes to close connections of a listener that goes away (`--drain-time-s`).
    #[serde(with = "written")]
    pub drain_duration: Duration,
    /// How long the agent waits between draining and ending Envoy.
    #[serde(with = "written")]
    pub termination_drain_duration: Duration,
    /// Envoy's worker threads; 0 for as many as there are CPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Envoy's admin port, on loopback only.
    pub proxy_admin_port: u16,
    /// The agent's own port for probes.
    pub status_port: u16,
    /// More variables: `ISTIO_META_*` become node metadata as if they were in the environment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub proxy_metadata: BTreeMap<String, String>,
    /// Envoy runtime flags, laid over the agent's own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub runtime_values: BTreeMap<String, String>,
    /// Which of Envoy's statistics are kept beyond those that are always kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_stats_matcher: Option<StatsMatcher>,
    /// Names of further tags in Istio's metrics.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_stat_tags: Vec<String>,
    /// All other fields, passed on as they are.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

/// ProxyConfig's `proxyStatsMatcher`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct StatsMatcher {
    /// Kept when the name begins so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inclusion_prefixes: Vec<String>,
    /// Kept when the name ends so.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inclusion_suffixes: Vec<String>,
    /// Kept when the name matches as a whole.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inclusion_regexps: Vec<String>,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            config_path: "./etc/istio/proxy".into(),
            binary_path: "/usr/local/bin/envoy".into(),
            service_cluster: "istio-proxy".into(),
            discovery_address: "istiod.istio-system.svc:15012".into(),
            drain_duration: Duration::from_secs(45),
            termination_drain_duration: Duration::from_secs(5),
            concurrency: None,
            proxy_admin_port: 15000,
            status_port: 15020,
            proxy_metadata: BTreeMap::new(),
            runtime_values: BTreeMap::new(),
            proxy_stats_matcher: None,
            extra_stat_tags: Vec::new(),
            others: Map::new(),
        }
    }
}

/// Why the text of `PROXY_CONFIG` could not be used. The fault is the user's.
#[derive(Debug, thiserror::Error)]
#[error("PROXY_CONFIG is no ProxyConfig in JSON: {0}; the injector writes one, check who else set the variable")]
pub struct NotAProxyConfig(#[from] serde_json::Error);

impl ProxyConfig {
    /// The defaults, with the fields of a ProxyConfig in JSON (the variable `PROXY_CONFIG`) laid over them.
    ///
    /// # Errors
    /// When the text is not such JSON.
    pub fn from_json(text: &str) -> Result<Self, NotAProxyConfig> {
        Ok(serde_json::from_str(text)?)
    }

    /// The Unix socket on which the agent passes configuration on.
    pub fn xds_socket(&self) -> String {
        format!("{}/XDS", self.config_path.trim_end_matches('/'))
    }

    /// As node metadata carries it.
    pub fn to_value(&self) -> Value {
        // Strings, numbers and maps with text keys always serialise.
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// A duration as protobuf writes it in JSON, and read in Go's notation as well. Negative ones mean nothing here.
mod written {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, out: S) -> Result<S::Ok, S::Error> {
        mesh_api::types::Duration::from(*duration).serialize(out)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
        let duration = mesh_api::types::Duration::deserialize(input)?;
        if duration.is_negative() { Err(D::Error::custom("negative")) } else { Ok(duration.to_std()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lays_fields_over_defaults_and_keeps_the_unknown() {
        let text = r#"{"discoveryAddress":"a:1","drainDuration":"1.5s","concurrency":2,"tracing":{"zipkin":{}}}"#;
        let config = ProxyConfig::from_json(text).unwrap();
        assert_eq!(config.discovery_address, "a:1");
        assert_eq!(config.drain_duration, Duration::from_millis(1500));
        assert_eq!((config.proxy_admin_port, config.status_port), (15000, 15020));
        let value = config.to_value();
        assert_eq!(value["tracing"], serde_json::json!({"zipkin": {}}));
        assert_eq!(value["drainDuration"], "1.500s");
        assert_eq!(value["proxyAdminPort"], 15000);
        assert!(ProxyConfig::from_json("discoveryAddress: a").is_err());
    }
}
