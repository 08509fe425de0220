package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// straceBytes is how much strace shows of what a call writes.
const straceBytes = "16384"

// Strace records the system calls of one life of a server.
type Strace struct {
	// Wrapper runs a server under it.
	Wrapper []string
	path    string
	t       testing.TB
}

// NewStrace traces the calls of `calls`, with further options. Without strace the test fails; where strace is there and may
// not attach, the test is skipped and says so.
func NewStrace(t testing.TB, calls string, options ...string) *Strace {
	t.Helper()
	program, err := exec.LookPath("strace")
	if err != nil {
		t.Fatal("these tests look at system calls: install strace (Debian: apt-get install strace)")
	}
	if output, err := exec.Command(program, "-f", "-o", os.DevNull, "true").CombinedOutput(); err != nil {
		t.Skipf("NOT TESTED: strace may not attach to a process here (a container needs CAP_SYS_PTRACE): %v\n%s", err, output)
	}
	path := filepath.Join(t.TempDir(), "calls")
	// -D: the server stays the child of the test, so that signals and exit codes are its own.
	wrapper := append([]string{program, "-D", "-f", "-y", "-s", straceBytes, "-o", path, "-e", "trace=" + calls}, options...)
	return &Strace{wrapper, path, t}
}

// Basaltctl runs basalt's tool under it.
func (s *Strace) Basaltctl(args ...string) Result {
	s.t.Helper()
	tool := basaltctl(s.t)
	return run(s.t, "", s.Wrapper[0], append(append(slices.Clone(s.Wrapper[1:]), tool), args...)...)
}

// Lines are the calls recorded, once the program has ended.
func (s *Strace) Lines() []string {
	s.t.Helper()
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(s.path)
		if err != nil {
			s.t.Fatal(err)
		}
		lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
		if last := lines[len(lines)-1]; strings.Contains(last, "+++ exited with") || strings.Contains(last, "+++ killed by") {
			return lines
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("strace has not seen the server's end: %s", lines[len(lines)-1])
		}
	}
}
