//! The only way a builder can see the world. Every read is written down, absent rows included.

use std::cell::RefCell;
use std::sync::Arc;

use crate::memo::{Query, Reads, Runtime};
use crate::snapshot::{Dep, Snapshot, Table, TableKey};

/// A snapshot as one run of a query sees it.
pub struct View<'s> {
    snapshot: &'s Snapshot,
    runtime: &'s Runtime,
    /// `None` at the root, whose reads nobody has to repeat.
    reads: Option<RefCell<Reads>>,
}

impl<'s> View<'s> {
    pub(crate) fn root(snapshot: &'s Snapshot, runtime: &'s Runtime) -> Self {
        Self { snapshot, runtime, reads: None }
    }
    pub(crate) fn nested(snapshot: &'s Snapshot, runtime: &'s Runtime) -> Self {
        Self { snapshot, runtime, reads: Some(RefCell::default()) }
    }
    pub(crate) fn snapshot(&self) -> &'s Snapshot {
        self.snapshot
    }
    pub(crate) fn is_root(&self) -> bool {
        self.reads.is_none()
    }
    pub(crate) fn note(&self, f: impl FnOnce(&mut Reads)) {
        if let Some(reads) = &self.reads {
            f(&mut reads.borrow_mut());
        }
    }
    pub(crate) fn into_reads(self) -> Reads {
        self.reads.map(RefCell::into_inner).unwrap_or_default()
    }

    /// The result of another query.
    pub fn get<Q: Query>(&self, query: &Q) -> Arc<Q::Out> {
        self.runtime.get(self, query)
    }

    /// One row of a table: `view.row(|s| &s.services, &key)`.
    pub fn row<K: TableKey + 's, V: 's>(&self, table: fn(&Snapshot) -> &Table<K, V>, key: &K) -> Option<&'s Arc<V>> {
        let table = table(self.snapshot);
        self.note(|reads| reads.input(Dep::row(table.id(), key)));
        table.get(key)
    }

    /// The rows of one bucket of a table, in key order: those of a namespace, of a host, of a service.
    pub fn bucket<K: TableKey + 's, V: 's>(
        &self,
        table: fn(&Snapshot) -> &Table<K, V>,
        bucket: &K::Bucket,
    ) -> impl Iterator<Item = (&'s K, &'s Arc<V>)> + use<'s, K, V> {
        let table = table(self.snapshot);
        self.note(|reads| reads.input(Dep::bucket(table.id(), bucket)));
        table.bucket(bucket)
    }

    /// All rows of a table, in key order. Whoever reads this runs again on every change of the table.
    pub fn all<K: TableKey + 's, V: 's>(
        &self,
        table: fn(&Snapshot) -> &Table<K, V>,
    ) -> impl Iterator<Item = (&'s K, &'s Arc<V>)> + use<'s, K, V> {
        let table = table(self.snapshot);
        self.note(|reads| reads.input(Dep::all(table.id())));
        table.iter()
    }
}
