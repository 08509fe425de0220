package programs

import (
	"flag"
	"os"
	"strings"
	"testing"
	"time"
)

// waitMax bounds every wait; it is wide because the machine may be busy.
const waitMax = 60 * time.Second

// filtered says whether only some subtests run.
func filtered() bool { return strings.Contains(flag.Lookup("test.run").Value.String(), "/") }

// asked says whether PROGRAMS names what takes minutes or needs more than Go, or has `all`.
func asked(what string) bool {
	for name := range strings.SplitSeq(os.Getenv("PROGRAMS"), ",") {
		if name == what || name == "all" {
			return true
		}
	}
	return false
}

// await fails the test unless it becomes true.
func await(t *testing.T, what string, enough func() bool) {
	t.Helper()
	for deadline := time.Now().Add(waitMax); !enough(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

func expectText(t *testing.T, what, got string, want ...string) {
	t.Helper()
	if wanted := strings.Join(want, "\n"); strings.TrimRight(got, "\n") != wanted {
		t.Fatalf("%s printed\n%s\nwant\n%s", what, got, wanted)
	}
}
