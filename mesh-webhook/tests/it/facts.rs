//! The facts by which an injected workload is judged, as `corpus/inject/facts.json` names them.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Volumes of the mesh itself, where the paths that they are mounted at are the agent's choice.
const OWN_VOLUMES: [&str; 10] = [
    "workload-socket",
    "credential-socket",
    "workload-certs",
    "istiod-ca-cert",
    "istio-ca-crl",
    "istio-data",
    "istio-envoy",
    "istio-xds",
    "istio-token",
    "istio-podinfo",
];

/// What does not count as said: nulls and empty maps and lists at any depth; quantities are compared by value.
fn reduced(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().map(|(key, value)| {
                let value = if ["cpu", "memory"].contains(&key.as_str()) { quantity(value) } else { reduced(value) };
                (key.clone(), value)
            });
            Value::Object(kept.filter(|(_, value)| !is_empty(value)).collect())
        }
        Value::Array(items) => items.iter().map(reduced).collect(),
        other => other.clone(),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

fn quantity(value: &Value) -> Value {
    let text = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let (number, suffix) = text.split_at(text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len()));
    let factor = match suffix {
        "" => 1.0,
        "m" => 0.001,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        _ => return json!(text),
    };
    json!(number.parse::<f64>().unwrap() * factor)
}

/// Whether two values say the same.
pub(crate) fn same(got: &Value, want: &Value) -> Result<(), String> {
    let (got, want) = (reduced(got), reduced(want));
    if got == want { Ok(()) } else { Err(format!("\n   got {got}\n  want {want}")) }
}

/// Judges all workloads of a case, fact by fact.
pub(crate) fn compare(input: &[Value], got: &[Value], want: &[Value]) -> Vec<(&'static str, Result<(), String>)> {
    let (input, got, want) = (flat(input), flat(got), flat(want));
    assert_eq!(got.len(), want.len(), "as many documents as went in");
    let mut out = Vec::new();
    for ((input, got), want) in input.iter().zip(&got).zip(&want) {
        out.push(("rest", same(&rest(got), &rest(input))));
        let (got, want) = (facts(got), facts(want));
        for (fact, want) in &want {
            // Only what is there somewhere can be right or wrong.
            if is_empty(&reduced(want)) && is_empty(&reduced(&got[fact])) {
                continue;
            }
            out.push((*fact, same(&got[fact], want)));
        }
    }
    out
}

fn flat(documents: &[Value]) -> Vec<Value> {
    documents
        .iter()
        .flat_map(|document| match document["items"].as_array() {
            Some(items) if document["kind"] == "List" => flat(items),
            _ => vec![document.clone()],
        })
        .collect()
}

fn template(document: &Value) -> &str {
    match document["kind"].as_str().unwrap_or_default() {
        "Pod" => "",
        "CronJob" => "/spec/jobTemplate/spec/template",
        _ => "/spec/template",
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn is_mesh(container: &Value) -> bool {
    matches!(container["name"].as_str(), Some("istio-proxy" | "istio-init" | "istio-validation"))
}

/// The document outside its pod; what Istio's goldens do there (an empty status, a creation time of null) is no injection.
fn rest(document: &Value) -> Value {
    let mut rest = document.clone();
    if let Some(pod) = rest.pointer_mut(template(document)) {
        *pod = Value::Null;
    }
    rest
}

fn facts(document: &Value) -> BTreeMap<&'static str, Value> {
    let nothing = Value::Null;
    let pod = document.pointer(template(document)).unwrap_or(&nothing);
    let (metadata, spec) = (&pod["metadata"], &pod["spec"]);
    let (init, apps) = (list(&spec["initContainers"]), list(&spec["containers"]));
    let all = || init.iter().chain(apps);
    let named = |name: &str| all().find(|container| container["name"] == name).cloned().unwrap_or_default();
    let names = |containers: &[Value]| containers.iter().map(|container| container["name"].clone()).collect::<Value>();
    let proxy = named("istio-proxy");
    let setup = all()
        .find(|c| matches!(c["name"].as_str(), Some("istio-init" | "istio-validation")))
        .cloned()
        .unwrap_or_default();
    let annotations = metadata["annotations"].as_object().cloned().unwrap_or_default();
    let (prometheus, annotations): (Map<_, _>, Map<_, _>) = annotations
        .into_iter()
        .filter(|(key, _)| key != "sidecar.istio.io/status")
        .partition(|(key, _)| key.starts_with("prometheus.io/"));
    let of_apps = |keys: &[&str], keep: bool| {
        all()
            .filter(|container| !is_mesh(container))
            .map(|container| {
                let fields = container.as_object().unwrap().iter();
                fields
                    .filter(|(key, _)| keys.contains(&key.as_str()) == keep)
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect::<Map<_, _>>()
            })
            .map(Value::Object)
            .collect::<Value>()
    };
    const PROBES: [&str; 4] = ["readinessProbe", "livenessProbe", "startupProbe", "lifecycle"];
    let volumes: BTreeMap<String, Value> = list(&spec["volumes"])
        .iter()
        .filter(|volume| {
            let sources: Vec<_> = volume.as_object().unwrap().keys().filter(|key| *key != "name").collect();
            !sources.is_empty() && sources != ["emptyDir"]
        })
        .map(|volume| (volume["name"].as_str().unwrap().to_owned(), volume.clone()))
        .collect();
    let mounts: Value = list(&proxy["volumeMounts"])
        .iter()
        .filter(|mount| !OWN_VOLUMES.contains(&mount["name"].as_str().unwrap()))
        .map(|mount| mount["mountPath"].clone())
        .collect();
    BTreeMap::from([
        ("decision", json!(all().any(|container| container["name"] == "istio-proxy"))),
        ("containers", names(apps)),
        ("initContainers", names(init)),
        ("nativeSidecar", json!(init.iter().any(|c| c["name"] == "istio-proxy" && c["restartPolicy"] == "Always"))),
        ("probes", of_apps(&PROBES, true)),
        ("appContainers", of_apps(&PROBES, false)),
        ("proxyPorts", proxy["ports"].clone()),
        (
            "proxyProbes",
            json!([&proxy["readinessProbe"], &proxy["startupProbe"]].map(|probe| {
                let mut probe = reduced(probe);
                if probe["initialDelaySeconds"] == 0 {
                    probe["initialDelaySeconds"] = Value::Null;
                }
                probe
            })),
        ),
        ("prometheus", Value::Object(prometheus)),
        ("annotations", Value::Object(annotations)),
        ("labels", metadata["labels"].clone()),
        ("podSecurityContext", spec["securityContext"].clone()),
        ("proxySecurityContext", proxy["securityContext"].clone()),
        ("initSecurityContext", setup["securityContext"].clone()),
        ("resources", json!([proxy["resources"], setup["resources"]])),
        ("volumes", json!(volumes)),
        ("mounts", mounts),
        ("interception", flags(&setup)),
        ("env", env(&proxy)),
        ("lifecycle", json!(!proxy["lifecycle"]["postStart"].is_null())),
        ("pullPolicy", json!([proxy["imagePullPolicy"], setup["imagePullPolicy"], spec["imagePullSecrets"]])),
        ("dns", spec["dnsConfig"].clone()),
    ])
}

/// The interception rules that a container is asked for.
fn flags(setup: &Value) -> Value {
    const FLAGS: [&str; 11] = ["-p", "-z", "-u", "-m", "-i", "-x", "-b", "-d", "-o", "-q", "-k"];
    let args = list(&setup["args"]);
    args.iter()
        .zip(args.iter().skip(1))
        .filter(|(flag, _)| FLAGS.contains(&flag.as_str().unwrap()) || *flag == "-c")
        .map(|(flag, value)| (flag.as_str().unwrap().to_owned(), value.clone()))
        .collect::<Map<_, _>>()
        .into()
}

/// The variables that tell the proxy who it is and what it has to do; JSON in them is compared as such.
fn env(proxy: &Value) -> Value {
    const NAMES: [&str; 4] = ["TRUST_DOMAIN", "PROXY_CONFIG", "ISTIO_KUBE_APP_PROBERS", "CA_ADDR"];
    list(&proxy["env"])
        .iter()
        .filter(|entry| {
            let name = entry["name"].as_str().unwrap();
            name.starts_with("ISTIO_META_") || NAMES.contains(&name)
        })
        .map(|entry| {
            let value = match entry["value"].as_str() {
                Some(text) => serde_json::from_str(text).unwrap_or_else(|_| json!(text.trim())),
                None => entry["valueFrom"].clone(),
            };
            (entry["name"].as_str().unwrap().to_owned(), value)
        })
        .collect::<Map<_, _>>()
        .into()
}
