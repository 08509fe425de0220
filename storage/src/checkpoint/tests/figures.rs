//! What a store counts: sizes that do not dip, and sums that do not depend on checkpoints.

use bytes::Bytes;
use proptest::prelude::*;

use super::rig::Rig;
use crate::disk::SimulatedDisk;
use crate::mvcc::key_range::KeyRange;
use crate::mvcc::key_value::KeyValue;
use crate::mvcc::store::Store;
use crate::mvcc::system::Table;

#[test]
fn what_a_checkpoint_is_writing_still_counts() {
    let disk = SimulatedDisk::new(1);
    let mut rig = Rig::create(&disk).unwrap();
    rig.put("/registry/pods/a", &[1; 10_000]);
    let before = rig.store.uncheckpointed_bytes();
    assert!(before > 10_000);
    assert_eq!(rig.store.delta_bytes(), before);
    let frozen = rig.store.freeze();
    assert_eq!((rig.store.delta_bytes(), rig.store.uncheckpointed_bytes()), (0, before));
    rig.put("/registry/pods/b", &[1; 10_000]);
    assert_eq!(rig.store.uncheckpointed_bytes(), before + rig.store.delta_bytes());
    rig.store.checkpoint_failed(frozen);
    assert_eq!(rig.store.delta_bytes(), rig.store.uncheckpointed_bytes());
    assert!(rig.checkpoint(&disk).unwrap());
    assert_eq!(rig.store.uncheckpointed_bytes(), 0);
}

/// Its record in the index is longer than a block of a run may be, and is written, merged and read all the same.
#[test]
fn a_key_may_have_a_million_revisions() {
    const REVISIONS: i64 = 1_000_000;
    let disk = SimulatedDisk::new(1);
    let mut rig = Rig::create(&disk).unwrap();
    for number in 0..REVISIONS {
        rig.put("k", &number.to_le_bytes());
        if number % (REVISIONS / 4) == REVISIONS / 8 {
            assert!(rig.checkpoint(&disk).unwrap());
        }
    }
    assert!(rig.checkpoint(&disk).unwrap());
    let rig = Rig::open(&disk).unwrap().unwrap();
    let newest = rig.store.revision();
    for back in [0, 1, REVISIONS / 2, REVISIONS * 3 / 4, REVISIONS - 1] {
        let values = rig.values_at(&disk, newest - back);
        let found = KeyValue::parse(&values[0]).unwrap();
        assert_eq!((values.len(), found.value), (1, &(REVISIONS - 1 - back).to_le_bytes()[..]), "{back} back");
    }
}

#[derive(Clone, Debug)]
enum Effect {
    Put(u8, u8),
    Delete(u8),
    Record(u8, Option<u8>),
    Compact,
}

fn apply(store: &mut Store, effect: &Effect) {
    let key = |key: &u8| Bytes::from(["/registry/pods/", "/registry/events/", "/x"][usize::from(*key % 3)].to_owned());
    let mut transaction = store.begin();
    match effect {
        Effect::Put(number, value) => drop(transaction.put(&key(number), &[*value; 50], 0)),
        Effect::Delete(number) => drop(transaction.delete_range(&KeyRange::single(&key(number)))),
        Effect::Record(number, value) => {
            drop(transaction);
            return store.set_record(Table::Lease, &[*number], value.map(|value| Bytes::from(vec![value])));
        }
        Effect::Compact => {
            drop(transaction);
            let revision = store.revision();
            if store.compactable(revision).is_ok() {
                store.compact(revision);
            }
            while store.is_sweeping() {
                store.sweep(1);
            }
            return;
        }
    }
    let changes = transaction.finish();
    store.install(&changes);
}

fn effect() -> impl Strategy<Value = Effect> {
    prop_oneof![
        4 => (any::<u8>(), any::<u8>()).prop_map(|(key, value)| Effect::Put(key, value)),
        2 => any::<u8>().prop_map(Effect::Delete),
        2 => (0u8..4, any::<Option<u8>>()).prop_map(|(key, value)| Effect::Record(key, value)),
        1 => Just(Effect::Compact),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// One store only applies; the other has checkpoints, full disks and restarts in between, after which what no
    /// checkpoint holds is applied again, as a replay of the log does.
    #[test]
    fn sums_do_not_depend_on_checkpoints_and_restarts(
        effects in prop::collection::vec((effect(), 0..8u8), 1..40), dropped in any::<prop::sample::Index>(),
    ) {
        let disk = SimulatedDisk::new(1);
        let (mut plain, mut rig) = (Rig::create(&SimulatedDisk::new(1)).unwrap(), Rig::create(&disk).unwrap());
        rig.settle(&disk).unwrap();
        let mut checkpointed = 0;
        for (position, (effect, then)) in effects.iter().enumerate() {
            apply(&mut plain.store, effect);
            apply(&mut rig.store, effect);
            match then {
                0 => {
                    prop_assert!(rig.checkpoint(&disk).unwrap());
                    checkpointed = position + 1;
                }
                1 => {
                    let frozen = rig.store.freeze();
                    rig.store.checkpoint_failed(frozen);
                }
                2 => {
                    rig = Rig::open(&disk).unwrap().unwrap();
                    effects[checkpointed..=position].iter().for_each(|(effect, _)| apply(&mut rig.store, effect));
                }
                _ => {}
            }
            prop_assert_eq!(rig.store.sums(), plain.store.sums());
        }
        // A member that lacks one effect shows.
        let mut other = Rig::create(&SimulatedDisk::new(1)).unwrap();
        let dropped = dropped.index(effects.len());
        let (kept, lacks) = (plain.store.sums(), &effects[dropped].0);
        let others = effects.iter().enumerate().filter(|(position, _)| *position != dropped);
        others.for_each(|(_, (effect, _))| apply(&mut other.store, effect));
        if matches!(lacks, Effect::Put(..) | Effect::Record(..)) {
            prop_assert_ne!(other.store.sums(), kept);
        }
    }
}
