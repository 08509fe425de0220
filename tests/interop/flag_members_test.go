package interop

import (
	"errors"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"basalt/tests/interop/harness"
)

// observeElectionTickAdvance: a start with others says whether it hurries.
func observeElectionTickAdvance(t *testing.T) {
	kind := harness.UnderTest(t)
	// Long enough that all three are there before one of them leads.
	slow := []string{"--heartbeat-interval=300", "--election-timeout=4500"}
	for _, member := range harness.StartMembers(t, kind, 3, append(slow, "--initial-election-tick-advance=false")...) {
		if !member.LogContains("skipping initial election tick advance") || member.LogContains("fast-forwarding election ticks") {
			t.Error("a member does not skip it")
		}
	}
	hurried := 0
	for _, member := range harness.StartMembers(t, kind, 3, slow...) {
		if member.LogContains("initialized peer connections; fast-forwarding election ticks") {
			hurried++
		}
	}
	if hurried == 0 {
		t.Error("no member hurries")
	}
}

func observeMemoryLock(t *testing.T) {
	server := harness.StartUnderTest(t, "--memory-mlock")
	if server.LockedMemory() == 0 {
		t.Error("no memory is locked")
	}
	server.Etcdctl("put", "a", "1")
	if server.Kind != harness.Basalt {
		return
	}
	// Without the right to it, and with little that anybody may lock.
	powerless := []string{"setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock", "prlimit", "--memlock=65536"}
	for _, tool := range []string{"setpriv", "prlimit"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("NOT TESTED: the refusal needs %s: %v", tool, err)
		}
	}
	line := newLine(t)
	refused := harness.StartLater(t, harness.Options{Endpoint: line.client, Wrapper: powerless,
		Line: line.args("--data-dir="+t.TempDir()+"/data", "--memory-mlock")})
	if code, last := refused.AwaitExit(), refused.LastLine(); code != 1 || !strings.Contains(last, "--memory-mlock: only 65536 bytes may be locked; run with CAP_IPC_LOCK") {
		t.Errorf("exit %d: %s", code, last)
	}
}

// observeRaftReadTimeout: who says nothing on a connection to the port for members is cut off.
func observeRaftReadTimeout(t *testing.T) {
	line := newLine(t)
	server := line.start(t, "--raft-read-timeout=1s")
	if !server.LogContains("raft-read-timeout increased to minimum value: 5s") {
		t.Error("less than the minimum is taken")
	}
	conn := must(net.DialTimeout("tcp", strings.TrimPrefix(line.peer, "http://"), 20*time.Second))(t)
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if server.Kind == harness.Basalt {
		// Whole and well, but without answers to pings.
		_ = must(conn.Write([]byte(http2.ClientPreface)))(t)
		if err := http2.NewFramer(conn, conn).WriteSettings(); err != nil {
			t.Fatal(err)
		}
	} else {
		_ = must(conn.Write([]byte("GET /members HTTP/1.1\r\n")))(t)
	}
	if _, err := io.Copy(io.Discard, conn); err != nil && errors.Is(err, net.ErrClosed) {
		t.Error(err)
	} else if timeout := net.Error(nil); errors.As(err, &timeout) && timeout.Timeout() {
		t.Error("the connection is kept for ever")
	}
}

// observeRaftWriteTimeout: the system cuts off who takes nothing.
func observeRaftWriteTimeout(t *testing.T) {
	line := newLine(t)
	server := line.start(t, "--raft-write-timeout=4s")
	if !server.LogContains("raft-write-timeout increased to minimum value: 5s") {
		t.Error("less than the minimum is taken")
	}
	if server.Kind != harness.Basalt {
		return
	}
	line = newLine(t)
	trace := harness.NewStrace(t, "setsockopt")
	traced := harness.Start(t, harness.Options{Endpoint: line.client, Wrapper: trace.Wrapper,
		Line: line.args("--data-dir="+t.TempDir()+"/data", "--raft-write-timeout=7s")})
	conn := must(net.DialTimeout("tcp", strings.TrimPrefix(line.peer, "http://"), 20*time.Second))(t)
	// Served, and so accepted.
	_ = must(conn.Write([]byte("GET /members HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")))(t)
	_ = must(io.ReadAll(conn))(t)
	conn.Close()
	traced.Stop()
	if calls := strings.Join(trace.Lines(), "\n"); !strings.Contains(calls, "TCP_USER_TIMEOUT, [7000]") {
		t.Errorf("no connection is limited:\n%s", calls)
	}
}
