//! The roots, brought to where they are read: a ConfigMap in every namespace, and the `caBundle` of our webhooks.
//!
//! What should be there is decided by [`mesh_ca::reconcile`]; here are the watches that tell when to look. What others edit or
//! delete is mended; what they own beside it is left alone.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Debug;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, Stream};
use k8s_openapi::ClusterResourceScope;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::core::ResourceExt;
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Client, Error, Resource};
use mesh_ca::reconcile::{self, CRL_CONFIG_MAP, ROOT_CONFIG_MAP, WebhookService};
use mesh_ca::{Authority, Current};
use mesh_xds::model::Settings;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::retry::{Pause, Retry};

/// Who owns the fields that are applied.
const FIELD_MANAGER: &str = "meshd";
/// How many objects are looked at side by side.
const CONCURRENCY: u16 = 8;
/// After a failure: what changes meanwhile is looked at anyway.
const AGAIN: Duration = Duration::from_secs(2);
/// How often it is looked whether the authority is another.
const PERIOD: Duration = Duration::from_secs(1);

/// Keeps the roots of an authority where they are read.
#[derive(Clone)]
pub struct Trust {
    client: Client,
    authority: Arc<Current>,
    settings: watch::Receiver<Arc<Settings>>,
    service: WebhookService,
}

impl Trust {
    /// The roots of `authority`, for the namespaces that the settings' `discoverySelectors` select, and for webhooks that call
    /// `service`.
    pub fn new(
        client: Client,
        authority: Arc<Current>,
        settings: watch::Receiver<Arc<Settings>>,
        service: WebhookService,
    ) -> Self {
        Self { client, authority, settings, service }
    }

    /// Keeps the ConfigMaps, as long as this replica `leads`.
    pub async fn keep_config_maps(self, leads: watch::Receiver<bool>) -> Infallible {
        let ours = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
        let config_maps = || Api::<ConfigMap>::all(self.client.clone());
        let of = |map: ConfigMap| map.namespace().map(|namespace| ObjectRef::<Namespace>::new(&namespace));
        let due = stream::select(self.roots(), stream::select(changes(leads.clone()), changes(self.settings.clone())));
        Controller::new(Api::<Namespace>::all(self.client.clone()), watcher::Config::default())
            .with_config(controller::Config::default().concurrency(CONCURRENCY))
            .trigger_backoff(Pause::SHORT)
            .watches(config_maps(), ours(ROOT_CONFIG_MAP), of)
            .watches(config_maps(), ours(CRL_CONFIG_MAP), of)
            .reconcile_all_on(due)
            .run(config_maps_of, again, Arc::new((self, leads)))
            .for_each(told())
            .await;
        std::future::pending().await
    }

    /// Keeps the bundles of the webhooks. Every replica may: they all want the same.
    pub async fn keep_bundles(self) -> Infallible {
        let mutating = self.keep_bundles_of::<MutatingWebhookConfiguration>();
        let validating = self.keep_bundles_of::<ValidatingWebhookConfiguration>();
        let (never, _) = tokio::join!(mutating, validating);
        never
    }

    async fn keep_bundles_of<K: Hooks>(&self) -> Infallible {
        Controller::new(Api::<K>::all(self.client.clone()), watcher::Config::default())
            .trigger_backoff(Pause::SHORT)
            .reconcile_all_on(self.roots())
            .run(bundles_of, again, Arc::new(self.clone()))
            .for_each(told())
            .await;
        std::future::pending().await
    }

    /// Whether the roots are in every namespace that wants them.
    ///
    /// # Errors
    /// When the apiserver does not answer.
    pub async fn is_published(&self) -> Result<bool, Error> {
        let ours = ListParams::default().fields(&format!("metadata.name={ROOT_CONFIG_MAP}"));
        let (namespaces, config_maps) =
            (Api::<Namespace>::all(self.client.clone()), Api::<ConfigMap>::all(self.client.clone()));
        let everything = ListParams::default();
        let (namespaces, config_maps) = tokio::try_join!(namespaces.list(&everything), config_maps.list(&ours))?;
        let authority = self.authority.get();
        let maps: BTreeMap<String, &ConfigMap> =
            config_maps.iter().filter_map(|map| Some((map.namespace()?, map))).collect();
        Ok(namespaces.iter().filter(|namespace| self.keeps(namespace)).all(|namespace| {
            let name = namespace.name_any();
            reconcile::root_config_map(&authority, &name, maps.get(&name).copied()).is_none()
        }))
    }

    /// When the authority is another.
    fn roots(&self) -> impl Stream<Item = ()> + Send + use<> {
        changes_of(self.authority.clone()).map(|_| ())
    }

    /// Whether a namespace is to have the roots.
    fn keeps(&self, namespace: &Namespace) -> bool {
        let is_ending = namespace.metadata.deletion_timestamp.is_some();
        !is_ending && reconcile::wants_roots(&namespace.name_any()) && self.selects(namespace)
    }

    /// Whether workloads of the mesh may be in a namespace.
    fn selects(&self, namespace: &Namespace) -> bool {
        let selectors = &self.settings.borrow().mesh.discovery_selectors;
        selectors.is_empty() || selectors.iter().any(|selector| selector.matches(namespace.labels()))
    }
}

/// The authorities that take the place of this one.
pub(crate) fn changes_of(authority: Arc<Current>) -> impl Stream<Item = Arc<Authority>> + Send {
    stream::unfold(authority.get(), move |before| {
        let authority = authority.clone();
        async move {
            loop {
                tokio::time::sleep(PERIOD).await;
                let now = authority.get();
                if !Arc::ptr_eq(&before, &now) {
                    return Some((now.clone(), now));
                }
            }
        }
    })
}

/// When a channel has a new value.
fn changes<T: Clone + Send + Sync + 'static>(channel: watch::Receiver<T>) -> impl Stream<Item = ()> + Send {
    stream::unfold(channel, |mut channel| async move { channel.changed().await.ok().map(|()| ((), channel)) })
}

async fn config_maps_of(
    namespace: Arc<Namespace>,
    context: Arc<(Trust, watch::Receiver<bool>)>,
) -> Result<Action, Error> {
    let (trust, leads) = &*context;
    if !*leads.borrow() || !trust.keeps(&namespace) {
        return Ok(Action::await_change());
    }
    let name = namespace.name_any();
    let maps = Api::<ConfigMap>::namespaced(trust.client.clone(), &name);
    let authority = trust.authority.get();
    type Wanted = fn(&Authority, &str, Option<&ConfigMap>) -> Option<ConfigMap>;
    let kept: [(&str, Wanted); 2] =
        [(ROOT_CONFIG_MAP, reconcile::root_config_map), (CRL_CONFIG_MAP, reconcile::crl_config_map)];
    for (map, wanted) in kept {
        if let Some(wanted) = wanted(&authority, &name, maps.get_opt(map).await?.as_ref()) {
            maps.patch(map, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(&wanted)).await?;
            tracing::debug!("ConfigMap {name}/{map} is right again");
        }
    }
    Ok(Action::await_change())
}

/// A configuration of webhooks.
trait Hooks:
    Resource<DynamicType = (), Scope = ClusterResourceScope> + DeserializeOwned + Clone + Debug + Send + Sync + 'static
{
    /// Its webhooks by name.
    fn hooks(&self) -> Vec<(&str, &WebhookClientConfig)>;
}

impl Hooks for MutatingWebhookConfiguration {
    fn hooks(&self) -> Vec<(&str, &WebhookClientConfig)> {
        self.webhooks.iter().flatten().map(|hook| (hook.name.as_str(), &hook.client_config)).collect()
    }
}

impl Hooks for ValidatingWebhookConfiguration {
    fn hooks(&self) -> Vec<(&str, &WebhookClientConfig)> {
        self.webhooks.iter().flatten().map(|hook| (hook.name.as_str(), &hook.client_config)).collect()
    }
}

async fn bundles_of<K: Hooks>(configuration: Arc<K>, trust: Arc<Trust>) -> Result<Action, Error> {
    let authority = trust.authority.get();
    if let Some(patch) = reconcile::bundle_patch(configuration.hooks(), &trust.service, authority.roots_pem()) {
        let name = configuration.name_any();
        let configurations = Api::<K>::all(trust.client.clone());
        configurations.patch(&name, &PatchParams::default(), &Patch::Strategic(&patch)).await?;
        tracing::info!("the webhooks of {name} trust the roots of the mesh");
    }
    Ok(Action::await_change())
}

fn again<K, C>(_: Arc<K>, _: &Error, _: Arc<C>) -> Action {
    Action::requeue(AGAIN)
}

/// Says once what keeps the roots from where they belong.
fn told<T>() -> impl FnMut(Result<T, controller::Error<Error, watcher::Error>>) -> Ready<()> {
    let mut retry = Retry::new("the roots of the mesh");
    move |done| {
        match done {
            Ok(_) => retry.worked(),
            // Deleted in the meantime.
            Err(controller::Error::ObjectNotFound(_)) => {}
            Err(error) => retry.tell(&error),
        }
        ready(())
    }
}
