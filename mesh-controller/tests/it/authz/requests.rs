//! Requests that tell two filter chains apart: for each policy of either some that it means, as far as they can be found, and
//! all of these with one thing changed at a time.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use mesh_xds::re2;
use regex::Regex;
use serde_json::{Value, json};

/// What filters may ask about.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    pub(super) host: String,
    pub(super) method: String,
    /// Without the query.
    pub(super) path: String,
    /// Names in lower case.
    pub(super) headers: BTreeMap<String, String>,
    /// By mutual TLS.
    pub(super) principal: Option<String>,
    pub(super) source: IpAddr,
    pub(super) remote: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) port: u16,
    pub(super) sni: String,
    /// By filter.
    pub(super) metadata: Value,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            host: "nobody".to_owned(),
            method: "NONE".to_owned(),
            path: "/nowhere".to_owned(),
            headers: BTreeMap::new(),
            principal: None,
            source: IpAddr::from([203, 0, 113, 1]),
            remote: IpAddr::from([203, 0, 113, 2]),
            destination: IpAddr::from([203, 0, 113, 3]),
            port: 1,
            sni: String::new(),
            metadata: json!({}),
        }
    }
}

/// The only entry of an object.
pub(super) fn only(object: &Value) -> (&str, &Value) {
    let mut entries = object.as_object().unwrap_or_else(|| panic!("{object} is no object")).iter();
    let (key, value) = entries.next().expect("an entry");
    assert!(entries.next().is_none(), "{object} has several entries");
    (key, value)
}

/// A matcher of texts.
pub(super) fn text(matcher: &Value, text: &str) -> bool {
    let fold = |s: &str| if matcher["ignoreCase"] == true { s.to_lowercase() } else { s.to_owned() };
    let (text, is) = (fold(text), |key: &str| matcher[key].as_str().map(fold));
    if let Some(regex) = matcher["safeRegex"]["regex"].as_str() {
        return full_match(regex, &text);
    }
    match (is("exact"), is("prefix"), is("suffix")) {
        (Some(exact), ..) => text == exact,
        (_, Some(prefix), _) => text.starts_with(&prefix),
        (_, _, Some(suffix)) => text.ends_with(&suffix),
        _ => panic!("a matcher that is not known here: {matcher}"),
    }
}

/// Expressions are compiled once: there are few, asked about often.
pub(super) fn full_match(regex: &str, text: &str) -> bool {
    thread_local!(static COMPILED: RefCell<HashMap<String, Regex>> = RefCell::default());
    COMPILED.with_borrow_mut(|compiled| {
        let new = || re2::compile_full(regex).unwrap();
        compiled.entry(regex.to_owned()).or_insert_with(new).is_match(text)
    })
}

/// A text that a matcher takes.
fn example(matcher: &Value) -> String {
    if let Some(regex) = matcher["safeRegex"]["regex"].as_str() {
        let plain = [("(.+/|)", ""), ("(/.+)?", ""), ("[^/]*", "x"), (".*", "x"), (".+", "x"), ("\\", "")];
        return plain.iter().fold(regex.to_owned(), |text, (from, to)| text.replace(from, to));
    }
    let is = |key: &str| matcher[key].as_str();
    match (is("exact"), is("prefix"), is("suffix")) {
        (Some(exact), ..) => exact.to_owned(),
        (_, Some(prefix), _) => format!("{prefix}x"),
        (_, _, Some(suffix)) => format!("x{suffix}"),
        _ => panic!("a matcher that is not known here: {matcher}"),
    }
}

/// Makes a term hold, the `choice`th of alternatives. What must not hold is hoped not to.
fn satisfy(term: &Value, choice: usize, request: &mut Request) {
    let (kind, of) = only(term);
    let address = || of["addressPrefix"].as_str().unwrap().parse().unwrap();
    match kind {
        "andRules" | "andIds" => {
            for term in list(of) {
                satisfy(term, choice, request);
            }
        }
        "orRules" | "orIds" => satisfy(&list(of)[choice % list(of).len()], choice, request),
        "header" => {
            let value = if of["presentMatch"] == true { "any".to_owned() } else { example(&of["stringMatch"]) };
            match of["name"].as_str().unwrap() {
                ":authority" => request.host = value,
                ":method" => request.method = value,
                name => drop(request.headers.insert(name.to_lowercase(), value)),
            }
        }
        "urlPath" => request.path = example(&of["path"]),
        "uriTemplate" => {
            let template = of["typedConfig"]["pathTemplate"].as_str().unwrap();
            request.path = template.replace("**", if choice.is_multiple_of(2) { "a/b" } else { "a" }).replace('*', "c");
        }
        "destinationIp" => request.destination = address(),
        "destinationPort" => request.port = of.as_u64().unwrap().try_into().unwrap(),
        "requestedServerName" => request.sni = example(of),
        "authenticated" => request.principal = Some(example(&of["principalName"])),
        "directRemoteIp" => request.source = address(),
        "remoteIp" => request.remote = address(),
        "metadata" => {
            let mut at = &mut request.metadata[of["filter"].as_str().unwrap()];
            for segment in list(&of["path"]) {
                at = &mut at[segment["key"].as_str().unwrap()];
            }
            *at = found(&of["value"], choice);
        }
        "notRule" | "notId" | "any" => {}
        other => panic!("a term that is not known here: {other}"),
    }
}

fn list(of: &Value) -> &[Value] {
    let lists = ["rules", "ids", "valueMatchers"].map(|key| &of[key]);
    lists.into_iter().chain([of]).find_map(Value::as_array).expect("a list")
}

fn found(matcher: &Value, choice: usize) -> Value {
    match only(matcher) {
        ("stringMatch", of) => example(of).into(),
        ("listMatch", of) => json!(["other", found(&of["oneOf"], choice)]),
        ("orMatch", of) => found(&list(of)[choice % list(of).len()], choice),
        (other, _) => panic!("a matcher that is not known here: {other}"),
    }
}

fn policies(filters: &[Value]) -> impl Iterator<Item = &Value> {
    let rules = filters.iter().flat_map(|filter| ["rules", "shadowRules"].map(|rules| &filter["typedConfig"][rules]));
    rules.filter_map(|rules| rules["policies"].as_object()).flat_map(|policies| policies.values())
}

/// Every term that asks about something itself, also those that must not hold.
fn leaves<'v>(term: &'v Value, out: &mut Vec<&'v Value>) {
    let (kind, of) = only(term);
    match kind {
        "andRules" | "andIds" | "orRules" | "orIds" => list(of).iter().for_each(|term| leaves(term, out)),
        "notRule" | "notId" => leaves(of, out),
        _ => out.push(term),
    }
}

/// More requests tell hardly more.
const MOST: usize = 800;

/// Requests from the values in some filters.
pub(super) fn requests(filters: &[Value]) -> Vec<Request> {
    const CHOICES: usize = 6;
    let mut met: Vec<Request> = vec![Request::default()];
    let mut facts: Vec<&Value> = Vec::new();
    for policy in policies(filters) {
        for (permission, principal) in
            list(&policy["permissions"]).iter().flat_map(|a| list(&policy["principals"]).iter().map(move |b| (a, b)))
        {
            for choice in 0..CHOICES {
                let mut request = Request::default();
                satisfy(permission, choice, &mut request);
                satisfy(principal, choice, &mut request);
                met.push(request);
            }
            leaves(permission, &mut facts);
            leaves(principal, &mut facts);
        }
    }
    let mut out = met.clone();
    for request in met {
        for fact in &facts {
            let mut other = request.clone();
            satisfy(fact, 0, &mut other);
            out.push(other);
        }
        // Each attribute as nobody asks for it.
        let nobody = Request::default();
        out.push(Request { host: nobody.host.clone(), ..request.clone() });
        out.push(Request { method: nobody.method.clone(), ..request.clone() });
        out.push(Request { path: format!("{}/more", request.path), ..request.clone() });
        out.push(Request {
            host: request.host.to_uppercase(),
            method: request.method.to_lowercase(),
            ..request.clone()
        });
        out.push(Request { principal: None, ..request.clone() });
        out.push(Request { headers: BTreeMap::new(), ..request.clone() });
        out.push(Request { metadata: json!({}), ..request.clone() });
        out.push(Request { source: nobody.source, ..request.clone() });
        out.push(Request { remote: nobody.remote, ..request.clone() });
        out.push(Request { destination: nobody.destination, ..request.clone() });
        out.push(Request { port: nobody.port, ..request.clone() });
        out.push(Request { sni: nobody.sni.clone(), ..request.clone() });
        for principal in ["spiffe://other/ns/foo/sa/x", "spiffe://cluster.local/ns/other/sa/x"] {
            out.push(Request { principal: Some(principal.to_owned()), ..request.clone() });
        }
    }
    let mut seen = BTreeSet::new();
    out.retain(|request| seen.insert(format!("{request:?}")));
    // Of very many every so manieth.
    let step = out.len().div_ceil(MOST);
    out.into_iter().step_by(step).collect()
}
