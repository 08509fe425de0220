package interop

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"basalt/tests/interop/harness"
)

// decode reads the JSON that an etcdctl command printed.
func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var value T
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return value
}

// hashKV is what `endpoint hashkv` and `etcdutl hashkv` print.
type hashKV struct {
	Hash            uint32 `json:"hash"`
	CompactRevision int64  `json:"compact_revision"`
	HashRevision    int64  `json:"hash_revision"`
}

func endpointHashKV(t *testing.T, server *harness.Server, args ...string) hashKV {
	t.Helper()
	text := server.Etcdctl(append([]string{"endpoint", "hashkv", "-w", "json"}, args...)...)
	answers := decode[[]struct{ HashKV hashKV }](t, text)
	if len(answers) != 1 {
		t.Fatalf("endpoint hashkv: %s", text)
	}
	return answers[0].HashKV
}

func TestEtcdctlEndpointAndMember(t *testing.T) {
	server := harness.StartUnderTest(t)
	type member struct {
		ID                   uint64
		Name                 string
		PeerURLs, ClientURLs []string
		IsLearner            bool
	}
	members := decode[struct{ Members []member }](t, server.Etcdctl("member", "list", "-w", "json")).Members
	if len(members) != 1 || members[0].Name != "default" || members[0].ID == 0 || members[0].IsLearner ||
		fmt.Sprint(members[0].PeerURLs, members[0].ClientURLs) != fmt.Sprintf("[%s] [%s]", server.PeerURL(), server.Endpoint()) {
		t.Fatalf("member list: %+v", members)
	}
	expectText(t, "member list", server.Etcdctl("member", "list"), fmt.Sprintf("%x, started, default, %s, %s, false",
		members[0].ID, server.PeerURL(), server.Endpoint()))

	type status struct {
		Version, StorageVersion          string
		Leader, RaftIndex, RaftTerm      uint64
		DBSize, DBSizeInUse, DBSizeQuota int64
		Errors                           []string
	}
	statuses := decode[[]struct{ Status status }](t, server.Etcdctl("endpoint", "status", "-w", "json"))
	got := statuses[0].Status
	if got.Version != "3.7.3" || got.StorageVersion != "3.7.0" || got.Leader != members[0].ID || got.RaftIndex == 0 ||
		got.RaftTerm == 0 || got.DBSize <= 0 || got.DBSizeQuota != 2<<30 || len(got.Errors) != 0 {
		t.Fatalf("endpoint status: %+v", got)
	}
	healths := decode[[]struct{ Health bool }](t, server.Etcdctl("endpoint", "health", "-w", "json"))
	if len(healths) != 1 || !healths[0].Health {
		t.Fatalf("endpoint health: %+v", healths)
	}
	expectText(t, "alarm list", server.Etcdctl("alarm", "list"), "")
	if text := server.Etcdctl("defrag"); !strings.Contains(text, "Finished defragmenting etcd member["+server.Endpoint()) {
		t.Fatalf("defrag: %s", text)
	}
}

// TestHashKVAsEtcd computes the hash of one history on the server under test and on genuine etcd.
func TestHashKVAsEtcd(t *testing.T) {
	server, etcd := harness.StartUnderTest(t), harness.Start(t, harness.Options{Kind: harness.Etcd})
	var hashes [2][]hashKV
	for n, each := range []*harness.Server{server, etcd} {
		writeHistory(t, each)
		each.Etcdctl("compaction", "40", "--physical")
		for _, revision := range []string{"40", "41", "55", "0"} {
			hashes[n] = append(hashes[n], endpointHashKV(t, each, "--rev="+revision))
		}
	}
	if fmt.Sprint(hashes[0]) != fmt.Sprint(hashes[1]) {
		t.Fatalf("hashes differ:\n%s %+v\ngenuine etcd %+v", server.Kind, hashes[0], hashes[1])
	}
}

// writeHistory leaves keys in every shard, overwritten, deleted and leased ones among them.
func writeHistory(t *testing.T, server *harness.Server) {
	t.Helper()
	client := server.Client(t)
	ctx := harness.Context(t, time.Minute)
	for n := range 60 {
		key := fmt.Sprintf("%s%d", []string{"/registry/events/", "/registry/leases/", "/registry/pods/", "x"}[n%4], n%20)
		if _, err := client.Put(ctx, key, strings.Repeat(fmt.Sprint(n), n)); err != nil {
			t.Fatal(err)
		}
		if n%7 == 0 {
			if _, err := client.Delete(ctx, key); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestSnapshotRestoresIntoEtcd saves a snapshot with etcdctl, restores it with etcdutl, and starts genuine etcd from it.
func TestSnapshotRestoresIntoEtcd(t *testing.T) {
	server := harness.StartUnderTest(t)
	writeHistory(t, server)
	server.Etcdctl("compaction", "30", "--physical")
	granted := strings.Fields(server.Etcdctl("lease", "grant", "5000"))
	server.Etcdctl("put", "leased", "x", "--lease="+granted[1])
	before, hash := everything(t, server), endpointHashKV(t, server)

	dir := t.TempDir()
	snapshot := filepath.Join(dir, "snapshot.db")
	server.Etcdctl("snapshot", "save", snapshot)
	status := statusOf(t, snapshot)
	if status.Revision != before.Header.Revision || status.TotalKey < len(before.Kvs) || status.Version != "3.7.0" {
		t.Fatalf("snapshot status: %+v, the store was at %d", status, before.Header.Revision)
	}

	restored := filepath.Join(dir, "restored")
	harness.Etcdutl(t, "snapshot", "restore", snapshot, "--data-dir", restored)
	etcd := harness.Start(t, harness.Options{Kind: harness.Etcd, DataDir: restored})
	after := everything(t, etcd)
	if before.Header.Revision != after.Header.Revision {
		t.Errorf("revision %d became %d", before.Header.Revision, after.Header.Revision)
	}
	before.Header, after.Header = nil, nil
	if !proto.Equal(before, after) {
		t.Errorf("keys differ:\nbefore %v\n after %v", before, after)
	}
	if again := endpointHashKV(t, etcd); again != hash {
		t.Errorf("HashKV %+v became %+v", hash, again)
	}
	expectText(t, "leases after restore", etcd.Etcdctl("lease", "list"), "found 1 leases", granted[1])
}

type snapshotStatus struct {
	Revision int64
	TotalKey int
	Version  string
}

func statusOf(t *testing.T, snapshot string) snapshotStatus {
	t.Helper()
	return decode[snapshotStatus](t, harness.Etcdutl(t, "snapshot", "status", snapshot, "-w", "json"))
}

func everything(t *testing.T, server *harness.Server) *pb.RangeResponse {
	t.Helper()
	return everythingAt(t, server, 0)
}

// everythingAt reads an older revision.
func everythingAt(t *testing.T, server *harness.Server, revision int64) *pb.RangeResponse {
	t.Helper()
	response, err := pb.NewKVClient(server.Conn(t)).Range(harness.Context(t, 30*time.Second),
		&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: revision})
	if err != nil {
		t.Fatal(err)
	}
	return response
}
