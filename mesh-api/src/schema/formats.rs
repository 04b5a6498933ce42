//! Formats of text: those that a schema may name, and those of Kubernetes' own names.

use std::net::IpAddr;
use std::sync::LazyLock;

use regex::Regex;

use super::cel::url::Url;
use crate::types::Duration;

/// Formats that an expression describes, by the name that a schema has for them, without dashes.
static EXPRESSIONS: LazyLock<Vec<(&str, Option<Regex>)>> = LazyLock::new(|| {
    [
        ("uuid", r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$"),
        ("uuid3", r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$"),
        ("uuid4", r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"),
        ("uuid5", r"(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"),
        ("byte", r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})$"),
        ("mac", r"(?i)^([0-9a-f]{2}[:-]){5}[0-9a-f]{2}$|^([0-9a-f]{4}\.){2}[0-9a-f]{4}$"),
        ("hexcolor", r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"),
        ("ssn", r"^\d{3}[- ]?\d{2}[- ]?\d{4}$"),
        ("email", r#"^[^\s@<>()\[\],;:"]+@[^\s@<>()\[\],;:"]+$"#),
        ("hostname", r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}([a-zA-Z\p{L}]){2,63})$"),
        ("datetime", r"(?i)^[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$"),
    ]
    .into_iter()
    .map(|(name, expression)| (name, Regex::new(expression).ok()))
    .collect()
});

fn matches(format: &str, text: &str) -> Option<bool> {
    let (_, expression) = EXPRESSIONS.iter().find(|(name, _)| *name == format)?;
    expression.as_ref().map(|expression| expression.is_match(text))
}

/// Whether a text has the format that a schema names; none where an apiserver doesn't know the format either, or we don't
/// (`creditcard`, `isbn*`, `rgbcolor`).
pub(super) fn fits(format: &str, text: &str) -> Option<bool> {
    let format = format.replace('-', "");
    Some(match format.as_str() {
        "ipv4" => matches!(text.parse(), Ok(IpAddr::V4(_))),
        "ipv6" => matches!(text.parse(), Ok(IpAddr::V6(_))),
        "cidr" => text.split_once('/').is_some_and(|(address, bits)| {
            let width = address.parse().map(|address: IpAddr| if address.is_ipv4() { 32 } else { 128 });
            width.is_ok_and(|width| bits.parse::<u8>().is_ok_and(|bits| bits <= width))
        }),
        "date" => is_date(text),
        "datetime" => matches(&format, text)? && text.get(..10).is_some_and(is_date),
        "duration" => text.parse::<Duration>().is_ok(),
        "hostname" => matches(&format, text)? && text.len() <= 255 && text.split('.').all(|label| label.len() <= 63),
        "uri" => Url::request(text).is_ok(),
        "password" => true,
        "k8sshortname" => complaint("dns1123Label", text).is_none(),
        "k8slongname" => complaint("dns1123Subdomain", text).is_none(),
        other => return matches(other, text),
    })
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

/// The bytes that a text in base64 stands for.
pub(super) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    serde_json::from_value::<k8s_openapi::ByteString>(text.into()).ok().map(|bytes| bytes.0)
}

/// What is wrong with a text as a name of some sort, in Kubernetes' words; none where nothing is.
pub(super) fn complaint(format: &str, text: &str) -> Option<String> {
    let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let alphanumeric = |c: char| c.is_ascii_alphanumeric();
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    // A prefix may end with a dash: something will follow it.
    let (format, prefix) = format.strip_suffix("Prefix").map_or((format, false), |format| (format, true));
    let text = if prefix {
        text.strip_suffix('-').map_or(text.to_owned(), |text| format!("{text}a"))
    } else {
        text.to_owned()
    };
    let text = text.as_str();
    let label =
        |label: &str| label.starts_with(lower) && label.ends_with(lower) && label.chars().all(|c| lower(c) || c == '-');
    let too_long = |limit: usize| (text.len() > limit).then(|| format!("must be no more than {limit} bytes"));
    match format {
        "dns1123Label" => too_long(63).or_else(|| refuse(label(text), LABEL)),
        "dns1123Subdomain" => too_long(253).or_else(|| refuse(text.split('.').all(label), SUBDOMAIN)),
        "dns1035Label" => too_long(63)
            .or_else(|| refuse(label(text) && text.starts_with(|c: char| c.is_ascii_lowercase()), LABEL_1035)),
        "labelValue" => {
            let ends = text.is_empty() || (text.starts_with(alphanumeric) && text.ends_with(alphanumeric));
            too_long(63).or_else(|| refuse(ends && text.chars().all(inner), LABEL_VALUE))
        }
        "qualifiedName" => {
            let (prefix, name) = text.rsplit_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
            if let Some(prefix) = prefix
                && let Some(complaint) = complaint("dns1123Subdomain", prefix)
            {
                return Some(format!("prefix part {complaint}"));
            }
            let fits = name.starts_with(alphanumeric) && name.ends_with(alphanumeric) && name.chars().all(inner);
            if name.len() > 63 {
                Some("name part must be no more than 63 bytes".to_owned())
            } else {
                refuse(fits, QUALIFIED)
            }
        }
        "uri" => Url::request(text).err(),
        "uuid" => refuse(fits(format, text)?, "does not match the UUID format"),
        "byte" => refuse(fits(format, text)?, "invalid base64"),
        "date" => refuse(fits(format, text)?, "invalid date"),
        "datetime" => refuse(fits(format, text)?, "invalid datetime"),
        _ => None,
    }
}

fn refuse(fits: bool, complaint: &str) -> Option<String> {
    (!fits).then(|| complaint.to_owned())
}

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
