//! The single writer: hears all sources, decides when to publish, and publishes one state of the mesh ([`Published`]) after another.
//!
//! Nobody else writes. Readers hold an `Arc` of the state that was the newest when they looked and are never waited
//! for. Nothing is published before every source has told what it had at the start: a proxy must not be sent half a mesh.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use imbl::OrdMap;
use mesh_api::{Diagnostic, Location, Object, ObjectRef};
use mesh_ca::{Authority, Certificate, Current};
use mesh_xds::model::Settings;
use mesh_xds::model::request_authentication::{FetchedKeys, KeySource};
use mesh_xds::{Builder, Change, Snapshot};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::identity::changes_of;
use crate::jwks::{News, Wanted};
use crate::source::{Batch, Event, Source};

mod debounce;
mod problems;

use self::debounce::Burst;
pub use self::debounce::Debounce;
pub use self::problems::Problems;
pub(crate) use self::problems::tell;

/// One published state of the mesh.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Published {
    /// What the objects mean.
    pub snapshot: Snapshot,
    /// The objects as written, those that count.
    pub objects: OrdMap<ObjectRef, Object>,
    /// When the first change that led here was heard of; none before the first publish.
    pub changed_at: Option<std::time::Instant>,
}

/// Batches that wait for the writer, before sources have to wait for it.
const BACKLOG: usize = 64;

/// Collects what the sources say. Give it sources, take what readers need, then [`run`](Self::run) it.
pub struct Store {
    sources: Vec<Box<dyn Source>>,
    debounce: Debounce,
    settings: Option<watch::Receiver<Arc<Settings>>>,
    authority: Option<Arc<Current>>,
    snapshots: watch::Sender<Arc<Published>>,
    problems: watch::Sender<Arc<Problems>>,
    synced: watch::Sender<bool>,
    /// Which keys of tokens are to be fetched, and what comes of it.
    wanted_keys: watch::Sender<Wanted>,
    fetched_keys: Option<mpsc::Receiver<News>>,
}

impl Store {
    /// A store without sources over an empty mesh with these settings.
    pub fn new(settings: Settings, debounce: Debounce) -> Self {
        Self {
            sources: Vec::new(),
            debounce,
            settings: None,
            authority: None,
            snapshots: watch::Sender::new(Arc::new(Published {
                snapshot: Snapshot::new(settings),
                ..Published::default()
            })),
            problems: watch::Sender::default(),
            synced: watch::Sender::new(false),
            wanted_keys: watch::Sender::default(),
            fetched_keys: None,
        }
    }

    /// Adds a source. Where two sources define an object, the one that was added later counts.
    pub fn source(&mut self, source: impl Source + 'static) {
        self.sources.push(Box::new(source));
    }

    pub(crate) fn boxed_source(&mut self, source: Box<dyn Source>) {
        self.sources.push(source);
    }

    /// Settings that change while the store runs.
    pub fn settings(&mut self, settings: watch::Receiver<Arc<Settings>>) {
        self.settings = Some(settings);
    }

    /// The authority whose roots agents are told to trust.
    pub fn authority(&mut self, authority: Arc<Current>) {
        self.authority = Some(authority);
    }

    /// Which keys of tokens are to be fetched by whoever calls this, and where to tell what comes of it.
    pub(crate) fn keys(&mut self) -> (watch::Receiver<Wanted>, mpsc::Sender<News>) {
        let (news, fetched) = mpsc::channel(BACKLOG);
        self.fetched_keys = Some(fetched);
        (self.wanted_keys.subscribe(), news)
    }

    /// The states of the mesh. The first value is the empty mesh; see [`synced`](Self::synced).
    pub fn snapshots(&self) -> watch::Receiver<Arc<Published>> {
        self.snapshots.subscribe()
    }

    /// Becomes true with the first publish, when all sources have told what they had at the start.
    pub fn synced(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }

    /// All that is wrong with what the sources say.
    pub fn problems(&self) -> watch::Receiver<Arc<Problems>> {
        self.problems.subscribe()
    }

    /// Serves until `shutdown`. Sources that end leave what they said in force.
    pub async fn run(self, shutdown: CancellationToken) {
        let (sender, mut batches) = mpsc::channel(BACKLOG);
        let names = self.sources.iter().map(|source| source.name().into()).collect();
        let mut sources = JoinSet::new();
        for (index, source) in self.sources.into_iter().enumerate() {
            sources.spawn(drive(index, source, sender.clone()));
        }
        drop(sender);
        let mut settings = self.settings;
        let mut fetched_keys = self.fetched_keys;
        let trust = self.authority.as_ref().map(|authority| roots(&authority.get()));
        let mut authorities = self.authority.map(|authority| changes_of(authority).boxed());
        let current = Published::clone(&self.snapshots.borrow());
        let mut writer = Writer {
            current,
            claims: HashMap::new(),
            pending: BTreeSet::new(),
            settings: None,
            keys: BTreeMap::new(),
            trust,
            unsynced: (0..sources.len()).collect(),
            burst: Burst::new(self.debounce),
            said: Problems::new(names),
            joined: Builder::default(),
            snapshots: self.snapshots,
            problems: self.problems,
            synced: self.synced,
            wanted_keys: self.wanted_keys,
        };
        writer.burst.change(Instant::now());
        loop {
            let due = writer.due();
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = sleep_until(due), if due.is_some() => writer.publish().await,
                Some((index, said)) = batches.recv() => writer.hear(index, said, Instant::now()),
                Some(new) = newer(&mut settings) => {
                    writer.settings = Some(new);
                    writer.burst.change(Instant::now());
                }
                Some(authority) = another(&mut authorities) => {
                    writer.trust = Some(roots(&authority));
                    writer.burst.change(Instant::now());
                }
                Some((source, fetched)) = told(&mut fetched_keys) => {
                    writer.keys.insert(source, fetched);
                    writer.burst.change(Instant::now());
                }
            }
        }
    }
}

async fn sleep_until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due).await;
    }
}

/// The next settings; `None` when there will be no others.
async fn newer(settings: &mut Option<watch::Receiver<Arc<Settings>>>) -> Option<Arc<Settings>> {
    let receiver = settings.as_mut()?;
    match receiver.changed().await {
        Ok(()) => Some(receiver.borrow_and_update().clone()),
        Err(_) => {
            *settings = None;
            None
        }
    }
}

/// The next authority; `None` when there will be no other.
async fn another(authorities: &mut Option<BoxStream<'static, Arc<Authority>>>) -> Option<Arc<Authority>> {
    authorities.as_mut()?.next().await
}

fn roots(authority: &Authority) -> Vec<String> {
    authority.roots().iter().map(Certificate::to_pem).collect()
}

/// What comes next of fetching keys; `None` when nothing will.
async fn told(fetched: &mut Option<mpsc::Receiver<News>>) -> Option<News> {
    let news = fetched.as_mut()?.recv().await;
    if news.is_none() {
        *fetched = None;
    }
    news
}

/// Hands on what one source says; a source that ends has said all.
async fn drive(index: usize, mut source: Box<dyn Source>, batches: mpsc::Sender<(usize, Option<Batch>)>) {
    loop {
        let batch = source.next().await;
        let ended = batch.is_none();
        if batches.send((index, batch)).await.is_err() || ended {
            return;
        }
    }
}

struct Writer {
    current: Published,
    /// What each source says of an object, in the order of the sources; the last one counts. Nearly all have one.
    claims: HashMap<ObjectRef, Vec<Claim>>,
    /// The objects that may differ from the current snapshot.
    pending: BTreeSet<ObjectRef>,
    settings: Option<Arc<Settings>>,
    /// What fetching keys of tokens has come to since the last publish.
    keys: BTreeMap<KeySource, Option<FetchedKeys>>,
    /// The roots of the mesh, if they are others than at the last publish.
    trust: Option<Vec<String>>,
    unsynced: BTreeSet<usize>,
    burst: Burst,
    said: Problems,
    /// Remembers how objects fit together, so that only what has changed is looked at again.
    joined: Builder,
    snapshots: watch::Sender<Arc<Published>>,
    problems: watch::Sender<Arc<Problems>>,
    synced: watch::Sender<bool>,
    wanted_keys: watch::Sender<Wanted>,
}

struct Claim {
    /// The source's place.
    source: usize,
    object: Object,
    location: Option<Location>,
}

impl Writer {
    fn due(&self) -> Option<Instant> {
        if self.unsynced.is_empty() { self.burst.due() } else { None }
    }

    fn hear(&mut self, index: usize, batch: Option<Batch>, now: Instant) {
        let mut news = false;
        for event in batch.unwrap_or_else(|| vec![Event::Synced]) {
            match event {
                Event::Upsert { object, location } => {
                    let key = object.object_ref();
                    news |= self.claim(key, index, Some(Claim { source: index, object, location }));
                }
                Event::Delete(key) => news |= self.claim(key, index, None),
                Event::Problems { part, problems } => self.said.of_part(index, part, problems),
                Event::Synced => drop(self.unsynced.remove(&index)),
            }
        }
        self.problems.send_if_modified(|said| self.said.publish(said));
        if news {
            self.burst.change(now);
        }
    }

    /// Replaces what a source says of an object; true when what counts is another object now.
    fn claim(&mut self, key: ObjectRef, source: usize, claim: Option<Claim>) -> bool {
        let claims = self.claims.entry(key.clone()).or_insert_with(|| Vec::with_capacity(1));
        let before = claims.last().map(|claim| claim.object.clone());
        let place = claims.partition_point(|claim| claim.source < source);
        let old = claims.get(place).is_some_and(|claim| claim.source == source);
        claims.splice(place..place + usize::from(old), claim);
        let differs = before.as_ref() != claims.last().map(|claim| &claim.object);
        if claims.is_empty() {
            self.claims.remove(&key);
        }
        if differs {
            self.pending.insert(key);
        }
        differs
    }

    async fn publish(&mut self) {
        let touched = std::mem::take(&mut self.pending);
        let (settings, keys, trust) = (self.settings.take(), std::mem::take(&mut self.keys), self.trust.take());
        let mut changes: Vec<Change> = settings.clone().map(Change::Settings).into_iter().collect();
        changes.extend(touched.iter().map(|key| match self.winner(key) {
            Some(claim) => Change::Upsert(claim.object.clone()),
            None => Change::Delete(key.clone()),
        }));
        changes.extend(keys.clone().into_iter().map(|(source, keys)| Change::Keys(source, keys)));
        changes.extend(trust.clone().map(Change::Trust));
        self.current.changed_at = self.burst.since().map(Instant::into_std);
        self.burst.published();
        let current = self.current.snapshot.clone();
        match tokio::task::spawn_blocking(move || current.apply(changes)).await {
            Ok(next) => self.current.snapshot = next,
            Err(error) => {
                // A defect of ours. What is in force stays, and the next change tries again.
                tracing::error!(%error, "{} objects could not be applied", touched.len());
                self.pending.extend(touched);
                (self.settings, self.keys, self.trust) = (settings, keys, trust);
                return;
            }
        }
        for key in touched {
            let problems = self.current.snapshot.diagnostics_of(&key).to_vec();
            let claim = self.winner(&key).map(|claim| (claim.object.clone(), claim.location.clone()));
            let (object, location) = claim.unzip();
            match object {
                Some(object) => self.current.objects.insert(key.clone(), object),
                None => self.current.objects.remove(&key),
            };
            self.said.of_object(key, problems, location.flatten());
        }
        self.said.between_objects(self.problems_between_objects());
        self.problems.send_if_modified(|said| self.said.publish(said));
        let wanted = self.joined.wanted_keys(&self.current.snapshot);
        self.wanted_keys.send_if_modified(|known| {
            *known != wanted && {
                *known = wanted;
                true
            }
        });
        let first = self.synced.send_if_modified(|synced| !std::mem::replace(synced, true));
        let current = Arc::new(self.current.clone());
        self.snapshots.send_if_modified(|published| {
            let news = first || published.snapshot.revision() != current.snapshot.revision();
            *published = current;
            news
        });
    }

    fn problems_between_objects(&self) -> Vec<Diagnostic> {
        let place = |mut problem: Diagnostic| {
            let claim = problem.object.as_ref().and_then(|object| self.winner(object));
            problem.location = claim.and_then(|claim| claim.location.clone());
            problem
        };
        self.joined.problems(&self.current.snapshot).into_iter().map(place).collect()
    }

    fn winner(&self, key: &ObjectRef) -> Option<&Claim> {
        self.claims.get(key)?.last()
    }
}

#[cfg(test)]
mod tests;
