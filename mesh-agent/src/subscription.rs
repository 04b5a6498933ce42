//! A stream of the agent's own to the control plane, beside Envoy's: for what the agent itself needs, which goes on changing
//! whatever Envoy does.
//!
//! An answer is acknowledged when it is in force, not when it has arrived: the control plane may wait for that. While the
//! control plane is away the last answer stays in force.

use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse};
use envoy_types::pb::google::protobuf::Any;
use envoy_types::pb::google::rpc::Status;
use mesh_xds::TypeUrl;
use tokio::sync::mpsc;
use tonic::Code;
use tracing::warn;

use crate::backoff::Backoff;
use crate::endpoint::{ConnectError, Endpoint};

/// Follows all resources of a type.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// The control plane.
    pub upstream: Endpoint,
    /// Who we are.
    pub node: Node,
    /// What is asked for.
    pub kind: TypeUrl,
    /// The longest answer, in bytes.
    pub longest: usize,
}

#[derive(Debug, thiserror::Error)]
enum SubscriptionError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{:?}: {}", .0.code(), .0.message())]
    Status(#[from] tonic::Status),
    #[error("the control plane has ended the stream")]
    Ended,
}

/// An answer on its way into force.
struct Taking<F> {
    version: String,
    nonce: String,
    taken: Pin<Box<F>>,
}

impl Subscription {
    /// Follows for ever. `take` is given the resources of each answer; the future that it returns ends when they are in force,
    /// or with the reason why they never will be, which the control plane is told. A newer answer makes it obsolete.
    pub async fn run<F: Future<Output = Result<(), String>>>(self, mut take: impl FnMut(Vec<Any>) -> F) -> Infallible {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        let mut version = String::new();
        loop {
            let before = version.clone();
            let Err(error) = self.follow(&mut version, &mut take).await;
            if version != before {
                backoff.reset();
            }
            let wait = backoff.next(fastrand::f64());
            warn!(kind = self.kind.short(), "no stream of the agent's own, trying again in {wait:.1?}: {error}");
            tokio::time::sleep(wait).await;
        }
    }

    /// Follows one stream to its end. `version` is what is in force.
    async fn follow<F: Future<Output = Result<(), String>>>(
        &self,
        version: &mut String,
        take: &mut impl FnMut(Vec<Any>) -> F,
    ) -> Result<Infallible, SubscriptionError> {
        let channel = self.upstream.channel().await?;
        let (sender, receiver) = mpsc::channel(4);
        let asks = futures::stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
        let request = self.upstream.request(asks)?;
        // Whoever knows our version sends nothing while it is the newest.
        let first = DiscoveryRequest { node: Some(self.node.clone()), ..self.ask(version) };
        sender.send(first).await.map_err(|_| SubscriptionError::Ended)?;
        let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(self.longest);
        let mut answers = client.stream_aggregated_resources(request).await?.into_inner();
        let mut taking: Option<Taking<F>> = None;
        loop {
            tokio::select! {
                answer = answers.message() => {
                    let answer = answer?.ok_or(SubscriptionError::Ended)?;
                    let DiscoveryResponse { version_info: version, nonce, resources, .. } = answer;
                    taking = Some(Taking { version, nonce, taken: Box::pin(take(resources)) });
                }
                (new, nonce, taken) = ended(&mut taking) => {
                    taking = None;
                    let error_detail = taken.err().map(|message| Status {
                        code: Code::InvalidArgument as i32,
                        message,
                        ..Status::default()
                    });
                    if error_detail.is_none() {
                        *version = new;
                    }
                    let ask = DiscoveryRequest { response_nonce: nonce, error_detail, ..self.ask(version) };
                    sender.send(ask).await.map_err(|_| SubscriptionError::Ended)?;
                }
            }
        }
    }

    fn ask(&self, version: &str) -> DiscoveryRequest {
        DiscoveryRequest {
            type_url: self.kind.as_str().to_owned(),
            version_info: version.to_owned(),
            ..DiscoveryRequest::default()
        }
    }
}

/// Ends when the answer that is being taken is: its version, its nonce and how it went.
async fn ended<F: Future<Output = Result<(), String>>>(
    taking: &mut Option<Taking<F>>,
) -> (String, String, Result<(), String>) {
    match taking {
        Some(Taking { version, nonce, taken }) => {
            let taken = taken.as_mut().await;
            (version.clone(), nonce.clone(), taken)
        }
        None => pending().await,
    }
}
