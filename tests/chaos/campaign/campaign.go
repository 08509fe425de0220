// Package campaign runs rounds of the nemesis against one cluster under load. After each round everything heals, must come to agree, and
// is judged; then the next one goes on with the same members.
package campaign

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"basalt/tests/chaos/checks"
	"basalt/tests/chaos/history"
	"basalt/tests/chaos/load"
	"basalt/tests/chaos/nemesis"
	"basalt/tests/chaos/rig"
)

// Options of a campaign.
type Options struct {
	Rig    rig.Options
	Load   load.Options
	Rounds int
	Seed   uint64
	// Dumps is where the history of a bad round is kept.
	Dumps string
	Say   func(format string, args ...any)
}

// calm is how long the load runs before a fault and after it is healed.
const calm = 3 * time.Second

// Totals of the rounds so far.
type Totals struct {
	Rounds, Writes, Reads, Events, Watches, Leases, Unknown int
}

func (t *Totals) add(record *history.Record) {
	t.Rounds++
	for _, write := range record.Writes {
		if write.Outcome == history.Acknowledged {
			t.Writes++
		} else {
			t.Unknown++
		}
	}
	for _, watch := range record.Watches {
		for _, segment := range watch.Segments {
			for _, response := range segment.Responses {
				t.Events += len(response.Events)
			}
		}
	}
	t.Reads += len(record.Reads)
	t.Watches += len(record.Watches)
	t.Leases += len(record.Leases)
}

func (t *Totals) String() string {
	return fmt.Sprintf("%d rounds, %d acknowledged writes, %d without a certain outcome, %d reads, %d events at %d watches, %d leases",
		t.Rounds, t.Writes, t.Unknown, t.Reads, t.Events, t.Watches, t.Leases)
}

// Run ends with the first round that breaks a promise, or after all of them, when the directories of all members are checked.
func Run(ctx context.Context, options Options) (Totals, error) {
	var totals Totals
	cluster, err := rig.Start(options.Rig)
	if err != nil {
		return totals, err
	}
	defer cluster.Close()
	if _, err := cluster.Leader(); err != nil {
		return totals, err
	}
	for number := range options.Rounds {
		// Each round has its own dice: a round can be told by the seed and its number.
		scene := &nemesis.Scene{Cluster: cluster, Random: rand.New(rand.NewPCG(options.Seed, uint64(number)))}
		scene.Say = func(format string, args ...any) {
			options.Say("round %d: "+format, append([]any{number + 1}, args...)...)
		}
		if err := round(ctx, &options, scene, number, &totals); err != nil {
			return totals, fmt.Errorf("seed %d, round %d: %w\n%s", options.Seed, number+1, err, cluster.Tails())
		}
	}
	return totals, sound(cluster)
}

// sound stops all members and reads their directories whole.
func sound(cluster *rig.Cluster) error {
	for _, member := range cluster.Members() {
		if err := member.Terminate(); err != nil {
			return err
		}
		if err := member.Check(); err != nil {
			return err
		}
	}
	return nil
}

func round(ctx context.Context, options *Options, scene *nemesis.Scene, number int, totals *Totals) error {
	seeded := options.Load
	seeded.Seed = options.Seed + uint64(number)*1_000_003
	running, err := load.Start(scene.Cluster, seeded)
	if err != nil {
		return err
	}
	defer running.Abandon()
	if err := pause(ctx, calm); err != nil {
		return err
	}
	faultError := scene.Round(ctx)
	if err := nemesis.Heal(scene.Cluster); err != nil {
		return errors.Join(faultError, fmt.Errorf("healing: %w", err))
	}
	if faultError != nil {
		return faultError
	}
	if err := nemesis.Disarm(ctx, scene.Cluster); err != nil {
		return err
	}
	if err := pause(ctx, calm); err != nil {
		return err
	}
	return Judge(running, options.Dumps, fmt.Sprintf("seed-%d-round-%d", options.Seed, number+1), scene.Say, totals)
}

// Judge stops a load and judges its record, which is kept if it is bad.
func Judge(running *load.Load, dumps, name string, say func(string, ...any), totals *Totals) error {
	record, violations, err := running.Stop()
	totals.add(record)
	if err == nil && len(violations) == 0 {
		var one Totals
		one.add(record)
		say("good: %v", &one)
		return nil
	}
	for _, violation := range violations {
		err = errors.Join(err, errors.New(violation.String()))
	}
	path := filepath.Join(dumps, name+".json.gz")
	if dumpError := record.Dump(path); dumpError != nil {
		return errors.Join(err, dumpError)
	}
	return fmt.Errorf("%w\nthe history is in %s: judge it again with --judge", err, path)
}

// Again judges a kept history.
func Again(path string) ([]checks.Violation, error) {
	record, err := history.Load(path)
	if err != nil {
		return nil, err
	}
	return checks.All(record), nil
}

func pause(ctx context.Context, length time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(length):
		return nil
	}
}
