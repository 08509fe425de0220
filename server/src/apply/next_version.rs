//! What the rules of the next release could change: for tests of rolling upgrades, which must see by which rules an entry was
//! applied. A build without the feature has no such rules.

use std::borrow::Cow;

use basalt_proto::etcdserverpb::PutRequest;

/// Keys whose values show it.
#[cfg(feature = "next-version")]
const SHOWN_UNDER: &[u8] = b"basalt/rules/";

/// The put as these rules have it.
#[cfg(feature = "next-version")]
pub(super) fn put_by(rules: u32, put: &PutRequest) -> Cow<'_, PutRequest> {
    if rules < 2 || !put.key.starts_with(SHOWN_UNDER) {
        return Cow::Borrowed(put);
    }
    let value = [b"by rules 2: ", &put.value[..]].concat().into();
    Cow::Owned(PutRequest { value, ..put.clone() })
}

/// The put as these rules have it.
#[cfg(not(feature = "next-version"))]
pub(super) fn put_by(_rules: u32, put: &PutRequest) -> Cow<'_, PutRequest> {
    Cow::Borrowed(put)
}
