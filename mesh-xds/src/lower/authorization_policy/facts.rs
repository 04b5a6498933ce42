//! What each field of a source or an operation and each attribute of a condition asks, and how its values are read.

use mesh_api::Name;
use mesh_api::security::{Condition as Written, Operation as WrittenOperation, Source};

use crate::lower::is_header_name;
use crate::model::authorization_policy::{Client, Operation, Pattern};
use crate::net::Cidr;

/// A value that can't be read: the code of the diagnostic, and why.
#[derive(Clone)]
pub(super) struct Unreadable(pub(super) &'static str, pub(super) String);

/// How a value is read.
pub(super) type Read<'o, T> = Box<dyn Fn(&str) -> Result<T, Unreadable> + 'o>;

/// Values and how they are read.
pub(super) struct Field<'o, T> {
    pub(super) name: &'static str,
    pub(super) values: &'o [String],
    pub(super) not_name: &'static str,
    pub(super) not_values: &'o [String],
    pub(super) read: Read<'o, T>,
}

/// A condition, by what it asks about.
pub(super) enum Condition<'o> {
    Client(Field<'o, Client>),
    Operation(Field<'o, Operation>),
}

/// The fields of a source in a policy of a namespace. Each asks what some attribute asks.
pub(super) fn of_source<'o>(source: &'o Source, namespace: &'o Name) -> impl Iterator<Item = Field<'o, Client>> {
    let lists = [
        ("principals", &source.principals, "notPrincipals", &source.not_principals, "source.principal"),
        (
            "requestPrincipals",
            &source.request_principals,
            "notRequestPrincipals",
            &source.not_request_principals,
            "request.auth.principal",
        ),
        (
            "serviceAccounts",
            &source.service_accounts,
            "notServiceAccounts",
            &source.not_service_accounts,
            "source.serviceAccount",
        ),
        ("trustDomains", &source.trust_domains, "notTrustDomains", &source.not_trust_domains, "source.trustDomain"),
        ("namespaces", &source.namespaces, "notNamespaces", &source.not_namespaces, "source.namespace"),
        ("remoteIpBlocks", &source.remote_ip_blocks, "notRemoteIpBlocks", &source.not_remote_ip_blocks, "remote.ip"),
        ("ipBlocks", &source.ip_blocks, "notIpBlocks", &source.not_ip_blocks, "source.ip"),
    ];
    lists.into_iter().filter_map(move |(name, values, not_name, not_values, key)| {
        Some(Field { name, values, not_name, not_values, read: client(key, namespace)? })
    })
}

/// The fields of an operation.
pub(super) fn of_operation(operation: &WrittenOperation) -> impl Iterator<Item = Field<'_, Operation>> {
    let o = operation;
    type ReadPlain = fn(&str) -> Result<Operation, Unreadable>;
    let lists: [(_, _, _, _, ReadPlain); 4] = [
        ("hosts", &o.hosts, "notHosts", &o.not_hosts, |host| Ok(Operation::Host(Pattern::parse(host)))),
        ("methods", &o.methods, "notMethods", &o.not_methods, |method| Ok(Operation::Method(Pattern::parse(method)))),
        ("paths", &o.paths, "notPaths", &o.not_paths, path),
        ("ports", &o.ports, "notPorts", &o.not_ports, port),
    ];
    lists.into_iter().map(|(name, values, not_name, not_values, read)| Field {
        name,
        values,
        not_name,
        not_values,
        read: Box::new(read),
    })
}

/// What a condition in a policy of a namespace asks; `None`: there is no such attribute.
pub(super) fn of_condition<'o>(when: &'o Written, namespace: &'o Name) -> Option<Condition<'o>> {
    fn field<'o, T>(when: &'o Written, read: Read<'o, T>) -> Field<'o, T> {
        Field { name: "values", values: &when.values, not_name: "notValues", not_values: &when.not_values, read }
    }
    let asks_client = client(&when.key, namespace).map(|read| Condition::Client(field(when, read)));
    asks_client.or_else(|| Some(Condition::Operation(field(when, operation(&when.key)?))))
}

fn client<'o>(key: &'o str, namespace: &'o Name) -> Option<Read<'o, Client>> {
    Some(match key {
        "source.ip" => Box::new(|value| cidr(value).map(Client::Address)),
        "remote.ip" => Box::new(|value| cidr(value).map(Client::RemoteAddress)),
        "source.namespace" => Box::new(|value| Ok(Client::Namespace(value.into()))),
        "source.trustDomain" => Box::new(|value| Ok(Client::TrustDomain(value.into()))),
        "source.principal" => Box::new(|value| Ok(Client::Principal(value.into()))),
        "source.serviceAccount" => Box::new(|value| {
            let (namespace, name) = value.split_once('/').unwrap_or((namespace, value));
            Ok(Client::ServiceAccount { namespace: namespace.into(), name: name.into() })
        }),
        "request.auth.principal" => Box::new(|value| Ok(request_principal(value))),
        "request.auth.audiences" => claim(Ok(vec!["aud".into()])),
        "request.auth.presenter" => claim(Ok(vec!["azp".into()])),
        _ => {
            if let Some(brackets) = key.strip_prefix("request.headers") {
                let name = header(brackets);
                Box::new(move |value| Ok(Client::Header { name: name.clone()?, value: Pattern::parse(value) }))
            } else {
                claim(claim_path(key.strip_prefix("request.auth.claims")?))
            }
        }
    })
}

fn operation(key: &str) -> Option<Read<'_, Operation>> {
    Some(match key {
        "destination.ip" => Box::new(|value| cidr(value).map(Operation::Address)),
        "destination.port" => Box::new(port),
        "connection.sni" => Box::new(|value| Ok(Operation::ServerName(Pattern::parse(value)))),
        _ => {
            let of_filter = key.strip_prefix("experimental.").filter(|rest| rest.starts_with("envoy.filters."))?;
            let named =
                of_filter.strip_suffix(']').unwrap_or(of_filter).split_once('[').filter(|(_, key)| !key.is_empty());
            Box::new(move |value| {
                let Some((filter, key)) = named else {
                    let why =
                        format!("experimental.{of_filter} is not of the form experimental.envoy.filters.NAME[KEY]");
                    return Err(Unreadable("InvalidKey", why));
                };
                let in_list = value.len() > 1 && value.starts_with('[') && value.ends_with(']');
                let value = if in_list { value.trim_matches(['[', ']']) } else { value };
                Ok(Operation::Metadata {
                    filter: filter.into(),
                    key: key.into(),
                    in_list,
                    value: Pattern::parse(value),
                })
            })
        }
    })
}

fn cidr(text: &str) -> Result<Cidr, Unreadable> {
    let why = || Unreadable("InvalidAddress", format!("{text:?} is neither an address nor a range such as 10.0.0.0/8"));
    Cidr::parse(text).ok_or_else(why)
}

fn port(text: &str) -> Result<Operation, Unreadable> {
    let number = text.parse().ok().filter(|_| !text.starts_with('+'));
    number.map(Operation::Port).ok_or_else(|| Unreadable("InvalidPort", format!("{text:?} is no port")))
}

/// A pattern, or a template with `{*}` and `{**}`. Envoy would refuse a listener with a template that it can't read.
fn path(text: &str) -> Result<Operation, Unreadable> {
    const ONE: &str = "{*}";
    const ANY: &str = "{**}";
    if !text.contains(ONE) && !text.contains(ANY) {
        return Ok(Operation::Path(Pattern::parse(text)));
    }
    let is_literal =
        |segment: &str| segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&b));
    let segments = text.strip_prefix('/').map(|rest| rest.split('/').collect::<Vec<_>>()).unwrap_or_default();
    let mut after_any = segments.iter().skip_while(|segment| **segment != ANY).skip(1);
    let fits = segments.iter().all(|segment| matches!(*segment, ONE | ANY) || is_literal(segment));
    if segments.is_empty() || !fits || after_any.any(|segment| matches!(*segment, ONE | ANY)) {
        let why = format!(
            "{text:?} is no template such as /a/{{*}}/{{**}}: segments are {{*}}, plain text, or once, at last, {{**}}"
        );
        return Err(Unreadable("InvalidPath", why));
    }
    Ok(Operation::PathTemplate(text.replace(ANY, "**").replace(ONE, "*").into()))
}

/// `issuer/subject`, with `*`. An issuer may well be a URL: the subject is behind the last slash.
fn request_principal(text: &str) -> Client {
    let (issuer, subject) = match text.rsplit_once('/') {
        _ if text == "*" => (Pattern::Any, Pattern::Any),
        Some((issuer, subject)) if text.starts_with('*') => (Pattern::parse(issuer), Pattern::Exact(subject.into())),
        Some((issuer, subject)) => {
            let subject = if text.ends_with('*') { Pattern::parse(subject) } else { Pattern::Exact(subject.into()) };
            (Pattern::Exact(issuer.into()), subject)
        }
        None => match Pattern::parse(text) {
            subject @ Pattern::Suffix(_) => (Pattern::Any, subject),
            issuer @ Pattern::Prefix(_) => (issuer, Pattern::Any),
            issuer => (issuer, Pattern::Exact(Name::default())),
        },
    };
    Client::RequestPrincipal { issuer, subject }
}

fn claim<'o>(path: Result<Vec<Name>, Unreadable>) -> Read<'o, Client> {
    Box::new(move |value| Ok(Client::Claim { path: path.clone()?, value: Pattern::parse(value) }))
}

/// `[name]` of a header.
fn header(brackets: &str) -> Result<Name, Unreadable> {
    let name = brackets.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    name.filter(|name| is_header_name(name)).map(Name::from).ok_or_else(|| {
        Unreadable("InvalidKey", format!("request.headers{brackets} is not of the form request.headers[NAME]"))
    })
}

/// `[a][b]`, the claim `b` in the object `a`; whatever else is in brackets is one name.
fn claim_path(brackets: &str) -> Result<Vec<Name>, Unreadable> {
    let inner = brackets.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or_default();
    let parts: Vec<&str> = inner.split("][").collect();
    let nested = parts.iter().all(|part| !part.is_empty() && !part.contains(['[', ']']));
    match (inner, nested) {
        ("", _) => {
            let why = format!("request.auth.claims{brackets} is not of the form request.auth.claims[NAME]");
            Err(Unreadable("InvalidKey", why))
        }
        (_, true) => Ok(parts.into_iter().map(Name::from).collect()),
        (whole, false) => Ok(vec![whole.into()]),
    }
}
