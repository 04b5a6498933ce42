//! The names of the mesh, from the control plane: a stream of its own beside Envoy's, so that names go on changing whatever
//! Envoy does.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use mesh_xds::TypeUrl;
use mesh_xds::build::names::NameTable;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tonic::Request;
use tonic::metadata::MetadataValue;
use tracing::{info, warn};

use super::table::Table;
use crate::backoff::Backoff;
use crate::endpoint::{ConnectError, Endpoint};

/// A hundred thousand names.
const MAX_TABLE: usize = 64 * 1024 * 1024;

/// Follows the names.
#[derive(Debug)]
pub struct Names {
    /// The control plane.
    pub upstream: Endpoint,
    /// Who we are.
    pub node: Node,
    /// Our namespace.
    pub namespace: String,
    /// Our DNS domain.
    pub dns_domain: String,
    /// The first search domain of the pod.
    pub search: Option<String>,
}

#[derive(Debug, thiserror::Error)]
enum NamesError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{:?}: {}", .0.code(), .0.message())]
    Status(#[from] tonic::Status),
    #[error("the names cannot be read: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error("the control plane has ended the stream")]
    Ended,
}

impl Names {
    /// Follows the names for ever. While the control plane is away the last ones stay in force.
    pub async fn run(self, publish: watch::Sender<Option<Arc<Table>>>) -> Infallible {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut version = String::new();
        loop {
            let before = version.clone();
            let Err(error) = self.follow(&mut version, &publish).await;
            if version != before {
                backoff.reset();
            }
            let wait = backoff.next(fastrand::f64());
            warn!("no names of the mesh, trying again in {wait:.1?}: {error}");
            tokio::time::sleep(wait).await;
        }
    }

    async fn follow(
        &self,
        version: &mut String,
        publish: &watch::Sender<Option<Arc<Table>>>,
    ) -> Result<Infallible, NamesError> {
        let headers = self.upstream.headers()?;
        let channel = self.upstream.channel().await?;
        let (sender, receiver) = mpsc::channel(4);
        let asks = futures::stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
        let mut request = Request::new(asks);
        for (name, value) in headers {
            if let Ok(value) = MetadataValue::try_from(value.as_bytes()) {
                request.metadata_mut().insert(name, value);
            }
        }
        let ask = |version: &str, nonce: String, node: Option<Node>| DiscoveryRequest {
            node,
            type_url: TypeUrl::NameTable.as_str().to_owned(),
            version_info: version.to_owned(),
            response_nonce: nonce,
            ..DiscoveryRequest::default()
        };
        // Whoever knows our version sends nothing while it is the newest.
        let first = ask(version, String::new(), Some(self.node.clone()));
        sender.send(first).await.map_err(|_| NamesError::Ended)?;
        let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_TABLE);
        let mut answers = client.stream_aggregated_resources(request).await?.into_inner();
        while let Some(answer) = answers.message().await? {
            // No table: the control plane has no names, and other servers are asked for all of them.
            let names = answer.resources.first().map(|names| NameTable::decode(names.value.as_slice()));
            let names = names.transpose()?.unwrap_or_default();
            let table = Table::new(names, &self.namespace, &self.dns_domain, self.search.as_deref());
            info!(names = table.len(), "names of the mesh");
            publish.send_replace(Some(Arc::new(table)));
            version.clone_from(&answer.version_info);
            let ack = ask(version, answer.nonce, None);
            sender.send(ack).await.map_err(|_| NamesError::Ended)?;
        }
        Err(NamesError::Ended)
    }
}
