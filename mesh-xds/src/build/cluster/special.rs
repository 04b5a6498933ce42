//! Clusters that stand for no service: nowhere, and wherever the connection was going.

use envoy_types::pb::envoy::config::cluster::v3::{Cluster, cluster};
use envoy_types::pb::envoy::config::core::v3::{BindConfig, ExtraSourceAddress};

use super::{Defaults, Draft, IpFamily, Traits, wire};

/// The name of [`black_hole`].
pub(crate) const BLACK_HOLE: &str = "BlackHoleCluster";
/// The name of [`passthrough`].
pub(crate) const PASSTHROUGH: &str = "PassthroughCluster";
/// The name of [`inbound_passthrough`].
pub(crate) const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";

/// A cluster without endpoints: what must not go anywhere.
pub fn black_hole(defaults: &Defaults) -> Cluster {
    let mut draft = Draft::new(BLACK_HOLE.to_owned(), None);
    draft.set_type(cluster::DiscoveryType::Static);
    draft.cluster.connect_timeout = Some(wire::duration(defaults.connect_timeout));
    draft.cluster.common_lb_config = None;
    draft.build()
}

/// Outbound connections to where they were going anyway.
pub fn passthrough(defaults: &Defaults, traits: &Traits) -> Cluster {
    named(PASSTHROUGH, defaults, traits).build()
}

/// Inbound connections to ports that no service names, to where they were going anyway. They leave from an address
/// which the interception rules let pass, or they would come back.
pub fn inbound_passthrough(defaults: &Defaults, traits: &Traits) -> Cluster {
    let mut draft = named(INBOUND_PASSTHROUGH, defaults, traits);
    draft.cluster.upstream_bind_config = Some(loopback_source(traits.ip_family));
    draft.build()
}

/// The source address of connections to the proxy's own application, other than over localhost.
pub(crate) fn loopback_source(family: IpFamily) -> BindConfig {
    const V4: &str = "127.0.0.6";
    const V6: &str = "::6";
    let first = if family == IpFamily::V6 { V6 } else { V4 };
    let extra = ExtraSourceAddress { address: Some(wire::socket(V6, 0)), ..ExtraSourceAddress::default() };
    BindConfig {
        source_address: Some(wire::socket(first, 0)),
        extra_source_addresses: if family == IpFamily::Dual { vec![extra] } else { Vec::new() },
        ..BindConfig::default()
    }
}

fn named(name: &str, defaults: &Defaults, traits: &Traits) -> Draft {
    let mut draft = Draft::new(name.to_owned(), None);
    draft.set_type(cluster::DiscoveryType::OriginalDst);
    draft.cluster.common_lb_config = None;
    draft.pass_through(traits);
    draft.connection_pool(defaults.connection_pool.as_deref(), None, defaults);
    draft
}
