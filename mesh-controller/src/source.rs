//! Where objects come from. A source tells, in batches and in order, what there is and what has changed; the
//! [`Store`](crate::store::Store) is the only one who listens.
//!
//! A source never decides what an object means, never stops because one object is bad (a bad one is a
//! [`Diagnostic`], its last good version stays in force), and never says twice what has not changed.

use std::future::Future;
use std::pin::Pin;

use mesh_api::{Diagnostic, Location, Name, Object, ObjectRef};

pub mod files;
pub mod kube;
pub mod memory;
pub mod remotes;

#[cfg(test)]
mod conformance;

pub use self::kube::Kube;
pub use files::Files;
pub use memory::Memory;
pub use remotes::Remotes;

/// One thing that a source has to say.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The object is now as given. An equal object with another location is one that moved within its file.
    Upsert {
        /// The object.
        object: Object,
        /// The place in a text that it was read from, where there is one.
        location: Option<Location>,
    },
    /// The object is no more.
    Delete(ObjectRef),
    /// All that is wrong with one file (or another part of the source) by now; it replaces what was said of that part
    /// before, and an empty list says that all is well.
    Problems {
        /// The file, or the part's name.
        part: Name,
        /// What is wrong with it, in the order of the text.
        problems: Vec<Diagnostic>,
    },
    /// All that was there at the start has been told. Comes exactly once.
    Synced,
}

/// What belongs together: the Store applies a batch as a whole.
pub type Batch = Vec<Event>;

/// The future that [`Source::next`] returns.
pub type Next<'a> = Pin<Box<dyn Future<Output = Option<Batch>> + Send + 'a>>;

/// An asynchronous stream of batches of events.
pub trait Source: Send {
    /// What the source is called in logs and on the debug pages, e.g. `files`.
    fn name(&self) -> &str;

    /// The next batch, or `None` when nothing will ever change again; what was said stays in force then.
    ///
    /// Dropping the future loses nothing: the next call goes on where it was.
    fn next(&mut self) -> Next<'_>;
}
