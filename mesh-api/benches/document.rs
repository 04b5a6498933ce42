//! How fast text becomes objects: the fleet's input at 1,000 and 3,000 services, in megabytes a second (it must never be
//! anything but what the fleet client would serve, so that figures here explain figures there); and VirtualServices of
//! the size that Istio's samples have, read and validated, in objects a second.

#![allow(clippy::unwrap_used, reason = "a bench that cannot make its input has nothing to measure")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use mesh_api::Validate;

#[path = "../../examples/src/fleet/world.rs"]
#[allow(dead_code, unreachable_pub, reason = "the fleet client uses the rest")]
mod world;

fn text(services: usize) -> String {
    let folder = tempfile::tempdir().unwrap();
    world::World::write(folder.path(), services, false).unwrap();
    let mut files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.into_iter().map(|file| std::fs::read_to_string(file).unwrap()).collect()
}

/// VirtualServices as in Istio's samples, where they have 300 bytes on average: two of the larger sort.
const SAMPLES: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: bookinfo
spec:
  hosts:
  - \"*\"
  gateways:
  - bookinfo-gateway
  http:
  - match:
    - uri:
        exact: /productpage
    - uri:
        prefix: /static
    - uri:
        exact: /login
    - uri:
        exact: /logout
    - uri:
        prefix: /api/v1/products
    route:
    - destination:
        host: productpage
        port:
          number: 9080
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews
spec:
  hosts:
  - reviews
  http:
  - match:
    - headers:
        end-user:
          exact: jason
    route:
    - destination:
        host: reviews
        subset: v2
  - timeout: 2s
    retries:
      attempts: 3
      perTryTimeout: 500ms
    route:
    - destination:
        host: reviews
        subset: v1
      weight: 80
    - destination:
        host: reviews
        subset: v3
      weight: 20
---
";

fn virtual_services(criterion: &mut Criterion) {
    let text = SAMPLES.repeat(500);
    let mut group = criterion.benchmark_group("virtual_service");
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("parse", |bencher| {
        bencher.iter(|| mesh_api::document::parse(&"samples.yaml".into(), black_box(&text)).objects().count());
    });
    group.bench_function("parse and validate", |bencher| {
        bencher.iter(|| {
            let parsed = mesh_api::document::parse(&"samples.yaml".into(), black_box(&text));
            parsed.objects().map(|object| object.validate().len()).sum::<usize>()
        });
    });
    let schema = mesh_api::schema::Validator::new();
    group.bench_function("parse and validate with schema", |bencher| {
        bencher.iter(|| {
            let raw = mesh_api::document::raw(&"samples.yaml".into(), black_box(&text));
            let told = |raw: mesh_api::document::Raw<'_>| {
                let read = raw.objects().into_iter().flatten();
                schema.validate(&raw.node.to_json()).len()
                    + read.map(|document| document.object.validate().len()).sum::<usize>()
            };
            raw.into_iter().flatten().map(told).sum::<usize>()
        });
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("document/parse");
    for services in [1_000, 3_000] {
        let text = text(services);
        group.sample_size(10).throughput(Throughput::Bytes(text.len() as u64));
        group.bench_with_input(BenchmarkId::from_parameter(services), &text, |bencher, text| {
            bencher.iter_with_large_drop(|| mesh_api::document::parse(&"world.yaml".into(), black_box(text)));
        });
    }
    group.finish();
    virtual_services(&mut criterion);
    criterion.final_summary();
}
