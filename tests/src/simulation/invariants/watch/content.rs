//! What an event holds: the filter, what a put and a delete show, isCreate, prevKV.

use basalt_proto::mvccpb::{Event, KeyValue};

use super::{Wanted, is_put};
use crate::model::{Happened, Version};

/// An event shows what happened. A previous value may be missing where it was compacted.
///
/// # Panics
/// When it shows something else.
pub fn matches(happened: &Happened, event: &Event, wanted: &Wanted, compact_revision: i64) {
    let shown = event.kv.as_ref().expect("an event has a key");
    let Happened { key, version, previous } = happened;
    let (name, revision) = (String::from_utf8_lossy(key), version.mod_revision);
    let put = version.value.is_some();
    assert_eq!(is_put(event), put, "the kind of the event of {name} at {revision}");
    assert!(if put { !wanted.no_put } else { !wanted.no_delete }, "filter: the event of {name} at {revision}");
    let expected = if put { version.clone() } else { tombstone(revision) };
    assert_eq!(version_of(shown), expected, "the event of {name} at {revision}");
    let is_create = put && shown.create_revision == shown.mod_revision;
    assert_eq!(is_create, put && previous.is_none(), "isCreate: the event of {name} at {revision}");
    match (&event.prev_kv, previous) {
        (None, Some(_)) if wanted.prev_kv => {
            assert!(revision <= compact_revision, "prevKV: none in the event of {name} at {revision}");
        }
        (None, _) => {}
        (Some(shown), Some(previous)) if wanted.prev_kv => {
            assert_eq!((&shown.key[..], &version_of(shown)), (&key[..], previous), "prevKV: {name} at {revision}");
        }
        (Some(_), _) => {
            panic!("prevKV: one that nobody asked for or that never was, in the event of {name} at {revision}")
        }
    }
}

/// A delete shows key and revision only (etcd-contract 20).
fn tombstone(mod_revision: i64) -> Version {
    Version { create_revision: 0, mod_revision, version: 0, lease: 0, value: Some(Vec::new()) }
}

fn version_of(shown: &KeyValue) -> Version {
    Version {
        create_revision: shown.create_revision,
        mod_revision: shown.mod_revision,
        version: shown.version,
        lease: shown.lease,
        value: Some(shown.value.to_vec()),
    }
}
