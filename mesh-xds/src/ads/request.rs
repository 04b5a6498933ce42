//! A state-of-the-world request, read without making a string of every name.
//!
//! Envoy repeats all its names with every ACK: 1,450 clusters are 90 KB for each endpoint that changes. Their bytes are
//! hashed while they lie; only a list that differs from the last one is looked at.

use bytes::{Buf, Bytes, BytesMut};
use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;
use envoy_types::pb::google::rpc::Status;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Message};

/// Bytes that are not a request: the client's fault.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Not protobuf, or another message.
    #[error("the request is not a discovery request: {0}")]
    Protobuf(#[from] DecodeError),
    /// A field says that it is longer than the message.
    #[error("the request ends within field {field}")]
    Truncated {
        /// Its number.
        field: u32,
    },
    /// A text field holds other bytes.
    #[error("the request has text that is not UTF-8")]
    NotText,
}

/// A `DiscoveryRequest` whose names stay encoded.
#[derive(Clone, Debug, Default)]
pub struct SotwRequest {
    /// The last version that the client accepted.
    pub version_info: String,
    /// Who asks; only the first request of a stream must say so.
    pub node: Option<Node>,
    /// What the client wants.
    pub names: RawNames,
    /// Of which type.
    pub type_url: String,
    /// The response that this acknowledges or rejects.
    pub response_nonce: String,
    /// Why it is rejected.
    pub error_detail: Option<Status>,
}

/// The `resource_names` of a request, as they came.
#[derive(Clone, Debug, Default)]
pub struct RawNames {
    fields: Bytes,
    count: usize,
}

impl RawNames {
    /// How many, duplicates counted.
    pub fn len(&self) -> usize {
        self.count
    }
    /// True when the request names nothing.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
    /// A hash of the bytes: equal lists in equal order have equal hashes.
    pub fn hash(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(&self.fields)
    }
    /// The names.
    ///
    /// # Errors
    /// When one isn't UTF-8.
    pub fn decode(&self) -> Result<Vec<&str>, std::str::Utf8Error> {
        let mut rest = &self.fields[..];
        let mut out = Vec::with_capacity(self.count);
        while rest.has_remaining() {
            let (Ok(_), Ok(len)) = (decode_varint(&mut rest), decode_varint(&mut rest)) else { break };
            let Some((name, tail)) = rest.split_at_checked(len as usize) else { break };
            out.push(std::str::from_utf8(name)?);
            rest = tail;
        }
        Ok(out)
    }
}

impl SotwRequest {
    /// Reads one message.
    ///
    /// # Errors
    /// When the bytes aren't a `DiscoveryRequest`.
    pub fn decode(message: Bytes) -> Result<Self, RequestError> {
        let mut out = Self::default();
        let mut names = BytesMut::new();
        let mut only = None;
        let mut rest = message.clone();
        while rest.has_remaining() {
            let start = message.len() - rest.len();
            let (tag, wire) = decode_key(&mut rest)?;
            if wire != WireType::LengthDelimited || !matches!(tag, 1..=6) {
                skip_field(wire, tag, &mut rest, DecodeContext::default())?;
                continue;
            }
            let len = decode_varint(&mut rest)? as usize;
            if len > rest.len() {
                return Err(RequestError::Truncated { field: tag });
            }
            let value = rest.split_to(len);
            let end = message.len() - rest.len();
            match tag {
                1 => out.version_info = text(value)?,
                2 => out.node = Some(Node::decode(value)?),
                3 => {
                    out.names.count += 1;
                    // Names nearly always lie side by side: then they are one slice of the message.
                    only = match only {
                        None if names.is_empty() => Some((start, end)),
                        Some((from, to)) if to == start => Some((from, end)),
                        Some((from, to)) => {
                            names.extend_from_slice(message.get(from..to).unwrap_or_default());
                            names.extend_from_slice(message.get(start..end).unwrap_or_default());
                            None
                        }
                        None => {
                            names.extend_from_slice(message.get(start..end).unwrap_or_default());
                            None
                        }
                    };
                }
                4 => out.type_url = text(value)?,
                5 => out.response_nonce = text(value)?,
                _ => out.error_detail = Some(Status::decode(value)?),
            }
        }
        out.names.fields = match only {
            Some((from, to)) => message.slice(from..to),
            None => names.freeze(),
        };
        Ok(out)
    }
}

impl From<DiscoveryRequest> for SotwRequest {
    fn from(request: DiscoveryRequest) -> Self {
        let mut fields = BytesMut::new();
        for name in &request.resource_names {
            prost::encoding::string::encode(3, name, &mut fields);
        }
        Self {
            version_info: request.version_info,
            node: request.node,
            names: RawNames { fields: fields.freeze(), count: request.resource_names.len() },
            type_url: request.type_url,
            response_nonce: request.response_nonce,
            error_detail: request.error_detail,
        }
    }
}

fn text(value: Bytes) -> Result<String, RequestError> {
    String::from_utf8(value.into()).map_err(|_| RequestError::NotText)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_prost_writes() {
        let request = DiscoveryRequest {
            version_info: "7".into(),
            node: Some(Node { id: "a".into(), ..Node::default() }),
            resource_names: vec!["x".into(), "y".into()],
            type_url: "t".into(),
            response_nonce: "3".into(),
            error_detail: Some(Status { code: 3, message: "no".into(), details: vec![] }),
            ..DiscoveryRequest::default()
        };
        let read = SotwRequest::decode(Bytes::from(request.encode_to_vec())).unwrap();
        let direct = SotwRequest::from(request);
        assert_eq!(read.names.decode().unwrap(), ["x", "y"]);
        assert_eq!(read.names.hash(), direct.names.hash());
        assert_eq!((read.version_info.as_str(), read.type_url.as_str()), ("7", "t"));
        assert_eq!((read.response_nonce.as_str(), read.node.unwrap().id.as_str()), ("3", "a"));
        assert_eq!(read.error_detail.unwrap().message, "no");
    }

    #[test]
    fn names_may_lie_apart() {
        let name = |n: &str| DiscoveryRequest { resource_names: vec![n.into()], ..Default::default() }.encode_to_vec();
        let nonce = DiscoveryRequest { response_nonce: "3".into(), ..Default::default() }.encode_to_vec();
        let bytes = [name("a"), name("b"), nonce.clone(), name("c"), nonce, name("d")].concat();
        let read = SotwRequest::decode(Bytes::from(bytes)).unwrap();
        assert_eq!(read.names.decode().unwrap(), ["a", "b", "c", "d"]);
        assert_eq!(read.names.len(), 4);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_request_or_an_error(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let whole = DiscoveryRequest::decode(&bytes[..]);
            let read = SotwRequest::decode(bytes.into());
            // Names are read late, so a name that is not text is no error yet.
            proptest::prop_assert!(whole.is_err() || read.is_ok());
            if let Ok(read) = read {
                proptest::prop_assert_eq!(read.names.decode().map_or(read.names.len(), |n| n.len()), read.names.len());
            }
        }
    }

    #[test]
    fn broken_bytes_are_errors() {
        for bytes in [&[0x0a, 0x05, b'a'][..], &[0x0a, 0x01, 0xff], &[0xff], &[0x1a, 0xff, 0xff, 0xff, 0xff, 0x0f]] {
            assert!(SotwRequest::decode(Bytes::copy_from_slice(bytes)).is_err(), "{bytes:?}");
        }
    }
}
