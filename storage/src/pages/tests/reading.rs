//! How much is read for an answer.

use crate::job::{Job, Step};
use crate::revision::Revision;

use crate::pages::{READS_IN_FLIGHT_MAX, TreeChanges};

use super::rig::{Rig, entries, entry, revisions};

#[test]
fn a_cached_fetch_is_done_in_its_first_step() {
    let mut rig = Rig::new(1 << 24);
    rig.append(entries(2..200, 1000));
    let wanted = revisions([150, 3, 90]);
    let cold = rig.fetch(&rig.root(), wanted.clone());
    let mut warm = rig.pages().fetch(rig.root(), wanted);
    match warm.step(Vec::new(), 10).unwrap() {
        Step::Done(answers) => assert_eq!(answers, cold),
        other => panic!("{other:?}"),
    }
}

/// Else a cache fills with what nobody can ask for, up to its bound.
#[test]
fn what_dies_leaves_the_cache() {
    let mut rig = Rig::new(1 << 24);
    rig.append(entries(2..200, 1000));
    rig.fetch(&rig.root(), revisions(2..200));
    let cached = |rig: &Rig| revisions(2..200).into_iter().filter(|at| rig.pages().cached_entry(*at).is_some()).count();
    assert_eq!(cached(&rig), 198);
    rig.mark(revisions((2..200).step_by(3)));
    assert_eq!(cached(&rig), 132);
    assert!(
        rig.pages().cached_entry(Revision::new(2, 0)).is_none()
            && rig.pages().cached_entry(Revision::new(3, 0)).is_some()
    );
}

/// The same for pages: those of old trees stand where no page begins any more, so that no newer one takes their place.
#[test]
fn the_cache_does_not_grow_with_what_was_rewritten() {
    let mut rig = Rig::new(1 << 26);
    let mut after = Vec::new();
    for round in 0..60 {
        let (from, to) = (2 + round * 300, 2 + (round + 1) * 300);
        // Leaves of other sizes in each round, and all that was there before dies.
        rig.append(entries(from..to, 300 + (round as usize * 977) % 4000));
        rig.mark(revisions((from - 300).max(2)..from));
        rig.fetch(&rig.root(), revisions(from..to));
        after.push(rig.pages().cached_bytes());
    }
    let most = |rounds: &[u64]| rounds.iter().copied().max().unwrap_or_default();
    let (first, last) = (most(&after[..15]), most(&after[45..]));
    assert!(last * 10 <= first * 11, "{first} bytes at most in the first rounds, {last} in the last");
}

#[test]
fn a_point_read_reads_the_way_down_and_its_own_blocks() {
    let mut rig = Rig::new(0);
    rig.append(entries(2..200, 1000));
    assert_eq!(rig.root().root.height, 1);
    let before = rig.disk.reads();
    let (submits, answers) = rig.count_submits(rig.pages().fetch(rig.root(), revisions([77]))).unwrap();
    assert_eq!(answers, [Some(entry(77, 1000).key_value)]);
    assert_eq!((submits, rig.disk.reads() - before), (3, 3));
}

#[test]
fn a_list_reads_neighbours_together_and_few_at_a_time() {
    let mut rig = Rig::new(0);
    rig.append(entries(2..4000, 3000));
    let wanted = revisions((2..4000).rev());
    let mut job = rig.pages().fetch(rig.root(), wanted.clone());
    let (mut completions, mut reads) = (Vec::new(), 0);
    let answers = loop {
        match job.step(std::mem::take(&mut completions), 1000).unwrap() {
            Step::Again => {}
            Step::Submit(requests) => {
                assert!(requests.len() <= READS_IN_FLIGHT_MAX);
                reads += requests.len();
                completions = requests.into_iter().map(|io| crate::disk::Disk::perform(&rig.disk, io)).collect();
            }
            Step::Done(answers) => break answers,
        }
    };
    assert!(reads < 20, "{reads} reads for 12 MB");
    let expected = (2..4000).rev().map(|main| Some(entry(main, 3000).key_value));
    assert!(answers.into_iter().eq(expected));
}

#[test]
fn a_scan_stays_in_its_bounds_and_says_where_to_go_on() {
    let mut rig = Rig::new(1 << 20);
    rig.append(entries(2..500, 700));
    let scan = |from, to, limit| {
        let (from, to) = (Revision::new(from, 0), Revision::new(to, 0));
        let chunk = rig.run(rig.pages().scan(rig.root(), from, to, limit, false)).unwrap();
        let mains: Vec<_> = chunk.slots.iter().map(|slot| slot.revision.main).collect();
        (mains, chunk.next.map(|next| next.main))
    };
    assert_eq!(scan(10, 14, 100), (vec![10, 11, 12, 13, 14], None));
    assert_eq!(scan(10, 14, 5), (vec![10, 11, 12, 13, 14], None));
    assert_eq!(scan(10, 14, 4), (vec![10, 11, 12, 13], Some(14)));
    assert_eq!(scan(498, 900, 0), (vec![498], Some(499)));
    assert_eq!(scan(500, 900, 7), (vec![], None));
    assert_eq!(scan(14, 10, 7), (vec![], None));
}

#[test]
fn an_empty_tree_answers_nothing() {
    let mut rig = Rig::new(0);
    assert_eq!(rig.fetch(&rig.root(), revisions([5])), [None]);
    rig.commit(TreeChanges::default());
    assert!(rig.scan_all(&rig.root(), 5, true).is_empty());
    assert_eq!(rig.verify().unwrap().pages, 0);
}
