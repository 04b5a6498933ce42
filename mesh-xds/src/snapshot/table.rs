//! One input table: ordered, cheap to clone, with equal writes dropped at the door.

use std::hash::{BuildHasher, BuildHasherDefault, Hash};
use std::sync::Arc;

use imbl::OrdMap;
use rustc_hash::FxHasher;

/// What a query can depend on: a row, a bucket of rows or a whole table, present or absent.
///
/// A hash stands for the thing itself: should two ever collide, a query runs once more than it had to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Dep(u64);

impl Dep {
    pub(crate) fn row<K: Hash>(table: TableId, key: &K) -> Self {
        Self(hash(&(table, 0u8, key)))
    }
    pub(crate) fn bucket<B: Hash>(table: TableId, bucket: &B) -> Self {
        Self(hash(&(table, 1u8, bucket)))
    }
    pub(crate) fn all(table: TableId) -> Self {
        Self(hash(&(table, 2u8)))
    }
}

fn hash(value: &impl Hash) -> u64 {
    BuildHasherDefault::<FxHasher>::default().hash_one(value)
}

/// Tells tables apart in a [`Dep`].
pub(crate) type TableId = u8;

/// A key whose order puts the rows of one bucket next to each other.
pub trait TableKey: Ord + Clone + Hash {
    /// What rows are looked up by together, e.g. the namespace.
    type Bucket: Hash + Eq;
    /// The bucket of this key.
    fn bucket(&self) -> Self::Bucket;
    /// A key not after any key of the bucket and not before any of an earlier bucket.
    fn first_of(bucket: &Self::Bucket) -> Self;
}

/// Rows of one kind.
#[derive(Clone)]
pub struct Table<K: TableKey, V> {
    id: TableId,
    rows: OrdMap<K, Arc<V>>,
}

impl<K: TableKey, V> Table<K, V> {
    pub(crate) fn new(id: TableId) -> Self {
        Self { id, rows: OrdMap::new() }
    }
    pub(crate) fn id(&self) -> TableId {
        self.id
    }
    /// The row of that key.
    pub fn get(&self, key: &K) -> Option<&Arc<V>> {
        self.rows.get(key)
    }
    /// All rows in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &Arc<V>)> {
        self.rows.iter()
    }
    /// The rows of one bucket in key order.
    pub fn bucket(&self, bucket: &K::Bucket) -> impl Iterator<Item = (&K, &Arc<V>)> + use<'_, K, V> {
        let first = K::first_of(bucket);
        let of = first.bucket();
        self.rows.range(first..).take_while(move |(k, _)| k.bucket() == of)
    }
    /// How many rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }
    /// True when there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl<K: TableKey, V: PartialEq> Table<K, V> {
    /// Writes or removes a row and says what thereby changed. An equal write changes nothing.
    pub(crate) fn set(&mut self, key: &K, value: Option<Arc<V>>, changed: &mut Vec<Dep>) {
        match (&value, self.rows.get(key)) {
            (None, None) => return,
            (Some(new), Some(old)) if new == old => return,
            _ => {}
        }
        changed.extend([Dep::row(self.id, key), Dep::bucket(self.id, &key.bucket()), Dep::all(self.id)]);
        match value {
            Some(value) => self.rows.insert(key.clone(), value),
            None => self.rows.remove(key),
        };
    }
}
