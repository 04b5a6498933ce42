//! EnvoyFilter: that a patch says what it changes and where. Whether its value fits Envoy's messages is not seen here.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::at::At;
use super::labels;
use crate::networking::envoy_filter::{
    ApplyTo, EnvoyConfigObjectMatch, EnvoyConfigObjectPatch, EnvoyFilterSpec, FilterMatch, ObjectTypes, Operation,
    PatchContext,
};
use crate::re2;

const CONNECTION_MANAGER: &str = "envoy.filters.network.http_connection_manager";

pub(super) fn check(at: &At<'_>, _: &ObjectMeta, spec: &EnvoyFilterSpec) {
    if let Some(selector) = &spec.workload_selector {
        let at = at.field("workloadSelector");
        if !labels::selector_labels(&at, "labels", &selector.labels) {
            return;
        }
        if selector.labels.is_empty() {
            labels::without_labels(&at);
        }
    }
    at.warning(
        "InternalApi",
        "EnvoyFilter exposes internal implementation details that may change at any time. Prefer other APIs if possible, and \
         exercise extreme caution, especially around upgrades.",
    );
    at.each("configPatches", &spec.config_patches, |at, patch| {
        // Of waypoints Istio checks nothing.
        if patch.r#match.as_ref().is_none_or(|found| found.context != PatchContext::Waypoint) && is_complete(at, patch)
        {
            matching(at, patch);
        }
    });
}

fn is_complete(at: &At<'_>, patch: &EnvoyConfigObjectPatch) -> bool {
    let (field, message) = match &patch.patch {
        _ if patch.apply_to == ApplyTo::Invalid => ("applyTo", "missing applyTo; name what is changed"),
        None => ("patch", "missing patch; add operation and value"),
        Some(patch) if patch.operation == Operation::Invalid => ("patch", "missing patch operation; add it"),
        Some(patch) if patch.operation != Operation::Remove && patch.value.is_none() => {
            ("patch", "missing patch value for non-remove operation; add it")
        }
        Some(_) => return true,
    };
    at.field(field).error("IncompletePatch", format!("Envoy filter: {message}"));
    false
}

/// What is matched has to belong to what is changed.
fn matching(at: &At<'_>, patch: &EnvoyConfigObjectPatch) {
    let Some(found) = &patch.r#match else { return };
    let at = at.field("match");
    if !proxy_version(&at, found) {
        return;
    }
    let Some(object) = &found.object_types else { return };
    let (class, wanted) = match (patch.apply_to, object) {
        (
            ApplyTo::Listener | ApplyTo::FilterChain | ApplyTo::NetworkFilter | ApplyTo::HttpFilter,
            ObjectTypes::Listener(listener),
        ) => {
            if let Some(filter) = listener.filter_chain.as_ref().and_then(|chain| chain.filter.as_ref()) {
                filter_match(&at.field("listener").field("filterChain").field("filter"), patch.apply_to, filter);
            }
            return;
        }
        (ApplyTo::Listener | ApplyTo::FilterChain | ApplyTo::NetworkFilter | ApplyTo::HttpFilter, _) => {
            ("listener", "listener")
        }
        (
            ApplyTo::RouteConfiguration | ApplyTo::VirtualHost | ApplyTo::HttpRoute,
            ObjectTypes::RouteConfiguration(_),
        )
        | (ApplyTo::Cluster, ObjectTypes::Cluster(_)) => return,
        (ApplyTo::RouteConfiguration | ApplyTo::VirtualHost | ApplyTo::HttpRoute, _) => {
            ("http route", "route configuration")
        }
        (ApplyTo::Cluster, _) => ("cluster", "cluster"),
        _ => return,
    };
    let message = format!(
        "Envoy filter: applyTo for {class} class objects cannot have non {wanted} match; match a {wanted} instead"
    );
    at.error("InvalidMatch", message);
}

/// False if the expression is none. One that is too long is told and left out, as Istio does.
fn proxy_version(at: &At<'_>, found: &EnvoyConfigObjectMatch) -> bool {
    let pattern = found.proxy.as_ref().map_or("", |proxy| proxy.proxy_version.as_str());
    let proxy = at.field("proxy");
    let at = proxy.field("proxyVersion");
    if pattern.len() > re2::MAX_LENGTH {
        let message = format!(
            "Envoy filter: proxyVersion match exceeds {} characters and will be ignored; shorten it",
            re2::MAX_LENGTH
        );
        at.warning("TooLong", message);
    } else if !pattern.is_empty()
        && let Err(why) = re2::check(pattern)
    {
        at.error("InvalidRegex", format!("Envoy filter: invalid regex for proxy version, [{why}]"));
        return false;
    }
    true
}

fn filter_match(at: &At<'_>, apply_to: ApplyTo, filter: &FilterMatch) {
    if matches!(apply_to, ApplyTo::Listener | ApplyTo::FilterChain) {
        at.warning(
            "NoEffect",
            "Envoy filter: filter match has no effect when used with LISTENER and FILTER_CHAIN; set applyTo to NETWORK_FILTER",
        );
    }
    let sub_filter = filter.sub_filter.as_ref();
    let problem = if filter.name.is_empty() {
        "filter match has no name to match on; add it"
    } else if sub_filter.is_some() && apply_to != ApplyTo::HttpFilter {
        "subfilter match can be used with applyTo HTTP_FILTER only; remove subFilter"
    } else if sub_filter.is_some() && canonical(&filter.name) != CONNECTION_MANAGER {
        "subfilter match requires filter match with envoy.filters.network.http_connection_manager; set name to that"
    } else if sub_filter.is_some_and(|filter| filter.name.is_empty()) {
        "subfilter match has no name to match on; add it"
    } else {
        deprecated_name(at, &filter.name);
        if let Some(sub_filter) = sub_filter {
            deprecated_name(&at.field("subFilter"), &sub_filter.name);
        }
        return;
    };
    at.error("InvalidMatch", format!("Envoy filter: {problem}"));
}

fn deprecated_name(at: &At<'_>, name: &str) {
    let new = canonical(name);
    if new != name {
        let message = format!("using deprecated filter name {name:?}; use {new:?} instead");
        at.field("name").warning("DeprecatedName", message);
    }
}

/// The name that a filter has nowadays.
fn canonical(name: &str) -> &str {
    const RENAMED: [(&str, &str); 27] = [
        ("envoy.buffer", "envoy.filters.http.buffer"),
        ("envoy.client_ssl_auth", "envoy.filters.network.client_ssl_auth"),
        ("envoy.cors", "envoy.filters.http.cors"),
        ("envoy.csrf", "envoy.filters.http.csrf"),
        ("envoy.ext_authz", "envoy.filters.http.ext_authz"),
        ("envoy.fault", "envoy.filters.http.fault"),
        ("envoy.grpc_http1_bridge", "envoy.filters.http.grpc_http1_bridge"),
        ("envoy.grpc_json_transcoder", "envoy.filters.http.grpc_json_transcoder"),
        ("envoy.grpc_web", "envoy.filters.http.grpc_web"),
        ("envoy.gzip", "envoy.filters.http.gzip"),
        ("envoy.health_check", "envoy.filters.http.health_check"),
        ("envoy.http_connection_manager", CONNECTION_MANAGER),
        ("envoy.http_dynamo_filter", "envoy.filters.http.dynamo"),
        ("envoy.ip_tagging", "envoy.filters.http.ip_tagging"),
        ("envoy.listener.http_inspector", "envoy.filters.listener.http_inspector"),
        ("envoy.listener.original_dst", "envoy.filters.listener.original_dst"),
        ("envoy.listener.original_src", "envoy.filters.listener.original_src"),
        ("envoy.listener.proxy_protocol", "envoy.filters.listener.proxy_protocol"),
        ("envoy.listener.tls_inspector", "envoy.filters.listener.tls_inspector"),
        ("envoy.lua", "envoy.filters.http.lua"),
        ("envoy.mongo_proxy", "envoy.filters.network.mongo_proxy"),
        ("envoy.rate_limit", "envoy.filters.http.ratelimit"),
        ("envoy.ratelimit", "envoy.filters.network.ratelimit"),
        ("envoy.redis_proxy", "envoy.filters.network.redis_proxy"),
        ("envoy.router", "envoy.filters.http.router"),
        ("envoy.squash", "envoy.filters.http.squash"),
        ("envoy.tcp_proxy", "envoy.filters.network.tcp_proxy"),
    ];
    RENAMED.iter().find(|(old, _)| *old == name).map_or(name, |(_, new)| new)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::networking::EnvoyFilter;
    use crate::validate::testing::check;

    #[test]
    fn patches() {
        let one = |patch: Value| json!({"configPatches": [patch]});
        let matching = |apply_to: &str, found: Value| {
            one(json!({"applyTo": apply_to, "match": found, "patch": {"operation": "REMOVE"}}))
        };
        let filter = |filter: Value| json!({"listener": {"filterChain": {"filter": filter}}});
        let manager = "envoy.filters.network.http_connection_manager";
        const INTERNAL: &str = "W spec: EnvoyFilter exposes internal";
        check::<EnvoyFilter>(&[
            (json!({}), &[INTERNAL]),
            (
                json!({"workloadSelector": {}}),
                &["W spec.workloadSelector: workload selector specified without labels", INTERNAL],
            ),
            (json!({"workloadSelector": {"labels": {"": "a"}}}), &["E spec.workloadSelector.labels."]),
            (one(json!({})), &[INTERNAL, "E spec.configPatches[0].applyTo: Envoy filter: missing applyTo"]),
            (one(json!({"applyTo": "LISTENER"})), &[INTERNAL, "Envoy filter: missing patch;"]),
            (one(json!({"applyTo": "LISTENER", "patch": {}})), &[INTERNAL, "missing patch operation"]),
            (
                one(json!({"applyTo": "LISTENER", "patch": {"operation": "ADD"}})),
                &[INTERNAL, "missing patch value for non-remove"],
            ),
            (one(json!({"match": {"context": "WAYPOINT"}})), &[INTERNAL]),
            (matching("LISTENER", json!({"proxy": {"proxyVersion": r"release-1\.2-23434"}})), &[INTERNAL]),
            (
                matching("LISTENER", json!({"proxy": {"proxyVersion": "%#@~++==`24c234`"}})),
                &[INTERNAL, "invalid regex for proxy version"],
            ),
            (
                matching("LISTENER", json!({"proxy": {"proxyVersion": "a{100}".repeat(200)}})),
                &[INTERNAL, "W spec.configPatches[0].match.proxy.proxyVersion"],
            ),
            (
                matching("LISTENER", json!({"cluster": {}})),
                &[INTERNAL, "applyTo for listener class objects cannot have non listener match"],
            ),
            (
                matching("VIRTUAL_HOST", json!({"cluster": {}})),
                &[INTERNAL, "http route class objects cannot have non route configuration"],
            ),
            (
                matching("CLUSTER", json!({"listener": {}})),
                &[INTERNAL, "cluster class objects cannot have non cluster match"],
            ),
            (matching("BOOTSTRAP", json!({"listener": {}})), &[INTERNAL]),
            (matching("NETWORK_FILTER", filter(json!({}))), &[INTERNAL, "filter match has no name to match on"]),
            (
                matching("LISTENER", filter(json!({"name": "a"}))),
                &[
                    INTERNAL,
                    "W spec.configPatches[0].match.listener.filterChain.filter: Envoy filter: filter match has no effect",
                ],
            ),
            (
                matching("NETWORK_FILTER", filter(json!({"name": "a", "subFilter": {}}))),
                &[INTERNAL, "applyTo HTTP_FILTER only"],
            ),
            (
                matching("HTTP_FILTER", filter(json!({"name": "a", "subFilter": {}}))),
                &[INTERNAL, "subfilter match requires filter match with"],
            ),
            (
                matching("HTTP_FILTER", filter(json!({"name": manager, "subFilter": {}}))),
                &[INTERNAL, "subfilter match has no name"],
            ),
            (
                matching(
                    "HTTP_FILTER",
                    filter(json!({"name": "envoy.http_connection_manager", "subFilter": {"name": "envoy.router"}})),
                ),
                &[
                    INTERNAL,
                    "W spec.configPatches[0].match.listener.filterChain.filter.name: using deprecated filter name",
                    "filter.subFilter.name",
                ],
            ),
        ]);
    }
}
