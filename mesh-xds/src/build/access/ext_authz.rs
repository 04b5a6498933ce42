//! Authorizers of the user: the extension providers that CUSTOM policies name, as Envoy's ext_authz filters.
//!
//! Such a filter asks only about requests that the RBAC filter in front of it has marked with the name of one of the
//! provider's rules. A provider with any mistake in it is none: what its policies mean is denied.

use envoy_types::pb::envoy::config::core::v3::{
    ApiVersion, GrpcService, HeaderValue, HttpUri,
    grpc_service::{EnvoyGrpc, TargetSpecifier},
    http_uri::HttpUpstreamType,
};
use envoy_types::pb::envoy::config::listener::v3::Filter;
use envoy_types::pb::envoy::extensions::filters::http::ext_authz::v3::{
    AuthorizationRequest, AuthorizationResponse, BufferSettings, ExtAuthz, HttpService, ext_authz::Services,
};
use envoy_types::pb::envoy::extensions::filters::network::ext_authz::v3::ExtAuthz as NetworkExtAuthz;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use envoy_types::pb::envoy::r#type::matcher::v3::{
    ListStringMatcher, MetadataMatcher, StringMatcher, string_matcher::MatchPattern,
};
use envoy_types::pb::envoy::r#type::v3::{HttpStatus, StatusCode};
use envoy_types::pb::google::protobuf::Duration as PbDuration;
use mesh_api::Name;
use mesh_api::mesh::{
    EnvoyExternalAuthorizationGrpcProvider as Grpc, EnvoyExternalAuthorizationHttpProvider as Http,
    EnvoyExternalAuthorizationRequestBody as Body, Provider,
};
use mesh_api::types::Duration;

use super::upstream::Upstream;
use super::{CUSTOM_PREFIX, HTTP_EXT_AUTHZ, HTTP_RBAC, NETWORK_EXT_AUTHZ, NETWORK_RBAC, matchers};
use crate::build::cluster::wire;
use crate::build::http::http_filter;
use crate::build::network_filter;
use crate::memo::Query;
use crate::model::authorization_policy::Pattern;
use crate::scope::settings;
use crate::view::View;

/// How long an authorizer may take where nothing else is said, in seconds.
const TIMEOUT: i64 = 600;

/// What the names of a provider's rules begin with.
pub(super) fn rule_prefix(provider: &str) -> String {
    if provider.is_empty() { "istio-ext-authz-".to_owned() } else { format!("istio-ext-authz-{provider}-") }
}

/// The filters that ask a provider.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Filters {
    pub(super) http: HttpFilter,
    /// Only of a provider that speaks gRPC.
    pub(super) tcp: Option<Filter>,
}

/// The filters that ask the extension provider of that name, or why nobody can be asked.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct ProviderOf(pub(super) Name);

impl Query for ProviderOf {
    type Out = Result<Filters, String>;

    fn run(&self, view: &View<'_>) -> Self::Out {
        let name = &*self.0;
        let settings = settings(view);
        let mut found = settings.mesh.extension_providers.iter().filter(|provider| {
            let asks =
                matches!(provider.provider, Some(Provider::EnvoyExtAuthzHttp(_) | Provider::EnvoyExtAuthzGrpc(_)));
            asks && provider.name == name
        });
        let Some(provider) = found.next() else {
            return Err(format!("no extension provider for authorization of the mesh is called {name:?}"));
        };
        if found.next().is_some() {
            return Err(format!("several extension providers of the mesh are called {name:?}"));
        }
        check_name(name)?;
        let of_provider = |why| format!("the extension provider {name:?} cannot be used: {why}");
        match &provider.provider {
            Some(Provider::EnvoyExtAuthzHttp(http)) => self.http(view, http).map_err(of_provider),
            Some(Provider::EnvoyExtAuthzGrpc(grpc)) => self.grpc(view, grpc).map_err(of_provider),
            _ => Err(of_provider("it is no authorizer".to_owned())),
        }
    }
}

impl ProviderOf {
    fn http(&self, view: &View<'_>, from: &Http) -> Result<Filters, String> {
        let upstream = Upstream::find(view, &from.service, from.port)?;
        if !from.path_prefix.is_empty() && !from.path_prefix.starts_with('/') {
            return Err(format!("pathPrefix {:?} must begin with /", from.path_prefix));
        }
        let seen = match from.include_request_headers_in_check.as_slice() {
            [] => headers("includeHeadersInCheck", &from.include_headers_in_check)?,
            seen => headers("includeRequestHeadersInCheck", seen)?,
        };
        let added = &from.include_additional_headers_in_check;
        let header = |(key, value): (&String, &String)| HeaderValue {
            key: key.clone(),
            value: value.clone(),
            ..HeaderValue::default()
        };
        let answer = AuthorizationResponse {
            allowed_upstream_headers: headers("headersToUpstreamOnAllow", &from.headers_to_upstream_on_allow)?,
            allowed_client_headers: headers("headersToDownstreamOnDeny", &from.headers_to_downstream_on_deny)?,
            allowed_client_headers_on_success: headers(
                "headersToDownstreamOnAllow",
                &from.headers_to_downstream_on_allow,
            )?,
            ..AuthorizationResponse::default()
        };
        let service = HttpService {
            server_uri: Some(HttpUri {
                // Envoy wants one and goes by the cluster.
                uri: format!("http://{}", upstream.host),
                timeout: Some(timeout(from.timeout)),
                http_upstream_type: Some(HttpUpstreamType::Cluster(upstream.cluster)),
            }),
            path_prefix: from.path_prefix.clone(),
            authorization_request: (!added.is_empty()).then(|| AuthorizationRequest {
                headers_to_add: added.iter().map(header).collect(),
                ..AuthorizationRequest::default()
            }),
            authorization_response: (answer != AuthorizationResponse::default()).then_some(answer),
            ..HttpService::default()
        };
        let filter = ExtAuthz {
            services: Some(Services::HttpService(service)),
            failure_mode_allow: from.fail_open,
            clear_route_cache: from.clear_route_cache,
            status_on_error: status(&from.status_on_error)?,
            with_request_body: body(from.include_request_body_in_check.as_ref())?,
            allowed_headers: seen,
            ..self.marked()
        };
        Ok(Filters { http: http_filter(HTTP_EXT_AUTHZ, &filter), tcp: None })
    }

    fn grpc(&self, view: &View<'_>, from: &Grpc) -> Result<Filters, String> {
        let upstream = Upstream::find(view, &from.service, from.port)?;
        let service = GrpcService {
            target_specifier: Some(TargetSpecifier::EnvoyGrpc(EnvoyGrpc {
                cluster_name: upstream.cluster,
                authority: upstream.host,
                ..EnvoyGrpc::default()
            })),
            timeout: Some(timeout(from.timeout)),
            ..GrpcService::default()
        };
        let filter = ExtAuthz {
            services: Some(Services::GrpcService(service.clone())),
            failure_mode_allow: from.fail_open,
            clear_route_cache: from.clear_route_cache,
            status_on_error: status(&from.status_on_error)?,
            with_request_body: body(from.include_request_body_in_check.as_ref())?,
            ..self.marked()
        };
        let network = NetworkExtAuthz {
            stat_prefix: "tcp.".to_owned(),
            grpc_service: Some(service),
            failure_mode_allow: from.fail_open,
            transport_api_version: ApiVersion::V3 as i32,
            filter_enabled_metadata: Some(self.mark(NETWORK_RBAC)),
            ..NetworkExtAuthz::default()
        };
        Ok(Filters {
            http: http_filter(HTTP_EXT_AUTHZ, &filter),
            tcp: Some(network_filter(NETWORK_EXT_AUTHZ, &network)),
        })
    }

    /// A filter that asks about marked requests.
    fn marked(&self) -> ExtAuthz {
        ExtAuthz {
            transport_api_version: ApiVersion::V3 as i32,
            filter_enabled_metadata: Some(self.mark(HTTP_RBAC)),
            ..ExtAuthz::default()
        }
    }

    /// What the RBAC filter leaves behind when a rule of this provider holds.
    fn mark(&self, rbac: &str) -> MetadataMatcher {
        let key = format!("{CUSTOM_PREFIX}shadow_effective_policy_id");
        let rule = Pattern::Prefix(rule_prefix(&self.0).into());
        matchers::metadata(rbac, &[key.into()], matchers::value(matchers::string(&rule)))
    }
}

/// Names are parts of keys in metadata and of names in statistics.
fn check_name(name: &str) -> Result<(), String> {
    let fits = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    match fits && !name.is_empty() && name.len() <= 63 && !name.starts_with('-') && !name.ends_with('-') {
        true => Ok(()),
        false => Err(format!(
            "{name:?} cannot name an extension provider; take at most 63 lower-case letters, digits and inner hyphens"
        )),
    }
}

fn timeout(written: Option<Duration>) -> PbDuration {
    written.map_or(PbDuration { seconds: TIMEOUT, nanos: 0 }, wire::duration)
}

fn status(written: &str) -> Result<Option<HttpStatus>, String> {
    if written.is_empty() {
        return Ok(None);
    }
    let known = written.parse().ok().and_then(|code: i32| StatusCode::try_from(code).ok());
    match known.filter(|code| *code != StatusCode::Empty) {
        Some(code) => Ok(Some(HttpStatus { code: code as i32 })),
        None => Err(format!("statusOnError {written:?} is no status that Envoy knows, such as 403")),
    }
}

fn body(written: Option<&Body>) -> Result<Option<BufferSettings>, String> {
    match written {
        Some(body) if body.max_request_bytes == 0 => Err("includeRequestBodyInCheck needs maxRequestBytes".to_owned()),
        Some(body) => Ok(Some(BufferSettings {
            max_request_bytes: body.max_request_bytes,
            allow_partial_message: body.allow_partial_message,
            pack_as_bytes: body.pack_as_bytes,
        })),
        None => Ok(None),
    }
}

/// Headers by name, in any case; `*` may begin or end a name.
fn headers(field: &str, names: &[String]) -> Result<Option<ListStringMatcher>, String> {
    let pattern = |name: &String| {
        let pattern = match Pattern::parse(name) {
            Pattern::Any => return Err(format!("{field} cannot be * alone; write the beginning or the end of names")),
            Pattern::Exact(text) => MatchPattern::Exact(text.to_string()),
            Pattern::Prefix(text) => MatchPattern::Prefix(text.to_string()),
            Pattern::Suffix(text) => MatchPattern::Suffix(text.to_string()),
        };
        Ok(StringMatcher { ignore_case: true, match_pattern: Some(pattern) })
    };
    let patterns: Vec<StringMatcher> = names.iter().map(pattern).collect::<Result<_, String>>()?;
    Ok((!patterns.is_empty()).then_some(ListStringMatcher { patterns }))
}
