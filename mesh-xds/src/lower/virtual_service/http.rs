//! HTTP rules: their matches and what becomes of the requests.

use std::collections::BTreeMap;

use mesh_api::Name;
use mesh_api::networking::{
    HttpBody, HttpDirectResponse, HttpMatchRequest, HttpRedirect, HttpRoute, RedirectPort as WrittenPort,
    RedirectPortSelection,
};
use mesh_api::types::StringMatch;

use super::Lower;
use crate::build::route::{MAX_DIRECT_RESPONSE_BODY, is_claim};
use crate::model::InNamespace;
use crate::model::virtual_service::{
    Body, DirectResponse, HttpAction, HttpDestination, HttpMatch, HttpRule, Redirect, RedirectPath, RedirectPort,
    RulePath, TextMatch,
};

impl Lower<'_> {
    pub(super) fn http_rule(&mut self, index: usize, rule: &HttpRoute) -> Option<HttpRule> {
        self.usable = true;
        let path = format!("spec.http[{index}]");
        let out = HttpRule {
            path: RulePath::new(index),
            name: rule.name.as_str().into(),
            matches: rule.r#match.iter().enumerate().map(|(i, m)| self.http_match(i, m, &path)).collect(),
            action: self.action(rule, &path),
            headers: self.headers(rule.headers.as_ref(), &format!("{path}.headers")),
            rewrite: rule.rewrite.as_ref().and_then(|r| self.rewrite(r, &format!("{path}.rewrite"))),
            timeout: rule.timeout.map(|t| self.time(t, &format!("{path}.timeout"))),
            retries: rule.retries.as_ref().map(|r| self.retries(r, &format!("{path}.retries"))),
            fault: rule.fault.as_ref().and_then(|f| self.fault(f, &format!("{path}.fault"))),
            mirrors: self.mirrors(rule, &path),
            cors: rule.cors_policy.as_ref().map(|c| self.cors(c, &format!("{path}.corsPolicy"))),
        };
        self.usable.then_some(out)
    }

    /// One of them counts: a delegate, else a redirect, else a direct response, else destinations.
    fn action(&mut self, rule: &HttpRoute, path: &str) -> HttpAction {
        let said = [
            ("delegate", rule.delegate.is_some()),
            ("redirect", rule.redirect.is_some()),
            ("directResponse", rule.direct_response.is_some()),
            ("route", !rule.route.is_empty()),
        ];
        let mut said = said.into_iter().filter_map(|(field, is)| is.then_some(field));
        let counts = said.next().unwrap_or_default();
        for other in said {
            let message = format!("{counts} and {other} exclude each other; {counts} counts");
            self.told.error("ConflictingFields", format!("{path}.{other}"), message);
        }
        if matches!(counts, "redirect" | "directResponse") && rule.rewrite.is_some() {
            let message = "nothing is sent on, so nothing is rewritten";
            self.told.warning("ConflictingFields", format!("{path}.rewrite"), message);
        }
        if let Some(delegate) = &rule.delegate {
            if delegate.name.is_empty() {
                self.wrong("InvalidDelegate", format!("{path}.delegate.name"), "a delegate needs a name");
            }
            let namespace = Name::from(delegate.namespace.as_str());
            let namespace = if namespace.is_empty() { self.namespace.clone() } else { namespace };
            HttpAction::Delegate(InNamespace { namespace, name: delegate.name.as_str().into() })
        } else if let Some(redirect) = &rule.redirect {
            HttpAction::Redirect(self.redirect(redirect, &rule.r#match, &format!("{path}.redirect")))
        } else if let Some(response) = &rule.direct_response {
            HttpAction::Respond(self.direct_response(response, &format!("{path}.directResponse")))
        } else {
            HttpAction::Route(self.http_destinations(rule, path))
        }
    }

    fn http_destinations(&mut self, rule: &HttpRoute, path: &str) -> Vec<HttpDestination> {
        if rule.route.is_empty() {
            self.wrong("NoDestination", path, "the rule says neither route nor redirect, directResponse or delegate");
        }
        self.weights(&rule.route.iter().map(|d| d.weight).collect::<Vec<_>>(), path);
        let mut out = Vec::with_capacity(rule.route.len());
        for (i, d) in rule.route.iter().enumerate() {
            let path = format!("{path}.route[{i}]");
            out.push(HttpDestination {
                destination: self.destination(&d.destination, &format!("{path}.destination")),
                weight: u32::try_from(d.weight).unwrap_or_default(),
                headers: self.headers(d.headers.as_ref(), &format!("{path}.headers")),
            });
        }
        out
    }

    fn http_match(&mut self, index: usize, m: &HttpMatchRequest, rule: &str) -> HttpMatch {
        let path = format!("{rule}.match[{index}]");
        let mut text = |field: &str, written: &Option<StringMatch>| {
            written.as_ref().map(|w| self.text_match(w, &format!("{path}.{field}")))
        };
        let uri = text("uri", &m.uri).filter(|uri| *uri != TextMatch::Present);
        let scheme = text("scheme", &m.scheme);
        let method = text("method", &m.method);
        let authority = text("authority", &m.authority);
        HttpMatch {
            index,
            name: m.name.as_str().into(),
            uri,
            ignore_uri_case: m.ignore_uri_case,
            scheme,
            method,
            authority,
            headers: self.named_matches(&m.headers, &format!("{path}.headers"), true),
            without_headers: self.named_matches(&m.without_headers, &format!("{path}.withoutHeaders"), true),
            query_params: self.named_matches(&m.query_params, &format!("{path}.queryParams"), false),
            port: self.match_port(m.port, &path),
            source: self.source(&m.source_labels, &m.source_namespace, &m.gateways),
            stat_prefix: m.stat_prefix.as_str().into(),
        }
    }

    fn named_matches(
        &mut self,
        written: &BTreeMap<String, StringMatch>,
        path: &str,
        headers: bool,
    ) -> Vec<(Name, TextMatch)> {
        let mut out = Vec::with_capacity(written.len());
        for (name, text) in written {
            let path = format!("{path}[{name:?}]");
            if name.is_empty() || (headers && !is_claim(name) && !is_header_name(name)) {
                self.wrong("InvalidHeader", &path, format!("{name:?} is no name to match"));
            }
            out.push((Name::from(name.as_str()), self.text_match(text, &path)));
        }
        out
    }

    fn redirect(&mut self, written: &HttpRedirect, matches: &[HttpMatchRequest], path: &str) -> Redirect {
        let code = match written.redirect_code {
            0 => 301,
            code @ (301 | 302 | 303 | 307 | 308) => code as u16,
            code => {
                let message = format!("{code} is no redirection that Envoy knows: 301, 302, 303, 307 or 308");
                self.wrong("InvalidStatus", format!("{path}.redirectCode"), message);
                301
            }
        };
        if !matches!(written.scheme.as_str(), "" | "http" | "https") {
            let message = format!("{:?} is neither http nor https", written.scheme);
            self.wrong("InvalidScheme", format!("{path}.scheme"), message);
        }
        let port = match &written.redirect_port {
            None | Some(WrittenPort::Port(0)) => RedirectPort::Unset,
            Some(WrittenPort::DerivePort(RedirectPortSelection::FromProtocolDefault)) => RedirectPort::FromProtocol,
            Some(WrittenPort::DerivePort(RedirectPortSelection::FromRequestPort)) => RedirectPort::FromRequest,
            Some(WrittenPort::Port(port)) => {
                self.port(*port, &format!("{path}.port")).map_or(RedirectPort::Unset, RedirectPort::Number)
            }
        };
        Redirect {
            path: self.redirect_path(written, matches, path),
            authority: self.plain(&written.authority, &format!("{path}.authority")),
            scheme: written.scheme.as_str().into(),
            port,
            code,
        }
    }

    fn redirect_path(
        &mut self,
        written: &HttpRedirect,
        matches: &[HttpMatchRequest],
        path: &str,
    ) -> Option<RedirectPath> {
        if written.prefix_rewrite.is_empty() {
            let uri = self.plain(&written.uri, &format!("{path}.uri"));
            return (!uri.is_empty()).then_some(RedirectPath::Full(uri));
        }
        if !written.uri.is_empty() {
            let message = "uri and prefixRewrite exclude each other; prefixRewrite counts";
            self.told.error("ConflictingFields", format!("{path}.uri"), message);
        }
        if matches.iter().any(|m| matches!(m.uri, Some(StringMatch::Exact(_) | StringMatch::Regex(_)))) {
            let message = "where a match is not by prefix, the whole path is replaced";
            self.told.warning("ConflictingFields", format!("{path}.prefixRewrite"), message);
        }
        Some(RedirectPath::Prefix(self.plain(&written.prefix_rewrite, &format!("{path}.prefixRewrite"))))
    }

    fn direct_response(&mut self, written: &HttpDirectResponse, path: &str) -> DirectResponse {
        let body = written.body.as_ref().map(|body| match body {
            HttpBody::String(text) => Body::Text(text.as_str().into()),
            HttpBody::Bytes(bytes) => Body::Bytes(bytes.0.clone()),
        });
        let size = match &body {
            Some(Body::Text(text)) => text.len(),
            Some(Body::Bytes(bytes)) => bytes.len(),
            None => 0,
        };
        if size > MAX_DIRECT_RESPONSE_BODY as usize {
            let message = format!("the body has {size} bytes, at most {MAX_DIRECT_RESPONSE_BODY} are possible");
            self.wrong("BodyTooLarge", format!("{path}.body"), message);
        }
        DirectResponse { status: self.status(written.status.into(), &format!("{path}.status")), body }
    }

    /// A status that Envoy can answer with.
    pub(super) fn status(&mut self, status: i64, path: &str) -> u16 {
        match u16::try_from(status) {
            Ok(status @ 200..=599) => status,
            _ => {
                self.wrong("InvalidStatus", path, format!("{status} is not within 200..599"));
                200
            }
        }
    }

    /// A text that goes into a header.
    pub(super) fn plain(&mut self, text: &str, path: &str) -> Name {
        if text.contains(['\0', '\r', '\n']) {
            self.wrong("InvalidText", path, "line breaks and null characters can't be sent");
        }
        text.into()
    }
}

/// What HTTP takes for a header's name; pseudo headers may be matched too.
pub(super) fn is_header_name(name: &str) -> bool {
    let rest = name.strip_prefix(':').unwrap_or(name);
    !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}
