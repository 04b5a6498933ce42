//! The objects of a Kubernetes cluster, followed through its apiserver.
//!
//! One task for each kind lists and watches it (`watch`), decodes what it hears and drops what the mesh has no use for
//! (`decode`). All of them tell one `Mirror`, which knows what was told before: a new list, after a cut that lasted too
//! long or when a definition came back, costs only what has changed. Which kinds a cluster serves, and as which version,
//! its CustomResourceDefinitions say (`definitions`): a kind that is not there has no objects, and gets its watch when
//! it appears.
//!
//! An apiserver that does not answer deletes nothing: what was last heard stays in force until it says otherwise.

use std::future::pending;
use std::sync::Arc;

use kube::Client;
use mesh_api::Name;
use mesh_xds::model::Settings;
use tokio::sync::{mpsc, watch as channel};
use tokio::task::JoinSet;

use self::kinds::Watched;
use self::mirror::{Mirror, News};
use super::{Batch, Next, Source};

mod decode;
mod definitions;
mod kinds;
mod mirror;
mod scope;
mod watch;

/// News that wait for the mirror, before the watches have to wait for it.
const BACKLOG: usize = 1024;

/// A source over the objects of a cluster.
///
/// ```no_run
/// use mesh_controller::ControlPlane;
/// use mesh_controller::source::Kube;
/// # async fn run() -> anyhow::Result<()> {
/// let client = kube::Client::try_default().await?;
/// let control_plane = ControlPlane::builder().source(Kube::new(client)).bind().await?;
/// # control_plane.run_until(std::future::pending()).await?;
/// # Ok(()) }
/// ```
pub struct Kube {
    client: Client,
    kinds: Option<&'static [&'static str]>,
    namespaces: Vec<Name>,
    settings: Option<channel::Receiver<Arc<Settings>>>,
    running: Option<Running>,
}

struct Running {
    tasks: JoinSet<()>,
    news: mpsc::Receiver<News>,
    mirror: Mirror,
}

impl Kube {
    /// A source over the whole cluster. Nothing is asked of the apiserver before the first call of [`Source::next`].
    pub fn new(client: Client) -> Self {
        Self { client, kinds: None, namespaces: Vec::new(), settings: None, running: None }
    }

    /// Looks at these kinds only, as an [`ObjectRef`](mesh_api::ObjectRef) names them.
    #[must_use]
    pub fn kinds(mut self, kinds: &'static [&'static str]) -> Self {
        self.kinds = Some(kinds);
        self
    }

    /// Looks at these namespaces only, besides the objects that belong to none.
    #[must_use]
    pub fn namespaces(mut self, namespaces: impl IntoIterator<Item = Name>) -> Self {
        self.namespaces = namespaces.into_iter().collect();
        self
    }

    /// Tells only of the namespaces that the mesh's `discoverySelectors` select, and follows their changes.
    #[must_use]
    pub fn settings(mut self, settings: channel::Receiver<Arc<Settings>>) -> Self {
        self.settings = Some(settings);
        self
    }

    fn start(&self) -> Running {
        let (sender, news) = mpsc::channel(BACKLOG);
        let (tell_definitions, definitions) = channel::channel(None);
        let mut tasks = JoinSet::new();
        let mut parts = Vec::new();
        let wanted = |watched: &Watched| self.kinds.is_none_or(|kinds| kinds.contains(&watched.kind.name));
        let watched: Vec<Watched> = kinds::all().filter(wanted).collect();
        if watched.iter().any(|watched| watched.built_in().is_none()) {
            tasks.spawn(definitions::follow(self.client.clone(), tell_definitions));
        }
        for watched in watched {
            for namespace in self.places(&watched) {
                let watch = watch::Watch::new(watched, namespace, self.client.clone(), sender.clone());
                parts.push(watch.part().clone());
                tasks.spawn(watch.run(definitions.clone()));
            }
        }
        let mut mirror = Mirror::new(parts);
        if let Some(settings) = &self.settings {
            mirror.select(&settings.borrow().mesh.discovery_selectors, &mut Batch::new());
        }
        Running { tasks, news, mirror }
    }

    /// Where a kind is watched: one namespace after the other, or (`None`) the whole cluster at once.
    fn places(&self, watched: &Watched) -> Vec<Option<Name>> {
        if watched.kind.namespaced && !self.namespaces.is_empty() {
            self.namespaces.iter().cloned().map(Some).collect()
        } else {
            vec![None]
        }
    }
}

impl Source for Kube {
    fn name(&self) -> &str {
        "kube"
    }

    fn next(&mut self) -> Next<'_> {
        Box::pin(async move {
            if self.running.is_none() {
                self.running = Some(self.start());
            }
            let running = self.running.as_mut()?;
            loop {
                let mut heard = Vec::new();
                let mut batch = Batch::new();
                tokio::select! {
                    count = running.news.recv_many(&mut heard, BACKLOG) => {
                        if count == 0 {
                            return None;
                        }
                        for news in heard {
                            running.mirror.hear(news, &mut batch);
                        }
                    }
                    settings = changed(&mut self.settings) => {
                        running.mirror.select(&settings.mesh.discovery_selectors, &mut batch);
                    }
                    Some(ended) = running.tasks.join_next() => {
                        // A defect of ours: they run for ever.
                        tracing::error!(?ended, "a watch has ended; its kind is no longer followed");
                    }
                }
                if !batch.is_empty() {
                    return Some(batch);
                }
            }
        })
    }
}

/// The next settings; never, where there will be no others.
async fn changed(settings: &mut Option<channel::Receiver<Arc<Settings>>>) -> Arc<Settings> {
    if let Some(receiver) = settings
        && receiver.changed().await.is_ok()
    {
        return receiver.borrow_and_update().clone();
    }
    *settings = None;
    pending().await
}
