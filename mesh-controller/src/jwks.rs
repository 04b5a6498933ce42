//! Keys of tokens: fetched for proxies, kept, and fetched again before anybody misses them.
//!
//! The store says which keys its policies want; what comes of fetching goes back to the store as a change like any other.
//! Keys that were fetched once stay in force while their server is away. Whoever writes policies chooses what is asked, so
//! every answer is bounded in time and size, few are awaited at once, and some places are never asked (`guard`).

mod fetch;
mod guard;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use mesh_api::Name;
use mesh_api::types::Duration as Written;
use mesh_xds::model::Features;
use mesh_xds::model::request_authentication::{FetchedKeys, KeySource};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use fetch::Client;
use guard::Guard;

/// Where keys are to be fetched, and how long that may take.
pub(crate) type Wanted = Arc<BTreeMap<KeySource, Written>>;
/// What came of it; `None`: nobody wants to know any more.
pub(crate) type News = (KeySource, Option<FetchedKeys>);

/// Further authorities for the TLS of servers of keys.
const EXTRA_ROOTS: &str = "/cacerts/extra.pem";
/// Between two fetches of the same keys.
const REFRESH: Duration = Duration::from_secs(20 * 60);
/// After a failure the waiting begins with this and doubles.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest wait after a failure.
const LAST_RETRY: Duration = Duration::from_secs(60);
/// Servers that are asked at the same time.
const AT_ONCE: usize = 8;

/// Fetches keys for as long as it runs.
pub(crate) struct Fetcher {
    client: Client,
    refresh: Duration,
    wanted: watch::Receiver<Wanted>,
    news: mpsc::Sender<News>,
    kept: BTreeMap<KeySource, Kept>,
    running: JoinSet<(KeySource, Result<Name, String>)>,
}

/// What is known of one source.
struct Kept {
    /// When it is to be asked; none while it is being asked.
    due: Option<Instant>,
    retry: Duration,
    has_keys: bool,
}

impl Fetcher {
    /// A fetcher that follows what is wanted and tells its news. Settings are istiod's, by their names.
    ///
    /// # Errors
    /// When TLS cannot be set up at all.
    pub(crate) fn new(
        features: &Features,
        wanted: watch::Receiver<Wanted>,
        news: mpsc::Sender<News>,
    ) -> Result<Self, rustls::Error> {
        let (guard, unread) = Guard::new(features.get("BLOCKED_CIDRS_IN_JWKS_URIS").unwrap_or_default());
        for entry in unread {
            tracing::warn!(
                "BLOCKED_CIDRS_IN_JWKS_URIS: {entry:?} is no range such as 10.0.0.0/8, so it blocks nothing"
            );
        }
        let written = features.get("PILOT_JWT_PUB_KEY_REFRESH_INTERVAL").and_then(|text| text.parse().ok());
        let refresh = written.and_then(standard).filter(|interval| *interval >= FIRST_RETRY).unwrap_or(REFRESH);
        let client = Client { guard, tls: fetch::tls(Path::new(EXTRA_ROOTS))? };
        Ok(Self { client, refresh, wanted, news, kept: BTreeMap::new(), running: JoinSet::new() })
    }

    /// Runs until it is stopped or nobody listens.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        self.wanted.mark_changed();
        loop {
            let due = self.kept.values().filter_map(|kept| kept.due).min().filter(|_| self.running.len() < AT_ONCE);
            let heard = tokio::select! {
                () = stop.cancelled() => return,
                changed = self.wanted.changed() => match changed {
                    Ok(()) => self.follow().await,
                    Err(_) => return,
                },
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.start(Instant::now());
                    true
                }
                Some(Ok((source, fetched))) = self.running.join_next(), if !self.running.is_empty() => {
                    self.tell(source, fetched, Instant::now()).await
                }
            };
            if !heard {
                return;
            }
        }
    }

    /// Takes up what is wanted by now, and lets go of the rest. False when nobody listens.
    async fn follow(&mut self) -> bool {
        let wanted = self.wanted.borrow_and_update().clone();
        let gone: Vec<KeySource> = self.kept.keys().filter(|source| !wanted.contains_key(*source)).cloned().collect();
        for source in gone {
            self.kept.remove(&source);
            if self.news.send((source, None)).await.is_err() {
                return false;
            }
        }
        for source in wanted.keys() {
            let new = || Kept { due: Some(Instant::now()), retry: FIRST_RETRY, has_keys: false };
            self.kept.entry(source.clone()).or_insert_with(new);
        }
        true
    }

    /// Asks whom it is time to ask.
    fn start(&mut self, now: Instant) {
        let wanted = self.wanted.borrow().clone();
        let free = AT_ONCE.saturating_sub(self.running.len());
        let due = self.kept.iter_mut().filter(|(_, kept)| kept.due.is_some_and(|due| due <= now));
        for (source, kept) in due.take(free) {
            kept.due = None;
            let timeout = wanted.get(source).copied().and_then(standard).unwrap_or(LAST_RETRY);
            let (client, source) = (self.client.clone(), source.clone());
            self.running.spawn(async move {
                let fetched = client.keys(&source, timeout).await;
                (source, fetched)
            });
        }
    }

    /// Tells what came of a fetch. False when nobody listens.
    async fn tell(&mut self, source: KeySource, fetched: Result<Name, String>, now: Instant) -> bool {
        let Some(kept) = self.kept.get_mut(&source) else { return true };
        let news = match fetched {
            Ok(keys) => {
                kept.due = Some(now + self.refresh);
                kept.retry = FIRST_RETRY;
                kept.has_keys = true;
                FetchedKeys::Set(keys)
            }
            Err(why) => {
                kept.due = Some(now + kept.retry);
                kept.retry = (kept.retry * 2).min(LAST_RETRY);
                tracing::warn!("keys of {source:?}: {why}; it is tried again");
                // Old keys are better than none.
                if kept.has_keys {
                    return true;
                }
                FetchedKeys::Failed(why.into())
            }
        };
        self.news.send((source, Some(news))).await.is_ok()
    }
}

/// `None` for what is no time to wait.
fn standard(written: Written) -> Option<Duration> {
    u64::try_from(written.as_nanos()).ok().filter(|nanos| *nanos > 0).map(Duration::from_nanos)
}

#[cfg(test)]
mod tests;
