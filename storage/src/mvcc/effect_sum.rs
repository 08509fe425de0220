//! Order-free sums of effects: what members compare instead of reading a database (DESIGN 3.6).
//!
//! Each effect has a 128-bit hash; a sum adds them up, wrapping. Two members that applied the same effects have equal
//! sums, whatever checkpoints, restarts and compactions each of them had in between. Finds what goes wrong by chance, in
//! memory or in code; XXH3 is no defence against somebody who makes collisions on purpose.
//!
//! The bytes that are hashed are part of the format (`docs/disk-format-manifest.md`): a sum lives as long as the data.

use twox_hash::XxHash3_128;

use super::system::Table;
use crate::revision::Revision;

/// What a hashed effect begins with.
const KIND_PUT: u8 = 1;
const KIND_DELETE: u8 = 2;
const KIND_SYSTEM_SET: u8 = 3;
const KIND_SYSTEM_REMOVED: u8 = 4;

/// The sum of some effects since the birth of the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EffectSum(pub u128);

impl EffectSum {
    /// Adds the change of a key; `key_value` is what is stored for it, `None` for a deletion.
    pub fn add_change(&mut self, revision: Revision, key: &[u8], key_value: Option<&[u8]>) {
        let kind = if key_value.is_some() { KIND_PUT } else { KIND_DELETE };
        let [main, sub] = [revision.main, revision.sub].map(i64::to_le_bytes);
        self.add(&[&[kind], &main, &sub, &value_hash(key_value), key]);
    }

    /// Adds the change of a system record.
    pub fn add_record(&mut self, table: Table, key: &[u8], value: Option<&[u8]>) {
        let kind = if value.is_some() { KIND_SYSTEM_SET } else { KIND_SYSTEM_REMOVED };
        self.add(&[&[kind, table as u8], &value_hash(value), key]);
    }

    fn add(&mut self, parts: &[&[u8]]) {
        /// An effect whose key is no longer is hashed without memory of its own.
        const SHORT: usize = 256;
        let (mut short, mut length) = ([0; SHORT], 0);
        if parts.iter().map(|part| part.len()).sum::<usize>() > SHORT {
            self.0 = self.0.wrapping_add(XxHash3_128::oneshot(&parts.concat()));
            return;
        }
        for part in parts {
            short[length..length + part.len()].copy_from_slice(part);
            length += part.len();
        }
        self.0 = self.0.wrapping_add(XxHash3_128::oneshot(&short[..length]));
    }
}

/// Values may be long: they are hashed where they lie, and their hash is part of the effect's bytes.
fn value_hash(value: Option<&[u8]>) -> [u8; 16] {
    value.map_or([0; 16], |value| XxHash3_128::oneshot(value).to_le_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(add: impl Fn(&mut EffectSum)) -> u128 {
        let mut sum = EffectSum::default();
        add(&mut sum);
        sum.0
    }

    #[test]
    fn every_part_of_an_effect_counts_and_the_order_of_effects_does_not() {
        let at = Revision::new(2, 0);
        let (put, gone) = (|sum: &mut EffectSum| sum.add_change(at, b"k", Some(b"v")), None::<&[u8]>);
        let others = [
            sum(put),
            sum(|sum| sum.add_change(Revision::new(3, 0), b"k", Some(b"v"))),
            sum(|sum| sum.add_change(Revision::new(2, 1), b"k", Some(b"v"))),
            sum(|sum| sum.add_change(at, b"l", Some(b"v"))),
            sum(|sum| sum.add_change(at, b"k", Some(b"w"))),
            sum(|sum| sum.add_change(at, b"k", Some(b""))),
            sum(|sum| sum.add_change(at, b"k", gone)),
            sum(|sum| sum.add_record(Table::Lease, b"k", Some(b"v"))),
            sum(|sum| sum.add_record(Table::Alarm, b"k", Some(b"v"))),
            sum(|sum| sum.add_record(Table::Lease, b"k", gone)),
        ];
        let distinct: std::collections::BTreeSet<_> = others.iter().collect();
        assert_eq!(distinct.len(), others.len());
        let record = |sum: &mut EffectSum| sum.add_record(Table::Lease, b"k", Some(b"v"));
        let (mut one, mut other) = (EffectSum::default(), EffectSum::default());
        put(&mut one);
        record(&mut one);
        record(&mut other);
        put(&mut other);
        assert_eq!(one, other);
    }

    /// The form is for ever: sums of two releases must be comparable.
    #[test]
    fn the_hashed_bytes_are_those_of_the_document() {
        let mut bytes = vec![1];
        bytes.extend(7i64.to_le_bytes());
        bytes.extend(1i64.to_le_bytes());
        bytes.extend(XxHash3_128::oneshot(b"value").to_le_bytes());
        bytes.extend(b"key");
        let expected = XxHash3_128::oneshot(&bytes);
        assert_eq!(sum(|sum| sum.add_change(Revision::new(7, 1), b"key", Some(b"value"))), expected);
        let long = [b'k'; 1000];
        let bytes = [&[4, 1][..], &[0; 16], &long].concat();
        assert_eq!(sum(|sum| sum.add_record(Table::Lease, &long, None)), XxHash3_128::oneshot(&bytes));
        // XXH3's own figure for the empty input: another implementation would show here.
        assert_eq!(XxHash3_128::oneshot(b""), 0x99aa_06d3_0147_98d8_6001_c324_468d_497f);
    }
}
