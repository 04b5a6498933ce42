//! What is sent: named, versioned, encoded exactly once and shared by every stream that sends it.

mod canonical;
mod wire;

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use mesh_api::Name;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

pub(crate) use canonical::pack;
pub(crate) use wire::Writer;

/// The xDS types we serve, in the order in which they are pushed (make before break).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum TypeUrl {
    /// CDS.
    Cluster,
    /// EDS.
    Endpoint,
    /// LDS.
    Listener,
    /// RDS.
    Route,
    /// SDS.
    Secret,
    /// ECDS.
    ExtensionConfig,
    /// NDS, for the DNS server beside a proxy.
    NameTable,
    /// PCDS, for the agent beside a proxy: whom the mesh trusts.
    ProxyConfig,
}

impl TypeUrl {
    /// All types, in push order.
    pub const ALL: [TypeUrl; 8] = [
        TypeUrl::Cluster,
        TypeUrl::Endpoint,
        TypeUrl::Listener,
        TypeUrl::Route,
        TypeUrl::Secret,
        TypeUrl::ExtensionConfig,
        TypeUrl::NameTable,
        TypeUrl::ProxyConfig,
    ];
    /// The type URL on the wire, e.g. `type.googleapis.com/envoy.config.cluster.v3.Cluster`.
    pub const fn as_str(self) -> &'static str {
        match self {
            TypeUrl::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            TypeUrl::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            TypeUrl::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            TypeUrl::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            TypeUrl::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            TypeUrl::ExtensionConfig => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            TypeUrl::NameTable => "type.googleapis.com/istio.networking.nds.v1.NameTable",
            TypeUrl::ProxyConfig => "type.googleapis.com/istio.mesh.v1alpha1.ProxyConfig",
        }
    }
    /// The type behind a URL from the wire, `None` for types that we don't serve.
    pub fn parse(url: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.as_str() == url)
    }
    /// Istio's short name in metrics and debug pages: `cds`, `eds`, `lds`, `rds`, `sds`, `ecds`, `nds`, `pcds`.
    pub const fn short(self) -> &'static str {
        match self {
            TypeUrl::Cluster => "cds",
            TypeUrl::Endpoint => "eds",
            TypeUrl::Listener => "lds",
            TypeUrl::Route => "rds",
            TypeUrl::Secret => "sds",
            TypeUrl::ExtensionConfig => "ecds",
            TypeUrl::NameTable => "nds",
            TypeUrl::ProxyConfig => "pcds",
        }
    }
    /// True for types whose wildcard subscription means "all that the server has for me": in xDS, LDS and CDS; and the one
    /// table of names and the one bundle of trust.
    pub const fn is_wildcard(self) -> bool {
        matches!(self, TypeUrl::Cluster | TypeUrl::Listener | TypeUrl::NameTable | TypeUrl::ProxyConfig)
    }
}

impl fmt::Display for TypeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One resource, already encoded as one field 2 of a `DeltaDiscoveryResponse`:
/// `key, length, Resource { name = 3, version = 1, resource = 2: Any }` with the `Any` last, so that the same bytes
/// also hold the field 2 of a state-of-the-world `DiscoveryResponse` as a tail.
///
/// The bytes are those of its head and of its rest, one after the other. A small resource is all head. The rest is for
/// large ones that have most of their content in common with others: its parts belong to all of them.
#[derive(Clone)]
pub struct Resource {
    name: Name,
    version: u64,
    head: Bytes,
    rest: Box<[Bytes]>,
    /// Where in the head the `Any` begins.
    any_at: u32,
    /// Where in the head the message begins.
    value_at: u32,
}

impl Resource {
    /// Encodes a message. Its version is a hash of its bytes: equal content has an equal version on every replica.
    pub fn encode<M: Message + prost::Name>(name: impl Into<Name>, message: &M) -> Self {
        Self::from_value(name.into(), &M::type_url(), &canonical_bytes(message))
    }

    /// Wraps a message that is encoded already, canonically: equal messages must have equal bytes.
    pub fn from_value(name: Name, type_url: &str, value: &[u8]) -> Self {
        Self::from_parts(name, type_url, value, Vec::new())
    }

    /// Wraps a message that is encoded already, of which the rest is shared with other resources: equal messages must
    /// have equal bytes and be cut alike.
    pub fn from_parts(name: Name, type_url: &str, value: &[u8], rest: Vec<Bytes>) -> Self {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        hash.update(value);
        rest.iter().for_each(|part| hash.update(part));
        let version = hash.digest();
        let version_text = version_text(version);
        let rest_len = rest.iter().map(Bytes::len).sum::<usize>();
        let value_len = value.len() + rest_len;
        let any_len = bytes_field_len(1, type_url.len()) + bytes_field_len(2, value_len);
        let body_len =
            bytes_field_len(3, name.len()) + bytes_field_len(1, version_text.len()) + bytes_field_len(2, any_len);
        let mut out = BytesMut::with_capacity(bytes_field_len(2, body_len) - rest_len);
        put_header(&mut out, 2, body_len);
        put_field(&mut out, 3, name.as_bytes());
        put_field(&mut out, 1, version_text.as_bytes());
        let any_at = out.len() as u32;
        put_header(&mut out, 2, any_len);
        put_field(&mut out, 1, type_url.as_bytes());
        put_header(&mut out, 2, value_len);
        let value_at = out.len() as u32;
        out.put_slice(value);
        Self { name, version, head: out.freeze(), rest: rest.into(), any_at, value_at }
    }

    /// The resource's name within its type.
    pub fn name(&self) -> &Name {
        &self.name
    }
    /// The hash of the encoded message.
    pub fn version(&self) -> u64 {
        self.version
    }
    /// The version as it is sent.
    pub fn version_text(&self) -> String {
        version_text(self.version)
    }
    /// Field 2 of a `DeltaDiscoveryResponse`, header included, up to [`rest`](Self::rest).
    pub fn delta_head(&self) -> Bytes {
        self.head.clone()
    }
    /// Field 2 of a `DiscoveryResponse` (an `Any`), header included, up to [`rest`](Self::rest).
    pub fn sotw_head(&self) -> Bytes {
        self.head.slice(self.any_at as usize..)
    }
    /// What follows the head in both protocols.
    pub fn rest(&self) -> &[Bytes] {
        &self.rest
    }
    /// The encoded message itself, without `Any` around it.
    pub fn value(&self) -> Bytes {
        let value = self.head.slice(self.value_at as usize..);
        if self.rest.is_empty() {
            return value;
        }
        let mut whole = BytesMut::with_capacity(value.len() + self.rest_len());
        std::iter::once(&value).chain(&self.rest).for_each(|part| whole.put_slice(part));
        whole.freeze()
    }
    fn rest_len(&self) -> usize {
        self.rest.iter().map(Bytes::len).sum()
    }
    /// Decodes the message, for explain, debug pages and tests.
    ///
    /// # Errors
    /// When the bytes are not an `M`, which for resources of our own builders means that the type was confused.
    pub fn decode<M: Message + Default>(&self) -> Result<M, prost::DecodeError> {
        M::decode(self.value())
    }
    /// Bytes on the wire.
    pub fn encoded_len(&self) -> usize {
        self.head.len() + self.rest_len()
    }
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version && self.head == other.head && self.rest == other.rest
    }
}
impl Eq for Resource {}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resource({:?}@{:016x}, {} bytes)", self.name, self.version, self.encoded_len())
    }
}

/// A version as it is sent: sixteen hexadecimal digits.
pub fn version_text(version: u64) -> String {
    format!("{version:016x}")
}

fn bytes_field_len(tag: u32, len: usize) -> usize {
    key_len(tag) + encoded_len_varint(len as u64) + len
}

fn put_header(out: &mut impl BufMut, tag: u32, len: usize) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

fn put_field(out: &mut impl BufMut, tag: u32, value: &[u8]) {
    put_header(out, tag, value.len());
    out.put_slice(value);
}

/// Encodes a message so that equal messages have equal bytes.
pub(crate) fn canonical_bytes<M: Message + prost::Name>(message: &M) -> Vec<u8> {
    let mut value = message.encode_to_vec();
    canonical::sort_maps(&M::type_url(), &mut value);
    value
}

/// All resources of one type for one class of proxies, sorted by name, with one version for the whole.
#[derive(Clone, Default)]
pub struct ResourceSet(Arc<Set>);

#[derive(Default)]
struct Set {
    resources: Box<[Arc<Resource>]>,
    version: u64,
    /// The resources' names, once somebody has asked.
    names: OnceLock<Arc<[Name]>>,
}

impl ResourceSet {
    /// Sorts by name; of two resources with one name the first stays.
    pub fn new(mut resources: Vec<Arc<Resource>>) -> Self {
        resources.sort_by(|a, b| a.name.cmp(&b.name));
        resources.dedup_by(|b, a| a.name == b.name);
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        for r in &resources {
            hash.update(r.name.as_bytes());
            hash.update(&r.version.to_le_bytes());
        }
        Self(Arc::new(Set { resources: resources.into(), version: hash.digest(), names: OnceLock::new() }))
    }
    /// The resources, sorted by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Resource>> + DoubleEndedIterator {
        self.0.resources.iter()
    }
    /// The resources, sorted by name.
    pub fn as_slice(&self) -> &[Arc<Resource>] {
        &self.0.resources
    }
    /// The names of all resources, in order, for those who keep them: there is one list for all.
    pub fn names(&self) -> Arc<[Name]> {
        self.0.names.get_or_init(|| self.iter().map(|r| r.name.clone()).collect()).clone()
    }
    /// The resource of that name.
    pub fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        let at = self.0.resources.binary_search_by(|r| r.name.as_str().cmp(name)).ok()?;
        self.0.resources.get(at)
    }
    /// The hash of all names and versions.
    pub fn version(&self) -> u64 {
        self.0.version
    }
    /// How many resources.
    pub fn len(&self) -> usize {
        self.0.resources.len()
    }
    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.0.resources.is_empty()
    }
}

impl PartialEq for ResourceSet {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || (self.0.version == other.0.version && self.0.resources == other.0.resources)
    }
}
impl Eq for ResourceSet {}

impl fmt::Debug for ResourceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};

    #[test]
    fn one_encoding_serves_both_protocols() {
        let cluster = Cluster { name: "outbound|80||a".into(), ..Cluster::default() };
        let r = Resource::encode("outbound|80||a", &cluster);
        let delta = DeltaDiscoveryResponse::decode(r.delta_head()).unwrap();
        let one = &delta.resources[0];
        assert_eq!((one.name.as_str(), one.version.as_str()), ("outbound|80||a", r.version_text().as_str()));
        let any = one.resource.clone().unwrap();
        assert_eq!(any.type_url, TypeUrl::Cluster.as_str());
        let sotw = DiscoveryResponse::decode(r.sotw_head()).unwrap();
        assert_eq!(sotw.resources, vec![any]);
        assert_eq!(r.decode::<Cluster>().unwrap(), cluster);
    }

    #[test]
    fn parts_are_one_message() {
        let cluster = Cluster { name: "outbound|80||a".into(), alt_stat_name: "a".into(), ..Cluster::default() };
        let whole = Resource::encode("a", &cluster);
        let value = whole.value();
        let rest = vec![value.slice(5..9), value.slice(9..)];
        let parts = Resource::from_parts("a".into(), TypeUrl::Cluster.as_str(), &value[..5], rest);
        assert_eq!((parts.version(), parts.encoded_len()), (whole.version(), whole.encoded_len()));
        assert_eq!(parts.value(), value);
        assert_eq!([&[parts.delta_head()], parts.rest()].concat().concat(), whole.delta_head());
        assert_eq!([&[parts.sotw_head()], parts.rest()].concat().concat(), whole.sotw_head());
    }
}
