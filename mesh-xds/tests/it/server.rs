//! The server against tonic's client of Envoy's own service definition.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use envoy_types::pb::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use envoy_types::pb::google::rpc::Status as RpcStatus;
use mesh_xds::server::{Backend, Caller, Counts, Options, Server};
use mesh_xds::{Resource, ResourceSet, TypeUrl};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

pub(crate) type World = BTreeMap<TypeUrl, ResourceSet>;

pub(crate) struct Fake(watch::Receiver<Arc<World>>);

impl Backend for Fake {
    type Snapshot = World;
    type Client = String;
    fn snapshots(&self) -> watch::Receiver<Arc<World>> {
        self.0.clone()
    }
    fn connect(&self, node: &Node, caller: &Caller<'_>) -> Result<String, Status> {
        assert!(caller.peer.address.is_some());
        if caller.headers.get("authorization").is_some_and(|v| v == "Bearer wrong") {
            return Err(Status::unauthenticated("this token is not ours"));
        }
        Ok(node.id.clone())
    }
    fn resources(&self, world: &World, _: &String, ty: TypeUrl) -> ResourceSet {
        world.get(&ty).cloned().unwrap_or_default()
    }
    fn counts(&self, world: &World) -> Option<Counts> {
        Some(Counts::new(world.len(), 7))
    }
}

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) server: Server<Fake>,
    world: watch::Sender<Arc<World>>,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    pub(crate) task: tokio::task::JoinHandle<std::io::Result<()>>,
}

pub(crate) async fn start(world: World) -> Running {
    start_at(world, ([127, 0, 0, 1], 0).into()).await
}

pub(crate) async fn start_at(world: World, address: SocketAddr) -> Running {
    let (sender, receiver) = watch::channel(Arc::new(world));
    let mut options = Options::default();
    options.max_request = 1 << 20;
    options.version = "1.2.3".into();
    let server = Server::builder(Fake(receiver)).options(options).build();
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let serving = server.clone();
    let task = tokio::spawn(async move {
        serving
            .serve(listener, async {
                let _ = stopped.await;
            })
            .await
    });
    Running { address, server, world: sender, stop: Some(stop), task }
}

impl Running {
    async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }
    async fn client(&self) -> AggregatedDiscoveryServiceClient<Channel> {
        AggregatedDiscoveryServiceClient::new(self.channel().await).max_decoding_message_size(64 << 20)
    }
    async fn sotw(&self) -> (mpsc::Sender<DiscoveryRequest>, Streaming<DiscoveryResponse>) {
        let (sender, receiver) = mpsc::channel(16);
        let stream = self.client().await.stream_aggregated_resources(ReceiverStream::new(receiver)).await.unwrap();
        (sender, stream.into_inner())
    }
    async fn delta(&self) -> (mpsc::Sender<DeltaDiscoveryRequest>, Streaming<DeltaDiscoveryResponse>) {
        let (sender, receiver) = mpsc::channel(16);
        let stream = self.client().await.delta_aggregated_resources(ReceiverStream::new(receiver)).await.unwrap();
        (sender, stream.into_inner())
    }
    pub(crate) fn set(&self, ty: TypeUrl, set: ResourceSet) {
        self.world.send_modify(|world| {
            Arc::make_mut(world).insert(ty, set);
        });
    }
    pub(crate) fn set_all(&self, world: World) {
        self.world.send_replace(Arc::new(world));
    }
    fn page(&self, path: &str) -> serde_json::Value {
        let response = self.server.page(path);
        assert_eq!(response.status(), 200, "{path}: {}", response.body());
        serde_json::from_str(response.body()).unwrap()
    }
}

fn node() -> Option<Node> {
    let text = |t: &str| Value { kind: Some(Kind::StringValue(t.into())) };
    let labels = Struct { fields: [("app".to_owned(), text("a"))].into() };
    let fields = [
        ("ISTIO_VERSION".to_owned(), text("1.31.0")),
        ("CLUSTER_ID".to_owned(), text("Kubernetes")),
        ("LABELS".to_owned(), Value { kind: Some(Kind::StructValue(labels)) }),
    ];
    let id = "sidecar~10.0.0.1~a.default~default.svc.cluster.local".to_owned();
    Some(Node { id, metadata: Some(Struct { fields: fields.into() }), ..Node::default() })
}

fn clusters(names: &[(&str, &str)]) -> ResourceSet {
    let one = |(name, alt): &(&str, &str)| {
        let cluster = Cluster { name: (*name).into(), alt_stat_name: (*alt).into(), ..Cluster::default() };
        Arc::new(Resource::encode(*name, &cluster))
    };
    ResourceSet::new(names.iter().map(one).collect())
}

fn endpoints(names: &[&str]) -> ResourceSet {
    let one = |name: &&str| {
        let assignment = ClusterLoadAssignment { cluster_name: (*name).into(), ..ClusterLoadAssignment::default() };
        Arc::new(Resource::encode(*name, &assignment))
    };
    ResourceSet::new(names.iter().map(one).collect())
}

/// Waits until something is so, which the server does on its own time.
async fn until(what: &str, mut so: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it never came to be that {what}");
}

#[tokio::test]
async fn state_of_the_world() {
    let running = start(World::from([(TypeUrl::Cluster, clusters(&[("a", ""), ("b", "")]))])).await;
    let (send, mut receive) = running.sotw().await;
    let request = |version: &str, nonce: &str| DiscoveryRequest {
        node: node(),
        type_url: TypeUrl::Cluster.as_str().into(),
        version_info: version.into(),
        response_nonce: nonce.into(),
        ..DiscoveryRequest::default()
    };
    send.send(request("", "")).await.unwrap();
    let first = receive.message().await.unwrap().unwrap();
    assert_eq!((first.resources.len(), first.type_url.as_str()), (2, TypeUrl::Cluster.as_str()));
    send.send(request(&first.version_info, &first.nonce)).await.unwrap();
    running.set(TypeUrl::Cluster, clusters(&[("a", "changed"), ("b", "")]));
    let second = receive.message().await.unwrap().unwrap();
    assert_ne!(second.version_info, first.version_info);
    let mut nack = request(&first.version_info, &second.nonce);
    nack.error_detail = Some(RpcStatus { code: 13, message: "a is bad".into(), details: vec![] });
    send.send(nack).await.unwrap();

    let connection = running.server.clients().list().remove(0);
    until("the rejection is known", || connection.status(TypeUrl::Cluster).unwrap().nack.is_some()).await;
    let sync = running.page("/debug/syncz");
    assert_eq!(sync[0]["proxy"], "a.default");
    assert_eq!(sync[0]["cluster_id"], "Kubernetes");
    assert_eq!((&sync[0]["cluster_sent"], &sync[0]["cluster_acked"]), (&"2".into(), &"1".into()));
    assert_eq!(sync[0]["resources"][TypeUrl::Cluster.as_str()]["lastError"], "a is bad");
    assert_eq!(running.page("/debug/syncz?namespace=other"), serde_json::json!([]));
    let metrics = running.server.page("/metrics").into_body();
    for line in [
        "pilot_xds{version=\"1.31.0\"} 1",
        "pilot_xds_pushes{type=\"cds\"} 2",
        "pilot_total_xds_rejects{type=\"cds\"} 1",
        "pilot_services 1",
        "pilot_virt_services 7",
        "pilot_info{version=\"1.2.3\"} 1",
        "istio_build{component=\"pilot\",tag=\"1.2.3\"} 1",
    ] {
        assert!(metrics.lines().any(|l| l == line), "no `{line}` in\n{metrics}");
    }
    assert!(metrics.contains("pilot_xds_cds_reject{node=\"sidecar~10.0.0.1~a.default~default.svc.cluster.local\""));
    drop(send);
    assert!(receive.message().await.unwrap().is_none(), "the stream ends well when the client ends it");
    until("the client is gone", || running.server.clients().is_empty()).await;
}

#[tokio::test]
async fn delta() {
    let world = [(TypeUrl::Cluster, clusters(&[("a", ""), ("b", "")])), (TypeUrl::Endpoint, endpoints(&["a", "b"]))];
    let running = start(World::from(world)).await;
    let (send, mut receive) = running.delta().await;
    let request = |ty: TypeUrl, nonce: &str, names: &[&str]| DeltaDiscoveryRequest {
        node: node(),
        type_url: ty.as_str().into(),
        response_nonce: nonce.into(),
        resource_names_subscribe: names.iter().map(|n| (*n).to_owned()).collect(),
        ..DeltaDiscoveryRequest::default()
    };
    let names = |m: &DeltaDiscoveryResponse| m.resources.iter().map(|r| r.name.clone()).collect::<Vec<_>>();
    send.send(request(TypeUrl::Cluster, "", &[])).await.unwrap();
    let first = receive.message().await.unwrap().unwrap();
    assert_eq!(names(&first), ["a", "b"]);
    send.send(request(TypeUrl::Cluster, &first.nonce, &[])).await.unwrap();
    send.send(request(TypeUrl::Endpoint, "", &["a", "b", "none"])).await.unwrap();
    let second = receive.message().await.unwrap().unwrap();
    assert_eq!((names(&second), &second.removed_resources), (vec!["a".into(), "b".into()], &vec!["none".into()]));
    send.send(request(TypeUrl::Endpoint, &second.nonce, &[])).await.unwrap();
    running.set(TypeUrl::Cluster, clusters(&[("b", ""), ("c", "")]));
    let third = receive.message().await.unwrap().unwrap();
    assert_eq!((names(&third), third.removed_resources.len()), (vec!["c".into()], 0));
    send.send(request(TypeUrl::Cluster, &third.nonce, &[])).await.unwrap();
    let fourth = receive.message().await.unwrap().unwrap();
    assert_eq!(fourth.removed_resources, ["a"]);
    send.send(request(TypeUrl::Cluster, &fourth.nonce, &[])).await.unwrap();
    let connection = running.server.clients().list().remove(0);
    until("all is acknowledged", || connection.status(TypeUrl::Cluster).unwrap().acked_nonce == 4).await;
    assert!(connection.is_settled());

    let ads = running.page("/debug/adsz?proxyID=a.default");
    assert_eq!(ads["totalClients"], 1);
    assert_eq!(ads["clients"][0]["labels"]["app"], "a");
    assert_eq!(ads["clients"][0]["watches"][TypeUrl::Endpoint.as_str()], serde_json::json!(["a", "b", "none"]));
    assert_eq!(running.page("/debug/connections")["clients"][0]["connectionId"], connection.id());
    let dump = running.page("/debug/config_dump?proxyID=a.default&include_eds&pretty");
    let shown = dump["configs"][1]["dynamicActiveClusters"].as_array().unwrap();
    assert_eq!(shown.iter().map(|c| c["cluster"]["name"].as_str().unwrap()).collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(dump["configs"][2]["dynamicEndpointConfigs"].as_array().unwrap().len(), 2);
    assert_eq!(running.page("/debug/edsz?proxyID=a.default")["configs"].as_array().unwrap().len(), 2);
    assert_eq!(running.server.page("/debug/config_dump?proxyID=nobody").status(), 404);
    assert_eq!(running.server.page("/debug/config_dump").status(), 400);
    assert_eq!(running.server.page("/debug/nothing").status(), 404);
    let pages = running.page("/debug/list");
    for page in pages.as_array().unwrap() {
        let page = page.as_str().unwrap();
        running.page(&format!("/debug/{page}?proxyID=a.default"));
    }
}

#[tokio::test]
async fn clients_are_told_what_they_did() {
    let running = start(World::new()).await;
    let status = |mut receive: Streaming<DiscoveryResponse>| async move { receive.message().await.unwrap_err() };
    let (send, receive) = running.sotw().await;
    send.send(DiscoveryRequest { type_url: "t".into(), ..Default::default() }).await.unwrap();
    let error = status(receive).await;
    assert_eq!((error.code(), error.message()), (Code::InvalidArgument, "the first request of the stream has no node"));

    let (send, receive) = running.sotw().await;
    let names = vec!["x".repeat(2 << 20)];
    send.send(DiscoveryRequest { node: node(), resource_names: names, ..Default::default() }).await.unwrap();
    assert_eq!(status(receive).await.code(), Code::ResourceExhausted);

    let (send, receiver) = mpsc::channel(1);
    let mut request = tonic::Request::new(ReceiverStream::new(receiver));
    request.metadata_mut().insert("authorization", "Bearer wrong".parse().unwrap());
    send.send(DiscoveryRequest { node: node(), ..Default::default() }).await.unwrap();
    let receive = running.client().await.stream_aggregated_resources(request).await.unwrap().into_inner();
    let error = status(receive).await;
    assert_eq!((error.code(), error.message()), (Code::Unauthenticated, "this token is not ours"));
    assert!(running.server.clients().is_empty());

    // Another service, another method.
    let mut grpc = tonic::client::Grpc::new(running.channel().await);
    grpc.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/no.Such/Thing");
    let codec = tonic_prost::ProstCodec::<DiscoveryRequest, DiscoveryResponse>::default();
    let error = grpc.unary(tonic::Request::new(DiscoveryRequest::default()), path, codec).await.unwrap_err();
    assert_eq!(error.code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_slow_client_gets_the_newest_and_holds_back_nobody() {
    let world = |generation: usize| {
        let filler = format!("{generation}-{}", "x".repeat(2_000));
        let names: Vec<String> = (0..2_000).map(|i| format!("outbound|80||s{i}")).collect();
        clusters(&names.iter().map(|n| (n.as_str(), filler.as_str())).collect::<Vec<_>>())
    };
    let running = start(World::from([(TypeUrl::Cluster, world(0))])).await;
    let request = |nonce: &str| DiscoveryRequest {
        node: node(),
        type_url: TypeUrl::Cluster.as_str().into(),
        response_nonce: nonce.into(),
        ..DiscoveryRequest::default()
    };
    let generation = |m: &DiscoveryResponse| {
        assert_eq!(m.resources.len(), 2_000);
        let value = Resource::from_value("x".into(), "", &m.resources[7].value).decode::<Cluster>().unwrap();
        value.alt_stat_name.split('-').next().unwrap().parse::<usize>().unwrap()
    };
    let (send_slow, mut slow) = running.sotw().await;
    send_slow.send(request("")).await.unwrap();
    let (send, mut quick) = running.sotw().await;
    send.send(request("")).await.unwrap();
    for round in 0..10 {
        let message = quick.message().await.unwrap().unwrap();
        assert_eq!(generation(&message), round);
        send.send(request(&message.nonce)).await.unwrap();
        if round < 9 {
            running.set(TypeUrl::Cluster, world(round + 1));
        }
    }
    let mut seen = Vec::new();
    while seen.last() != Some(&9) {
        let message = slow.message().await.unwrap().unwrap();
        seen.push(generation(&message));
        send_slow.send(request(&message.nonce)).await.unwrap();
    }
    assert!(seen.len() <= 3, "{seen:?}");
}

#[tokio::test]
async fn health_and_reflection_are_on_the_same_port_and_shutdown_ends_streams() {
    let mut running = start(World::new()).await;
    let mut health = tonic_health::pb::health_client::HealthClient::new(running.channel().await);
    let service = mesh_xds::server::SERVICE.to_owned();
    let request = tonic_health::pb::HealthCheckRequest { service: service.clone() };
    assert_eq!(health.check(request).await.unwrap().into_inner().status, 1);

    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let ask = |request| tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(request),
    };
    let asked = tokio_stream::iter([
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol(service.clone())),
    ]);
    let mut reflection = ServerReflectionClient::new(running.channel().await);
    let mut answers = reflection.server_reflection_info(asked).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("not a list of services")
    };
    assert!(list.service.iter().any(|s| s.name == service));
    let found = answers.message().await.unwrap().unwrap().message_response;
    assert!(matches!(found, Some(MessageResponse::FileDescriptorResponse(_))));

    let (send, mut receive) = running.delta().await;
    let request = DeltaDiscoveryRequest {
        node: node(),
        type_url: TypeUrl::Cluster.as_str().into(),
        ..DeltaDiscoveryRequest::default()
    };
    send.send(request).await.unwrap();
    receive.message().await.unwrap().unwrap();
    drop(running.stop.take());
    let error = receive.message().await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    tokio::time::timeout(Duration::from_secs(10), running.task).await.expect("it returns").unwrap().unwrap();
}

/// Remembers the newest generation that it was asked for, as a memo would.
struct OnlyForward {
    generations: watch::Sender<Arc<u64>>,
    newest: AtomicU64,
    went_back: AtomicU64,
}

impl Backend for OnlyForward {
    type Snapshot = u64;
    type Client = ();
    fn snapshots(&self) -> watch::Receiver<Arc<u64>> {
        self.generations.subscribe()
    }
    fn connect(&self, _: &Node, _: &Caller<'_>) -> Result<(), Status> {
        Ok(())
    }
    fn resources(&self, generation: &u64, (): &(), _: TypeUrl) -> ResourceSet {
        if self.newest.fetch_max(*generation, Ordering::SeqCst) > *generation {
            self.went_back.fetch_add(1, Ordering::SeqCst);
        }
        clusters(&[("a", generation.to_string().as_str())])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_streams_and_many_snapshots_never_go_back() {
    let server = Server::builder(OnlyForward {
        generations: watch::Sender::new(Arc::new(0)),
        newest: AtomicU64::new(0),
        went_back: AtomicU64::new(0),
    })
    .build();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = server.clone();
    let task = tokio::spawn(async move { serving.serve(listener, std::future::pending()).await });
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..16 {
        clients.spawn(async move {
            let mut client = AggregatedDiscoveryServiceClient::connect(format!("http://{address}")).await.unwrap();
            let (send, receiver) = mpsc::channel(16);
            let mut stream =
                client.stream_aggregated_resources(ReceiverStream::new(receiver)).await.unwrap().into_inner();
            let mut request = DiscoveryRequest {
                node: node(),
                type_url: TypeUrl::Cluster.as_str().into(),
                ..DiscoveryRequest::default()
            };
            loop {
                send.send(request.clone()).await.unwrap();
                let message = stream.message().await.unwrap().unwrap();
                let resource = Resource::from_value("x".into(), "", &message.resources[0].value);
                if resource.decode::<Cluster>().unwrap().alt_stat_name == "500" {
                    return;
                }
                request.response_nonce = message.nonce;
            }
        });
    }
    until("all are there", || server.clients().len() == 16).await;
    for generation in 1..=500 {
        server.backend().generations.send_replace(Arc::new(generation));
        if generation % 50 == 0 {
            server.page("/debug/config_dump?proxyID=a.default");
        }
        tokio::task::yield_now().await;
    }
    let all = async { while clients.join_next().await.is_some_and(|c| c.map_err(|e| panic!("{e}")).is_ok()) {} };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect("all see the newest");
    assert_eq!(server.backend().went_back.load(Ordering::SeqCst), 0);
    task.abort();
}

#[tokio::test]
async fn pages_over_http() {
    let running = start(World::new()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = running.server.clone();
    let task = tokio::spawn(async move { server.serve_http(listener, std::future::pending()).await });
    for (path, status) in
        [("/ready", "200"), ("/metrics", "200"), ("/debug", "200"), ("/debug/syncz", "200"), ("/nothing", "404")]
    {
        let mut io = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        io.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
    task.abort();
}
