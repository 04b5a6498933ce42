//! MeshNetworks: which endpoints are in which network, and the gateways between networks.

use super::*;

settings! {
    /// The networks of the mesh, by name.
    ///
    /// ```
    /// use mesh_api::mesh::MeshNetworks;
    /// let (networks, told) = MeshNetworks::from_yaml("networks: {west: {endpoints: [{fromRegistry: c2}], gateways: []}}");
    /// assert!(told.is_empty());
    /// assert_eq!(networks.networks["west"].endpoints.len(), 1);
    /// ```
    #[derive(Default)]
    pub struct MeshNetworks {
        /// By name.
        pub networks: BTreeMap<String, Network>,
    }
}

settings! {
    /// One network: endpoints in it reach each other directly.
    #[derive(Default)]
    pub struct Network {
        /// What is in it.
        pub endpoints: Vec<NetworkEndpoints>,
        /// Ways into it from other networks.
        pub gateways: Vec<IstioNetworkGateway>,
    }
}

settings! {
    /// Some endpoints of a network.
    #[derive(Default)]
    pub struct NetworkEndpoints {
        oneof {
            /// Which.
            pub ne: NetworkEndpointsSource {
                /// Those whose addresses are in this range.
                from_cidr => FromCidr(String),
                /// Those of this cluster.
                from_registry => FromRegistry(String),
            }
        }
    }
}

settings! {
    /// A way into a network.
    #[derive(Default)]
    pub struct IstioNetworkGateway {
        /// Its port.
        pub port: u32,
        /// Where it is, as `region/zone/subzone`.
        pub locality: String,
        oneof {
            /// The gateway itself.
            pub gw: NetworkGatewayAddress {
                /// By its service, `name.namespace.svc.domain`.
                registry_service_name => RegistryServiceName(String),
                /// By an IP address or DNS name.
                address => Address(String),
            }
        }
    }
}

impl MeshNetworks {
    /// Reads a YAML text. What cannot be read is reported and left out.
    pub fn from_yaml(text: &str) -> (Self, Vec<Diagnostic>) {
        let file = Name::from("MeshNetworks");
        let mut told = Vec::new();
        let networks = match overlay::mapping(&file, text, &mut told) {
            Some(node) => overlay::lay(&Self::default(), node, &file, "", &mut told),
            None => Self::default(),
        };
        (networks, told)
    }
}
