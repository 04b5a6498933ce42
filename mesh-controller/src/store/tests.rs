//! The store with memory sources and a clock that stands still: time passes only when everybody waits for it.

use std::time::Duration;

use mesh_api::{Diagnostic, Name};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;
use crate::source::memory::Edit;
use crate::source::{Memory, Next};

const AFTER: Duration = Duration::from_millis(100);

fn service(name: &str, port: u16) -> Object {
    let text =
        format!("{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{ports: [{{port: {port}}}]}}}}");
    mesh_api::document::parse(&"test".into(), &text).documents.remove(0).unwrap().object
}

fn key(name: &str) -> ObjectRef {
    ObjectRef::new("Service", "default", name)
}

/// A source that says what the test says.
struct Spoken(UnboundedReceiver<Batch>);

impl Spoken {
    fn new() -> (UnboundedSender<Batch>, Self) {
        let (sender, receiver) = unbounded_channel();
        (sender, Self(receiver))
    }
}

impl Source for Spoken {
    fn name(&self) -> &str {
        "spoken"
    }
    fn next(&mut self) -> Next<'_> {
        Box::pin(self.0.recv())
    }
}

struct Running {
    snapshots: watch::Receiver<Arc<Published>>,
    problems: watch::Receiver<Arc<Problems>>,
    synced: watch::Receiver<bool>,
    settings: watch::Sender<Arc<Settings>>,
    _stop: tokio_util::sync::DropGuard,
}

fn run(sources: Vec<Box<dyn Source>>) -> Running {
    let debounce = Debounce { after: AFTER, max: 10 * AFTER };
    let mut store = Store::new(Settings::default(), debounce);
    store.sources = sources;
    let settings = watch::Sender::default();
    store.settings(settings.subscribe());
    let stop = CancellationToken::new();
    let running = Running {
        snapshots: store.snapshots(),
        problems: store.problems(),
        synced: store.synced(),
        settings,
        _stop: stop.clone().drop_guard(),
    };
    tokio::spawn(store.run(stop));
    running
}

impl Running {
    /// The next snapshot, and how long it took.
    async fn next(&mut self) -> (Snapshot, Duration) {
        let start = Instant::now();
        tokio::time::timeout(Duration::from_secs(60), self.snapshots.changed()).await.unwrap().unwrap();
        let published = self.snapshots.borrow_and_update().clone();
        let objects: Vec<&ObjectRef> = published.objects.keys().collect();
        assert_eq!(objects, published.snapshot.objects().collect::<Vec<_>>(), "what is written is what is meant");
        assert!(published.changed_at.is_some());
        (published.snapshot.clone(), start.elapsed())
    }

    async fn is_quiet(&mut self) -> bool {
        tokio::time::timeout(Duration::from_secs(60), self.snapshots.changed()).await.is_err()
    }
}

fn names(snapshot: &Snapshot) -> Vec<Name> {
    snapshot.objects().map(|object| object.name.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn nothing_is_published_before_every_source_has_synced() {
    let memory = Memory::default();
    memory.upsert(service("a", 80));
    let (slow, source) = Spoken::new();
    let mut store = run(vec![Box::new(memory.source()), Box::new(source)]);
    assert!(store.is_quiet().await);
    assert!(!*store.synced.borrow());
    slow.send(vec![Event::Upsert { object: service("b", 80), location: None }]).unwrap();
    assert!(store.is_quiet().await);
    slow.send(vec![Event::Synced]).unwrap();
    let (snapshot, waited) = store.next().await;
    assert_eq!(names(&snapshot), ["a", "b"]);
    assert_eq!(waited, Duration::ZERO);
    assert!(*store.synced.borrow());
}

#[tokio::test(start_paused = true)]
async fn an_empty_mesh_is_published_too() {
    let (sender, source) = Spoken::new();
    let mut store = run(vec![Box::new(source)]);
    // A source that ends without a word has synced.
    drop(sender);
    let (snapshot, _) = store.next().await;
    assert!(names(&snapshot).is_empty() && *store.synced.borrow());
}

#[tokio::test(start_paused = true)]
async fn a_change_after_quiet_goes_at_once_and_a_burst_goes_together() {
    let memory = Memory::default();
    let mut store = run(vec![Box::new(memory.source())]);
    store.next().await;
    tokio::time::sleep(AFTER).await;

    memory.upsert(service("a", 80));
    assert_eq!(store.next().await.1, Duration::ZERO, "the first change after quiet");
    memory.upsert(service("b", 80));
    tokio::time::sleep(AFTER / 2).await;
    memory.upsert(service("c", 80));
    let (snapshot, waited) = store.next().await;
    assert_eq!(names(&snapshot), ["a", "b", "c"], "what followed goes together");
    assert_eq!(waited.as_millis(), AFTER.as_millis(), "when it has been quiet");
    assert!(store.is_quiet().await);
}

#[tokio::test(start_paused = true)]
async fn what_changes_nothing_is_not_published() {
    let (said, source) = Spoken::new();
    let mut store = run(vec![Box::new(source)]);
    let upsert = |port| vec![Event::Upsert { object: service("a", port), location: None }, Event::Synced];
    said.send(upsert(80)).unwrap();
    let (first, _) = store.next().await;
    said.send(upsert(80)).unwrap();
    said.send(vec![Event::Delete(key("never"))]).unwrap();
    assert!(store.is_quiet().await);
    said.send(upsert(81)).unwrap();
    assert_eq!(store.next().await.0.revision(), first.revision() + 1);
}

#[tokio::test(start_paused = true)]
async fn of_two_sources_the_later_counts_until_it_lets_go() {
    let (one, two) = (Memory::default(), Memory::default());
    one.upsert(service("a", 80));
    two.upsert(service("a", 90));
    let mut store = run(vec![Box::new(one.source()), Box::new(two.source())]);
    let port = |snapshot: &Snapshot| snapshot.services.iter().next().unwrap().1.ports[0].number;
    assert_eq!(port(&store.next().await.0), 90);
    one.upsert(service("a", 81));
    assert!(store.is_quiet().await, "what does not count changes nothing");
    two.delete(&key("a"));
    assert_eq!(port(&store.next().await.0), 81);
    one.apply([Edit::Delete(key("a"))]);
    assert!(names(&store.next().await.0).is_empty());
}

#[tokio::test(start_paused = true)]
async fn problems_are_known_while_they_last() {
    let (said, source) = Spoken::new();
    let store = run(vec![Box::new(source)]);
    let problem = Diagnostic::error("InvalidYAML", "broken");
    let of = |problems: &[Diagnostic]| vec![Event::Problems { part: "f.yaml".into(), problems: problems.to_vec() }];
    let mut problems = store.problems.clone();
    said.send(of(std::slice::from_ref(&problem))).unwrap();
    problems.changed().await.unwrap();
    assert_eq!(problems.borrow_and_update().iter().collect::<Vec<_>>(), [&problem]);
    assert_eq!(problems.borrow().parts().next().unwrap().1, "f.yaml");
    said.send(of(&[])).unwrap();
    problems.changed().await.unwrap();
    assert!(problems.borrow().is_empty());
}

#[tokio::test(start_paused = true)]
async fn settings_change_like_everything_else() {
    let mut store = run(vec![]);
    assert_eq!(store.next().await.0.settings().root_namespace, "istio-system");
    let mut settings = Settings::default();
    settings.root_namespace = "mesh".into();
    store.settings.send_replace(Arc::new(settings));
    assert_eq!(store.next().await.0.settings().root_namespace, "mesh");
}
