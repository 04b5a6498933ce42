//! The world at one revision: immutable tables of shared rows, and the log of what changed lately.
//!
//! A snapshot is cloned per batch of changes; only what a batch touches is copied. Equal writes are dropped here, so an
//! edit that means the same (a status, an annotation, white space) is no change to anybody.

mod table;

use std::collections::VecDeque;
use std::sync::Arc;

use imbl::OrdMap;
use mesh_api::{Diagnostic, Name, Object, ObjectRef};

pub use table::{Dep, Table, TableKey};

use crate::build::cluster::Defaults;
use crate::lower;
use crate::model::request_authentication::{FetchedKeys, KeySource};
use crate::model::{
    self, ByIp, Endpoint, InNamespace, Labels, Service, ServiceId, Settings, Slice, SliceKey, Workload,
};

/// Counts the batches that changed something.
pub type Rev = u64;

/// What one batch changed.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    pub(crate) revision: Rev,
    deps: Box<[Dep]>,
}

/// Batches that the log holds: a reader that is further behind starts over.
const HISTORY: usize = 64;

/// One event for the single writer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Change {
    /// An object is there, new or changed.
    Upsert(Object),
    /// An object is gone.
    Delete(ObjectRef),
    /// Mesh-wide settings.
    Settings(Arc<Settings>),
    /// What came of fetching keys for tokens; `None`: they are not wanted any more.
    Keys(KeySource, Option<FetchedKeys>),
    /// Whom the mesh trusts: certificates in PEM, one each.
    Trust(Vec<String>),
}

/// What an object has put into the tables.
#[derive(Default, PartialEq)]
struct Owned {
    rows: Vec<RowKey>,
    diagnostics: Vec<Diagnostic>,
}

macro_rules! tables {
    ($( $(#[$doc:meta])* $id:literal $field:ident $variant:ident: $key:ty => $value:ty; )*) => {
        /// The world at one revision. See the [module](self).
        #[derive(Clone)]
        pub struct Snapshot {
            changes: Arc<Changes>,
            history: VecDeque<Arc<Changes>>,
            owned: OrdMap<ObjectRef, Arc<Owned>>,
            $( $(#[$doc])* pub $field: Table<$key, $value>, )*
        }

        impl Snapshot {
            fn empty() -> Self {
                Self {
                    changes: Arc::default(),
                    history: VecDeque::new(),
                    owned: OrdMap::new(),
                    $( $field: Table::new($id), )*
                }
            }
        }

        /// One row of a table, as lowering an object results in it.
        #[derive(Clone, Debug)]
        pub(crate) enum Row { $( $variant($key, Arc<$value>), )* }

        #[derive(Clone, PartialEq, Eq)]
        enum RowKey { $( $variant($key), )* }

        impl Row {
            fn key(&self) -> RowKey {
                match self { $( Row::$variant(key, _) => RowKey::$variant(key.clone()), )* }
            }
        }

        impl Snapshot {
            fn put(&mut self, row: Row, changed: &mut Vec<Dep>) {
                match row { $( Row::$variant(key, value) => self.$field.set(&key, Some(value), changed), )* }
            }
            fn take(&mut self, key: &RowKey, changed: &mut Vec<Dep>) {
                match key { $( RowKey::$variant(key) => self.$field.set(key, None, changed), )* }
            }
        }
    };
}

tables! {
    /// Mesh-wide settings; one row.
    0 settings Settings: () => Settings;
    /// Services by host, namespace and defining object.
    1 services Service: ServiceId => Service;
    /// Endpoints that a ServiceEntry lists itself.
    2 inline_endpoints InlineEndpoints: ServiceId => Vec<Endpoint>;
    /// EndpointSlices and Endpoints by Service.
    3 slices Slice: SliceKey => Slice;
    /// Pods.
    4 pods Pod: InNamespace => Workload;
    /// WorkloadEntries.
    5 workload_entries WorkloadEntry: InNamespace => Workload;
    /// What bears an address: pods, slices, workload entries, ServiceEntries with inline endpoints.
    6 addresses Address: ByIp => ();
    /// The locality of a node by its name (no namespace).
    7 nodes Node: InNamespace => model::Locality;
    /// The labels of a namespace by its name (no namespace).
    8 namespaces Namespace: InNamespace => Labels;
    /// Sidecars.
    9 sidecars Sidecar: InNamespace => model::Sidecar;
    /// VirtualServices, delegates among them.
    10 virtual_services VirtualService: InNamespace => model::virtual_service::VirtualService;
    /// DestinationRules.
    11 destination_rules DestinationRule: InNamespace => model::destination_rule::DestinationRule;
    /// Gateways.
    12 gateways Gateway: InNamespace => model::gateway::Gateway;
    /// Secrets that TLS can use.
    13 secrets Secret: InNamespace => model::secret::TlsSecret;
    /// ConfigMaps that hold authorities.
    14 ca_config_maps CaConfigMap: InNamespace => model::secret::TlsSecret;
    /// PeerAuthentications.
    15 peer_authentications PeerAuthentication: InNamespace => model::peer_authentication::PeerAuthentication;
    /// Kubernetes Ingresses.
    16 ingresses Ingress: InNamespace => model::ingress::Ingress;
    /// AuthorizationPolicies.
    17 authorization_policies AuthorizationPolicy: InNamespace => model::authorization_policy::AuthorizationPolicy;
    /// RequestAuthentications.
    18 request_authentications RequestAuthentication: InNamespace => model::request_authentication::RequestAuthentication;
    /// Keys of tokens that were fetched.
    19 fetched_keys FetchedKeys: KeySource => FetchedKeys;
    /// ReferenceGrants about Secrets for Gateways.
    20 reference_grants ReferenceGrant: InNamespace => model::reference_grant::ReferenceGrant;
    /// Whom the mesh trusts, in PEM; one row, or none where nobody is certified.
    21 trust Trust: () => Vec<String>;
}

impl TableKey for () {
    type Bucket = ();
    fn bucket(&self) {}
    fn first_of((): &()) {}
}

impl Default for Snapshot {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}

impl Snapshot {
    /// An empty world with these settings. Lowering resolves short names with `settings.domain`, so the domain is fixed
    /// from here on; everything else in the settings may change by [`Change::Settings`].
    pub fn new(settings: Settings) -> Self {
        let mut snapshot = Self::empty();
        snapshot.set_settings(Arc::new(settings), &mut Vec::new());
        snapshot
    }

    /// The world after a batch of changes. Nothing that differs: the same revision.
    #[must_use]
    pub fn apply(&self, batch: impl IntoIterator<Item = Change>) -> Self {
        let mut next = self.clone();
        let mut deps = Vec::new();
        for change in batch {
            match change {
                Change::Upsert(object) => next.upsert(&object, &mut deps),
                Change::Delete(object) => next.own(&object, Vec::new(), Vec::new(), &mut deps),
                Change::Settings(settings) => next.set_settings(settings, &mut deps),
                Change::Keys(source, Some(fetched)) => next.put(Row::FetchedKeys(source, Arc::new(fetched)), &mut deps),
                Change::Keys(source, None) => next.take(&RowKey::FetchedKeys(source), &mut deps),
                Change::Trust(roots) => next.put(Row::Trust((), Arc::new(roots)), &mut deps),
            }
        }
        if !deps.is_empty() {
            deps.sort_unstable();
            deps.dedup();
            next.changes = Arc::new(Changes { revision: self.revision() + 1, deps: deps.into() });
            if next.history.len() == HISTORY {
                next.history.pop_front();
            }
            next.history.push_back(self.changes.clone());
        }
        next
    }

    fn set_settings(&mut self, settings: Arc<Settings>, deps: &mut Vec<Dep>) {
        let (_, diagnostics) = Defaults::lower(&settings);
        self.own(&ObjectRef::new("MeshConfig", "", "mesh"), Vec::new(), diagnostics, deps);
        self.put(Row::Settings((), settings), deps);
    }

    fn upsert(&mut self, object: &Object, deps: &mut Vec<Dep>) {
        let lower::Lowered { rows, diagnostics } = lower::object(object, &self.settings());
        self.own(&object.object_ref(), rows, diagnostics, deps);
    }

    /// Replaces what an object has put into the tables.
    fn own(&mut self, object: &ObjectRef, rows: Vec<Row>, diagnostics: Vec<Diagnostic>, deps: &mut Vec<Dep>) {
        let keys: Vec<RowKey> = rows.iter().map(Row::key).collect();
        if let Some(old) = self.owned.get(object).cloned() {
            for gone in old.rows.iter().filter(|key| !keys.contains(key)) {
                self.take(gone, deps);
            }
        }
        for row in rows {
            self.put(row, deps);
        }
        if keys.is_empty() && diagnostics.is_empty() {
            self.owned.remove(object);
        } else {
            self.owned.insert(object.clone(), Arc::new(Owned { rows: keys, diagnostics }));
        }
    }

    /// Counts the batches that changed something, from 0.
    pub fn revision(&self) -> Rev {
        self.changes.revision
    }

    /// The settings in force.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.get(&()).cloned().unwrap_or_default()
    }

    /// What lowering had to say about the objects, in the order of the objects.
    pub fn diagnostics(&self) -> impl Iterator<Item = &Diagnostic> {
        self.owned.values().flat_map(|owned| owned.diagnostics.iter())
    }

    /// What lowering had to say about one object.
    pub fn diagnostics_of(&self, object: &ObjectRef) -> &[Diagnostic] {
        self.owned.get(object).map_or(&[], |owned| owned.diagnostics.as_slice())
    }

    /// The objects that are in force, in order.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectRef> {
        self.owned.keys()
    }

    pub(crate) fn changes(&self) -> &Arc<Changes> {
        &self.changes
    }

    /// What has changed since that batch; `None` when the log does not reach back to it.
    pub(crate) fn changes_since(&self, seen: &Arc<Changes>) -> Option<impl Iterator<Item = Dep> + '_> {
        let at = self.history.iter().position(|c| Arc::ptr_eq(c, seen))?;
        let later = self.history.iter().skip(at + 1).chain(std::iter::once(&self.changes));
        Some(later.flat_map(|c| c.deps.iter().copied()))
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Snapshot@{} of {} objects", self.revision(), self.owned.len())
    }
}

/// The key of an object that belongs to no namespace.
pub(crate) fn no_namespace(name: impl Into<Name>) -> InNamespace {
    InNamespace::new(Name::default(), name)
}
