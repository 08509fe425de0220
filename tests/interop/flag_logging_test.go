package interop

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/interop/harness"
)

// observeLogRotation: one file is put aside when it is full, and packed; of those that were only the newest stays.
func observeLogRotation(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "server.log")
	server := harness.StartUnderTest(t, "--log-outputs=stderr,"+path, "--enable-log-rotation",
		`--log-rotation-config-json={"maxsize": 1, "maxbackups": 1, "compress": true}`, "--warning-unary-request-duration=1ns")
	first := fillLog(t, server, folder, "")
	second := fillLog(t, server, folder, first)
	ctx := harness.Context(t, time.Minute)
	for present(first) || present(strings.TrimSuffix(second, ".gz")) {
		if ctx.Err() != nil {
			t.Fatalf("what is put aside is not tidied up: %v", must(os.ReadDir(folder))(t))
		}
		time.Sleep(50 * time.Millisecond)
	}
	file := must(os.Open(second))(t)
	defer file.Close()
	lines, size := bufio.NewScanner(must(gzip.NewReader(file))(t)), 0
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		size += len(lines.Bytes()) + 1
		if !json.Valid(lines.Bytes()) {
			t.Fatalf("a line was cut: %s", lines.Text())
		}
	}
	if lines.Err() != nil || size > 1<<20 || size < 1<<19 {
		t.Errorf("the packed file has %d bytes, %v", size, lines.Err())
	}
	for config, says := range map[string]string{"{": "improperly formatted log rotation config", `{"maxsize": "1"}`: "invalid log rotation config"} {
		end := harness.RunToEnd(t, harness.Launch{Args: newLine(t).args("--enable-log-rotation", "--log-outputs="+path, "--log-rotation-config-json="+config)})
		expectRefused(t, end, 1, says)
	}
	end := harness.RunToEnd(t, harness.Launch{Args: newLine(t).args("--enable-log-rotation")})
	expectRefused(t, end, 1, "--log-outputs requires a single file path when --log-rotate-config-json is defined")
}

func present(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// fillLog asks until a packed file other than the last one is there, and gives its name.
func fillLog(t *testing.T, server *harness.Server, folder, last string) string {
	t.Helper()
	ctx := harness.Context(t, 2*time.Minute)
	for ctx.Err() == nil {
		for _, found := range must(filepath.Glob(filepath.Join(folder, "server-*.log.gz")))(t) {
			// The compression begins with an empty file and ends with the plain one's removal.
			if found > last && !present(strings.TrimSuffix(found, ".gz")) {
				return found
			}
		}
		var asked sync.WaitGroup
		for range 20 {
			s := servicesOf(server.Conn(t))
			asked.Go(func() {
				for range 100 {
					if _, err := s.kv.Range(ctx, &pb.RangeRequest{Key: []byte("a")}); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		asked.Wait()
	}
	t.Fatal("the log is not put aside")
	return ""
}

// TestLogLevelSignals is basalt's own: SIGUSR1 has the log say more, SIGUSR2 less.
func TestLogLevelSignals(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("basalt's own: etcd 3.7 has no way to change the level")
	}
	server := harness.StartUnderTest(t)
	await := func(text string, provoke func()) {
		t.Helper()
		for ctx := harness.Context(t, time.Minute); !server.LogContains(text); time.Sleep(20 * time.Millisecond) {
			if provoke(); ctx.Err() != nil {
				t.Fatalf("the log does not say %s", text)
			}
		}
	}
	step := func(signal syscall.Signal, from, to string) {
		t.Helper()
		server.Signal(signal)
		await(fmt.Sprintf(`"msg":"log level changed","from":%q,"to":%q`, from, to), func() {})
	}
	knock := func() {
		// Who goes away without a word is told of at debug.
		conn := must(net.DialTimeout("tcp", server.Target(), 20*time.Second))(t)
		conn.Close()
	}
	for range 3 {
		knock()
	}
	if server.LogContains(`"level":"debug"`) {
		t.Error("a line of debug at info")
	}
	step(syscall.SIGUSR1, "info", "debug")
	await(`"level":"debug"`, knock)
	step(syscall.SIGUSR2, "debug", "info")
	step(syscall.SIGUSR2, "info", "warn")
	step(syscall.SIGUSR2, "warn", "error")
	before := len(server.LinesWith(`"level":"info"`))
	step(syscall.SIGUSR1, "error", "warn")
	server.Etcdctl("put", "a", "1")
	server.Stop()
	if after := len(server.LinesWith(`"level":"info"`)); after != before {
		t.Errorf("%d lines of info at warn", after-before)
	}
}
