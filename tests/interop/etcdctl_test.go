package interop

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"basalt/tests/interop/harness"
)

// expectText fails unless `got` is the wanted lines.
func expectText(t *testing.T, what, got string, want ...string) {
	t.Helper()
	if wanted := strings.Join(want, "\n"); strings.TrimRight(got, "\n") != wanted {
		t.Fatalf("%s printed\n%s\nwant\n%s", what, got, wanted)
	}
}

func TestEtcdctlPutGetDelete(t *testing.T) {
	server := harness.StartUnderTest(t)
	for n, key := range []string{"fruit/c", "fruit/a", "fruit/b", "stone"} {
		expectText(t, "put", server.Etcdctl("put", key, fmt.Sprintf("v%d", n)), "OK")
	}
	server.Etcdctl("put", "fruit/a", "again") // revision 6
	for _, test := range []struct {
		args string
		want []string
	}{
		{"get fruit/a", []string{"fruit/a", "again"}},
		{"get absent", []string{""}},
		{"get fruit/a --rev=3", []string{"fruit/a", "v1"}},
		{"get fruit/a --print-value-only", []string{"again"}},
		{"get --prefix fruit/", []string{"fruit/a", "again", "fruit/b", "v2", "fruit/c", "v0"}},
		{"get --prefix fruit/ --keys-only", []string{"fruit/a", "", "fruit/b", "", "fruit/c"}},
		{"get --prefix fruit/ --limit=1", []string{"fruit/a", "again"}},
		{"get --prefix fruit/ --order=DESCEND --limit=1", []string{"fruit/c", "v0"}},
		{"get --prefix fruit/ --sort-by=CREATE --order=ASCEND --keys-only", []string{"fruit/c", "", "fruit/a", "", "fruit/b"}},
		{"get --prefix fruit/ --sort-by=MODIFY --order=DESCEND --keys-only", []string{"fruit/a", "", "fruit/b", "", "fruit/c"}},
		{"get --prefix fruit/ --sort-by=VERSION --order=DESCEND --limit=1", []string{"fruit/a", "again"}},
		{"get --prefix fruit/ --sort-by=VALUE --order=ASCEND --keys-only", []string{"fruit/a", "", "fruit/c", "", "fruit/b"}},
		{"get fruit/b --from-key --keys-only", []string{"fruit/b", "", "fruit/c", "", "stone"}},
		{"get fruit/a fruit/c --keys-only", []string{"fruit/a", "", "fruit/b"}},
		{"get --prefix fruit/ --consistency=s --print-value-only", []string{"again", "v2", "v0"}},
		{"get --prefix fruit/ --min-mod-rev=5 --keys-only", []string{"fruit/a"}},
		{"del fruit/b --prev-kv", []string{"1", "fruit/b", "v2"}},
		{"del fruit/b", []string{"0"}},
		{"put fruit/a last --prev-kv", []string{"OK", "fruit/a", "again"}},
		{"put fruit/a --ignore-value", []string{"OK"}},
		{"get fruit/a --print-value-only", []string{"last"}},
		{"del --prefix fruit/", []string{"2"}},
	} {
		expectText(t, test.args, server.Etcdctl(strings.Fields(test.args)...), test.want...)
	}
	expectText(t, "del --from-key", server.Etcdctl("del", "--from-key", ""), "1")
	fields := server.Etcdctl("get", "--prefix", "", "--count-only", "-w", "fields")
	if !strings.Contains(fields, `"Count" : 0`) {
		t.Fatalf("after deleting everything: %s", fields)
	}
}

func TestEtcdctlCountOnly(t *testing.T) {
	server := harness.StartUnderTest(t)
	for n := range 12 {
		server.Etcdctl("put", fmt.Sprintf("/registry/events/%02d", n), "x")
	}
	fields := server.Etcdctl("get", "--prefix", "/registry/", "--count-only", "-w", "fields")
	for _, want := range []string{`"Count" : 12`, `"More" : false`, `"Revision" : 13`} {
		if !strings.Contains(fields, want) {
			t.Errorf("count-only lacks %s:\n%s", want, fields)
		}
	}
	fields = server.Etcdctl("get", "--prefix", "/registry/", "--limit=5", "--keys-only", "-w", "fields")
	for _, want := range []string{`"Count" : 12`, `"More" : true`} {
		if !strings.Contains(fields, want) {
			t.Errorf("limited get lacks %s:\n%s", want, fields)
		}
	}
}

func TestEtcdctlTxn(t *testing.T) {
	server := harness.StartUnderTest(t)
	server.Etcdctl("put", "a", "1")
	script := strings.Join([]string{
		`value("a") = "1"`, `mod("a") > "1"`, `ver("absent") = "0"`, "",
		`put b "two words"`, "get a", "del absent", "",
		"put never x", "", "",
	}, "\n")
	expectText(t, "txn", server.EtcdctlIn(script, "txn"), "SUCCESS", "", "OK", "", "a", "1", "", "0")
	expectText(t, "second branch",
		server.EtcdctlIn("value(\"a\") = \"no\"\n\nput c x\n\nget b\nput a 2\n\n", "txn"),
		"FAILURE", "", "b", "two words", "", "OK")
	expectText(t, "result", server.Etcdctl("get", "--prefix", ""), "a", "2", "b", "two words")

	duplicate := server.EtcdctlResult("\nput a 1\nput a 2\n\n\n", "txn")
	if duplicate.Code == 0 || !strings.Contains(duplicate.Stderr, "etcdserver: duplicate key given in txn request") {
		t.Fatalf("txn with a duplicate key: %+v", duplicate)
	}
}

func TestEtcdctlWatch(t *testing.T) {
	server := harness.StartUnderTest(t)
	server.Etcdctl("put", "w/a", "1")
	server.Etcdctl("put", "w/a", "2")
	server.Etcdctl("put", "other", "x")
	server.Etcdctl("del", "w/a")

	server.EtcdctlSession("watch", "w/a", "--rev=2").Expect("PUT", "w/a", "1", "PUT", "w/a", "2", "DELETE", "w/a", "")
	withPrevious := server.EtcdctlSession("watch", "--prefix", "w/", "--rev=3", "--prev-kv")
	withPrevious.Expect("PUT", "w/a", "1", "w/a", "2", "DELETE", "w/a", "2", "w/a", "")

	// The same watcher goes on from the past to the present.
	server.Etcdctl("put", "w/b", "new")
	withPrevious.Expect("PUT", "w/b", "new")
	server.EtcdctlIn("\nput w/c 1\nput w/b 2\nput aside x\n\n\n", "txn")
	withPrevious.Expect("PUT", "w/c", "1", "PUT", "w/b", "new", "w/b", "2")
}

func TestEtcdctlCompaction(t *testing.T) {
	server := harness.StartUnderTest(t)
	for n := range 5 {
		server.Etcdctl("put", "k", fmt.Sprint(n)) // revisions 2 to 6
	}
	expectText(t, "compaction", server.Etcdctl("compaction", "4"), "compacted revision 4")
	expectText(t, "physical compaction", server.Etcdctl("compaction", "5", "--physical"), "compacted revision 5")
	expectText(t, "get at the compact revision", server.Etcdctl("get", "k", "--rev=5"), "k", "3")
	for _, refused := range []struct{ args, text string }{
		{"get k --rev=4", "etcdserver: mvcc: required revision has been compacted"},
		{"get k --rev=7", "etcdserver: mvcc: required revision is a future revision"},
		{"compaction 5", "etcdserver: mvcc: required revision has been compacted"},
		{"compaction 7", "etcdserver: mvcc: required revision is a future revision"},
	} {
		result := server.EtcdctlResult("", strings.Fields(refused.args)...)
		if result.Code != 1 || !strings.Contains(result.Stderr, "Error: "+refused.text) {
			t.Errorf("%s: %+v, want exit 1 and %q", refused.args, result, refused.text)
		}
	}
	watch := server.EtcdctlResult("", "watch", "k", "--rev=2")
	if !strings.Contains(watch.Stderr, "watch was canceled (etcdserver: mvcc: required revision has been compacted)") {
		t.Errorf("watch below the compact revision: %+v", watch)
	}
}

func TestEtcdctlLease(t *testing.T) {
	server := harness.StartUnderTest(t)
	granted := strings.Fields(server.Etcdctl("lease", "grant", "500"))
	if len(granted) != 5 || granted[2] != "granted" || granted[4] != "TTL(500s)" {
		t.Fatalf("lease grant printed %q", granted)
	}
	id := granted[1]
	server.Etcdctl("put", "leased/a", "1", "--lease="+id)
	server.Etcdctl("put", "leased/b", "2", "--lease="+id)
	server.Etcdctl("put", "free", "3")
	expectText(t, "lease list", server.Etcdctl("lease", "list"), "found 1 leases", id)

	var left struct {
		GrantedTTL int64 `json:"granted-ttl"`
		TTL        int64 `json:"ttl"`
		Keys       [][]byte
	}
	text := server.Etcdctl("lease", "timetolive", id, "--keys", "-w", "json")
	if err := json.Unmarshal([]byte(text), &left); err != nil {
		t.Fatalf("lease timetolive: %v in %s", err, text)
	}
	if left.GrantedTTL != 500 || left.TTL <= 400 || left.TTL > 500 || len(left.Keys) != 2 {
		t.Fatalf("lease timetolive: %s", text)
	}
	expectText(t, "keep-alive", server.Etcdctl("lease", "keep-alive", "--once", id),
		fmt.Sprintf("lease %s keepalived with TTL(500)", id))
	expectText(t, "revoke", server.Etcdctl("lease", "revoke", id), fmt.Sprintf("lease %s revoked", id))
	expectText(t, "keys after revoke", server.Etcdctl("get", "--prefix", ""), "free", "3")
	expectText(t, "revoked lease", server.Etcdctl("lease", "timetolive", id), fmt.Sprintf("lease %s already expired", id))
	expectText(t, "lease list", server.Etcdctl("lease", "list"), "found 0 leases")

	result := server.EtcdctlResult("", "put", "x", "y", "--lease=1234")
	if result.Code == 0 || !strings.Contains(result.Stderr, "etcdserver: requested lease not found") {
		t.Fatalf("put with an unknown lease: %+v", result)
	}
}

// TestEtcdctlLeaseExpires waits for a real expiry: the shortest lease is 2 s (etcd-contract 33).
func TestEtcdctlLeaseExpires(t *testing.T) {
	server := harness.StartUnderTest(t)
	if granted := strings.Fields(server.Etcdctl("lease", "grant", "1")); granted[4] != "TTL(2s)" {
		t.Fatalf("lease of 1 s was granted as %v", granted)
	}
	session := server.EtcdctlSession("watch", "--prefix", "", "--rev=2", "--prev-kv")
	// Without a process start in between, which could take as long as the lease on a busy machine.
	client, ctx := server.Client(t), harness.Context(t, 20*time.Second)
	lease, err := client.Grant(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	attached := clientv3.WithLease(lease.ID)
	if _, err := client.Txn(ctx).Then(clientv3.OpPut("b", "2", attached), clientv3.OpPut("a", "1", attached)).Commit(); err != nil {
		t.Fatal(err)
	}
	session.Expect("PUT", "b", "2", "PUT", "a", "1")
	// Both go in one revision, in the order of keys.
	session.Expect("DELETE", "a", "1", "a", "", "DELETE", "b", "2", "b", "")
	fields := server.Etcdctl("get", "a", "-w", "fields")
	if !strings.Contains(fields, `"Revision" : 3`) {
		t.Fatalf("expiry took more than one revision: %s", fields)
	}
}

// TestEtcdctlElectAndLock uses what etcdctl builds in the client from leases, transactions and watches; it needs neither
// of the services v3lockpb and v3electionpb.
func TestEtcdctlElectAndLock(t *testing.T) {
	server := harness.StartUnderTest(t)
	lock := server.EtcdctlSession("lock", "mutex")
	holder := lock.Next()
	if !strings.HasPrefix(holder, "mutex/") {
		t.Fatalf("lock printed %q", holder)
	}
	elected := server.EtcdctlSession("elect", "chair", "anna")
	if key, value := elected.Next(), elected.Next(); !strings.HasPrefix(key, "chair/") || value != "anna" {
		t.Fatalf("elect printed %q %q", key, value)
	}
}
