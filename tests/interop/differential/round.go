package differential

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
)

// round is one pair of fresh servers and the steps of one seed.
type round struct {
	shards   int
	seed     uint64
	requests int
}

// shrinkAttemptsMax bounds the search for a short failing sequence: each attempt starts two servers.
const shrinkAttemptsMax = 300

// run does the steps of the seed until enough requests were compared. Halfway both servers are stopped, or killed. A
// sequence that fails is shrunk and written to testdata, where TestKeptSequences replays it for ever.
func (r round) run(t testing.TB) *Runner {
	t.Helper()
	pair := startPair(t, r.shards)
	runner := newRunner(pair)
	err := r.drive(t, runner)
	if err != nil {
		t.Errorf("seed %d, %d shards: %v\nreplay with DIFF_SEED=%d DIFF_SHARDS=%d DIFF_REQUESTS=%d; shrinking now",
			r.seed, r.shards, err, r.seed, r.shards, r.requests)
	}
	pair.close()
	if err != nil {
		r.keep(t, runner.done, err)
	}
	return runner
}

func (r round) drive(t testing.TB, runner *Runner) error {
	t.Helper()
	generator := newGenerator(r.seed, runner.world)
	restarted := false
	for runner.requests < r.requests {
		var step Step
		// Not between a step and one that must follow it.
		if !restarted && runner.requests >= r.requests/2 && !runner.world.barred() && len(generator.queue) == 0 {
			step, restarted = Step{restart: []string{restartStop, restartKill}[r.seed%2]}, true
		} else {
			step = generator.Next()
		}
		if err := runner.Do(step); err != nil {
			return err
		}
	}
	for len(generator.queue) > 0 {
		if err := runner.Do(generator.Next()); err != nil {
			return err
		}
	}
	return runner.finish(t)
}

// keep shrinks a failing sequence and writes it down.
func (r round) keep(t testing.TB, steps []Step, err error) {
	t.Helper()
	var difference *Difference
	if !errors.As(err, &difference) {
		return
	}
	path := filepath.Join("testdata", fmt.Sprintf("seed%d-shards%d.steps", r.seed, r.shards))
	// Written at once and each time that it gets shorter, so that a run that is ended leaves what it has.
	write := func(steps []Step) {
		comment := fmt.Sprintf("Found by seed %d: %s", r.seed, difference.Kind)
		if err := writeSteps(path, comment, r.shards, steps); err != nil {
			t.Error(err)
		}
	}
	var shortest error
	fails := func(steps []Step) bool {
		err := replay(t, r.shards, steps)
		var found *Difference
		same := errors.As(err, &found) && found.Kind == difference.Kind
		if same {
			shortest = err
			write(steps)
		}
		return same
	}
	steps = flat(steps)
	write(steps)
	if !fails(steps) {
		t.Errorf("seed %d: the sequence of %d steps does not fail when it is replayed one by one", r.seed, len(steps))
		return
	}
	steps = shrink(steps, shrinkAttemptsMax, fails)
	t.Errorf("seed %d: %d steps are enough, kept in %s: %v", r.seed, len(steps), path, shortest)
}

// replay does the steps on fresh servers.
func replay(t testing.TB, shards int, steps []Step) error {
	t.Helper()
	pair := startPair(t, shards)
	defer pair.close()
	runner := newRunner(pair)
	for _, step := range steps {
		if err := runner.Do(step); err != nil {
			return err
		}
	}
	if runner.world.barred() {
		return nil
	}
	return runner.finish(t)
}
