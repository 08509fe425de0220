//! The wire form of `mvccpb.KeyValue`, which is also what is stored: written once at apply, read in place.
//!
//! Field numbers (etcd `api/mvccpb/kv.proto`): key 1, create_revision 2, mod_revision 3, version 4, value 5,
//! lease 6. Encoding is canonical: ascending numbers, zero values left out, so that our bytes hash as etcd's do.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Bytes that stand where a KeyValue should.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("malformed KeyValue at byte {at}")]
pub struct MalformedKeyValue {
    /// Offset of the first byte that fits no field.
    pub at: usize,
}

/// A KeyValue whose byte fields borrow from where it is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyValue<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Main revision of the put that created the key; 0 in a tombstone.
    pub create_revision: i64,
    /// Main revision of the last put.
    pub mod_revision: i64,
    /// Puts since the key was created, from 1.
    pub version: i64,
    /// The value.
    pub value: &'a [u8],
    /// The attached lease, or 0.
    pub lease: i64,
}

impl<'a> KeyValue<'a> {
    /// Reads a KeyValue. Unknown fields are passed over; the last of a repeated field counts, as in protobuf.
    ///
    /// # Errors
    /// [`MalformedKeyValue`] when the bytes are no protobuf message of this shape.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, MalformedKeyValue> {
        let mut fields = Fields { bytes, at: 0 };
        let mut parsed = Self::default();
        while fields.at < bytes.len() {
            let tag = fields.varint()?;
            match (tag >> 3, tag & 7) {
                (1, 2) => parsed.key = fields.chunk()?,
                (2, 0) => parsed.create_revision = fields.varint()?.cast_signed(),
                (3, 0) => parsed.mod_revision = fields.varint()?.cast_signed(),
                (4, 0) => parsed.version = fields.varint()?.cast_signed(),
                (5, 2) => parsed.value = fields.chunk()?,
                (6, 0) => parsed.lease = fields.varint()?.cast_signed(),
                (_, wire_type) => fields.skip(wire_type)?,
            }
        }
        Ok(parsed)
    }

    /// Length in bytes of [`Self::encode`].
    pub fn encoded_len(&self) -> usize {
        let chunk = |bytes: &[u8]| if bytes.is_empty() { 0 } else { 1 + varint_len(bytes.len() as u64) + bytes.len() };
        let number = |n: i64| if n == 0 { 0 } else { 1 + varint_len(n.cast_unsigned()) };
        chunk(self.key)
            + number(self.create_revision)
            + number(self.mod_revision)
            + number(self.version)
            + chunk(self.value)
            + number(self.lease)
    }

    /// Appends the wire form to `out`.
    pub fn encode_to(&self, out: &mut impl BufMut) {
        let chunk = |number: u8, bytes: &[u8], out: &mut dyn BufMut| {
            if !bytes.is_empty() {
                out.put_u8(number << 3 | 2);
                put_varint(out, bytes.len() as u64);
                out.put_slice(bytes);
            }
        };
        let number = |field: u8, n: i64, out: &mut dyn BufMut| {
            if n != 0 {
                out.put_u8(field << 3);
                put_varint(out, n.cast_unsigned());
            }
        };
        chunk(1, self.key, out);
        number(2, self.create_revision, out);
        number(3, self.mod_revision, out);
        number(4, self.version, out);
        chunk(5, self.value, out);
        number(6, self.lease, out);
    }

    /// The key inside an encoded KeyValue, as a slice that shares its memory. Empty when there is none.
    pub fn key_of(encoded: &Bytes) -> Bytes {
        match KeyValue::parse(encoded) {
            Ok(kv) if !kv.key.is_empty() => encoded.slice_ref(kv.key),
            _ => Bytes::new(),
        }
    }

    /// The wire form in memory of its own, exactly as long as needed.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.encoded_len());
        self.encode_to(&mut out);
        out.freeze()
    }
}

/// Bytes that [`put_varint`] takes for `n`.
pub fn varint_len(n: u64) -> usize {
    (64 - (n | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends `n` as a protobuf varint.
pub fn put_varint(out: &mut (impl BufMut + ?Sized), mut n: u64) {
    while n >= 0x80 {
        out.put_u8((n as u8) | 0x80);
        n >>= 7;
    }
    out.put_u8(n as u8);
}

struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn malformed(&self) -> MalformedKeyValue {
        MalformedKeyValue { at: self.at }
    }

    fn varint(&mut self) -> Result<u64, MalformedKeyValue> {
        let mut n = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or_else(|| self.malformed())?;
            self.at += 1;
            n |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        Err(self.malformed())
    }

    fn chunk(&mut self) -> Result<&'a [u8], MalformedKeyValue> {
        let length = usize::try_from(self.varint()?).map_err(|_| self.malformed())?;
        let end = self.at.checked_add(length).ok_or_else(|| self.malformed())?;
        let chunk = self.bytes.get(self.at..end).ok_or_else(|| self.malformed())?;
        self.at = end;
        Ok(chunk)
    }

    fn skip(&mut self, wire_type: u64) -> Result<(), MalformedKeyValue> {
        let fixed = match wire_type {
            0 => return self.varint().map(drop),
            1 => 8,
            2 => return self.chunk().map(drop),
            5 => 4,
            _ => return Err(self.malformed()),
        };
        self.at += fixed;
        if self.at > self.bytes.len() { Err(self.malformed()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reads_back_what_it_writes(
            key in proptest::collection::vec(any::<u8>(), 0..300),
            value in proptest::collection::vec(any::<u8>(), 0..300),
            numbers in any::<[i64; 4]>(),
        ) {
            let [create_revision, mod_revision, version, lease] = numbers;
            let kv = KeyValue { key: &key, create_revision, mod_revision, version, value: &value, lease };
            let bytes = kv.encode();
            prop_assert_eq!(bytes.len(), kv.encoded_len());
            prop_assert_eq!(KeyValue::parse(&bytes), Ok(kv));
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = KeyValue::parse(&bytes);
        }
    }

    #[test]
    fn known_bytes() {
        let kv = KeyValue { key: b"a", create_revision: 2, mod_revision: 300, version: 1, value: b"x", lease: 0 };
        assert_eq!(&kv.encode()[..], b"\x0a\x01a\x10\x02\x18\xac\x02\x20\x01\x2a\x01x");
    }
}
