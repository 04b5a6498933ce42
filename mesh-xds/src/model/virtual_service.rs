//! A VirtualService as meant: hosts, destinations and gateways by their full names, durations and percentages as numbers,
//! every rule able to say where in which object it was written.
//!
//! Rows of this kind are what routes are built from, for sidecars and gateways alike. They must never hold a rule that an
//! Envoy would refuse: lowering has set those aside and said so.

pub mod delegate;

use std::fmt;
use std::time::Duration;

use mesh_api::{Hostname, Name};

use super::Labels;
use super::keys::InNamespace;
use super::visibility::Visibility;

/// The gateway name that stands for all sidecars.
pub const MESH_GATEWAY: &str = "mesh";

/// A VirtualService. One without hosts is a delegate: others refer to its `http` rules.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VirtualService {
    /// The namespace of the object.
    pub namespace: Name,
    /// The name of the object.
    pub name: Name,
    /// `metadata.creationTimestamp`, seconds since the epoch; 0 when the object doesn't say.
    pub created: i64,
    /// Fully qualified, in the order written.
    pub hosts: Vec<Hostname>,
    /// `namespace/name`, or [`MESH_GATEWAY`]. Never empty: not said means the mesh.
    pub gateways: Vec<Name>,
    /// Who may see it.
    pub export_to: Visibility,
    /// Which API it speaks for.
    pub semantics: Semantics,
    /// HTTP rules in the order in which they are tried.
    pub http: Vec<HttpRule>,
    /// Rules for TLS that passes through.
    pub tls: Vec<TlsRule>,
    /// Rules for other connections.
    pub tcp: Vec<TcpRule>,
}

impl VirtualService {
    /// The key of its row.
    pub fn key(&self) -> InNamespace {
        InNamespace::new(self.namespace.clone(), self.name.clone())
    }
    /// True for a VirtualService that only others refer to.
    pub fn is_delegate(&self) -> bool {
        self.hosts.is_empty()
    }
    /// True when some of its rules are those of other VirtualServices.
    pub fn has_delegates(&self) -> bool {
        self.http.iter().any(|rule| matches!(rule.action, HttpAction::Delegate(_)))
    }
    /// True when one of the gateways is the given one.
    pub fn is_on(&self, gateway: &str) -> bool {
        self.gateways.iter().any(|g| g == gateway)
    }
    /// Istio's order of objects: by age, then namespace, then name.
    pub fn order(&self) -> (i64, &Name, &Name) {
        (self.created, &self.namespace, &self.name)
    }
}

/// Which API a VirtualService speaks for; some matches and failures mean different things.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Semantics {
    /// Written by a user.
    #[default]
    Istio,
    /// Made from a Kubernetes Ingress: path prefixes end at a slash.
    Ingress,
    /// Made from a Gateway API route: path prefixes end at a slash, and missing backends answer 500.
    Gateway,
}

/// Where a rule was written. Its text is the field path: `spec.http[0]`, for a delegate's rule
/// `spec.http[0] > other/delegate spec.http[2]`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct RulePath {
    /// The index in the root's list.
    pub index: usize,
    /// For a rule that came from a delegate: the delegate and the index there.
    pub delegate: Option<(InNamespace, usize)>,
}

impl RulePath {
    /// The rule at that place of the object's own list.
    pub fn new(index: usize) -> Self {
        Self { index, delegate: None }
    }
    /// The field path in the list `http`, `tls` or `tcp`, down to a match when one is given.
    pub fn text(&self, list: &str, matched: Option<usize>) -> String {
        use fmt::Write;
        let mut out = format!("spec.{list}[{}]", self.index);
        if let Some((delegate, index)) = &self.delegate {
            let _ = write!(out, " > {}/{} spec.{list}[{index}]", delegate.namespace, delegate.name);
        }
        if let Some(index) = matched {
            let _ = write!(out, ".match[{index}]");
        }
        out
    }
}

/// One element of `http`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HttpRule {
    /// Where it was written.
    pub path: RulePath,
    /// The user's name for it, possibly empty.
    pub name: Name,
    /// Alternatives; none matches everything.
    pub matches: Vec<HttpMatch>,
    /// What becomes of a request.
    pub action: HttpAction,
    /// Header changes for all destinations.
    pub headers: HeaderOps,
    /// Changes to path and authority on the way to a destination.
    pub rewrite: Option<Rewrite>,
    /// `None` when not said: no timeout.
    pub timeout: Option<Duration>,
    /// `None` when not said: the mesh's default.
    pub retries: Option<Retries>,
    /// Injected faults.
    pub fault: Option<Fault>,
    /// Copies of requests.
    pub mirrors: Vec<Mirror>,
    /// Cross-origin policy.
    pub cors: Option<Cors>,
}

impl HttpRule {
    /// Where its requests and copies of them go.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        let to = match &self.action {
            HttpAction::Route(to) => to.as_slice(),
            HttpAction::Redirect(_) | HttpAction::Respond(_) | HttpAction::Delegate(_) => &[],
        };
        to.iter().map(|d| &d.destination).chain(self.mirrors.iter().map(|m| &m.destination))
    }
}

/// What becomes of a request that a rule matches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HttpAction {
    /// Sent to one of these by weight. With one destination its weight doesn't matter; of several, some have one above 0.
    Route(Vec<HttpDestination>),
    /// Told to go elsewhere.
    Redirect(Redirect),
    /// Answered at once.
    Respond(DirectResponse),
    /// The `http` rules of another VirtualService decide; merged away by [`delegate::merge`].
    Delegate(InNamespace),
}

impl Default for HttpAction {
    fn default() -> Self {
        Self::Route(Vec::new())
    }
}

/// One alternative of `match`: all that it says must hold.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HttpMatch {
    /// The index in the rule's list as written.
    pub index: usize,
    /// The user's name for it, possibly empty.
    pub name: Name,
    /// The path.
    pub uri: Option<TextMatch>,
    /// True when `uri` matches in any letter case.
    pub ignore_uri_case: bool,
    /// `:scheme`.
    pub scheme: Option<TextMatch>,
    /// `:method`.
    pub method: Option<TextMatch>,
    /// `:authority`.
    pub authority: Option<TextMatch>,
    /// Headers that must match, by name.
    pub headers: Vec<(Name, TextMatch)>,
    /// Headers that must not match, by name.
    pub without_headers: Vec<(Name, TextMatch)>,
    /// Query parameters that must match, by name.
    pub query_params: Vec<(Name, TextMatch)>,
    /// The port that was called; `None` for any.
    pub port: Option<u16>,
    /// Which proxies.
    pub source: Source,
    /// Prefix of the statistics of this route, possibly empty.
    pub stat_prefix: Name,
}

/// Which proxies a match is for; decided while building, never by Envoy.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Source {
    /// Labels that the proxy must have.
    pub labels: Labels,
    /// The namespace of the proxy; empty for any.
    pub namespace: Name,
    /// `namespace/name` or [`MESH_GATEWAY`]; empty for those of the VirtualService.
    pub gateways: Vec<Name>,
}

impl Source {
    /// True when namespace or labels of the proxy matter. As in Istio, named gateways count instead of them.
    pub fn is_about_workloads(&self) -> bool {
        self.gateways.is_empty() && !(self.labels.is_empty() && self.namespace.is_empty())
    }
}

/// How a text is matched.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum TextMatch {
    /// The whole text.
    Exact(Name),
    /// The beginning.
    Prefix(Name),
    /// RE2, the whole text.
    Regex(Name),
    /// Any text, as long as it is there.
    Present,
}

/// Where a request or connection goes.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Destination {
    /// Fully qualified; empty for a Gateway API backend that doesn't exist.
    pub host: Hostname,
    /// The subset, empty for all endpoints.
    pub subset: Name,
    /// The service port, `None` when not said.
    pub port: Option<u16>,
}

/// A weighted destination of an HTTP rule.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HttpDestination {
    /// Where to.
    pub destination: Destination,
    /// Its share.
    pub weight: u32,
    /// Header changes for this destination alone.
    pub headers: HeaderOps,
}

/// A weighted destination of a TCP or TLS rule.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct L4Destination {
    /// Where to.
    pub destination: Destination,
    /// Its share.
    pub weight: u32,
}

/// Changes to headers. Names and values are such that Envoy takes them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HeaderOps {
    /// To the request: overwrite.
    pub request_set: Vec<(Name, Name)>,
    /// To the request: append.
    pub request_add: Vec<(Name, Name)>,
    /// From the request.
    pub request_remove: Vec<Name>,
    /// To the response: overwrite.
    pub response_set: Vec<(Name, Name)>,
    /// To the response: append.
    pub response_add: Vec<(Name, Name)>,
    /// From the response.
    pub response_remove: Vec<Name>,
    /// The new authority, when `host` or `:authority` is among the request's; `set` wins over `add`.
    pub authority: Option<Name>,
}

impl HeaderOps {
    /// True when nothing is changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Changes to path and authority.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rewrite {
    /// The path.
    pub uri: Option<UriRewrite>,
    /// The new authority.
    pub authority: Option<Name>,
}

/// How a path is rewritten.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum UriRewrite {
    /// The matched prefix, or the whole path for other matches, becomes this.
    Prefix(Name),
    /// What the RE2 pattern matches becomes the substitution, with `\1` for groups.
    Regex {
        /// RE2.
        pattern: Name,
        /// Text with group references.
        substitution: Name,
    },
}

/// An answer that sends the client elsewhere.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Redirect {
    /// The new path.
    pub path: Option<RedirectPath>,
    /// The new authority, possibly empty.
    pub authority: Name,
    /// The new scheme, possibly empty.
    pub scheme: Name,
    /// The new port.
    pub port: RedirectPort,
    /// 301, 302, 303, 307 or 308.
    pub code: u16,
}

/// The path that a client is redirected to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RedirectPath {
    /// Replaces the path.
    Full(Name),
    /// Replaces the matched prefix.
    Prefix(Name),
}

/// The port that a client is redirected to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RedirectPort {
    /// Not said: that of the scheme.
    #[default]
    Unset,
    /// `FROM_PROTOCOL_DEFAULT`.
    FromProtocol,
    /// `FROM_REQUEST_PORT`.
    FromRequest,
    /// A number.
    Number(u16),
}

/// An answer given by the proxy itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirectResponse {
    /// 200-599.
    pub status: u16,
    /// At most 1 MiB.
    pub body: Option<Body>,
}

/// The body of a direct response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Body {
    /// Text.
    Text(Name),
    /// Anything.
    Bytes(Vec<u8>),
}

/// Retries of a request.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Retries {
    /// 0 switches them off.
    pub attempts: u32,
    /// `None` when not said.
    pub per_try_timeout: Option<Duration>,
    /// Envoy's conditions, separated by commas; `None` when not said.
    pub retry_on: Option<Name>,
    /// Status codes that are retried.
    pub status_codes: Vec<u32>,
    /// Whether hosts tried before are left out; `None` when not said.
    pub ignore_previous_hosts: Option<bool>,
    /// Whether other localities are tried.
    pub remote_localities: bool,
    /// Base interval between tries; `None` when not said.
    pub backoff: Option<Duration>,
}

/// Parts per million of requests.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct PerMillion(pub u32);

impl PerMillion {
    /// All requests.
    pub const ALL: PerMillion = PerMillion(1_000_000);
    /// From a percentage of 0 to 100; `None` outside of that.
    pub fn from_percent(percent: f64) -> Option<Self> {
        (0.0..=100.0).contains(&percent).then(|| Self((percent * 10_000.0).round() as u32))
    }
}

/// Faults to inject.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Fault {
    /// Wait before the request goes on.
    pub delay: Option<(Duration, PerMillion)>,
    /// Answer instead of the destination.
    pub abort: Option<(Abort, PerMillion)>,
}

/// The answer of an injected abort.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Abort {
    /// 200-599.
    Http(u16),
    /// A gRPC status code.
    Grpc(u32),
}

/// A copy of requests whose answers nobody sees.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mirror {
    /// Where to.
    pub destination: Destination,
    /// Which share; never 0.
    pub share: PerMillion,
}

/// Cross-origin policy.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Cors {
    /// Origins that are allowed.
    pub allow_origins: Vec<TextMatch>,
    /// `Access-Control-Allow-Methods`.
    pub allow_methods: Vec<Name>,
    /// `Access-Control-Allow-Headers`.
    pub allow_headers: Vec<Name>,
    /// `Access-Control-Expose-Headers`.
    pub expose_headers: Vec<Name>,
    /// `Access-Control-Max-Age` in seconds.
    pub max_age: Option<u64>,
    /// `Access-Control-Allow-Credentials`.
    pub allow_credentials: Option<bool>,
    /// Whether preflights of other origins go on to the destination; they do unless told otherwise.
    pub forward_unmatched_preflights: bool,
}

/// One element of `tls`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsRule {
    /// Where it was written.
    pub path: RulePath,
    /// Alternatives; never empty.
    pub matches: Vec<TlsMatch>,
    /// Never empty; of several, some have a weight above 0.
    pub route: Vec<L4Destination>,
}

/// One alternative of a TLS rule.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TlsMatch {
    /// The index in the rule's list as written.
    pub index: usize,
    /// Server names; never empty.
    pub sni_hosts: Vec<Hostname>,
    /// Addresses called, as CIDRs; empty for any.
    pub destination_subnets: Vec<Name>,
    /// The port that was called; `None` for any.
    pub port: Option<u16>,
    /// Which proxies.
    pub source: Source,
}

/// One element of `tcp`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TcpRule {
    /// Where it was written.
    pub path: RulePath,
    /// Alternatives; none matches everything.
    pub matches: Vec<TcpMatch>,
    /// Never empty; of several, some have a weight above 0.
    pub route: Vec<L4Destination>,
}

/// One alternative of a TCP rule.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TcpMatch {
    /// The index in the rule's list as written.
    pub index: usize,
    /// Addresses called, as CIDRs; empty for any.
    pub destination_subnets: Vec<Name>,
    /// The port that was called; `None` for any.
    pub port: Option<u16>,
    /// Which proxies.
    pub source: Source,
}

impl VirtualService {
    /// The hosts that it leads to from proxies of a namespace, each with the ports that it names; no port named is 0.
    pub fn destinations(&self, namespace: &Name) -> Vec<(Hostname, Vec<u16>)> {
        let mut out: Vec<(Hostname, Vec<u16>)> = Vec::new();
        let mut add = |to: &Destination| {
            let port = to.port.unwrap_or(0);
            match out.iter_mut().find(|(host, _)| *host == to.host) {
                Some((_, ports)) if ports.contains(&port) => {}
                Some((_, ports)) => ports.push(port),
                None => out.push((to.host.clone(), vec![port])),
            }
        };
        let reaches = |source: &Source| source.namespace.is_empty() || source.namespace == *namespace;
        for rule in &self.http {
            if !rule.matches.is_empty() && !rule.matches.iter().any(|m| reaches(&m.source)) {
                continue;
            }
            rule.destinations().for_each(&mut add);
        }
        for rule in &self.tls {
            if rule.matches.iter().any(|m| reaches(&m.source)) {
                rule.route.iter().for_each(|d| add(&d.destination));
            }
        }
        for rule in &self.tcp {
            if rule.matches.is_empty() || rule.matches.iter().any(|m| reaches(&m.source)) {
                rule.route.iter().for_each(|d| add(&d.destination));
            }
        }
        out
    }
}
