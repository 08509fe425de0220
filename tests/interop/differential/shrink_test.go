package differential

import (
	"path/filepath"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// TestShrink finds the three steps of a hundred that fail together.
func TestShrink(t *testing.T) {
	var steps []Step
	for n := range 100 {
		steps = append(steps, call(&pb.HashKVRequest{Revision: int64(n)}))
	}
	needed := []int64{13, 14, 77}
	attempts := 0
	fails := func(steps []Step) bool {
		attempts++
		left := revisions(steps)
		return !slices.ContainsFunc(needed, func(revision int64) bool { return !slices.Contains(left, revision) })
	}
	if left := revisions(shrink(steps, 1000, fails)); !slices.Equal(left, needed) {
		t.Errorf("left %v, want %v", left, needed)
	}
	if attempts > 200 {
		t.Errorf("%d attempts for 100 steps", attempts)
	}
	if left := shrink(steps, 1, fails); len(left) != len(steps) {
		t.Errorf("one attempt, which does not fail, left %d steps", len(left))
	}
}

func revisions(steps []Step) []int64 {
	var all []int64
	for _, step := range steps {
		all = append(all, step.calls[0].(*pb.HashKVRequest).Revision)
	}
	return all
}

// TestStepsAreWrittenAndRead takes steps of every kind from the generator.
func TestStepsAreWrittenAndRead(t *testing.T) {
	generator := newGenerator(1, newWorld())
	steps := []Step{{restart: restartKill}, {restart: restartStop}}
	for range 2_000 {
		steps = append(steps, generator.Next())
	}
	steps = flat(steps)
	path := filepath.Join(t.TempDir(), "a.steps")
	if err := writeSteps(path, "why\nand how", 3, steps); err != nil {
		t.Fatal(err)
	}
	shards, read, err := readSteps(path)
	if err != nil || shards != 3 || len(read) != len(steps) {
		t.Fatalf("%d shards and %d steps of %d were read: %v", shards, len(read), len(steps), err)
	}
	for n := range steps {
		if want, got := encodeStep(steps[n]), encodeStep(read[n]); want != got {
			t.Fatalf("step %d: %s became %s", n, want, got)
		}
	}
	for _, line := range []string{"fly", "call nothing", "watch 9 ", "cancel 1 x", "restart now", "call etcdserverpb.PutRequest key"} {
		if _, err := decodeStep(line); err == nil {
			t.Errorf("%q was read as a step", line)
		}
	}
}
