//! Writes the status of Istio's objects, as long as this replica leads.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::{Client, Error};
use mesh_api::object::KINDS;
use mesh_api::types::IstioStatus;
use mesh_api::{Kind, ObjectRef};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::{Change, Findings, changes, findings, observed};
use crate::retry::Retry;
use crate::store::{Problems, Published};

/// Under which name fields are ours.
pub const MANAGER: &str = "mesh-status";

/// Changes that come within this time are looked at together.
const SETTLE: Duration = Duration::from_secs(1);
/// For how many times as long as a look took nobody looks again: in a large mesh that changes all the time, a look takes long.
const REST: u32 = 10;
/// How often statuses are looked at where nothing has changed: others may write, too.
const PERIOD: Duration = Duration::from_secs(10);
/// How long what was written counts as what is there, unless it is heard of before.
const RECENT: Duration = Duration::from_secs(30);

/// What was found wrong, and in which state of the mesh.
struct Found {
    state: Arc<Published>,
    problems: Arc<Problems>,
    findings: Arc<Findings>,
}

/// Writes what is found into the objects.
pub struct Writer {
    client: Client,
    states: watch::Receiver<Arc<Published>>,
    problems: watch::Receiver<Arc<Problems>>,
    found: Option<Found>,
    recent: BTreeMap<ObjectRef, (IstioStatus, Instant)>,
    /// How long nobody looks now.
    rest: Duration,
}

impl Writer {
    /// A writer of what is wrong with these states of the mesh. Nothing is asked yet.
    pub fn new(
        client: Client,
        states: watch::Receiver<Arc<Published>>,
        problems: watch::Receiver<Arc<Problems>>,
    ) -> Self {
        Self { client, states, problems, found: None, recent: BTreeMap::new(), rest: SETTLE }
    }

    /// Writes for ever, while this replica `leads`.
    pub async fn run(mut self, mut leads: watch::Receiver<bool>) -> Infallible {
        let mut retry = Retry::new("the status of Istio's objects");
        loop {
            if leads.wait_for(|leads| *leads).await.is_err() {
                return pending().await;
            }
            sleep(self.rest).await;
            match self.turn(&leads).await {
                Ok(()) => retry.worked(),
                Err(error) => retry.tell(&error),
            }
            tokio::select! {
                changed = self.states.changed() => if changed.is_err() { return pending().await },
                changed = self.problems.changed() => if changed.is_err() { return pending().await },
                () = sleep(PERIOD) => {}
            }
        }
    }

    async fn turn(&mut self, leads: &watch::Receiver<bool>) -> Result<(), Error> {
        let state = self.states.borrow_and_update().clone();
        let began = Instant::now();
        let findings = self.findings(&state).await?;
        self.rest = SETTLE.max(began.elapsed() * REST);
        self.recent.retain(|key, (status, written)| {
            let said = state.objects.get(key).and_then(observed);
            written.elapsed() < RECENT && said.is_some_and(|said| said != *status)
        });
        let recent = self.recent.iter().map(|(key, (status, _))| (key.clone(), status.clone())).collect();
        let mut refused = Ok(());
        for Change { object, status } in changes(&findings, &state.objects, &recent, &Time(Timestamp::now())) {
            if !*leads.borrow() {
                break;
            }
            match self.write(&object, &status).await {
                Ok(()) => drop(self.recent.insert(object, (status, Instant::now()))),
                // What is wrong with one object or kind holds no other up.
                Err(Error::Api(status)) if matches!(status.code, 400 | 403 | 422) => refused = Err(Error::Api(status)),
                Err(error) => return Err(error),
            }
        }
        refused
    }

    /// What is wrong in this state. To look at a large mesh takes a while, so it is not done twice, and nobody waits for it.
    async fn findings(&mut self, state: &Arc<Published>) -> Result<Arc<Findings>, Error> {
        let problems = self.problems.borrow_and_update().clone();
        let same = |found: &&Found| Arc::ptr_eq(&found.state, state) && Arc::ptr_eq(&found.problems, &problems);
        if let Some(found) = self.found.as_ref().filter(same) {
            return Ok(found.findings.clone());
        }
        let (at, told) = (state.clone(), problems.clone());
        let looked = tokio::task::spawn_blocking(move || findings(&at, &told)).await;
        // A defect of ours says nothing about the mesh.
        let findings = Arc::new(looked.map_err(|defect| Error::Service(defect.into()))?);
        self.found = Some(Found { state: state.clone(), problems, findings: findings.clone() });
        Ok(findings)
    }

    /// An object that is gone has no status.
    async fn write(&self, object: &ObjectRef, status: &IstioStatus) -> Result<(), Error> {
        let Some((resource, body)) = applied(object, status) else { return Ok(()) };
        let objects: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &object.namespace, &resource);
        let how = PatchParams::apply(MANAGER).force();
        match objects.patch_status(&object.name, &how, &Patch::Apply(&body)).await {
            Ok(_) => {
                tracing::debug!("wrote the status of {object}");
                Ok(())
            }
            Err(Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Where the object is, and what is applied to its status; none for a kind that is not ours.
fn applied(object: &ObjectRef, status: &IstioStatus) -> Option<(ApiResource, Value)> {
    let kind: &Kind = KINDS.iter().find(|kind| kind.name == object.kind.as_str())?;
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(kind.group, kind.versions.first()?, kind.kind));
    let body = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": object.name.as_str(), "namespace": object.namespace.as_str()},
        "status": status,
    });
    Some((resource, body))
}
