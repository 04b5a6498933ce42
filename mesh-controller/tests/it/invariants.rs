//! What must hold for every dump, whoever wrote the manifests: things that an Envoy would refuse, or take and then do
//! something that nobody asked for. Judged on the JSON that `meshctl xds` prints, so that nothing hides behind a type.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde_json::Value;

/// All that is wrong with a dump for a proxy (`P.json` of the contract), in words.
pub(crate) fn violations(dump: &Value, proxy: &Value) -> Vec<String> {
    let mut found = Found(Vec::new());
    found.names(dump);
    found.specials(dump, proxy);
    for listener in list(dump, "listeners") {
        found.listener(listener);
    }
    found.addresses(dump);
    found.route_names(dump);
    for config in route_configs(dump) {
        found.route_config(config);
    }
    found.clusters(dump);
    found.everywhere(dump, "");
    found.0
}

struct Found(Vec<String>);

fn list<'a>(v: &'a Value, key: &str) -> &'a [Value] {
    v[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text<'a>(v: &'a Value, key: &str) -> &'a str {
    v[key].as_str().unwrap_or_default()
}

fn is(v: &Value, message: &str) -> bool {
    text(v, "@type").rsplit('.').next() == Some(message)
}

fn chains(listener: &Value) -> impl Iterator<Item = &Value> {
    list(listener, "filterChains").iter().chain(listener.get("defaultFilterChain"))
}

fn network_filters(chain: &Value) -> impl Iterator<Item = &Value> {
    list(chain, "filters").iter().map(|f| &f["typedConfig"])
}

fn http_managers(dump: &Value) -> impl Iterator<Item = &Value> {
    let filters = list(dump, "listeners").iter().flat_map(chains).flat_map(network_filters);
    filters.filter(|f| is(f, "HttpConnectionManager"))
}

fn route_configs(dump: &Value) -> impl Iterator<Item = &Value> {
    list(dump, "routes").iter().chain(http_managers(dump).filter_map(|hcm| hcm.get("routeConfig")))
}

fn is_udp(listener: &Value) -> bool {
    text(&listener["address"]["socketAddress"], "protocol") == "UDP"
}

fn duplicates<T: Ord + Clone>(items: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut seen = BTreeSet::new();
    items.into_iter().filter(|i| !seen.insert(i.clone())).collect()
}

impl Found {
    fn add(&mut self, what: impl Into<String>) {
        self.0.push(what.into());
    }

    fn names(&mut self, dump: &Value) {
        for (kind, key) in [
            ("listeners", "name"),
            ("clusters", "name"),
            ("routes", "name"),
            ("endpoints", "clusterName"),
            ("secrets", "name"),
        ] {
            for name in duplicates(list(dump, kind).iter().map(|r| text(r, key))) {
                self.add(format!("{kind}: {name:?} is there twice"));
            }
            if list(dump, kind).iter().any(|r| text(r, key).is_empty()) {
                self.add(format!("{kind}: one has no name"));
            }
        }
    }

    fn specials(&mut self, dump: &Value, proxy: &Value) {
        let redirected = text(&proxy["metadata"], "INTERCEPTION_MODE") != "NONE";
        let (listeners, clusters): (&[&str], &[&str]) = match proxy["type"].as_str() {
            Some("router") => (&[], &["BlackHoleCluster"]),
            Some("waypoint") => (&[], &[]),
            _ if redirected => (
                &["virtualOutbound", "virtualInbound"],
                &["BlackHoleCluster", "PassthroughCluster", "InboundPassthroughCluster"],
            ),
            _ => (&[], &["BlackHoleCluster", "PassthroughCluster"]),
        };
        for (kind, names) in [("listeners", listeners), ("clusters", clusters)] {
            for wanted in names {
                if !list(dump, kind).iter().any(|r| text(r, "name") == *wanted) {
                    self.add(format!("{kind}: {wanted} is missing"));
                }
            }
        }
    }

    fn addresses(&mut self, dump: &Value) {
        let all = list(dump, "listeners").iter().flat_map(|l| {
            let more = list(l, "additionalAddresses").iter().map(|a| &a["address"]);
            std::iter::once(&l["address"]).chain(more).filter(|a| !a.is_null()).map(Value::to_string)
        });
        for address in duplicates(all) {
            self.add(format!("listeners: {address} is bound twice"));
        }
    }

    fn listener(&mut self, listener: &Value) {
        let name = text(listener, "name");
        if chains(listener).next().is_none() {
            self.add(format!("listener {name}: no filter chain"));
        }
        let matches = list(listener, "filterChains").iter().map(|c| &c["filterChainMatch"]);
        for twice in duplicates(matches.clone().flat_map(expand)) {
            self.add(format!("listener {name}: two filter chains match {twice}"));
        }
        for name_twice in duplicates(list(listener, "listenerFilters").iter().map(|f| text(f, "name"))) {
            self.add(format!("listener {name}: listener filter {name_twice} is there twice"));
        }
        if !is_udp(listener) {
            let has = |what: &str| list(listener, "listenerFilters").iter().any(|f| is(&f["typedConfig"], what));
            if matches.clone().any(needs_tls_inspector) && !has("TlsInspector") {
                self.add(format!("listener {name}: a match needs a TLS inspector"));
            }
            if matches.clone().any(needs_http_inspector) && !has("HttpInspector") {
                self.add(format!("listener {name}: a match needs an HTTP inspector"));
            }
        }
        for chain in chains(listener) {
            self.chain(&format!("listener {name}, chain {}", text(chain, "name")), chain);
        }
    }

    fn chain(&mut self, at: &str, chain: &Value) {
        const TERMINAL: [&str; 6] =
            ["HttpConnectionManager", "TcpProxy", "RedisProxy", "Config", "Echo", "ReverseTunnel"];
        let terminal = |f: &&Value| TERMINAL.iter().any(|t| is(f, t));
        let count = network_filters(chain).count();
        match network_filters(chain).position(|f| terminal(&f)) {
            None => self.add(format!("{at}: no terminal filter")),
            Some(i) if i + 1 != count => self.add(format!("{at}: filters after the terminal one")),
            Some(_) => {}
        }
        for hcm in network_filters(chain).filter(|f| is(f, "HttpConnectionManager")) {
            if !list(hcm, "httpFilters").last().is_some_and(|f| is(&f["typedConfig"], "Router")) {
                self.add(format!("{at}: the router is not the last HTTP filter"));
            }
            for twice in duplicates(list(hcm, "httpFilters").iter().map(|f| text(f, "name"))) {
                self.add(format!("{at}: HTTP filter {twice} is there twice"));
            }
            let transport = text(&chain["filterChainMatch"], "transportProtocol");
            if transport == "tls" && chain.get("transportSocket").is_none() {
                self.add(format!("{at}: HTTP is parsed out of TLS that is not terminated"));
            }
        }
    }

    fn route_names(&mut self, dump: &Value) {
        let asked: BTreeSet<&str> = http_managers(dump).filter_map(|h| h["rds"]["routeConfigName"].as_str()).collect();
        let sent: BTreeSet<&str> = list(dump, "routes").iter().map(|r| text(r, "name")).collect();
        for name in asked.difference(&sent) {
            self.add(format!("routes: {name} is asked for and not sent"));
        }
        for name in sent.difference(&asked) {
            self.add(format!("routes: {name} is sent and nobody asks for it"));
        }
    }

    fn route_config(&mut self, config: &Value) {
        let name = text(config, "name");
        let vhosts = list(config, "virtualHosts");
        for twice in duplicates(vhosts.iter().map(|v| text(v, "name"))) {
            self.add(format!("route configuration {name}: virtual host {twice} is there twice"));
        }
        let domains = vhosts.iter().flat_map(|v| list(v, "domains")).filter_map(Value::as_str);
        for twice in duplicates(domains.map(str::to_ascii_lowercase)) {
            self.add(format!("route configuration {name}: domain {twice} is there twice"));
        }
        for vhost in vhosts {
            let at = format!("route configuration {name}, virtual host {}", text(vhost, "name"));
            if list(vhost, "domains").is_empty() {
                self.add(format!("{at}: no domain"));
            }
            for route in list(vhost, "routes") {
                const ACTIONS: [&str; 5] =
                    ["route", "redirect", "directResponse", "nonForwardingAction", "filterAction"];
                if ACTIONS.iter().filter(|a| route.get(**a).is_some()).count() != 1 {
                    self.add(format!("{at}: route {} has not one action", text(route, "name")));
                }
                if route.get("match").is_none() {
                    self.add(format!("{at}: route {} has no match", text(route, "name")));
                }
            }
        }
    }

    fn clusters(&mut self, dump: &Value) {
        let known: BTreeSet<&str> = list(dump, "clusters").iter().map(|c| text(c, "name")).collect();
        let mut named: BTreeMap<&str, String> = BTreeMap::new();
        for config in route_configs(dump) {
            let at = || format!("route configuration {}", text(config, "name"));
            for route in list(config, "virtualHosts").iter().flat_map(|v| list(v, "routes")) {
                for name in clusters_of(&route["route"]) {
                    named.entry(name).or_insert_with(at);
                }
            }
        }
        for listener in list(dump, "listeners") {
            for proxy in chains(listener).flat_map(network_filters).filter(|f| is(f, "TcpProxy")) {
                for name in clusters_of(proxy) {
                    named.entry(name).or_insert_with(|| format!("listener {}", text(listener, "name")));
                }
            }
        }
        for (name, at) in named {
            if !name.starts_with("outbound|") && !known.contains(name) {
                self.add(format!("{at}: cluster {name} is not sent"));
            }
        }
        let mut wanted = BTreeSet::new();
        for cluster in list(dump, "clusters") {
            let name = text(cluster, "name");
            match cluster["type"].as_str() {
                Some("EDS") => {
                    let eds = &cluster["edsClusterConfig"];
                    wanted.insert(Some(text(eds, "serviceName")).filter(|n| !n.is_empty()).unwrap_or(name));
                    if eds["edsConfig"].is_null() {
                        self.add(format!("cluster {name}: EDS without a source"));
                    }
                    if !cluster["loadAssignment"].is_null() {
                        self.add(format!("cluster {name}: EDS with endpoints of its own"));
                    }
                }
                Some("STRICT_DNS" | "LOGICAL_DNS") if cluster["loadAssignment"].is_null() => {
                    self.add(format!("cluster {name}: DNS without a name to resolve"));
                }
                Some("ORIGINAL_DST") => {
                    if text(cluster, "lbPolicy") != "CLUSTER_PROVIDED" {
                        self.add(format!("cluster {name}: original destination without CLUSTER_PROVIDED"));
                    }
                    if !cluster["loadAssignment"].is_null() {
                        self.add(format!("cluster {name}: original destination with endpoints of its own"));
                    }
                }
                _ => {}
            }
        }
        let sent: BTreeSet<&str> = list(dump, "endpoints").iter().map(|e| text(e, "clusterName")).collect();
        for name in wanted.difference(&sent) {
            self.add(format!("endpoints: {name} is an EDS cluster without them"));
        }
        for name in sent.difference(&wanted) {
            self.add(format!("endpoints: {name} is no EDS cluster"));
        }
    }

    /// Regular expressions, weights and types, wherever they are.
    fn everywhere(&mut self, v: &Value, at: &str) {
        match v {
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(i, v)| self.everywhere(v, &format!("{at}[{i}]")))
            }
            Value::Object(fields) => {
                for (key, value) in fields {
                    let at = format!("{at}.{key}");
                    match (key.as_str(), value) {
                        ("regex", Value::String(regex)) if regex::Regex::new(regex).is_err() => {
                            self.add(format!("{at}: {regex:?} does not compile"));
                        }
                        ("weight" | "loadBalancingWeight", Value::Number(n)) if n.as_u64() == Some(0) => {
                            self.add(format!("{at}: no positive weight"));
                        }
                        ("weightedClusters", weighted) => {
                            let weightless = |c: &Value| c["weight"].as_u64().unwrap_or(0) == 0;
                            if list(weighted, "clusters").iter().any(weightless) {
                                self.add(format!("{at}: no positive weight"));
                            }
                        }
                        ("typedConfig", config) if text(config, "@type").is_empty() => {
                            self.add(format!("{at}: no @type"));
                        }
                        ("typedPerFilterConfig" | "typedExtensionProtocolOptions", Value::Object(each)) => {
                            for (name, config) in each.iter().filter(|(_, c)| text(c, "@type").is_empty()) {
                                self.add(format!("{at}.{name}: no @type in {config}"));
                            }
                        }
                        _ => {}
                    }
                    self.everywhere(value, &at);
                }
            }
            _ => {}
        }
    }
}

/// Clusters that a route action or a TCP proxy names.
fn clusters_of(action: &Value) -> Vec<&str> {
    let weighted = list(&action["weightedClusters"], "clusters").iter().map(|c| text(c, "name"));
    let mirrors = list(action, "requestMirrorPolicies").iter().map(|m| text(m, "cluster"));
    weighted.chain(mirrors).chain(action["cluster"].as_str()).filter(|n| !n.is_empty()).collect()
}

fn protocols(m: &Value) -> impl Iterator<Item = &str> {
    list(m, "applicationProtocols").iter().filter_map(Value::as_str)
}

fn of_http_inspector(protocol: &str) -> bool {
    matches!(protocol, "http/1.0" | "http/1.1" | "h2c")
}

fn needs_tls_inspector(m: &Value) -> bool {
    let transport = text(m, "transportProtocol");
    !list(m, "serverNames").is_empty()
        || transport == "tls"
        || (transport != "raw_buffer" && protocols(m).any(|p| !of_http_inspector(p)))
}

fn needs_http_inspector(m: &Value) -> bool {
    text(m, "transportProtocol") != "tls" && protocols(m).any(of_http_inspector)
}

/// The single matches that a filter chain match stands for: Envoy refuses two chains that share one of them.
fn expand(m: &Value) -> Vec<String> {
    const FIELDS: [&str; 9] = [
        "destinationPort",
        "prefixRanges",
        "serverNames",
        "transportProtocol",
        "applicationProtocols",
        "directSourcePrefixRanges",
        "sourceType",
        "sourcePrefixRanges",
        "sourcePorts",
    ];
    let mut all = vec![String::new()];
    for field in FIELDS {
        let one = |v: &Value| match v {
            Value::String(s) => s.to_ascii_lowercase(),
            Value::Object(range) if range.contains_key("addressPrefix") => masked(v),
            other => other.to_string(),
        };
        let values: Vec<String> = match &m[field] {
            Value::Null if field.ends_with("refixRanges") => vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()],
            Value::Null => continue,
            Value::Array(items) => items.iter().map(one).collect(),
            single => vec![one(single)],
        };
        all = all.iter().flat_map(|prefix| values.iter().map(move |v| format!("{prefix} {field}={v}"))).collect();
    }
    all
}

/// `1.2.3.4/8` is `1.0.0.0/8` to Envoy.
fn masked(range: &Value) -> String {
    let len = range["prefixLen"].as_u64().unwrap_or(0) as u32;
    let prefix = text(range, "addressPrefix");
    match prefix.parse::<IpAddr>() {
        Ok(IpAddr::V4(a)) => {
            let mask = u32::MAX.checked_shl(32u32.saturating_sub(len)).unwrap_or(0);
            format!("{}/{len}", std::net::Ipv4Addr::from_bits(a.to_bits() & mask))
        }
        Ok(IpAddr::V6(a)) => {
            let mask = u128::MAX.checked_shl(128u32.saturating_sub(len)).unwrap_or(0);
            format!("{}/{len}", std::net::Ipv6Addr::from_bits(a.to_bits() & mask))
        }
        Err(_) => format!("{prefix}/{len}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn good() -> Value {
        let typed = |message: &str, mut rest: Value| {
            rest["@type"] = json!(format!("type.googleapis.com/envoy.x.v3.{message}"));
            json!({"name": message, "typedConfig": rest})
        };
        let hcm = typed(
            "HttpConnectionManager",
            json!({"rds": {"routeConfigName": "80"}, "httpFilters": [typed("Router", json!({}))]}),
        );
        let tcp = typed("TcpProxy", json!({"weightedClusters": {"clusters": [{"name": "a", "weight": 1}]}}));
        let http_match =
            json!({"destinationPort": 80, "transportProtocol": "raw_buffer", "applicationProtocols": ["http/1.1"]});
        json!({
            "listeners": [{
                "name": "l", "address": {"socketAddress": {"address": "0.0.0.0", "portValue": 80}},
                "listenerFilters": [typed("TlsInspector", json!({})), typed("HttpInspector", json!({}))],
                "filterChains": [
                    {"name": "http", "filterChainMatch": http_match, "filters": [hcm]},
                    {"name": "sni", "filterChainMatch": {"serverNames": ["a"], "prefixRanges": [{"addressPrefix": "10.1.1.1", "prefixLen": 8}]}, "filters": [tcp.clone()]},
                    {"name": "tcp", "filterChainMatch": {"destinationPort": 81}, "filters": [tcp]}]}],
            "routes": [{"name": "80", "virtualHosts": [
                {"name": "v", "domains": ["x"], "routes": [{"match": {"safeRegex": {"regex": "a+"}}, "route": {"cluster": "a"}}]},
                {"name": "w", "domains": ["y"], "routes": [{"match": {"prefix": "/"}, "redirect": {}}]}]}],
            "clusters": [{"name": "BlackHoleCluster"}, {"name": "a", "type": "EDS", "edsClusterConfig": {"edsConfig": {"ads": {}}}}],
            "endpoints": [{"clusterName": "a", "endpoints": [{"loadBalancingWeight": 1}]}],
        })
    }

    #[test]
    fn a_good_dump_has_no_violation() {
        assert_eq!(violations(&good(), &json!({"type": "router"})), Vec::<String>::new());
    }

    #[test]
    fn each_violation_is_found() {
        let chain = "/listeners/0/filterChains";
        let broken: [(&str, Value, &str); 24] = [
            ("/clusters/1/name", json!("BlackHoleCluster"), "there twice"),
            ("/clusters/0/name", json!("other"), "BlackHoleCluster is missing"),
            ("/routes/0/name", json!("81"), "80 is asked for and not sent"),
            ("/routes/0/name", json!("81"), "81 is sent and nobody asks"),
            ("/routes/0/virtualHosts/1/domains", json!(["X"]), "domain x is there twice"),
            ("/routes/0/virtualHosts/1/name", json!("v"), "virtual host v is there twice"),
            ("/routes/0/virtualHosts/0/routes/0/match/safeRegex/regex", json!("("), "does not compile"),
            ("/routes/0/virtualHosts/0/routes/0/route", json!({"cluster": "b"}), "cluster b is not sent"),
            ("/routes/0/virtualHosts/0/routes/0", json!({"match": {}, "route": {}, "redirect": {}}), "not one action"),
            (
                &format!("{chain}/2/filters/0/typedConfig/weightedClusters/clusters/0/weight"),
                json!(0),
                "positive weight",
            ),
            ("/endpoints/0/endpoints/0/loadBalancingWeight", json!(0), "positive weight"),
            ("/endpoints/0/clusterName", json!("b"), "a is an EDS cluster without"),
            ("/endpoints/0/clusterName", json!("b"), "b is no EDS cluster"),
            ("/clusters/1/edsClusterConfig", json!({}), "EDS without a source"),
            ("/clusters/1/type", json!("STRICT_DNS"), "DNS without a name"),
            ("/clusters/1/type", json!("ORIGINAL_DST"), "CLUSTER_PROVIDED"),
            (
                &format!("{chain}/2/filterChainMatch"),
                json!({"serverNames": ["b", "A"], "prefixRanges": [{"addressPrefix": "10.0.0.0", "prefixLen": 8}]}),
                "two filter chains match",
            ),
            ("/listeners/0/listenerFilters/0", json!({"name": "HttpInspector"}), "needs a TLS inspector"),
            ("/listeners/0/listenerFilters/1", json!({"name": "TlsInspector"}), "TlsInspector is there twice"),
            ("/listeners/0/listenerFilters/1", json!({"name": "x"}), "needs an HTTP inspector"),
            (&format!("{chain}/2/filters"), json!([]), "no terminal filter"),
            (&format!("{chain}/0/filterChainMatch"), json!({"transportProtocol": "tls"}), "TLS that is not terminated"),
            (&format!("{chain}/0/filters/0/typedConfig/httpFilters"), json!([]), "router is not the last"),
            (&format!("{chain}/0/filters/0/typedConfig/httpFilters/0/typedConfig"), json!({}), "no @type"),
        ];
        for (pointer, value, want) in broken {
            let mut dump = good();
            *dump.pointer_mut(pointer).expect(pointer) = value;
            let found = violations(&dump, &json!({"type": "router"}));
            assert!(found.iter().any(|v| v.contains(want)), "{pointer}: wanted {want:?}, got {found:?}");
        }
        let sidecar = violations(&good(), &json!({"type": "sidecar"}));
        assert!(sidecar.iter().any(|v| v.contains("virtualInbound is missing")), "{sidecar:?}");
    }
}
