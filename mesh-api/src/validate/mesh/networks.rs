//! Networks: endpoints that can be told apart, gateways that can be reached.

use crate::mesh::{MeshNetworks, NetworkEndpointsSource, NetworkGatewayAddress};
use crate::validate::at::At;
use crate::validate::{hosts, net};

pub(super) fn check(at: &At<'_>, networks: &MeshNetworks) {
    at.entries("networks", &networks.networks, |at, _, network| {
        at.each("endpoints", &network.endpoints, |at, endpoints| match &endpoints.ne {
            Some(NetworkEndpointsSource::FromCidr(range)) => {
                at.field("fromCidr").check("InvalidAddress", net::subnet(range));
            }
            Some(NetworkEndpointsSource::FromRegistry(name)) if !hosts::is_label(name) => {
                let message = format!("invalid registry name: {name:?}; write the id of a cluster");
                at.field("fromRegistry").error("InvalidName", message);
            }
            _ => {}
        });
        at.each("gateways", &network.gateways, |at, gateway| {
            match &gateway.gw {
                Some(NetworkGatewayAddress::RegistryServiceName(name)) => {
                    at.field("registryServiceName").check("InvalidHost", hosts::fqdn(name));
                }
                Some(NetworkGatewayAddress::Address(address)) if !net::is_ip(address) => {
                    let result = hosts::fqdn(address)
                        .map_err(|why| format!("{address:?} is not a valid IP address or DNS name: {why}"));
                    at.field("address").check("InvalidAddress", result);
                }
                _ => {}
            }
            at.field("port").check("InvalidPort", net::port(gateway.port));
        });
    });
}

#[cfg(test)]
mod tests {
    use crate::mesh::MeshNetworks;
    use crate::validate::testing::problems;

    #[test]
    fn networks() {
        let text = "networks: {n: {endpoints: [{fromCidr: 10.0.0.0/8}, {fromCidr: x}, {fromRegistry: c1}, {fromRegistry: a_b}], \
            gateways: [{address: 1.2.3.4, port: 80}, {address: gw.example.com, port: 80}, {address: a_b, port: 0}, {registryServiceName: a.b, port: 1}]}}";
        let (networks, told) = MeshNetworks::from_yaml(text);
        assert!(told.is_empty(), "{told:?}");
        let found = problems(&networks);
        let expected =
            ["endpoints[1].fromCidr", "endpoints[3].fromRegistry", "gateways[2].address", "gateways[2].port"];
        assert!(found.len() == 4 && found.iter().zip(expected).all(|(f, e)| f.contains(e)), "{found:#?}");
    }
}
