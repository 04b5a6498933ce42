//! Who is connected, and how far each has come.
//!
//! The state of a stream is its session, and there is only this one copy of it: debug pages read what the stream writes.
//! The lock is held for one step of a session, never across an await.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::Node;
use mesh_api::Name;
use prost::Message;

use super::Peer;
use crate::ads::{Session, TypeStatus};
use crate::resource::TypeUrl;

/// One connected client.
pub struct Connection<C> {
    number: u64,
    id: String,
    node_id: Name,
    node: Bytes,
    since: SystemTime,
    peer: Peer,
    client: C,
    state: Mutex<State>,
}

pub(super) struct State {
    pub(super) session: Session,
    pub(super) sent_at: [Option<SystemTime>; TypeUrl::ALL.len()],
}

impl<C> Connection<C> {
    /// The node's id and a number that is unique in this process: `sidecar~10.0.0.1~a.b~b.svc.cluster.local-7`.
    pub fn id(&self) -> &str {
        &self.id
    }
    /// The node's id.
    pub fn node_id(&self) -> &Name {
        &self.node_id
    }
    /// The node as it introduced itself.
    pub fn node(&self) -> Node {
        // Kept encoded: nobody but a debug page looks at it again, and decoded it is several times larger.
        Node::decode(self.node.clone()).unwrap_or_default()
    }
    /// When the first request came.
    pub fn since(&self) -> SystemTime {
        self.since
    }
    /// The other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
    /// The backend's idea of it.
    pub fn client(&self) -> &C {
        &self.client
    }
    /// How far it has come with a type; `None` when it never asked for it.
    pub fn status(&self, ty: TypeUrl) -> Option<TypeStatus> {
        self.state().session.status(ty)
    }
    /// When a type was sent last.
    pub fn sent_at(&self, ty: TypeUrl) -> Option<SystemTime> {
        self.state().sent_at.get(ty as usize).copied().flatten()
    }
    /// The names that it subscribed to, sorted.
    pub fn subscriptions(&self, ty: TypeUrl) -> Vec<Name> {
        self.state().session.subscriptions(ty).cloned().collect()
    }
    /// True when it was sent all that it should have.
    pub fn is_settled(&self) -> bool {
        self.state().session.is_settled()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All connected clients of a server.
pub struct Clients<C> {
    next: AtomicU64,
    all: Mutex<BTreeMap<u64, Arc<Connection<C>>>>,
}

impl<C> Default for Clients<C> {
    fn default() -> Self {
        Self { next: AtomicU64::new(1), all: Mutex::default() }
    }
}

impl<C> Clients<C> {
    /// All, in the order in which they came.
    pub fn list(&self) -> Vec<Arc<Connection<C>>> {
        self.lock().values().cloned().collect()
    }
    /// How many.
    pub fn len(&self) -> usize {
        self.lock().len()
    }
    /// True when nobody is connected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The first whose id contains `part`, as istioctl looks for a proxy.
    pub fn find(&self, part: &str) -> Option<Arc<Connection<C>>> {
        self.lock().values().find(|c| c.id.contains(part)).cloned()
    }

    pub(super) fn add(&self, node: &Node, peer: Peer, client: C, session: Session) -> Arc<Connection<C>> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection {
            number,
            id: format!("{}-{number}", node.id),
            node_id: Name::from(node.id.as_str()),
            node: node.encode_to_vec().into(),
            since: SystemTime::now(),
            peer,
            client,
            state: Mutex::new(State { session, sent_at: Default::default() }),
        });
        self.lock().insert(number, connection.clone());
        connection
    }

    pub(super) fn remove(&self, connection: &Connection<C>) {
        self.lock().remove(&connection.number);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Connection<C>>>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
