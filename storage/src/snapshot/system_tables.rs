//! The small buckets of a snapshot: everything that is not a revision of a key.
//!
//! Encodings are those of etcd's `server/storage/schema`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::protobuf::Message;
use crate::revision::Revision;

/// The bucket of the revisions, which these tables do not hold.
pub const KEY_BUCKET: &str = "key";

/// etcd's storage and cluster version whose schema this is: minor release only, patch always 0.
pub const SCHEMA_VERSION: &str = "3.7.0";

const ALARM: &str = "alarm";
const AUTH: &str = "auth";
const AUTH_ROLES: &str = "authRoles";
const AUTH_USERS: &str = "authUsers";
const CLUSTER: &str = "cluster";
const LEASE: &str = "lease";
const MEMBERS: &str = "members";
const MEMBERS_REMOVED: &str = "members_removed";
const META: &str = "meta";

/// The buckets beside [`KEY_BUCKET`] that etcd creates, and expects, in every file.
const BUCKETS: [&str; 9] = [ALARM, AUTH, AUTH_ROLES, AUTH_USERS, CLUSTER, LEASE, MEMBERS, MEMBERS_REMOVED, META];

/// Entries of one bucket.
pub type Table = BTreeMap<Vec<u8>, Vec<u8>>;

/// All buckets but `key`, by name. Every `with_` sets or replaces what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemTables {
    tables: BTreeMap<&'static str, Table>,
}

/// A member of the cluster, as bucket `members` keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberRecord {
    /// Its id; the key in hexadecimal.
    pub id: u64,
    /// Empty until the member has started once.
    pub name: String,
    /// Where its peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until the member has started once.
    pub client_urls: Vec<String>,
    /// Whether it does not vote yet.
    pub is_learner: bool,
}

/// The Raft configuration, as record `confState` keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConfStateRecord {
    /// Ids of the voters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub voters: Vec<u64>,
    /// Ids of the learners.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub learners: Vec<u64>,
    /// Voters of the configuration that a joint one leaves.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub voters_outgoing: Vec<u64>,
    /// Voters of the outgoing configuration that become learners.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub learners_next: Vec<u64>,
    /// Whether a joint configuration is left by itself.
    pub auto_leave: bool,
}

impl Default for SystemTables {
    fn default() -> Self {
        Self::new()
    }
}

impl SystemTables {
    /// Empty tables but for the versions, without which etcd takes the file for one of release 3.5.
    pub fn new() -> Self {
        let tables = Self { tables: BUCKETS.into_iter().map(|name| (name, Table::new())).collect() };
        tables.with_version(SCHEMA_VERSION)
    }

    /// Storage and cluster version, of etcd's that knows this schema: 3.6.0, between which and 3.7.0 nothing changed
    /// (`schemaChanges`), or 3.7.0.
    #[must_use]
    pub fn with_version(mut self, version: &str) -> Self {
        self.put(META, "storageVersion", version);
        self.put(CLUSTER, "clusterVersion", version);
        self
    }

    /// The buckets with their entries, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Table)> {
        self.tables.iter().map(|(name, table)| (*name, table))
    }

    /// Index and term of the last applied log entry. etcd needs both above 0 to take the file for its own schema.
    #[must_use]
    pub fn with_applied(mut self, index: u64, term: u64) -> Self {
        self.put(META, "consistent_index", index.to_be_bytes());
        self.put(META, "term", term.to_be_bytes());
        self
    }

    /// The compact revision, as scheduled and finished: bucket `key` must be what a finished compaction leaves. Not
    /// called when nothing was ever compacted.
    #[must_use]
    pub fn with_compact_revision(mut self, main: i64) -> Self {
        let revision = Revision::new(main, 0).to_key();
        self.put(META, "scheduledCompactRev", revision);
        self.put(META, "finishedCompactRev", revision);
        self
    }

    /// The Raft configuration.
    #[must_use]
    pub fn with_conf_state(mut self, conf_state: &ConfStateRecord) -> Self {
        let json = serde_json::to_vec(conf_state).expect("numbers, lists and a flag always encode");
        self.put(META, "confState", json);
        self
    }

    /// The downgrade in progress; an empty target and `false` if there is none.
    #[must_use]
    pub fn with_downgrade(mut self, target_version: &str, enabled: bool) -> Self {
        #[derive(Serialize)]
        struct Downgrade<'a> {
            #[serde(rename = "target-version")]
            target_version: &'a str,
            enabled: bool,
        }
        let json = serde_json::to_vec(&Downgrade { target_version, enabled });
        self.put(CLUSTER, "downgrade", json.expect("a text and a flag always encode"));
        self
    }

    /// A member; `etcdutl snapshot restore` drops them all and puts its own.
    #[must_use]
    pub fn with_member(mut self, member: &MemberRecord) -> Self {
        self.put(MEMBERS, format!("{:x}", member.id), member.to_json());
        self
    }

    /// The id of a member that was removed and must not come back.
    #[must_use]
    pub fn with_removed_member(mut self, id: u64) -> Self {
        self.put(MEMBERS_REMOVED, format!("{id:x}"), "removed");
        self
    }

    /// An alarm of a member; `alarm` is the number of etcd's `AlarmType`. The record is all key.
    #[must_use]
    pub fn with_alarm(mut self, member_id: u64, alarm: i32) -> Self {
        let message = Message::new().number(1, member_id).number(2, i64::from(alarm) as u64);
        self.put(ALARM, message.into_bytes(), "");
        self
    }

    /// A lease; seconds. `remaining_ttl` is 0 unless a checkpoint shortened it.
    #[must_use]
    pub fn with_lease(mut self, id: i64, ttl: i64, remaining_ttl: i64) -> Self {
        let message = Message::new().number(1, id as u64).number(2, ttl as u64).number(3, remaining_ttl as u64);
        self.put(LEASE, id.to_be_bytes(), message.into_bytes());
        self
    }

    /// Whether requests are checked, and the revision of users and roles (1 at first).
    #[must_use]
    pub fn with_auth(mut self, enabled: bool, revision: u64) -> Self {
        self.put(AUTH, "authEnabled", [u8::from(enabled)]);
        self.put(AUTH, "authRevision", revision.to_be_bytes());
        self
    }

    /// A user, as an encoded `authpb.User`.
    #[must_use]
    pub fn with_user(mut self, name: &[u8], encoded: Vec<u8>) -> Self {
        self.put(AUTH_USERS, name, encoded);
        self
    }

    /// A role, as an encoded `authpb.Role`.
    #[must_use]
    pub fn with_role(mut self, name: &[u8], encoded: Vec<u8>) -> Self {
        self.put(AUTH_ROLES, name, encoded);
        self
    }

    fn put(&mut self, bucket: &'static str, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let table = self.tables.entry(bucket).or_default();
        table.insert(key.as_ref().to_vec(), value.as_ref().to_vec());
    }
}

impl MemberRecord {
    /// Field order and omissions as in etcd's `membership.Member`.
    fn to_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Member<'a> {
            id: u64,
            #[serde(rename = "peerURLs")]
            peer_urls: &'a [String],
            #[serde(rename = "isLearner", skip_serializing_if = "std::ops::Not::not")]
            is_learner: bool,
            #[serde(skip_serializing_if = "str::is_empty")]
            name: &'a str,
            #[serde(rename = "clientURLs", skip_serializing_if = "<[String]>::is_empty")]
            client_urls: &'a [String],
        }
        let Self { id, name, peer_urls, client_urls, is_learner } = self;
        let member = Member { id: *id, peer_urls, is_learner: *is_learner, name, client_urls };
        serde_json::to_vec(&member).expect("numbers, texts and a flag always encode")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only<'a>(tables: &'a SystemTables, bucket: &str) -> (&'a [u8], &'a [u8]) {
        let (key, value) = tables.tables[bucket].first_key_value().unwrap();
        (key, value)
    }

    #[test]
    fn all_buckets_exist_in_byte_order() {
        let names: Vec<_> = SystemTables::new().iter().map(|(name, _)| name).collect();
        assert_eq!(names, BUCKETS);
        assert!(BUCKETS.is_sorted());
    }

    /// The expected texts were read from the file of an etcd 3.7.3.
    #[test]
    fn json_records_are_etcds() {
        let id = 7383792418829112008;
        let peer_urls = vec!["http://127.0.0.1:42380".to_owned()];
        let client_urls = vec!["http://127.0.0.1:42379".to_owned()];
        let member = MemberRecord { id, name: "default".into(), peer_urls, client_urls, is_learner: false };
        let conf_state = ConfStateRecord { voters: vec![id], ..Default::default() };
        let tables = SystemTables::new().with_member(&member).with_conf_state(&conf_state);
        let json = [
            r#"{"id":7383792418829112008,"peerURLs":["http://127.0.0.1:42380"],"#,
            r#""name":"default","clientURLs":["http://127.0.0.1:42379"]}"#,
        ];
        assert_eq!(only(&tables, MEMBERS), (b"667880157b8812c8".as_slice(), json.concat().as_bytes()));
        assert_eq!(only(&tables, META).1, br#"{"voters":[7383792418829112008],"auto_leave":false}"#);
        let idle = SystemTables::new().with_downgrade("", false);
        assert_eq!(idle.tables[CLUSTER][b"downgrade".as_slice()], br#"{"target-version":"","enabled":false}"#);
    }

    #[test]
    fn a_new_learner_shows_no_name_and_no_client_urls() {
        let member = MemberRecord {
            id: 1,
            name: String::new(),
            peer_urls: vec!["http://p".into()],
            client_urls: vec![],
            is_learner: true,
        };
        assert_eq!(member.to_json(), br#"{"id":1,"peerURLs":["http://p"],"isLearner":true}"#);
    }

    #[test]
    fn binary_records_are_etcds() {
        let tables = SystemTables::new().with_lease(-1, 60, 0).with_alarm(300, 1).with_applied(258, 3);
        let lease = [&[0x08][..], &[0xff; 9], &[0x01, 0x10, 60]].concat();
        assert_eq!(only(&tables, LEASE), ([0xff; 8].as_slice(), lease.as_slice()));
        assert_eq!(only(&tables, ALARM), ([0x08, 0xac, 0x02, 0x10, 0x01].as_slice(), [].as_slice()));
        assert_eq!(tables.tables[META][b"consistent_index".as_slice()], [0, 0, 0, 0, 0, 0, 1, 2]);
        let compacted = SystemTables::new().with_compact_revision(5);
        assert_eq!(compacted.tables[META][b"finishedCompactRev".as_slice()], *b"\0\0\0\0\0\0\0\x05_\0\0\0\0\0\0\0\0");
    }
}
