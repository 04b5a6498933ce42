//! Who may do what: the rules of an AuthorizationPolicy, every value in them understood.
//!
//! A rule holds for a request when one of its `from` and one of its `to` do; each of these is a conjunction of clauses.
//! Conditions (`when`) are clauses like all others: what they ask of the client is part of each `from`, what they ask of the
//! operation part of each `to`.

use mesh_api::{Name, ObjectRef};

use super::attachment::Attachment;
use crate::net::Cidr;

/// An AuthorizationPolicy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AuthorizationPolicy {
    /// The object.
    pub source: ObjectRef,
    /// The workloads that are meant.
    pub attachment: Attachment,
    /// What becomes of the requests that it means.
    pub action: Action,
    /// Nothing becomes of them: only what would have is told.
    pub dry_run: bool,
    /// The requests that are meant: those of any rule.
    pub rules: Vec<Rule>,
}

/// What becomes of requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// They pass, and what no such policy lets pass doesn't.
    Allow,
    /// They are refused.
    Deny,
    /// They are marked for the log.
    Audit,
    /// The extension provider of this name decides.
    Custom(Name),
}

/// Some requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Its place in the object.
    pub index: usize,
    /// Any of these; none: no request is meant.
    pub from: Vec<Vec<Clause<Client>>>,
    /// Any of these; none: no request is meant.
    pub to: Vec<Vec<Clause<Operation>>>,
}

/// A condition on one attribute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Clause<T> {
    /// One of these holds; none: no matter.
    pub one_of: Vec<T>,
    /// None of these holds.
    pub none_of: Vec<T>,
}

/// Something that holds for a client or not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Client {
    /// Its identity by mutual TLS is `trust-domain/ns/namespace/sa/account`, with `*`.
    Principal(Name),
    /// Its namespace by mutual TLS, with `*`.
    Namespace(Name),
    /// Its service account by mutual TLS.
    ServiceAccount {
        /// The account's namespace.
        namespace: Name,
        /// The account.
        name: Name,
    },
    /// Its trust domain by mutual TLS, with `*`.
    TrustDomain(Name),
    /// Its address, as the connection shows it.
    Address(Cidr),
    /// Its address, as trusted proxies tell.
    RemoteAddress(Cidr),
    /// Its identity by token.
    RequestPrincipal {
        /// The claim `iss`.
        issuer: Pattern,
        /// The claim `sub`.
        subject: Pattern,
    },
    /// A claim of its token: one of its values, if it is a list.
    Claim {
        /// The way to the claim.
        path: Vec<Name>,
        /// What it is.
        value: Pattern,
    },
    /// A header of the request.
    Header {
        /// The header.
        name: Name,
        /// What it is.
        value: Pattern,
    },
}

/// Something that holds for an operation or not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    /// The host, whatever its case.
    Host(Pattern),
    /// The method.
    Method(Pattern),
    /// The path, without the query.
    Path(Pattern),
    /// The path by a template: `*` is one segment, `**` is any number of them.
    PathTemplate(Name),
    /// The workload's port.
    Port(u16),
    /// The workload's address.
    Address(Cidr),
    /// The server name of TLS.
    ServerName(Pattern),
    /// Metadata that an Envoy filter has left.
    Metadata {
        /// The filter.
        filter: Name,
        /// The key.
        key: Name,
        /// One of a list of values is meant.
        in_list: bool,
        /// What it is.
        value: Pattern,
    },
}

/// Something that can only be known of HTTP requests, or of any connection.
pub trait Fact {
    /// True when it can only be known of an HTTP request.
    fn is_of_http(&self) -> bool;
}

impl Fact for Client {
    fn is_of_http(&self) -> bool {
        matches!(self, Self::RequestPrincipal { .. } | Self::Claim { .. } | Self::Header { .. })
    }
}

impl Fact for Operation {
    fn is_of_http(&self) -> bool {
        matches!(self, Self::Host(_) | Self::Method(_) | Self::Path(_) | Self::PathTemplate(_))
    }
}

/// A text with `*` at its beginning, at its end or in place of all of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Pattern {
    /// Anything but nothing.
    Any,
    /// This.
    Exact(Name),
    /// What begins so.
    Prefix(Name),
    /// What ends so.
    Suffix(Name),
}

impl Pattern {
    /// Reads a value with `*`.
    pub fn parse(text: &str) -> Self {
        if text == "*" {
            Self::Any
        } else if let Some(end) = text.strip_prefix('*') {
            Self::Suffix(end.into())
        } else if let Some(begin) = text.strip_suffix('*') {
            Self::Prefix(begin.into())
        } else {
            Self::Exact(text.into())
        }
    }
}

impl AuthorizationPolicy {
    /// What the rule is called in filters, statistics and logs.
    pub fn rule_name(&self, rule: &Rule) -> String {
        format!("ns[{}]-policy[{}]-rule[{}]", self.source.namespace, self.source.name, rule.index)
    }
}
