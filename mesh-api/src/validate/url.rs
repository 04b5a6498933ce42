//! URLs, as strict and as lenient as Go's `net/url`, which is what Istio reads them with. Only what a check needs is kept.

use super::at::Check;

/// What of a URL matters here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Url<'a> {
    /// In lower case; empty if there is none.
    pub(super) scheme: String,
    /// Digits; empty if there is none.
    pub(super) port: &'a str,
}

/// Reads a URL; `in_request` as it stands in an HTTP request: absolute, or an absolute path.
pub(super) fn parse(text: &str, in_request: bool) -> Result<Url<'_>, String> {
    let explain = |what: &str| format!("{text:?} is not a URL: {what}");
    let wrong = |what: &str| Err(explain(what));
    if text.bytes().any(|b| b.is_ascii_control()) {
        return wrong("it holds a control character");
    }
    if in_request && text.is_empty() {
        return wrong("it is empty");
    }
    let (whole, fragment) = if in_request { (text, "") } else { text.split_once('#').unwrap_or((text, "")) };
    let (scheme, rest) = split_scheme(whole).map_err(explain)?;
    let rest = rest.split_once('?').map_or(rest, |(path, _)| path);
    let mut url = Url { scheme: scheme.to_ascii_lowercase(), port: "" };
    if !rest.starts_with('/') {
        return match scheme {
            "" if in_request => wrong("it is neither absolute nor an absolute path"),
            "" if rest.split('/').next().is_some_and(|first| first.contains(':')) => {
                wrong("its first part holds a colon; write https://host:port/path")
            }
            "" => percent_encoding(rest).map(|()| url).map_err(explain),
            // `mailto:someone` and the like.
            _ => Ok(url),
        };
    }
    let has_authority = rest.starts_with("//") && (!scheme.is_empty() || (!in_request && !rest.starts_with("///")));
    let path = match rest.strip_prefix("//") {
        Some(rest) if has_authority => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            url.port = port(authority).map_err(explain)?;
            path
        }
        _ => rest,
    };
    percent_encoding(path).and_then(|()| percent_encoding(fragment)).map(|()| url).map_err(explain)
}

fn split_scheme(text: &str) -> Result<(&str, &str), &'static str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    match text.split_once(':') {
        Some(("", _)) => Err("there is nothing before the colon; write https:// before it"),
        Some((scheme, rest))
            if scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(is_part) =>
        {
            Ok((scheme, rest))
        }
        _ => Ok(("", text)),
    }
}

/// The port of an authority, which is checked.
fn port(authority: &str) -> Result<&str, &'static str> {
    let (user, address) = authority.rsplit_once('@').unwrap_or(("", authority));
    let is_user = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
    if !user.chars().all(is_user) {
        return Err("it has an invalid user name");
    }
    let (host, port) = match address.rfind(']') {
        Some(end) if address.starts_with('[') => address.split_at(end + 1),
        _ if address.starts_with('[') => return Err("a ] is missing in its host"),
        _ => address.split_at(address.rfind(':').unwrap_or(address.len())),
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    if (!port.is_empty() && !port.starts_with(':')) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err("its port is not a number");
    }
    let is_host = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "-_.~!$&'()*+,;=:[]<>\"%".contains(c);
    if !host.chars().all(is_host) {
        return Err("it has an invalid character in its host");
    }
    percent_encoding(host)?;
    Ok(digits)
}

fn percent_encoding(text: &str) -> Result<(), &'static str> {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('%') {
        if after.len() < 2 || !after.bytes().take(2).all(|b| b.is_ascii_hexdigit()) {
            return Err("a % is not followed by two hexadecimal digits; write %25 for a per cent sign");
        }
        rest = after;
    }
    Ok(())
}

/// Where a WebAssembly module is: `oci`, `http`, `https`, `file` or no scheme at all.
pub(super) fn module(text: &str) -> Check {
    if text.is_empty() {
        return Err("url field needs to be set; write such as oci://registry/module:tag".to_owned());
    }
    let scheme = match parse(text, true) {
        Ok(url) => {
            parse(text, false)?;
            url.scheme
        }
        Err(why) => {
            let with_scheme = format!("http://{text}");
            let fits = [true, false].iter().all(|in_request| parse(&with_scheme, *in_request).is_ok());
            if fits { "http".to_owned() } else { return Err(format!("failed to parse url: {why}")) }
        }
    };
    if matches!(scheme.as_str(), "" | "file" | "http" | "https" | "oci") {
        Ok(())
    } else {
        Err(format!("url contains unsupported scheme: {scheme}; write oci, http, https or file"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        for (text, parsed) in [
            ("https://foo.com/cert", Some(("https", ""))),
            ("HTTP://foo.com:8080", Some(("http", "8080"))),
            ("http://[::1]:80/a?b=%zz#c", Some(("http", "80"))),
            ("http://user:pass@host", Some(("http", ""))),
            ("foo.com", Some(("", ""))),
            ("", Some(("", ""))),
            ("mailto:a", Some(("mailto", ""))),
            ("https://foo.com:not-a-number", None),
            ("https://foo com", None),
            ("https://foo.com/%zz", None),
            ("https://foo.com/#%z", None),
            ("http://[::1", None),
            ("://foo", None),
            ("1.2.3.4:80/a", None),
            ("http://a\tb", None),
        ] {
            let expected = parsed.map(|(scheme, port)| Url { scheme: scheme.to_owned(), port });
            assert_eq!(parse(text, false).ok(), expected, "{text}");
        }
    }

    #[test]
    fn modules() {
        for (text, fits) in [
            ("oci://registry/module:tag", true),
            ("https://a/b.wasm", true),
            ("file:///a", true),
            ("test.com/test", true),
            ("registry:5000/a", false),
            ("/a", true),
            ("", false),
            ("ftp://a", false),
            ("notavalid%^&url;", false),
            ("[", false),
        ] {
            assert_eq!(module(text).is_ok(), fits, "{text}: {:?}", module(text));
        }
    }
}
