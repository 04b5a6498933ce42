//! Names and values of HTTP headers. Which names are allowed depends on what is done with the header.

use super::at::{At, Check};
use crate::networking::Headers;

/// A name in a match: a header, one of HTTP/2's pseudo headers, or a claim of a token.
pub(super) fn match_name(name: &str) -> Check {
    const PSEUDO: [&str; 5] = [":method", ":scheme", ":authority", ":path", ":status"];
    if is_routing_claim(name) || PSEUDO.contains(&name) { Ok(()) } else { token(name) }
}

/// True for `@request.auth.claims.name` and `@request.auth.claims[name]`, which gateways can match.
pub(super) fn is_routing_claim(name: &str) -> bool {
    const CLAIMS: &str = "@request.auth.claims";
    let rest = match name.split_at_checked(CLAIMS.len()) {
        Some((start, rest)) if start.eq_ignore_ascii_case(CLAIMS) => rest,
        _ => return false,
    };
    (rest.starts_with('.') && rest.len() > 1) || (rest.starts_with('[') && rest.ends_with(']') && rest.len() > 2)
}

/// A name that browsers are told, or `*` for all.
pub(super) fn cors_name(name: &str) -> Check {
    if name == "*" { Ok(()) } else { token(name) }
}

/// A name of letters, digits and `-`; also `_` if `underscores`.
pub(super) fn plain_name(name: &str, underscores: bool) -> Check {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || (underscores && b == b'_');
    of_characters(name, plain)
}

fn token(name: &str) -> Check {
    of_characters(name, |b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn of_characters(name: &str, fits: impl Fn(u8) -> bool) -> Check {
    match name {
        "" => Err("header name cannot be empty".to_owned()),
        name if name.bytes().all(fits) => Ok(()),
        name => Err(format!("header name {name:?} is not a valid header name; write one such as x-user")),
    }
}

/// True for the two names of the authority.
pub(super) fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host")
}

/// The changes that a route makes.
pub(super) fn operations(at: &At<'_>, headers: Option<&Headers>) {
    let Some(headers) = headers else { return };
    let at = at.field("headers");
    for (field, operations, written) in [
        ("request", &headers.request, request_name as fn(&str) -> Check),
        ("response", &headers.response, other_name as fn(&str) -> Check),
    ] {
        let Some(operations) = operations else { continue };
        let at = at.field(field);
        for (field, values) in [("add", &operations.add), ("set", &operations.set)] {
            at.entries(field, values, |at, name, text| {
                at.check("InvalidHeader", written(name));
                at.check("InvalidHeader", value(text));
            });
        }
        at.each("remove", &operations.remove, |at, name| at.check("InvalidHeader", other_name(name)));
    }
}

/// A header that is written to a request: of the pseudo headers, only the authority.
fn request_name(name: &str) -> Check {
    if name.is_empty() || (name.starts_with(':') && !is_authority(name)) { other_name(name) } else { Ok(()) }
}

/// A header that is removed, or written to a response: neither a pseudo header nor the host.
fn other_name(name: &str) -> Check {
    if name.is_empty() {
        Err("header name cannot be empty".to_owned())
    } else if name.eq_ignore_ascii_case("host") {
        Err(format!("invalid header {name:?}: cannot set Host header here; use rewrite.authority"))
    } else if name.starts_with(':') {
        Err(format!("invalid header {name:?}: header cannot have \":\" prefix; pseudo headers are not changed here"))
    } else {
        Ok(())
    }
}

/// What Envoy takes for a value: text with operators such as `%HOSTNAME%` and `%REQ(x-user)%`, and `%%` for `%`.
fn value(text: &str) -> Check {
    let wrong = |what: &str| Err(format!("header value {text:?} is invalid: {what}"));
    if text.bytes().any(|b| (b < 0x20 && b != b'\t') || b == 0x7f) {
        return wrong("it holds a control character");
    }
    let mut rest = text.bytes();
    while rest.any(|b| b == b'%') {
        match rest.clone().next() {
            None => return wrong("un-escaped %; write %% for a per cent sign"),
            Some(b'%') => {
                rest.next();
            }
            Some(_) => {
                if let Err(what) = operator(&mut rest) {
                    return wrong(what);
                }
            }
        }
    }
    Ok(())
}

/// Skips an operator up to its closing `%`, the opening one already read: `NAME%`, `NAME(…)%`.
fn operator(rest: &mut impl Iterator<Item = u8>) -> Result<(), &'static str> {
    const OPEN: &str = "un-terminated variable expression; write %NAME%, and %% for a per cent sign";
    match rest.find(|b| matches!(b, b'%' | b'(')).ok_or(OPEN)? {
        b'%' => return Ok(()),
        _ => arguments(rest).ok_or(OPEN)??,
    }
    match rest.find(|b| *b != b' ').ok_or(OPEN)? {
        b'%' => Ok(()),
        _ => Err("a variable expression goes on after its arguments; close it with %"),
    }
}

/// Skips arguments up to the closing parenthesis: either plain text, or `["a", "b"]`. `None` where the text ends before.
fn arguments(rest: &mut impl Iterator<Item = u8>) -> Option<Result<(), &'static str>> {
    let mut is_list = rest.find(|b| *b != b' ')? == b'[';
    loop {
        if is_list && rest.find(|b| *b != b' ')? != b'"' {
            return Some(Err("expected \" in the list of arguments"));
        }
        // As in Envoy, text may run into a list: the first quote ends it.
        loop {
            match rest.next()? {
                b'\\' => {
                    rest.next()?;
                }
                b')' => return Some(Ok(())),
                b'"' => break,
                _ => {}
            }
        }
        match rest.find(|b| *b != b' ')? {
            b',' => is_list = true,
            b']' => break,
            _ => return Some(Err("expected , or ] in the list of arguments")),
        }
    }
    match rest.find(|b| *b != b' ')? {
        b')' => Some(Ok(())),
        _ => Some(Err("expected ) after the list of arguments")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_by_use() {
        for (name, matched, cors, strict, request, other) in [
            ("header1", true, true, true, true, true),
            ("X-Requested-With", true, true, true, true, true),
            ("x.y", true, true, false, true, true),
            ("a_b", true, true, true, true, true),
            ("*", true, true, false, true, true),
            ("", false, false, false, false, false),
            (":path", true, false, false, false, false),
            (":authority", true, false, false, true, false),
            ("Host", true, true, true, true, false),
            ("a b", false, false, false, true, true),
            ("@request.auth.claims.a", true, false, false, true, true),
            ("@Request.Auth.Claims[a][b]", true, false, false, true, true),
            ("@request.auth.claims", false, false, false, true, true),
            ("@request.auth.claims[]", false, false, false, true, true),
        ] {
            let found =
                [match_name(name), cors_name(name), plain_name(name, true), request_name(name), other_name(name)]
                    .map(|result| result.is_ok());
            assert_eq!(found, [matched, cors, strict, request, other], "{name}");
        }
        assert!(plain_name("a_b", false).is_err());
    }

    #[test]
    fn values() {
        for (text, fits) in [
            ("", true),
            ("foo", true),
            ("a\tb", true),
            ("%HOSTNAME%", true),
            ("100%%", true),
            ("prefix %HOSTNAME% suffix", true),
            ("%%%HOSTNAME%%%", true),
            ("%DOWNSTREAM_PEER_CERT_V_END(%b %d %H:%M:%S %Y %Z)%", true),
            ("%START_TIME(%s.%3f)%", true),
            (r#"%UPSTREAM_METADATA(["ns", "key"])%"#, true),
            (r#"%PER_REQUEST_STATE("a\"b")%"#, false),
            (r#"%UPSTREAM_METADATA([ "ns" , "key" ] ) %"#, true),
            ("abc%123", false),
            ("%START_TIME%%", false),
            ("%", false),
            ("%A(b%", false),
            ("%A(b)c%", false),
            (r#"%A(["b" c])%"#, false),
            (r#"%A(["b"] c)%"#, false),
            ("%A([b])%", false),
            ("a\nb", false),
            ("a\u{7f}", false),
        ] {
            assert_eq!(value(text).is_ok(), fits, "{text:?}: {:?}", value(text));
        }
    }
}
