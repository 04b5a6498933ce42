//! A proxy that asks as Envoy does, over the delta protocol: clusters and listeners, then the endpoints and routes that these
//! name. It keeps what it was sent, and remembers every removal.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType};
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::listener::v3::Listener;
use envoy_types::pb::envoy::config::listener::v3::filter::ConfigType;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use mesh_xds::TypeUrl;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tonic::transport::Channel;

/// What a proxy holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Held {
    /// By type and name.
    pub(crate) resources: BTreeMap<(&'static str, String), Vec<u8>>,
    /// The names of all that the server ever took away.
    pub(crate) removed: BTreeSet<String>,
    /// Why the stream ended.
    ended: Option<String>,
}

impl Held {
    /// True when nothing is gone since.
    pub(crate) fn keeps(&self, before: &Held) -> bool {
        self.removed == before.removed && before.resources.keys().all(|key| self.resources.contains_key(key))
    }

    /// True when a resource of this type and name holds the text.
    pub(crate) fn says(&self, of: TypeUrl, name: &str, text: &str) -> bool {
        let resource = self.resources.get(&(of.as_str(), name.to_owned()));
        resource.is_some_and(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
    }
}

/// A connected proxy.
pub(crate) struct Proxy {
    held: watch::Receiver<Held>,
    task: AbortHandle,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    /// A sidecar of the namespace `default` at a plaintext port.
    pub(crate) async fn sidecar(address: &str) -> Self {
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let (tell, held) = watch::channel(Held::default());
        let task = tokio::spawn(async move {
            let ended = Stream::default().run(channel, &tell).await;
            tell.send_modify(|held| held.ended = Some(format!("{ended:?}")));
        });
        Self { held, task: task.abort_handle() }
    }

    /// What it holds by now. A proxy whose stream has ended fails the test.
    pub(crate) fn held(&self) -> Held {
        let held = self.held.borrow().clone();
        assert_eq!(held.ended, None, "the stream of a proxy must not end");
        held
    }

    /// Waits, not for longer than a push may be late, until what it holds satisfies.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Held) -> bool) {
        let mut held = self.held.clone();
        let found = tokio::time::timeout(Duration::from_secs(30), held.wait_for(|held| holds(held))).await;
        let names = || self.held().resources.into_keys().collect::<Vec<_>>();
        assert!(found.is_ok(), "{what} did not come within 30 s; held are {:?}", names());
    }
}

/// The state of one stream.
#[derive(Default)]
struct Stream {
    resources: BTreeMap<(&'static str, String), Vec<u8>>,
    /// What was asked for by name.
    asked: BTreeMap<&'static str, BTreeSet<String>>,
}

impl Stream {
    async fn run(mut self, channel: Channel, tell: &watch::Sender<Held>) -> Result<(), tonic::Status> {
        let (requests, mut outgoing) = mpsc::unbounded_channel();
        let mut node = Some(node());
        for of in [TypeUrl::Cluster, TypeUrl::Listener] {
            let request = DeltaDiscoveryRequest { node: node.take(), ..request(of.as_str()) };
            requests.send(request).unwrap();
        }
        let outgoing = futures::stream::poll_fn(move |context| outgoing.poll_recv(context));
        let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(64 << 20);
        let mut answers = client.delta_aggregated_resources(outgoing).await?.into_inner();
        while let Some(answer) = answers.message().await? {
            let of = TypeUrl::parse(&answer.type_url).unwrap().as_str();
            requests.send(DeltaDiscoveryRequest { response_nonce: answer.nonce.clone(), ..request(of) }).unwrap();
            let removed = self.take(of, answer);
            for (of, names) in [(TypeUrl::Endpoint, self.clusters()), (TypeUrl::Route, self.routes())] {
                if let Some(request) = self.ask(of.as_str(), names) {
                    requests.send(request).unwrap();
                }
            }
            tell.send_modify(|held| {
                held.removed.extend(removed);
                held.resources.clone_from(&self.resources);
            });
        }
        Ok(())
    }

    /// Takes an answer in; what it takes away comes back.
    fn take(&mut self, of: &'static str, answer: DeltaDiscoveryResponse) -> Vec<String> {
        for resource in answer.resources {
            self.resources.insert((of, resource.name), resource.resource.unwrap().value);
        }
        for name in &answer.removed_resources {
            self.resources.remove(&(of, name.clone()));
        }
        answer.removed_resources
    }

    /// Asks for what is named now and was not, and no longer for what is not.
    fn ask(&mut self, of: &'static str, names: BTreeSet<String>) -> Option<DeltaDiscoveryRequest> {
        let asked = self.asked.entry(of).or_default();
        let more: Vec<String> = names.difference(asked).cloned().collect();
        let less: Vec<String> = asked.difference(&names).cloned().collect();
        *asked = names;
        for name in &less {
            self.resources.remove(&(of, name.clone()));
        }
        let differs = !(more.is_empty() && less.is_empty());
        differs.then(|| DeltaDiscoveryRequest {
            resource_names_subscribe: more,
            resource_names_unsubscribe: less,
            ..request(of)
        })
    }

    fn of_type<M: Message + Default>(&self, of: TypeUrl) -> impl Iterator<Item = M> {
        let of_type = self.resources.iter().filter(move |((kind, _), _)| *kind == of.as_str());
        of_type.map(|(_, bytes)| M::decode(bytes.as_slice()).unwrap())
    }

    /// The clusters whose endpoints are asked for.
    fn clusters(&self) -> BTreeSet<String> {
        let by_eds = |cluster: &Cluster| matches!(cluster.cluster_discovery_type, Some(ClusterDiscoveryType::Type(kind)) if kind == DiscoveryType::Eds as i32);
        self.of_type::<Cluster>(TypeUrl::Cluster).filter(by_eds).map(|cluster| cluster.name).collect()
    }

    /// The route configurations that listeners name.
    fn routes(&self) -> BTreeSet<String> {
        let chains = |listener: Listener| listener.filter_chains.into_iter().chain(listener.default_filter_chain);
        let filters = self.of_type::<Listener>(TypeUrl::Listener).flat_map(chains).flat_map(|chain| chain.filters);
        let configs = filters.filter_map(|filter| match filter.config_type {
            Some(ConfigType::TypedConfig(any)) if any.type_url.ends_with(".HttpConnectionManager") => {
                HttpConnectionManager::decode(any.value.as_slice()).unwrap().route_specifier
            }
            _ => None,
        });
        let named = |specifier| match specifier {
            RouteSpecifier::Rds(rds) => Some(rds.route_config_name),
            _ => None,
        };
        configs.filter_map(named).collect()
    }
}

fn request(of: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: of.to_owned(), ..DeltaDiscoveryRequest::default() }
}

fn node() -> Node {
    let text = |text: &str| Value { kind: Some(Kind::StringValue(text.into())) };
    let fields =
        [("ISTIO_VERSION", text("1.31.0")), ("CLUSTER_ID", text("Kubernetes")), ("NAMESPACE", text("default"))];
    let fields = fields.map(|(name, value)| (name.to_owned(), value)).into();
    let id = "sidecar~10.0.0.1~a.default~default.svc.cluster.local".to_owned();
    Node { id, metadata: Some(Struct { fields }), ..Node::default() }
}
