//! I6: revisions go up by one with every change, and never back, also not over a crash.

use basalt_server::apply::effects::Effect;

use crate::node_sim::Outcome;

/// Looks at what an entry did to a store that was at `before`; gives where it is after it.
///
/// # Panics
/// When a revision was left out or taken twice.
pub fn follow(before: i64, outcome: &Outcome) -> i64 {
    if outcome.entry.is_none() {
        return before;
    }
    let (mut main, mut sub) = (before, -1);
    for effect in &outcome.effects.effects {
        let Effect::Key(change) = effect else { continue };
        let revision = change.revision;
        let follows = (revision.main == main && revision.sub == sub + 1 && sub >= 0)
            || (revision.main == main + 1 && revision.sub == 0);
        assert!(follows, "I6: {revision:?} behind {main}, {sub} in entry {}", outcome.position.index);
        (main, sub) = (revision.main, revision.sub);
    }
    assert_eq!(main, outcome.effects.revision, "I6: the revision after entry {}", outcome.position.index);
    main
}
