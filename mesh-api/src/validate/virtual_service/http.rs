//! The HTTP rules of a VirtualService.

use super::{Context, destination, gateway_names, service, total_weight, weight};
use crate::networking::{
    Abort, CorsPolicy, Delay, ErrorType, HttpBody, HttpDelayType, HttpDirectResponse, HttpFaultInjection,
    HttpMatchRequest, HttpRedirect, HttpRetry, HttpRewrite, HttpRoute, RedirectPort,
};
use crate::re2;
use crate::types::StringMatch;
use crate::types::{GRPC_STATUSES, RETRY_ON};
use crate::validate::at::{At, Check};
use crate::validate::hosts::is_label;
use crate::validate::labels::labels;
use crate::validate::numbers::{self, duration, fraction, share};
use crate::validate::{headers, net};

pub(super) fn route(at: &At<'_>, route: &HttpRoute, context: Context) {
    actions(at, route, context.delegate);
    at.each("match", &route.r#match, request);
    headers::operations(at, route.headers.as_ref());
    if let Some(policy) = &route.cors_policy {
        cors(&at.field("corsPolicy"), policy);
    }
    if let Some(faults) = &route.fault {
        fault(&at.field("fault"), faults);
    }
    mirrors(at, route);
    if let Some(written) = &route.redirect {
        at.field("redirect").check("InvalidRedirect", redirect(written, &route.r#match));
    }
    if let Some(response) = &route.direct_response {
        direct_response(&at.field("directResponse"), response);
    }
    retries(at, "retries", route.retries.as_ref());
    if let Some(written) = &route.rewrite {
        at.field("rewrite").check("InvalidRewrite", rewrite(written));
    }
    one_authority(at, route);
    at.each("route", &route.route, |at, share| {
        headers::operations(at, share.headers.as_ref());
        destination(&at.field("destination"), &share.destination, context);
        weight(at, share.weight);
    });
    total_weight(at, route.route.iter().map(|share| share.weight));
    duration(at, "timeout", route.timeout);
}

/// A rule does one thing: it routes, redirects, responds or delegates.
fn actions(at: &At<'_>, route: &HttpRoute, in_delegate: bool) {
    let exclude = |a: &str, b: &str| {
        let message = format!("HTTP route cannot contain both {b} and {a}; keep one of them");
        at.field(b).error("ConflictingFields", message);
    };
    let has_route = !route.route.is_empty();
    if route.delegate.is_some() && !in_delegate {
        for (field, there) in [("redirect", route.redirect.is_some()), ("route", has_route)] {
            if there {
                let message = format!(
                    "root HTTP route {} must not specify {field} beside delegate; keep one of them",
                    route.name
                );
                at.field(field).error("ConflictingFields", message);
            }
        }
        return;
    }
    if route.delegate.is_some() {
        at.field("delegate")
            .error("InvalidDelegate", "delegate HTTP route cannot contain delegate; name hosts, or remove it");
    }
    let direct_response = route.direct_response.is_some();
    let action = match (route.redirect.is_some(), direct_response) {
        (true, _) => Some("redirect"),
        (false, true) => Some("directResponse"),
        (false, false) => None,
    };
    let parts = [
        ("route", has_route),
        ("fault", route.fault.is_some()),
        ("rewrite", route.rewrite.is_some()),
        ("directResponse", direct_response),
    ];
    if let Some(action) = action {
        parts.iter().filter(|(part, there)| *there && *part != action).for_each(|(part, _)| exclude(action, part));
    } else if !has_route {
        at.error("MissingRoute", "HTTP route, redirect or direct_response is required; add a destination");
    }
    if route.mirror.is_some() && !route.mirrors.is_empty() {
        exclude("mirrors", "mirror");
    }
}

fn request(at: &At<'_>, found: &HttpMatchRequest) {
    at.entries("headers", &found.headers, |at, name, text| {
        at.check("InvalidHeader", headers::match_name(name));
        text_match(at, text);
    });
    at.entries("withoutHeaders", &found.without_headers, |at, name, text| {
        at.check("InvalidHeader", headers::match_name(name));
        // Not RE2, but Istio's way to ask whether a header is there.
        if !matches!(text, StringMatch::Regex(text) if text == "*") {
            text_match(at, text);
        }
    });
    // Every path begins with nothing; only of a path Envoy takes it for a prefix.
    if let Some(uri @ StringMatch::Regex(_)) = &found.uri {
        text_match(&at.field("uri"), uri);
    }
    for (field, text) in [("scheme", &found.scheme), ("method", &found.method), ("authority", &found.authority)] {
        if let Some(text) = text {
            text_match(&at.field(field), text);
        }
    }
    at.entries("queryParams", &found.query_params, |at, _, text| text_match(at, text));
    if found.port != 0 {
        at.field("port").check("InvalidPort", net::port(found.port));
    }
    labels(at, "sourceLabels", &found.source_labels);
    gateway_names(at, &found.gateways, false);
    if !found.source_namespace.is_empty() && !is_label(&found.source_namespace) {
        let message =
            format!("sourceNamespace match {} is invalid; write the name of a namespace", found.source_namespace);
        at.field("sourceNamespace").error("InvalidMatch", message);
    }
}

fn text_match(at: &At<'_>, text: &StringMatch) {
    match text {
        StringMatch::Prefix(prefix) if prefix.is_empty() => {
            at.field("prefix").error("InvalidMatch", "prefix string match should not be empty; write {} for any value");
        }
        StringMatch::Regex(pattern) => at.field("regex").check("InvalidRegex", regex(pattern)),
        _ => {}
    }
}

fn regex(pattern: &str) -> Check {
    match pattern.len() {
        0 => Err("regex string match should not be empty; write .* for any value".to_owned()),
        1..=re2::MAX_LENGTH => re2::check(pattern).map_err(|why| {
            format!("{pattern:?} is no regular expression: {why}; Istio uses RE2 style regex-based match (https://github.com/google/re2/wiki/Syntax)")
        }),
        _ => Err(format!("regex is too large, max length allowed is {}; split the rule", re2::MAX_LENGTH)),
    }
}

fn cors(at: &At<'_>, policy: &CorsPolicy) {
    const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"];
    at.each("allowOrigins", &policy.allow_origins, |at, origin| match origin {
        StringMatch::Regex(pattern) if !pattern.is_empty() => at.field("regex").check("InvalidRegex", regex(pattern)),
        StringMatch::Exact(text) | StringMatch::Prefix(text) if !text.is_empty() => {}
        _ => at.error(
            "InvalidMatch",
            "an empty text is not a valid match type for CORS allow origins; write exact, prefix or regex",
        ),
    });
    at.each("allowMethods", &policy.allow_methods, |at, method| {
        if !METHODS.contains(&method.as_str()) {
            at.error(
                "InvalidMethod",
                format!("{method:?} is not a supported HTTP method; write one of {}", METHODS.join(", ")),
            );
        }
    });
    for (field, names) in [("allowHeaders", &policy.allow_headers), ("exposeHeaders", &policy.expose_headers)] {
        at.each(field, names, |at, name| at.check("InvalidHeader", headers::cors_name(name)));
    }
    duration(at, "maxAge", policy.max_age);
    if policy.max_age.is_some_and(|age| age.subsec_nanos() > 0) {
        at.field("maxAge").error("InvalidDuration", "max_age duration is accurate only to seconds precision; round it");
    }
}

fn fault(at: &At<'_>, fault: &HttpFaultInjection) {
    if fault.abort.is_none() && fault.delay.is_none() {
        at.error("MissingFault", "HTTP fault injection must have an abort and/or a delay; add one, or remove it");
    }
    if let Some(written) = &fault.abort {
        abort(&at.field("abort"), written);
    }
    if let Some(written) = &fault.delay {
        delay(&at.field("delay"), written);
    }
}

fn abort(at: &At<'_>, abort: &Abort) {
    fraction(at, "percentage", abort.percentage.as_ref());
    match &abort.error_type {
        Some(ErrorType::HttpStatus(status)) => {
            at.field("httpStatus").check("InvalidStatus", numbers::http_status(i64::from(*status)));
        }
        Some(ErrorType::GrpcStatus(status)) if !GRPC_STATUSES.contains(&status.as_str()) => {
            let message = format!("gRPC status {status:?} is not supported; write one of {}", GRPC_STATUSES.join(", "));
            at.field("grpcStatus").error("InvalidStatus", message);
        }
        Some(ErrorType::GrpcStatus(_)) => {}
        Some(ErrorType::Http2Error(_)) => at
            .field("http2Error")
            .error("NotSupported", "HTTP/2 abort fault injection not supported yet; use httpStatus or grpcStatus"),
        None => at.warning("MissingStatus", "abort configured, but error type not set; add httpStatus or grpcStatus"),
    }
}

fn delay(at: &At<'_>, delay: &Delay) {
    fraction(at, "percentage", delay.percentage.as_ref());
    match &delay.http_delay_type {
        Some(HttpDelayType::FixedDelay(wait)) => duration(at, "fixedDelay", Some(*wait)),
        Some(HttpDelayType::ExponentialDelay(wait)) => {
            duration(at, "exponentialDelay", Some(*wait));
            at.field("exponentialDelay").error("NotSupported", "exponentialDelay not supported yet; use fixedDelay");
        }
        None => {}
    }
}

fn mirrors(at: &At<'_>, route: &HttpRoute) {
    if let Some(percent) = route.mirror_percent {
        let at = at.field("mirrorPercent");
        if percent > 100 {
            at.error("InvalidPercentage", format!("mirror_percent must have a max value of 100 (it has {percent})"));
        }
        at.warning("DeprecatedField", "using deprecated setting \"mirrorPercent\", use \"mirrorPercentage\" instead");
    }
    share(at, "mirrorPercentage", route.mirror_percentage.as_ref());
    if let Some(mirror) = &route.mirror {
        service(&at.field("mirror"), mirror);
    }
    at.each("mirrors", &route.mirrors, |at, mirror| {
        service(&at.field("destination"), &mirror.destination);
        share(at, "percentage", mirror.percentage.as_ref());
    });
}

fn redirect(redirect: &HttpRedirect, matches: &[HttpMatchRequest]) -> Check {
    let HttpRedirect { uri, authority, scheme, redirect_code: code, prefix_rewrite, redirect_port } = redirect;
    let not_by_prefix = |found: &HttpMatchRequest| !matches!(found.uri, None | Some(StringMatch::Prefix(_)));
    if !uri.is_empty() && !prefix_rewrite.is_empty() {
        return Err("redirect may only specify one of uri or prefix_rewrite; remove the other".to_owned());
    }
    if !prefix_rewrite.is_empty() && matches.iter().any(not_by_prefix) {
        return Err("redirect prefix_rewrite requires all URI matches to use prefix match type; use uri".to_owned());
    }
    if [uri, prefix_rewrite, authority, scheme].iter().all(|text| text.is_empty()) && redirect_port.is_none() {
        return Err("redirect must specify URI, authority, scheme, or port".to_owned());
    }
    if *code != 0 && !(300..=399).contains(code) {
        return Err(format!("{code} is not a valid redirect code, must be 3xx"));
    }
    if !matches!(scheme.as_str(), "" | "http" | "https") {
        return Err(format!("invalid redirect scheme {scheme:?}, must be \"http\" or \"https\""));
    }
    match redirect_port {
        Some(RedirectPort::Port(port)) if *port != 0 => net::port(*port),
        _ => Ok(()),
    }
}

fn direct_response(at: &At<'_>, response: &HttpDirectResponse) {
    const KIB: usize = 1024;
    let size = match &response.body {
        Some(HttpBody::String(text)) => text.len(),
        Some(HttpBody::Bytes(bytes)) => bytes.0.len(),
        None => 0,
    };
    const LARGE: &str = "large direct_responses may impact control plane performance";
    if size > 1024 * KIB {
        at.field("body").error("TooLarge", format!("{LARGE}, must be less than 1MB; let a service answer"));
    } else if size > 100 * KIB {
        at.field("body").warning("TooLarge", format!("{LARGE}; let a service answer"));
    }
    at.field("status").check("InvalidStatus", numbers::http_status(i64::from(response.status)));
}

/// A policy for retries, of a rule or of the mesh.
pub(in crate::validate) fn retries(at: &At<'_>, field: &str, retries: Option<&HttpRetry>) {
    let Some(retries) = retries else { return };
    let at = at.field(field);
    if retries.attempts < 0 {
        at.field("attempts").error("InvalidAttempts", format!("attempts cannot be negative: {}", retries.attempts));
    }
    let says_more =
        retries.per_try_timeout.is_some() || !retries.retry_on.is_empty() || retries.retry_remote_localities.is_some();
    if retries.attempts == 0 && says_more {
        at.error(
            "ConflictingFields",
            "http retry policy configured when attempts are set to 0 (disabled); set attempts",
        );
    }
    duration(&at, "perTryTimeout", retries.per_try_timeout);
    if !retries.retry_on.is_empty() {
        let known = |policy: &str| RETRY_ON.contains(&policy) || policy.parse().is_ok_and(numbers::is_named_status);
        for policy in retries.retry_on.split(',').filter(|policy| !known(policy)) {
            let message = format!(
                "{policy:?} is not a valid retryOn policy; write status codes or some of {}",
                RETRY_ON.join(", ")
            );
            at.field("retryOn").error("InvalidRetryOn", message);
        }
    }
    duration(&at, "backoff", retries.backoff);
}

fn rewrite(rewrite: &HttpRewrite) -> Check {
    match (&rewrite.uri_regex_rewrite, rewrite.uri.is_empty()) {
        (Some(_), false) => Err("rewrite may only contain one of URI or UriRegexRewrite; remove the other".to_owned()),
        (Some(by_regex), true) if by_regex.r#match.is_empty() || by_regex.rewrite.is_empty() => {
            Err("UriRegexRewrite requires both Rewrite and Match fields to be specified".to_owned())
        }
        (Some(by_regex), true) => regex(&by_regex.r#match).map_err(|why| format!("UriRegexRewrite has errors: {why}")),
        (None, true) if rewrite.authority.is_empty() => {
            Err("rewrite must specify at least one of URI, UriRegexRewrite, or authority".to_owned())
        }
        (None, _) => Ok(()),
    }
}

/// The authority is rewritten at one place.
fn one_authority(at: &At<'_>, route: &HttpRoute) {
    let mut current = route.rewrite.as_ref().map_or("", |rewrite| rewrite.authority.as_str());
    let Some(request) = route.headers.as_ref().and_then(|headers| headers.request.as_ref()) else { return };
    for (_, value) in request.set.iter().chain(&request.add).filter(|(name, _)| headers::is_authority(name)) {
        if !current.is_empty() {
            let message = format!(
                "authority header cannot be set multiple times: have {current:?}, attempting to set {value:?}; keep one of them"
            );
            at.field("headers").error("ConflictingFields", message);
            return;
        }
        current = value;
    }
}
