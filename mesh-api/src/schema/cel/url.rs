//! URLs as Go's `net/url` reads them for an apiserver: the functions `url`, `isURL` and the parts of a URL.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use super::value::{Key, Map};
use super::{Fault, Value};

/// A URL taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Url {
    scheme: String,
    /// With the port, and an IPv6 address in its brackets.
    host: String,
    /// As written.
    path: String,
    query: String,
    opaque: String,
    fragment: String,
}

pub(super) fn call<'a>(function: &str, args: &[Value<'a>]) -> Option<Result<Value<'a>, Fault>> {
    let value = match (function, args) {
        ("url", [Value::String(text)]) => {
            let failed = |why: String| Fault::new(format!("URL parse error during conversion from string: {why}"));
            return Some(Url::parse(text).map(|url| Value::Url(Arc::new(url))).map_err(failed));
        }
        ("isURL", [Value::String(text)]) => Value::Bool(Url::request(text).is_ok()),
        ("getScheme", [Value::Url(url)]) => Value::text(url.scheme.clone()),
        ("getHost", [Value::Url(url)]) => Value::text(url.host.clone()),
        ("getHostname", [Value::Url(url)]) => {
            Value::text(url.host_and_port().0.trim_start_matches('[').trim_end_matches(']').to_owned())
        }
        ("getPort", [Value::Url(url)]) => Value::text(url.host_and_port().1.to_owned()),
        ("getEscapedPath", [Value::Url(url)]) => Value::text(escape_path(&url.path)),
        ("getQuery", [Value::Url(url)]) => url.parameters(),
        _ => return None,
    };
    Some(Ok(value))
}

impl Url {
    /// An absolute URL or an absolute path, as in a request; a fragment is part of what it follows.
    pub(crate) fn request(text: &str) -> Result<Self, String> {
        let failed = |why: &str| format!("parse {text:?}: {why}");
        if text.chars().any(|c| c.is_ascii_control()) {
            return Err(failed("net/url: invalid control character in URL"));
        }
        if text.is_empty() {
            return Err(failed("empty url"));
        }
        if text == "*" {
            return Ok(Self { path: "*".to_owned(), ..Self::default() });
        }
        let (scheme, rest) = scheme(text).map_err(failed)?;
        let mut url = Self { scheme: scheme.to_ascii_lowercase(), ..Self::default() };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        url.query = query.to_owned();
        if !rest.starts_with('/') {
            if scheme.is_empty() {
                return Err(failed("invalid URI for request"));
            }
            url.opaque = rest.to_owned();
            return Ok(url);
        }
        url.path = match rest.strip_prefix("//") {
            Some(rest) if !scheme.is_empty() => {
                let end = rest.find('/').unwrap_or(rest.len());
                let (authority, path) = rest.split_at_checked(end).unwrap_or_default();
                url.host = host(authority).map_err(|why| failed(&why))?;
                path.to_owned()
            }
            _ => rest.to_owned(),
        };
        check_escapes(&url.path).map_err(|why| failed(&why))?;
        Ok(url)
    }

    /// The same, with the fragment apart.
    fn parse(text: &str) -> Result<Self, String> {
        Self::request(text)?;
        let (before, fragment) = text.split_once('#').unwrap_or((text, ""));
        Ok(Self { fragment: fragment.to_owned(), ..Self::request(before)? })
    }

    fn host_and_port(&self) -> (&str, &str) {
        match self.host.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port),
            _ => (&self.host, ""),
        }
    }

    fn parameters<'a>(&self) -> Value<'a> {
        let mut out: BTreeMap<Key, Vec<Value<'a>>> = BTreeMap::new();
        for pair in self.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if let (Some(key), Some(value)) = (unescape(key), unescape(value)) {
                out.entry(Key::String(key)).or_default().push(Value::text(value));
            }
        }
        let lists = out.into_iter().map(|(key, values)| (key, Value::list(values))).collect();
        Value::Map(Map::Made(Arc::new(lists)))
    }
}

/// The scheme and what follows it; empty where there is none.
fn scheme(text: &str) -> Result<(&str, &str), &'static str> {
    for (at, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return Err("missing protocol scheme"),
            ':' => return Ok((text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default())),
            _ => return Ok(("", text)),
        }
    }
    Ok(("", text))
}

/// The host of an authority, if all of the authority is well-formed.
fn host(authority: &str) -> Result<String, String> {
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    let in_user = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
    if let Some(user) = user {
        if !user.chars().all(in_user) {
            return Err("net/url: invalid userinfo".to_owned());
        }
        check_escapes(user)?;
    }
    let port = if host.starts_with('[') {
        let (address, port) = host.rsplit_once(']').ok_or("missing ']' in host")?;
        let address = address.trim_start_matches('[').split("%25").next().unwrap_or_default();
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return Err("invalid host".to_owned());
        }
        port
    } else {
        host.find(':').and_then(|at| host.get(at..)).unwrap_or_default()
    };
    let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()));
    if !is_port {
        return Err(format!("invalid port {port:?} after host"));
    }
    let allowed = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "-_.~!$&'()*+,;=:[]<>\"%".contains(c);
    if let Some(bad) = host.chars().find(|c| !allowed(*c)) {
        return Err(format!("invalid character {:?} in host name", bad.to_string()));
    }
    check_escapes(host)?;
    Ok(host.to_owned())
}

fn check_escapes(text: &str) -> Result<(), String> {
    for (at, _) in text.match_indices('%') {
        let escape: String = text.get(at..).unwrap_or_default().chars().take(3).collect();
        if escape.len() != 3 || !escape.bytes().skip(1).all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("invalid URL escape {escape:?}"));
        }
    }
    Ok(())
}

fn unescape(text: &str) -> Option<String> {
    check_escapes(text).ok()?;
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        out.push(match first {
            b'+' => b' ',
            b'%' => {
                let (digits, after) = after.split_at_checked(2)?;
                rest = after;
                u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?
            }
            other => *other,
        });
    }
    String::from_utf8(out).ok()
}

fn escape_path(path: &str) -> String {
    let mut out = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@%!'()*[]".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
