//! Protobuf written as it is sent, for the few messages that exist by the thousand.
//!
//! A tree of prost messages costs an allocation for each text, map and list in it, and a walk to find the length of each
//! message before it is written. Here a field is written where it ends up, and parts that are encoded already are appended.
//! Fields without a value are left out and callers write fields in the order of their numbers, so the bytes are those that
//! prost would write. For all other messages prost is the shorter way and fast enough.

use bytes::BufMut;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

/// The fields of one message.
#[derive(Default, Debug)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// A writer with room for so many bytes.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes) }
    }

    /// A text; nothing for an empty one.
    pub(crate) fn text(&mut self, field: u32, text: &str) {
        if !text.is_empty() {
            self.joined(field, &[text.as_bytes()]);
        }
    }

    /// A number, a boolean or a value of an enumeration; nothing for zero.
    pub(crate) fn number(&mut self, field: u32, number: u64) {
        if number != 0 {
            self.chosen_number(field, number);
        }
    }

    /// A number of a `oneof`, which counts even when it is zero.
    pub(crate) fn chosen_number(&mut self, field: u32, number: u64) {
        encode_key(field, WireType::Varint, &mut self.bytes);
        encode_varint(number, &mut self.bytes);
    }

    /// A message, field by field.
    pub(crate) fn message(&mut self, field: u32, fields: impl FnOnce(&mut Self)) {
        encode_key(field, WireType::LengthDelimited, &mut self.bytes);
        let at = self.bytes.len();
        // Most messages are short: room for a length of one byte, more is made where it is needed.
        self.bytes.push(0);
        fields(self);
        let len = self.bytes.len() - at - 1;
        let more = encoded_len_varint(len as u64) - 1;
        if more > 0 {
            self.bytes.resize(self.bytes.len() + more, 0);
            self.bytes.copy_within(at + 1..at + 1 + len, at + 1 + more);
        }
        if let Some(mut place) = self.bytes.get_mut(at..=at + more) {
            encode_varint(len as u64, &mut place);
        }
    }

    /// A message packed into an `Any`.
    pub(crate) fn any(&mut self, field: u32, type_url: &str, fields: impl FnOnce(&mut Self)) {
        self.message(field, |any| {
            any.text(1, type_url);
            any.message(2, fields);
        });
    }

    /// A text, bytes or message whose encoded parts are there already.
    pub(crate) fn joined(&mut self, field: u32, parts: &[&[u8]]) {
        encode_key(field, WireType::LengthDelimited, &mut self.bytes);
        encode_varint(parts.iter().map(|part| part.len() as u64).sum(), &mut self.bytes);
        self.fields(parts);
    }

    /// Encoded fields of this message.
    pub(crate) fn fields(&mut self, parts: &[&[u8]]) {
        parts.iter().for_each(|part| self.bytes.put_slice(part));
    }

    /// The fields that a message of prost's has. It must hold no map with two entries: they have no order.
    pub(crate) fn prost(&mut self, message: &impl Message) {
        // Writing to a vector cannot fail: it has all the room there is.
        let _ = message.encode(&mut self.bytes);
    }

    /// An entry of a map from names to `Struct`s, as in `Metadata.filter_metadata`.
    pub(crate) fn struct_entry(&mut self, field: u32, name: &str, fields: impl FnOnce(&mut Self)) {
        self.message(field, |entry| {
            entry.text(1, name);
            entry.message(2, fields);
        });
    }

    /// A field of a `Struct`; `value` writes a `Value`.
    fn struct_field(&mut self, key: &str, value: impl FnOnce(&mut Self)) {
        self.struct_entry(1, key, value);
    }

    /// A text as a field of a `Struct`.
    pub(crate) fn struct_text(&mut self, key: &str, text: &str) {
        self.struct_field(key, |value| value.joined(3, &[text.as_bytes()]));
    }

    /// `true` as a field of a `Struct`.
    pub(crate) fn struct_true(&mut self, key: &str) {
        self.struct_field(key, |value| value.number(4, 1));
    }

    /// A list as a field of a `Struct`.
    pub(crate) fn struct_list(&mut self, key: &str, values: impl FnOnce(&mut Self)) {
        self.struct_field(key, |value| value.message(6, values));
    }

    /// A `Struct` in a list.
    pub(crate) fn list_struct(&mut self, fields: impl FnOnce(&mut Self)) {
        self.message(1, |value| value.message(5, fields));
    }

    /// Bytes written so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The encoded message.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::core::v3::{Locality, Node};
    use prost::Message;

    use super::Writer;

    #[test]
    fn bytes_are_those_of_prost() {
        for length in [0, 1, 100, 126, 127, 128, 200, 16_383, 16_384, 40_000] {
            let zone = "z".repeat(length);
            let node = Node {
                id: "id".into(),
                locality: Some(Locality { region: "r".into(), zone: zone.clone(), sub_zone: String::new() }),
                ..Node::default()
            };
            let mut written = Writer::default();
            written.text(1, "id");
            written.message(4, |w| {
                w.text(1, "r");
                w.text(2, &zone);
                w.text(3, "");
            });
            written.number(9, 0);
            let written = written.into_bytes();
            assert!(written == node.encode_to_vec(), "{length}");
            let mut joined = Writer::default();
            joined.joined(9, &[&written[..1], &written[1..]]);
            let mut nested = Writer::default();
            nested.message(9, |w| w.prost(&node));
            assert!(joined.into_bytes() == nested.into_bytes(), "{length}");
        }
    }
}
