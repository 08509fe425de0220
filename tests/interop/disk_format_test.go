package interop

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// The few places of the disk format that tests change: a newer release's data, and damage. Offsets are those of
// docs/disk-format-manifest.md, disk-format-wal.md and disk-format-runs.md.
const (
	manifestSlotBytes  = 65536
	manifestVersionAt  = 8
	manifestFeaturesAt = 12
	manifestBodyAt     = 32
	manifestCRCAt      = 28
	manifestLengthAt   = 24

	segmentHeadCopies = 2
	segmentBlockBytes = 4096
	segmentVersionAt  = 8
	segmentFeaturesAt = 12
	segmentCRCAt      = 112
	segmentBatchesAt  = 8192
	batchLengthAt     = 4

	runVersionAt  = 8
	runFeaturesAt = 12
	runCRCAt      = 60
)

// patchFile changes the bytes of a file in place and gives back what undoes that.
func patchFile(t *testing.T, path string, change func(content []byte)) (undo func()) {
	t.Helper()
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	after := bytes.Clone(before)
	change(after)
	if bytes.Equal(before, after) {
		t.Fatalf("the patch of %s has changed nothing", path)
	}
	write := func(content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(after)
	return func() { write(before) }
}

// patchManifest changes the header of every copy and makes its checksum right again.
func patchManifest(t *testing.T, dataDir string, change func(header []byte)) (undo func()) {
	t.Helper()
	return patchFile(t, filepath.Join(dataDir, "manifest"), func(content []byte) {
		for at := 0; at+manifestBodyAt <= len(content); at += manifestSlotBytes {
			slot := content[at:]
			if !bytes.HasPrefix(slot, []byte("basaltMF")) {
				continue
			}
			change(slot)
			end := manifestBodyAt + int(binary.LittleEndian.Uint32(slot[manifestLengthAt:]))
			crc := crc32.ChecksumIEEE(slot[:manifestCRCAt])
			binary.LittleEndian.PutUint32(slot[manifestCRCAt:], crc32.Update(crc, crc32.IEEETable, slot[manifestBodyAt:end]))
		}
	})
}

// patchSegment changes both copies of a segment's head and makes their checksums right again.
func patchSegment(t *testing.T, path string, change func(head []byte)) (undo func()) {
	t.Helper()
	return patchFile(t, path, func(content []byte) {
		for copy := range segmentHeadCopies {
			head := content[copy*segmentBlockBytes:]
			change(head)
			binary.LittleEndian.PutUint32(head[segmentCRCAt:], crc32.ChecksumIEEE(head[:segmentCRCAt]))
		}
	})
}

// patchRun changes the header of a run and makes its checksum right again.
func patchRun(t *testing.T, path string, change func(header []byte)) (undo func()) {
	t.Helper()
	return patchFile(t, path, func(content []byte) {
		change(content)
		binary.LittleEndian.PutUint32(content[runCRCAt:], crc32.ChecksumIEEE(content[:runCRCAt]))
	})
}

// segmentsOf are the segments of the log in the order of their numbers that have begun, by their heads.
func segmentsOf(t *testing.T, logDir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(logDir, "wal", "*.wal"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(paths)
	begun := slices.DeleteFunc(paths, func(path string) bool {
		head := readStart(t, path, len("basltWAL"))
		return string(head) != "basltWAL"
	})
	if len(begun) == 0 {
		t.Fatalf("no segment in %s", logDir)
	}
	return begun
}

// readStart is what a file begins with: fewer bytes where the file is shorter, as a segment that is being laid out.
func readStart(t *testing.T, path string, bytes int) []byte {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	start := make([]byte, bytes)
	n, err := io.ReadFull(file, start)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		t.Fatal(err)
	}
	return start[:n]
}
