package interop

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
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

// journalEntries are the entries that come to a socket in the journal's protocol, by their fields.
func journalEntries(t *testing.T, path string) <-chan map[string]string {
	t.Helper()
	socket := must(net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"}))(t)
	t.Cleanup(func() { socket.Close() })
	entries := make(chan map[string]string, 10_000)
	go func() {
		defer close(entries)
		datagram := make([]byte, 1<<20)
		for {
			length, err := socket.Read(datagram)
			if err != nil {
				return
			}
			entry := map[string]string{}
			for rest := datagram[:length]; len(rest) > 0; {
				line, behind, _ := bytes.Cut(rest, []byte("\n"))
				name, value, plain := bytes.Cut(line, []byte("="))
				if rest = behind; !plain {
					// Eight bytes say how long the value is that has line breaks, and one ends it.
					size := binary.LittleEndian.Uint64(rest)
					value, rest = rest[8:8+size], rest[8+size+1:]
				}
				entry[string(name)] = string(value)
			}
			entries <- entry
		}
	}()
	return entries
}

// TestJournal starts without a journal, which ends, and with one of the test's own, which gets every line with its level.
func TestJournal(t *testing.T) {
	expectRefusedFlag(t, 1, "systemd/journal", "--log-outputs=systemd/journal,stderr")
	if os.Geteuid() != 0 {
		t.Skip("needs root: a mount namespace with a /run of its own")
	}
	run := t.TempDir()
	start := func() *harness.Server {
		return harness.StartLater(t, harness.Options{
			Args:    []string{"--log-outputs=systemd/journal", "--max-snapshots=1"},
			Wrapper: []string{"unshare", "--mount", "--", "sh", "-c", `mount --bind "$0" /run && exec "$@"`, run},
		})
	}
	lost := start()
	if code := lost.AwaitExit(); code != 1 || !lost.LogContains("can't find journal") {
		t.Errorf("without a journal: exit %d, %s", code, lost.LastLine())
	}
	folder := filepath.Join(run, "systemd", "journal")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	entries := journalEntries(t, filepath.Join(folder, "socket"))
	server := start()
	priorities := map[string]string{"debug": "7", "info": "6", "warn": "4", "error": "3"}
	seen := map[string]bool{}
	for deadline := time.After(time.Minute); !seen["ready to serve client requests"]; {
		select {
		case entry := <-entries:
			line := struct{ Level, Caller, Msg string }{}
			if err := json.Unmarshal([]byte(entry["MESSAGE"]), &line); err != nil {
				t.Fatalf("%q: %v", entry, err)
			}
			seen[line.Msg], seen[line.Level] = true, true
			wanted := map[string]string{
				"MESSAGE": entry["MESSAGE"], "PRIORITY": priorities[line.Level], "PACKAGE": filepath.Dir(line.Caller),
				"SYSLOG_IDENTIFIER": filepath.Base(harness.Binary(t, server.Kind)),
			}
			if !maps.Equal(entry, wanted) {
				t.Errorf("an entry has the fields %q, want %q", entry, wanted)
			}
		case <-deadline:
			t.Fatalf("the journal has %v", seen)
		}
	}
	if !seen["info"] || !seen["warn"] {
		t.Errorf("of the levels the journal has %v", seen)
	}
	server.Etcdctl("put", "a", "1")
	server.Stop()
	if server.LogContains("ready to serve client requests") {
		t.Error("what the journal has stands on standard error too")
	}
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
