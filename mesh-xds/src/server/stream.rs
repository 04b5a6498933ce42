//! One ADS stream between a socket and a session: the body of the response *is* the driver.
//!
//! HTTP/2 asks it for a frame when the client has room for one, and only then does it look at requests and snapshots.
//! So a slow client holds back nobody and grows nothing: what it missed meanwhile is never built. No task, no channel.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;
use futures::Stream;
use http::HeaderMap;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use prost::Message;
use tokio::sync::watch;
use tokio::time::Sleep;
use tokio_stream::wrappers::WatchStream;
use tonic::Status;

use super::clients::Connection;
use super::grpc::{Reader, Writer};
use super::{Backend, Caller, Peer, Shared};
use crate::ads::{Close, Event, Face, Input, Output, Resources, Session, SotwRequest};
use crate::resource::{ResourceSet, TypeUrl};

/// The body of one ADS response.
pub(super) struct AdsBody<B: Backend> {
    shared: Arc<Shared<B>>,
    face: Face,
    peer: Peer,
    /// Of the request, until the client is known.
    headers: Option<HeaderMap>,
    connection: Option<Arc<Connection<B::Client>>>,
    version: String,
    requests: Incoming,
    reader: Reader,
    writer: Writer,
    /// Away only during a step.
    snapshots: Option<watch::Receiver<Arc<B::Snapshot>>>,
    /// Where the snapshot of the last step lies.
    at: usize,
    changes: WatchStream<Arc<B::Snapshot>>,
    drain: WatchStream<bool>,
    timer: Option<Pin<Box<Sleep>>>,
    /// Since when the client hasn't the newest.
    behind: Option<Instant>,
    end: End,
}

enum End {
    Open,
    /// Trailers follow what is still to be written.
    Closing(Status),
    Closed,
}

impl<B: Backend> AdsBody<B> {
    pub(super) fn new(
        shared: Arc<Shared<B>>,
        face: Face,
        peer: Peer,
        headers: HeaderMap,
        requests: Incoming,
        drain: watch::Receiver<bool>,
    ) -> Self {
        let snapshots = shared.backend.snapshots();
        Self {
            reader: Reader::new(shared.options.max_request),
            shared,
            face,
            peer,
            headers: Some(headers),
            connection: None,
            version: String::new(),
            requests,
            writer: Writer::default(),
            changes: WatchStream::from_changes(snapshots.clone()),
            snapshots: Some(snapshots),
            at: 0,
            drain: WatchStream::new(drain),
            timer: None,
            behind: None,
            end: End::Open,
        }
    }

    fn message(&mut self, message: Bytes) -> Result<(), Status> {
        self.shared.metrics.received(message.len());
        let bad = |e: &dyn std::fmt::Display| Status::invalid_argument(e.to_string());
        let input = match self.face {
            Face::Sotw => Input::Sotw(Box::new(SotwRequest::decode(message).map_err(|e| bad(&e))?)),
            Face::Delta => Input::Delta(Box::new(DeltaDiscoveryRequest::decode(message).map_err(|e| bad(&e))?)),
        };
        if self.connection.is_none() {
            let node = match &input {
                Input::Sotw(request) => request.node.as_ref(),
                Input::Delta(request) => request.node.as_ref(),
                _ => None,
            };
            match node {
                Some(node) if !node.id.is_empty() => self.connect(node)?,
                // The session knows what to say about it.
                _ => {
                    let mut session = Session::new(self.face, self.shared.options.session.clone());
                    let out = session.handle(input, 0, &|_| ResourceSet::default());
                    return match out.into_iter().find_map(|o| if let Output::Close(c) = o { Some(c) } else { None }) {
                        Some(close) => Err(status(close)),
                        None => Err(Status::invalid_argument("the first request of the stream names no node")),
                    };
                }
            }
        }
        self.step(input);
        Ok(())
    }

    fn connect(&mut self, node: &Node) -> Result<(), Status> {
        let headers = self.headers.take().unwrap_or_default();
        let client = self.shared.backend.connect(node, &Caller { peer: &self.peer, headers: &headers })?;
        let session = Session::new(self.face, self.shared.options.session.clone());
        self.version = istio_version(node);
        self.shared.metrics.connected(&self.version, 1);
        let connection = self.shared.clients.add(node, self.peer.clone(), client, session);
        tracing::info!(client = connection.id(), peer = ?self.peer.address, face = ?self.face, "connected");
        self.connection = Some(connection);
        Ok(())
    }

    /// One step of the session, at one snapshot.
    fn step(&mut self, input: Input) {
        let Some(connection) = self.connection.clone() else { return };
        let shared = self.shared.clone();
        let Some(mut seen) = self.snapshots.take() else { return };
        shared.at_newest(&mut seen, |snapshot, changed| self.step_at(&connection, input, snapshot, changed));
        self.snapshots = Some(seen);
    }

    fn step_at(
        &mut self,
        connection: &Arc<Connection<B::Client>>,
        input: Input,
        snapshot: &Arc<B::Snapshot>,
        changed: bool,
    ) {
        let address = Arc::as_ptr(snapshot) as usize;
        let changed = changed || address != self.at;
        self.at = address;
        let is_snapshot = matches!(input, Input::Snapshot);
        if is_snapshot && !changed {
            return;
        }
        let now = Instant::now();
        let elapsed = now.duration_since(self.shared.started).as_millis() as u64;
        if changed {
            let since = self.shared.backend.changed_at(snapshot).unwrap_or(now);
            self.behind.get_or_insert(since);
        }
        let took = RefCell::new([None; TypeUrl::ALL.len()]);
        let resources = At { backend: &self.shared.backend, snapshot, client: connection.client(), took: &took };
        let mut state = connection.state();
        let mut out = Vec::new();
        if changed && !is_snapshot {
            // A request is answered from the newest snapshot, so the other types must hear of it first.
            out = state.session.handle(Input::Snapshot, elapsed, &resources);
        }
        out.extend(state.session.handle(input, elapsed, &resources));
        let metrics = &self.shared.metrics;
        for output in out {
            match output {
                Output::Send(response) => {
                    if let Some(ty) = response.ty() {
                        metrics.pushed(ty);
                        if let Some(Some(took)) = took.borrow().get(ty as usize) {
                            metrics.built(ty, *took);
                        }
                        if let Some(at) = state.sent_at.get_mut(ty as usize) {
                            *at = Some(SystemTime::now());
                        }
                        tracing::debug!(
                            client = connection.id(),
                            ty = ty.short(),
                            nonce = response.nonce(),
                            resources = response.body().as_slice().len(),
                            removed = response.removed(),
                            "push"
                        );
                    }
                    self.writer.push(response, now);
                }
                Output::Event(Event::Nack(ty, nack)) => {
                    metrics.rejected(ty, connection.node_id(), &nack);
                    tracing::warn!(
                        client = connection.id(),
                        ty = ty.short(),
                        nonce = nack.nonce,
                        "rejected: {}",
                        nack.message
                    );
                }
                Output::Event(Event::ExpiredNonce(ty)) => metrics.expired(ty),
                Output::Event(_) => {}
                Output::Close(close) => {
                    tracing::warn!(client = connection.id(), "closed: {}", close.message);
                    self.end = End::Closing(status(close));
                }
            }
        }
        let deadline = state.session.deadline();
        let settled = state.session.is_settled();
        drop(state);
        if settled && let Some(since) = self.behind.take() {
            metrics.converged(since.elapsed());
        }
        match deadline {
            None => self.timer = None,
            Some(at) => {
                let at = tokio::time::Instant::from_std(self.shared.started + Duration::from_millis(at));
                match &mut self.timer {
                    Some(timer) if timer.deadline() == at => {}
                    Some(timer) => timer.as_mut().reset(at),
                    None => self.timer = Some(Box::pin(tokio::time::sleep_until(at))),
                }
            }
        }
    }

    /// The next frame, `None` after the trailers.
    fn next_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        loop {
            if let Some((frame, written)) = self.writer.next() {
                if let Some(w) = written {
                    self.shared.metrics.written(w.ty, w.bytes, w.since.elapsed());
                }
                return Poll::Ready(Some(Frame::data(frame)));
            }
            match std::mem::replace(&mut self.end, End::Open) {
                End::Open => {}
                End::Closing(status) => {
                    self.end = End::Closed;
                    return Poll::Ready(Some(Frame::trailers(trailers(&status))));
                }
                End::Closed => {
                    self.end = End::Closed;
                    return Poll::Ready(None);
                }
            }
            match self.reader.next().and_then(|message| message.map(|m| self.message(m)).transpose()) {
                Ok(Some(())) => continue,
                Ok(None) => {}
                Err(status) => {
                    tracing::warn!(peer = ?self.peer.address, "refused: {}", status.message());
                    self.end = End::Closing(status);
                    continue;
                }
            }
            match Pin::new(&mut self.requests).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.reader.push(data);
                    }
                    continue;
                }
                // The client is gone: nobody reads what we would say.
                Poll::Ready(Some(Err(_))) => {
                    self.end = End::Closed;
                    continue;
                }
                Poll::Ready(None) => {
                    self.end = End::Closing(Status::ok(""));
                    continue;
                }
                Poll::Pending => {}
            }
            if let Poll::Ready(Some(draining)) = Pin::new(&mut self.drain).poll_next(cx) {
                if draining {
                    self.end =
                        End::Closing(Status::unavailable("the control plane shuts down, connect to another one"));
                }
                continue;
            }
            if let Poll::Ready(Some(_)) = Pin::new(&mut self.changes).poll_next(cx) {
                self.step(Input::Snapshot);
                continue;
            }
            if let Some(timer) = &mut self.timer
                && timer.as_mut().poll(cx).is_ready()
            {
                self.timer = None;
                self.step(Input::Tick);
                continue;
            }
            return Poll::Pending;
        }
    }
}

impl<B: Backend> Body for AdsBody<B> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.get_mut().next_frame(cx).map(|frame| frame.map(Ok))
    }
}

impl<B: Backend> Drop for AdsBody<B> {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            self.shared.clients.remove(connection);
            self.shared.metrics.connected(&self.version, -1);
            tracing::info!(client = connection.id(), "disconnected");
        }
    }
}

/// A client at one snapshot.
struct At<'a, B: Backend> {
    backend: &'a B,
    snapshot: &'a B::Snapshot,
    client: &'a B::Client,
    took: &'a RefCell<[Option<Duration>; TypeUrl::ALL.len()]>,
}

impl<B: Backend> Resources for At<'_, B> {
    fn get(&self, ty: TypeUrl) -> ResourceSet {
        let start = Instant::now();
        let set = self.backend.resources(self.snapshot, self.client, ty);
        if let Some(took) = self.took.borrow_mut().get_mut(ty as usize) {
            *took = Some(start.elapsed());
        }
        set
    }
}

fn status(close: Close) -> Status {
    Status::new(tonic::Code::from_i32(close.code as i32), close.message)
}

fn trailers(status: &Status) -> HeaderMap {
    let mut map = HeaderMap::new();
    if status.add_header(&mut map).is_err() {
        map.insert("grpc-status", http::HeaderValue::from_static("13"));
    }
    map
}

/// `metadata.ISTIO_VERSION`, by which `pilot_xds` counts.
fn istio_version(node: &Node) -> String {
    use envoy_types::pb::google::protobuf::value::Kind;
    let value = node.metadata.as_ref().and_then(|m| m.fields.get("ISTIO_VERSION")).and_then(|v| v.kind.as_ref());
    match value {
        Some(Kind::StringValue(version)) => version.clone(),
        _ => String::new(),
    }
}
