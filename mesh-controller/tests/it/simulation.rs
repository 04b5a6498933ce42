//! Corpus `simulation`: requests against what a proxy would be sent, judged by explain; route tables; clusters; and
//! the invariants and relations that every dump must satisfy.

use std::collections::BTreeMap;
use std::path::Path;

use mesh_xds::explain::{Explanation, Request, explain, render};
use serde::Deserialize;
use serde_json::Value;

use crate::corpus::{self, Score};
use crate::invariants::violations;
use crate::pipeline::{self, Dump, Input};

/// The clusters of each domain; `None` = the domain must not be there.
type Domains = BTreeMap<String, Option<Vec<String>>>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Scenario {
    pub(crate) id: String,
    config: String,
    kube: String,
    pub(crate) mesh_config: String,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) proxy: Value,
    pub(crate) valid: bool,
    #[serde(default)]
    calls: Vec<Call>,
    #[serde(default)]
    routes: BTreeMap<String, Option<Domains>>,
    #[serde(default)]
    clusters: Option<Clusters>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    name: String,
    request: Request,
    expect: Expect,
}

#[derive(Deserialize)]
struct Expect {
    error: Option<String>,
    #[serde(default)]
    strict: bool,
    #[serde(flatten)]
    names: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Clusters {
    prefix: String,
    #[serde(default)]
    endpoints: BTreeMap<String, Option<Vec<String>>>,
    #[serde(default)]
    services: BTreeMap<String, Vec<String>>,
}

const NAMES: [&str; 6] = ["listener", "filterChain", "virtualHost", "route", "routeConfig", "cluster"];

pub(crate) fn scenarios(folder: &Path) -> Vec<Scenario> {
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files.retain(|f| f.extension().is_some_and(|e| e == "json"));
    let read = |f| serde_json::from_str(&std::fs::read_to_string(f).unwrap()).unwrap_or_else(|e| panic!("{f:?}: {e}"));
    files.iter().map(read).collect()
}

impl Scenario {
    pub(crate) fn input(&self) -> Input<'_> {
        Input {
            documents: vec![("config.yaml", self.config.clone()), ("kube.yaml", self.kube.clone())],
            mesh_config: &self.mesh_config,
            env: &self.env,
            proxy: &self.proxy,
        }
    }
}

#[test]
fn requests_routes_and_clusters() {
    let Some(folder) = corpus::folder("simulation", "simulation") else { return };
    let envoy = crate::envoy::binary("simulation, validation by Envoy");
    let mut score = Score::default();
    for scenario in scenarios(&folder) {
        let dump = pipeline::dump(&scenario.input());
        for call in &scenario.calls {
            let explanation = explain(&dump.resources, &call.request);
            score.check("calls", &format!("{}, {}", scenario.id, call.name), judge(call, &explanation));
        }
        for (name, domains) in &scenario.routes {
            let Some(domains) = domains else { continue };
            score.check("routes", &format!("{}, route {name}", scenario.id), table(&dump.json, name, domains));
        }
        if let Some(wanted) = &scenario.clusters {
            score.check("clusters", &scenario.id, clusters(&dump.json, wanted));
        }
        if scenario.valid {
            let found = violations(&dump.json, &scenario.proxy);
            let result = if found.is_empty() { Ok(()) } else { Err(found.join("; ")) };
            score.check("invariants", &scenario.id, result);
            if let Some(envoy) = &envoy {
                score.check("envoy", &scenario.id, crate::envoy::validate(envoy, &dump.json));
            }
            score.check("relations", &scenario.id, relations(&scenario, &dump));
        }
    }
    score.finish(include_str!("simulation.score"));
}

fn judge(call: &Call, explanation: &Explanation) -> Result<(), String> {
    let got = serde_json::to_value(explanation).unwrap();
    let mut wrong = Vec::new();
    let mut compare = |field: &str, want: &Value| {
        if *want != got[field] {
            wrong.push(format!("{field} is {}, not {want}", got[field]));
        }
    };
    compare("error", &call.expect.error.as_deref().into());
    for name in NAMES {
        match call.expect.names.get(name) {
            Some(Value::String(want)) if !want.is_empty() => compare(name, &want.as_str().into()),
            _ if call.expect.strict => compare(name, &Value::Null),
            _ => {}
        }
    }
    if let Some(tls) = call.expect.names.get("tls").filter(|t| !t.is_null()) {
        compare("tls", tls);
    }
    if wrong.is_empty() { Ok(()) } else { Err(format!("{}\n{}", wrong.join("; "), render(explanation))) }
}

fn table(dump: &Value, name: &str, domains: &Domains) -> Result<(), String> {
    let configs = dump["routes"].as_array().unwrap();
    let config = configs.iter().find(|r| r["name"] == name).ok_or("there is no such route configuration")?;
    let mut got: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for vhost in config["virtualHosts"].as_array().into_iter().flatten() {
        let routes = vhost["routes"].as_array().into_iter().flatten();
        let mut clusters: Vec<&str> = routes.filter_map(|r| r["route"]["cluster"].as_str()).collect();
        clusters.sort_unstable();
        for domain in vhost["domains"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            got.insert(domain, clusters.clone());
        }
    }
    for (domain, want) in domains {
        let got = got.get(domain.as_str());
        let want: Option<Vec<&str>> = want.as_ref().map(|w| w.iter().map(String::as_str).collect());
        if got != want.as_ref() {
            return Err(format!("domain {domain} has {got:?}, not {want:?}"));
        }
    }
    Ok(())
}

fn clusters(dump: &Value, wanted: &Clusters) -> Result<(), String> {
    let all = dump["clusters"].as_array().unwrap();
    let name = |c: &Value| c["name"].as_str().unwrap_or_default().to_owned();
    let got: BTreeMap<String, &Value> =
        all.iter().map(|c| (name(c), c)).filter(|(n, _)| n.starts_with(&wanted.prefix)).collect();
    let names: Vec<&String> = got.keys().collect();
    let want: Vec<&String> = wanted.endpoints.keys().collect();
    if names != want {
        return Err(format!("clusters are {names:?}, not {want:?}"));
    }
    for (name, want) in &wanted.endpoints {
        let got = inline_endpoints(got[name]);
        if got != want.clone().unwrap_or_default() {
            return Err(format!("{name} has the endpoints {got:?}, not {want:?}"));
        }
    }
    for (name, want) in &wanted.services {
        let services = got.get(name).map(|c| &c["metadata"]["filterMetadata"]["istio"]["services"]);
        let services = services.and_then(Value::as_array).into_iter().flatten();
        let mut got: Vec<&str> = services.filter_map(|s| s["host"].as_str()).collect();
        got.sort_unstable();
        if got != *want {
            return Err(format!("{name} has the services {got:?}, not {want:?}"));
        }
    }
    Ok(())
}

fn inline_endpoints(cluster: &Value) -> Vec<String> {
    let localities = cluster["loadAssignment"]["endpoints"].as_array().into_iter().flatten();
    let endpoints = localities.flat_map(|l| l["lbEndpoints"].as_array().into_iter().flatten());
    let address = |e: &Value| {
        let address = &e["endpoint"]["address"];
        match address["pipe"]["path"].as_str() {
            Some(path) => path.to_owned(),
            None => {
                let socket = &address["socketAddress"];
                format!("{}:{}", socket["address"].as_str().unwrap_or_default(), socket["portValue"])
            }
        }
    };
    endpoints.map(address).collect()
}

/// What must not matter: the order of documents, how they are spread over files, in which form and served version they are
/// written, and a namespace that keeps to itself.
fn relations(scenario: &Scenario, dump: &Dump) -> Result<(), String> {
    let documents = scenario.input().documents;
    let split = documents.iter().flat_map(|(_, text)| text.split("\n---").map(|one| ("one.yaml", one.to_owned())));
    let raw = documents.iter().flat_map(|(_, text)| mesh_api::document::raw(&"all.yaml".into(), text));
    let json = raw.flatten().map(|d| ("one.json", d.node.to_json().to_string())).collect();
    let older = |text: &String| {
        ["networking", "security", "telemetry"].iter().fold(text.clone(), |text, group| {
            text.replace(&format!("{group}.istio.io/v1\n"), &format!("{group}.istio.io/v1beta1\n"))
        })
    };
    let mut more = documents.clone();
    more.push(("unrelated.yaml", UNRELATED.to_owned()));
    let variants = [
        ("the same again", documents.clone()),
        ("another order of documents", split.collect::<Vec<_>>().into_iter().rev().collect()),
        ("the documents as JSON", json),
        ("another served version", documents.iter().map(|(file, text)| (*file, older(text))).collect()),
        ("an unrelated namespace", more),
    ];
    for (what, documents) in variants {
        let other = pipeline::dump(&Input { documents, ..scenario.input() });
        if other.json != dump.json {
            return Err(format!("{what} gives something else: {}", difference(&dump.json, &other.json)));
        }
    }
    Ok(())
}

/// The first place where two dumps differ.
fn difference(a: &Value, b: &Value) -> String {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            let differs = keys.into_iter().find(|k| a.get(*k) != b.get(*k));
            differs.map_or_else(String::new, |k| {
                format!(".{k}{}", difference(a.get(k).unwrap_or(&Value::Null), b.get(k).unwrap_or(&Value::Null)))
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let differs = a.iter().zip(b).enumerate().find(|(_, (a, b))| a != b);
            differs.map_or_else(String::new, |(i, (a, b))| format!("[{i}]{}", difference(a, b)))
        }
        (Value::Array(a), Value::Array(b)) => {
            let name = |v: &Value| v["name"].as_str().or(v["clusterName"].as_str()).unwrap_or("?").to_owned();
            format!(
                ": {:?} against {:?}",
                a.iter().map(name).collect::<Vec<_>>(),
                b.iter().map(name).collect::<Vec<_>>()
            )
        }
        (a, b) => format!(": {a:.200} against {b:.200}"),
    }
}

const UNRELATED: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: unrelated}
---
apiVersion: v1
kind: Service
metadata:
  name: hermit
  namespace: unrelated
  annotations: {networking.istio.io/exportTo: "."}
spec:
  clusterIP: 10.254.254.1
  ports: [{name: http, port: 80}, {name: tcp-x, port: 9999}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: hermit, namespace: unrelated}
spec:
  hosts: [hermit.example.org]
  exportTo: ["."]
  resolution: DNS
  ports: [{number: 80, name: http, protocol: HTTP}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: hermit, namespace: unrelated}
spec:
  hosts: [hermit]
  exportTo: ["."]
  http: [{route: [{destination: {host: hermit}}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: hermit, namespace: unrelated}
spec:
  host: hermit
  exportTo: ["."]
  subsets: [{name: v1, labels: {version: v1}}]
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: unrelated}
spec:
  egress: [{hosts: ["./*"]}]
"#;
