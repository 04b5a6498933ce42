//! The task of one kind: lists it, watches it, decodes what it hears, and begins again whenever the apiserver says so.

use std::collections::BTreeSet;
use std::future::pending;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use kube::Client;
use kube::api::{Api, ApiResource, PartialObjectMeta};
use kube::core::{DynamicResourceScope, Resource};
use kube::runtime::watcher::{self, Event, watcher};
use mesh_api::{Name, ObjectRef};
use tokio::sync::{mpsc, watch};

use super::decode::{self, Raw};
use super::definitions::Known;
use super::kinds::Watched;
use super::mirror::{News, Part};
use crate::retry::Retry;

/// A kind, in the whole cluster or in one namespace.
pub(super) struct Watch {
    watched: Watched,
    part: Part,
    client: Client,
    news: mpsc::Sender<News>,
}

/// Nobody listens any more.
struct Unheard;

impl From<mpsc::error::SendError<News>> for Unheard {
    fn from(_: mpsc::error::SendError<News>) -> Self {
        Self
    }
}

impl Watch {
    pub(super) fn new(watched: Watched, namespace: Option<Name>, client: Client, news: mpsc::Sender<News>) -> Self {
        Self { watched, part: Part { kind: watched.kind.name, namespace }, client, news }
    }

    pub(super) fn part(&self) -> &Part {
        &self.part
    }

    /// Runs until nobody listens. `definitions` says where the cluster has the kind, if it is a custom one.
    pub(super) async fn run(self, mut definitions: watch::Receiver<Known>) {
        if let Some(resource) = self.watched.built_in() {
            // It ends only with those who listen.
            let _ = self.follow(Some(&resource)).await;
            return;
        }
        let resource = |known: &Known| known.as_ref().map(|served| served.resource(self.watched.kind));
        let mut now: Option<Option<ApiResource>> = None;
        loop {
            let follow = async {
                match &now {
                    Some(resource) => self.follow(resource.as_ref()).await,
                    None => pending().await,
                }
            };
            let next = tokio::select! {
                _ = follow => return,
                known = definitions.wait_for(|known| resource(known) != now) => known.map(|known| resource(&known)),
            };
            match next {
                Ok(next) => now = next,
                Err(_) => return,
            }
        }
    }

    /// Tells what there is at a place and follows it; a kind without a place has no objects.
    async fn follow(&self, resource: Option<&ApiResource>) -> Result<(), Unheard> {
        let Some(resource) = resource else {
            self.news.send(self.listed(BTreeSet::new())).await?;
            return pending().await;
        };
        let mut retry = Retry::new(format!("watch of {}", self.part));
        let mut events = self.events(resource);
        let mut listed = BTreeSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(raw)) => {
                    let news = decode::decode(self.watched.kind, resource, raw);
                    // What is of no use is as good as not there, and is swept with the rest.
                    if let News::Is(key, _) | News::Broken(key, _) = &news {
                        listed.insert(key.clone());
                        self.news.send(news).await?;
                    }
                }
                Ok(Event::InitDone) => {
                    retry.worked();
                    self.news.send(self.listed(std::mem::take(&mut listed))).await?;
                }
                Ok(Event::Apply(raw)) => {
                    retry.worked();
                    self.news.send(decode::decode(self.watched.kind, resource, raw)).await?;
                }
                Ok(Event::Delete(raw)) => self.news.send(News::Gone(raw.key(self.watched.kind))).await?,
                // Too long ago for the apiserver: it lists anew, as is usual after a long cut.
                Err(watcher::Error::WatchError(status)) if status.code == 410 => {}
                Err(error) => retry.failed(&error).await,
            }
        }
        Ok(())
    }

    fn events(&self, resource: &ApiResource) -> BoxStream<'static, watcher::Result<Event<Raw>>> {
        if self.watched.metadata_only {
            let api = self.api::<PartialObjectMeta<Raw>>(resource);
            watcher(api, self.watched.config()).map_ok(decode::from_metadata).boxed()
        } else {
            watcher(self.api::<Raw>(resource), self.watched.config()).boxed()
        }
    }

    fn api<K>(&self, resource: &ApiResource) -> Api<K>
    where
        K: Resource<DynamicType = ApiResource, Scope = DynamicResourceScope>,
    {
        match &self.part.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        }
    }

    fn listed(&self, keys: BTreeSet<ObjectRef>) -> News {
        News::Listed(self.part.clone(), keys)
    }
}
