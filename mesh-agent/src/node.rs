//! Who this pod's proxy is: the node of its bootstrap, read from the environment and from what the downward API mounts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::google::protobuf;
use mesh_xds::bootstrap::{ISTIO_VERSION, Node, ProxyConfig, Role};
use serde_json::{Map, Value, json};

use crate::Environment;

/// What the downward API writes into the pod, where it is mounted.
#[derive(Clone, Debug, Default)]
pub struct PodInfo {
    /// The text of `./etc/istio/pod/labels`.
    pub labels: Option<String>,
    /// The text of `./etc/istio/pod/annotations`.
    pub annotations: Option<String>,
}

/// The node of this pod, from its environment. `domain` empty means the default for the pod's namespace. Returns also
/// what could not be read, each a line for the log.
pub fn of_pod(
    role: Role,
    ips: Vec<IpAddr>,
    domain: &str,
    env: &Environment,
    info: &PodInfo,
    config: &ProxyConfig,
) -> (Node, Vec<String>) {
    let mut problems = Vec::new();
    let mut metadata = Map::new();
    for (name, value) in &config.proxy_metadata {
        if let Some(key) = name.strip_prefix("ISTIO_META_") {
            metadata.insert(key.to_owned(), value.clone().into());
        }
    }
    for (key, value) in env.with_prefix("ISTIO_META_") {
        metadata.insert(key.to_owned(), value.into());
    }
    for (key, text) in env.with_prefix("ISTIO_METAJSON_") {
        match serde_json::from_str::<Map<String, Value>>(text) {
            Ok(entries) => metadata.extend(entries),
            Err(error) => problems.push(format!("ISTIO_METAJSON_{key} is no JSON object and is left out: {error}")),
        }
    }
    let namespace = env.get("POD_NAMESPACE").unwrap_or_default();
    let name = env.get("POD_NAME").unwrap_or_default();
    let mut set = |key: &str, value: Value| drop(metadata.insert(key.to_owned(), value));
    for (key, variable) in
        [("NAME", "POD_NAME"), ("NAMESPACE", "POD_NAMESPACE"), ("SERVICE_ACCOUNT", "SERVICE_ACCOUNT")]
    {
        if let Some(value) = env.get(variable) {
            set(key, value.into());
        }
    }
    set("INSTANCE_IPS", ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",").into());
    set("PROXY_CONFIG", config.to_value());
    for (key, variable, default) in
        [("ENVOY_STATUS_PORT", "ENVOY_STATUS_PORT", 15021), ("ENVOY_PROMETHEUS_PORT", "ENVOY_PROMETHEUS_PORT", 15090)]
    {
        set(key, env.get(variable).and_then(|v| v.parse::<u16>().ok()).unwrap_or(default).into());
    }
    if env.flag("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", false) {
        set("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "true".into());
    }
    metadata.entry("ISTIO_VERSION").or_insert_with(|| ISTIO_VERSION.into());

    let fixed: BTreeMap<String, String> = match env.get("ISTIO_METAJSON_LABELS").map(serde_json::from_str) {
        Some(Ok(labels)) => labels,
        _ => BTreeMap::new(),
    };
    let mut labels = fixed.clone();
    let mut read = |what: &str, text: &Option<String>| match text.as_deref().map(downward_api) {
        Some(Ok(entries)) => entries,
        Some(Err(line)) => {
            problems.push(format!("the pod's {what} have a line that is not key=\"value\": {line}"));
            BTreeMap::new()
        }
        None => BTreeMap::new(),
    };
    labels.extend(read("labels", &info.labels).into_iter().filter(|(key, _)| key != "pod-template-hash"));
    let annotations = read("annotations", &info.annotations);
    let locality = labels.get("topology.istio.io/locality").or(labels.get("istio-locality"));
    let locality = locality.map(|l| if l.contains('/') { l.clone() } else { l.replace('.', "/") }).unwrap_or_default();
    if labels.contains_key("istio-locality") {
        labels.insert("istio-locality".into(), locality.clone());
    }
    for (key, entries) in [("LABELS", &labels), ("STATIC_LABELS", &fixed), ("ANNOTATIONS", &annotations)] {
        if !entries.is_empty() {
            metadata.insert(key.to_owned(), json!(entries));
        }
    }

    let id = format!("{name}.{namespace}");
    let dns_domain = if domain.is_empty() { format!("{namespace}.svc.cluster.local") } else { domain.to_owned() };
    (Node { role, ips, id, dns_domain, locality, metadata }, problems)
}

/// The node as the agent itself tells the control plane.
pub fn message(node: &Node, config: &ProxyConfig) -> core::Node {
    let mut parts = node.locality.splitn(3, '/').map(str::to_owned);
    let mut part = || parts.next().unwrap_or_default();
    core::Node {
        id: node.service_node(),
        cluster: node.cluster(config),
        metadata: Some(structure(&node.metadata)),
        locality: Some(core::Locality { region: part(), zone: part(), sub_zone: part() }),
        ..core::Node::default()
    }
}

fn structure(map: &Map<String, Value>) -> protobuf::Struct {
    protobuf::Struct { fields: map.iter().map(|(key, value)| (key.clone(), of_json(value))).collect() }
}

fn of_json(value: &Value) -> protobuf::Value {
    use protobuf::value::Kind;
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        Value::String(value) => Kind::StringValue(value.clone()),
        Value::Array(values) => Kind::ListValue(protobuf::ListValue { values: values.iter().map(of_json).collect() }),
        Value::Object(map) => Kind::StructValue(structure(map)),
    };
    protobuf::Value { kind: Some(kind) }
}

/// The lines `key="value"` that the downward API writes, with Go's quoting. `Err` is the line that is not so.
fn downward_api(text: &str) -> Result<BTreeMap<String, String>, String> {
    let entry = |line: &str| {
        let (key, value) = line.split_once('=')?;
        // Go's %q and JSON agree on everything that labels and annotations hold, save for \x and \a-like escapes.
        Some((key.to_owned(), serde_json::from_str(value).ok()?))
    };
    text.lines().filter(|line| !line.is_empty()).map(|line| entry(line).ok_or_else(|| line.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env() -> Environment {
        Environment::from_iter([
            ("POD_NAME", "reviews-v1-abc"),
            ("POD_NAMESPACE", "default"),
            ("SERVICE_ACCOUNT", "bookinfo-reviews"),
            ("ISTIO_META_CLUSTER_ID", "Kubernetes"),
            ("ISTIO_META_WORKLOAD_NAME", "reviews-v1"),
            ("ISTIO_META_OWNER", "kubernetes://apis/apps/v1/namespaces/default/deployments/reviews-v1"),
            ("ISTIO_META_POD_PORTS", r#"[{"containerPort":9080,"protocol":"TCP"}]"#),
            ("ISTIO_METAJSON_LABELS", r#"{"app":"reviews","istio-locality":"r.z.s"}"#),
            ("ISTIO_METAJSON_BROKEN", "["),
        ])
    }

    #[test]
    fn tells_what_pilot_agent_tells() {
        let info = PodInfo { labels: Some("version=\"v1\"\npod-template-hash=\"x\"\n".into()), annotations: None };
        let config = ProxyConfig::default();
        let (node, problems) = of_pod(Role::Sidecar, vec!["10.0.0.7".parse().unwrap()], "", &env(), &info, &config);
        assert_eq!(node.service_node(), "sidecar~10.0.0.7~reviews-v1-abc.default~default.svc.cluster.local");
        assert_eq!(node.cluster(&config), "reviews.default");
        assert_eq!(node.locality, "r/z/s");
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(node.metadata["LABELS"], json!({"app": "reviews", "istio-locality": "r/z/s", "version": "v1"}));
        assert_eq!(node.metadata["POD_PORTS"], r#"[{"containerPort":9080,"protocol":"TCP"}]"#);
        assert_eq!(node.metadata["INSTANCE_IPS"], "10.0.0.7");
        assert_eq!(node.metadata["ISTIO_VERSION"], ISTIO_VERSION);
        assert_eq!(node.metadata["app"], "reviews", "METAJSON entries are metadata of their own, too");
        assert_eq!(node.metadata["PROXY_CONFIG"]["discoveryAddress"], "istiod.istio-system.svc:15012");
    }

    #[test]
    fn the_agent_tells_what_envoy_tells() {
        let (node, _) = of_pod(Role::Sidecar, vec![], "", &env(), &PodInfo::default(), &ProxyConfig::default());
        let told = message(&node, &ProxyConfig::default());
        assert_eq!((told.id, told.cluster), (node.service_node(), "reviews.default".to_owned()));
        let locality = told.locality.unwrap();
        assert_eq!((locality.region.as_str(), locality.sub_zone.as_str()), ("r", "s"));
        let metadata = told.metadata.unwrap().fields;
        assert_eq!(metadata["NAMESPACE"], of_json(&json!("default")));
        assert_eq!(metadata["LABELS"], of_json(&node.metadata["LABELS"]));
    }

    #[test]
    fn the_cluster_falls_back_step_by_step() {
        let config = ProxyConfig::default();
        let of = |env: Environment| {
            let (node, _) = of_pod(Role::Router, vec![], "d", &env, &PodInfo::default(), &config);
            node.cluster(&config)
        };
        assert_eq!(of(Environment::default()), "istio-proxy");
        assert_eq!(of(Environment::from_iter([("POD_NAMESPACE", "n")])), "istio-proxy.n");
        assert_eq!(of(Environment::from_iter([("POD_NAMESPACE", "n"), ("ISTIO_META_WORKLOAD_NAME", "w")])), "w.n");
    }
}
