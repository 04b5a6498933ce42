//! A steady load: as many requests a second as asked for, whether or not the answers are quick, from the application of a
//! pod through its proxy. Each failure counts, and so does each certificate that the server's proxy was shown.
//!
//! It runs in the pod, in a process of its own; `loaded` is a show's side of it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Uri;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::echo::Seen;

/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often requests are sent: all that are due by then.
const TICK: Duration = Duration::from_millis(5);
/// No more are under way at once; what is due then is late.
const AT_ONCE: usize = 500;
/// As many failures are told.
const EXAMPLES: usize = 5;

/// What came of a load.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// Requests sent.
    pub sent: u64,
    /// Those without a good answer in time.
    pub failed: u64,
    /// The first failures: when (in seconds from the beginning of the load), and why.
    pub failures: Vec<(f64, String)>,
    /// The certificates that the server's proxy was shown, by their hash.
    pub certificates: BTreeSet<String>,
    /// The longest wait for an answer, in milliseconds, and when it began, in seconds.
    pub slowest: (f64, f64),
    /// How long requests were sent, in seconds.
    pub seconds: f64,
}

impl Report {
    /// Requests sent in a second.
    pub fn rate(&self) -> f64 {
        // Counts are far below 2^52.
        self.sent as f64 / self.seconds.max(1e-9)
    }

    fn count(&mut self, sent: f64, took: Duration, answer: Result<Seen, String>) {
        let wait = took.as_secs_f64() * 1e3;
        if wait > self.slowest.0 {
            self.slowest = (wait, sent);
        }
        match answer {
            Ok(seen) => self.certificates.extend(seen.hash().map(str::to_owned)),
            Err(why) => {
                self.failed += 1;
                if self.failures.len() < EXAMPLES {
                    self.failures.push((sent, why));
                }
            }
        }
    }
}

/// Sends `rate` requests a second until `end`.
pub async fn send(url: &Uri, rate: f64, end: impl Future<Output = ()>) -> Report {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let began = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut end = std::pin::pin!(end);
    let (mut report, mut under_way) = (Report::default(), JoinSet::new());
    loop {
        tokio::select! {
            () = &mut end => break,
            _ = ticks.tick() => {
                let due = began.elapsed().as_secs_f64() * rate;
                while (report.sent as f64) < due && under_way.len() < AT_ONCE {
                    report.sent += 1;
                    under_way.spawn(timed(began, client.clone(), url.clone()));
                }
            }
            Some(Ok((sent, took, answer))) = under_way.join_next() => report.count(sent, took, answer),
        }
    }
    report.seconds = began.elapsed().as_secs_f64();
    while let Some(Ok((sent, took, answer))) = under_way.join_next().await {
        report.count(sent, took, answer);
    }
    report
}

type Http = Client<HttpConnector, Empty<Bytes>>;

/// When it was sent, how long it took, and what came.
async fn timed(began: Instant, client: Http, url: Uri) -> (f64, Duration, Result<Seen, String>) {
    let sent = Instant::now();
    let answer = tokio::time::timeout(PATIENCE, ask(client, url)).await;
    let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")));
    ((sent - began).as_secs_f64(), sent.elapsed(), answer)
}

async fn ask(client: Http, url: Uri) -> Result<Seen, String> {
    let answer = client.get(url).await.map_err(|error| format!("{error:?}"))?;
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    if status != 200 {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&body)));
    }
    serde_json::from_slice(&body).map_err(|error| error.to_string())
}
