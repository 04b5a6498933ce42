//! Corpus `samples`: real manifests. Their pods are made up as a cluster would make them; every sidecar that they have, and
//! a gateway, must be sent something that satisfies the invariants.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mesh_api::{Name, Object};
use serde_json::{Value, json};

use crate::corpus::{self, Score};
use crate::invariants::violations;
use crate::pipeline::{self, Input};

/// What the samples of a folder stand on, beside themselves.
const BASES: [(&str, &[&str]); 2] = [
    ("bookinfo/networking", &["bookinfo/platform/kube/bookinfo.yaml"]),
    (
        "bookinfo/gateway-api",
        &["bookinfo/platform/kube/bookinfo.yaml", "bookinfo/platform/kube/bookinfo-versions.yaml"],
    ),
];

/// The benchmarks are templates for many services; a few show what an Envoy thinks of them as well.
const SERVICES: usize = 20;

#[test]
fn every_proxy_of_every_benchmark() {
    let Some(folder) = corpus::folder("benchmarks", "samples/benchmarks") else { return };
    let envoy = crate::envoy::binary("benchmarks, validation by Envoy");
    let sizes: BTreeMap<String, Value> =
        serde_json::from_str(&std::fs::read_to_string(folder.join("sizes.json")).unwrap()).unwrap();
    let mut score = Score::default();
    for (name, size) in &sizes {
        let template = std::fs::read_to_string(folder.join(format!("{name}.yaml"))).unwrap();
        let documents = vec![("benchmark.yaml", expand(&template))];
        let labels = json!({"istio": "ingressgateway", "istio.io/benchmark": "true"});
        let proxy = json!({"type": size["proxy"], "id": "proxy.default", "ips": ["1.1.1.1"], "namespace": "default",
                           "labels": labels, "metadata": {}, "istioVersion": "1.31.0"});
        let dump = pipeline::dump(&Input { documents, mesh_config: "", env: &BTreeMap::new(), proxy: &proxy });
        let found = violations(&dump.json, &proxy);
        score.check("benchmarks", name, if found.is_empty() { Ok(()) } else { Err(found.join("; ")) });
        if let Some(envoy) = &envoy {
            score.check("benchmarks-envoy", name, crate::envoy::validate(envoy, &dump.json));
        }
    }
    score.finish(include_str!("samples.score"));
}

/// As much of Go's templates as the benchmarks use: `range $i := until .Services`, `{{$i}}`, `{{mod $i 255}}`, `{{div $i 255}}`.
fn expand(template: &str) -> String {
    let range = regex::Regex::new(r"(?s)\{\{- range \$(\w) := until \.\w+ \}\}(.*?)\{\{- end \}\}").unwrap();
    let call = regex::Regex::new(r"\{\{(mod|div) \$\w (\S+?) ?\}\}").unwrap();
    let loops = range.replace_all(template, |found: &regex::Captures<'_>| {
        let (variable, body) = (format!("{{{{${}}}}}", &found[1]), &found[2]);
        let one = |i: usize| {
            let calls = call.replace_all(body, |found: &regex::Captures<'_>| {
                let by = found[2].parse().unwrap_or(SERVICES);
                (if &found[1] == "mod" { i % by } else { i / by }).to_string()
            });
            calls.replace(&variable, &i.to_string())
        };
        (0..SERVICES).map(one).collect::<String>()
    });
    assert!(!loops.contains("{{"), "a template uses more than is known here: {loops:.2000}");
    loops.into_owned()
}

#[test]
fn every_proxy_of_every_sample() {
    let Some(root) = corpus::folder("samples", "samples") else { return };
    let mut files = Vec::new();
    walk(&root, &mut files);
    let envoy = crate::envoy::binary("samples, validation by Envoy");
    let mut score = Score::default();
    for file in files {
        let name = file.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        // Templates are no manifests yet.
        if name.starts_with("benchmarks/") {
            continue;
        }
        let bases = BASES.iter().filter(|(folder, _)| name.starts_with(folder)).flat_map(|(_, bases)| bases.iter());
        let mut texts: Vec<String> = bases.map(|b| std::fs::read_to_string(root.join(b)).unwrap()).collect();
        texts.push(std::fs::read_to_string(&file).unwrap());
        let (pods, proxies) = cluster(&texts);
        let mut documents: Vec<(&str, String)> = texts.iter().map(|t| ("sample.yaml", t.clone())).collect();
        documents.extend(pods.iter().map(|p| ("pod.json", p.to_string())));
        for proxy in &proxies {
            let dump =
                pipeline::dump(&Input { documents: documents.clone(), mesh_config: "", env: &BTreeMap::new(), proxy });
            let found = violations(&dump.json, proxy);
            let result = if found.is_empty() { Ok(()) } else { Err(found.join("; ")) };
            let what = format!("{name}, {}", proxy["id"]);
            score.check("samples", &what, result);
            if let Some(envoy) = &envoy {
                score.check("envoy", &what, crate::envoy::validate(envoy, &dump.json));
            }
        }
    }
    score.finish(include_str!("samples.score"));
}

fn walk(folder: &Path, out: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for entry in entries {
        match entry.is_dir() {
            true => walk(&entry, out),
            false if entry.extension().is_some_and(|e| e == "yaml") => out.push(entry),
            false => {}
        }
    }
}

/// Pods and EndpointSlices as a cluster would have them, and the proxies that would ask.
pub(crate) fn cluster(texts: &[String]) -> (Vec<Value>, Vec<Value>) {
    let objects: Vec<Object> = texts
        .iter()
        .flat_map(|t| mesh_api::document::parse(&Name::from("sample.yaml"), t).objects().cloned().collect::<Vec<_>>())
        .collect();
    let mut made = Vec::new();
    let mut pods: Vec<(String, String, BTreeMap<String, String>, String)> = Vec::new();
    for object in &objects {
        let Object::Deployment(deployment) = object else { continue };
        let namespace = deployment.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let name = deployment.metadata.name.clone().unwrap_or_default();
        let template = deployment.spec.as_ref().and_then(|s| s.template.metadata.as_ref());
        let labels = template.and_then(|m| m.labels.clone()).unwrap_or_default();
        let ip = format!("10.244.0.{}", pods.len() + 1);
        made.push(json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {"containers": []},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                       "conditions": [{"type": "Ready", "status": "True"}]}}));
        pods.push((namespace, name, labels, ip));
    }
    for object in &objects {
        let Object::Service(service) = object else { continue };
        let Some(spec) = &service.spec else { continue };
        let Some(selector) = spec.selector.as_ref().filter(|s| !s.is_empty()) else { continue };
        let namespace = service.metadata.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let name = service.metadata.name.clone().unwrap_or_default();
        let selected = pods.iter().filter(|p| p.0 == namespace && selector.iter().all(|(k, v)| p.2.get(k) == Some(v)));
        let endpoints: Vec<Value> = selected
            .map(|p| {
                json!({"addresses": [p.3], "conditions": {"ready": true},
                            "targetRef": {"kind": "Pod", "name": p.1, "namespace": p.0}})
            })
            .collect();
        let ports: Vec<Value> = spec
            .ports
            .iter()
            .flatten()
            .map(|p| json!({"name": p.name.clone().unwrap_or_default(), "port": p.port, "protocol": "TCP"}))
            .collect();
        made.push(json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
            "endpoints": endpoints, "ports": ports}));
    }
    let proxy = |kind: &str, namespace: &str, name: &str, ip: &str, labels: &BTreeMap<String, String>| {
        json!({"type": kind, "id": format!("{name}.{namespace}"), "ips": [ip], "namespace": namespace, "labels": labels,
               "metadata": {}, "dnsDomain": format!("{namespace}.svc.cluster.local"), "istioVersion": "1.31.0"})
    };
    let gateway: BTreeMap<String, String> = [("istio", "ingressgateway"), ("app", "istio-ingressgateway")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    let mut proxies = vec![
        proxy("router", "istio-system", "istio-ingressgateway", "10.244.1.1", &gateway),
        proxy("sidecar", "default", "stranger", "10.244.1.2", &BTreeMap::new()),
    ];
    proxies.extend(pods.iter().map(|(namespace, name, labels, ip)| proxy("sidecar", namespace, name, ip, labels)));
    (made, proxies)
}
