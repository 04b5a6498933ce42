//! What becomes of a request: forwarded to one or several clusters, redirected, or answered by the proxy itself.

use std::time;

use envoy_types::pb::envoy::config::core::v3::{DataSource, RuntimeFractionalPercent, data_source};
use envoy_types::pb::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use envoy_types::pb::envoy::config::route::v3::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier, RequestMirrorPolicy,
};
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::{ClusterWeight, cluster_weight};
use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction, RedirectAction, Route, RouteAction, WeightedCluster, route_match::PathSpecifier,
};
use envoy_types::pb::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use envoy_types::pb::google::protobuf::{BoolValue, Duration, UInt32Value};

use super::filters::fraction;
use super::matches::re2;
use super::{RouteContext, headers, retry};
use crate::model::virtual_service::{
    Body, DirectResponse, HttpDestination, HttpRule, Mirror, Redirect, RedirectPath, RedirectPort, Semantics,
    UriRewrite,
};

/// A time as protobuf writes it.
pub(super) fn duration(time: time::Duration) -> Duration {
    Duration { seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), nanos: time.subsec_nanos().cast_signed() }
}

/// Not said means no timeout, for gRPC's own deadline too.
pub(super) fn set_timeout(action: &mut RouteAction, timeout: Option<time::Duration>) {
    let timeout = Some(timeout.map(duration).unwrap_or_default());
    action.timeout = timeout;
    // The field that took its place ends streams that live longer than the timeout.
    #[allow(deprecated)]
    {
        action.max_grpc_timeout = timeout;
    }
}

/// True when what becomes of a request depends on the path that the rule matched.
pub(super) fn depends_on_path(rule: &HttpRule, semantics: Semantics) -> bool {
    let uri = rule.rewrite.as_ref().and_then(|rewrite| rewrite.uri.as_ref());
    semantics == Semantics::Gateway && matches!(uri, Some(UriRewrite::Prefix(to)) if to == "/")
}

/// Forwarding. Header changes of a single destination go to the route itself.
pub(super) fn forward(
    semantics: Semantics,
    rule: &HttpRule,
    destinations: &[HttpDestination],
    path: Option<&PathSpecifier>,
    route: &mut Route,
    ctx: &RouteContext<'_>,
) -> RouteAction {
    let mut action = RouteAction::default();
    set_timeout(&mut action, rule.timeout);
    if semantics == Semantics::Gateway {
        action.cluster_not_found_response_code = ClusterNotFoundResponseCode::InternalServerError.into();
    }
    let mut authority = rule.headers.authority.clone();
    if let Some(rewrite) = &rule.rewrite {
        action.append_x_forwarded_host = ctx.append_x_forwarded_host;
        if let Some(uri) = &rewrite.uri {
            rewrite_uri(uri, semantics, path, &mut action);
        }
        authority = rewrite.authority.clone().or(authority);
    }
    action.host_rewrite_specifier = authority.map(|a| HostRewriteSpecifier::HostRewriteLiteral(a.to_string()));
    action.request_mirror_policies = rule.mirrors.iter().map(|mirror| mirror_policy(mirror, ctx)).collect();

    let mut consistent_hash = false;
    if let [only] = destinations {
        action.cluster_specifier = Some(ClusterSpecifier::Cluster(ctx.cluster(&only.destination)));
        headers::apply(&only.headers, route);
        if let (None, Some(authority)) = (&action.host_rewrite_specifier, &only.headers.authority) {
            action.host_rewrite_specifier = Some(HostRewriteSpecifier::HostRewriteLiteral(authority.to_string()));
        }
        action.hash_policy = ctx.hash_policy(&only.destination).into_iter().collect();
        consistent_hash = !action.hash_policy.is_empty();
    } else {
        let weighted = destinations.iter().filter(|d| d.weight > 0);
        action.hash_policy = weighted.clone().filter_map(|d| ctx.hash_policy(&d.destination)).collect();
        let clusters = weighted.map(|d| weighted_cluster(d, ctx)).collect();
        action.cluster_specifier =
            Some(ClusterSpecifier::WeightedClusters(WeightedCluster { clusters, ..WeightedCluster::default() }));
    }
    action.retry_policy = retry::outbound(rule.retries.as_ref().or(ctx.default_retries), consistent_hash);
    action
}

fn rewrite_uri(uri: &UriRewrite, semantics: Semantics, path: Option<&PathSpecifier>, action: &mut RouteAction) {
    match uri {
        UriRewrite::Regex { pattern, substitution } => {
            action.regex_rewrite = Some(substitute(pattern, substitution));
        }
        // Cutting a prefix off must leave a slash when nothing else is left.
        UriRewrite::Prefix(to) if semantics == Semantics::Gateway && to == "/" => {
            let prefix = match path {
                Some(PathSpecifier::PathSeparatedPrefix(prefix)) => regex::escape(prefix),
                _ => String::new(),
            };
            action.regex_rewrite = Some(substitute(&format!("^{prefix}(/?)(.*)"), r"/\2"));
        }
        UriRewrite::Prefix(to) => action.prefix_rewrite = to.to_string(),
    }
}

fn substitute(pattern: &str, substitution: &str) -> RegexMatchAndSubstitute {
    RegexMatchAndSubstitute { pattern: Some(re2(pattern)), substitution: substitution.to_owned() }
}

fn weighted_cluster(d: &HttpDestination, ctx: &RouteContext<'_>) -> ClusterWeight {
    let authority = d.headers.authority.as_ref();
    let mut out = ClusterWeight {
        name: ctx.cluster(&d.destination),
        weight: Some(UInt32Value { value: d.weight }),
        host_rewrite_specifier: authority
            .map(|a| cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(a.to_string())),
        ..ClusterWeight::default()
    };
    headers::apply_to_cluster(&d.headers, &mut out);
    out
}

fn mirror_policy(mirror: &Mirror, ctx: &RouteContext<'_>) -> RequestMirrorPolicy {
    RequestMirrorPolicy {
        cluster: ctx.cluster(&mirror.destination),
        runtime_fraction: Some(RuntimeFractionalPercent {
            default_value: Some(fraction(mirror.share)),
            ..RuntimeFractionalPercent::default()
        }),
        trace_sampled: Some(BoolValue { value: false }),
        ..RequestMirrorPolicy::default()
    }
}

/// A redirect. Envoy can't ask for the port of the request, but the port that is listened on is known here.
pub(super) fn redirect(redirect: &Redirect, ctx: &RouteContext<'_>) -> RedirectAction {
    let port = match redirect.port {
        RedirectPort::Unset | RedirectPort::FromProtocol => 0,
        RedirectPort::FromRequest => ctx.port,
        RedirectPort::Number(port) => port,
    };
    let scheme = match redirect.scheme.as_str() {
        "" if ctx.tls => "https",
        "" => "http",
        said => said,
    };
    let implied = matches!((port, scheme), (80, "http") | (443, "https"));
    let code = match redirect.code {
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => RedirectResponseCode::MovedPermanently,
    };
    RedirectAction {
        host_redirect: redirect.authority.to_string(),
        port_redirect: if implied { 0 } else { port.into() },
        response_code: code.into(),
        scheme_rewrite_specifier: (!redirect.scheme.is_empty())
            .then(|| SchemeRewriteSpecifier::SchemeRedirect(redirect.scheme.to_string())),
        path_rewrite_specifier: redirect.path.as_ref().map(|path| match path {
            RedirectPath::Full(path) => PathRewriteSpecifier::PathRedirect(path.to_string()),
            RedirectPath::Prefix(prefix) => PathRewriteSpecifier::PrefixRewrite(prefix.to_string()),
        }),
        ..RedirectAction::default()
    }
}

pub(super) fn direct_response(response: &DirectResponse) -> DirectResponseAction {
    let body = response.body.as_ref().map(|body| match body {
        Body::Text(text) => data_source::Specifier::InlineString(text.to_string()),
        Body::Bytes(bytes) => data_source::Specifier::InlineBytes(bytes.clone()),
    });
    DirectResponseAction {
        status: response.status.into(),
        body: body.map(|specifier| DataSource { specifier: Some(specifier), ..DataSource::default() }),
        ..DirectResponseAction::default()
    }
}
