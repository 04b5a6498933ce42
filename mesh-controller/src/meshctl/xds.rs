//! `meshctl xds`: what a proxy would be sent.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use mesh_xds::TypeUrl;
use mesh_xds::json::{dump, list_name};
use serde_json::Value;

use super::input::World;
use crate::cli::{Form, Verdict};

/// What a proxy would be sent
#[derive(Args, Clone, Debug)]
pub(super) struct Xds {
    #[command(flatten)]
    world: World,
    /// The proxy, as JSON: type, id, ips, namespace, labels, metadata, ...
    #[arg(long, value_name = "FILE")]
    proxy: PathBuf,
    /// Which types: lds, cds, rds, eds, sds, ecds or all; comma-separated
    #[arg(long = "type", value_delimiter = ',', default_value = "all")]
    types: Vec<String>,
    /// The form of the output
    #[arg(short, long, value_enum, default_value_t = Form::Json)]
    output: Form,
}

impl Xds {
    pub(super) fn run(&self) -> anyhow::Result<(String, Verdict)> {
        let wanted = types(&self.types)?;
        let view = self.world.seen_by(&self.proxy)?;
        let mut dump = dump(&view.resources())?;
        keep_subscribed(&mut dump);
        for kind in TypeUrl::ALL.into_iter().filter(|kind| !wanted.contains(kind)) {
            if let Some(list) = dump.get_mut(list_name(kind)) {
                *list = Value::Array(Vec::new());
            }
        }
        Ok((self.output.render(&dump, || names(&dump)), view.verdict))
    }
}

fn types(names: &[String]) -> anyhow::Result<Vec<TypeUrl>> {
    let mut wanted = Vec::new();
    for name in names {
        match TypeUrl::ALL.into_iter().find(|kind| kind.short() == name) {
            Some(kind) => wanted.push(kind),
            None if name == "all" => wanted.extend(TypeUrl::ALL),
            None => bail!("--type {name}: none of lds, cds, rds, eds, sds, ecds, nds, all"),
        }
    }
    Ok(wanted)
}

fn of(dump: &Value, kind: TypeUrl) -> &[Value] {
    dump.get(list_name(kind)).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value.get(key).and_then(Value::as_str)
}

/// Leaves, of the types that an Envoy subscribes to by name, what its listeners and clusters name.
fn keep_subscribed(dump: &mut Value) {
    let mut routes = BTreeSet::new();
    let mut secrets = BTreeSet::new();
    let mut endpoints = BTreeSet::new();
    for resource in of(dump, TypeUrl::Listener).iter().chain(of(dump, TypeUrl::Cluster)) {
        visit(resource, "", &mut |key, object| {
            if key == "rds" {
                routes.extend(text(object, "routeConfigName").map(str::to_owned));
            } else if object.get("sdsConfig").is_some() {
                secrets.extend(text(object, "name").map(str::to_owned));
            }
        });
    }
    for cluster in of(dump, TypeUrl::Cluster) {
        if let Some(eds) = cluster.get("edsClusterConfig") {
            endpoints.extend(text(eds, "serviceName").or_else(|| text(cluster, "name")).map(str::to_owned));
        }
    }
    for (kind, key, names) in [
        (TypeUrl::Route, "name", routes),
        (TypeUrl::Secret, "name", secrets),
        (TypeUrl::Endpoint, "clusterName", endpoints),
    ] {
        if let Some(Value::Array(resources)) = dump.get_mut(list_name(kind)) {
            resources.retain(|resource| text(resource, key).is_some_and(|name| names.contains(name)));
        }
    }
}

/// Calls `see` for every object inside a value, with the key that it stands under.
fn visit(value: &Value, key: &str, see: &mut impl FnMut(&str, &Value)) {
    match value {
        Value::Object(fields) => {
            see(key, value);
            fields.iter().for_each(|(key, value)| visit(value, key, see));
        }
        Value::Array(items) => items.iter().for_each(|item| visit(item, key, see)),
        _ => {}
    }
}

/// The names of the resources, by type.
fn names(dump: &Value) -> String {
    let mut out = String::new();
    for kind in TypeUrl::ALL {
        let resources = of(dump, kind);
        let _ = writeln!(out, "{} ({})", list_name(kind), resources.len());
        for name in resources.iter().filter_map(|resource| text(resource, "name").or(text(resource, "clusterName"))) {
            let _ = writeln!(out, "  {name}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_named_is_kept() {
        let mut dump = json!({
            "listeners": [{"filterChains": [{
                "filters": [{"typedConfig": {"rds": {"routeConfigName": "80", "configSource": {"ads": {}}}}}],
                "transportSocket": {"typedConfig": {"commonTlsContext": {
                    "tlsCertificateSdsSecretConfigs": [{"name": "cert", "sdsConfig": {"ads": {}}}]}}},
            }]}],
            "clusters": [{"name": "a", "edsClusterConfig": {}}, {"name": "b", "edsClusterConfig": {"serviceName": "c"}},
                         {"name": "d"}],
            "routes": [{"name": "80"}, {"name": "8080"}],
            "secrets": [{"name": "cert"}, {"name": "other"}],
            "endpoints": [{"clusterName": "a"}, {"clusterName": "b"}, {"clusterName": "c"}, {"clusterName": "d"}],
        });
        keep_subscribed(&mut dump);
        assert_eq!(dump["routes"], json!([{"name": "80"}]));
        assert_eq!(dump["secrets"], json!([{"name": "cert"}]));
        assert_eq!(dump["endpoints"], json!([{"clusterName": "a"}, {"clusterName": "c"}]));
    }

    #[test]
    fn types_are_named_as_in_istio() {
        let of = |names: &[&str]| types(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["cds", "lds"]).unwrap(), [TypeUrl::Cluster, TypeUrl::Listener]);
        assert_eq!(of(&["all"]).unwrap(), TypeUrl::ALL);
        assert!(of(&["xds"]).is_err());
    }
}
