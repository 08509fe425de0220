package harness

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// SmallDisk is a file system of a given size in memory.
type SmallDisk struct {
	// Dir is where it is mounted.
	Dir string
	t   testing.TB
}

// NewSmallDisk mounts one until the test ends; the test is skipped where mounting is not allowed.
func NewSmallDisk(t testing.TB, mebibytes int) *SmallDisk {
	t.Helper()
	disk := &SmallDisk{Dir: filepath.Join(t.TempDir(), "disk"), t: t}
	if err := os.Mkdir(disk.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	err := syscall.Mount("basalt-test", disk.Dir, "tmpfs", 0, sizeOption(mebibytes))
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		t.Skipf("a full disk needs a small one, and mounting is not allowed here (run as root): %v", err)
	}
	if err != nil {
		t.Fatalf("mount %s: %v", disk.Dir, err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(disk.Dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", disk.Dir, err)
		}
	})
	return disk
}

// Grow makes it larger, as an operator does with a volume.
func (d *SmallDisk) Grow(mebibytes int) {
	d.t.Helper()
	if err := syscall.Mount("basalt-test", d.Dir, "tmpfs", syscall.MS_REMOUNT, sizeOption(mebibytes)); err != nil {
		d.t.Fatalf("grow %s: %v", d.Dir, err)
	}
}

func sizeOption(mebibytes int) string { return fmt.Sprintf("size=%dm", mebibytes) }
