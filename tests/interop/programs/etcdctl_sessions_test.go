package programs

import (
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"basalt/tests/interop/harness"
)

// put writes without the start of a process, which could take as long as a lease.
func put(t *testing.T, server *harness.Server, keysAndValues ...string) int64 {
	t.Helper()
	client, ctx := server.Client(t), harness.Context(t, waitMax)
	revision := int64(0)
	for n := 0; n < len(keysAndValues); n += 2 {
		answer, err := client.Put(ctx, keysAndValues[n], keysAndValues[n+1])
		if err != nil {
			t.Fatal(err)
		}
		revision = answer.Header.Revision
	}
	return revision
}

func tryWatches(t *testing.T) {
	server := harness.StartUnderTest(t, "--watch-progress-notify-interval=100ms")
	put(t, server, "w/a", "1", "w/b", "2", "x", "3") // revisions 2 to 4

	ranged := server.EtcdctlSession("watch", "w/a", "w/b", "--rev=2")
	ranged.Expect("PUT", "w/a", "1")
	asJSON := server.EtcdctlSession("watch", "--prefix", "w/", "--rev=3", "-w", "json")
	if line := asJSON.Next(); !strings.Contains(line, `"Events":[{"kv":{"key":"dy9i","create_revision":3,"mod_revision":3,"version":1,"value":"Mg=="}}]`) {
		t.Errorf("watch in JSON: %s", line)
	}
	inHex := server.EtcdctlSession("watch", "--prefix", "w/", "--rev=3", "--hex")
	inHex.Expect("PUT", `\x77\x2f\x62`, `\x32`)
	notified := server.EtcdctlSession("watch", "quiet", "--progress-notify")
	notified.Expect("progress notify: 4")

	executing := server.EtcdctlSession("watch", "--prefix", "w/", "--rev=2", "--prev-kv", "--",
		"sh", "-c", "echo $ETCD_WATCH_REVISION $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY $ETCD_WATCH_VALUE")
	executing.Expect("PUT", "w/a", "1", "PUT", "w/b", "2")
	executing.Expect(`4 "PUT" "w/a" "1"`, `4 "PUT" "w/b" "2"`)
	put(t, server, "w/b", "3")
	executing.Expect("PUT", "w/b", "2", "w/b", "3", `5 "PUT" "w/b" "3"`)

	typed := server.EtcdctlSession("watch", "-i")
	typed.Type("watch w/a --rev=2\n")
	typed.Expect("PUT", "w/a", "1")
	typed.Type("watch --prefix w/b --rev=5 --prev-kv -- echo ran\n")
	typed.Expect("PUT", "w/b", "2", "w/b", "3", "ran")
	typed.Type("progress\n")
	typed.Expect("progress notify: 5", "progress notify: 5") // of each watch
	if _, err := server.Client(t).Delete(harness.Context(t, waitMax), "w/a"); err != nil {
		t.Fatal(err)
	}
	typed.Expect("DELETE", "w/a", "")
}

func tryLocksAndElections(t *testing.T) {
	server := harness.StartUnderTest(t)
	expectText(t, "lock with a command", server.Etcdctl("lock", "--ttl=60", "job", "--", "sh", "-c", "echo $ETCD_LOCK_REV ${ETCD_LOCK_KEY%/*}"), "2 job")
	failed := server.EtcdctlResult("", "lock", "job", "--", "sh", "-c", "exit 7")
	if failed.Code != 7 {
		t.Errorf("lock with a command that fails: %+v", failed)
	}
	first := server.EtcdctlSession("lock", "mutex")
	if key := first.Next(); !strings.HasPrefix(key, "mutex/") {
		t.Fatalf("lock printed %q", key)
	}
	second := server.EtcdctlSession("lock", "mutex")
	await(t, "two in the queue", func() bool { return count(t, server, "mutex/") == 2 })
	first.Interrupt()
	if key := second.Next(); !strings.HasPrefix(key, "mutex/") {
		t.Fatalf("the second lock printed %q", key)
	}
	second.Interrupt()
	second.Rest()
	if left := count(t, server, "mutex/"); left != 0 {
		t.Errorf("%d keys of a lock that nobody holds", left)
	}

	listening := server.EtcdctlSession("elect", "--listen", "chair")
	anna := server.EtcdctlSession("elect", "chair", "anna")
	key := anna.Next()
	anna.Expect("anna")
	listening.Expect(key, "anna")
	ben := server.EtcdctlSession("elect", "chair", "ben")
	await(t, "two candidates", func() bool { return count(t, server, "chair/") == 2 })
	anna.Interrupt()
	key = ben.Next()
	ben.Expect("ben")
	listening.Expect(key, "ben")

	granted := strings.Fields(server.Etcdctl("lease", "grant", "3"))[1]
	alive := server.EtcdctlSession("lease", "keep-alive", granted)
	for range 2 {
		alive.Expect(fmt.Sprintf("lease %s keepalived with TTL(3)", granted))
	}
	server.Etcdctl("lease", "revoke", granted)
	rest := alive.Rest()
	if last := rest[len(rest)-1]; last != fmt.Sprintf("lease %s expired or revoked.", granted) {
		t.Errorf("keep-alive of a lease that is gone: %q", rest)
	}
}

func count(t *testing.T, server *harness.Server, prefix string) int64 {
	t.Helper()
	answer, err := server.Client(t).Get(harness.Context(t, waitMax), prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		t.Fatal(err)
	}
	return answer.Count
}

// tryMirrors: what is there, what comes, in whole transactions or in parts, and what goes.
func tryMirrors(t *testing.T) {
	from := harness.StartUnderTest(t)
	put(t, from, "app/a", "1", "app/b", "2", "other", "3") // revisions 2 to 4
	to := harness.StartUnderTest(t)
	var sessions []*harness.Session
	for _, args := range [][]string{
		{"--prefix=app/"}, // to the same names
		{"--prefix=app/", "--dest-prefix=copy/", "--max-txn-ops=2"},
		{"--prefix=app/", "--no-dest-prefix"},
		{"--prefix=app/", "--dest-prefix=late/", "--rev=3"},
		{"--dest-prefix=all/"},
	} {
		sessions = append(sessions, from.EtcdctlSession(append(append([]string{"make-mirror"}, args...), to.Target())...))
	}
	expectMirrored(t, to, "a=1 all/app/a=1 all/app/b=2 all/other=3 app/a=1 app/b=2 b=2 copy/a=1 copy/b=2 late/b=2")
	from.EtcdctlIn("\nput app/c 5\nput app/d 6\nput app/e 7\ndel app/a\n\n\n", "txn")
	put(t, from, "app/b", "8")
	expectMirrored(t, to, "all/app/b=8 all/app/c=5 all/app/d=6 all/app/e=7 all/other=3 app/b=8 app/c=5 app/d=6 app/e=7 "+
		"b=8 c=5 copy/b=8 copy/c=5 copy/d=6 copy/e=7 d=6 e=7 late/b=8 late/c=5 late/d=6 late/e=7")
	for _, session := range sessions {
		session.HasWorked()
	}
	put(t, from, "x", "1")
	from.Etcdctl("compaction", "6")
	refused := from.EtcdctlResult("", "make-mirror", "--rev=3", to.Target())
	if refused.Code == 0 || !strings.Contains(refused.Stderr, "required revision has been compacted") {
		t.Errorf("make-mirror of what is compacted: %+v", refused)
	}
}

// expectMirrored waits until a store holds these keys and no others.
func expectMirrored(t *testing.T, to *harness.Server, want string) {
	t.Helper()
	client, ctx, got := to.Client(t), harness.Context(t, waitMax), ""
	for got != want {
		answer, err := client.Get(ctx, "", clientv3.WithFromKey())
		if err != nil {
			t.Fatalf("the mirror has %q, want %q: %v", got, want, err)
		}
		var keys []string
		for _, kv := range answer.Kvs {
			keys = append(keys, string(kv.Key)+"="+string(kv.Value))
		}
		got = strings.Join(keys, " ")
		time.Sleep(20 * time.Millisecond)
	}
}

func trySecuredMirror(t *testing.T) {
	from := harness.StartUnderTest(t)
	put(t, from, "a", "1")
	certificates := harness.NewCertificates(t)
	to := harness.Start(t, harness.Options{TLS: certificates, Args: []string{"--bcrypt-cost=4"}})
	for _, args := range [][]string{
		{"user", "add", "root:secret"}, {"user", "grant-role", "root", "root"}, {"auth", "enable"},
	} {
		to.Etcdctl(args...)
	}
	secured := []string{
		"--dest-cacert=" + certificates.Authority, "--dest-cert=" + certificates.ClientCert, "--dest-key=" + certificates.ClientKey,
		"--dest-insecure-transport=false", "--dest-user=root",
	}
	session := from.EtcdctlSession(append(append([]string{"make-mirror"}, secured...), "--dest-password=secret", to.Endpoint())...)
	await(t, "the mirror has the key", func() bool { return to.Etcdctl("--user=root:secret", "get", "a") == "a\n1\n" })
	put(t, from, "a", "2")
	await(t, "the mirror has the new value", func() bool { return to.Etcdctl("--user=root:secret", "get", "a") == "a\n2\n" })
	session.HasWorked()
}

// tokenOf logs in.
func tokenOf(t *testing.T, server *harness.Server, name, password string) string {
	t.Helper()
	answer, err := server.Client(t).Authenticate(harness.Context(t, waitMax), name, password)
	if err != nil {
		t.Fatal(err)
	}
	return answer.Token
}
