//! A client of gRPC subscribes over a real socket.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use hyper_util::rt::TokioIo;
use tokio::sync::{mpsc, watch};
use tonic::transport::{Channel, Endpoint};

use super::*;
use crate::secrets::Workload;

async fn client(path: &std::path::Path) -> SecretDiscoveryServiceClient<Channel> {
    let path = path.to_owned();
    let connect = tower::service_fn(move |_| {
        let path = path.clone();
        async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://agent").connect_with_connector(connect).await.unwrap();
    SecretDiscoveryServiceClient::new(channel)
}

fn asks<T: Send + 'static>() -> (mpsc::UnboundedSender<T>, impl Stream<Item = T> + Send + 'static) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let next = |mut receiver: mpsc::UnboundedReceiver<T>| async { receiver.recv().await.map(|ask| (ask, receiver)) };
    (sender, futures::stream::unfold(receiver, next))
}

fn names(resources: &[Any]) -> Vec<(String, bool)> {
    let secret = |any: &Any| tls::Secret::decode(any.value.as_slice()).unwrap();
    let named =
        |secret: tls::Secret| (secret.name, matches!(secret.r#type, Some(tls::secret::Type::TlsCertificate(_))));
    resources.iter().map(secret).map(named).collect()
}

#[tokio::test]
async fn secrets_are_pushed_when_they_change() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (publish, workloads) = watch::channel(Arc::new(Workload::default()));
    let revoked = folder.path().join("ca-crl.pem");
    let server = Server::new(workloads).revoked(revoked.clone());
    let serving = tokio::spawn(server.serve(Socket::bind(&path).unwrap()));
    let mut client = client(&path).await;

    let root = folder.path().join("root.pem");
    std::fs::write(&root, "one").unwrap();
    let file = format!("file-root:{}", root.display());
    let (sender, stream) = asks();
    let ask = |names: &[&str]| DiscoveryRequest {
        resource_names: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Default::default()
    };
    sender.send(ask(&["default", "ROOTCA", &file])).unwrap();
    let mut answers = client.stream_secrets(stream).await.unwrap().into_inner();
    let first = answers.message().await.unwrap().unwrap();
    assert_eq!(names(&first.resources), [(file.clone(), false)], "what is not there is waited for");

    publish.send_replace(Arc::new(Workload::new("chain", "key", "roots")));
    let second = answers.message().await.unwrap().unwrap();
    assert_eq!(names(&second.resources), [("ROOTCA".into(), false), ("default".into(), true)]);
    assert_ne!(first.nonce, second.nonce);

    std::fs::write(folder.path().join("new"), "two!").unwrap();
    std::fs::rename(folder.path().join("new"), &root).unwrap();
    let third = answers.message().await.unwrap().unwrap();
    assert_eq!(names(&third.resources), [(file, false)]);

    std::fs::write(&revoked, "lists").unwrap();
    let fourth = answers.message().await.unwrap().unwrap();
    let secret = tls::Secret::decode(fourth.resources[0].value.as_slice()).unwrap();
    let Some(tls::secret::Type::ValidationContext(roots)) = secret.r#type else { panic!("{secret:?}") };
    let text = |source: Option<DataSource>| match source.and_then(|source| source.specifier) {
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes).unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!((text(roots.trusted_ca), text(roots.crl)), ("roots".into(), "lists".into()));

    // A reconnect over delta that has what there is is sent nothing until something changes.
    let (sender, stream) = asks();
    let has = Workload::new("chain", "key", "roots").get("default").unwrap().version();
    let ask = DeltaDiscoveryRequest {
        resource_names_subscribe: vec!["default".into()],
        initial_resource_versions: [("default".to_owned(), has)].into(),
        ..Default::default()
    };
    sender.send(ask).unwrap();
    let mut answers = client.delta_secrets(stream).await.unwrap().into_inner();
    assert!(tokio::time::timeout(Duration::from_millis(200), answers.message()).await.is_err());
    publish.send_replace(Arc::new(Workload::new("new chain", "key", "roots")));
    let changed = answers.message().await.unwrap().unwrap();
    assert_eq!(changed.resources.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["default"]);

    let fetched =
        client.fetch_secrets(DiscoveryRequest { resource_names: vec!["ROOTCA".into()], ..Default::default() });
    assert_eq!(names(&fetched.await.unwrap().into_inner().resources), [("ROOTCA".into(), false)]);
    serving.abort();
}

#[tokio::test]
async fn garbage_and_silence_harm_nobody() {
    use tokio::io::AsyncWriteExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (_publish, workloads) = watch::channel(Arc::new(Workload::new("chain", "key", "roots")));
    let serving = tokio::spawn(Server::new(workloads).serve(Socket::bind(&path).unwrap()));
    let mut held = Vec::new();
    for n in 0..100 {
        let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
        if n % 2 == 0 {
            stream.write_all(&[n; 4096]).await.unwrap();
        }
        held.push(stream);
    }
    let mut client = client(&path).await;
    let ask = DiscoveryRequest { resource_names: vec!["default".into()], ..Default::default() };
    let answer = tokio::time::timeout(Duration::from_secs(5), client.fetch_secrets(ask)).await.unwrap().unwrap();
    assert_eq!(answer.into_inner().resources.len(), 1);
    serving.abort();
}

#[tokio::test]
async fn roots_are_accepted_when_every_stream_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let workload = |roots: &'static str| Arc::new(Workload::new("chain", "key", roots));
    let roots = |workload: &Workload| workload.get("ROOTCA").unwrap();
    let first = workload("roots");
    let (publish, workloads) = watch::channel(first.clone());
    let revoked = folder.path().join("ca-crl.pem");
    let server = Server::new(workloads).revoked(revoked.clone());
    let acceptance = server.acceptance();
    let waits = async |workload: &Workload| {
        tokio::time::timeout(Duration::from_millis(100), acceptance.of(&roots(workload))).await.is_err()
    };
    let serving = tokio::spawn(server.serve(Socket::bind(&path).unwrap()));
    acceptance.of(&roots(&first)).await;

    let mut client = client(&path).await;
    let (sender, stream) = asks();
    let ask = |nonce: &str| DiscoveryRequest {
        resource_names: vec!["ROOTCA".into()],
        response_nonce: nonce.into(),
        ..Default::default()
    };
    sender.send(ask("")).unwrap();
    let mut answers = client.stream_secrets(stream).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap();
    assert!(waits(&first).await, "sent is not accepted");
    let error_detail = Some(Default::default());
    sender.send(DiscoveryRequest { error_detail, ..ask(&answer.nonce) }).unwrap();
    assert!(waits(&first).await, "refused is not accepted");
    sender.send(ask(&answer.nonce)).unwrap();
    acceptance.of(&roots(&first)).await;

    let second = workload("new roots");
    publish.send_replace(second.clone());
    let answer = answers.message().await.unwrap().unwrap();
    assert!(waits(&second).await, "the last accepted is another");
    sender.send(ask(&answer.nonce)).unwrap();
    acceptance.of(&roots(&second)).await;
    // Lists that come later are sent with the roots.
    std::fs::write(&revoked, "lists").unwrap();
    let answer = answers.message().await.unwrap().unwrap();
    assert!(waits(&second).await);
    sender.send(ask(&answer.nonce)).unwrap();
    acceptance.of(&roots(&second)).await;
    // Who is gone is not waited for.
    let third = workload("third roots");
    publish.send_replace(third.clone());
    answers.message().await.unwrap().unwrap();
    assert!(waits(&third).await);
    drop((sender, answers));
    acceptance.of(&roots(&third)).await;
    serving.abort();
}
