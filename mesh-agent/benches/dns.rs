//! How many answers a second one core gives: the proxy on the thread that an agent has, clients on another.

#![allow(clippy::unwrap_used, reason = "a bench that cannot make its input has nothing to measure")]

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput};
use hickory_proto::op::{Message, Query};
use hickory_proto::rr::{Name, RecordType};
use mesh_agent::dns::{Forwarder, Server, Table, answer, encode};
use mesh_agent::metrics::Metrics;
use mesh_xds::build::names::{NameInfo, NameTable};
use tokio::sync::{oneshot, watch};

const ADDRESS: &str = "127.0.0.1:0";
/// Questions that are under way at the same time.
const TOGETHER: usize = 64;

fn table() -> Table {
    let host = |n: u32| {
        let info = NameInfo {
            ips: vec![format!("10.{}.{}.{}", n >> 16 & 255, n >> 8 & 255, n & 255)],
            registry: "Kubernetes".into(),
            shortname: format!("svc-{n}"),
            namespace: "default".into(),
        };
        (format!("svc-{n}.default.svc.cluster.local"), info)
    };
    let names = NameTable { table: (0..10_000).map(host).collect() };
    Table::new(names, "default", "default.svc.cluster.local", Some("default.svc.cluster.local"))
}

fn question(name: &str) -> Vec<u8> {
    let mut question = Message::query();
    question.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    question.to_vec().unwrap()
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("dns");
    let table = table();
    for (case, name) in
        [("short", "svc-77.default."), ("full", "svc-77.default.svc.cluster.local."), ("unknown", "www.example.com.")]
    {
        let bytes = question(name);
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("answer/{case}"), |b| {
            b.iter(|| {
                let message = Message::from_vec(black_box(&bytes)).unwrap();
                answer(&table, &message, 0).map(|answer| encode(&answer, 512))
            });
        });
    }

    let (told, address) = oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let (_publish, tables) = watch::channel(Some(Arc::new(table)));
            let any = [ADDRESS.parse().unwrap()];
            let forward = Forwarder::new(Vec::new());
            let server = Server::bind(&any, tables, forward, Metrics::default()).await.unwrap();
            told.send(server.addresses().next().unwrap()).unwrap();
            server.run().await;
        });
    });
    let address = address.blocking_recv().unwrap();
    let client = std::net::UdpSocket::bind(ADDRESS).unwrap();
    client.connect(address).unwrap();
    let bytes = question("svc-77.default.svc.cluster.local.");
    let mut buffer = [0; 512];
    group.throughput(Throughput::Elements(TOGETHER as u64));
    group.bench_function("udp", |b| {
        b.iter(|| {
            for _ in 0..TOGETHER {
                client.send(&bytes).unwrap();
            }
            for _ in 0..TOGETHER {
                client.recv(&mut buffer).unwrap();
            }
        });
    });
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    bench(&mut criterion);
    criterion.final_summary();
}
