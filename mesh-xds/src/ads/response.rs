//! A response as it leaves: one small head that belongs to the stream, and resources that were encoded long before and
//! belong to everyone. Nothing here copies a resource.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use mesh_api::Name;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::Face;
use crate::resource::{Resource, ResourceSet, TypeUrl, version_text};

/// The resources of a response.
#[derive(Clone, Debug)]
pub enum Body {
    /// All of a set: a server may keep its frames for the next stream that is sent the same.
    Whole(ResourceSet),
    /// Some of a set.
    Part(Vec<Arc<Resource>>),
}

impl Body {
    /// The resources, sorted by name.
    pub fn as_slice(&self) -> &[Arc<Resource>] {
        match self {
            Body::Whole(set) => set.as_slice(),
            Body::Part(list) => list,
        }
    }
}

/// One `DiscoveryResponse` or `DeltaDiscoveryResponse`, as a list of encoded segments.
#[derive(Clone, Debug)]
pub struct Response {
    face: Face,
    ty: Option<TypeUrl>,
    nonce: u64,
    version: u64,
    removed: usize,
    head: Bytes,
    body: Body,
}

pub(super) struct Draft<'a> {
    pub(super) face: Face,
    pub(super) ty: Option<TypeUrl>,
    pub(super) type_url: &'a str,
    pub(super) nonce: u64,
    pub(super) version: u64,
    pub(super) removed: &'a [Name],
    pub(super) control_plane: &'a str,
    pub(super) body: Body,
}

impl Response {
    pub(super) fn new(draft: Draft<'_>) -> Self {
        let Draft { face, ty, type_url, nonce, version, removed, control_plane, body } = draft;
        let removed_len: usize = removed.iter().map(|n| n.len() + 6).sum();
        let mut head = BytesMut::with_capacity(64 + type_url.len() + control_plane.len() + removed_len);
        put(&mut head, 1, version_text(version).as_bytes());
        put(&mut head, 4, type_url.as_bytes());
        put(&mut head, 5, nonce.to_string().as_bytes());
        if face == Face::Delta {
            for name in removed {
                put(&mut head, 6, name.as_bytes());
            }
        }
        if !control_plane.is_empty() {
            let len = 1 + encoded_len_varint(control_plane.len() as u64) + control_plane.len();
            encode_key(if face == Face::Delta { 7 } else { 6 }, WireType::LengthDelimited, &mut head);
            encode_varint(len as u64, &mut head);
            put(&mut head, 1, control_plane.as_bytes());
        }
        let removed = if face == Face::Delta { removed.len() } else { 0 };
        Self { face, ty, nonce, version, removed, head: head.freeze(), body }
    }

    /// The type, `None` for a type that we don't serve.
    pub fn ty(&self) -> Option<TypeUrl> {
        self.ty
    }
    /// Which message this is.
    pub fn face(&self) -> Face {
        self.face
    }
    /// Counts the responses of one stream from 1; sent as decimal digits.
    pub fn nonce(&self) -> u64 {
        self.nonce
    }
    /// The version of the whole type at this moment.
    pub fn version(&self) -> u64 {
        self.version
    }
    /// The resources.
    pub fn body(&self) -> &Body {
        &self.body
    }
    /// How many names are taken back (delta only).
    pub fn removed(&self) -> usize {
        self.removed
    }
    /// The part that only this stream is sent: version, type, nonce, removed names, control plane.
    pub fn head(&self) -> Bytes {
        self.head.clone()
    }
    /// A part of the field that one resource is in this response, counted from 0: `None` behind the last one.
    pub fn part(&self, resource: &Resource, index: usize) -> Option<Bytes> {
        match (index.checked_sub(1), self.face) {
            (None, Face::Sotw) => Some(resource.sotw_head()),
            (None, Face::Delta) => Some(resource.delta_head()),
            (Some(at), _) => resource.rest().get(at).cloned(),
        }
    }
    /// All parts of the message, in order: their concatenation is its encoding.
    pub fn segments(&self) -> impl Iterator<Item = Bytes> {
        let of_resources = self.body.as_slice().iter();
        let parts = of_resources.flat_map(move |r| (0..).map_while(move |index| self.part(r, index)));
        std::iter::once(self.head()).chain(parts)
    }
    /// Bytes of the message.
    pub fn encoded_len(&self) -> usize {
        self.segments().map(|segment| segment.len()).sum()
    }
}

fn put(out: &mut impl BufMut, tag: u32, value: &[u8]) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(value.len() as u64, out);
    out.put_slice(value);
}
