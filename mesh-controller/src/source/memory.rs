//! Objects that the program itself puts in: for library users, for the nodelet and for tests.
//!
//! The handle never waits and never blocks on its readers; what it is told before a source starts is part of that
//! source's initial sync.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mesh_api::{Object, ObjectRef};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Batch, Event, Next, Source};

/// A handle to a set of objects; clones share the set.
///
/// ```
/// use mesh_controller::source::{Memory, Source};
/// let memory = Memory::default();
/// let source = memory.source();
/// assert_eq!(source.name(), "memory");
/// ```
#[derive(Clone, Default)]
pub struct Memory {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    objects: BTreeMap<ObjectRef, Object>,
    readers: Vec<UnboundedSender<Batch>>,
}

/// One change for [`Memory::apply`].
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// The object is to be as given.
    Upsert(Object),
    /// The object is to be no more.
    Delete(ObjectRef),
}

impl Memory {
    /// Puts an object in, or another in its place. An equal object changes nothing and tells nobody.
    pub fn upsert(&self, object: Object) {
        self.apply([Edit::Upsert(object)]);
    }

    /// Takes an object out.
    pub fn delete(&self, object: &ObjectRef) {
        self.apply([Edit::Delete(object.clone())]);
    }

    /// Several edits as one batch.
    pub fn apply(&self, edits: impl IntoIterator<Item = Edit>) {
        let mut shared = self.lock();
        let mut batch = Batch::new();
        for edit in edits {
            match edit {
                Edit::Upsert(object) => {
                    let key = object.object_ref();
                    if shared.objects.get(&key) != Some(&object) {
                        shared.objects.insert(key, object.clone());
                        batch.push(Event::Upsert { object, location: None });
                    }
                }
                Edit::Delete(key) => {
                    if shared.objects.remove(&key).is_some() {
                        batch.push(Event::Delete(key));
                    }
                }
            }
        }
        if !batch.is_empty() {
            shared.readers.retain(|reader| reader.send(batch.clone()).is_ok());
        }
    }

    /// A source over this set: first all that is in it, then every edit. Each call gives an independent one.
    pub fn source(&self) -> MemorySource {
        let (sender, batches) = unbounded_channel();
        let mut shared = self.lock();
        let mut first: Batch =
            shared.objects.values().map(|object| Event::Upsert { object: object.clone(), location: None }).collect();
        first.push(Event::Synced);
        shared.readers.push(sender);
        MemorySource { first: Some(first), batches }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Nothing under the lock can leave the set half changed, so a panic elsewhere does not spoil it.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What [`Memory::source`] returns. It ends when the last handle is gone.
pub struct MemorySource {
    first: Option<Batch>,
    batches: UnboundedReceiver<Batch>,
}

impl Source for MemorySource {
    fn name(&self) -> &str {
        "memory"
    }

    fn next(&mut self) -> Next<'_> {
        Box::pin(async move {
            match self.first.take() {
                Some(first) => Some(first),
                None => self.batches.recv().await,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::conformance::{Subject, check, key, object};

    #[tokio::test]
    async fn memory_conforms() {
        struct InMemory(Memory);
        impl Subject for InMemory {
            fn source(&self) -> Box<dyn Source> {
                Box::new(self.0.source())
            }
            fn put(&self, name: &str, value: &str) {
                self.0.upsert(object(name, value));
            }
            fn delete(&self, name: &str) {
                self.0.delete(&key(name));
            }
            fn spoil(&self, _: &str) -> bool {
                false
            }
        }
        check(&InMemory(Memory::default())).await;
    }
}
