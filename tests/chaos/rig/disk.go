package rig

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// DiskKind is what a member's data directory lies on.
type DiskKind string

const (
	// Folder is the disk of the test's own folder.
	Folder DiskKind = "folder"
	// Memory is a file system of its own in memory, where syncs cost nothing.
	Memory DiskKind = "memory"
	// Loop is ext4 in a file, with real syncs.
	Loop DiskKind = "loop"
)

// disk is a file system of one member.
type disk struct {
	kind   DiskKind
	dir    string
	image  string
	filler string
}

// newDisk makes and mounts one of so many MiB at `dir`.
func newDisk(kind DiskKind, dir string, mebibytes int) (*disk, error) {
	made := &disk{kind: kind, dir: dir, image: dir + ".image", filler: filepath.Join(dir, "filler")}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	switch kind {
	case Folder:
	case Memory:
		if err := syscall.Mount("basalt-chaos", dir, "tmpfs", 0, fmt.Sprintf("size=%dm", mebibytes)); err != nil {
			return nil, fmt.Errorf("mount %s: %w", dir, err)
		}
	case Loop:
		if err := os.WriteFile(made.image, nil, 0o600); err != nil {
			return nil, err
		}
		if err := os.Truncate(made.image, int64(mebibytes)<<20); err != nil {
			return nil, err
		}
		if _, err := run("mkfs.ext4", "-q", "-F", "-m", "0", made.image); err != nil {
			return nil, err
		}
		if _, err := run("mount", "-o", "loop", made.image, dir); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("a disk of kind %q", kind)
	}
	return made, nil
}

// fill takes all space but so many bytes; empty gives it back.
func (d *disk) fill(leave int64) error {
	if d.kind == Folder {
		return errors.New("the disk of the test's own folder is not to be filled")
	}
	file, err := os.OpenFile(d.filler, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	var space syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &space); err != nil {
		return err
	}
	size := int64(space.Bavail)*space.Bsize - leave
	for piece := int64(64 << 20); piece >= 4096; {
		at, err := file.Seek(0, 2)
		if err != nil {
			return err
		}
		if at+piece > size {
			piece /= 2
			continue
		}
		if err := syscall.Fallocate(int(file.Fd()), 0, at, piece); errors.Is(err, syscall.ENOSPC) {
			piece /= 2
		} else if err != nil {
			return fmt.Errorf("fill %s: %w", d.dir, err)
		}
	}
	return nil
}

func (d *disk) empty() error {
	if err := os.Remove(d.filler); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (d *disk) close() {
	if d.kind != Folder {
		_ = syscall.Unmount(d.dir, syscall.MNT_DETACH)
	}
	_ = os.Remove(d.image)
	_ = os.RemoveAll(d.dir)
}
