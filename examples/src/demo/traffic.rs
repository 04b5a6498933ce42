//! Clients of the ingress gateway: they ask for the product page and count which reviews it shows.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// How many requests are under way at once.
const CLIENTS: usize = 16;
/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Counted replies.
#[derive(Clone, Debug, Default)]
pub struct Replies {
    /// Good replies by the version of the reviews in them.
    pub versions: BTreeMap<String, usize>,
    /// Everything else.
    pub failures: usize,
    /// A few failures, as told.
    pub examples: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl Replies {
    fn count(&mut self, reply: Result<String, String>) {
        match reply {
            Ok(version) => *self.versions.entry(version).or_default() += 1,
            Err(error) => {
                self.failures += 1;
                if self.examples.len() < 3 {
                    self.examples.push(error);
                }
            }
        }
    }
}

/// Clients of one gateway, with their connections.
#[derive(Clone, Debug)]
pub struct Traffic {
    client: Client<HttpConnector, Empty<Bytes>>,
    url: String,
}

impl Traffic {
    /// Clients of the gateway at this address; nothing is sent yet.
    pub fn new(gateway: Ipv4Addr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { client, url: format!("http://{gateway}:8080/productpage") }
    }

    /// Sends this many requests, a few at a time, and tells `progress` after every tenth of them.
    pub async fn send(&self, requests: usize, progress: impl Fn(usize)) -> Replies {
        let began = Instant::now();
        let left = Arc::new(AtomicUsize::new(requests));
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS.min(requests) {
            let (this, left, sender) = (self.clone(), left.clone(), sender.clone());
            clients.spawn(async move {
                let take = |left: usize| left.checked_sub(1);
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                    // The counter below is gone only when we are aborted with it.
                    let _ = sender.send(this.ask().await);
                }
            });
        }
        drop(sender);
        let mut replies = Replies::default();
        let mut done = 0;
        while let Some(reply) = receiver.recv().await {
            replies.count(reply);
            done += 1;
            if requests >= 1000 && done % (requests / 10) == 0 {
                progress(done);
            }
        }
        replies.took = began.elapsed();
        // A client that died took its requests with it; they count as failed.
        replies.failures += requests.saturating_sub(done);
        replies
    }

    /// Sends requests all the time, does `act` after a while, and returns how long after it the first reply came that
    /// shows reviews of `version`, and how many requests failed.
    ///
    /// # Errors
    /// `act` failed, or no such reply came in time.
    pub async fn until(
        &self,
        version: &str,
        patience: Duration,
        act: impl FnOnce() -> Result<(), String>,
    ) -> Result<(Duration, usize), String> {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let stop = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for _ in 0..4 {
            let (this, stop, sender) = (self.clone(), stop.clone(), sender.clone());
            clients.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let _ = sender.send((this.ask().await, Instant::now()));
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            });
        }
        drop(sender);
        tokio::time::sleep(Duration::from_millis(500)).await;
        act()?;
        let acted = Instant::now();
        let mut failures = 0;
        let mut followed = None;
        let deadline = tokio::time::Instant::now() + patience;
        while let Ok(Some((reply, at))) = tokio::time::timeout_at(deadline, receiver.recv()).await {
            match reply {
                Ok(seen) if seen == version && followed.is_none() => {
                    followed = Some(at.saturating_duration_since(acted));
                    // The rest of what is under way still counts.
                    stop.store(true, Ordering::Relaxed);
                }
                Ok(_) => {}
                Err(_) => failures += 1,
            }
        }
        let followed =
            followed.ok_or_else(|| format!("no request went to reviews {version} within {patience:?} of the edit"))?;
        Ok((followed, failures))
    }

    /// The version of the reviews on the product page.
    async fn ask(&self) -> Result<String, String> {
        let exchange = async {
            let request = Request::get(&self.url).body(Empty::new()).map_err(|error| error.to_string())?;
            let answer = self.client.request(request).await.map_err(|error| format!("{error:?}"))?;
            let status = answer.status();
            let body = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
            if status != 200 {
                return Err(format!("{status}: {}", String::from_utf8_lossy(&body)));
            }
            let page: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
            let text = |pointer: &str| page.pointer(pointer).and_then(Value::as_str);
            match (text("/reviews/version"), text("/details/version")) {
                (Some(reviews), Some(_)) => Ok(reviews.to_owned()),
                _ => Err(format!("a page without reviews or details: {page}")),
            }
        };
        tokio::time::timeout(PATIENCE, exchange).await.map_err(|_| format!("no answer within {PATIENCE:?}"))?
    }
}
