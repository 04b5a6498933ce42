//! Real sockets, with a name server of our own behind.

use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::*;

/// A name server: `*.cached.` live long, `*.long.` have 100 addresses, `*.silent.` are never answered. Counts questions.
async fn upstream() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(address).await.unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let answer = move |bytes: &[u8]| {
        count.fetch_add(1, Ordering::Relaxed);
        let question = Message::from_vec(bytes).unwrap();
        let name = question.queries[0].name().clone();
        let text = name.to_ascii();
        if text.ends_with("silent.") {
            return None;
        }
        let mut answer = question.into_response();
        let (addresses, ttl) =
            (if text.ends_with("long.") { 100 } else { 1 }, if text.ends_with("cached.") { 600 } else { 0 });
        let record = |n: u8| Record::from_rdata(name.clone(), ttl, RData::A(A([192, 0, 2, n].into())));
        answer.add_answers((0..addresses).map(record));
        Some(answer.to_vec().unwrap())
    };
    let over_tcp = answer.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            if let Some(answer) = answer(&buffer[..length]) {
                // Somebody else's answer first, which nobody must believe.
                let mut forged = answer.clone();
                forged[0] ^= 1;
                socket.send_to(&forged, from).await.unwrap();
                socket.send_to(&answer, from).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let question = read_message(&mut stream).await.unwrap();
            if let Some(answer) = over_tcp(&question) {
                write_message(&mut stream, &answer).await.unwrap();
            }
        }
    });
    (address, asked)
}

struct Proxy {
    address: SocketAddr,
    publish: watch::Sender<Option<Arc<Table>>>,
    asked: Arc<AtomicUsize>,
    metrics: Metrics,
}

async fn proxy() -> Proxy {
    let (server, asked) = upstream().await;
    let (publish, tables) = watch::channel(None);
    let mut forward = Forwarder::new(vec![server]);
    forward.patience = Duration::from_millis(300);
    let metrics = Metrics::default();
    let any = ["127.0.0.1:0".parse().unwrap()];
    let server = Server::bind(&any, tables, forward, metrics.clone()).await.unwrap();
    let address = server.addresses().next().unwrap();
    tokio::spawn(server.run());
    Proxy { address, publish, asked, metrics }
}

impl Proxy {
    fn ready(&self) {
        self.publish.send_replace(Some(Arc::new(table::tests::table())));
    }

    async fn ask(&self, name: &str, over_tcp: bool) -> Message {
        let mut question = Message::query();
        question.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        let bytes = question.to_vec().unwrap();
        let answer = if over_tcp {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            write_message(&mut stream, &bytes).await.unwrap();
            read_message(&mut stream).await.unwrap()
        } else {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            socket.send_to(&bytes, self.address).await.unwrap();
            let mut buffer = vec![0; LONGEST];
            let length = timeout(Duration::from_secs(10), socket.recv(&mut buffer)).await.unwrap().unwrap();
            buffer.truncate(length);
            buffer
        };
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!((answer.metadata.id, &answer.queries), (question.metadata.id, &question.queries));
        answer
    }
}

#[tokio::test]
async fn the_mesh_is_answered_and_the_rest_is_forwarded() {
    let proxy = proxy().await;
    for over_tcp in [false, true] {
        assert_eq!(proxy.ask("reviews.ns2.", over_tcp).await.metadata.response_code, ResponseCode::ServFail, "not yet");
    }
    proxy.ready();
    for over_tcp in [false, true] {
        let known = proxy.ask("reviews.ns2.", over_tcp).await;
        assert!(known.metadata.authoritative && known.answers.len() == 1);
        assert_eq!(proxy.asked.load(Ordering::Relaxed), usize::from(over_tcp), "nobody else was asked");
        assert_eq!(proxy.ask("example.com.", over_tcp).await.answers.len(), 1);
    }
    let before = proxy.asked.load(Ordering::Relaxed);
    for _ in 0..3 {
        assert_eq!(proxy.ask("a.cached.", false).await.answers.len(), 1);
    }
    assert_eq!(proxy.asked.load(Ordering::Relaxed), before + 1, "kept");
    let cut = proxy.ask("a.long.", false).await;
    assert!(cut.metadata.truncation && cut.answers.len() < 100);
    assert_eq!(proxy.ask("a.long.", true).await.answers.len(), 100);
    assert_eq!(proxy.ask("a.silent.", false).await.metadata.response_code, ResponseCode::ServFail);
    let text = proxy.metrics.text(std::time::SystemTime::now());
    assert!(text.contains("istio_agent_dns_upstream_failures_total 1"), "{text}");
}

#[tokio::test]
async fn garbage_and_silence_harm_nobody() {
    let proxy = proxy().await;
    proxy.ready();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut held = Vec::new();
    for n in 0..200u8 {
        for bytes in [&[][..], &[n; 3], &[n; 12], &[n; 600], &[0xff; 4096]] {
            socket.send_to(bytes, proxy.address).await.unwrap();
        }
        let mut stream = TcpStream::connect(proxy.address).await.unwrap();
        if n % 2 == 0 {
            stream.write_all(&[n; 100]).await.unwrap();
        }
        if n < 100 {
            held.push(stream);
        }
    }
    assert_eq!(proxy.ask("reviews.ns2.", false).await.answers.len(), 1);
}

#[test]
fn loopback_of_the_pod_s_families() {
    let resolv = |servers: &[&str]| Resolv {
        servers: servers.iter().map(|ip| ip.parse().unwrap()).collect(),
        ..Resolv::default()
    };
    let of = |address: &str, servers: &[&str]| {
        addresses(address, &resolv(servers)).map(|all| all.iter().map(SocketAddr::to_string).collect::<Vec<_>>())
    };
    let some = |all: &[&str]| Some(all.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>());
    assert_eq!(of("localhost:15053", &["10.0.0.10"]), some(&["127.0.0.1:15053"]));
    assert_eq!(of("localhost:15053", &["fd00::1"]), some(&["[::1]:15053"]));
    assert_eq!(of("localhost:15053", &["fd00::1", "10.0.0.1"]), some(&["127.0.0.1:15053", "[::1]:15053"]));
    assert_eq!(of("localhost:15053", &[]), some(&["127.0.0.1:15053"]));
    assert_eq!(of("0.0.0.0:53", &[]), some(&["0.0.0.0:53"]));
    assert_eq!(of("elsewhere:53", &[]), None);
}
