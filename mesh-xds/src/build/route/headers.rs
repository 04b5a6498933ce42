//! Header changes. Envoy refuses changes to pseudo headers and `Host`: those of the authority become a rewrite, which the
//! action decides on; others never come this far.

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::config::route::v3::Route;
use envoy_types::pb::envoy::config::route::v3::weighted_cluster::ClusterWeight;
use mesh_api::Name;

use crate::model::virtual_service::HeaderOps;

/// Adds the changes to those that the route has already.
pub(super) fn apply(ops: &HeaderOps, route: &mut Route) {
    route.request_headers_to_add.extend(added(&ops.request_set, &ops.request_add));
    route.response_headers_to_add.extend(added(&ops.response_set, &ops.response_add));
    route.request_headers_to_remove.extend(ops.request_remove.iter().map(Name::to_string));
    route.response_headers_to_remove.extend(ops.response_remove.iter().map(Name::to_string));
}

/// The changes of one of several destinations.
pub(super) fn apply_to_cluster(ops: &HeaderOps, cluster: &mut ClusterWeight) {
    cluster.request_headers_to_add.extend(added(&ops.request_set, &ops.request_add));
    cluster.response_headers_to_add.extend(added(&ops.response_set, &ops.response_add));
    cluster.request_headers_to_remove.extend(ops.request_remove.iter().map(Name::to_string));
    cluster.response_headers_to_remove.extend(ops.response_remove.iter().map(Name::to_string));
}

fn added(set: &[(Name, Name)], add: &[(Name, Name)]) -> impl Iterator<Item = HeaderValueOption> {
    let option = |action: HeaderAppendAction| {
        move |(key, value): &(Name, Name)| HeaderValueOption {
            header: Some(HeaderValue { key: key.to_string(), value: value.to_string(), ..HeaderValue::default() }),
            append_action: action.into(),
            ..HeaderValueOption::default()
        }
    };
    let set = set.iter().map(option(HeaderAppendAction::OverwriteIfExistsOrAdd));
    set.chain(add.iter().map(option(HeaderAppendAction::AppendIfExistsOrAdd)))
}
