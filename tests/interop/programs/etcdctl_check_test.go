package programs

import (
	"strings"
	"testing"
	"time"

	"basalt/tests/interop/harness"
)

// tryChecks runs etcd's own checks of a server. They judge its speed too; what is tested here is that they run without an error
// and leave nothing behind: the speed of a busy machine is not the server's.
func tryChecks(t *testing.T) {
	server := harness.StartUnderTest(t)
	client, ctx := server.Client(t), harness.Context(t, 5*time.Minute)

	// `check perf` writes for a minute, and ends at an interrupt as after its time.
	perf := server.EtcdctlSession("check", "perf", "--load=s", "--prefix=/perf/", "--auto-compact", "--auto-defrag")
	await(t, "the check writes", func() bool { return count(t, server, "/perf/") > 20 })
	if !asked("full") {
		perf.Interrupt()
	}
	report := strings.Join(perf.Rest(), "\n")
	t.Logf("check perf: %s", report)
	if !strings.Contains(report, "Throughput") || strings.Contains(report, "ERROR") || strings.Contains(report, "errors") {
		t.Errorf("check perf: %s", report)
	}
	if !strings.Contains(report, "Compacted with revision") || !strings.Contains(report, "Defragmented ") {
		t.Errorf("check perf has not cleaned: %s", report)
	}
	perf.HasWorked()
	if left := count(t, server, "/perf/"); left != 0 {
		t.Errorf("check perf has left %d keys", left)
	}
	put(t, server, "/perf/one", "x")
	if refused := server.EtcdctlResult("", "check", "perf", "--prefix=/perf/"); refused.Code == 0 || !strings.Contains(refused.Stderr, "has keys") {
		t.Errorf("check perf among keys: %+v", refused)
	}

	scale := server.EtcdctlResult("", "check", "datascale", "--load=s", "--prefix=/scale/", "--auto-compact", "--auto-defrag")
	t.Logf("check datascale: %s", scale.Stdout)
	if scale.Code != 0 || !strings.Contains(scale.Stdout, "PASS: Approximate system memory used") {
		t.Errorf("check datascale: %+v", scale)
	}
	if left := count(t, server, "/scale/"); left != 0 {
		t.Errorf("check datascale has left %d keys", left)
	}
	if _, err := client.Get(ctx, "a"); err != nil {
		t.Error(err)
	}
}
