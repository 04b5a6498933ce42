//! The ConfigMaps that the control plane is set up with, in the root namespace: `istio`, with MeshConfig as YAML under `mesh` and
//! MeshNetworks under `meshNetworks`, and `istio-sidecar-injector`. The control plane of a revision has its own,
//! `istio-REVISION` and so on.

use std::collections::BTreeMap;

use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::Api;
use kube::runtime::watcher;

use crate::retry::Retry;

/// The ConfigMap, followed.
pub struct MeshConfigMap {
    name: String,
    events: BoxStream<'static, watcher::Result<Option<ConfigMap>>>,
    retry: Retry,
}

impl MeshConfigMap {
    /// The ConfigMap of a revision (empty or `default` for the cluster's main one). Nothing is asked before the first
    /// call of [`next`](Self::next).
    pub fn new(client: Client, namespace: &str, revision: &str) -> Self {
        Self::named(client, namespace, &of_revision("istio", revision))
    }

    /// Another ConfigMap, by its full name.
    pub fn named(client: Client, namespace: &str, name: &str) -> Self {
        let events = watcher::watch_object(Api::namespaced(client, namespace), name).boxed();
        let name = format!("ConfigMap {namespace}/{name}");
        Self { retry: Retry::new(name.clone()), name, events }
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its texts by their keys: at first as soon as it is known whether it exists, then at each change. One that does not
    /// exist is empty. Dropping the future loses nothing.
    pub async fn next(&mut self) -> BTreeMap<String, String> {
        loop {
            match self.events.next().await {
                Some(Ok(object)) => {
                    self.retry.worked();
                    return object.and_then(|object| object.data).unwrap_or_default();
                }
                Some(Err(error)) => self.retry.failed(&error).await,
                // It never ends.
                None => std::future::pending().await,
            }
        }
    }
}

/// The name of a ConfigMap for a revision; `default` has none of its own.
pub(crate) fn of_revision(name: &str, revision: &str) -> String {
    match revision {
        "" | "default" => name.to_owned(),
        revision => format!("{name}-{revision}"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn each_revision_has_its_own() {
        let names = ["", "default", "1-31"].map(|revision| super::of_revision("istio", revision));
        assert_eq!(names, ["istio", "istio", "istio-1-31"]);
    }
}
