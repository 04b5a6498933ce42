//! How long the apiserver waits for an injection over HTTPS, at 500 a second: the bar is a p99 under 5 ms. Prints percentiles of
//! the time from when a request was due, so that one that had to wait for others counts with its waiting.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a bench that cannot make its input has nothing to measure"
)]
#![allow(clippy::disallowed_methods, reason = "it asks the clock, and runs a server")]

use std::time::{Duration, Instant};

use mesh_webhook::server::Server;
use mesh_webhook::{Config, Injector, Webhook};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// As in meshd.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[path = "shared/https.rs"]
mod https;
#[path = "shared/review.rs"]
mod review;

const PER_SECOND: u32 = 500;
const SECONDS: u32 = 10;
/// The apiserver keeps a few connections of HTTP/2.
const CONNECTIONS: u32 = 4;

#[tokio::main]
async fn main() {
    let (serving, trusted) = https::certificate(0);
    let (_certificates, certificate) = watch::channel(Some(serving));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let hook = Webhook::new().route("/inject", Injector::new(Config::default()));
    tokio::spawn(Server::new(hook, certificate).serve(listener, std::future::pending()));
    let body = bytes::Bytes::from(review::review(&json!({})));
    let start = Instant::now() + Duration::from_millis(200);
    let mut callers = Vec::new();
    for first in 0..CONNECTIONS {
        let mut caller = https::Caller::new(address, &trusted, "h2").await.unwrap();
        let body = body.clone();
        callers.push(tokio::spawn(async move {
            let mut took = Vec::new();
            for nth in (first..PER_SECOND * SECONDS).step_by(CONNECTIONS as usize) {
                let due = start + Duration::from_secs(1) * nth / PER_SECOND;
                tokio::time::sleep_until(due.into()).await;
                let (status, answer) = caller.post("/inject", body.clone()).await.unwrap();
                assert!(status.is_success() && answer.len() > 1000);
                took.push(due.elapsed());
            }
            took
        }));
    }
    let mut took = Vec::new();
    for caller in callers {
        took.extend(caller.await.unwrap());
    }
    let rate = took.len() as f64 / start.elapsed().as_secs_f64();
    took.sort();
    let at = |percent: usize| took.get(took.len() * percent / 100).or(took.last()).unwrap();
    println!(
        "{} injections over HTTPS, {PER_SECOND}/s due, {rate:.0}/s reached: p50 {:?}, p90 {:?}, p99 {:?}, max {:?}",
        took.len(),
        at(50),
        at(90),
        at(99),
        took.last().unwrap()
    );
}
