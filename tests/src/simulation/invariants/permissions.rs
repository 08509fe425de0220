//! I21: whom a member lets do what, by the users and roles that the log had led to where it stood. What is applied is judged by
//! the [`Ledger`]; here is what is judged before the log, and what is read. I22, in [`AuthHistory`]: these users and roles are
//! the same on all members, in all lives.
//!
//! [`AuthHistory`]: crate::auth_history::AuthHistory

use basalt_proto::log::Principal;
use basalt_proto::log::request::Kind;
use basalt_server::apply::auth::error::AuthError;
use basalt_server::auth::Caller;

use super::super::accounts::Asker;
use super::reads::Question;
use crate::ledger::Ledger;
use crate::model::{Access, ModelAuth};
use crate::node_sim::SimulatedNode;

/// What the log had led to at a member.
fn at<'a>(node: &SimulatedNode, ledger: &'a Ledger) -> (&'a ModelAuth, u64) {
    let applied = node.machine().store().applied.index;
    (ledger.auth().after(applied), applied)
}

/// A member knows a user by a token.
///
/// # Panics
/// When it is not that user's, or not any more.
pub fn known(member: u64, node: &SimulatedNode, asker: &Asker, ledger: &Ledger) {
    let (_, applied) = at(node, ledger);
    let token = asker.token.as_deref().expect("a user shows one");
    let owner = ledger.auth().user_of(token, applied);
    assert_eq!(asker.user(), owner, "I21: whose token member {member:x} takes this for, after entry {applied}");
}

/// On whose behalf a client asks: by what it shows, and for nothing that it may not even ask for.
///
/// # Errors
/// Why it may not.
///
/// # Panics
/// When the member sees it otherwise.
pub fn principal(
    node: &SimulatedNode,
    asker: &Asker,
    kind: &Kind,
    ledger: &Ledger,
) -> Result<Option<Principal>, AuthError> {
    let (auth, applied) = at(node, ledger);
    let expected = expected_principal(auth, asker, applied, ledger).and_then(|principal| {
        match kind {
            Kind::Put(_) | Kind::DeleteRange(_) | Kind::Txn(_) => {}
            Kind::LeaseGrant(_) | Kind::LeaseRevoke(_) | Kind::Alarm(_) if !auth.enabled || principal.is_some() => {}
            Kind::LeaseGrant(_) | Kind::LeaseRevoke(_) | Kind::Alarm(_) => return Err(AuthError::UserEmpty),
            _ => auth.judge(principal.as_ref(), kind, |_| Vec::new())?,
        }
        Ok(principal)
    });
    let judged = node.principal(&asker.caller, kind);
    assert_eq!(judged, expected, "I21: on whose behalf {asker:?} asks for {kind:?} after entry {applied}");
    judged
}

fn expected_principal(
    auth: &ModelAuth,
    asker: &Asker,
    applied: u64,
    ledger: &Ledger,
) -> Result<Option<Principal>, AuthError> {
    let (true, Caller::User { name, .. }) = (auth.enabled, &asker.caller) else { return Ok(None) };
    let token = asker.token.as_deref().and_then(|token| ledger.auth().user_of(token, applied));
    token.ok_or(AuthError::InvalidToken)?;
    Ok(Some(Principal { user: name.to_string(), auth_revision: auth.revision }))
}

/// Whether a client may read, of what the member holds now.
///
/// # Panics
/// When the member sees it otherwise.
pub fn may_read(node: &SimulatedNode, asker: &Asker, question: &Question, ledger: &Ledger) -> bool {
    let (auth, applied) = at(node, ledger);
    let (key, range_end) = (&question.key[..], &question.range_end[..]);
    let expected = expected_principal(auth, asker, applied, ledger).and_then(|principal| {
        let user = principal.as_ref().map(|principal| &principal.user[..]);
        auth.may(user, Access::Read, key, range_end)
    });
    let judged = node.may_read(&asker.caller, key, range_end);
    // Where a whole state came meanwhile all tokens end, also those that the log did not.
    if judged == Err(AuthError::InvalidToken) {
        return false;
    }
    assert_eq!(judged, expected, "I21: whether {asker:?} may read {question:?} after entry {applied}");
    judged.is_ok()
}
