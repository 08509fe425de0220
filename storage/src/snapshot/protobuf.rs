//! The little of protobuf's wire form that the small records need.

/// A message being encoded. Fields are appended in the order of the calls: keep that of their numbers.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    pub fn new() -> Self {
        Self::default()
    }

    /// A varint field, left out when 0 as proto3 wants it. Signed types go as their 64-bit two's complement.
    pub fn number(mut self, field: u8, value: u64) -> Self {
        assert!((1..16).contains(&field), "one byte holds field numbers 1 to 15");
        if value != 0 {
            self.0.push(field << 3);
            self.varint(value);
        }
        self
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}
