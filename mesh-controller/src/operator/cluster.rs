//! The objects of a cluster, read and written.

use std::collections::BTreeSet;
use std::fmt;

use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, TypeMeta};
use kube::{Client, Error};
use serde_json::{Value, json};

use super::changes::{COMPONENT, Changes, Key};
use super::kinds::{KINDS, Managed};
use super::status::Outcome;
use crate::install::text;

/// Under which name fields are ours.
pub const MANAGER: &str = "mesh-operator";

/// A cluster to install into.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
}

/// What was done with an object.
#[derive(Clone, Copy, Debug)]
pub enum Done<'a> {
    /// It is there as it should be.
    Applied(&'a Value),
    /// It is gone.
    Deleted(&'a Value),
    /// It could not be written.
    Failed(&'a Value, &'a str),
}

impl fmt::Display for Done<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Applied(object) => write!(f, "applied {}", Key::of(object)),
            Self::Deleted(object) => write!(f, "deleted {}", Key::of(object)),
            Self::Failed(object, why) => write!(f, "failed: {}: {why}", Key::of(object)),
        }
    }
}

impl Cluster {
    /// The cluster that the client reaches.
    pub fn new(client: Client) -> Self {
        Self { client }
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// All objects that some installation made.
    ///
    /// # Errors
    /// When the apiserver doesn't answer, or refuses.
    pub async fn observe(&self) -> Result<Vec<Value>, Error> {
        let mut all = Vec::new();
        for managed in KINDS.iter().filter(|managed| managed.kind != "Namespace") {
            let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &managed.resource());
            let found = match api.list(&ListParams::default().labels(COMPONENT)).await {
                Ok(list) => list.items,
                Err(Error::Api(status)) if status.code == 404 && !managed.built_in => Vec::new(),
                Err(error) => return Err(error),
            };
            for mut object in found {
                object.metadata.managed_fields = None;
                // The items of a list don't say what they are.
                let resource = managed.resource();
                object.types = Some(TypeMeta { api_version: resource.api_version, kind: resource.kind });
                all.push(serde_json::to_value(object).map_err(Error::SerdeError)?);
            }
        }
        Ok(all)
    }

    /// Makes the changes, as far as it can. Each is told when it is done.
    pub async fn carry_out(&self, changes: &Changes, mut tell: impl FnMut(Done<'_>)) -> Outcome {
        let mut outcome = Outcome { foreign: changes.foreign.clone(), ..Outcome::default() };
        let namespaces: BTreeSet<&str> = changes
            .apply
            .iter()
            .map(|object| text(object, "/metadata/namespace"))
            .filter(|name| !name.is_empty())
            .collect();
        for name in namespaces {
            if let Err(error) = self.ensure_namespace(name).await {
                // What is applied into it will say so of each object.
                tracing::warn!("Namespace {name}: {error}");
            }
        }
        for object in &changes.apply {
            self.note(object, self.apply(object).await, &mut outcome, &mut tell, Done::Applied);
        }
        for object in &changes.delete {
            self.note(object, self.delete(object).await, &mut outcome, &mut tell, Done::Deleted);
        }
        outcome
    }

    fn note<'a>(
        &self,
        object: &'a Value,
        result: Result<(), Error>,
        outcome: &mut Outcome,
        tell: &mut impl FnMut(Done<'_>),
        done: impl Fn(&'a Value) -> Done<'a>,
    ) {
        match result {
            Ok(()) => tell(done(object)),
            Err(error) => {
                let why = error.to_string();
                tell(Done::Failed(object, &why));
                let labels = object.pointer("/metadata/labels");
                let part = labels.and_then(|labels| labels.get(COMPONENT)?.as_str()).unwrap_or_default();
                outcome.failed.entry(part.to_owned()).or_default().push(format!("{}: {why}", Key::of(object)));
            }
        }
    }

    async fn apply(&self, object: &Value) -> Result<(), Error> {
        let how = PatchParams::apply(MANAGER).force().validation_strict();
        self.api(object)?.patch(text(object, "/metadata/name"), &how, &Patch::Apply(object)).await.map(drop)
    }

    async fn delete(&self, object: &Value) -> Result<(), Error> {
        match self.api(object)?.delete(text(object, "/metadata/name"), &DeleteParams::background()).await {
            Err(Error::Api(status)) if status.code == 404 => Ok(()),
            result => result.map(drop),
        }
    }

    /// A namespace is made where it is missing, and then nobody's: users may have put more into it.
    async fn ensure_namespace(&self, name: &str) -> Result<(), Error> {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let api = self.api(&object)?;
        if api.get_metadata_opt(name).await?.is_none() {
            let how = PatchParams::apply(MANAGER);
            api.patch(name, &how, &Patch::Apply(&object)).await?;
        }
        Ok(())
    }

    fn api(&self, object: &Value) -> Result<Api<DynamicObject>, Error> {
        let managed = Managed::of(object).ok_or_else(|| {
            let why = format!("objects of the kind {} are not installed", text(object, "/kind"));
            Error::Service(why.into())
        })?;
        let (client, resource) = (self.client.clone(), managed.resource());
        Ok(match managed.namespaced {
            true => Api::namespaced_with(client, text(object, "/metadata/namespace"), &resource),
            false => Api::all_with(client, &resource),
        })
    }
}
