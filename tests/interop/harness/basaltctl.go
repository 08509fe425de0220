package harness

import (
	"os"
	"path/filepath"
	"testing"
)

// Basaltctl runs basalt's own tool, which lies beside the program, whatever comes of it.
func Basaltctl(t testing.TB, args ...string) Result {
	t.Helper()
	return run(t, "", basaltctl(t), args...)
}

// basaltctl is where the tool lies.
func basaltctl(t testing.TB) string {
	t.Helper()
	path := filepath.Join(filepath.Dir(Binary(t, Basalt)), "basaltctl")
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no basaltctl at %s: build it", path)
	}
	return path
}
