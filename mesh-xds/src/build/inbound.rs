//! What reaches a sidecar's own application: `virtualInbound` with a filter chain for each port that services or a Sidecar
//! name, chains for everything else, and the clusters behind them.
//!
//! First a *plan* (`plan::InboundPlan`): which ports, what is spoken, what is accepted. Then listeners and clusters are
//! built from it. Everything depends on the server half of a class alone, so the pods of a workload share it.

mod chains;
mod clusters;
mod inspect;
mod plan;
mod tls;

use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::TrafficDirection;
use envoy_types::pb::envoy::config::listener::v3::{AdditionalAddress, FilterChain, Listener};
use mesh_api::Name;

pub use clusters::InboundClusters;

use super::access::AccessTo;
use super::defaults::MeshDefaults;
use super::{bool_value, duration, listener_filter, socket_address, u32_value};
use crate::Resource;
use crate::class::{Interception, Server};
use crate::memo::Query;
use crate::model::Settings;
use crate::scope::settings;
use crate::view::View;

/// The name of the listener for captured connections.
const VIRTUAL_INBOUND: &str = "virtualInbound";

/// The inbound listeners of a group of sidecars.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct InboundListeners(pub Server);

impl Query for InboundListeners {
    type Out = Vec<Arc<Resource>>;
    fn run(&self, view: &View<'_>) -> Self::Out {
        let settings = settings(view);
        let plan = view.get(&plan::PlanOf(self.0.clone()));
        let defaults = view.get(&MeshDefaults);
        let access = view.get(&AccessTo::sidecar(&self.0));
        let context = chains::Context { settings: &settings, defaults: &defaults, server: &self.0, access: &access };
        let captured = self.0.interception != Interception::None;
        let mut out = Vec::new();
        let mut in_virtual = Vec::new();
        for port in &plan.ports {
            let chains = context.chains(port);
            if port.bind_to_port {
                let name = port.listener_name();
                out.push(self.listener(&name, &port.bind, port.target, true, chains, &settings));
            } else {
                in_virtual.extend(chains);
            }
        }
        if captured {
            let mut chains = vec![context.black_hole()];
            chains.extend(plan.passthrough.iter().flat_map(|port| context.chains(port)));
            chains.extend(in_virtual);
            let wildcards = plan::wildcards(&self.0, &settings);
            let port = settings.inbound_port();
            out.insert(0, self.listener(VIRTUAL_INBOUND, &wildcards, port, false, chains, &settings));
        }
        out.into_iter().map(|l| Arc::new(Resource::encode(l.name.clone(), &l))).collect()
    }
}

impl InboundListeners {
    fn listener(
        &self,
        name: &str,
        bind: &[Name],
        port: u16,
        bind_to_port: bool,
        filter_chains: Vec<FilterChain>,
        settings: &Settings,
    ) -> Listener {
        let transparent = !bind_to_port && self.0.interception == Interception::Tproxy;
        let mut listener_filters = Vec::new();
        if !bind_to_port {
            listener_filters.push(listener_filter(
                "envoy.filters.listener.original_dst",
                &envoy_types::pb::envoy::extensions::filters::listener::original_dst::v3::OriginalDst::default(),
            ));
        }
        if transparent {
            listener_filters.push(listener_filter(
                "envoy.filters.listener.original_src",
                &envoy_types::pb::envoy::extensions::filters::listener::original_src::v3::OriginalSrc {
                    // The mark by which the interception rules know connections to the application.
                    mark: 1337,
                    ..Default::default()
                },
            ));
        }
        listener_filters.extend(inspect::inspectors(&filter_chains));
        let detection = settings.mesh.protocol_detection_timeout;
        Listener {
            name: name.to_owned(),
            address: bind.first().map(|ip| socket_address(ip, port)),
            additional_addresses: bind
                .iter()
                .skip(1)
                .map(|ip| AdditionalAddress { address: Some(socket_address(ip, port)), ..Default::default() })
                .collect(),
            transparent: if transparent { bool_value(true) } else { None },
            traffic_direction: TrafficDirection::Inbound as i32,
            filter_chains,
            listener_filters,
            listener_filters_timeout: duration(detection.seconds())
                .map(|d| envoy_types::pb::google::protobuf::Duration { nanos: detection.subsec_nanos(), ..d }),
            continue_on_listener_filters_timeout: true,
            max_connections_to_accept_per_socket_event: u32_value(1),
            ..Default::default()
        }
    }
}

#[cfg(test)]
mod tests;
