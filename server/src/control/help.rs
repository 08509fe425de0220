//! What `--help` prints.

use super::command_line::Topic;

const ALL: &str = "\
basaltctl: what is done to data of basalt while no node runs on it, and to a cluster that runs.

Usage:
  basaltctl snapshot restore FILE [flags]   make a data directory from a snapshot, of etcd or of basalt
  basaltctl snapshot status FILE            print hash, revision, keys, size and version of a snapshot
  basaltctl check DIR                       read a whole data directory and say what is damaged
  basaltctl status [flags]                  print each member: role, term, index, lag, sizes, sync time of its log, alarms
  basaltctl member list|add|remove|promote|replace ...
                                            who belongs to the cluster, and changes of that
  basaltctl reseed --data-dir DIR [flags]   give a member with damaged data that of the others
  basaltctl openapi                         print the JSON gateway as a document of OpenAPI
  basaltctl version                         print the versions
  basaltctl COMMAND --help                  print the flags of a command

A snapshot is taken from a running server with `etcdctl snapshot save FILE`.
Exit codes: 0 done; 1 it failed; 2 the command line cannot be parsed. Of a check: 0 no damage; 1 damage; 2 it could not look.
";

const RESTORE: &str = "\
Makes a data directory from a snapshot, of etcd 3.7 or older or of basalt: all revisions, leases, alarms, users and roles.
Members are not taken over: those that --initial-cluster names are a new cluster, as after `etcdutl snapshot restore`. For one
of several members, run it once for each, with the same file, --initial-cluster and --initial-cluster-token.

Usage:
  basaltctl snapshot restore FILE --data-dir DIR [flags]

Flags:
  --data-dir DIR                       the directory to make; missing or empty. Default: the name, and '.etcd'
  --wal-dir DIR                        where the log will lie, if elsewhere; missing or empty. Give it to basalt too
  --name NAME                          name of the member. Default 'default'
  --initial-cluster NAME=URL,...       all members and their peer URLs. Default 'default=http://localhost:2380'
  --initial-cluster-token TOKEN        goes into the ids of member and cluster. Default 'etcd-cluster'
  --initial-advertise-peer-urls URLS   peer URLs of the member. Default 'http://localhost:2380'
  --skip-hash-check                    do not compare the digest; needed for a database copied from a data directory
  --bump-revision N                    raise the revision by N, so that no client finds it lower than before
  --mark-compacted                     and compact there, so that old watches start anew. Both or neither
  --basalt-initial-shards SHARDS       how keys are split, as basalt's flag of that name
  --initial-memory-map-size N          accepted, without effect

An interrupted restore is repeated with the same command.
";

const STATUS: &str = "\
Prints one line: hash, revision, number of keys, size in bytes, version. The hash is that of `etcdutl snapshot status`.

Usage:
  basaltctl snapshot status FILE
";

const CHECK: &str = "\
Reads all that counts in a data directory whose node is stopped: manifest, log, index and pages, with every checksum, that
each page is used once and none is lost, and that index and pages agree. It changes nothing. What is found goes to standard
output, one line each: 'damage' is what a node would refuse or answer wrongly, 'note' what a crash may leave.

Usage:
  basaltctl check DIR [flags]

Flags:
  --wal-dir DIR   where the log lies, if elsewhere
";

macro_rules! cluster_flags {
    () => {
        "\
  --endpoints HOST:PORT,...   members to ask, one after the other until one answers. Default 127.0.0.1:2379
  --cacert FILE               certificates that sign the members', PEM; needed for https://
  --cert FILE, --key FILE     certificate and key to show, PEM
  --user NAME:PASSWORD        as whom, where authentication is on; the password may stand in --password instead
  -w, --write-out FORM        simple, table or json. Default simple
  --command-timeout SECONDS   how long one answer may take. Default 20
"
    };
}

const CLUSTER_STATUS: &str = concat!(
    "\
Asks who belongs to the cluster, then each member for itself: id, name, endpoint, role, version, term, index, applied index,
entries behind the newest, bytes of its data, the time that one in a hundred syncs of its log exceeds, alarms and errors.

Usage:
  basaltctl status [flags]

Flags:
",
    cluster_flags!()
);

const MEMBER: &str = concat!(
    "\
Lists or changes the members of a cluster.

Usage:
  basaltctl member list [flags]
  basaltctl member add NAME --peer-urls URL,... [--learner] [flags]   prints the flags of the new member
  basaltctl member remove ID [flags]
  basaltctl member promote ID [flags]                                 a learner that has caught up votes from then on
  basaltctl member replace ID NAME --peer-urls URL,... [flags]        removes a lost member, adds a learner in its place, waits
                                                                      until it was started and has caught up, and promotes it

Flags:
",
    cluster_flags!(),
    "\
  --wait-timeout SECONDS      how long a replacement may take. Default 3600
"
);

const RESEED: &str = concat!(
    "\
Gives a stopped member whose log or pages are damaged the data of the others. Run it where its data lies: the member is
removed and added anew as a learner, its old data is moved aside within its directories, and once you have started it, with its
usual flags, it is brought the data and promoted. Interrupted, the same command goes on.

Usage:
  basaltctl reseed --data-dir DIR --endpoints OTHERS [flags]

Flags:
  --data-dir DIR              the member's data directory
  --wal-dir DIR               where its log lies, if elsewhere
  --member ID                 its id, if the directory cannot say it any more
  --no-wait                   do not wait for the start: promote it later with `basaltctl member promote`
",
    cluster_flags!(),
    "\
  --wait-timeout SECONDS      how long it may take until it votes. Default 3600
"
);

const OPEN_API: &str = "\
Prints what a node of this release serves as JSON under /v3/, as a document of OpenAPI 3.0: each path, request, answer and
error, for generators of clients and for validators. Names are those of the files that etcd publishes. It asks nobody.

Usage:
  basaltctl openapi > basalt.openapi.json
";

pub(super) fn text(topic: Topic) -> &'static str {
    match topic {
        Topic::All => ALL,
        Topic::Restore => RESTORE,
        Topic::Status => STATUS,
        Topic::Check => CHECK,
        Topic::ClusterStatus => CLUSTER_STATUS,
        Topic::Member => MEMBER,
        Topic::Reseed => RESEED,
        Topic::OpenApi => OPEN_API,
    }
}
