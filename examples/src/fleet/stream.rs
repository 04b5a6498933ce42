//! One proxy of the fleet: its own connection, one ADS stream, Envoy's order CDS, EDS, LDS, RDS, an ACK for everything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use mesh_xds::TypeUrl;
use prost::Message;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Channel, Endpoint};

use super::wire::{Raw, fields, numbers};

/// Which of the two protocols.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Protocol {
    /// State of the world.
    Sotw,
    /// Incremental.
    Delta,
}

/// What a proxy tells the measurement.
#[derive(Debug)]
pub enum Event {
    /// It has everything.
    Warm,
    /// A response came: how many bytes, and whether the marker was in it.
    Received {
        /// Bytes of the message.
        bytes: usize,
        /// When the marker was found.
        found: Option<Instant>,
    },
    /// The stream ended; the fleet has failed.
    Ended(String),
}

/// What is common to all proxies.
#[derive(Clone)]
pub struct Fleet {
    /// `http://127.0.0.1:15010`.
    pub server: String,
    /// The protocol.
    pub protocol: Protocol,
    /// What to look for in responses; empty for nothing.
    pub marker: watch::Receiver<Arc<[u8]>>,
    /// Where events go.
    pub events: mpsc::UnboundedSender<Event>,
}

impl Fleet {
    /// Runs one proxy until the task is dropped or the stream ends.
    pub async fn proxy(self, number: usize, namespace: String) {
        let events = self.events.clone();
        let ended = match self.run(number, namespace).await {
            Ok(()) => "the server closed the stream".to_owned(),
            Err(e) => format!("{e:#}"),
        };
        let _ = events.send(Event::Ended(ended));
    }

    async fn run(self, number: usize, namespace: String) -> anyhow::Result<()> {
        let channel = Endpoint::from_shared(self.server.clone())?
            .initial_stream_window_size(256 * 1024)
            .initial_connection_window_size(1024 * 1024)
            .connect()
            .await?;
        let (requests, outgoing) = mpsc::unbounded_channel();
        let mut proxy = ProxyStream {
            protocol: self.protocol,
            requests,
            clusters: Vec::new(),
            routes: Vec::new(),
            resources: BTreeMap::new(),
            warm: false,
        };
        proxy.subscribe(TypeUrl::Cluster, &[], Some(node(number, &namespace)))?;
        let mut responses = open(channel, self.protocol, outgoing).await?;
        while let Some(response) = responses.message().await? {
            let marker = self.marker.borrow().clone();
            let found = (!marker.is_empty() && memchr::memmem::find(&response, &marker).is_some()).then(Instant::now);
            let bytes = response.len();
            proxy.received(response)?;
            if proxy.take_warm() {
                self.events.send(Event::Warm)?;
            }
            self.events.send(Event::Received { bytes, found })?;
        }
        Ok(())
    }
}

async fn open(
    channel: Channel,
    protocol: Protocol,
    outgoing: mpsc::UnboundedReceiver<Vec<u8>>,
) -> anyhow::Result<tonic::Streaming<Bytes>> {
    let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(256 << 20);
    client.ready().await?;
    let path = match protocol {
        Protocol::Sotw => "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
        Protocol::Delta => "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
    };
    let request = tonic::Request::new(UnboundedReceiverStream::new(outgoing));
    Ok(client.streaming(request, path.parse()?, Raw).await?.into_inner())
}

fn node(number: usize, namespace: &str) -> Node {
    let text = |s: &str| Value { kind: Some(Kind::StringValue(s.to_owned())) };
    let metadata = [
        ("NAMESPACE".to_owned(), text(namespace)),
        ("ISTIO_VERSION".to_owned(), text("1.31.0")),
        ("CLUSTER_ID".to_owned(), text("Kubernetes")),
    ];
    Node {
        id: format!(
            "sidecar~10.254.{}.{}~app-{number}.{namespace}~{namespace}.svc.cluster.local",
            number / 250,
            number % 250 + 1
        ),
        cluster: format!("app-{number}.{namespace}"),
        metadata: Some(Struct { fields: metadata.into() }),
        ..Default::default()
    }
}

struct ProxyStream {
    protocol: Protocol,
    requests: mpsc::UnboundedSender<Vec<u8>>,
    clusters: Vec<String>,
    routes: Vec<String>,
    /// What a type was last asked with.
    resources: BTreeMap<TypeUrl, Vec<String>>,
    warm: bool,
}

impl ProxyStream {
    fn take_warm(&mut self) -> bool {
        std::mem::take(&mut self.warm)
    }

    /// Subscribes to a type, or changes the names that are wanted of it.
    fn subscribe(&mut self, kind: TypeUrl, names: &[String], node: Option<Node>) -> anyhow::Result<()> {
        let before = self.resources.insert(kind, names.to_vec());
        let type_url = kind.as_str().to_owned();
        let bytes = match self.protocol {
            Protocol::Sotw => DiscoveryRequest { node, type_url, resource_names: names.to_vec(), ..Default::default() }
                .encode_to_vec(),
            Protocol::Delta => {
                let before = before.unwrap_or_default();
                let new = |name: &&String| before.binary_search(name).is_err();
                let gone = |name: &&String| names.binary_search(name).is_err();
                DeltaDiscoveryRequest {
                    node,
                    type_url,
                    resource_names_subscribe: names.iter().filter(new).cloned().collect(),
                    resource_names_unsubscribe: before.iter().filter(gone).cloned().collect(),
                    ..Default::default()
                }
                .encode_to_vec()
            }
        };
        self.requests.send(bytes)?;
        Ok(())
    }

    fn received(&mut self, response: Bytes) -> anyhow::Result<()> {
        let (mut version, mut nonce, mut url, mut resources) =
            (String::new(), String::new(), String::new(), Vec::new());
        for (tag, content) in fields(response) {
            let text = || String::from_utf8_lossy(&content).into_owned();
            match (self.protocol, tag) {
                (_, 4) => url = text(),
                (_, 5) => nonce = text(),
                (Protocol::Sotw, 1) => version = text(),
                (Protocol::Sotw, 2) => resources.push(content),
                (Protocol::Delta, 2) => {
                    resources.extend(fields(content).filter(|(tag, _)| *tag == 2).map(|(_, any)| any))
                }
                _ => {}
            }
        }
        let kind = TypeUrl::parse(&url).ok_or_else(|| anyhow::anyhow!("a response of type {url:?}"))?;
        self.acknowledge(kind, url, version, nonce)?;
        let first = |next: TypeUrl, asked: &BTreeMap<TypeUrl, Vec<String>>| !asked.contains_key(&next);
        match kind {
            TypeUrl::Cluster if first(TypeUrl::Endpoint, &self.resources) => {
                self.clusters = resources.iter().filter_map(eds_name).collect();
                self.clusters.sort();
                self.subscribe(TypeUrl::Endpoint, &self.clusters.clone(), None)?;
            }
            TypeUrl::Endpoint if first(TypeUrl::Listener, &self.resources) => {
                self.subscribe(TypeUrl::Listener, &[], None)?
            }
            TypeUrl::Listener if first(TypeUrl::Route, &self.resources) => {
                self.routes = resources.iter().flat_map(rds_names).collect();
                self.routes.sort();
                self.routes.dedup();
                self.subscribe(TypeUrl::Route, &self.routes.clone(), None)?;
                // An ACK of listeners without routes is all that there is to wait for.
                self.warm = self.routes.is_empty();
                if self.warm {
                    self.resources.insert(TypeUrl::Secret, Vec::new());
                }
            }
            TypeUrl::Route if first(TypeUrl::Secret, &self.resources) => {
                self.warm = true;
                self.resources.insert(TypeUrl::Secret, Vec::new());
            }
            _ => {}
        }
        Ok(())
    }

    fn acknowledge(
        &mut self,
        kind: TypeUrl,
        type_url: String,
        version_info: String,
        nonce: String,
    ) -> anyhow::Result<()> {
        let bytes = match self.protocol {
            Protocol::Sotw => DiscoveryRequest {
                type_url,
                version_info,
                response_nonce: nonce,
                resource_names: self.resources.get(&kind).cloned().unwrap_or_default(),
                ..Default::default()
            }
            .encode_to_vec(),
            Protocol::Delta => {
                DeltaDiscoveryRequest { type_url, response_nonce: nonce, ..Default::default() }.encode_to_vec()
            }
        };
        self.requests.send(bytes)?;
        Ok(())
    }
}

/// The message in an `Any`.
fn value(any: &Bytes) -> Option<Bytes> {
    fields(any.clone()).find(|(tag, _)| *tag == 2).map(|(_, value)| value)
}

/// The name under which a cluster asks for endpoints, if it does.
fn eds_name(any: &Bytes) -> Option<String> {
    let cluster = value(any)?;
    // `type` is field 2, EDS is 3.
    let eds = numbers(cluster.clone()).iter().any(|(tag, value)| *tag == 2 && *value == 3);
    let name = fields(cluster).find(|(tag, _)| *tag == 1).map(|(_, name)| name)?;
    eds.then(|| String::from_utf8_lossy(&name).into_owned())
}

/// The route configurations that a listener names.
fn rds_names(any: &Bytes) -> Vec<String> {
    use envoy_types::pb::envoy::config::listener::v3::{Listener, filter::ConfigType};
    use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
        HttpConnectionManager, http_connection_manager::RouteSpecifier,
    };
    let Some(listener) = value(any).and_then(|v| Listener::decode(v).ok()) else { return Vec::new() };
    listener
        .filter_chains
        .iter()
        .chain(&listener.default_filter_chain)
        .flat_map(|chain| &chain.filters)
        .filter_map(|filter| match &filter.config_type {
            Some(ConfigType::TypedConfig(any)) if any.type_url.ends_with(".HttpConnectionManager") => {
                match HttpConnectionManager::decode(any.value.as_slice()).ok()?.route_specifier? {
                    RouteSpecifier::Rds(rds) => Some(rds.route_config_name),
                    _ => None,
                }
            }
            _ => None,
        })
        .collect()
}
