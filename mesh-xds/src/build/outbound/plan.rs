//! A listener as planned, and the query that builds it.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::{CidrRange, TrafficDirection};
use envoy_types::pb::envoy::config::listener::v3::{
    AdditionalAddress, Filter, FilterChain, FilterChainMatch, Listener, filter,
};
use envoy_types::pb::envoy::extensions::filters::network::tcp_proxy::v3::{TcpProxy, tcp_proxy};
use envoy_types::pb::google::protobuf::Any;
use mesh_api::Name;
use prost::Name as _;

use super::OutboundPolicy;
use crate::Resource;
use crate::build::cluster::wire;
use crate::build::http::{Http, Routes, Side};
use crate::build::route::l4::TcpPolicy;
use crate::build::{
    access_log, bool_value, duration, http_inspector, network_filter, socket_address, tls_inspector, u32_value,
};
use crate::memo::Query;
use crate::model::{Protocol, Settings};
use crate::net::Cidr;
use crate::resource::canonical_bytes;
use crate::scope::settings;
use crate::view::View;

/// Application protocols that the HTTP inspector finds in plaintext.
const PLAINTEXT_HTTP: [&str; 2] = ["http/1.1", "h2c"];

/// Everything about an outbound listener.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ListenerPlan {
    /// Addresses, or one `unix://` path; the first is the primary one and names the listener.
    pub bind: Vec<Name>,
    /// The port; 0 for Unix sockets.
    pub port: u16,
    /// Applications connect to it themselves.
    pub bind_to_port: bool,
    /// Its filter chains, in the order of the services that asked for them.
    pub chains: Vec<Chain>,
}

/// One filter chain.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Chain {
    /// Server names of TLS, `*` for any.
    pub sni: Vec<Name>,
    /// Addresses called.
    pub cidrs: Vec<Name>,
    /// Only plaintext HTTP.
    pub plaintext_http: bool,
    /// What it does.
    pub then: Then,
    /// `kind/namespace/name` of the object behind it, and the path of the field.
    pub origin: Option<Origin>,
}

/// The object behind a chain.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Origin {
    /// Istio's word for the kind, e.g. `virtual-service`.
    pub kind: &'static str,
    /// The object's namespace.
    pub namespace: Name,
    /// The object's name.
    pub name: Name,
    /// The field.
    pub path: String,
}

/// What a filter chain does.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Then {
    /// HTTP by a route configuration.
    Http {
        /// The route configuration.
        rds: Name,
        /// What the port speaks.
        protocol: Protocol,
        /// The proxy accepts HTTP/1.0.
        http10: bool,
    },
    /// Bytes, all to one cluster.
    Cluster {
        /// The cluster.
        cluster: String,
        /// What else the rule for it asks for.
        policy: TcpPolicy,
    },
    /// Bytes: an encoded TCP proxy.
    Tcp(Vec<u8>),
}

impl Chain {
    /// The route configuration that it names.
    pub(crate) fn rds(&self) -> Option<&Name> {
        match &self.then {
            Then::Http { rds, .. } => Some(rds),
            Then::Cluster { .. } | Then::Tcp(_) => None,
        }
    }

    /// True when it takes every connection.
    fn matches_all(&self) -> bool {
        (self.sni.is_empty() || self.sni.iter().any(|s| *s == "*")) && !self.plaintext_http && self.ranges().is_empty()
    }

    /// What a connection must have: two chains with equal conditions can't stand in one listener.
    pub(crate) fn conditions(&self) -> (bool, Vec<&Name>, Vec<Cidr>) {
        let mut sni: Vec<&Name> = self.sni.iter().filter(|s| **s != "*").collect();
        sni.sort();
        sni.dedup();
        (self.plaintext_http, sni, self.ranges())
    }

    fn ranges(&self) -> Vec<Cidr> {
        let mut out: Vec<Cidr> =
            self.cidrs.iter().filter_map(|c| Cidr::parse(c)).filter(|c| !c.address.is_unspecified()).collect();
        out.sort();
        out.dedup();
        out
    }
}

impl ListenerPlan {
    /// `address_port`, or the path of a Unix socket.
    pub fn name(&self) -> String {
        let primary = self.bind.first().map_or("", Name::as_str);
        if self.port == 0 { primary.to_owned() } else { format!("{primary}_{}", self.port) }
    }
}

/// A planned listener, encoded.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct BuiltListener {
    /// The plan.
    pub plan: ListenerPlan,
    /// Where connections go that no chain takes.
    pub policy: OutboundPolicy,
}

impl Query for BuiltListener {
    type Out = Arc<Resource>;
    fn run(&self, view: &View<'_>) -> Arc<Resource> {
        let settings = settings(view);
        let listener = self.listener(&settings);
        Arc::new(Resource::encode(listener.name.clone(), &listener))
    }
}

impl BuiltListener {
    fn listener(&self, settings: &Settings) -> Listener {
        let plan = &self.plan;
        let name = plan.name();
        let mut listener = Listener {
            address: plan.bind.first().map(|ip| socket_address(ip, plan.port)),
            additional_addresses: plan
                .bind
                .iter()
                .skip(1)
                .map(|ip| AdditionalAddress { address: Some(socket_address(ip, plan.port)), ..Default::default() })
                .collect(),
            traffic_direction: TrafficDirection::Outbound as i32,
            continue_on_listener_filters_timeout: true,
            listener_filters_timeout: duration(0),
            bind_to_port: if plan.bind_to_port { None } else { bool_value(false) },
            max_connections_to_accept_per_socket_event: if plan.bind_to_port { u32_value(1) } else { None },
            ..Default::default()
        };
        if plan.chains.iter().any(|c| !c.sni.is_empty()) {
            listener.listener_filters.push(tls_inspector());
        }
        if plan.chains.iter().any(|c| c.plaintext_http) {
            listener.listener_filters.push(http_inspector());
            listener.listener_filters_timeout = Some(wire::duration(settings.mesh.protocol_detection_timeout));
        }
        let mut default = None;
        for planned in &plan.chains {
            let chain = built_chain(planned, &name, settings);
            if planned.matches_all() { default = Some(chain) } else { listener.filter_chains.push(chain) }
        }
        match default {
            Some(chain) if listener.filter_chains.is_empty() => listener.filter_chains.push(chain),
            Some(chain) => listener.default_filter_chain = Some(chain),
            None => {
                listener.default_filter_chain = Some(FilterChain {
                    name: "PassthroughFilterChain".into(),
                    filter_chain_match: Some(FilterChainMatch::default()),
                    filters: vec![catch_all(&self.policy, settings)],
                    ..Default::default()
                });
            }
        }
        listener.name = name;
        listener
    }
}

fn built_chain(planned: &Chain, listener: &str, settings: &Settings) -> FilterChain {
    let filter_chain_match = (!planned.matches_all()).then(|| {
        let mut server_names: Vec<String> = planned.sni.iter().map(Name::to_string).collect();
        if server_names.iter().any(|s| s == "*") {
            server_names.clear();
        }
        server_names.sort();
        FilterChainMatch {
            server_names,
            prefix_ranges: planned.ranges().iter().map(cidr_range).collect(),
            application_protocols: if planned.plaintext_http {
                PLAINTEXT_HTTP.map(String::from).to_vec()
            } else {
                Vec::new()
            },
            transport_protocol: if planned.plaintext_http { "raw_buffer".into() } else { String::new() },
            ..Default::default()
        }
    });
    let filter = match &planned.then {
        Then::Http { rds, protocol, http10 } => {
            let mut http =
                Http::new(Side::Outbound, format!("outbound_{listener}"), Routes::Rds(rds.to_string()), *protocol);
            http.http10 = *http10;
            http.filter(settings)
        }
        Then::Cluster { cluster, policy } => tcp_proxy_filter(single(cluster, policy, settings)),
        Then::Tcp(proxy) => tcp_proxy_filter(proxy.clone()),
    };
    FilterChain {
        filter_chain_match,
        filters: vec![filter],
        metadata: planned
            .origin
            .as_ref()
            .map(|o| crate::build::config_metadata(o.kind, &o.namespace, &o.name, &o.path)),
        ..Default::default()
    }
}

/// An address range of a filter chain match.
pub(crate) fn cidr_range(cidr: &Cidr) -> CidrRange {
    CidrRange { address_prefix: cidr.address.to_string(), prefix_len: u32_value(u32::from(cidr.len)) }
}

pub(crate) fn tcp_proxy_filter(encoded: Vec<u8>) -> Filter {
    let any = Any { type_url: TcpProxy::type_url(), value: encoded };
    Filter { name: crate::build::TCP_PROXY.into(), config_type: Some(filter::ConfigType::TypedConfig(any)) }
}

/// A TCP proxy to one cluster, encoded.
pub(crate) fn single(cluster: &str, policy: &TcpPolicy, settings: &Settings) -> Vec<u8> {
    let mut proxy = policy.proxy(cluster.into(), tcp_proxy::ClusterSpecifier::Cluster(cluster.into()));
    proxy.access_log = access_log::tcp(&settings.mesh);
    canonical_bytes(&proxy)
}

/// The filter for connections that nobody else takes.
pub(crate) fn catch_all(policy: &OutboundPolicy, settings: &Settings) -> Filter {
    let cluster = policy.cluster();
    network_filter(
        crate::build::TCP_PROXY,
        &TcpProxy {
            stat_prefix: cluster.into(),
            cluster_specifier: Some(tcp_proxy::ClusterSpecifier::Cluster(cluster.into())),
            access_log: access_log::tcp(&settings.mesh),
            ..Default::default()
        },
    )
}
