//! A real Envoy takes what a proxy would be sent. `envoy --mode validate` knows only a bootstrap, so a dump is made into
//! one: route configurations go into their listeners, endpoints into their clusters, secrets come from nowhere and
//! stay asked for over ADS.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

/// The Envoy to ask: `ENVOY_PATH`, or `envoy` on the path.
pub(crate) fn binary(test: &str) -> Option<PathBuf> {
    let named = std::env::var_os("ENVOY_PATH").map(PathBuf::from);
    if let Some(named) = &named {
        assert!(named.is_file(), "ENVOY_PATH is {}, which is no file", named.display());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = named.or_else(|| std::env::split_paths(&path).map(|d| d.join("envoy")).find(|f| f.is_file()));
    if found.is_none() {
        eprintln!("SKIPPED {test}: there is no Envoy; put one on the PATH or name it in ENVOY_PATH");
    }
    found
}

/// Asks Envoy. What it says, if it refuses.
pub(crate) fn validate(envoy: &PathBuf, dump: &Value) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("envoy.json");
    std::fs::write(&file, bootstrap(dump).to_string()).unwrap();
    let out = Command::new(envoy).args(["--mode", "validate", "-l", "error", "-c"]).arg(&file).output().unwrap();
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    let reason = said.lines().filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" | ");
    Err(format!("Envoy refuses it: {reason:.2000}"))
}

fn bootstrap(dump: &Value) -> Value {
    let mut listeners = dump["listeners"].clone();
    inline_routes(&mut listeners, dump);
    let mut clusters = dump["clusters"].as_array().cloned().unwrap_or_default();
    for cluster in &mut clusters {
        if cluster["type"] == "EDS" {
            inline_endpoints(cluster, dump);
        }
    }
    let local = |name: &str| {
        json!({"name": name, "type": "STATIC", "loadAssignment": {"clusterName": name, "endpoints": [{"lbEndpoints": [
            {"endpoint": {"address": {"socketAddress": {"address": "127.0.0.1", "portValue": 1}}}}]}]},
            "typedExtensionProtocolOptions": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicitHttpConfig": {"http2ProtocolOptions": {}}}}})
    };
    // Clusters of the agent's own bootstrap, which configurations may name.
    clusters.extend(["xds-grpc", "sds-grpc", "prometheus_stats", "agent"].map(local));
    json!({
        "node": {"id": "sidecar~127.0.0.1~app.default~default.svc.cluster.local", "cluster": "app.default"},
        "dynamicResources": {"adsConfig": {"apiType": "DELTA_GRPC", "transportApiVersion": "V3",
            "grpcServices": [{"envoyGrpc": {"clusterName": "xds-grpc"}}]}},
        "staticResources": {"listeners": listeners, "clusters": clusters},
        // Istio's bootstrap turns these on too.
        "bootstrapExtensions": [{"name": "envoy.bootstrap.internal_listener", "typedConfig": {
            "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"}}],
    })
}

fn inline_routes(v: &mut Value, dump: &Value) {
    match v {
        Value::Array(items) => items.iter_mut().for_each(|v| inline_routes(v, dump)),
        Value::Object(fields) => {
            if let Some(name) = fields.get("rds").map(|r| r["routeConfigName"].clone()) {
                let config = dump["routes"].as_array().into_iter().flatten().find(|r| r["name"] == name);
                if let Some(config) = config {
                    fields.remove("rds");
                    fields.insert("routeConfig".to_owned(), config.clone());
                }
            }
            fields.values_mut().for_each(|v| inline_routes(v, dump));
        }
        _ => {}
    }
}

/// Puts the endpoints that the proxy would be sent into their cluster.
pub(crate) fn inline_endpoints(cluster: &mut Value, dump: &Value) {
    let service = cluster["edsClusterConfig"]["serviceName"].as_str().filter(|s| !s.is_empty());
    let name = service.or(cluster["name"].as_str()).unwrap_or_default().to_owned();
    let assignment = dump["endpoints"].as_array().into_iter().flatten().find(|e| e["clusterName"] == name.as_str());
    if let (Some(assignment), Some(fields)) = (assignment, cluster.as_object_mut()) {
        fields.remove("edsClusterConfig");
        fields.insert("type".to_owned(), json!("STATIC"));
        fields.insert("loadAssignment".to_owned(), assignment.clone());
    }
}
