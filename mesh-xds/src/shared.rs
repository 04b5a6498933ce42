//! A shared row: cloned by counting, equal at once when it is the same row.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// An `Arc` whose equality looks at the pointer before it looks at the content.
///
/// An unchanged row keeps its `Arc` from snapshot to snapshot, so comparing long lists of rows costs one comparison of
/// pointers a row.
pub struct Shared<T>(Arc<T>);

impl<T> Shared<T> {
    /// Shares a value.
    pub fn new(value: T) -> Self {
        Self(Arc::new(value))
    }
    /// True when both are the same row.
    pub fn same(a: &Self, b: &Self) -> bool {
        Arc::ptr_eq(&a.0, &b.0)
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> From<&Arc<T>> for Shared<T> {
    fn from(arc: &Arc<T>) -> Self {
        Self(arc.clone())
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        Self::same(self, other) || *self.0 == *other.0
    }
}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
