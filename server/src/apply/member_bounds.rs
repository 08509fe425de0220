//! How much may be said of members. All of it stands in every manifest, of which a slot holds only so much: a record that
//! outgrew it would stop every member at its next checkpoint, and after each restart again.

use basalt_proto::members::{Member, Membership};
use basalt_storage::checkpoint::manifest::MEMBERSHIP_BYTES_MAX;
use thiserror::Error;

/// Peer URLs of a member, and client URLs.
pub const MEMBER_URLS_MAX: usize = 16;
/// Bytes of one URL.
pub const URL_BYTES_MAX: usize = 512;
/// Bytes of a member's name.
pub const NAME_BYTES_MAX: usize = 256;

/// Room that a member has from its addition on, whether it needs it or not: it says its name and client URLs only later, and must
/// be able to. Enough for two URLs of each kind of a hundred bytes.
const MEMBER_BYTES_RESERVED: usize = 512;
/// Of its data directory.
const INCARNATION_BYTES: usize = 16;

/// What stands around a text: its field's number and its length.
const TEXT_FRAME_BYTES: usize = 4;
/// What of a member is no text, at its longest: id, incarnation, rules, disk.
const MEMBER_NUMBERS_BYTES: usize = 9 + (2 + INCARNATION_BYTES) + 6 + 2;
/// What stands around a member.
const MEMBER_FRAME_BYTES: usize = 6;
/// An id in a list.
const ID_BYTES_MAX: usize = 10;
/// What stands around the lists of ids, and the rules.
const LISTS_BYTES: usize = 3 * 6 + 6;

/// A member of the longest texts has room in a cluster of its own.
const MEMBER_BYTES_MAX: usize = MEMBER_NUMBERS_BYTES
    + (TEXT_FRAME_BYTES + NAME_BYTES_MAX)
    + 2 * MEMBER_URLS_MAX * (TEXT_FRAME_BYTES + URL_BYTES_MAX);
const _: () = assert!(LISTS_BYTES + MEMBER_FRAME_BYTES + MEMBER_BYTES_MAX + ID_BYTES_MAX <= MEMBERSHIP_BYTES_MAX);
const _: () = assert!(MEMBER_NUMBERS_BYTES < MEMBER_BYTES_RESERVED);

/// Why something is not said of members.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum MemberBound {
    /// One of them is too long.
    #[error(
        "a member has at most {MEMBER_URLS_MAX} peer URLs and as many client URLs, of {URL_BYTES_MAX} bytes each, and a name of \
         {NAME_BYTES_MAX} bytes"
    )]
    Member,
    /// All of them are, with the ids of those that left.
    #[error(
        "no room is left for that beside the other members and the ids of those that left, which are remembered for good: use \
         shorter URLs, or take a snapshot and restore it as a new cluster"
    )]
    Cluster,
}

/// Whether so much may be said of one member.
///
/// # Errors
/// [`MemberBound::Member`].
pub fn check_member(member: &Member) -> Result<(), MemberBound> {
    let is_short = |urls: &[String]| urls.len() <= MEMBER_URLS_MAX && urls.iter().all(|url| url.len() <= URL_BYTES_MAX);
    let is_incarnation = member.incarnation.is_empty() || member.incarnation.len() == INCARNATION_BYTES;
    let fits = is_short(&member.peer_urls)
        && is_short(&member.client_urls)
        && member.name.len() <= NAME_BYTES_MAX
        && is_incarnation;
    if fits { Ok(()) } else { Err(MemberBound::Member) }
}

/// Whether so much may be said of the first members of a cluster, each of which and all.
///
/// # Errors
/// [`MemberBound`].
pub(super) fn check_first(membership: &Membership) -> Result<(), MemberBound> {
    membership.members.iter().try_for_each(check_member)?;
    if room_of(membership) <= MEMBERSHIP_BYTES_MAX { Ok(()) } else { Err(MemberBound::Cluster) }
}

/// Whether one state of the members may follow another: it has room, or takes no more than the one before.
///
/// # Errors
/// [`MemberBound::Cluster`].
pub(super) fn check_growth(before: &Membership, after: &Membership) -> Result<(), MemberBound> {
    let room = room_of(after);
    if room <= MEMBERSHIP_BYTES_MAX || room <= room_of(before) { Ok(()) } else { Err(MemberBound::Cluster) }
}

/// Bytes that the record may come to without being asked again: never fewer than it has.
///
/// A member counts for more than its id among those that left will, so that a removal never lacks room, nor does what a member
/// says of its disk, its rules and its data directory.
fn room_of(membership: &Membership) -> usize {
    let Membership { voters, learners, members, removed, .. } = membership;
    let of_members: usize = members.iter().map(|member| MEMBER_FRAME_BYTES + room_of_member(member)).sum();
    LISTS_BYTES + of_members + (voters.len() + learners.len() + removed.len()) * ID_BYTES_MAX
}

fn room_of_member(member: &Member) -> usize {
    let urls = member.peer_urls.iter().chain(&member.client_urls);
    let texts: usize = urls.chain([&member.name]).map(|text| TEXT_FRAME_BYTES + text.len()).sum();
    (MEMBER_NUMBERS_BYTES + texts).max(MEMBER_BYTES_RESERVED)
}

#[cfg(test)]
mod tests {
    use basalt_proto::log::member_change::Kind as Change;
    use basalt_proto::log::{MemberAddition, MemberDescription, MemberUrls};
    use proptest::prelude::*;
    use prost::Message;

    use super::super::answer::Refusal;
    use super::super::members::Members;
    use super::*;

    fn url(host: usize, bytes: usize) -> String {
        let host = host.to_string();
        format!("http://{}{host}", "0".repeat(bytes - "http://".len() - host.len()))
    }

    fn member(id: u64) -> Member {
        Member { id, peer_urls: vec![url(id as usize, 60)], ..Member::default() }
    }

    fn addition(member: Member) -> Change {
        Change::Add(MemberAddition { member: Some(member), learner: false, learners_max: 1 })
    }

    fn update(id: u64, peer_urls: Vec<String>) -> Change {
        Change::Update(MemberUrls { id, peer_urls })
    }

    fn refused(members: &Members, change: &Change) -> Option<Refusal> {
        members.evaluate(change).err()
    }

    #[test]
    fn what_is_said_of_one_member_is_bounded() {
        let members = Members::first(vec![member(1), member(2)]);
        let too_long = Some(Refusal::MemberBound(MemberBound::Member));
        let urls = |count: usize, bytes: usize| (0..count).map(|number| url(1000 + number, bytes)).collect::<Vec<_>>();
        assert_eq!(refused(&members, &update(1, urls(MEMBER_URLS_MAX, URL_BYTES_MAX))), None);
        assert_eq!(refused(&members, &update(1, urls(1, URL_BYTES_MAX + 1))), too_long);
        assert_eq!(refused(&members, &update(1, urls(1, 70_000))), too_long);
        assert_eq!(refused(&members, &update(1, urls(MEMBER_URLS_MAX + 1, 20))), too_long);
        let with = |peer_urls| Member { id: 3, peer_urls, ..Member::default() };
        assert_eq!(refused(&members, &addition(with(urls(1, URL_BYTES_MAX)))), None);
        assert_eq!(refused(&members, &addition(with(urls(1, URL_BYTES_MAX + 1)))), too_long);
        assert_eq!(refused(&members, &addition(with(urls(MEMBER_URLS_MAX + 1, 20)))), too_long);
        let described = |description: MemberDescription| members.check_description(&description).err();
        let says = MemberDescription { id: 1, ..MemberDescription::default() };
        let (name, client_urls) = ("n".repeat(NAME_BYTES_MAX), urls(MEMBER_URLS_MAX, URL_BYTES_MAX));
        assert_eq!(described(MemberDescription { name: name.clone(), client_urls, ..says.clone() }), None);
        assert_eq!(described(MemberDescription { name: name + "n", ..says.clone() }), Some(MemberBound::Member));
        let client_urls = urls(1, URL_BYTES_MAX + 1);
        assert_eq!(described(MemberDescription { client_urls, ..says.clone() }), Some(MemberBound::Member));
        assert_eq!(
            described(MemberDescription { incarnation: vec![1u8; 17].into(), ..says }),
            Some(MemberBound::Member),
            "of another member that lies"
        );
    }

    #[test]
    fn all_members_together_are_bounded_and_shrink_again() {
        let mut members = Members::first(vec![member(1)]);
        let long = |id: u64| {
            let peer_urls = (0..MEMBER_URLS_MAX).map(|number| url(100 * id as usize + number, URL_BYTES_MAX)).collect();
            Member { id, peer_urls, ..Member::default() }
        };
        members.follow(&addition(long(2)));
        members.follow(&addition(long(3)));
        let full = Some(Refusal::MemberBound(MemberBound::Cluster));
        assert_eq!(refused(&members, &addition(long(4))), full);
        assert_eq!(refused(&members, &update(1, long(4).peer_urls)), full);
        // What is no longer than before goes, and a member of usual length still fits.
        assert_eq!(refused(&members, &update(2, long(5).peer_urls)), None);
        assert_eq!(refused(&members, &addition(member(4))), None);
        members.follow(&update(2, member(2).peer_urls));
        assert_eq!(refused(&members, &addition(long(4))), None);
    }

    /// About as many as can leave in the life of a cluster; then additions are refused, and nothing else.
    #[test]
    fn ids_of_those_that_left_are_kept_until_no_room_is_left_for_another() {
        let mut members = Members::first((1..=5).map(|number| member(u64::MAX - number)).collect());
        let added = |number: u64| Member { id: u64::MAX - number, ..member(number) };
        let mut left = 0;
        while refused(&members, &addition(added(100 + left))).is_none() {
            members.follow(&addition(added(100 + left)));
            members.follow(&Change::Remove(u64::MAX - 100 - left));
            assert!(members.is_removed(u64::MAX - 100 - left));
            left += 1;
        }
        assert!((2_000..2_200).contains(&left), "{left}");
        assert_eq!(refused(&members, &addition(added(99))), Some(Refusal::MemberBound(MemberBound::Cluster)));
        assert!((100..100 + left).all(|number| members.is_removed(u64::MAX - number)), "none is forgotten");
        assert!(members.encode().len() <= MEMBERSHIP_BYTES_MAX);
        let says = MemberDescription { id: u64::MAX - 1, name: "one".into(), disk_full: true, ..Default::default() };
        assert_eq!(members.check_description(&says), Ok(()));
        assert_eq!(refused(&members, &update(u64::MAX - 1, vec![url(7, 100)])), None);
        assert_eq!(refused(&members, &Change::Remove(u64::MAX - 2)), None);
    }

    #[test]
    fn the_first_members_are_bounded() {
        assert_eq!(Members::first((1..40).map(member).collect()).check(), Ok(()));
        assert_eq!(Members::first((1..100).map(member).collect()).check(), Err(MemberBound::Cluster));
        let long = Member { peer_urls: vec![url(1, URL_BYTES_MAX + 1)], ..member(1) };
        assert_eq!(Members::first(vec![long]).check(), Err(MemberBound::Member));
    }

    fn any_member() -> impl Strategy<Value = Member> {
        let texts = || prop::collection::vec(prop::collection::vec(Just('x'), 0..300), 0..5);
        (any::<u64>(), texts(), texts(), any::<bool>(), any::<u32>()).prop_map(|(id, peer, client, full, rules)| {
            let joined = |texts: Vec<Vec<char>>| -> Vec<String> {
                texts.into_iter().map(|text| text.into_iter().collect()).collect()
            };
            let (peer_urls, client_urls) = (joined(peer), joined(client));
            let (name, incarnation) = ("n".repeat(rules as usize % 257), vec![1u8; 16].into());
            Member { id, name, peer_urls, client_urls, incarnation, apply_version: rules, disk_full: full }
        })
    }

    proptest! {
        /// However long they are, the record has no more bytes than room, and a removal takes none.
        #[test]
        fn the_record_never_has_more_bytes_than_room(
            members in prop::collection::vec(any_member(), 1..6),
            removed in prop::collection::vec(any::<u64>(), 0..100),
        ) {
            let mut membership = Members::first(members).membership().clone();
            membership.removed = removed;
            prop_assert!(membership.encoded_len() <= room_of(&membership));
            let mut after = membership.clone();
            let gone = after.members.remove(0).id;
            after.voters.retain(|id| *id != gone);
            after.removed.push(gone);
            prop_assert!(room_of(&after) <= room_of(&membership));
        }
    }
}
