//! What an injection costs, from the review's bytes to the answer's, on one core. The bar is 2,500 in a second.

#![allow(clippy::unwrap_used, reason = "a bench that cannot make its input has nothing to measure")]

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use mesh_webhook::{Config, Injector, Webhook};
use serde_json::json;

/// As in meshd.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[path = "shared/review.rs"]
mod review;

fn main() {
    let hook = Webhook::new().route("/inject", Injector::new(Config::default()));
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("inject");
    group.throughput(Throughput::Elements(1));
    for (name, annotations) in
        [("plain", json!({})), ("own ProxyConfig", json!({"proxy.istio.io/config": "concurrency: 2"}))]
    {
        let body = review::review(&annotations);
        let answer = hook.answer("/inject", body.as_bytes()).unwrap().response.unwrap();
        assert!(answer.patch.is_some());
        group.bench_function(name, |bencher| {
            bencher.iter(|| json!(hook.answer("/inject", black_box(body.as_bytes())).unwrap()).to_string());
        });
    }
    group.finish();
    criterion.final_summary();
}
