//! One ADS stream as a state machine: requests, snapshots and ticks go in, responses and events come out.
//!
//! It exists without a socket and without a clock so that every rule of the protocol is a script of inputs and outputs.
//! State of the world and delta are two faces of the same machine: what a client has of a type is known (`watch`), so
//! what it is sent is the difference to what it should have, written in one form or the other.
//!
//! # The rules
//! - Of each type one response is outstanding. What changes meanwhile is not queued: the next response brings the newest.
//! - Types leave in push order. Clusters and endpoints first; listeners wait for the ACK of new clusters, routes for the
//!   ACK of new listeners; clusters and endpoints are taken away only after the ACK of the last listeners and routes. A
//!   missing ACK holds the others back no longer than [`Options::ack_timeout`]. The first answer of a type never waits.
//! - A rejected response is not repeated until something in it, or beside it, changes.
//! - A cluster that is sent makes Envoy wait for its endpoints, even for those that it has: they are sent again.
//! - It never remembers more than names: resources stay shared, and an idle stream costs a pointer a type.
//!
//! Endpoints are matched to clusters by name: `eds_cluster_config.service_name` is the cluster's name, as in Istio.

mod names;
mod request;
mod response;
mod watch;

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod order_tests;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use envoy_types::pb::google::rpc::Status;
use mesh_api::Name;

pub use request::{RawNames, RequestError, SotwRequest};
pub use response::{Body, Response};

use crate::resource::{ResourceSet, TypeUrl};
use response::Draft;
use watch::{Plan, Watch};

/// Sent by Istio's agents to report on their workload; it isn't a subscription.
const HEALTH_TYPE: &str = "type.googleapis.com/istio.v1.HealthInformation";
/// The name that subscribes to all of a type.
const WILDCARD: &str = "*";
/// Types that we don't serve are answered, emptily, up to this many a stream.
const UNKNOWN_TYPES: usize = 32;

/// What a proxy should have now. One value stands for one snapshot.
pub trait Resources {
    /// All resources of a type that the proxy may be sent.
    fn get(&self, ty: TypeUrl) -> ResourceSet;
}

impl<F: Fn(TypeUrl) -> ResourceSet> Resources for F {
    fn get(&self, ty: TypeUrl) -> ResourceSet {
        self(ty)
    }
}

/// The form of the protocol that a stream speaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Face {
    /// `StreamAggregatedResources`.
    Sotw,
    /// `DeltaAggregatedResources`.
    Delta,
}

/// How a session behaves. Times are milliseconds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// How long a missing ACK of one type holds back the others.
    pub ack_timeout: u64,
    /// How long a reconnected client keeps what we no longer have, while its other types arrive.
    pub reconnect_grace: u64,
    /// Names that one stream may subscribe to, of one type.
    pub max_names: usize,
    /// What we call ourselves in every response; empty for nothing.
    pub control_plane: Arc<str>,
}

impl Default for Options {
    fn default() -> Self {
        Self { ack_timeout: 5_000, reconnect_grace: 1_000, max_names: 200_000, control_plane: Arc::from("") }
    }
}

/// What happens to a stream.
#[derive(Clone, Debug)]
pub enum Input {
    /// A state-of-the-world request arrived.
    Sotw(Box<SotwRequest>),
    /// A delta request arrived.
    Delta(Box<DeltaDiscoveryRequest>),
    /// There may be new resources.
    Snapshot,
    /// Time has passed.
    Tick,
}

/// What to do about it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Output {
    /// Write this to the stream.
    Send(Response),
    /// Worth counting.
    Event(Event),
    /// End the stream. Nothing follows.
    Close(Close),
}

/// Worth counting.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The client took a response.
    Ack(TypeUrl),
    /// The client refused a response.
    Nack(TypeUrl, Nack),
    /// An ACK or NACK came for a response that is not the last one; it was ignored.
    ExpiredNonce(TypeUrl),
}

/// Why a client refused a response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nack {
    /// Of the refused response.
    pub nonce: u64,
    /// The gRPC code that the client gave.
    pub code: i32,
    /// In the client's words.
    pub message: String,
}

/// Codes with which a stream is closed, by their gRPC numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Code {
    /// The client said something that makes no sense.
    InvalidArgument = 3,
    /// The client wants too much.
    ResourceExhausted = 8,
}

/// The end of a stream: the client's fault, said so that its owner can mend it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Close {
    /// The gRPC status.
    pub code: Code,
    /// What the client did.
    pub message: String,
}

fn invalid(message: impl Into<String>) -> Close {
    Close { code: Code::InvalidArgument, message: message.into() }
}

/// What is known of one type on one stream, for debug pages.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TypeStatus {
    /// Nonce of the last response, 0 for none.
    pub sent_nonce: u64,
    /// Its version.
    pub sent_version: u64,
    /// Nonce of the last accepted response, 0 for none.
    pub acked_nonce: u64,
    /// Its version.
    pub acked_version: u64,
    /// The last refusal, until something is accepted.
    pub nack: Option<Nack>,
    /// All of the type is subscribed to.
    pub wildcard: bool,
    /// How many names are subscribed to.
    pub names: usize,
}

/// One ADS stream.
///
/// ```
/// use mesh_xds::ads::{Face, Input, Output, Options, Session, SotwRequest};
/// use mesh_xds::{ResourceSet, TypeUrl};
/// # use envoy_types::pb::envoy::config::core::v3::Node;
/// let mut session = Session::new(Face::Sotw, Options::default().into());
/// let request = SotwRequest {
///     node: Some(Node { id: "sidecar~10.0.0.1~a.b~b.svc.cluster.local".into(), ..Node::default() }),
///     type_url: TypeUrl::Cluster.as_str().into(),
///     ..SotwRequest::default()
/// };
/// let out = session.handle(Input::Sotw(request.into()), 0, &|_| ResourceSet::default());
/// assert!(matches!(&out[..], [Output::Send(r)] if r.ty() == Some(TypeUrl::Cluster)));
/// ```
pub struct Session {
    face: Face,
    options: Arc<Options>,
    node: Option<(Name, Name)>,
    watches: [Option<Box<Watch>>; TypeUrl::ALL.len()],
    unknown: Vec<Box<str>>,
    nonce: u64,
    warming: Warming,
    keep_until: u64,
    now: u64,
    closed: bool,
}

/// Clusters that were sent before the client asked for endpoints.
enum Warming {
    None,
    Some(Vec<Name>),
    All,
}

impl Session {
    /// A stream on which nothing was said yet.
    pub fn new(face: Face, options: Arc<Options>) -> Self {
        Self {
            face,
            options,
            node: None,
            watches: Default::default(),
            unknown: Vec::new(),
            nonce: 0,
            warming: Warming::None,
            keep_until: 0,
            now: 0,
            closed: false,
        }
    }

    /// The form of the protocol.
    pub fn face(&self) -> Face {
        self.face
    }

    /// Handles one input. `now` are milliseconds of any clock that never goes back.
    pub fn handle(&mut self, input: Input, now: u64, resources: &dyn Resources) -> Vec<Output> {
        let mut out = Vec::new();
        if self.closed {
            return out;
        }
        self.now = now;
        let done = match input {
            Input::Sotw(request) => self.sotw(&request, resources, &mut out),
            Input::Delta(request) => self.delta(&request, now, resources, &mut out),
            Input::Snapshot => {
                self.watches.iter_mut().flatten().for_each(|w| w.dirty = true);
                Ok(())
            }
            Input::Tick => Ok(()),
        };
        match done {
            Ok(()) => self.push(now, resources, &mut out),
            Err(close) => {
                self.closed = true;
                out.push(Output::Close(close));
            }
        }
        out
    }

    /// When a [`Input::Tick`] would change something, if nothing else happens before.
    pub fn deadline(&self) -> Option<u64> {
        let waiting = self.watches.iter().flatten().any(|w| w.dirty || w.held_back || w.due());
        if self.closed || !waiting {
            return None;
        }
        let acks =
            self.watches.iter().flatten().filter_map(|w| Some(w.flight.as_ref()?.sent_at + self.options.ack_timeout));
        acks.chain(Some(self.keep_until)).filter(|at| *at > self.now).min()
    }

    /// True when the client was sent all that it should have.
    pub fn is_settled(&self) -> bool {
        !self.watches.iter().flatten().any(|w| w.dirty || w.held_back || w.due())
    }

    /// What is known of a type; `None` when the client never asked for it.
    pub fn status(&self, ty: TypeUrl) -> Option<TypeStatus> {
        let w = self.watch(ty)?;
        Some(TypeStatus {
            sent_nonce: w.sent_nonce,
            sent_version: w.sent_version,
            acked_nonce: w.acked_nonce,
            acked_version: w.acked_version,
            nack: w.nack.as_deref().cloned(),
            wildcard: w.wildcard,
            names: w.names.len(),
        })
    }

    /// The names that the client subscribed to, sorted, `*` not among them.
    pub fn subscriptions(&self, ty: TypeUrl) -> impl Iterator<Item = &Name> {
        self.watch(ty).into_iter().flat_map(|w| w.names.iter())
    }

    fn watch(&self, ty: TypeUrl) -> Option<&Watch> {
        self.watches.get(ty as usize)?.as_deref()
    }

    fn watch_mut(&mut self, ty: TypeUrl) -> Option<&mut Watch> {
        self.watches.get_mut(ty as usize)?.as_deref_mut()
    }

    // ---- requests

    fn sotw(&mut self, request: &SotwRequest, resources: &dyn Resources, out: &mut Vec<Output>) -> Result<(), Close> {
        if self.face != Face::Sotw {
            return Err(invalid("a state-of-the-world request came on a delta stream"));
        }
        self.identify(request.node.as_ref())?;
        let Some(ty) = TypeUrl::parse(&request.type_url) else {
            return self.unknown(&request.type_url, out);
        };
        let names = || request.names.decode().map_err(|_| invalid(format!("a {ty} name is not UTF-8")));
        let max_names = self.options.max_names;
        let Some(slot) = self.watches.get_mut(ty as usize) else { return Ok(()) };
        let Some(watch) = slot.as_deref_mut() else {
            let mut watch = Box::new(Watch::new(ty));
            let names = names()?;
            limit(ty, names.len(), max_names)?;
            watch.names_hash = request.names.hash();
            watch.named = !names.is_empty();
            watch.wildcard = names.contains(&WILDCARD) || (names.is_empty() && ty.is_wildcard());
            let set = resources.get(ty);
            watch.names.replace(names.into_iter().filter(|n| *n != WILDCARD), &set);
            watch.owed = watch.wildcard || watch.names.len() > 0;
            if !watch.wildcard {
                watch.sent = set.clone();
            }
            // A version is a hash of the content: who has accepted this one has it, whoever sent it.
            if watch.wildcard && ty.is_wildcard() && is_version(&request.version_info, set.version()) {
                watch.owed = false;
                watch.acked_version = set.version();
                watch.sent = set;
            }
            *slot = Some(watch);
            return Ok(());
        };
        if request.response_nonce.is_empty() {
            // The client begins anew on this stream, unless it only hasn't seen our answer yet.
            if watch.flight.is_none() && watch.sent_nonce > 0 {
                watch.owed = true;
                watch.sent = ResourceSet::default();
                watch.dirty = true;
                let set = resources.get(ty);
                watch.names.replace(std::iter::empty(), &set);
                watch.names_hash = 0;
            }
        } else if !acknowledge(watch, &request.response_nonce, request.error_detail.as_ref(), out) {
            return Ok(());
        }
        let hash = request.names.hash();
        if hash == watch.names_hash {
            return Ok(());
        }
        let names = names()?;
        limit(ty, names.len(), max_names)?;
        watch.names_hash = hash;
        watch.named |= !names.is_empty();
        watch.set_wildcard(names.contains(&WILDCARD) || (names.is_empty() && ty.is_wildcard() && !watch.named));
        watch.names.replace(names.into_iter().filter(|n| *n != WILDCARD), &resources.get(ty));
        Ok(())
    }

    fn delta(
        &mut self,
        request: &DeltaDiscoveryRequest,
        now: u64,
        resources: &dyn Resources,
        out: &mut Vec<Output>,
    ) -> Result<(), Close> {
        if self.face != Face::Delta {
            return Err(invalid("a delta request came on a state-of-the-world stream"));
        }
        self.identify(request.node.as_ref())?;
        let Some(ty) = TypeUrl::parse(&request.type_url) else {
            return self.unknown(&request.type_url, out);
        };
        let subscribe = &request.resource_names_subscribe;
        let unsubscribe = &request.resource_names_unsubscribe;
        let wildcard_on = subscribe.iter().any(|n| n == WILDCARD);
        let wildcard_off = unsubscribe.iter().any(|n| n == WILDCARD);
        let named = subscribe.iter().map(String::as_str).filter(|n| *n != WILDCARD);
        let max_names = self.options.max_names;
        let Some(slot) = self.watches.get_mut(ty as usize) else { return Ok(()) };
        let Some(watch) = slot.as_deref_mut() else {
            limit(ty, subscribe.len(), max_names)?;
            let mut watch = Box::new(Watch::new(ty));
            watch.wildcard = (wildcard_on || (subscribe.is_empty() && ty.is_wildcard())) && !wildcard_off;
            let set = resources.get(ty);
            watch.names.subscribe(named, &set);
            let had = &request.initial_resource_versions;
            watch.owed = watch.wildcard && had.is_empty();
            if !watch.wildcard {
                // Its names are due: they are answered from the set.
                watch.sent = set.clone();
            }
            if !had.is_empty() {
                self.keep_until = self.keep_until.max(now + self.options.reconnect_grace);
                let warming = match ty {
                    TypeUrl::Endpoint => std::mem::replace(&mut self.warming, Warming::None),
                    _ => Warming::None,
                };
                resume(&mut watch, had, &set, &warming);
            }
            if ty == TypeUrl::Endpoint {
                self.warming = Warming::None;
            }
            *slot = Some(watch);
            return Ok(());
        };
        if !request.response_nonce.is_empty() {
            // What is subscribed to in the same message counts even if the nonce is old: it is said only once.
            acknowledge(watch, &request.response_nonce, request.error_detail.as_ref(), out);
        }
        if subscribe.is_empty() && unsubscribe.is_empty() {
            return Ok(());
        }
        limit(ty, subscribe.len() + watch.names.len(), max_names)?;
        if wildcard_on != wildcard_off {
            watch.set_wildcard(wildcard_on);
        }
        if !unsubscribe.is_empty() {
            let removed = watch.names.unsubscribe(unsubscribe.iter().map(|name| name.as_str()));
            if watch.wildcard {
                // Still covered by the wildcard, or not: the client must be told which.
                watch.extra.extend(removed);
            }
        }
        if !subscribe.is_empty() {
            watch.names.subscribe(named, &resources.get(ty));
        }
        Ok(())
    }

    /// The first request must say who asks; later ones may only say the same.
    fn identify(&mut self, node: Option<&Node>) -> Result<(), Close> {
        match (&self.node, node) {
            (None, None) => Err(invalid("the first request of the stream has no node")),
            (None, Some(node)) if node.id.is_empty() => {
                Err(invalid("the node of the first request of the stream has no id"))
            }
            (None, Some(node)) => {
                self.node = Some((Name::from(node.id.as_str()), Name::from(node.cluster.as_str())));
                Ok(())
            }
            (Some((id, _)), Some(node)) if !node.id.is_empty() && node.id != id.as_str() => {
                Err(invalid(format!("the node of this stream changed from {id} to {}", node.id)))
            }
            (Some((id, cluster)), Some(node)) if !node.id.is_empty() && node.cluster != cluster.as_str() => {
                Err(invalid(format!("the cluster of node {id} changed from {cluster} to {}", node.cluster)))
            }
            _ => Ok(()),
        }
    }

    /// One empty answer for a type that we don't serve, so that a client which waits for it goes on.
    fn unknown(&mut self, type_url: &str, out: &mut Vec<Output>) -> Result<(), Close> {
        if type_url.is_empty() {
            return Err(invalid("a request names no type_url"));
        }
        if type_url == HEALTH_TYPE
            || self.unknown.len() >= UNKNOWN_TYPES
            || self.unknown.iter().any(|t| **t == *type_url)
        {
            return Ok(());
        }
        self.unknown.push(type_url.into());
        self.nonce += 1;
        out.push(Output::Send(Response::new(Draft {
            face: self.face,
            ty: None,
            type_url,
            nonce: self.nonce,
            version: 0,
            removed: &[],
            control_plane: &self.options.control_plane,
            body: Body::Part(Vec::new()),
        })));
        Ok(())
    }

    // ---- pushes

    /// Sends what may be sent, in push order, removals of clusters and endpoints last.
    fn push(&mut self, now: u64, resources: &dyn Resources, out: &mut Vec<Output>) {
        for ty in TypeUrl::ALL {
            if self.may_push(ty, now) {
                let removals = !matches!(ty, TypeUrl::Cluster | TypeUrl::Endpoint);
                self.push_type(ty, removals, now, resources, out);
            }
        }
        for ty in [TypeUrl::Cluster, TypeUrl::Endpoint] {
            let held = self.watch(ty).is_some_and(|w| w.held_back && w.flight.is_none());
            if held && self.may_remove(ty, now) {
                self.push_type(ty, true, now, resources, out);
            }
        }
    }

    fn may_push(&self, ty: TypeUrl, now: u64) -> bool {
        let Some(watch) = self.watch(ty) else { return false };
        if watch.flight.is_some() || !(watch.dirty || watch.due()) {
            return false;
        }
        let first = watch.sent_nonce == 0 && watch.due();
        first
            || match ty {
                TypeUrl::Listener => !self.blocks(TypeUrl::Cluster, now),
                TypeUrl::Route => !self.blocks(TypeUrl::Cluster, now) && !self.blocks(TypeUrl::Listener, now),
                _ => true,
            }
    }

    /// Something new of this type is on its way, or may be once the outstanding response is acknowledged.
    fn blocks(&self, ty: TypeUrl, now: u64) -> bool {
        self.watch(ty).is_some_and(|w| {
            w.flight.as_ref().is_some_and(|f| (f.adds || w.dirty) && now < f.sent_at + self.options.ack_timeout)
        })
    }

    /// Nothing that the client uses refers to what goes: its listeners and routes are the newest, and accepted.
    fn may_remove(&self, ty: TypeUrl, now: u64) -> bool {
        let settled = |ty| {
            self.watch(ty).is_none_or(|w| {
                let waits = w.flight.as_ref().is_some_and(|f| now < f.sent_at + self.options.ack_timeout);
                let stuck = w.dirty && w.flight.is_none();
                !waits && !stuck && w.nack.is_none()
            })
        };
        let clusters = || self.watch(TypeUrl::Cluster).is_none_or(|w| !w.held_back) && settled(TypeUrl::Cluster);
        now >= self.keep_until
            && settled(TypeUrl::Listener)
            && settled(TypeUrl::Route)
            && (ty == TypeUrl::Cluster || clusters())
    }

    fn push_type(&mut self, ty: TypeUrl, removals: bool, now: u64, resources: &dyn Resources, out: &mut Vec<Output>) {
        let face = self.face;
        let nonce = self.nonce + 1;
        let control_plane = self.options.control_plane.clone();
        let Some(watch) = self.watch_mut(ty) else { return };
        let plan = watch.plan(face, &resources.get(ty), removals);
        watch.apply(&plan, plan.send.then_some(nonce), now, removals);
        if !plan.send {
            return;
        }
        self.nonce = nonce;
        if ty == TypeUrl::Cluster {
            self.warm(&plan);
        }
        out.push(Output::Send(Response::new(Draft {
            face,
            ty: Some(ty),
            type_url: ty.as_str(),
            nonce,
            version: plan.next.version(),
            removed: &plan.removed,
            control_plane: &control_plane,
            body: plan.body,
        })));
    }

    /// Envoy builds every cluster that differs anew, and the new one waits for endpoints although the old one has them.
    fn warm(&mut self, plan: &Plan) {
        if let Some(endpoints) = self.watch_mut(TypeUrl::Endpoint) {
            plan.changed.iter().for_each(|name| endpoints.force(name));
            return;
        }
        if self.face == Face::Delta {
            let all = plan.changed.len() == plan.next.len();
            match &mut self.warming {
                Warming::All => {}
                warming if all => *warming = Warming::All,
                Warming::Some(names) => names.extend(plan.changed.iter().cloned()),
                warming => *warming = Warming::Some(plan.changed.clone()),
            }
        }
    }
}

/// Takes an ACK or NACK; false when it is not for the last response.
fn acknowledge(watch: &mut Watch, nonce: &str, error: Option<&Status>, out: &mut Vec<Output>) -> bool {
    if nonce.parse() != Ok(watch.sent_nonce) {
        out.push(Output::Event(Event::ExpiredNonce(watch.ty)));
        return false;
    }
    if watch.flight.is_none() {
        return true;
    }
    match error {
        None => {
            watch.accept();
            out.push(Output::Event(Event::Ack(watch.ty)));
        }
        Some(error) => {
            let nack = Nack { nonce: watch.sent_nonce, code: error.code, message: error.message.clone() };
            watch.reject(nack.clone());
            out.push(Output::Event(Event::Nack(watch.ty, nack)));
        }
    }
    true
}

/// Takes over what a reconnected client has, by its versions.
fn resume(watch: &mut Watch, had: &HashMap<String, String>, set: &ResourceSet, warming: &Warming) {
    let has = |name: &str, version| had.get(name).is_some_and(|v| is_version(v, version));
    if watch.wildcard {
        let held: Vec<_> = set.iter().filter(|r| has(r.name(), r.version())).cloned().collect();
        watch.sent = if held.len() == set.len() { set.clone() } else { ResourceSet::new(held) };
        // Names whose content differs are among them: they may vanish before the new content is sent.
        let stale = had.keys().filter(|n| watch.sent.get(n).is_none());
        watch.gone = stale.map(|n| Name::from(n.as_str())).collect();
    }
    watch.names.settle(|name| {
        let waits = match warming {
            Warming::None => false,
            Warming::Some(names) => names.contains(name),
            Warming::All => true,
        };
        !waits && set.get(name).is_some_and(|r| has(name, r.version()))
    });
    if watch.wildcard {
        for name in match warming {
            Warming::Some(names) => names.iter().filter(|n| !watch.names.contains(n)),
            _ => return,
        } {
            watch.extra.push(name.clone());
        }
    }
}

fn is_version(text: &str, version: u64) -> bool {
    text.len() == 16 && u64::from_str_radix(text, 16) == Ok(version)
}

fn limit(ty: TypeUrl, names: usize, max: usize) -> Result<(), Close> {
    if names <= max {
        return Ok(());
    }
    let message = format!("{names} names of {ty} are subscribed to on one stream, more than {max}");
    Err(Close { code: Code::ResourceExhausted, message })
}
