//! Virtual hosts and route configurations, put together from routes that are encoded already. Sidecars and gateways differ
//! in which hosts there are; what they are made of is the same.

use bytes::Bytes;
use envoy_types::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use mesh_api::Name;
use prost::Message;

use super::defaults::MeshRetries;
use super::lookup::ScopeLookup;
use super::route::{EncodedRoutes, MAX_DIRECT_RESPONSE_BODY, RouteContext, http_routes};
use super::{bool_value, u32_value};
use crate::Resource;
use crate::class::Client;
use crate::memo::Query;
use crate::model::virtual_service::VirtualService;
use crate::resource::{TypeUrl, Writer};
use crate::shared::ByPtr;
use crate::view::View;

/// `RouteConfiguration.virtual_hosts`.
const VIRTUAL_HOSTS: u32 = 2;

/// The routes that a virtual service means for clients on a port.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct VirtualServiceRoutes {
    pub(crate) virtual_service: ByPtr<VirtualService>,
    pub(crate) client: Client,
    /// `mesh` for sidecars, else the gateway's `namespace/name`.
    pub(crate) gateway: Name,
    pub(crate) port: u16,
    /// TLS is terminated.
    pub(crate) tls: bool,
}

impl Query for VirtualServiceRoutes {
    type Out = EncodedRoutes;
    fn run(&self, view: &View<'_>) -> EncodedRoutes {
        let lookup = ScopeLookup { view, client: &self.client, port: self.port };
        let retries = view.get(&MeshRetries);
        let ctx = RouteContext {
            namespace: &self.client.namespace,
            labels: &self.client.labels,
            gateways: std::slice::from_ref(&self.gateway),
            port: self.port,
            tls: self.tls,
            default_retries: (*retries).as_ref(),
            append_x_forwarded_host: false,
            lookup: &lookup,
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

/// A route configuration of these virtual hosts.
pub(crate) fn route_configuration(name: &Name, virtual_hosts: &[Bytes]) -> Resource {
    let head = RouteConfiguration {
        name: name.to_string(),
        validate_clusters: bool_value(false),
        max_direct_response_body_size_bytes: u32_value(MAX_DIRECT_RESPONSE_BODY),
        ignore_port_in_host_matching: true,
        ..RouteConfiguration::default()
    };
    let mut value = Vec::with_capacity(head.encoded_len() + virtual_hosts.iter().map(Bytes::len).sum::<usize>());
    value.extend(head.encode_to_vec());
    virtual_hosts.iter().for_each(|host| value.extend_from_slice(host));
    Resource::from_value(name.clone(), TypeUrl::Route.as_str(), &value)
}
