//! Just enough of the wire format: the client must be cheap, or it would be the client that is measured.

use bytes::{Buf, Bytes};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// Messages as bytes, neither encoded nor decoded.
#[derive(Clone, Copy, Default)]
pub struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        Self
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let len = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(len)))
    }
}

/// The length-delimited fields of a message: tag and content; others are passed over. Ends at what it can't read.
pub fn fields(mut bytes: Bytes) -> impl Iterator<Item = (u32, Bytes)> {
    std::iter::from_fn(move || {
        loop {
            if !bytes.has_remaining() {
                return None;
            }
            let key = varint(&mut bytes)?;
            match key & 7 {
                0 => {
                    varint(&mut bytes)?;
                }
                1 if bytes.len() >= 8 => bytes.advance(8),
                5 if bytes.len() >= 4 => bytes.advance(4),
                2 => {
                    let len = usize::try_from(varint(&mut bytes)?).ok().filter(|len| *len <= bytes.len())?;
                    return Some((u32::try_from(key >> 3).ok()?, bytes.split_to(len)));
                }
                _ => return None,
            }
        }
    })
}

/// The numbers of a message: tag and value of its varint fields.
pub fn numbers(mut bytes: Bytes) -> Vec<(u32, u64)> {
    let mut out = Vec::new();
    while bytes.has_remaining() {
        let Some(key) = varint(&mut bytes) else { break };
        match key & 7 {
            0 => match (u32::try_from(key >> 3), varint(&mut bytes)) {
                (Ok(tag), Some(value)) => out.push((tag, value)),
                _ => break,
            },
            2 => match varint(&mut bytes).and_then(|len| usize::try_from(len).ok()) {
                Some(len) if len <= bytes.len() => bytes.advance(len),
                _ => break,
            },
            1 if bytes.len() >= 8 => bytes.advance(8),
            5 if bytes.len() >= 4 => bytes.advance(4),
            _ => break,
        }
    }
    out
}

fn varint(bytes: &mut Bytes) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        if !bytes.has_remaining() {
            return None;
        }
        let byte = bytes.get_u8();
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
