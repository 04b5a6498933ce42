//! gRPC messages in HTTP/2 frames, both ways.
//!
//! tonic encodes each message into a buffer of the stream and keeps the buffer: for configuration of megabytes that is
//! most of a control plane's memory. Here a message is written as frames of shared bytes, made one by one as the
//! client reads them; what is waiting is a list of pointers. Nothing here may collect a whole message in a stream of its own.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tonic::Status;

use crate::ads::Response;
use crate::resource::TypeUrl;

/// One HTTP/2 frame as every peer allows it.
const FRAME: usize = 16 * 1024;
/// From here on a part of a resource is a frame of its own instead of being copied beside others.
const ALONE: usize = 4 * 1024;
/// Compression flag and length before each message.
const PREFIX: usize = 5;

/// Finds messages in the data of a request.
pub(super) struct Reader {
    buffer: BytesMut,
    whole: Option<Bytes>,
    max: usize,
}

impl Reader {
    pub(super) fn new(max: usize) -> Self {
        Self { buffer: BytesMut::new(), whole: None, max }
    }

    pub(super) fn push(&mut self, data: Bytes) {
        // Most requests are one frame, which then is the message.
        let is_whole = self.buffer.is_empty()
            && self.whole.is_none()
            && matches!(length(&data), Some((0, len)) if len <= self.max && data.len() == PREFIX + len);
        if is_whole {
            self.whole = Some(data.slice(PREFIX..));
        } else {
            self.buffer.extend_from_slice(&data);
        }
    }

    /// The next message, if all of it is here.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Status> {
        if let Some(message) = self.whole.take() {
            return Ok(Some(message));
        }
        let Some((flag, len)) = length(&self.buffer) else { return Ok(None) };
        if flag != 0 {
            return Err(Status::unimplemented("a request message is compressed, which this server doesn't support"));
        }
        if len > self.max {
            let max = self.max;
            return Err(Status::resource_exhausted(format!("a request of {len} bytes is larger than {max}")));
        }
        if self.buffer.len() < PREFIX + len {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        let message = self.buffer.split_to(len).freeze();
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        Ok(Some(message))
    }
}

fn length(data: &[u8]) -> Option<(u8, usize)> {
    let (flag, rest) = data.split_first()?;
    let (len, _) = rest.split_first_chunk::<4>()?;
    Some((*flag, u32::from_be_bytes(*len) as usize))
}

/// Responses on their way, the oldest first.
#[derive(Default)]
pub(super) struct Writer {
    queue: VecDeque<Pending>,
}

/// What was written completely.
pub(super) struct Written {
    pub(super) ty: Option<TypeUrl>,
    pub(super) bytes: usize,
    pub(super) since: Instant,
}

struct Pending {
    response: Response,
    since: Instant,
    len: usize,
    /// Prefix and head, until they are taken.
    start: BytesMut,
    at: Position,
}

/// What of a response is next.
#[derive(Clone, Copy, Default)]
struct Position {
    resource: usize,
    part: usize,
}

impl Writer {
    pub(super) fn push(&mut self, response: Response, now: Instant) {
        let head = response.head();
        let len = response.encoded_len();
        let mut start = BytesMut::with_capacity(PREFIX + len.min(FRAME.max(head.len())));
        start.put_u8(0);
        start.put_u32(len as u32);
        start.extend_from_slice(&head);
        self.queue.push_back(Pending { response, since: now, len, start, at: Position::default() });
    }

    /// The next frame, and what it completes.
    pub(super) fn next(&mut self) -> Option<(Bytes, Option<Written>)> {
        let pending = self.queue.front_mut()?;
        let start = std::mem::take(&mut pending.start);
        let frame = fill(&pending.response, &mut pending.at, start).unwrap_or_default();
        if pending.at.resource < pending.response.body().as_slice().len() {
            return Some((frame, None));
        }
        let done = self.queue.pop_front()?;
        Some((frame, Some(Written { ty: done.response.ty(), bytes: done.len, since: done.since })))
    }
}

/// One frame of parts from `at` on, after what is in `frame` already.
fn fill(response: &Response, at: &mut Position, mut frame: BytesMut) -> Option<Bytes> {
    while let Some(resource) = response.body().as_slice().get(at.resource) {
        let Some(part) = response.part(resource, at.part) else { break };
        let alone = part.len() >= ALONE;
        if !frame.is_empty() && (alone || frame.len() + part.len() > FRAME) {
            break;
        }
        *at = if at.part < resource.rest().len() {
            Position { part: at.part + 1, ..*at }
        } else {
            Position { resource: at.resource + 1, part: 0 }
        };
        if alone {
            return Some(part);
        }
        if frame.capacity() == 0 {
            frame.reserve(FRAME);
        }
        frame.extend_from_slice(&part);
    }
    (!frame.is_empty()).then(|| frame.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ads::{Face, Input, Options, Output, Session, SotwRequest};
    use crate::{Resource, ResourceSet};
    use envoy_types::pb::envoy::config::core::v3::Node;
    use envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse;
    use prost::Message;

    fn message(flag: u8, body: &[u8]) -> Vec<u8> {
        let mut out = vec![flag];
        out.extend_from_slice(&(body.len() as u32).to_be_bytes());
        out.extend_from_slice(body);
        out
    }

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let bytes = [message(0, b"one"), message(0, b""), message(0, &[7; 300])].concat();
        for size in 1..bytes.len() {
            let mut reader = Reader::new(1_000);
            let mut found = Vec::new();
            for part in bytes.chunks(size) {
                reader.push(Bytes::copy_from_slice(part));
                while let Some(m) = reader.next().unwrap() {
                    found.push(m);
                }
            }
            assert_eq!(found, [&b"one"[..], b"", &[7; 300]], "cut at {size}");
        }
    }

    #[test]
    fn compressed_and_too_large_messages_are_refused() {
        let mut reader = Reader::new(10);
        reader.push(message(1, b"x").into());
        assert_eq!(reader.next().unwrap_err().code(), tonic::Code::Unimplemented);
        let mut reader = Reader::new(10);
        reader.push(message(0, b"0123456789a").into());
        assert_eq!(reader.next().unwrap_err().code(), tonic::Code::ResourceExhausted);
    }

    fn response(sizes: &[usize]) -> Response {
        let ty = TypeUrl::Cluster;
        let list = sizes.iter().enumerate();
        let list = list.map(|(i, n)| Resource::from_value(format!("c{i}").into(), ty.as_str(), &vec![b'x'; *n]).into());
        let set = ResourceSet::new(list.collect());
        let request = SotwRequest {
            node: Some(Node { id: "n".into(), ..Node::default() }),
            type_url: ty.as_str().into(),
            ..Default::default()
        };
        let mut session = Session::new(Face::Sotw, Options::default().into());
        match session.handle(Input::Sotw(request.into()), 0, &|_| set.clone()).remove(0) {
            Output::Send(response) => response,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn frames_are_small_or_shared_and_add_up_to_the_message() {
        for sizes in [&[][..], &[1], &[5_000], &[100, 5_000, 100], &[1_000; 50], &[20_000; 9], &[3_000; 9]] {
            let response = response(sizes);
            let mut writers = [Writer::default(), Writer::default()];
            writers.iter_mut().for_each(|w| w.push(response.clone(), Instant::now()));
            let mut frames = writers.map(|mut w| {
                let mut frames = Vec::new();
                while let Some((frame, written)) = w.next() {
                    assert!(frame.len() <= FRAME || sizes.contains(&20_000));
                    frames.push(frame);
                    assert_eq!(w.queue.is_empty(), written.is_some());
                }
                frames
            });
            let bytes = frames[0].concat();
            assert_eq!(bytes, frames[1].concat());
            let mut reader = Reader::new(1 << 20);
            reader.push(bytes.into());
            let message = DiscoveryResponse::decode(reader.next().unwrap().unwrap()).unwrap();
            assert_eq!(message.resources.len(), sizes.len());
            if sizes.last() == Some(&20_000) {
                let (a, b) = (frames[0].pop().unwrap(), frames[1].pop().unwrap());
                assert_eq!(a.as_ptr(), b.as_ptr(), "two streams send the same memory");
            }
        }
    }
}
