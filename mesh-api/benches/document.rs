//! How fast text becomes objects: the fleet's input at 1,000 and 3,000 services, in megabytes a second. It must never read
//! anything but what the fleet client would serve, so that figures here explain figures there.

#![allow(clippy::unwrap_used, reason = "a bench that cannot make its input has nothing to measure")]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};

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
    criterion.final_summary();
}
