//! From a request to a route: the route configuration, the virtual host that has the host, the first route that matches, and
//! what it does.

use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::{ClusterSpecifier, HostRewriteSpecifier};
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::virtual_host::TlsRequirementType;
use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, RedirectAction, Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost,
};
use envoy_types::pb::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::fault_abort::ErrorType;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    RouteSpecifier, StripPortMode,
};
use envoy_types::pb::google::protobuf::Duration;

use super::connection::{host_without_port, unpack};
use super::origin::{host_object, written};
use super::{ErrorKind, Explanation, OwnAnswer, Request, Resources, Share, authz, cluster, matching};

pub(super) fn follow(resources: &Resources, request: &Request, hcm: &HttpConnectionManager, out: &mut Explanation) {
    authz::judge_http(hcm, request, out);
    let config = match &hcm.route_specifier {
        Some(RouteSpecifier::RouteConfig(inline)) => Some(inline),
        Some(RouteSpecifier::Rds(rds)) => {
            let name = &rds.route_config_name;
            out.route_config = Some(name.clone());
            let found = resources.routes.iter().find(|r| r.name == *name);
            let object = found.and_then(|r| written(r.metadata.as_ref()));
            out.step("routeConfig", name, "the filter chain asks for it over RDS", object);
            found
        }
        Some(RouteSpecifier::ScopedRoutes(_)) | None => None,
    };
    let Some(config) = config else {
        out.fail(ErrorKind::NoVirtualHost, "virtualHost", "there is no such route configuration");
        return;
    };
    let host = host(hcm, config, request);
    let Some((vhost, domain)) = virtual_host(config, &host) else {
        out.fail(ErrorKind::NoVirtualHost, "virtualHost", format!("no virtual host has the domain {host:?}"));
        return;
    };
    out.virtual_host = Some(vhost.name.clone());
    let object = written(vhost.metadata.as_ref()).or_else(|| {
        let (name, port) = vhost.name.rsplit_once(':').unwrap_or((&vhost.name, ""));
        host_object(name, port)
    });
    let because = match domain == host {
        true => format!("it has the domain {domain:?}"),
        false => format!("its domain {domain:?} is the best match for {host:?}"),
    };
    out.step("virtualHost", &vhost.name, because, object);
    if vhost.require_tls != TlsRequirementType::None as i32 && !request.is_tls() {
        out.answer =
            Some(OwnAnswer { status: 301, location: Some(format!("https://{host}{}", request.path)), body: None });
        out.fail(ErrorKind::TlsRedirect, "virtualHost", "it demands TLS of a plaintext request");
        return;
    }
    let Some((route, because)) = vhost.routes.iter().find_map(|r| Some((r, matches(r.r#match.as_ref()?, request)?)))
    else {
        let what = format!("none of its {} routes matches {} {}", vhost.routes.len(), request.method, request.path);
        out.fail(ErrorKind::NoRoute, "route", what);
        return;
    };
    out.route = Some(route.name.clone()).filter(|n| !n.is_empty());
    out.step("route", &route.name, because, written(route.metadata.as_ref()));
    act(resources, request, &host, route, out);
}

/// The host as the route configuration compares it.
fn host(hcm: &HttpConnectionManager, config: &RouteConfiguration, request: &Request) -> String {
    let mut host = request.authority().to_ascii_lowercase();
    let own_port = format!(":{}", request.port);
    let strip_any = hcm.strip_port_mode == Some(StripPortMode::StripAnyHostPort(true));
    if strip_any || config.ignore_port_in_host_matching || (hcm.strip_matching_host_port && host.ends_with(&own_port)) {
        host = host_without_port(&host).to_owned();
    }
    if hcm.strip_trailing_host_dot && host.ends_with('.') {
        host.pop();
    }
    host
}

/// Exact domain, then the longest `*.suffix`, then the longest `prefix.*`, then `*`.
fn virtual_host<'a>(config: &'a RouteConfiguration, host: &str) -> Option<(&'a VirtualHost, String)> {
    let all = || config.virtual_hosts.iter().flat_map(|v| v.domains.iter().map(move |d| (v, d.to_ascii_lowercase())));
    let longest = |fits: &dyn Fn(&str) -> bool| {
        // Of equally long ones the first wins, as Envoy refuses duplicates anyway.
        all().filter(|(_, d)| d != "*" && fits(d) && host.len() >= d.len()).rev_max()
    };
    all()
        .find(|(_, d)| d == host)
        .or_else(|| longest(&|d| d.strip_prefix('*').is_some_and(|suffix| host.ends_with(suffix))))
        .or_else(|| longest(&|d| d.strip_suffix('*').is_some_and(|prefix| host.starts_with(prefix))))
        .or_else(|| all().find(|(_, d)| d == "*"))
}

trait LongestFirst<'a>: Iterator<Item = (&'a VirtualHost, String)> + Sized {
    /// The first of the longest.
    fn rev_max(self) -> Option<(&'a VirtualHost, String)> {
        self.reduce(|best, next| if next.1.len() > best.1.len() { next } else { best })
    }
}
impl<'a, I: Iterator<Item = (&'a VirtualHost, String)>> LongestFirst<'a> for I {}

/// Why a route matches, or `None`.
fn matches(m: &RouteMatch, request: &Request) -> Option<String> {
    let because = path_matches(m, request)?;
    let mut parts = vec![because];
    let all = m.headers.iter().all(|h| matching::header(h, request))
        && m.query_parameters.iter().all(|q| matching::query_parameter(q, request))
        && m.cookies.iter().all(|c| matching::cookie(c, request))
        // No filter has set anything yet: a matcher of metadata holds only when it is inverted.
        && m.dynamic_metadata.iter().all(|d| d.invert)
        && m.filter_state.is_empty()
        && (m.grpc.is_none() || request.header("content-type").is_some_and(|t| t.starts_with("application/grpc")));
    if !all || !tls_matches(m, request) {
        return None;
    }
    parts.extend(m.headers.iter().map(|h| format!("header {}", h.name)));
    parts.extend(m.query_parameters.iter().map(|q| format!("query parameter {}", q.name)));
    parts.extend(m.cookies.iter().map(|c| format!("cookie {}", c.name)));
    if let Some(fraction) = &m.runtime_fraction {
        let percent = matching::percent(fraction);
        if percent == 0.0 {
            return None;
        }
        parts.push(format!("{percent} % of requests"));
    }
    Some(format!("the first to match: {}", parts.join(", ")))
}

fn tls_matches(m: &RouteMatch, request: &Request) -> bool {
    let Some(tls) = &m.tls_context else { return true };
    let wanted = |v: &Option<envoy_types::pb::google::protobuf::BoolValue>| {
        v.as_ref().is_none_or(|v| v.value == request.is_mtls())
    };
    wanted(&tls.presented) && wanted(&tls.validated)
}

fn path_matches(m: &RouteMatch, request: &Request) -> Option<String> {
    let sensitive = m.case_sensitive.as_ref().is_none_or(|c| c.value);
    let fold = |text: &str| if sensitive { text.to_owned() } else { text.to_lowercase() };
    let path = fold(request.path_only());
    match m.path_specifier.as_ref()? {
        PathSpecifier::Prefix(p) => path.starts_with(&fold(p)).then(|| format!("path prefix {p}")),
        PathSpecifier::Path(p) => (path == fold(p)).then(|| format!("path {p}")),
        PathSpecifier::PathSeparatedPrefix(p) => path
            .strip_prefix(&fold(p))
            .filter(|rest| rest.is_empty() || rest.starts_with('/'))
            .map(|_| format!("path prefix {p}")),
        PathSpecifier::SafeRegex(r) => {
            matching::full_match(&r.regex, request.path_only()).then(|| format!("path expression {}", r.regex))
        }
        PathSpecifier::ConnectMatcher(_) => (request.method == "CONNECT").then(|| "method CONNECT".to_owned()),
        // A URI template: an extension with a grammar of its own, which no builder of ours uses for routes.
        PathSpecifier::PathMatchPolicy(_) => None,
    }
}

fn act(resources: &Resources, request: &Request, host: &str, route: &Route, out: &mut Explanation) {
    match &route.action {
        Some(Action::Route(action)) => {
            let treatment = treatment(route, action);
            if !treatment.is_empty() {
                out.step("route", &route.name, treatment.join(", "), None);
            }
            forward(resources, request, action, out);
        }
        Some(Action::Redirect(redirect)) => {
            let answer = redirected(redirect, route, request, host);
            out.step("route", &route.name, "it redirects", None);
            out.answer = Some(answer);
        }
        Some(Action::DirectResponse(direct)) => {
            out.step("route", &route.name, format!("it answers with {} itself", direct.status), None);
            out.answer = Some(OwnAnswer { status: direct.status, location: None, body: body(direct) });
        }
        Some(Action::NonForwardingAction(_) | Action::FilterAction(_)) | None => {
            out.step("route", &route.name, "it forwards to no cluster", None);
        }
    }
}

/// What happens to a request on its way, beside being forwarded.
fn treatment(route: &Route, action: &RouteAction) -> Vec<String> {
    let mut does = Vec::new();
    let fault = route.typed_per_filter_config.get("envoy.filters.http.fault").and_then(unpack::<HttpFault>);
    if let Some(fault) = fault {
        if let Some(delay) = &fault.delay {
            let by = match &delay.fault_delay_secifier {
                Some(FaultDelaySecifier::FixedDelay(d)) => seconds(d),
                _ => "what a header says".to_owned(),
            };
            does.push(format!("delays {} % of requests by {by}", matching::fraction(delay.percentage.as_ref())));
        }
        if let Some(abort) = &fault.abort {
            let with = match &abort.error_type {
                Some(ErrorType::HttpStatus(status)) => status.to_string(),
                Some(ErrorType::GrpcStatus(status)) => format!("gRPC status {status}"),
                _ => "what a header says".to_owned(),
            };
            does.push(format!("aborts {} % of requests with {with}", matching::fraction(abort.percentage.as_ref())));
        }
    }
    if !action.prefix_rewrite.is_empty() {
        does.push(format!("rewrites the prefix to {}", action.prefix_rewrite));
    }
    if let Some(rewrite) = &action.regex_rewrite {
        does.push(format!("rewrites the path to {}", rewrite.substitution));
    }
    if let Some(HostRewriteSpecifier::HostRewriteLiteral(host)) = &action.host_rewrite_specifier {
        does.push(format!("rewrites the host to {host}"));
    }
    if let Some(timeout) = action.timeout.as_ref().filter(|t| t.seconds != 0 || t.nanos != 0) {
        does.push(format!("gives up after {}", seconds(timeout)));
    }
    if let Some(retry) = &action.retry_policy {
        let times = retry.num_retries.as_ref().map_or(1, |n| n.value);
        does.push(format!("retries {times} times on {}", retry.retry_on));
    }
    does
}

fn seconds(d: &Duration) -> String {
    format!("{}s", d.seconds as f64 + f64::from(d.nanos) / 1e9)
}

fn forward(resources: &Resources, request: &Request, action: &RouteAction, out: &mut Explanation) {
    let share_of = |m: Option<f64>| m.unwrap_or(100.0);
    out.mirrors = action
        .request_mirror_policies
        .iter()
        .map(|m| Share {
            cluster: m.cluster.clone(),
            percent: share_of(m.runtime_fraction.as_ref().map(matching::percent)),
        })
        .collect();
    match &action.cluster_specifier {
        Some(ClusterSpecifier::Cluster(name)) => cluster::forward(resources, request, name, out),
        Some(ClusterSpecifier::ClusterHeader(header)) => match request.header(&header.to_ascii_lowercase()) {
            Some(name) => cluster::forward(resources, request, name, out),
            None => out.step("cluster", "", format!("the header {header} should name it, and is missing"), None),
        },
        Some(ClusterSpecifier::WeightedClusters(weighted)) => {
            let weights = weighted.clusters.iter().map(|c| {
                let name = match c.name.is_empty() {
                    true => request.header(&c.cluster_header.to_ascii_lowercase()).unwrap_or_default(),
                    false => c.name.as_str(),
                };
                (name, c.weight.as_ref().map_or(0, |w| w.value))
            });
            cluster::forward_weighted(resources, request, weights.collect(), out);
        }
        Some(ClusterSpecifier::ClusterSpecifierPlugin(name)) => {
            out.step("cluster", name, "a plugin chooses it", None);
        }
        Some(ClusterSpecifier::InlineClusterSpecifierPlugin(_)) | None => {
            out.step("cluster", "", "a plugin chooses it", None);
        }
    }
}

fn redirected(redirect: &RedirectAction, route: &Route, request: &Request, host: &str) -> OwnAnswer {
    let status = match RedirectResponseCode::try_from(redirect.response_code) {
        Ok(RedirectResponseCode::Found) => 302,
        Ok(RedirectResponseCode::SeeOther) => 303,
        Ok(RedirectResponseCode::TemporaryRedirect) => 307,
        Ok(RedirectResponseCode::PermanentRedirect) => 308,
        _ => 301,
    };
    let scheme = match &redirect.scheme_rewrite_specifier {
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => "https",
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => scheme,
        _ => request.header(":scheme").unwrap_or("http"),
    };
    let host = if redirect.host_redirect.is_empty() { host } else { &redirect.host_redirect };
    let port = if redirect.port_redirect == 0 { String::new() } else { format!(":{}", redirect.port_redirect) };
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    let path = match &redirect.path_rewrite_specifier {
        Some(PathRewriteSpecifier::PathRedirect(path)) => path.clone(),
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => format!("{prefix}{}", after_prefix(route, path)),
        Some(PathRewriteSpecifier::RegexRewrite(r)) => {
            let (regex, with) = (r.pattern.as_ref().map(|p| p.regex.as_str()).unwrap_or_default(), &r.substitution);
            // Envoy writes groups as \1, the regex crate as ${1}.
            let with = regex::Regex::new(r"\\(\d)").map(|groups| groups.replace_all(with, "$${$1}").into_owned());
            match (regex::Regex::new(regex), with) {
                (Ok(regex), Ok(with)) => regex.replace_all(path, with.as_str()).into_owned(),
                _ => path.to_owned(),
            }
        }
        Some(PathRewriteSpecifier::PathRewrite(_)) | None => path.to_owned(),
    };
    let query = if redirect.strip_query || query.is_empty() { String::new() } else { format!("?{query}") };
    OwnAnswer { status, location: Some(format!("{scheme}://{host}{port}{path}{query}")), body: None }
}

fn after_prefix<'a>(route: &Route, path: &'a str) -> &'a str {
    match route.r#match.as_ref().and_then(|m| m.path_specifier.as_ref()) {
        Some(PathSpecifier::Prefix(p) | PathSpecifier::PathSeparatedPrefix(p)) => {
            path.get(p.len()..).unwrap_or_default()
        }
        Some(PathSpecifier::Path(_)) => "",
        _ => path,
    }
}

fn body(direct: &DirectResponseAction) -> Option<String> {
    match direct.body.as_ref()?.specifier.as_ref()? {
        Specifier::InlineString(text) => Some(text.clone()),
        Specifier::InlineBytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Specifier::Filename(_) | Specifier::EnvironmentVariable(_) => None,
    }
}
