//! What this release may apply. An entry that it knows only in part must not be applied at all: a request skipped here and
//! applied elsewhere makes two members differ for good (DESIGN D5).

use basalt_proto::log::request::Kind;
use basalt_proto::log::{LogEntry, MemberChange, Request};
use thiserror::Error;

use super::machine::APPLY_VERSION;

/// Newest form of a log entry that this release reads, and the one that it writes.
pub const LOG_FORMAT_VERSION: u32 = 1;

/// Why an entry is not applied. Nothing of it was.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum NewerEntry {
    /// Its form or its rules are newer.
    #[error(
        "log entry {index} has format {format} and apply version {apply}, this release knows up to {LOG_FORMAT_VERSION} and \
         {APPLY_VERSION}: start the newer release that wrote it"
    )]
    Version {
        /// Where it stands.
        index: u64,
        /// Its format version.
        format: u32,
        /// Its apply version.
        apply: u32,
    },
    /// It holds a request that this release does not know.
    #[error(
        "log entry {index} (format {format}, apply version {apply}) holds a request of a kind that this release does not know, \
         with format {LOG_FORMAT_VERSION} and apply version {APPLY_VERSION}: start the newer release that wrote it"
    )]
    Kind {
        /// Where it stands.
        index: u64,
        /// Its format version.
        format: u32,
        /// Its apply version.
        apply: u32,
    },
}

/// Whether the entry at `index` may be applied.
///
/// # Errors
/// [`NewerEntry`].
pub fn check(index: u64, entry: &LogEntry) -> Result<(), NewerEntry> {
    let (format, apply) = (entry.format_version, entry.apply_version);
    let apply = entry.requests.iter().filter_map(raises_to).fold(apply, u32::max);
    if format > LOG_FORMAT_VERSION || apply > APPLY_VERSION {
        return Err(NewerEntry::Version { index, format, apply });
    }
    if entry.requests.iter().all(is_known) { Ok(()) } else { Err(NewerEntry::Kind { index, format, apply }) }
}

/// The rules that all are to apply by after this request.
fn raises_to(request: &Request) -> Option<u32> {
    match &request.kind {
        Some(Kind::ApplyVersionSet(set)) => Some(set.apply_version),
        _ => None,
    }
}

/// Kinds that [`Machine::apply`](super::machine::Machine::apply) has rules for. One that protobuf does not know reads as
/// none.
fn is_known(request: &Request) -> bool {
    matches!(
        request.kind,
        Some(
            Kind::Put(_)
                | Kind::DeleteRange(_)
                | Kind::Txn(_)
                | Kind::Compaction(_)
                | Kind::LeaseGrant(_)
                | Kind::LeaseRevoke(_)
                | Kind::LeaseCheckpoint(_)
                | Kind::Alarm(_)
                | Kind::HashMark(_)
                | Kind::MemberAttributesSet(_)
                | Kind::MemberDescription(_)
                | Kind::ApplyVersionSet(_)
                | Kind::MemberChange(MemberChange { kind: Some(_) })
                | Kind::AuthEnable(_)
                | Kind::AuthDisable(_)
                | Kind::UserAdd(_)
                | Kind::UserDelete(_)
                | Kind::UserChangePassword(_)
                | Kind::UserGrantRole(_)
                | Kind::UserRevokeRole(_)
                | Kind::RoleAdd(_)
                | Kind::RoleDelete(_)
                | Kind::RoleGrantPermission(_)
                | Kind::RoleRevokePermission(_)
                | Kind::Authentication(_)
                | Kind::DowngradeInfoSet(_)
        )
    )
}

#[cfg(test)]
mod tests {
    use basalt_proto::etcdserverpb::PutRequest;
    use basalt_proto::log::ApplyVersionSet;
    use basalt_proto::membershippb::ClusterVersionSetRequest;
    use prost::Message;

    use super::*;

    fn entry(kind: Option<Kind>) -> LogEntry {
        let requests = vec![Request { id: 1, principal: None, kind }];
        LogEntry { format_version: LOG_FORMAT_VERSION, apply_version: APPLY_VERSION, requests, ..LogEntry::default() }
    }

    #[test]
    fn what_is_newer_is_refused_and_says_what_to_do() {
        let known = entry(Some(Kind::Put(PutRequest::default())));
        assert_eq!(check(7, &known), Ok(()));
        let error = check(7, &LogEntry { format_version: 2, ..known.clone() }).expect_err("newer");
        let text = "log entry 7 has format 2 and apply version 1, this release knows up to 1 and 1: start the newer release \
                    that wrote it";
        assert_eq!(error.to_string(), text);
        let error = check(7, &LogEntry { apply_version: 3, ..known }).expect_err("newer");
        assert_eq!(error, NewerEntry::Version { index: 7, format: 1, apply: 3 });
        let raised_to = |apply_version| entry(Some(Kind::ApplyVersionSet(ApplyVersionSet { apply_version })));
        assert_eq!(check(8, &raised_to(APPLY_VERSION)), Ok(()));
        let error = check(8, &raised_to(APPLY_VERSION + 1)).expect_err("newer rules");
        assert_eq!(error, NewerEntry::Version { index: 8, format: 1, apply: APPLY_VERSION + 1 });
        let error = check(8, &entry(Some(Kind::ClusterVersionSet(ClusterVersionSetRequest::default()))))
            .expect_err("no rules for it");
        assert_eq!(error, NewerEntry::Kind { index: 8, format: 1, apply: APPLY_VERSION });
    }

    #[test]
    fn a_request_of_unknown_number_is_not_skipped() {
        // Field 100, a message of no bytes, where the kind stands.
        let request = [vec![8, 1], vec![0xa2, 0x06, 0]].concat();
        let request = Request::decode(&request[..]).expect("an unknown field is no error");
        let entry = LogEntry { requests: vec![request], ..entry(None) };
        assert!(matches!(check(9, &entry), Err(NewerEntry::Kind { index: 9, .. })));
    }
}
