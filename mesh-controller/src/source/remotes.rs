//! Other clusters of the mesh: each Secret labelled `istio/multiCluster=true` in the control plane's namespace holds, by
//! cluster name, kubeconfigs of clusters whose services and endpoints belong to the mesh as well.
//!
//! Clusters come, go and get new credentials without a word about the others; with new credentials what was told of a
//! cluster stays in force until it has been listed anew. One that cannot be reached is waited for only at the start, and
//! not for long.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::Api;
use kube::core::ResourceExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use mesh_api::{Diagnostic, Name, ObjectRef};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::access::Kubeconfigs;
use self::merge::Merge;
use super::{Batch, Event, Kube, Next, Source};
use crate::identity::Clients;
use crate::retry::{Pause, Retry};

mod access;
mod merge;

const LABEL: &str = "istio/multiCluster=true";
/// What is read of other clusters; configuration is that of the control plane's own cluster.
const KINDS: &[&str] = &["Node", "Service", "EndpointSlice", "Pod"];
/// Batches that wait for the merger, before the clusters have to wait for it.
const BACKLOG: usize = 64;

/// A source over the clusters that Secrets name. Add it to a control plane before the source over its own cluster: where
/// both have a service, the own one counts, and the endpoints of both.
pub struct Remotes {
    own: Name,
    patience: Duration,
    secrets: BoxStream<'static, watcher::Result<watcher::Event<Secret>>>,
    listed: BTreeMap<String, Kubeconfigs>,
    known: BTreeMap<String, Kubeconfigs>,
    clusters: BTreeMap<Name, Cluster>,
    /// Why Secrets are of no use, by their names.
    problems: BTreeMap<String, Vec<Diagnostic>>,
    merge: Merge,
    sender: mpsc::Sender<Heard>,
    heard: mpsc::Receiver<Heard>,
    clients: Clients,
    start: Start,
}

/// How far the initial sync is.
enum Start {
    /// The Secrets are not known yet.
    Unlisted,
    /// These clusters have not told all yet; they are waited for until then.
    Waiting(BTreeSet<Name>, Instant),
    Synced,
}

/// A cluster that is followed. It is no longer once this is dropped.
struct Cluster {
    kubeconfig: Vec<u8>,
    /// Tells its batches from those of its predecessor under older credentials.
    turn: u64,
    _task: JoinSet<()>,
}

struct Heard {
    cluster: Name,
    turn: u64,
    batch: Batch,
}

impl Remotes {
    /// Follows the Secrets of a namespace. The cluster called `own` is the control plane's and is not followed twice.
    pub fn new(client: Client, namespace: &str, own: Name) -> Self {
        let config = watcher::Config::default().labels(LABEL);
        let (sender, heard) = mpsc::channel(BACKLOG);
        Self {
            own,
            patience: Duration::from_secs(30),
            secrets: watcher(Api::namespaced(client, namespace), config).backoff(Pause::LONG).boxed(),
            listed: BTreeMap::new(),
            known: BTreeMap::new(),
            clusters: BTreeMap::new(),
            problems: BTreeMap::new(),
            merge: Merge::default(),
            sender,
            heard,
            clients: Clients::default(),
            start: Start::Unlisted,
        }
    }

    /// Makes the clients of these clusters known to others.
    #[must_use]
    pub fn clients(mut self, clients: Clients) -> Self {
        self.clients = clients;
        self
    }

    /// How long the start waits for clusters that do not answer. The default is istiod's 30 seconds.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn hear_secrets(&mut self, event: watcher::Result<watcher::Event<Secret>>, batch: &mut Batch) {
        use watcher::Event;
        match event {
            Ok(Event::Init) => self.listed.clear(),
            Ok(Event::InitApply(secret)) => drop(self.listed.insert(secret.name_any(), access::kubeconfigs(&secret))),
            Ok(Event::InitDone) => {
                self.known = std::mem::take(&mut self.listed);
                self.reconcile(batch);
                if matches!(self.start, Start::Unlisted) {
                    let all = self.clusters.keys().cloned().collect();
                    self.start = Start::Waiting(all, Instant::now() + self.patience);
                }
            }
            Ok(Event::Apply(secret)) => {
                self.known.insert(secret.name_any(), access::kubeconfigs(&secret));
                self.reconcile(batch);
            }
            Ok(Event::Delete(secret)) => {
                self.known.remove(&secret.name_any());
                self.reconcile(batch);
            }
            Err(error) => tracing::warn!("Secrets {LABEL}: {error}; the clusters that are known stay"),
        }
    }

    /// Follows the clusters that the Secrets name, and no others.
    fn reconcile(&mut self, batch: &mut Batch) {
        let mut wanted: BTreeMap<Name, (ObjectRef, Vec<u8>)> = BTreeMap::new();
        let mut problems: BTreeMap<String, Vec<Diagnostic>> = BTreeMap::new();
        for (secret, Kubeconfigs { of, clusters }) in &self.known {
            for (cluster, kubeconfig) in clusters {
                let problem = match wanted.get(cluster) {
                    _ if *cluster == self.own => Some(format!("{cluster} is the control plane's own cluster")),
                    Some((other, _)) => Some(format!("{cluster} is named by {other} already; remove one of them")),
                    None => access::check(kubeconfig).err(),
                };
                match problem {
                    Some(problem) => {
                        let told = problems.entry(secret.clone()).or_default();
                        told.push(
                            Diagnostic::error("InvalidRemoteCluster", format!("{problem}; it is not followed")).on(of),
                        );
                    }
                    None => drop(wanted.insert(cluster.clone(), (of.clone(), kubeconfig.clone()))),
                }
            }
        }
        for gone in self.clusters.keys().filter(|cluster| !wanted.contains_key(*cluster)).cloned().collect::<Vec<_>>() {
            self.clusters.remove(&gone);
            self.clients.remove(&gone);
            self.merge.remove(&gone, batch);
            self.is_done(&gone);
        }
        for (cluster, (_, kubeconfig)) in wanted {
            let turn = match self.clusters.get(&cluster) {
                Some(known) if known.kubeconfig == kubeconfig => continue,
                Some(known) => known.turn + 1,
                None => 0,
            };
            self.follow(cluster, kubeconfig, turn);
        }
        self.tell(problems, batch);
    }

    fn follow(&mut self, cluster: Name, kubeconfig: Vec<u8>, turn: u64) {
        tracing::info!("cluster {cluster} is followed{}", if turn > 0 { " with new credentials" } else { "" });
        self.merge.begin(&cluster);
        let mut task = JoinSet::new();
        task.spawn(drive(cluster.clone(), turn, kubeconfig.clone(), self.clients.clone(), self.sender.clone()));
        self.clusters.insert(cluster, Cluster { kubeconfig, turn, _task: task });
    }

    fn tell(&mut self, problems: BTreeMap<String, Vec<Diagnostic>>, batch: &mut Batch) {
        let part = |secret: &String| Name::from(format!("Secret {secret}"));
        for secret in self.problems.keys().filter(|secret| !problems.contains_key(*secret)) {
            batch.push(Event::Problems { part: part(secret), problems: Vec::new() });
        }
        for (secret, now) in problems.iter().filter(|(secret, now)| self.problems.get(*secret) != Some(*now)) {
            batch.push(Event::Problems { part: part(secret), problems: now.clone() });
        }
        self.problems = problems;
    }

    fn hear(&mut self, Heard { cluster, turn, batch }: Heard, out: &mut Batch) {
        if self.clusters.get(&cluster).is_none_or(|known| known.turn != turn) {
            return;
        }
        let synced = batch.contains(&Event::Synced);
        self.merge.hear(&cluster, batch, out);
        if synced {
            self.is_done(&cluster);
        }
    }

    /// The start need not wait for a cluster any more.
    fn is_done(&mut self, cluster: &Name) {
        if let Start::Waiting(clusters, _) = &mut self.start {
            clusters.remove(cluster);
        }
    }

    /// Ends the start when all is told or patience is at its end.
    fn finish_start(&mut self, batch: &mut Batch) {
        if let Start::Waiting(clusters, until) = &self.start {
            let late = Instant::now() >= *until;
            if late {
                tracing::warn!("these clusters do not answer yet: {clusters:?}; the mesh starts without them");
            }
            if late || clusters.is_empty() {
                self.start = Start::Synced;
                batch.push(Event::Synced);
            }
        }
    }
}

impl Source for Remotes {
    fn name(&self) -> &str {
        "remotes"
    }

    fn next(&mut self) -> Next<'_> {
        Box::pin(async move {
            loop {
                let mut batch = Batch::new();
                let until = match self.start {
                    Start::Waiting(_, until) => Some(until),
                    Start::Unlisted | Start::Synced => None,
                };
                tokio::select! {
                    Some(event) = self.secrets.next() => self.hear_secrets(event, &mut batch),
                    Some(heard) = self.heard.recv() => self.hear(heard, &mut batch),
                    () = sleep_until(until), if until.is_some() => {}
                }
                self.finish_start(&mut batch);
                if !batch.is_empty() {
                    return Some(batch);
                }
            }
        })
    }
}

async fn sleep_until(until: Option<Instant>) {
    if let Some(until) = until {
        tokio::time::sleep_until(until).await;
    }
}

/// Hands on what one cluster has to say.
async fn drive(cluster: Name, turn: u64, kubeconfig: Vec<u8>, clients: Clients, sender: mpsc::Sender<Heard>) {
    let mut retry = Retry::new(format!("cluster {cluster}"));
    let client = loop {
        match access::client(&kubeconfig).await {
            Ok(client) => break client,
            Err(error) => retry.failed(&error).await,
        }
    };
    clients.insert(cluster.clone(), client.clone());
    let mut source = Kube::new(client).kinds(KINDS);
    while let Some(batch) = source.next().await {
        let heard = Heard { cluster: cluster.clone(), turn, batch };
        if sender.send(heard).await.is_err() {
            return;
        }
    }
}
