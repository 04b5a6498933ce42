//! Which statistics Envoy keeps and which tags it cuts out of their names. An Envoy with thousands of clusters that kept
//! them all would spend most of its memory on them; Istio keeps few by default, and dashboards expect those.

use serde_json::{Value, json};

use super::{Node, Settings};

/// Read by readiness and by those who watch the connection to the control plane.
const PREFIXES: &[&str] = &["cluster_manager", "listener_manager", "server", "cluster.xds-grpc", "wasm"];
const SUFFIXES: &[&str] = &["rbac.allowed", "rbac.denied", "shadow_allowed", "shadow_denied"];
/// Those of named routes of VirtualServices.
const REGEXES: &[&str] = &[r"vhost\..*\.route\..*"];

const TAGS: &[(&str, &str)] = &[
    ("cluster_name", r"^cluster\.((.+?(\..+?\.svc\.cluster\.local)?)\.)"),
    ("tcp_prefix", r"^tcp\.((.*?)\.)\w+?$"),
    ("response_code", r"_rq(_(\d{3}))$"),
    ("response_code_class", r"_rq(_(\dxx))$"),
    (
        "http_conn_manager_listener_prefix",
        r"^listener(?=\.).*?\.http\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)",
    ),
    ("http_conn_manager_prefix", r"^http\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)"),
    ("listener_address", r"^listener\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)"),
    ("mongo_prefix", r"^mongo\.(.+?)\.(collection|cmd|cx_|op_|delays_|decoding_)(.*?)$"),
];

const MORE_TAGS: &[(&str, &str)] = &[
    ("cache", r"(cache\.(.+?)\.)"),
    ("component", r"(component\.(.+?)\.)"),
    ("tag", r"(tag\.(.+?);\.)"),
    ("wasm_filter", r"(wasm_filter\.(.+?)\.)"),
    ("authz_enforce_result", r"rbac(\.(allowed|denied))"),
    ("authz_dry_run_action", r"(\.istio_dry_run_(allow|deny)_)"),
    ("authz_dry_run_result", r"(\.shadow_(allowed|denied))"),
];

/// `stats_config`.
pub(super) fn config(node: &Node, settings: &Settings) -> Value {
    let extra = &settings.config.extra_stat_tags;
    let annotated = annotation(node, "sidecar.istio.io/extraStatTags");
    let mut named: Vec<String> = Vec::new();
    for tag in extra.iter().map(String::as_str).chain(annotated.into_iter().flat_map(|t| t.split(','))) {
        if !tag.is_empty() && !named.iter().any(|n| n == tag) {
            named.push(tag.to_owned());
        }
    }
    let own = |(name, regex): &(&str, &str)| json!({ "tag_name": name, "regex": regex });
    let tags = TAGS.iter().map(own);
    let tags =
        tags.chain(named.iter().map(|tag| json!({ "tag_name": tag, "regex": format!(r"({tag}=\.=(.*?);\.;)") })));
    let tags: Vec<Value> = tags.chain(MORE_TAGS.iter().map(own)).collect();
    json!({
        "use_all_default_tags": false,
        "stats_tags": tags,
        "stats_matcher": { "inclusion_list": { "patterns": patterns(node, settings) } },
    })
}

fn patterns(node: &Node, settings: &Settings) -> Vec<Value> {
    let matcher = settings.config.proxy_stats_matcher.clone().unwrap_or_default();
    let kept = |name: &str, configured: Vec<String>, always: &[&str]| {
        // An annotation replaces what ProxyConfig says; what the agent needs is always added.
        let asked = annotation(node, &format!("sidecar.istio.io/{name}"));
        let asked = asked.map(|text| text.split(',').map(str::to_owned).collect()).unwrap_or(configured);
        let all = asked.into_iter().chain(always.iter().map(|text| (*text).to_owned()));
        all.flat_map(|pattern| for_each_ip(&pattern, node)).collect::<Vec<_>>()
    };
    let mut suffixes = SUFFIXES.to_vec();
    if settings.watch_connections {
        suffixes.push("downstream_cx_active");
    }
    let mut patterns = vec![json!({ "prefix": "reporter=" })];
    let prefixes = kept("statsInclusionPrefixes", matcher.inclusion_prefixes, PREFIXES);
    patterns.extend(prefixes.into_iter().map(|text| json!({ "prefix": text })));
    let suffixes = kept("statsInclusionSuffixes", matcher.inclusion_suffixes, &suffixes);
    patterns.extend(suffixes.into_iter().map(|text| json!({ "suffix": text })));
    let regexes = kept("statsInclusionRegexps", matcher.inclusion_regexps, REGEXES);
    patterns.extend(regexes.into_iter().map(|text| json!({ "safe_regex": { "regex": text } })));
    patterns.extend(["component", "istio"].map(|text| json!({ "prefix": text })));
    patterns
}

/// `{pod_ip}` in a pattern stands for each of the pod's addresses.
fn for_each_ip(pattern: &str, node: &Node) -> Vec<String> {
    if !pattern.contains("{pod_ip}") {
        return vec![pattern.to_owned()];
    }
    node.ips.iter().map(|ip| pattern.replace("{pod_ip}", &ip.to_string())).collect()
}

fn annotation<'a>(node: &'a Node, name: &str) -> Option<&'a str> {
    node.metadata.get("ANNOTATIONS")?.get(name)?.as_str().filter(|text| !text.is_empty())
}
