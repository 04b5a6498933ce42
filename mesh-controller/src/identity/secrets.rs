//! The authority in a cluster's Secrets: what users plugged in as `cacerts`, or a root of our own in `istio-ca-secret`.
//!
//! A root is made once and never overwritten by another: certificates of it are about. Replicas that start together agree on
//! one, because a Secret can be created only once. What is damaged is told and changes nothing; an authority that others
//! follow keeps those roots trusted that were trusted before.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, PostParams};
use kube::runtime::watcher;
use kube::{Client, Error};
use mesh_ca::bundle::{self, BundleError, Entries};
use mesh_ca::reconcile::{self, CA_SECRET, CACERTS_SECRET, OwnRoot, OwnRootError};
use mesh_ca::server::Metrics;
use mesh_ca::{Authority, Current, PrivateKey, SignError};

use super::CaOptions;
use crate::retry::Retry;

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
}

impl Seen {
    /// What of it makes an authority.
    fn data(&self) -> [BTreeMap<String, ByteString>; 2] {
        let data = |secret: &Option<Secret>| secret.as_ref().and_then(|secret| secret.data.clone()).unwrap_or_default();
        [data(&self.plugged_in), data(&self.own)]
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
            match self.look().await {
                Ok(seen) => match seen.authority(&self.namespace, &self.options, SystemTime::now())? {
                    OwnRoot::Use(authority) => return Ok(*authority),
                    OwnRoot::Create(secret) => match self.create(&secret).await {
                        // What is there now counts, whoever made it.
                        Ok(()) => retry.worked(),
                        Err(error) => retry.failed(&error).await,
                    },
                },
                Err(error) => retry.failed(&error).await,
            }
        }
    }

    async fn look(&self) -> Result<Seen, Error> {
        let (plugged_in, own) =
            tokio::try_join!(self.secrets.get_opt(CACERTS_SECRET), self.secrets.get_opt(CA_SECRET))?;
        Ok(Seen { plugged_in, own })
    }

    /// Creates a Secret; one that is there already is as good.
    async fn create(&self, secret: &Secret) -> Result<(), Error> {
        match self.secrets.create(&PostParams::default(), secret).await {
            Ok(_) => Ok(()),
            Err(Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Puts what the Secrets say into `current` whenever they change, renews a root of our own before it ends, and brings its
    /// Secret back when it was deleted.
    pub async fn follow(self, current: &Current, metrics: &Metrics) -> Infallible {
        let mut plugged_in = self.watch(CACERTS_SECRET);
        let mut own = self.watch(CA_SECRET);
        let mut retry = Retry::new(format!("Secrets {CACERTS_SECRET} and {CA_SECRET} in {}", self.namespace));
        let mut check = tokio::time::interval(CHECK);
        let (mut seen, mut known) = (Seen::default(), (false, false));
        let mut used: Option<Seen> = None;
        loop {
            let event = tokio::select! {
                event = plugged_in.next() => event.map(|event| event.map(|secret| {
                    (seen.plugged_in, known.0) = (secret, true);
                })),
                event = own.next() => event.map(|event| event.map(|secret| (seen.own, known.1) = (secret, true))),
                _ = check.tick() => Some(Ok(())),
            };
            if let Some(Err(error)) = event {
                retry.failed(&error).await;
                continue;
            }
            if known != (true, true) {
                continue;
            }
            if used.as_ref().is_none_or(|used| used.data() != seen.data()) {
                let was_plugged_in = used.is_some_and(|used| used.plugged_in().is_some());
                self.use_what_is_there(&seen, was_plugged_in, current, metrics).await;
                used = Some(seen.clone());
            }
            match self.renew(&seen, current).await {
                Ok(()) => retry.worked(),
                Err(error) => retry.tell(&error),
            }
        }
    }

    fn watch(&self, name: &str) -> BoxStream<'static, watcher::Result<Option<Secret>>> {
        watcher::watch_object(self.secrets.clone(), name).boxed()
    }

    async fn use_what_is_there(&self, seen: &Seen, was_plugged_in: bool, current: &Current, metrics: &Metrics) {
        if was_plugged_in && seen.plugged_in().is_none() {
            tracing::warn!("Secret {CACERTS_SECRET} is gone; its authority stays in force until the next start");
            return;
        }
        let old = current.get();
        match seen.authority(&self.namespace, &self.options, SystemTime::now()) {
            Ok(OwnRoot::Use(authority)) => {
                let authority = authority.also_trusting(old.roots());
                tracing::info!(subject = authority.certificate().subject(), "the authority is as the Secrets have it");
                metrics.authority(&authority);
                current.set(authority);
            }
            Ok(OwnRoot::Create(_)) => {
                let restored = match reconcile::ca_secret(&old, &self.namespace) {
                    Ok(secret) => self.create(&secret).await.map_err(|error| error.to_string()),
                    Err(error) => Err(error.to_string()),
                };
                match restored {
                    Ok(()) => tracing::warn!("Secret {CA_SECRET} was deleted; it is there again, with the root in use"),
                    Err(error) => tracing::warn!("Secret {CA_SECRET} was deleted, and cannot be restored: {error}"),
                }
            }
            Err(error) => tracing::warn!("{error}; the authority of before stays in force"),
        }
    }

    /// Writes a new certificate of the same key where a root of our own is old. Who is later than another replica is refused,
    /// and sees the other's.
    async fn renew(&self, seen: &Seen, current: &Current) -> Result<(), Renewal> {
        let (old, now) = (current.get(), SystemTime::now());
        let Some(own) = seen.own.as_ref().filter(|_| seen.plugged_in().is_none()) else { return Ok(()) };
        if !reconcile::root_is_old(&old, self.options.grace_percent, now) {
            return Ok(());
        }
        let key = PrivateKey::from_pem(old.key().to_pem().map_err(SignError::from)?.as_bytes());
        let key = key.map_err(SignError::from)?;
        let renewed = Authority::with_root_key(key, &self.options.root, self.options.lifetimes, now)?;
        let mut secret = reconcile::ca_secret(&renewed, &self.namespace)?;
        secret.metadata = own.metadata.clone();
        match self.secrets.replace(CA_SECRET, &PostParams::default(), &secret).await {
            Err(Error::Api(status)) if status.is_conflict() => Ok(()),
            written => Ok(written.map(|_| ())?),
        }
    }
}

/// Why a root is not renewed.
#[derive(Debug, thiserror::Error)]
enum Renewal {
    #[error("the root cannot be renewed: {0}")]
    Sign(#[from] SignError),
    #[error("the renewed root cannot be written: {0}")]
    Write(#[from] Error),
}
