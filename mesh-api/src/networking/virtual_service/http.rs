//! The HTTP half of a VirtualService: matches, actions and what is done to a request on its way.

use k8s_openapi::ByteString;
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde::de::Error;

use super::*;
use crate::document::at::{At, TypeError};
use crate::types::message::{Field, OneOf, choose};
use crate::types::{enumeration, schema};

message! {
    /// A rule for HTTP requests: when it applies, and what happens then.
    #[schemars(transform = mirror_percent)]
    pub struct HttpRoute {
        /// Name for logs and metrics; joined with the match's name by a dot.
        pub name: String,
        /// When the rule applies: any one of these, always if empty.
        pub r#match: Vec<HttpMatchRequest>,
        /// Where requests go, by weight. Excludes `redirect` and `direct_response`.
        pub route: Vec<HttpRouteDestination>,
        /// Answer with a redirection instead.
        pub redirect: Option<HttpRedirect>,
        /// Answer with a fixed response instead.
        pub direct_response: Option<HttpDirectResponse>,
        /// Let another VirtualService say what happens to these requests.
        pub delegate: Option<Delegate>,
        /// Change path and authority before the request is sent on.
        pub rewrite: Option<HttpRewrite>,
        /// Longest time until the whole response is there. Default: no limit.
        #[schemars(extend("x-kubernetes-validations" = schema::at_least_a_millisecond()))]
        pub timeout: Option<Duration>,
        /// How failed requests are tried again. Default: the mesh's policy.
        pub retries: Option<HttpRetry>,
        /// Delays and errors to inject, for tests.
        pub fault: Option<HttpFaultInjection>,
        /// Send a copy of requests there too and ignore the response. Superseded by `mirrors`.
        pub mirror: Option<Destination>,
        /// Send copies of requests to each of these and ignore the responses.
        pub mirrors: Vec<HttpMirrorPolicy>,
        /// Per cent of requests copied to `mirror`. Deprecated for `mirror_percentage`. Default: 100.
        pub mirror_percent: Option<u32>,
        /// Per cent of requests copied to `mirror`. Default: 100.
        pub mirror_percentage: Option<Percent>,
        /// What browsers may do across origins.
        pub cors_policy: Option<CorsPolicy>,
        /// Changes to the headers, whatever the destination.
        pub headers: Option<Headers>,
    }
}

/// The older spelling of `mirrorPercent` is a property of its own in the schema.
fn mirror_percent(message: &mut Schema) {
    schema::also_spelled(message, "mirrorPercent", "mirror_percent");
}

message! {
    /// Names the VirtualService that a rule delegates to. That one must have no hosts.
    pub struct Delegate {
        /// Its name.
        pub name: String,
        /// Its namespace. Default: the delegating object's.
        pub namespace: String,
    }
}

message! {
    /// Changes to headers.
    pub struct Headers {
        /// Changes to the request before it is sent on.
        pub request: Option<HeaderOperations>,
        /// Changes to the response before it is returned.
        pub response: Option<HeaderOperations>,
    }
}

message! {
    /// Headers to write, append and remove.
    pub struct HeaderOperations {
        /// Headers to write over whatever is there.
        pub set: BTreeMap<String, String>,
        /// Headers to append to whatever is there.
        pub add: BTreeMap<String, String>,
        /// Names of headers to remove.
        pub remove: Vec<String>,
    }
}

message! {
    /// What is known of an HTTP request. All that is given must hold.
    pub struct HttpMatchRequest {
        /// Name of the match, for logs and metrics.
        pub name: String,
        /// The path, without the query.
        pub uri: Option<StringMatch>,
        /// The scheme, `http` or `https`.
        pub scheme: Option<StringMatch>,
        /// The method.
        pub method: Option<StringMatch>,
        /// The authority, also known as the `Host` header.
        pub authority: Option<StringMatch>,
        /// Headers by lower-case name.
        pub headers: BTreeMap<String, StringMatch>,
        /// Port that the request was sent to.
        pub port: u32,
        /// Labels of the client's workload; only sidecars know them.
        pub source_labels: BTreeMap<String, String>,
        /// Gateways at which the match holds, instead of the VirtualService's own list.
        pub gateways: Vec<String>,
        /// Query parameters by name. Prefixes are not supported here.
        pub query_params: BTreeMap<String, StringMatch>,
        /// Compare exact and prefix paths without regard to letter case.
        pub ignore_uri_case: bool,
        /// Headers that must not match, by lower-case name.
        pub without_headers: BTreeMap<String, StringMatch>,
        /// Namespace of the client's workload.
        pub source_namespace: String,
        /// Prefix of the statistics that Envoy keeps for this route. Default: none are kept.
        pub stat_prefix: String,
    }
}

message! {
    /// A share of HTTP requests.
    #[schemars(extend("required" = ["destination"]))]
    pub struct HttpRouteDestination {
        /// Where they go.
        pub destination: Destination,
        /// Share in proportion to the sum of all weights. The only destination of a rule needs none.
        pub weight: i32,
        /// Changes to the headers of requests that go there.
        pub headers: Option<Headers>,
    }
}

message! {
    /// A redirection that is sent to the client.
    pub struct HttpRedirect {
        /// Path to redirect to; replaces the whole path, query aside.
        pub uri: String,
        /// Authority to redirect to. Default: the request's.
        pub authority: String,
        /// Scheme to redirect to. Default: the request's.
        pub scheme: String,
        /// Status code. Default: 301.
        pub redirect_code: u32,
        /// Replaces only the prefix that the match asked for. Excludes `uri`.
        pub prefix_rewrite: String,
        oneof {
            /// The port to redirect to. Default: the one in the authority, or none.
            pub redirect_port: RedirectPort {
                /// This port.
                port => Port(u32),
                /// A port that follows from the request.
                derive_port => DerivePort(RedirectPortSelection),
            }
        }
    }
}

enumeration! {
    /// How the port of a redirection follows from the request.
    pub enum RedirectPortSelection {
        /// 80 for http, 443 for https.
        #[default]
        FromProtocolDefault,
        /// The port that the request was sent to.
        FromRequestPort,
    }
}

message! {
    /// A fixed response.
    #[schemars(extend("required" = ["status"]))]
    pub struct HttpDirectResponse {
        /// Status code.
        pub status: u32,
        /// Body; none by default.
        pub body: Option<HttpBody>,
    }
}

/// The body of a fixed response.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = crate::types::schema::oneof)]
pub enum HttpBody {
    /// As text.
    String(String),
    /// As bytes, written in base64.
    #[schemars(with = "String", extend("format" = "byte"))]
    Bytes(ByteString),
}

impl OneOf for HttpBody {
    fn field(&self) -> &'static str {
        match self {
            Self::String(_) => "string",
            Self::Bytes(_) => "bytes",
        }
    }
}

impl Field for HttpBody {
    fn read(at: &At<'_, '_, '_>) -> Result<Self, TypeError> {
        Self::read_optional(at)?.ok_or_else(|| TypeError::custom("expected one of `string` and `bytes`"))
    }

    fn read_optional(at: &At<'_, '_, '_>) -> Result<Option<Self>, TypeError> {
        let mut body = None;
        at.fields(&mut |name, at| match name {
            name if name.means("string") => choose(&mut body, Self::String, "string", at),
            name if name.means("bytes") => choose(&mut body, Self::Bytes, "bytes", at),
            _ => Ok(None),
        })?;
        Ok(body)
    }
}

message! {
    /// Changes to a request's path and authority.
    pub struct HttpRewrite {
        /// New path, or new prefix if the match asked for one.
        pub uri: String,
        /// New authority.
        pub authority: String,
        /// New path by regular expression. Excludes `uri`.
        pub uri_regex_rewrite: Option<RegexRewrite>,
    }
}

message! {
    /// Replaces every match of an expression in the path.
    pub struct RegexRewrite {
        /// RE2 expression.
        pub r#match: String,
        /// What takes its place; `\1` to `\9` stand for capture groups.
        pub rewrite: String,
    }
}

message! {
    /// When and how often a failed request is tried again.
    pub struct HttpRetry {
        /// How often, at most; 0 turns retries off.
        pub attempts: i32,
        /// Longest time for each try, the first included. Default: the route's timeout.
        #[schemars(extend("x-kubernetes-validations" = schema::at_least_a_millisecond()))]
        pub per_try_timeout: Option<Duration>,
        /// On which failures: Envoy's policy names and status codes, separated by commas. Default: the mesh's.
        pub retry_on: String,
        /// Whether to try other localities too, by their priority.
        pub retry_remote_localities: Option<bool>,
        /// Whether to avoid endpoints that were tried already. Default: true.
        pub retry_ignore_previous_hosts: Option<bool>,
        /// Shortest pause between tries, which grows with each. Default: 25 ms.
        #[schemars(extend("x-kubernetes-validations" = schema::at_least_a_millisecond()))]
        pub backoff: Option<Duration>,
    }
}

message! {
    /// Cross-origin resource sharing: what a page of another origin may ask.
    pub struct CorsPolicy {
        /// Origins by exact name. Deprecated for `allow_origins`.
        pub allow_origin: Vec<String>,
        /// Origins that may ask.
        pub allow_origins: Vec<StringMatch>,
        /// Methods for `Access-Control-Allow-Methods`.
        pub allow_methods: Vec<String>,
        /// Request headers for `Access-Control-Allow-Headers`.
        pub allow_headers: Vec<String>,
        /// Response headers that the page may read.
        pub expose_headers: Vec<String>,
        /// How long a browser may remember the answer.
        #[schemars(extend("x-kubernetes-validations" = schema::at_least_a_millisecond()))]
        pub max_age: Option<Duration>,
        /// Whether credentials may be sent along.
        pub allow_credentials: Option<bool>,
        /// What happens to preflight requests of an origin that is not allowed.
        pub unmatched_preflights: UnmatchedPreflights,
    }
}

enumeration! {
    /// What happens to preflight requests of an origin that is not allowed.
    pub enum UnmatchedPreflights {
        /// As `FORWARD`.
        #[default]
        Unspecified,
        /// They go to the destination.
        Forward,
        /// They are answered here, without permission.
        Ignore,
    }
}

message! {
    /// Failures to inject, for tests.
    pub struct HttpFaultInjection {
        /// Hold requests back.
        pub delay: Option<Delay>,
        /// Answer requests with an error.
        pub abort: Option<Abort>,
    }
}

message! {
    /// Holds requests back before they are sent on.
    pub struct Delay {
        /// Per cent of requests. Deprecated for `percentage`.
        pub percent: i32,
        /// Per cent of requests. Default: 100, if `percent` is not given either.
        pub percentage: Option<Percent>,
        oneof {
            /// How long requests are held back.
            pub http_delay_type: HttpDelayType {
                /// Always as long as this.
                #[schemars(extend("x-kubernetes-validations" = schema::at_least_a_millisecond()))]
                fixed_delay => FixedDelay(Duration),
                /// Reserved by Istio; no proxy does it.
                #[schemars(extend("x-kubernetes-validations" = schema::at_least_a_millisecond()))]
                exponential_delay => ExponentialDelay(Duration),
            }
        }
    }
}

message! {
    /// Answers requests with an error instead of sending them on.
    pub struct Abort {
        /// Per cent of requests. Default: 100.
        pub percentage: Option<Percent>,
        oneof {
            /// The error that the client is shown.
            pub error_type: ErrorType {
                /// An HTTP status code.
                http_status => HttpStatus(i32),
                /// A gRPC status by name, such as `UNAVAILABLE`, or by number.
                grpc_status => GrpcStatus(String),
                /// Reserved by Istio; no proxy does it.
                http2_error => Http2Error(String),
            }
        }
    }
}

message! {
    /// A place that copies of requests go to.
    #[schemars(extend("required" = ["destination"]))]
    pub struct HttpMirrorPolicy {
        /// Where they go.
        pub destination: Destination,
        /// Per cent of requests. Default: 100.
        pub percentage: Option<Percent>,
    }
}

message! {
    /// A percentage from 0.0 to 100.0.
    pub struct Percent {
        /// Its value.
        pub value: f64,
    }
}
