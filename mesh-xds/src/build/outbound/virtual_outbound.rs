//! `virtualOutbound`: where captured connections arrive. It hands them to the listener of the address that they were going
//! to; what no listener wants goes where the policy says.

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::TrafficDirection;
use envoy_types::pb::envoy::config::listener::v3::{AdditionalAddress, FilterChain, FilterChainMatch, Listener};
use mesh_api::Name;

use super::OutboundPolicy;
use super::plan::catch_all;
use crate::Resource;
use crate::build::{bool_value, socket_address, u32_value};
use crate::memo::Query;
use crate::scope::settings;
use crate::view::View;

/// The listener for captured connections.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct VirtualOutbound {
    /// What becomes of unknown traffic.
    pub policy: OutboundPolicy,
    /// TPROXY.
    pub transparent: bool,
    /// The addresses that mean "any".
    pub wildcards: Vec<Name>,
}

impl Query for VirtualOutbound {
    type Out = Arc<Resource>;
    fn run(&self, view: &View<'_>) -> Arc<Resource> {
        let settings = settings(view);
        let port = settings.outbound_port();
        let chain = |name: &str, matches: Option<FilterChainMatch>, policy: &OutboundPolicy| FilterChain {
            name: name.into(),
            filter_chain_match: matches,
            filters: vec![catch_all(policy, &settings)],
            ..Default::default()
        };
        // Nobody may ask for the listener's own port: passed through, such a connection would come back for ever.
        let to_itself = FilterChainMatch { destination_port: u32_value(u32::from(port)), ..Default::default() };
        let listener = Listener {
            name: "virtualOutbound".into(),
            address: self.wildcards.first().map(|ip| socket_address(ip, port)),
            additional_addresses: self
                .wildcards
                .iter()
                .skip(1)
                .map(|ip| AdditionalAddress { address: Some(socket_address(ip, port)), ..Default::default() })
                .collect(),
            transparent: if self.transparent { bool_value(true) } else { None },
            use_original_dst: bool_value(true),
            traffic_direction: TrafficDirection::Outbound as i32,
            filter_chains: vec![
                chain("virtualOutbound-blackhole", Some(to_itself), &OutboundPolicy::RegistryOnly),
                chain("virtualOutbound-catchall-tcp", None, &self.policy),
            ],
            max_connections_to_accept_per_socket_event: u32_value(1),
            ..Default::default()
        };
        Arc::new(Resource::encode("virtualOutbound", &listener))
    }
}
