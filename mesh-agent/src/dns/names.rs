//! The names of the mesh, from the control plane.

use std::convert::Infallible;
use std::sync::Arc;

use envoy_types::pb::google::protobuf::Any;
use mesh_xds::build::names::NameTable;
use prost::Message;
use tokio::sync::watch;
use tracing::info;

use super::table::Table;
use crate::subscription::Subscription;

/// The longest table: a hundred thousand names.
pub const MAX_TABLE: usize = 64 * 1024 * 1024;

/// Follows the names.
#[derive(Debug)]
pub struct Names {
    /// The stream.
    pub subscription: Subscription,
    /// Our namespace.
    pub namespace: String,
    /// Our DNS domain.
    pub dns_domain: String,
    /// The first search domain of the pod.
    pub search: Option<String>,
}

impl Names {
    /// Follows the names for ever. While the control plane is away the last ones stay in force.
    pub async fn run(self, publish: watch::Sender<Option<Arc<Table>>>) -> Infallible {
        let Self { subscription, namespace, dns_domain, search } = self;
        let take = |resources: Vec<Any>| {
            let table = read(&resources).map(|names| Table::new(names, &namespace, &dns_domain, search.as_deref()));
            let taken = table.map(|table| {
                info!(names = table.len(), "names of the mesh");
                publish.send_replace(Some(Arc::new(table)));
            });
            std::future::ready(taken)
        };
        subscription.run(take).await
    }
}

/// No table: the control plane has no names, and other servers are asked for all of them.
fn read(resources: &[Any]) -> Result<NameTable, String> {
    let names = resources.first().map(|names| NameTable::decode(names.value.as_slice()));
    names.transpose().map(Option::unwrap_or_default).map_err(|error| format!("the names cannot be read: {error}"))
}
