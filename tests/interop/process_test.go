package interop

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"basalt/tests/interop/harness"
)

// TestStopAndStartAgain ends the server as an operator does: cleanly and with everything kept. Up
// to then nothing was worth an error in the log (etcd-contract section 5).
func TestStopAndStartAgain(t *testing.T) {
	server := harness.StartUnderTest(t)
	writeHistory(t, server)
	granted := strings.Fields(server.Etcdctl("lease", "grant", "5000"))
	server.Etcdctl("put", "leased", "x", "--lease="+granted[1])
	server.Etcdctl("compaction", "30", "--physical")
	server.Etcdctl("put", "last", "x")
	before, hash := everything(t, server), endpointHashKV(t, server)
	if server.LogContains(`"level":"error"`) {
		t.Error("an error in the log")
	}
	server.Stop()
	server.Restart()
	if after := everything(t, server); after.Header.Revision != before.Header.Revision || len(after.Kvs) != len(before.Kvs) {
		t.Errorf("%v before, %v after the restart", before, after)
	}
	if again := endpointHashKV(t, server); again != hash {
		t.Errorf("HashKV %+v before, %+v after the restart", hash, again)
	}
	expectText(t, "lease list", server.Etcdctl("lease", "list"), "found 1 leases", granted[1])
}

// TestEtcdOnTheDirectory starts genuine etcd where the server under test has lived. Its own directory it takes; basalt's
// it must refuse, for it would start empty there otherwise (etcd-contract section 5).
func TestEtcdOnTheDirectory(t *testing.T) {
	server := harness.StartUnderTest(t)
	server.Etcdctl("put", "a", "1")
	server.Stop()
	if server.Kind == harness.Etcd {
		etcd := harness.Start(t, harness.Options{Kind: harness.Etcd, DataDir: server.DataDir})
		expectText(t, "get", etcd.Etcdctl("get", "a"), "a", "1")
		return
	}
	command := exec.CommandContext(harness.Context(t, 30*time.Second), harness.ToolPath(t, "etcd"), "--data-dir="+server.DataDir,
		"--listen-client-urls="+server.Endpoint(), "--advertise-client-urls="+server.Endpoint(),
		"--listen-peer-urls="+server.PeerURL())
	output, err := command.CombinedOutput()
	if err == nil || command.ProcessState.ExitCode() != 1 || !strings.Contains(string(output), "not a directory") {
		t.Errorf("etcd on basalt's directory: exit %d\n%s", command.ProcessState.ExitCode(), output)
	}
}
