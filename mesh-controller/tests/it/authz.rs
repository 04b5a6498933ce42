//! Corpus `authz`: the filters that a workload is sent for its policies, against those that Istio builds.
//!
//! Texts may differ, meaning may not: both chains judge some hundreds of requests that are made from the values in both, and
//! must agree on the decision, on what is logged, on what dry runs would have decided, on who is asked with which settings, and
//! on the policies that a request matches.

mod requests;

use std::collections::{BTreeMap, BTreeSet};

use mesh_api::document;
use mesh_xds::Cidr;
use serde::Deserialize;
use serde_json::Value;

use crate::corpus::{self, Score};
use crate::pipeline::{self, Input};
use requests::{Request, requests};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    id: String,
    layer: String,
    proxy: Value,
    #[serde(default)]
    mesh_config: String,
    port: u16,
    #[allow(dead_code, reason = "the policies say the same")]
    scope: String,
    files: Files,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Files {
    policies: String,
    kube: String,
    mesh_config: Option<String>,
    filters: Vec<String>,
}

#[test]
fn filters_mean_what_istio_means() {
    let Some(folder) = corpus::folder("authz", "authz") else { return };
    let envoy = crate::envoy::binary("authz, validation by Envoy");
    let mut score = Score::default();
    let mut cases: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    for case in cases {
        let text =
            |file: &str| std::fs::read_to_string(case.join(file)).unwrap_or_else(|e| panic!("{case:?} {file}: {e}"));
        let read: Case = serde_json::from_str(&text("case.json")).unwrap();
        let mesh_config = read.files.mesh_config.as_deref().map_or(read.mesh_config.clone(), text);
        let dump = pipeline::dump(&Input {
            documents: vec![("policies.yaml", text(&read.files.policies)), ("kube.yaml", text(&read.files.kube))],
            mesh_config: &mesh_config,
            env: &BTreeMap::new(),
            proxy: &read.proxy,
        });
        let wanted: Vec<Value> = read.files.filters.iter().map(|file| yaml(&text(file))).collect();
        let got = ours(&dump.json, &read.layer, read.port);
        score.check(&read.layer, &read.id, got.and_then(|got| compare(&got, &wanted)));
        if let Some(envoy) = &envoy {
            score.check("envoy", &read.id, crate::envoy::validate(envoy, &dump.json));
        }
    }
    score.finish(include_str!("authz.score"));
}

fn yaml(text: &str) -> Value {
    let mut documents = document::raw(&"want.yaml".into(), text).into_iter().flatten();
    documents.next().expect("a document").node.to_json()
}

fn type_of(filter: &Value) -> &str {
    filter["typedConfig"]["@type"].as_str().unwrap_or_default().rsplit('/').next().unwrap_or_default()
}

fn is_access(filter: &&Value) -> bool {
    let name = type_of(filter);
    name.contains(".rbac.v3.") || name.contains(".ext_authz.v3.")
}

/// The filters for policies of the port's chains, which must all have the same ones.
fn ours(dump: &Value, layer: &str, port: u16) -> Result<Vec<Value>, String> {
    let listeners = dump["listeners"].as_array().unwrap();
    let inbound = listeners.iter().find(|l| l["name"] == "virtualInbound").ok_or("there is no virtualInbound")?;
    let chains = inbound["filterChains"].as_array().unwrap();
    let mut found: Vec<Vec<Value>> = Vec::new();
    for chain in chains.iter().filter(|chain| chain["filterChainMatch"]["destinationPort"] == port) {
        let filters = chain["filters"].as_array().unwrap();
        let http = filters.iter().find(|filter| type_of(filter).ends_with("HttpConnectionManager"));
        let filters = match (layer, http) {
            ("http", Some(http)) => http["typedConfig"]["httpFilters"].as_array().unwrap(),
            ("tcp", None) => filters,
            _ => continue,
        };
        found.push(filters.iter().filter(is_access).cloned().collect());
    }
    let first = found.first().ok_or("no chain of that layer has the port")?.clone();
    if found.iter().any(|other| *other != first) {
        return Err("the chains of the port differ".to_owned());
    }
    Ok(first)
}

fn compare(got: &[Value], wanted: &[Value]) -> Result<(), String> {
    let requests = requests(&[got, wanted].concat());
    for request in &requests {
        let (got, wanted) = (judge(got, request), judge(wanted, request));
        if got != wanted {
            return Err(format!("{request:?}\n  gives   {got:?}\n  must be {wanted:?}"));
        }
    }
    Ok(())
}

/// What filters do to a request.
#[derive(Debug, PartialEq, Default)]
struct Outcome {
    refused: bool,
    logged: bool,
    /// What dry runs would have decided, by the prefix of their statistics.
    shadow: BTreeMap<String, bool>,
    /// The authorizers that are asked, with their settings.
    asked: Vec<Value>,
    /// The policies that mean the request.
    matched: BTreeSet<String>,
    /// How many conditions of each policy hold: some policies of the corpus ask for what can never be together, and would
    /// otherwise never differ.
    conditions: BTreeMap<String, usize>,
}

fn judge(filters: &[Value], request: &Request) -> Outcome {
    let mut out = Outcome::default();
    // What RBAC filters leave for those behind them: the policy, by key.
    let mut marks: BTreeMap<String, String> = BTreeMap::new();
    for filter in filters {
        let config = &filter["typedConfig"];
        if type_of(filter).contains(".ext_authz.v3.") {
            let enabled = &config["filterEnabledMetadata"];
            let key = enabled["path"][0]["key"].as_str().unwrap_or_default();
            if marks.get(key).is_some_and(|mark| requests::text(&enabled["value"]["stringMatch"], mark)) {
                let mut settings = config.clone();
                settings.as_object_mut().unwrap().remove("filterEnabledMetadata");
                out.asked.push(settings);
            }
            continue;
        }
        for rules in ["rules", "shadowRules"] {
            out.conditions.extend(conditions(&config[rules], request));
        }
        if let Some((allowed, matched)) = rules(&config["rules"], request) {
            match config["rules"]["action"].as_str() {
                Some("LOG") => out.logged |= !matched.is_empty(),
                _ => out.refused |= !allowed,
            }
            out.matched.extend(matched);
        }
        if let Some((allowed, matched)) = rules(&config["shadowRules"], request) {
            let prefix = config["shadowRulesStatPrefix"].as_str().unwrap_or_default();
            // Policies are gone through by name.
            if let Some(first) = matched.first() {
                marks.insert(format!("{prefix}shadow_effective_policy_id"), first.clone());
            }
            out.shadow.insert(prefix.to_owned(), allowed);
            out.matched.extend(matched);
        }
    }
    out
}

/// Whether rules let the request pass, and those of them that mean it. `None`: there are no rules.
fn rules(rules: &Value, request: &Request) -> Option<(bool, BTreeSet<String>)> {
    let nothing = serde_json::Map::new();
    let policies = rules.as_object()?.get("policies").map_or(Some(&nothing), Value::as_object)?;
    let any = |list: &Value| list.as_array().unwrap().iter().any(|term| holds(term, request));
    let means = |policy: &Value| any(&policy["permissions"]) && any(&policy["principals"]);
    let matched: BTreeSet<String> =
        policies.iter().filter(|(_, policy)| means(policy)).map(|(name, _)| name.clone()).collect();
    let allowed = match rules["action"].as_str() {
        Some("DENY") => matched.is_empty(),
        Some("LOG") => true,
        _ => !matched.is_empty(),
    };
    Some((allowed, matched))
}

/// How many parts of the conjunctions of each policy hold.
fn conditions(rules: &Value, request: &Request) -> BTreeMap<String, usize> {
    let parts = |term: &Value| match requests::only(term) {
        ("andRules", of) => of["rules"].as_array().unwrap().clone(),
        ("andIds", of) => of["ids"].as_array().unwrap().clone(),
        _ => vec![term.clone()],
    };
    let count = |policy: &Value| {
        let terms = ["permissions", "principals"].map(|key| policy[key].as_array().unwrap().clone()).concat();
        terms.iter().flat_map(parts).filter(|part| holds(part, request)).count()
    };
    let policies = rules["policies"].as_object().into_iter().flatten();
    policies.map(|(name, policy)| (name.clone(), count(policy))).collect()
}

/// A permission or a principal.
fn holds(term: &Value, request: &Request) -> bool {
    let (kind, of) = requests::only(term);
    let every = |key: &str| of[key].as_array().unwrap().iter().all(|term| holds(term, request));
    let some = |key: &str| of[key].as_array().unwrap().iter().any(|term| holds(term, request));
    let ip = |address: std::net::IpAddr| {
        let len = of["prefixLen"].as_u64().unwrap_or(0);
        Cidr::parse(&format!("{}/{len}", of["addressPrefix"].as_str().unwrap())).unwrap().contains(&address)
    };
    match kind {
        "andRules" => every("rules"),
        "andIds" => every("ids"),
        "orRules" => some("rules"),
        "orIds" => some("ids"),
        "notRule" | "notId" => !holds(of, request),
        "any" => of.as_bool().unwrap(),
        "header" => header(of, request),
        "urlPath" => requests::text(&of["path"], &request.path),
        "uriTemplate" => template(of["typedConfig"]["pathTemplate"].as_str().unwrap(), &request.path),
        "destinationIp" => ip(request.destination),
        "destinationPort" => of.as_u64() == Some(request.port.into()),
        "requestedServerName" => requests::text(of, &request.sni),
        "metadata" => metadata(of, request),
        "authenticated" => request.principal.as_ref().is_some_and(|p| requests::text(&of["principalName"], p)),
        "directRemoteIp" => ip(request.source),
        "remoteIp" => ip(request.remote),
        other => panic!("a term that is not known here: {other}"),
    }
}

fn header(of: &Value, request: &Request) -> bool {
    let value = match of["name"].as_str().unwrap() {
        ":authority" => Some(&request.host),
        ":method" => Some(&request.method),
        name => request.headers.get(&name.to_lowercase()),
    };
    match (&of["presentMatch"], value) {
        (Value::Bool(present), value) => value.is_some() == *present,
        (_, Some(value)) => requests::text(&of["stringMatch"], value),
        (_, None) => false,
    }
}

fn template(template: &str, path: &str) -> bool {
    let segment = |segment: &str| match segment {
        "**" => ".*".to_owned(),
        "*" => "[^/]+".to_owned(),
        text => text.replace('.', r"\."),
    };
    let expression: Vec<String> = template.split('/').map(segment).collect();
    requests::full_match(&expression.join("/"), path)
}

fn metadata(of: &Value, request: &Request) -> bool {
    let mut at = &request.metadata[of["filter"].as_str().unwrap()];
    for segment in of["path"].as_array().unwrap() {
        at = &at[segment["key"].as_str().unwrap()];
    }
    value(&of["value"], at)
}

fn value(matcher: &Value, found: &Value) -> bool {
    let (kind, of) = requests::only(matcher);
    match (kind, found) {
        ("stringMatch", Value::String(text)) => requests::text(of, text),
        ("listMatch", Value::Array(list)) => list.iter().any(|found| value(&of["oneOf"], found)),
        ("orMatch", found) => of["valueMatchers"].as_array().unwrap().iter().any(|matcher| value(matcher, found)),
        _ => false,
    }
}

/// An evaluator that finds everything equal would be worth nothing.
#[test]
fn the_evaluator_tells_chains_apart() {
    use serde_json::json;
    let chain = |path: &str, action: &str| {
        json!({"typedConfig": {"@type": "x/envoy.extensions.filters.http.rbac.v3.RBAC", "rules": {"action": action, "policies": {"p": {
            "permissions": [{"andRules": {"rules": [{"urlPath": {"path": {"exact": path}}}]}}],
            "principals": [{"andIds": {"ids": [{"any": true}]}}]}}}}})
    };
    assert_eq!(compare(&[chain("/a", "ALLOW")], &[chain("/a", "ALLOW")]), Ok(()));
    for other in [chain("/b", "ALLOW"), chain("/a", "DENY"), chain("/a", "LOG")] {
        assert!(compare(&[other], &[chain("/a", "ALLOW")]).is_err());
    }
    assert!(compare(&[], &[chain("/a", "ALLOW")]).is_err());
}
