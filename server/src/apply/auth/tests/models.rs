//! Permissions against a naive model, and changes against what a start finds.

use basalt_proto::authpb::Role;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::apply::auth::permissions::{Access, Permissions};

#[test]
fn a_kind_of_permission_that_nobody_knows_permits_nothing() {
    let role = Role {
        key_permission: vec![Permission { perm_type: 7, ..permission(Type::Read, "a", "\0") }],
        ..Role::default()
    };
    let permissions = Permissions::of([&role].into_iter());
    assert!(!permissions.allow(Access::Read, b"a", b"") && !permissions.allow(Access::Write, b"a", b""));
}

/// Keys of few letters, so that ranges meet.
fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(0u8..3, 1..3)
}

fn range_end() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(Vec::new()), Just(vec![0]), key()]
}

/// Every key of up to three letters of the model's alphabet and one beyond, in order.
fn all_keys() -> Vec<Vec<u8>> {
    let letters = 0u8..4;
    let one: Vec<Vec<u8>> = letters.clone().map(|letter| vec![letter]).collect();
    let longer = |keys: &[Vec<u8>]| -> Vec<Vec<u8>> {
        keys.iter().flat_map(|key| letters.clone().map(move |letter| [&key[..], &[letter]].concat())).collect()
    };
    let two = longer(&one);
    let three = longer(&two);
    [one, two, three].concat()
}

fn names(key: &[u8], start: &[u8], range_end: &[u8]) -> bool {
    match range_end {
        [] => key == start,
        [0] => key >= start,
        end => key >= start && key < end,
    }
}

proptest! {
    /// A range is allowed exactly if each of its keys is, as far as keys of the model tell; one without keys is not judged.
    #[test]
    fn a_range_is_allowed_as_its_keys_are(
        granted in vec((key(), range_end(), 0i32..3), 0..8),
        (start, end) in (key(), range_end()),
    ) {
        let key_permission = granted.iter().map(|(key, end, kind)| {
            Permission { perm_type: *kind, key: key.clone().into(), range_end: end.clone().into() }
        });
        let role = Role { key_permission: key_permission.collect(), ..Role::default() };
        let permissions = Permissions::of([&role].into_iter());
        let keys: Vec<Vec<u8>> = all_keys().into_iter().filter(|key| names(key, &start, &end)).collect();
        for (access, other) in [(Access::Read, Type::Write), (Access::Write, Type::Read)] {
            let may = |key: &[u8]| granted.iter().any(|(first, last, kind)| {
                *kind != other as i32 && names(key, first, last)
            });
            // Between two keys of the model there are others: a range is wholly covered only if its ends are reached too.
            let expected = keys.iter().all(|key| may(key));
            if permissions.allow(access, &start, &end) {
                prop_assert!(expected);
            } else if end.is_empty() {
                prop_assert!(!expected);
            }
        }
    }

    /// However users and roles come and go, they are what a start would find: who may do what, and how many bytes there are.
    #[test]
    fn changes_come_to_what_a_start_finds(requests in vec((0usize..8, 0usize..3, 0usize..3, 0u8..3), 0..60)) {
        let (mut state, mut stored) = (AuthState::default(), std::collections::BTreeMap::new());
        for (kind, user, role, key) in requests {
            let (user, role) = (["ann", "bob", "root"][user], ["r", "root", "s"][role]);
            let kind = match kind {
                0 => user_add(user),
                1 => user_delete(user),
                2 => role_add(role),
                3 => role_delete(role),
                4 | 5 => grant_role(user, role),
                6 => grant(role, Type::Readwrite, &format!("k{key}"), ""),
                _ => revoke_role(user, role),
            };
            let Ok(records) = state.evaluate(&kind).expect("of users and roles") else { continue };
            state.install_all(&records);
            for AuthRecord { table, key, value } in records {
                let place = [&[table as u8], &key[..]].concat();
                match value {
                    Some(value) => drop(stored.insert(place, value)),
                    None => drop(stored.remove(&place)),
                }
            }
        }
        let mut system = System::default();
        for (place, value) in stored {
            prop_assert!(system.restore(&place, value));
        }
        prop_assert_eq!(AuthState::load(&system), Ok(state));
    }

    /// Ranges that touch count as one.
    #[test]
    fn ranges_that_touch_are_one(a in key(), b in key(), c in key()) {
        let mut ends = [a, b, c];
        ends.sort();
        let [a, b, c] = ends;
        prop_assume!(a < b && b < c);
        let of = |key: &[u8], end: &[u8]| Permission {
            perm_type: Type::Read as i32,
            key: Bytes::copy_from_slice(key),
            range_end: Bytes::copy_from_slice(end),
        };
        let role = |key_permission| Role { key_permission, ..Role::default() };
        let (first, second) = (role(vec![of(&a, &b)]), role(vec![of(&b, &c)]));
        let both = Permissions::of([&second, &first].into_iter());
        prop_assert!(both.allow(Access::Read, &a, &c));
        prop_assert!(!both.allow(Access::Read, &a, &[0]));
        prop_assert!(!Permissions::of([&first].into_iter()).allow(Access::Read, &a, &c));
    }
}
