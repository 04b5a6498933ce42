//! Routes as they are sent. A virtual service is often part of many virtual hosts and its rules have many matches, so its
//! routes are encoded once, and within them what all matches of a rule share.

use bytes::Bytes;
use envoy_types::pb::envoy::config::route::v3::route::Action;
use envoy_types::pb::envoy::config::route::v3::route_action::ClusterSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{Route, RouteMatch};

use super::{RouteContext, action, config_path, filters, headers, matches};
use crate::model::virtual_service::{HttpAction, HttpMatch, HttpRule, VirtualService};
use crate::resource::{Writer, canonical_bytes};

/// `VirtualHost.routes`.
const ROUTES: u32 = 3;
/// `Metadata.filter_metadata`.
const FILTER_METADATA: u32 = 1;
/// What a route takes where nothing special is said, in bytes, with some to spare.
const USUAL_SIZE: usize = 512;

/// Numbers of fields of `Route`.
mod field {
    pub(super) const MATCH: u32 = 1;
    pub(super) const METADATA: u32 = 4;
    pub(super) const DECORATOR: u32 = 5;
    pub(super) const NAME: u32 = 14;
    pub(super) const STAT_PREFIX: u32 = 19;
}

/// Routes as encoded fields of a `VirtualHost`. One that catches everything is the last of them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct EncodedRoutes {
    fields: Bytes,
    catch_all_at: usize,
}

impl EncodedRoutes {
    /// A route that catches everything.
    pub fn catching_all(route: &Route) -> Self {
        let mut out = Writer::default();
        out.joined(ROUTES, &[&canonical_bytes(route)]);
        Self { fields: out.into_bytes().into(), catch_all_at: 0 }
    }
    /// True when there is no route.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
    /// All routes, in the order in which they are tried.
    pub fn all(&self) -> &[u8] {
        &self.fields
    }
    /// The routes that leave something for others.
    pub fn specific(&self) -> &[u8] {
        self.fields.get(..self.catch_all_at).unwrap_or_default()
    }
    /// The route that leaves nothing for others.
    pub fn catch_all(&self) -> &[u8] {
        self.fields.get(self.catch_all_at..).unwrap_or_default()
    }
}

/// The routes of a VirtualService up to the first that catches everything. Empty when none is for this proxy and port.
pub fn http_routes(vs: &VirtualService, ctx: &RouteContext<'_>) -> EncodedRoutes {
    let config = config_path("virtual-service", &vs.namespace, &vs.name);
    let routes = vs.http.iter().map(|rule| rule.matches.len().max(1)).sum::<usize>();
    let mut out = Writer::with_capacity(routes * USUAL_SIZE);
    for rule in &vs.http {
        let any = [None];
        let all: Vec<Option<&HttpMatch>> = rule.matches.iter().filter(|m| ctx.admits_http(m)).map(Some).collect();
        let mut outcome = None;
        for matched in if rule.matches.is_empty() { &any[..] } else { &all } {
            let condition = matches::route_match(*matched, vs.semantics);
            if outcome.is_none() || action::depends_on_path(rule, vs.semantics) {
                outcome = Outcome::of(vs, rule, condition.path_specifier.as_ref(), ctx);
            }
            // Rules for delegates were merged away before; one that is left over leads nowhere.
            let Some(outcome) = &outcome else { break };
            let (last, at) = (is_catch_all(&condition), out.len());
            out.message(ROUTES, |route| {
                route.message(field::MATCH, |w| w.prost(&condition));
                route.message(field::METADATA, |metadata| {
                    let path = rule.path.text("http", matched.map(|m| m.index));
                    metadata.struct_entry(FILTER_METADATA, "istio", |fields| {
                        fields.struct_text("config", &config);
                        fields.struct_text("path", &path);
                    });
                });
                route.message(field::DECORATOR, |decorator| decorator.text(1, &outcome.operation(&condition)));
                route.text(field::NAME, &route_name(rule, *matched));
                route.text(field::STAT_PREFIX, matched.map_or("", |m| m.stat_prefix.as_str()));
                route.fields(&[&outcome.fields]);
            });
            if last {
                return EncodedRoutes { fields: out.into_bytes().into(), catch_all_at: at };
            }
        }
    }
    let catch_all_at = out.len();
    EncodedRoutes { fields: out.into_bytes().into(), catch_all_at }
}

fn route_name(rule: &HttpRule, matched: Option<&HttpMatch>) -> String {
    match matched {
        Some(m) if !m.name.is_empty() => format!("{}.{}", rule.name, m.name),
        _ => rule.name.to_string(),
    }
}

/// What becomes of requests, whichever match of the rule they met.
struct Outcome {
    /// Encoded fields of the route.
    fields: Vec<u8>,
    /// `host:port` of the only cluster, else the VirtualService's name and the port called.
    target: String,
}

impl Outcome {
    fn of(vs: &VirtualService, rule: &HttpRule, path: Option<&PathSpecifier>, ctx: &RouteContext<'_>) -> Option<Self> {
        let mut route = Route { typed_per_filter_config: filters::per_filter_config(rule), ..Route::default() };
        headers::apply(&rule.headers, &mut route);
        let action = match &rule.action {
            HttpAction::Redirect(redirect) => Action::Redirect(action::redirect(redirect, ctx)),
            HttpAction::Respond(response) => Action::DirectResponse(action::direct_response(response)),
            HttpAction::Route(destinations) => {
                Action::Route(action::forward(vs.semantics, rule, destinations, path, &mut route, ctx))
            }
            HttpAction::Delegate(_) => return None,
        };
        let target = only_target(&action).unwrap_or_else(|| format!("{}:{}", vs.name, ctx.port));
        route.action = Some(action);
        Some(Self { fields: canonical_bytes(&route), target })
    }

    /// Where a route leads, for traces: the target with the path.
    fn operation(&self, condition: &RouteMatch) -> String {
        let target = &self.target;
        match &condition.path_specifier {
            Some(PathSpecifier::Prefix(prefix)) => format!("{target}{prefix}*"),
            Some(PathSpecifier::Path(path)) => format!("{target}{path}"),
            Some(PathSpecifier::SafeRegex(regex)) => format!("{target}{}", regex.regex),
            _ => format!("{target}/*"),
        }
    }
}

/// `host:port` of the cluster, where there is just one.
fn only_target(action: &Action) -> Option<String> {
    let Action::Route(action) = action else { return None };
    let Some(ClusterSpecifier::Cluster(cluster)) = &action.cluster_specifier else { return None };
    let mut parts = cluster.split('|');
    match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(port), Some(_), Some(host), None) => Some(format!("{host}:{port}")),
        _ => None,
    }
}

/// True when every request meets the condition.
fn is_catch_all(m: &RouteMatch) -> bool {
    let every_path = match &m.path_specifier {
        Some(PathSpecifier::Prefix(p) | PathSpecifier::PathSeparatedPrefix(p)) => p == "/",
        Some(PathSpecifier::SafeRegex(r)) => r.regex == ".*",
        _ => false,
    };
    every_path && m.headers.is_empty() && m.query_parameters.is_empty() && m.dynamic_metadata.is_empty()
}
