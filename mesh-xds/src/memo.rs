//! The incremental heart: results of pure queries, kept exactly as long as everything they read is unchanged.
//!
//! A [`Query`] is a small key and a function from the [`View`] to a result. While it runs, the view writes down every row,
//! absent row, index bucket and other query that it read. When the snapshot advances, its change log names the inputs that
//! changed; a reverse index leads from them to the slots that read them, so a change that nobody read costs nothing.
//! A slot whose inputs changed runs again; a slot above it runs again only if a result below it really differs: an equal
//! result keeps its old `Arc`, and the wave stops there. Nobody lists dependencies or hashes a cache key by hand.
//!
//! One lock guards the memo. Builds are memoised for all proxies together, so what runs under it is the work that exists
//! once; everything that exists per proxy (diffs, frames, writes) happens outside.

use std::any::{Any, TypeId};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use rustc_hash::FxHashMap;

use crate::snapshot::{Changes, Dep, Rev, Snapshot};
use crate::view::View;

/// A pure function of its key and of what the view says.
pub trait Query: Clone + Eq + Hash + Debug + Send + Sync + 'static {
    /// What it results in; equality decides whether those who read the result must run again.
    type Out: PartialEq + Send + Sync + 'static;
    /// Computes the result. It must be deterministic and must not see anything but `self` and `view`.
    fn run(&self, view: &View<'_>) -> Self::Out;
}

/// Results of queries over a line of snapshots, shared by all proxies.
#[derive(Default)]
pub struct Memo {
    inner: Mutex<Inner>,
}

/// How much the memo has done and holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Results held of each query, by the query's type name without its path.
    pub held: BTreeMap<&'static str, usize>,
    /// Runs of each query since the memo was made.
    pub runs: BTreeMap<&'static str, u64>,
}

impl Stats {
    /// All results together.
    pub fn total_held(&self) -> usize {
        self.held.values().sum()
    }
    /// All runs together.
    pub fn total_runs(&self) -> u64 {
        self.runs.values().sum()
    }
}

impl Memo {
    /// The result of a query on a snapshot.
    pub fn get<Q: Query>(&self, snapshot: &Snapshot, query: &Q) -> Arc<Q::Out> {
        self.with(snapshot, |view| view.get(query))
    }

    /// Runs a function that reads a snapshot through this memo. What it reads through the view stays in the memo.
    ///
    /// A snapshot older than the newest one seen is answered from scratch, so that a reader which is behind gets a
    /// correct answer without turning the memo back.
    pub fn with<T>(&self, snapshot: &Snapshot, f: impl FnOnce(&View<'_>) -> T) -> T {
        let mut guard = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if guard.is_past(snapshot) {
            drop(guard);
            return Memo::default().with(snapshot, f);
        }
        // Moved out for the time of the read: should a query panic, an empty memo stays behind, which is always correct.
        let mut inner = std::mem::take(&mut *guard);
        inner.advance(snapshot);
        let runtime = Runtime { inner: RefCell::new(inner), depth: Cell::new(0) };
        let result = f(&View::root(snapshot, &runtime));
        *guard = runtime.inner.into_inner();
        result
    }

    /// Counters, for tests, benches and debug pages.
    pub fn stats(&self) -> Stats {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let mut held = BTreeMap::new();
        for slot in inner.slots.iter().filter(|slot| slot.value.is_some()) {
            *held.entry(slot.query.name()).or_default() += 1;
        }
        Stats { held, runs: inner.runs.clone() }
    }
}

impl Debug for Memo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.stats().fmt(f)
    }
}

type SlotId = u32;

/// Revisions that a result may stay unread by any root before a sweep drops it.
const KEEP_REVISIONS: u64 = 64;

#[derive(Default)]
pub(crate) struct Inner {
    /// The change that led to the snapshot at which clean slots are valid.
    at: Option<Arc<Changes>>,
    /// How many snapshots this memo has gone through.
    advances: u64,
    ids: FxHashMap<TypeId, Box<dyn Any + Send>>,
    slots: Vec<Slot>,
    free: Vec<SlotId>,
    by_input: FxHashMap<Dep, Vec<SlotId>>,
    runs: BTreeMap<&'static str, u64>,
}

struct Slot {
    query: Arc<dyn Erased>,
    /// `None` while the query runs for the first time, and in a free slot.
    value: Option<Value>,
    inputs: Box<[Dep]>,
    queries: Box<[(SlotId, Rev)]>,
    dependents: Vec<SlotId>,
    state: State,
    changed_at: Rev,
    /// The `advances` count at which a root last asked for it.
    used_at: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Valid at `Inner::rev`.
    Clean,
    /// A query below it may have changed.
    Unsure,
    /// An input of its own has changed.
    Dirty,
}

type Value = Arc<dyn Any + Send + Sync>;

trait Erased: Send + Sync {
    fn run(&self, view: &View<'_>) -> Value;
    fn same(&self, a: &Value, b: &Value) -> bool;
    fn forget(&self, ids: &mut FxHashMap<TypeId, Box<dyn Any + Send>>);
    fn name(&self) -> &'static str;
}

impl<Q: Query> Erased for Q {
    fn run(&self, view: &View<'_>) -> Value {
        Arc::new(Query::run(self, view))
    }
    fn same(&self, a: &Value, b: &Value) -> bool {
        matches!((a.downcast_ref::<Q::Out>(), b.downcast_ref::<Q::Out>()), (Some(a), Some(b)) if a == b)
    }
    fn forget(&self, ids: &mut FxHashMap<TypeId, Box<dyn Any + Send>>) {
        if let Some(map) = ids.get_mut(&TypeId::of::<Q>()).and_then(|m| m.downcast_mut::<FxHashMap<Q, SlotId>>()) {
            map.remove(self);
        }
    }
    fn name(&self) -> &'static str {
        let full = std::any::type_name::<Q>();
        full.rsplit("::").next().unwrap_or(full)
    }
}

impl Inner {
    fn slot(&self, id: SlotId) -> Option<&Slot> {
        self.slots.get(id as usize)
    }
    fn slot_mut(&mut self, id: SlotId) -> Option<&mut Slot> {
        self.slots.get_mut(id as usize)
    }

    fn rev(&self) -> Rev {
        self.at.as_ref().map_or(0, |at| at.revision)
    }

    /// True when this memo has seen a newer snapshot than this one.
    fn is_past(&self, snapshot: &Snapshot) -> bool {
        self.at.as_ref().is_some_and(|at| at.revision >= snapshot.revision() && !Arc::ptr_eq(at, snapshot.changes()))
    }

    /// Moves to a newer snapshot: marks what read a changed input, and everything above it.
    fn advance(&mut self, snapshot: &Snapshot) {
        if self.at.as_ref().is_some_and(|at| Arc::ptr_eq(at, snapshot.changes())) {
            return;
        }
        match self.at.as_ref().and_then(|at| snapshot.changes_since(at)) {
            Some(changes) => {
                let dirty: Vec<SlotId> = changes.filter_map(|dep| self.by_input.get(&dep)).flatten().copied().collect();
                for id in dirty {
                    self.mark(id);
                }
            }
            // Another line of snapshots, or too far behind: nothing is known to be valid.
            None => self.slots.iter_mut().for_each(|slot| slot.state = State::Dirty),
        }
        self.at = Some(snapshot.changes().clone());
        self.advances += 1;
        if self.advances.is_multiple_of(KEEP_REVISIONS) {
            self.sweep();
        }
    }

    fn mark(&mut self, id: SlotId) {
        let Some(slot) = self.slot_mut(id) else { return };
        let known = slot.state != State::Clean;
        slot.state = State::Dirty;
        // Those above an unsure or dirty slot are marked already.
        let mut todo = if known { Vec::new() } else { slot.dependents.clone() };
        while let Some(id) = todo.pop() {
            if let Some(slot) = self.slot_mut(id).filter(|slot| slot.state == State::Clean) {
                slot.state = State::Unsure;
                todo.extend_from_slice(&slot.dependents);
            }
        }
    }

    fn id_of<Q: Query>(&mut self, query: &Q) -> SlotId {
        let map = self
            .ids
            .entry(TypeId::of::<Q>())
            .or_insert_with(|| Box::new(FxHashMap::<Q, SlotId>::default()))
            .downcast_mut::<FxHashMap<Q, SlotId>>();
        let Some(map) = map else { unreachable!("the map of a query type is made two lines above") };
        if let Some(id) = map.get(query) {
            return *id;
        }
        let slot = Slot {
            query: Arc::new(query.clone()),
            value: None,
            inputs: Box::default(),
            queries: Box::default(),
            dependents: Vec::new(),
            state: State::Dirty,
            changed_at: 0,
            used_at: self.advances,
        };
        let id = match self.free.pop() {
            Some(id) => id,
            None => self.slots.len() as SlotId,
        };
        map.insert(query.clone(), id);
        match self.slots.get_mut(id as usize) {
            Some(old) => *old = slot,
            None => self.slots.push(slot),
        }
        id
    }

    /// Takes over what a run read, keeping the edges in both directions exact.
    fn rewire(&mut self, id: SlotId, inputs: Box<[Dep]>, queries: Box<[(SlotId, Rev)]>) {
        let Some(slot) = self.slot_mut(id) else { return };
        let old_inputs = std::mem::replace(&mut slot.inputs, inputs.clone());
        let old_queries = std::mem::replace(&mut slot.queries, queries.clone());
        for gone in old_inputs.iter().filter(|d| inputs.binary_search(d).is_err()) {
            if let Some(ids) = self.by_input.get_mut(gone) {
                ids.retain(|i| *i != id);
                if ids.is_empty() {
                    self.by_input.remove(gone);
                }
            }
        }
        for new in inputs.iter().filter(|d| old_inputs.binary_search(d).is_err()) {
            self.by_input.entry(*new).or_default().push(id);
        }
        let reads = |list: &[(SlotId, Rev)], q: SlotId| list.binary_search_by_key(&q, |(q, _)| *q).is_ok();
        for (gone, _) in old_queries.iter().filter(|(q, _)| !reads(&queries, *q)) {
            if let Some(slot) = self.slot_mut(*gone) {
                slot.dependents.retain(|i| *i != id);
            }
        }
        for (new, _) in queries.iter().filter(|(q, _)| !reads(&old_queries, *q)) {
            if let Some(slot) = self.slot_mut(*new) {
                slot.dependents.push(id);
            }
        }
    }

    /// Drops what no root has asked for lately, and what only such results read.
    fn sweep(&mut self) {
        let mut live = vec![false; self.slots.len()];
        let mut todo: Vec<SlotId> = Vec::new();
        for (id, slot) in self.slots.iter().enumerate() {
            if slot.value.is_some() && slot.used_at + KEEP_REVISIONS > self.advances && slot.used_at > 0 {
                todo.push(id as SlotId);
            }
        }
        while let Some(id) = todo.pop() {
            match live.get_mut(id as usize) {
                Some(seen) if !*seen => *seen = true,
                _ => continue,
            }
            if let Some(slot) = self.slot(id) {
                todo.extend(slot.queries.iter().map(|(q, _)| *q));
            }
        }
        for id in 0..self.slots.len() as SlotId {
            let dead = !live.get(id as usize).copied().unwrap_or(true);
            if dead && self.slot(id).is_some_and(|slot| slot.value.is_some()) {
                self.rewire(id, Box::default(), Box::default());
                let Some(slot) = self.slots.get_mut(id as usize) else { continue };
                slot.value = None;
                let query = slot.query.clone();
                query.forget(&mut self.ids);
                self.free.push(id);
            }
        }
    }
}

/// One read of a snapshot in progress.
pub(crate) struct Runtime {
    inner: RefCell<Inner>,
    depth: Cell<u32>,
}

/// What one run has read so far.
#[derive(Default)]
pub(crate) struct Reads {
    inputs: Vec<Dep>,
    queries: Vec<(SlotId, Rev)>,
}

impl Reads {
    pub(crate) fn input(&mut self, dep: Dep) {
        self.inputs.push(dep);
    }
}

/// Deeper nesting than any sound set of queries has: a query that (indirectly) reads itself.
const MAX_DEPTH: u32 = 64;

impl Runtime {
    pub(crate) fn get<Q: Query>(&self, view: &View<'_>, query: &Q) -> Arc<Q::Out> {
        let id = self.inner.borrow_mut().id_of(query);
        self.refresh(view.snapshot(), id);
        let mut inner = self.inner.borrow_mut();
        let advances = inner.advances;
        let found = inner.slot_mut(id).and_then(|slot| {
            if view.is_root() {
                slot.used_at = advances;
            }
            slot.value.clone().map(|value| (value, slot.changed_at))
        });
        drop(inner);
        let Some((value, changed_at)) = found else { unreachable!("a refreshed slot has a value: {query:?}") };
        view.note(|reads| reads.queries.push((id, changed_at)));
        match value.downcast::<Q::Out>() {
            Ok(value) => value,
            Err(_) => unreachable!("a slot of {query:?} holds its output type"),
        }
    }

    /// Makes a slot valid at the snapshot.
    fn refresh(&self, snapshot: &Snapshot, id: SlotId) {
        let (state, queries) = {
            let inner = self.inner.borrow();
            let Some(slot) = inner.slot(id) else { return };
            match slot.state {
                State::Clean => return,
                State::Unsure => (State::Unsure, slot.queries.clone()),
                State::Dirty => (State::Dirty, Box::default()),
            }
        };
        assert!(self.depth.get() < MAX_DEPTH, "queries that read themselves");
        self.depth.set(self.depth.get() + 1);
        let unchanged = state == State::Unsure
            && queries.iter().all(|(below, seen)| {
                self.refresh(snapshot, *below);
                self.inner.borrow().slot(*below).is_some_and(|slot| slot.changed_at == *seen)
            });
        if unchanged {
            if let Some(slot) = self.inner.borrow_mut().slot_mut(id) {
                slot.state = State::Clean;
            }
        } else {
            self.run(snapshot, id);
        }
        self.depth.set(self.depth.get() - 1);
    }

    fn run(&self, snapshot: &Snapshot, id: SlotId) {
        let Some(query) = self.inner.borrow().slot(id).map(|slot| slot.query.clone()) else { return };
        let view = View::nested(snapshot, self);
        let value = query.run(&view);
        let Reads { mut inputs, mut queries } = view.into_reads();
        inputs.sort_unstable();
        inputs.dedup();
        queries.sort_unstable();
        queries.dedup();
        let mut inner = self.inner.borrow_mut();
        *inner.runs.entry(query.name()).or_default() += 1;
        inner.rewire(id, inputs.into(), queries.into());
        let rev = inner.rev();
        if let Some(slot) = inner.slot_mut(id) {
            slot.state = State::Clean;
            let same = slot.value.as_ref().is_some_and(|old| query.same(old, &value));
            if !same {
                slot.value = Some(value);
                slot.changed_at = rev;
            }
        }
    }
}
