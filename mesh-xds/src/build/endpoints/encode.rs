//! A `ClusterLoadAssignment` as it is sent. Endpoints are by far the most numerous messages of a mesh and the ones that
//! change most often, so they are written without a tree of messages. Numbers of fields stand beside their names.

use super::Group;
use crate::Resource;
use crate::model::{Endpoint, Health, Locality};
use crate::resource::{TypeUrl, Writer};

/// Roughly what an endpoint takes, in bytes.
const ENDPOINT: usize = 100;

/// The endpoints of a cluster in their groups.
pub(super) fn assignment(cluster: String, chosen: &[&Endpoint], groups: &[Group]) -> Resource {
    let mut out = Writer::with_capacity(ENDPOINT * (chosen.len() + 1));
    out.text(1, &cluster); // cluster_name
    for group in groups {
        // endpoints
        out.message(2, |w| locality_endpoints(w, group, chosen));
    }
    Resource::from_value(cluster.into(), TypeUrl::Endpoint.as_str(), &out.into_bytes())
}

fn locality_endpoints(w: &mut Writer, group: &Group, chosen: &[&Endpoint]) {
    let Locality { region, zone, subzone } = &group.locality;
    if !group.locality.is_empty() {
        // locality
        w.message(1, |w| {
            w.text(1, region);
            w.text(2, zone);
            w.text(3, subzone);
        });
    }
    for endpoint in group.endpoints.iter().filter_map(|i| chosen.get(*i)) {
        w.message(2, |w| lb_endpoint(w, endpoint)); // lb_endpoints
    }
    w.message(3, |w| w.number(1, group.weight.into())); // load_balancing_weight
    w.number(5, group.priority.into()); // priority
}

fn lb_endpoint(w: &mut Writer, endpoint: &Endpoint) {
    // endpoint.address
    w.message(1, |w| w.message(1, |w| address(w, endpoint)));
    // health_status
    match endpoint.health {
        Health::Healthy => {}
        Health::Unhealthy => w.number(2, 2),
        Health::Draining => w.number(2, 3),
    }
    if !endpoint.tls_mode.is_empty() {
        w.message(3, |w| tls_mode(w, &endpoint.tls_mode)); // metadata
    }
    w.message(4, |w| w.number(1, endpoint.weight.max(1).into())); // load_balancing_weight
}

fn address(w: &mut Writer, endpoint: &Endpoint) {
    match endpoint.address.strip_prefix("unix://") {
        Some(path) => w.message(2, |w| w.text(1, path)), // pipe.path
        // socket_address
        None => w.message(1, |w| {
            w.text(2, &endpoint.address); // address
            w.chosen_number(3, endpoint.port.into()); // port_value
        }),
    }
}

/// What a cluster's transport socket matches look at: `filter_metadata["envoy.transport_socket_match"].tlsMode`.
fn tls_mode(w: &mut Writer, mode: &str) {
    w.struct_entry(1, "envoy.transport_socket_match", |fields| fields.struct_text("tlsMode", mode));
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3 as core;
    use envoy_types::pb::envoy::config::endpoint::v3 as pb;
    use envoy_types::pb::google::protobuf::{Struct, UInt32Value, Value, value::Kind};

    use super::*;
    use crate::build::cluster::wire::address;

    fn expected(endpoint: &Endpoint, address: core::Address, health: core::HealthStatus) -> pb::LbEndpoint {
        let mode = Value { kind: Some(Kind::StringValue(endpoint.tls_mode.to_string())) };
        let fields = Struct { fields: [("tlsMode".to_owned(), mode)].into() };
        let filter_metadata = [("envoy.transport_socket_match".to_owned(), fields)].into();
        pb::LbEndpoint {
            host_identifier: Some(pb::lb_endpoint::HostIdentifier::Endpoint(pb::Endpoint {
                address: Some(address),
                ..Default::default()
            })),
            health_status: health.into(),
            load_balancing_weight: Some(UInt32Value { value: endpoint.weight.max(1) }),
            metadata: (!endpoint.tls_mode.is_empty()).then(|| core::Metadata { filter_metadata, ..Default::default() }),
        }
    }

    #[test]
    fn bytes_are_those_of_the_messages() {
        let plain = Endpoint {
            address: "10.0.0.1".into(),
            port: 80,
            service_port: "http".into(),
            namespace: "default".into(),
            ..Endpoint::default()
        };
        let sick = Endpoint { health: Health::Unhealthy, tls_mode: "istio".into(), weight: 300, ..plain.clone() };
        let going = Endpoint { health: Health::Draining, address: "2001:db8::1".into(), ..plain.clone() };
        let pipe = Endpoint { address: "unix:///run/app".into(), port: 0, ..plain.clone() };
        let all = [&plain, &sick, &going, &pipe];
        let there = Locality { region: "r".into(), zone: "z".into(), ..Locality::default() };
        let groups = [
            Group { locality: Locality::default(), priority: 0, weight: 301, endpoints: vec![0, 1] },
            Group { locality: there, priority: 2, weight: 0, endpoints: vec![2, 3] },
        ];
        let of_group = |locality, weight, priority, lb_endpoints| pb::LocalityLbEndpoints {
            locality,
            lb_endpoints,
            load_balancing_weight: Some(UInt32Value { value: weight }),
            priority,
            ..Default::default()
        };
        let there = core::Locality { region: "r".into(), zone: "z".into(), sub_zone: String::new() };
        let message = pb::ClusterLoadAssignment {
            cluster_name: "c".into(),
            endpoints: vec![
                of_group(
                    None,
                    301,
                    0,
                    vec![
                        expected(&plain, address("10.0.0.1", 80), core::HealthStatus::Unknown),
                        expected(&sick, address("10.0.0.1", 80), core::HealthStatus::Unhealthy),
                    ],
                ),
                of_group(
                    Some(there),
                    0,
                    2,
                    vec![
                        expected(&going, address("2001:db8::1", 80), core::HealthStatus::Draining),
                        expected(&pipe, address("unix:///run/app", 0), core::HealthStatus::Unknown),
                    ],
                ),
            ],
            ..Default::default()
        };
        assert_eq!(assignment("c".into(), &all, &groups), Resource::encode("c", &message));
    }
}
