//! The loop: whenever an IstioOperator changes, or an object that was made for one, what should be and what is are
//! compared, and the difference is made. One replica of the operator does so, the one that holds the Lease.

use std::collections::HashMap;
use std::fmt::Display;
use std::future::{Future, ready};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta, Patch, PatchParams};
use kube::core::{Resource, ResourceExt};
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::finalizer::{self, finalizer};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Client, Error};
use mesh_api::install::IstioOperatorStatus;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use super::changes::{COMPONENT, Changes, OWNER, OWNER_NAMESPACE, Owner, changes, desired};
use super::cluster::{Cluster, Done, MANAGER};
use super::kinds::KINDS;
use super::status::{self, Outcome};
use crate::install::Plan;
use crate::leader::{self, Candidate};
use crate::retry::{Pause, Retry};

/// Holds an IstioOperator until all that was made for it is gone. Istio's name.
const FINALIZER: &str = "istio-finalizer.install.istio.io";
/// The Lease of the replica that acts.
const LEASE: &str = "mesh-operator";
/// What no watch tells of is noticed within this time.
const RESYNC: Duration = Duration::from_secs(300);
/// What belongs to another may become free.
const WAIT_FOR_OTHERS: Duration = Duration::from_secs(30);
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(300);

/// How an operator runs.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Where its Lease is.
    pub namespace: String,
    /// Its name among the replicas.
    pub identity: String,
    /// How the Lease is kept.
    pub lease: leader::Options,
}

impl Options {
    /// An operator of this name whose Lease is in this namespace.
    pub fn new(namespace: impl Into<String>, identity: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), identity: identity.into(), lease: leader::Options::default() }
    }
}

/// What is counted.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    reconciliations: Family<[(&'static str, &'static str); 1], Counter>,
    changes: Family<[(&'static str, &'static str); 1], Counter>,
}

impl Metrics {
    /// Adds the counters to a registry.
    pub fn register(&self, registry: &mut Registry) {
        for (name, help, family) in [
            ("mesh_operator_reconciliations", "Reconciliations by their result", &self.reconciliations),
            ("mesh_operator_changes", "Objects written, by what was done with them", &self.changes),
        ] {
            registry.register(name, help, family.clone());
        }
    }

    fn reconciled(&self, result: &'static str) {
        self.reconciliations.get_or_create(&[("result", result)]).inc();
    }

    fn changed(&self, done: Done<'_>) {
        let action = match done {
            Done::Applied(_) => "apply",
            Done::Deleted(_) => "delete",
            Done::Failed(..) => "failed",
        };
        self.changes.get_or_create(&[("action", action)]).inc();
    }
}

/// Makes the cluster have what its IstioOperators ask for.
pub struct Operator {
    client: Client,
    options: Options,
    metrics: Metrics,
}

/// Why an IstioOperator is not carried out yet.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// The apiserver does not answer as it should.
    #[error("{what}: {source}; check the apiserver, and the operator's ClusterRole")]
    Api {
        /// What it was asked for.
        what: &'static str,
        /// What it said.
        #[source]
        source: Error,
    },
    /// Some objects could not be written; the status says which.
    #[error("{0}")]
    Failed(String),
}

impl Operator {
    /// An operator; nothing happens before [`run`](Self::run).
    pub fn new(client: Client, options: Options) -> Self {
        Self { client, options, metrics: Metrics::default() }
    }

    /// What it counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Runs until `shutdown`.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Options { namespace, identity, lease } = &self.options;
        let candidate = Candidate::new(self.client.clone(), namespace, LEASE, identity, *lease);
        let mut leads = candidate.leads();
        let act = async {
            while leads.wait_for(|leads| *leads).await.is_ok() {
                tokio::select! {
                    () = self.work() => {}
                    lost = leads.wait_for(|leads| !*leads) => if lost.is_err() { return },
                }
            }
        };
        tokio::join!(candidate.run(shutdown), act);
    }

    /// Acts, for as long as the future is polled.
    async fn work(&self) {
        let resource = resource();
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource);
        let mut controller =
            Controller::new_with(api, watcher::Config::default(), resource).trigger_backoff(Pause::SHORT);
        for managed in KINDS.iter().filter(|managed| managed.built_in && managed.kind != "Namespace") {
            let api: Api<PartialObjectMeta> = Api::all_with(self.client.clone(), &managed.resource());
            let labelled = watcher::Config::default().labels(COMPONENT);
            controller = controller.watches_with(api, managed.resource(), labelled, |object| owner(&object));
        }
        let reporter = Reporter { controller: MANAGER.to_owned(), instance: Some(self.options.identity.clone()) };
        let context = Arc::new(Context {
            cluster: Cluster::new(self.client.clone()),
            recorder: Recorder::new(self.client.clone(), reporter),
            metrics: self.metrics.clone(),
            failures: Mutex::default(),
        });
        let mut watches = Retry::new("a watch of the operator");
        controller
            .run(reconcile, failed, context)
            .for_each(|result| {
                match result {
                    Ok(_) => watches.worked(),
                    Err(controller::Error::QueueError(error)) => watches.tell(&error),
                    // Failures of reconciliations are told by `failed`.
                    Err(_) => {}
                }
                ready(())
            })
            .await;
    }
}

/// Where an apiserver has IstioOperators.
pub fn resource() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("install.istio.io", "v1alpha1", "IstioOperator"))
}

/// The IstioOperator that an object belongs to.
fn owner(object: &PartialObjectMeta) -> Option<ObjectRef<DynamicObject>> {
    let labels = object.labels();
    Some(ObjectRef::new_with(labels.get(OWNER)?, resource()).within(labels.get(OWNER_NAMESPACE)?))
}

/// What reconciliations share.
struct Context {
    cluster: Cluster,
    recorder: Recorder,
    metrics: Metrics,
    /// How often each IstioOperator has failed since it last did not.
    failures: Mutex<HashMap<Owner, u32>>,
}

type Failure = finalizer::Error<OperatorError>;

async fn reconcile(object: Arc<DynamicObject>, context: Arc<Context>) -> Result<Action, Failure> {
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<DynamicObject> = Api::namespaced_with(context.cluster.client().clone(), &namespace, &resource());
    let reference = owner_of(&object);
    let action = finalizer(&api, FINALIZER, object, |event| async {
        match event {
            finalizer::Event::Apply(object) => context.apply(&api, &object).await,
            finalizer::Event::Cleanup(object) => context.clean_up(&object).await,
        }
    })
    .await?;
    context.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(&reference);
    context.metrics.reconciled("success");
    Ok(action)
}

/// After a failure, when it is tried again.
fn failed(object: Arc<DynamicObject>, error: &Failure, context: Arc<Context>) -> Action {
    tracing::warn!("{}: {error}", owner_of(&object));
    context.metrics.reconciled("error");
    let mut failures = context.failures.lock().unwrap_or_else(PoisonError::into_inner);
    let count = failures.entry(owner_of(&object)).or_default();
    let delay = FIRST_RETRY.saturating_mul(2u32.saturating_pow(*count)).min(LONGEST_RETRY);
    *count = count.saturating_add(1);
    Action::requeue(delay)
}

fn owner_of(object: &DynamicObject) -> Owner {
    Owner { name: object.name_any(), namespace: object.namespace().unwrap_or_default() }
}

fn asked(what: &'static str) -> impl Fn(Error) -> OperatorError {
    move |source| OperatorError::Api { what, source }
}

impl Context {
    async fn apply(&self, api: &Api<DynamicObject>, object: &DynamicObject) -> Result<Action, OperatorError> {
        let written = serde_json::to_value(object).map_err(Error::SerdeError).map_err(asked("the IstioOperator"))?;
        let planned = Plan::of(&written).map_err(|problem| status::problem(&problem)).and_then(|mut plan| {
            let rendered = plan.render().map_err(|error| error.to_string())?;
            Ok((desired(&plan, rendered), plan))
        });
        let old = object.data.get("status").cloned().unwrap_or_default();
        let old: IstioOperatorStatus = serde_json::from_value(old).unwrap_or_default();
        let generation = object.metadata.generation.unwrap_or_default();
        let now = Time(Timestamp::now());
        let (wanted, plan) = match planned {
            Ok(planned) => planned,
            Err(problem) => {
                let new = status::refused(&problem, &old, generation, &now);
                self.write_status(api, object, &old, &new).await?;
                return Ok(Action::requeue(RESYNC));
            }
        };
        let mut observed = self.cluster.observe().await.map_err(asked("the objects of installations"))?;
        let changes = changes(&wanted, &observed, &Owner::of_plan(&plan));
        let outcome = self.carry_out(object, &changes).await;
        if !changes.is_empty() {
            observed = self.cluster.observe().await.map_err(asked("the objects of installations"))?;
        }
        let new = status::status(&plan, &outcome, &own(observed, &Owner::of_plan(&plan)), &old, generation, &now);
        self.write_status(api, object, &old, &new).await?;
        match outcome.failed.values().flatten().next() {
            Some(failure) => Err(OperatorError::Failed(failure.clone())),
            None if outcome.foreign.is_empty() => Ok(Action::requeue(RESYNC)),
            None => Ok(Action::requeue(WAIT_FOR_OTHERS)),
        }
    }

    async fn clean_up(&self, object: &DynamicObject) -> Result<Action, OperatorError> {
        let observed = self.cluster.observe().await.map_err(asked("the objects of installations"))?;
        let outcome = self.carry_out(object, &changes(&[], &observed, &owner_of(object))).await;
        match outcome.failed.into_values().flatten().next() {
            Some(failure) => Err(OperatorError::Failed(failure)),
            None => Ok(Action::await_change()),
        }
    }

    async fn carry_out(&self, object: &DynamicObject, changes: &Changes) -> Outcome {
        let (mut applied, mut deleted) = (0, 0);
        let outcome = self
            .cluster
            .carry_out(changes, |done| {
                match done {
                    Done::Applied(_) => applied += 1,
                    Done::Deleted(_) => deleted += 1,
                    Done::Failed(..) => {}
                }
                tracing::info!("{}: {done}", owner_of(object));
                self.metrics.changed(done);
            })
            .await;
        for failure in outcome.failed.values().flatten() {
            self.event(object, EventType::Warning, "ApplyFailed", failure).await;
        }
        if applied + deleted > 0 {
            let note = format!("{applied} objects applied, {deleted} deleted");
            self.event(object, EventType::Normal, "Reconciled", &note).await;
        }
        outcome
    }

    /// Writes the status where it differs, and tells of a new problem.
    async fn write_status(
        &self,
        api: &Api<DynamicObject>,
        object: &DynamicObject,
        old: &IstioOperatorStatus,
        new: &IstioOperatorStatus,
    ) -> Result<(), OperatorError> {
        if old == new {
            return Ok(());
        }
        if !new.message.is_empty() && new.message != old.message && new.status != "RECONCILING" {
            self.event(object, EventType::Warning, "ActionRequired", &new.message).await;
        }
        let resource = resource();
        let patch = json!({"apiVersion": resource.api_version, "kind": resource.kind, "status": new});
        let how = PatchParams::apply(MANAGER).force();
        let written = api.patch_status(&object.name_any(), &how, &Patch::Apply(&patch)).await;
        written.map(drop).map_err(asked("the status of the IstioOperator"))
    }

    /// Events are for people; one that can't be written stops nothing.
    async fn event(&self, object: &DynamicObject, type_: EventType, reason: &str, note: &impl Display) {
        // An event's note has at most 1 kB.
        let note: String = note.to_string().chars().take(250).collect();
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, &object.object_ref(&resource())).await {
            tracing::debug!("an event could not be written: {error}");
        }
    }
}

/// The objects of one owner.
fn own(mut observed: Vec<Value>, owner: &Owner) -> Vec<Value> {
    observed.retain(|object| Owner::of(object).as_ref() == Some(owner));
    observed
}
