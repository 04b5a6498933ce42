//! What a rotation of the root needs of a running control plane: whom the connected proxies trust, and that people are told
//! where it stands. The rules are mesh-ca's ([`mesh_ca::rotation`]); folder and Secrets keep its record.
//!
//! Proxies are asked through xDS: agents subscribe to the bundle of trust (PCDS) and acknowledge it when their Envoy has it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh_api::Name;
use mesh_ca::rotation::{Behind, Observed, Phase, Record};
use mesh_ca::server::Metrics;
use mesh_ca::{Authority, Certificate, Current, Lifetimes};
use mesh_xds::TypeUrl;
use mesh_xds::build::trust::bundle;
use mesh_xds::server::Clients;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::watch;

/// How often a rotation that moves is looked at.
pub(super) const STEP: Duration = Duration::from_secs(1);
/// The words of [`Record::word`] that a record can have.
const WORDS: [&str; 6] = ["stable", "distributing", "draining", "retiring", "returning", "aborted"];

type Observe = dyn Fn(&[String]) -> Observed + Send + Sync;

/// Who of the connected proxies trusts which roots.
#[derive(Clone)]
pub struct Proxies(Arc<Observe>);

impl Default for Proxies {
    /// No proxies.
    fn default() -> Self {
        Self::new(|_| Observed::default())
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proxies")
    }
}

impl Proxies {
    /// Proxies as this function sees them; it is given the roots in PEM, one each.
    pub fn new(observe: impl Fn(&[String]) -> Observed + Send + Sync + 'static) -> Self {
        Self(Arc::new(observe))
    }

    fn observe(&self, authority: &Authority) -> Observed {
        let roots: Vec<String> = authority.roots().iter().map(Certificate::to_pem).collect();
        (self.0)(&roots)
    }
}

/// What is known of one proxy, which may have several streams: its Envoy's and its agent's.
#[derive(Default)]
struct Seen {
    asks: bool,
    has: bool,
    encrypted: bool,
    since: u64,
}

/// Who of these clients trusts these roots. Proxies that came in plaintext and ask for nothing have no certificates of ours.
pub(crate) fn observe<C>(clients: &Clients<C>, roots: &[String]) -> Observed {
    let wanted = bundle(roots).version();
    let mut proxies: BTreeMap<Name, Seen> = BTreeMap::new();
    for connection in clients.list() {
        let seen = proxies.entry(connection.node_id().clone()).or_default();
        let status = connection.status(TypeUrl::ProxyConfig);
        seen.asks |= status.is_some();
        seen.has |= status.is_some_and(|status| status.acked_version == wanted);
        seen.encrypted |= connection.peer().encrypted;
        seen.since = seen.since.max(unix(connection.since()));
    }
    let mut observed = Observed::default();
    for (id, seen) in proxies {
        let proxy = name_in(&id).to_owned();
        match seen {
            Seen { has: true, .. } => {}
            Seen { asks: true, since, .. } => observed.behind.push(Behind { proxy, since }),
            Seen { encrypted: true, .. } => observed.silent.push(proxy),
            _ => {}
        }
    }
    observed
}

/// In Unix seconds.
pub(super) fn unix(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// `sleep.default` of `sidecar~10.0.0.1~sleep.default~default.svc.cluster.local`.
fn name_in(node_id: &str) -> &str {
    node_id.split('~').nth(2).unwrap_or(node_id)
}

/// What is counted of rotations. Clones count together.
#[derive(Clone, Debug, Default)]
struct Counted {
    phase: Family<[(&'static str, &'static str); 1], Gauge>,
    proxies: Family<[(&'static str, &'static str); 1], Gauge>,
    aborted: Counter,
}

impl Counted {
    fn is_at(&self, word: &str) {
        for known in WORDS {
            self.phase.get_or_create(&[("phase", known)]).set((known == word).into());
        }
    }

    fn observed(&self, observed: &Observed) {
        for (trust, count) in [("behind", observed.behind.len()), ("silent", observed.silent.len())] {
            self.proxies.get_or_create(&[("trust", trust)]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

/// Acts by the record of an authority, and sees whom proxies trust.
#[derive(Clone, Debug)]
pub struct Rotating {
    current: Arc<Current>,
    metrics: Metrics,
    proxies: Proxies,
    counted: Counted,
    replica: String,
    leads: watch::Receiver<bool>,
    /// When this process began to look at its proxies, in Unix seconds.
    since: u64,
}

impl Rotating {
    /// Puts authorities into `current` and tells `metrics` of them, alone and without proxies.
    pub fn new(current: Arc<Current>, metrics: Metrics) -> Self {
        let (_, leads) = watch::channel(true);
        let (proxies, counted, replica) = (Proxies::default(), Counted::default(), String::new());
        Self { current, metrics, proxies, counted, replica, leads, since: unix(SystemTime::now()) }
    }

    /// Waits for these proxies.
    #[must_use]
    pub fn proxies(mut self, proxies: Proxies) -> Self {
        self.proxies = proxies;
        self
    }

    /// As this replica among several, of which the one that leads moves the rotation.
    #[must_use]
    pub fn replica(mut self, name: impl Into<String>, leads: watch::Receiver<bool>) -> Self {
        (self.replica, self.leads) = (name.into(), leads);
        self
    }

    /// Adds what is counted of rotations to a registry.
    pub fn register(&self, registry: &mut Registry) {
        let Counted { phase, proxies, aborted } = &self.counted;
        registry.register("mesh_root_rotation_phase", "1 for the phase of the root's rotation", phase.clone());
        registry.register(
            "mesh_root_rotation_proxies",
            "Connected proxies that have not acknowledged the roots: behind, or silent as they never do",
            proxies.clone(),
        );
        registry.register("mesh_root_rotations_aborted", "Rotations of the root that were given up", aborted.clone());
    }

    /// The authority in force.
    pub(super) fn current(&self) -> Arc<Authority> {
        self.current.get()
    }

    /// True while this replica moves the rotation.
    pub(super) fn leads(&self) -> bool {
        *self.leads.borrow()
    }

    /// When this replica begins or ends to move the rotation.
    pub(super) fn leadership(&self) -> watch::Receiver<bool> {
        self.leads.clone()
    }

    /// The name of this replica.
    pub(super) fn name(&self) -> &str {
        &self.replica
    }

    /// Whom this replica's proxies trust of what the authority in force has; nobody is asked where nothing depends on it.
    pub(super) fn observe(&self, record: &Record) -> Observed {
        let observed = if waits(record) { self.proxies.observe(&self.current.get()) } else { Observed::default() };
        self.counted.observed(&observed);
        Observed { since: self.since, ..observed }
    }
}

/// True while a rotation waits for trust.
pub(super) fn waits(record: &Record) -> bool {
    record.rotation().is_some_and(|rotation| matches!(rotation.phase, Phase::Distributing | Phase::Retiring))
}

/// Says that an authority has to wait.
pub(super) fn tell_if_busy(record: Option<&Record>, authority: &Authority) {
    if record.is_some_and(|record| record.is_busy_with_another(authority)) {
        tracing::warn!("a root is being replaced; the authority that was put there now is looked at afterwards");
    }
}

/// True while a rotation moves.
pub(super) fn moves(record: &Record) -> bool {
    record.rotation().is_some_and(|rotation| !rotation.is_over())
}

/// Acts by records, each once.
pub(super) struct Acting {
    rotating: Rotating,
    lifetimes: Lifetimes,
    by: Option<Record>,
}

impl Acting {
    pub(super) fn new(rotating: Rotating, lifetimes: Lifetimes) -> Self {
        Self { rotating, lifetimes, by: None }
    }

    /// Acts by a record, which must have been written.
    pub(super) fn act(&mut self, record: &Record) {
        if self.by.as_ref() == Some(record) {
            return;
        }
        match record.authority(self.lifetimes, SystemTime::now()) {
            Ok(authority) => {
                self.tell(record, &authority);
                self.rotating.metrics.authority(&authority);
                self.rotating.current.set(authority);
            }
            Err(error) => tracing::warn!("the kept authority cannot act: {error}; the one of before stays in force"),
        }
        self.by = Some(record.clone());
    }

    fn tell(&self, record: &Record, authority: &Authority) {
        let (word, before) = (record.word(), self.by.as_ref().map(Record::word));
        self.rotating.counted.is_at(word);
        let issuer = hex(authority.certificate().serial());
        match record.rotation().and_then(|rotation| rotation.reason.as_ref()) {
            Some(reason) if before.is_some_and(|before| before != word) => {
                if before != Some("returning") {
                    self.rotating.counted.aborted.inc();
                }
                tracing::warn!(phase = word, issuer, "the new root is given up: {reason}");
            }
            _ => tracing::info!(phase = word, issuer, roots = authority.roots().len(), "the authority in force"),
        }
    }
}

/// `0a1b`, two digits a byte.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Where a record stands, for people.
pub(super) fn status(record: &Record, observed: &Observed) -> Value {
    let Some(rotation) = record.rotation() else { return json!({ "phase": record.word() }) };
    let mut status = serde_json::to_value(rotation).unwrap_or_default();
    if let Some(fields) = status.as_object_mut().filter(|_| waits(record)) {
        fields.insert("published".to_owned(), json!(observed.published));
        fields.insert("behind".to_owned(), json!(observed.behind));
        fields.insert("silent".to_owned(), json!(observed.silent));
    }
    status
}
