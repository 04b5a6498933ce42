//! What an HTTP rule does to requests on their way: headers, rewrites, retries, faults, mirrors, the cross-origin policy.

use std::time;

use mesh_api::Name;
use mesh_api::networking::{
    Abort as WrittenAbort, CorsPolicy, Delay, ErrorType, HeaderOperations, Headers, HttpDelayType, HttpFaultInjection,
    HttpRetry, HttpRewrite, HttpRoute, Percent, UnmatchedPreflights,
};
use mesh_api::types::{Duration, GRPC_STATUSES, RETRY_ON, StringMatch};

use super::Lower;
use super::http::is_header_name;
use crate::model::virtual_service::{
    Abort, Cors, Fault, HeaderOps, Mirror, PerMillion, Retries, Rewrite, TextMatch, UriRewrite,
};

impl Lower<'_> {
    /// A time that may be nothing.
    pub(super) fn time(&mut self, written: Duration, path: &str) -> time::Duration {
        if written.is_negative() {
            self.wrong("InvalidDuration", path, format!("{written} is negative"));
        }
        written.to_std()
    }

    /// A time that must be something: Envoy counts in milliseconds.
    fn positive_time(&mut self, written: Duration, path: &str) -> time::Duration {
        if written < Duration::from_millis(1) {
            self.wrong("InvalidDuration", path, format!("{written} is less than a millisecond"));
        }
        written.to_std()
    }

    fn share(&mut self, percent: f64, path: String) -> PerMillion {
        PerMillion::from_percent(percent).unwrap_or_else(|| {
            self.wrong("InvalidPercentage", path, format!("{percent} is not within 0..100"));
            PerMillion::default()
        })
    }

    pub(super) fn headers(&mut self, written: Option<&Headers>, path: &str) -> HeaderOps {
        let mut out = HeaderOps::default();
        let Some(headers) = written else { return out };
        if let Some(request) = &headers.request {
            let path = format!("{path}.request");
            // The later one wins, and what is set counts more than what is added.
            out.request_add = self.header_values(request, "add", &path, Some(&mut out.authority));
            out.request_set = self.header_values(request, "set", &path, Some(&mut out.authority));
            out.request_remove = self.header_names(request, &path);
        }
        if let Some(response) = &headers.response {
            let path = format!("{path}.response");
            out.response_add = self.header_values(response, "add", &path, None);
            out.response_set = self.header_values(response, "set", &path, None);
            out.response_remove = self.header_names(response, &path);
        }
        out
    }

    fn header_values(
        &mut self,
        operations: &HeaderOperations,
        operation: &str,
        path: &str,
        mut authority: Option<&mut Option<Name>>,
    ) -> Vec<(Name, Name)> {
        let written = if operation == "add" { &operations.add } else { &operations.set };
        let mut out = Vec::with_capacity(written.len());
        for (name, value) in written {
            let path = format!("{path}.{operation}[{name:?}]");
            let value = self.plain(value, &path);
            let is_authority = name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host");
            if let Some(authority) = authority.as_deref_mut().filter(|_| is_authority) {
                *authority = (!value.is_empty()).then_some(value);
                continue;
            }
            if !self.changeable(name, &path) {
                continue;
            }
            if let Err(why) = format_commands(&value) {
                self.wrong("InvalidHeader", &path, why);
            }
            out.push((Name::from(name.as_str()), value));
        }
        out
    }

    fn header_names(&mut self, operations: &HeaderOperations, path: &str) -> Vec<Name> {
        let mut out = Vec::with_capacity(operations.remove.len());
        for (i, name) in operations.remove.iter().enumerate() {
            if self.changeable(name, &format!("{path}.remove[{i}]")) {
                out.push(Name::from(name.as_str()));
            }
        }
        out
    }

    /// Envoy refuses to change pseudo headers and `Host`; such a change alone is left out, as in Istio.
    fn changeable(&mut self, name: &str, path: &str) -> bool {
        if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
            let message = format!("the header {name} can't be changed here; it is left alone");
            self.told.warning("UnsupportedField", path, message);
            return false;
        }
        if !is_header_name(name) {
            self.wrong("InvalidHeader", path, format!("{name:?} is no header name"));
        }
        true
    }

    pub(super) fn rewrite(&mut self, written: &HttpRewrite, path: &str) -> Option<Rewrite> {
        let uri = match &written.uri_regex_rewrite {
            Some(regex) => {
                let path = format!("{path}.uriRegexRewrite");
                if !written.uri.is_empty() {
                    let message = "uri and uriRegexRewrite exclude each other; uriRegexRewrite counts";
                    self.told.error("ConflictingFields", &path, message);
                }
                self.regex(&regex.r#match, &format!("{path}.match"));
                Some(UriRewrite::Regex {
                    pattern: regex.r#match.as_str().into(),
                    substitution: self.plain(&regex.rewrite, &format!("{path}.rewrite")),
                })
            }
            None if written.uri.is_empty() => None,
            None => Some(UriRewrite::Prefix(self.plain(&written.uri, &format!("{path}.uri")))),
        };
        let authority = self.plain(&written.authority, &format!("{path}.authority"));
        let authority = (!authority.is_empty()).then_some(authority);
        (uri.is_some() || authority.is_some()).then_some(Rewrite { uri, authority })
    }

    pub(super) fn retries(&mut self, written: &HttpRetry, path: &str) -> Retries {
        let attempts = u32::try_from(written.attempts).unwrap_or_else(|_| {
            self.wrong("InvalidAttempts", format!("{path}.attempts"), format!("{} is negative", written.attempts));
            0
        });
        if attempts == 0 && (written.per_try_timeout.is_some() || !written.retry_on.is_empty()) {
            let message = "attempts is 0, which switches retries off; all else here has no effect";
            self.told.warning("RetriesOff", path, message);
        }
        let (retry_on, status_codes) = self.retry_on(&written.retry_on, &format!("{path}.retryOn"));
        Retries {
            attempts,
            per_try_timeout: written.per_try_timeout.map(|t| self.time(t, &format!("{path}.perTryTimeout"))),
            retry_on,
            status_codes,
            ignore_previous_hosts: written.retry_ignore_previous_hosts,
            remote_localities: written.retry_remote_localities.unwrap_or(false),
            backoff: written.backoff.map(|t| self.positive_time(t, &format!("{path}.backoff"))),
        }
    }

    /// Conditions and status codes share one field.
    fn retry_on(&mut self, written: &str, path: &str) -> (Option<Name>, Vec<u32>) {
        if written.is_empty() {
            return (None, Vec::new());
        }
        let mut conditions: Vec<&str> = Vec::new();
        let mut codes = Vec::new();
        for part in written.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.parse::<u32>() {
                Ok(code @ 100..=599) => codes.push(code),
                _ => {
                    if !RETRY_ON.contains(&part) {
                        self.told.warning("UnknownRetryCondition", path, format!("Envoy knows no condition {part:?}"));
                    }
                    conditions.push(part);
                }
            }
        }
        (Some(Name::from(conditions.join(","))), codes)
    }

    pub(super) fn fault(&mut self, written: &HttpFaultInjection, path: &str) -> Option<Fault> {
        let delay = written.delay.as_ref().and_then(|delay| self.delay(delay, &format!("{path}.delay")));
        let abort = written.abort.as_ref().and_then(|abort| self.abort(abort, &format!("{path}.abort")));
        (delay.is_some() || abort.is_some()).then_some(Fault { delay, abort })
    }

    fn delay(&mut self, written: &Delay, path: &str) -> Option<(time::Duration, PerMillion)> {
        let share = match &written.percentage {
            Some(percent) => self.share(percent.value, format!("{path}.percentage")),
            None => self.share(written.percent.into(), format!("{path}.percent")),
        };
        self.tell_of_nothing(share, path);
        match &written.http_delay_type {
            Some(HttpDelayType::FixedDelay(time)) => {
                Some((self.positive_time(*time, &format!("{path}.fixedDelay")), share))
            }
            Some(HttpDelayType::ExponentialDelay(_)) => {
                self.told.unsupported(format!("{path}.exponentialDelay"), "delays are fixed, in Istio too");
                None
            }
            None => {
                self.told.warning("NoEffect", path, "a delay needs fixedDelay; without, nothing is delayed");
                None
            }
        }
    }

    fn abort(&mut self, written: &WrittenAbort, path: &str) -> Option<(Abort, PerMillion)> {
        let percent = written.percentage.as_ref().map_or(0.0, |p: &Percent| p.value);
        let share = self.share(percent, format!("{path}.percentage"));
        self.tell_of_nothing(share, path);
        let error = match &written.error_type {
            Some(ErrorType::HttpStatus(status)) => {
                Abort::Http(self.status(i64::from(*status), &format!("{path}.httpStatus")))
            }
            Some(ErrorType::GrpcStatus(name)) => {
                let code = GRPC_STATUSES.iter().position(|known| known == name).unwrap_or_else(|| {
                    let message = format!("{name:?} is no gRPC status such as NOT_FOUND");
                    self.wrong("InvalidStatus", format!("{path}.grpcStatus"), message);
                    0
                });
                Abort::Grpc(code as u32)
            }
            Some(ErrorType::Http2Error(_)) => {
                self.told
                    .unsupported(format!("{path}.http2Error"), "HTTP/2 errors can't be injected, in Istio neither");
                return None;
            }
            None => {
                let message = "an abort needs httpStatus or grpcStatus; without, nothing is aborted";
                self.told.warning("NoEffect", path, message);
                return None;
            }
        };
        Some((error, share))
    }

    fn tell_of_nothing(&mut self, share: PerMillion, path: &str) {
        if self.usable && share == PerMillion::default() {
            self.told.warning("NoEffect", path, "without a percentage above 0 no request is touched");
        }
    }

    /// `mirror` with its two percentages, then `mirrors`.
    pub(super) fn mirrors(&mut self, rule: &HttpRoute, path: &str) -> Vec<Mirror> {
        let mut out = Vec::new();
        if let Some(mirror) = &rule.mirror {
            let share = match (&rule.mirror_percentage, rule.mirror_percent) {
                (Some(percent), _) => self.share(percent.value, format!("{path}.mirrorPercentage")),
                (None, Some(percent)) => self.share(percent.into(), format!("{path}.mirrorPercent")),
                (None, None) => PerMillion::ALL,
            };
            out.push(Mirror { destination: self.destination(mirror, &format!("{path}.mirror")), share });
        }
        for (i, mirror) in rule.mirrors.iter().enumerate() {
            let path = format!("{path}.mirrors[{i}]");
            let share = match &mirror.percentage {
                Some(percent) => self.share(percent.value, format!("{path}.percentage")),
                None => PerMillion::ALL,
            };
            let destination = self.destination(&mirror.destination, &format!("{path}.destination"));
            out.push(Mirror { destination, share });
        }
        out.retain(|mirror| mirror.share > PerMillion::default());
        out
    }

    pub(super) fn cors(&mut self, written: &CorsPolicy, path: &str) -> Cors {
        let names = |list: &[String]| list.iter().map(|n| Name::from(n.as_str())).collect();
        let mut allow_origins = Vec::new();
        for (i, origin) in written.allow_origins.iter().enumerate() {
            let path = format!("{path}.allowOrigins[{i}]");
            match (origin, self.text_match(origin, &path)) {
                (StringMatch::Regex(_), TextMatch::Present) => self.regex("*", &path),
                (_, TextMatch::Present) => {
                    self.told.warning("NoEffect", &path, "an origin needs exact, prefix or regex");
                }
                (_, found) => allow_origins.push(found),
            }
        }
        if written.allow_origins.is_empty() {
            allow_origins.extend(written.allow_origin.iter().map(|o| TextMatch::Exact(Name::from(o.as_str()))));
        } else if !written.allow_origin.is_empty() {
            let message = "allowOrigins counts; allowOrigin has no effect beside it";
            self.told.warning("ConflictingFields", format!("{path}.allowOrigin"), message);
        }
        Cors {
            allow_origins,
            allow_methods: names(&written.allow_methods),
            allow_headers: names(&written.allow_headers),
            expose_headers: names(&written.expose_headers),
            max_age: written.max_age.map(|t| self.time(t, &format!("{path}.maxAge")).as_secs()),
            allow_credentials: written.allow_credentials,
            forward_unmatched_preflights: written.unmatched_preflights != UnmatchedPreflights::Ignore,
        }
    }
}

/// Envoy fills `%COMMAND(arguments):length%` into header values and refuses what it can't read as such.
fn format_commands(value: &str) -> Result<(), String> {
    let mut rest = value;
    while let Some((_, after)) = rest.split_once('%') {
        if let Some(literal) = after.strip_prefix('%') {
            rest = literal;
            continue;
        }
        let name_end = after.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
        let (name, tail) = after.split_at_checked(name_end.unwrap_or(after.len())).unwrap_or((after, ""));
        let tail = match tail.strip_prefix('(') {
            Some(arguments) => arguments.split_once(')').map(|(_, tail)| tail).unwrap_or_default(),
            None => tail,
        };
        let tail = match tail.strip_prefix(':') {
            Some(length) => length.trim_start_matches(|c: char| c.is_ascii_digit()),
            None => tail,
        };
        match tail.strip_prefix('%') {
            Some(tail) if !name.is_empty() => rest = tail,
            _ => return Err(format!("{value:?} is no format that Envoy reads: write %% for %")),
        }
    }
    Ok(())
}
