//! The authority in a cluster's Secrets: what users plugged in as `cacerts`, or a root of our own in `istio-ca-secret`.
//!
//! A root is made once and never overwritten by another: certificates of it are about. Replicas that start together agree on
//! one, because a Secret can be created only once. What is damaged is told and changes nothing.
//!
//! All replicas act by the record in the Secret `istio-ca-rotation`. When the others say something new, the replica that leads
//! leads it in, phase by phase; each replica reports in a ConfigMap of that name whom its proxies trust.

mod reports;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::runtime::watcher;
use kube::{Client, Error};
use mesh_ca::bundle::{self, BundleError, Entries};
use mesh_ca::key::KeyError;
use mesh_ca::reconcile::{self, CA_SECRET, CACERTS_SECRET, OwnRoot, OwnRootError};
use mesh_ca::rotation::{Observed, Record};
use mesh_ca::{Authority, PrivateKey, SignError};

use super::CaOptions;
use super::rotation::{Acting, Rotating, STEP, moves, tell_if_busy, waits};
use super::trust::Trust;
use crate::retry::Retry;
use reports::Reports;

/// The Secret with the record of the authority, and the ConfigMap with what replicas report.
pub(super) const ROTATION: &str = "istio-ca-rotation";
/// The entry of the Secret that holds the record.
const RECORD: &str = "rotation.json";
/// On `istio-ca-secret`: whatever its value, a root with a new key takes the old one's place.
const ROTATE: &str = "mesh-rs.io/rotate-root";

/// How often the age of the root is looked at: `CITADEL_SELF_SIGNED_ROOT_CERT_CHECK_INTERVAL`.
const CHECK: Duration = Duration::from_secs(60 * 60);

/// Why a cluster gives no authority.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaSecretsError {
    /// What users plugged in cannot be used. Nothing takes its place, as its owner did not want that.
    #[error("Secret {CACERTS_SECRET}: {0}")]
    PluggedIn(#[from] BundleError),
    /// The root of our own cannot be used or made.
    #[error(transparent)]
    Own(#[from] OwnRootError),
    /// The key cannot be kept.
    #[error("Secret {ROTATION}: {0}")]
    Kept(#[from] KeyError),
}

/// The Secrets of an authority.
pub struct CaSecrets {
    secrets: Api<Secret>,
    namespace: String,
    options: CaOptions,
}

/// What is where.
#[derive(Clone, Debug, Default)]
struct Seen {
    plugged_in: Option<Secret>,
    own: Option<Secret>,
    /// With the record.
    rotation: Option<Secret>,
}

impl Seen {
    /// What of it makes an authority.
    fn data(&self) -> [BTreeMap<String, ByteString>; 2] {
        let data = |secret: &Option<Secret>| secret.as_ref().and_then(|secret| secret.data.clone()).unwrap_or_default();
        [data(&self.plugged_in), data(&self.own)]
    }

    /// What is kept of the authority; none where nothing is, or nothing of use.
    fn record(&self) -> Option<Record> {
        let text = &self.rotation.as_ref()?.data.as_ref()?.get(RECORD)?.0;
        let record = Record::from_json(text);
        record.map_err(|error| tracing::warn!("Secret {ROTATION}: {error}; it is not followed")).ok()
    }

    /// What users plugged in, if they did.
    fn plugged_in(&self) -> Option<Entries<'_>> {
        self.plugged_in.as_ref().map(bundle::entries).filter(bundle::is_plugged_in)
    }

    fn authority(&self, namespace: &str, options: &CaOptions, now: SystemTime) -> Result<OwnRoot, CaSecretsError> {
        if let Some(entries) = self.plugged_in() {
            return Ok(OwnRoot::Use(Box::new(bundle::plugged_in(&entries, options.lifetimes, now)?)));
        }
        Ok(reconcile::own_root(self.own.as_ref(), namespace, &options.root, options.lifetimes, now)?)
    }
}

impl CaSecrets {
    /// The Secrets in the control plane's own namespace. Nothing is asked yet.
    pub fn new(client: Client, namespace: &str, options: CaOptions) -> Self {
        Self { secrets: Api::namespaced(client, namespace), namespace: namespace.to_owned(), options }
    }

    /// The authority. An apiserver that does not answer is waited for.
    ///
    /// # Errors
    /// When a Secret is damaged: somebody must mend it.
    pub async fn open(&self) -> Result<Authority, CaSecretsError> {
        let mut retry = Retry::new(format!("Secrets {CACERTS_SECRET} and {CA_SECRET} in {}", self.namespace));
        loop {
            let done = match self.look().await {
                Ok(seen) => match self.opened(&seen)? {
                    Ok(authority) => return Ok(*authority),
                    // What is there then counts, whoever made it.
                    Err(missing) => self.create(&missing).await,
                },
                Err(error) => Err(error),
            };
            match done {
                Ok(()) => retry.worked(),
                Err(error) => retry.failed(&error).await,
            }
        }
    }

    /// The authority to begin with, or the Secret that has to be there first.
    fn opened(&self, seen: &Seen) -> Result<Result<Box<Authority>, Box<Secret>>, CaSecretsError> {
        let now = SystemTime::now();
        let said = match seen.authority(&self.namespace, &self.options, now)? {
            OwnRoot::Use(authority) => authority,
            OwnRoot::Create(secret) => return Ok(Err(secret)),
        };
        if seen.rotation.is_none() {
            return Ok(Err(Box::new(self.secret_of(&Record::new(&said)?, seen))));
        }
        let kept = seen.record().and_then(|record| {
            let kept = record.authority(self.options.lifetimes, now);
            kept.map_err(|error| tracing::warn!("Secret {ROTATION}: {error}; it is not followed")).ok()
        });
        Ok(Ok(kept.map_or(said, Box::new)))
    }

    async fn look(&self) -> Result<Seen, Error> {
        let get = |name| self.secrets.get_opt(name);
        let (plugged_in, own, rotation) = tokio::try_join!(get(CACERTS_SECRET), get(CA_SECRET), get(ROTATION))?;
        Ok(Seen { plugged_in, own, rotation })
    }

    /// The Secret of a record, in the place of what was seen.
    fn secret_of(&self, record: &Record, seen: &Seen) -> Secret {
        let named = ObjectMeta {
            name: Some(ROTATION.to_owned()),
            namespace: Some(self.namespace.clone()),
            ..ObjectMeta::default()
        };
        let text = record.to_json().unwrap_or_default();
        Secret {
            metadata: seen.rotation.as_ref().map_or(named, |secret| secret.metadata.clone()),
            data: Some(BTreeMap::from([(RECORD.to_owned(), ByteString(text))])),
            ..Secret::default()
        }
    }

    /// Creates a Secret; one that is there already is as good.
    async fn create(&self, secret: &Secret) -> Result<(), Error> {
        match self.secrets.create(&PostParams::default(), secret).await {
            Ok(_) => Ok(()),
            Err(Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Brings a root's Secret back that was deleted: its certificates are about.
    async fn restore(&self, seen: &Seen, rotating: &Rotating) -> Result<(), Undone> {
        let wanted = seen.record().and_then(|record| record.wanted(self.options.lifetimes, SystemTime::now()).ok());
        let secret = match &wanted {
            Some(wanted) => reconcile::ca_secret(wanted, &self.namespace),
            None => reconcile::ca_secret(&rotating.current(), &self.namespace),
        };
        self.create(&secret?).await?;
        tracing::warn!("Secret {CA_SECRET} was deleted; it is there again, with the root in use");
        Ok(())
    }

    /// Follows the Secrets: what they say is led in by the replica that leads, and `rotating` acts by the record. A root of our
    /// own is renewed before it ends, replaced when it is annotated so, and its Secret brought back when it was deleted.
    /// `trust` sees whether the roots are in every namespace.
    pub async fn follow(self, rotating: &Rotating, trust: Option<&Trust>) -> Infallible {
        let mut events =
            futures::stream::select_all([CACERTS_SECRET, CA_SECRET, ROTATION].map(|name| self.watch(name)));
        let mut retry = Retry::new(format!("Secrets {CACERTS_SECRET} and {CA_SECRET} in {}", self.namespace));
        let mut acting = Acting::new(rotating.clone(), self.options.lifetimes);
        let mut reports = Reports::new(self.secrets.clone().into_client(), &self.namespace, rotating.name());
        let (mut seen, mut known) = (Seen::default(), BTreeSet::new());
        let (mut said, mut leads) = (Said::default(), rotating.leadership());
        let mut pause = CHECK;
        loop {
            let event = tokio::select! {
                Some(event) = events.next() => Some(event),
                Ok(()) = leads.changed() => None,
                () = tokio::time::sleep(pause) => None,
            };
            match event {
                Some(Ok((name, secret))) => {
                    known.insert(name);
                    match name {
                        CACERTS_SECRET => seen.plugged_in = secret,
                        CA_SECRET => seen.own = secret,
                        _ => seen.rotation = secret,
                    }
                }
                Some(Err(error)) => {
                    retry.failed(&error).await;
                    continue;
                }
                None => {}
            }
            let record = seen.record();
            if let Some(record) = &record {
                acting.act(record);
            }
            if known.len() < 3 {
                continue;
            }
            let turn = async {
                let mut observed = Observed { published: true, ..Observed::default() };
                if let Some(record) = record.as_ref().filter(|record| moves(record)) {
                    observed = reports.exchange(record, rotating.observe(record), rotating.leads()).await?;
                    // Asked last: the answer is long.
                    if let Some(trust) =
                        trust.filter(|_| rotating.leads() && waits(record) && observed.behind.is_empty())
                    {
                        observed.published = trust.is_published().await?;
                    }
                }
                if rotating.leads() {
                    said.hear(&self, &seen, rotating).await?;
                    if let Some(written) = self.move_on(record.as_ref(), &said, &observed, &seen).await? {
                        seen.rotation = Some(written);
                    }
                    if let Some(record) = seen.record() {
                        reports.tell(&record, &observed).await?;
                    }
                    self.renew(&seen).await?;
                }
                Ok::<(), Undone>(())
            };
            let done = turn.await;
            let record = seen.record();
            if let Some(record) = &record {
                acting.act(record);
            }
            pause = if done.is_err() || record.as_ref().is_some_and(moves) { STEP } else { CHECK };
            match done {
                Ok(()) => retry.worked(),
                Err(error) => retry.tell(&error),
            }
        }
    }

    fn watch(&self, name: &'static str) -> BoxStream<'static, watcher::Result<(&'static str, Option<Secret>)>> {
        let named = move |event: watcher::Result<Option<Secret>>| event.map(|secret| (name, secret));
        watcher::watch_object(self.secrets.clone(), name).map(named).boxed()
    }

    /// Writes the record that follows, if another does: the Secret as it is then. Another replica's wins.
    async fn move_on(
        &self,
        record: Option<&Record>,
        said: &Said,
        observed: &Observed,
        seen: &Seen,
    ) -> Result<Option<Secret>, Undone> {
        let Some(authority) = &said.authority else { return Ok(None) };
        let (timing, lifetimes, now) = (&self.options.timing, self.options.lifetimes, SystemTime::now());
        let next = match record {
            Some(record) => record.moved(authority, observed, timing, lifetimes, now)?,
            None => Record::new(authority)?,
        };
        if record == Some(&next) {
            return Ok(None);
        }
        let secret = self.secret_of(&next, seen);
        let written = match &seen.rotation {
            Some(_) => self.secrets.replace(ROTATION, &PostParams::default(), &secret).await,
            None => self.secrets.create(&PostParams::default(), &secret).await,
        };
        match written {
            Err(Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(None),
            written => Ok(Some(written?)),
        }
    }

    /// Writes a new certificate of the same key where a root of our own is old, and a root with a new key where that is asked
    /// for. Who is later than another replica is refused, and sees the other's.
    async fn renew(&self, seen: &Seen) -> Result<(), Undone> {
        let now = SystemTime::now();
        let Some(own) = seen.own.as_ref().filter(|_| seen.plugged_in().is_none()) else { return Ok(()) };
        let Ok(root) = bundle::self_signed(&bundle::entries(own), self.options.lifetimes, now) else { return Ok(()) };
        let is_asked = own.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(ROTATE));
        let key = if is_asked {
            PrivateKey::generate(self.options.root.key)
        } else if reconcile::root_is_old(&root, self.options.grace_percent, now) {
            PrivateKey::from_pem(root.key().to_pem()?.as_bytes())
        } else {
            return Ok(());
        };
        let renewed = Authority::with_root_key(key?, &self.options.root, self.options.lifetimes, now)?;
        let mut secret = reconcile::ca_secret(&renewed, &self.namespace)?;
        secret.metadata = own.metadata.clone();
        if let Some(annotations) = &mut secret.metadata.annotations {
            annotations.remove(ROTATE);
        }
        match self.secrets.replace(CA_SECRET, &PostParams::default(), &secret).await {
            Err(Error::Api(status)) if status.is_conflict() => Ok(()),
            written => Ok(written.map(|_| ())?),
        }
    }
}

/// What the Secrets' owner said last that was of use.
#[derive(Default)]
struct Said {
    authority: Option<Authority>,
    of: Option<Seen>,
}

impl Said {
    async fn hear(&mut self, secrets: &CaSecrets, seen: &Seen, rotating: &Rotating) -> Result<(), Undone> {
        if self.of.as_ref().is_some_and(|of| of.data() == seen.data()) {
            return Ok(());
        }
        let was_plugged_in = self.of.as_ref().is_some_and(|of| of.plugged_in().is_some());
        self.of = Some(seen.clone());
        if was_plugged_in && seen.plugged_in().is_none() {
            tracing::warn!("Secret {CACERTS_SECRET} is gone; its authority stays in force until the next start");
            return Ok(());
        }
        match seen.authority(&secrets.namespace, &secrets.options, SystemTime::now()) {
            Ok(OwnRoot::Use(authority)) => {
                tell_if_busy(seen.record().as_ref(), &authority);
                self.authority = Some(*authority);
            }
            Ok(OwnRoot::Create(_)) => {
                // What could not be restored is heard of again.
                self.of = None;
                secrets.restore(seen, rotating).await?;
                self.of = Some(seen.clone());
            }
            Err(error) => tracing::warn!("{error}; the authority of before stays in force"),
        }
        Ok(())
    }
}

/// Why a turn was not done to its end.
#[derive(Debug, thiserror::Error)]
enum Undone {
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Ask(#[from] Error),
}
