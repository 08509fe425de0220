package differential

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/interop/harness"
)

// hashesAtEnd is of how many revisions the hash is compared at the end of a round.
const hashesAtEnd = 8

// finish compares the whole content: all keys, hashes at several revisions, and what `etcdutl snapshot status` says.
func (r *Runner) finish(t testing.TB) error {
	t.Helper()
	if err := r.Do(drainStep()); err != nil {
		return err
	}
	everything := &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}
	if err := r.Do(call(everything)); err != nil {
		return err
	}
	for n := range int64(hashesAtEnd) {
		revision := r.world.head - n*(r.world.head-max(r.world.compacted, 1))/hashesAtEnd
		if err := r.Do(call(&pb.HashKVRequest{Revision: revision})); err != nil {
			return err
		}
	}
	// A compaction that may still run leaves open how many revisions there are.
	compaction := &pb.CompactionRequest{Revision: r.world.head, Physical: true}
	if err := r.Do(call(compaction)); err != nil {
		return err
	}
	return r.compareSnapshots(t)
}

// snapshotStatus is what of `etcdutl snapshot status` must be equal: hash and size are the file's.
type snapshotStatus struct {
	Revision int64  `json:"revision"`
	TotalKey int    `json:"totalKey"`
	Version  string `json:"version"`
}

func (r *Runner) compareSnapshots(t testing.TB) error {
	t.Helper()
	var statuses [2]snapshotStatus
	for n, side := range r.pair.sides {
		path := filepath.Join(t.TempDir(), fmt.Sprint(n, ".db"))
		if err := side.saveSnapshot(path); err != nil {
			return r.failed("snapshot", "%s: snapshot: %v", side.name, err)
		}
		if err := json.Unmarshal([]byte(harness.Etcdutl(t, "snapshot", "status", path, "-w", "json")), &statuses[n]); err != nil {
			return r.failed("snapshot", "%s: snapshot status: %v", side.name, err)
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	left, right := statuses[0], statuses[1]
	r.requests++
	return r.compare("snapshot status", fmt.Sprint(left), fmt.Sprint(right), left, func() string { return fmt.Sprint(right) })
}

func (s *side) saveSnapshot(path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	stream, err := s.maintenance.Snapshot(ctx, &pb.SnapshotRequest{})
	if err != nil {
		return err
	}
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer file.Close()
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return file.Close()
		}
		if err != nil {
			return err
		}
		if _, err := file.Write(chunk.Blob); err != nil {
			return err
		}
	}
}
