//! Virtual hosts and route configurations, put together from routes that are encoded already. Sidecars and gateways differ
//! in which hosts there are; what they are made of is the same.

use bytes::Bytes;
use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use mesh_api::Name;
use prost::Message;

use super::defaults::MeshRetries;
use super::lookup::{Answers, Destinations};
use super::route::{EncodedRoutes, MAX_DIRECT_RESPONSE_BODY, RouteContext, http_routes};
use super::{bool_value, u32_value};
use crate::Resource;
use crate::memo::Query;
use crate::model::Labels;
use crate::model::virtual_service::VirtualService;
use crate::resource::{TypeUrl, Writer};
use crate::shared::{ByPtr, Shared};
use crate::view::View;

/// `RouteConfiguration.virtual_hosts`.
const VIRTUAL_HOSTS: u32 = 2;

/// Where requests come in.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Entrance {
    /// `mesh` for sidecars, else the gateway's `namespace/name`.
    pub(crate) gateway: Name,
    pub(crate) port: u16,
    /// TLS is terminated.
    pub(crate) tls: bool,
}

/// The routes that a virtual service means at an entrance, for all clients to whom it means the same.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct VirtualServiceRoutes {
    virtual_service: ByPtr<VirtualService>,
    entrance: Entrance,
    /// Namespace and labels of the clients, where some match looks at them.
    source: Option<Box<(Name, Labels)>>,
    services: Answers,
}

impl VirtualServiceRoutes {
    pub(crate) fn new(vs: &Shared<VirtualService>, entrance: Entrance, destinations: &Destinations<'_, '_>) -> Self {
        let client = destinations.client;
        let looks_at_clients = vs.http.iter().flat_map(|rule| &rule.matches).any(|m| m.source.is_about_workloads());
        Self {
            virtual_service: ByPtr(vs.clone()),
            services: Answers::new(vs, entrance.port, destinations),
            source: looks_at_clients.then(|| Box::new((client.namespace.clone(), client.labels.clone()))),
            entrance,
        }
    }
}

impl Query for VirtualServiceRoutes {
    type Out = EncodedRoutes;
    fn run(&self, view: &View<'_>) -> EncodedRoutes {
        let anywhere = Default::default();
        let (namespace, labels) = self.source.as_deref().unwrap_or(&anywhere);
        let retries = view.get(&MeshRetries);
        let ctx = RouteContext {
            namespace,
            labels,
            gateways: std::slice::from_ref(&self.entrance.gateway),
            port: self.entrance.port,
            tls: self.entrance.tls,
            default_retries: (*retries).as_ref(),
            append_x_forwarded_host: false,
            lookup: &self.services,
        };
        http_routes(&self.virtual_service, &ctx)
    }
}

/// A virtual host as an encoded field of a `RouteConfiguration`: the head says everything but its routes.
pub(crate) fn virtual_host(head: &VirtualHost, routes: &[&[u8]]) -> Bytes {
    let head = head.encode_to_vec();
    let mut parts = vec![&head[..]];
    parts.extend(routes);
    let mut out = Writer::with_capacity(16 + parts.iter().map(|part| part.len()).sum::<usize>());
    out.joined(VIRTUAL_HOSTS, &parts);
    out.into_bytes().into()
}

/// A route configuration of these virtual hosts, each part one or several of them.
pub(crate) fn route_configuration(name: &Name, virtual_hosts: Vec<Bytes>) -> Resource {
    let head = RouteConfiguration {
        name: name.to_string(),
        validate_clusters: bool_value(false),
        max_direct_response_body_size_bytes: u32_value(MAX_DIRECT_RESPONSE_BODY),
        ignore_port_in_host_matching: true,
        ..RouteConfiguration::default()
    };
    Resource::from_parts(name.clone(), TypeUrl::Route.as_str(), &head.encode_to_vec(), virtual_hosts)
}
