// Package nemesis does harm to a cluster: one fault or two at once, by a seed, and takes all of it back.
package nemesis

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"basalt/tests/chaos/rig"
)

// Scene is where faults happen.
type Scene struct {
	Cluster *rig.Cluster
	Random  *rand.Rand
	// Say is told what is done.
	Say func(format string, args ...any)
}

// Fault is one way to do harm. What it does it does not always take back: Heal does.
type Fault struct {
	Name string
	Do   func(context.Context, *Scene) error
	// Needs is what the cluster must be made with.
	Needs func(rig.Options) bool
}

func anywhere(rig.Options) bool          { return true }
func smallDisk(options rig.Options) bool { return options.Disk != rig.Folder }
func unproxied(options rig.Options) bool { return !options.Proxied } // the proxies know the first members alone
func proxied(options rig.Options) bool   { return options.Proxied }
func clocks(options rig.Options) bool    { return options.Clocks }
func network(options rig.Options) bool   { return options.Network != "" }

// Round does one fault, or in a third of all rounds one of processes and one of networks at once.
func (s *Scene) Round(ctx context.Context) error {
	first := s.choose(slices.Concat(Processes, Networks, Machines))
	second := s.choose(Networks)
	both := s.Random.IntN(3) == 0 && slices.ContainsFunc(Processes, func(fault Fault) bool { return fault.Name == first.Name })
	if !both {
		s.Say("%s", first.Name)
		return s.wrap(first, first.Do(ctx, s))
	}
	s.Say("%s, and %s", first.Name, second.Name)
	// Each has its own dice: which of them throws first is not up to the seed.
	other := *s
	other.Random = rand.New(rand.NewPCG(s.Random.Uint64(), 0))
	done := make(chan error, 1)
	go func() { done <- other.wrap(second, second.Do(ctx, &other)) }()
	return errors.Join(s.wrap(first, first.Do(ctx, s)), <-done)
}

func (s *Scene) choose(faults []Fault) Fault {
	var possible []Fault
	for _, fault := range faults {
		if fault.Needs(s.Cluster.Options) {
			possible = append(possible, fault)
		}
	}
	return possible[s.Random.IntN(len(possible))]
}

func (s *Scene) wrap(fault Fault, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", fault.Name, err)
	}
	return nil
}

// Heal takes everything back: networks, pauses, disks, clocks, processes. The cluster must serve then.
func Heal(cluster *rig.Cluster) error {
	if cluster.Options.Network != "" {
		if err := cluster.HealNetwork(); err != nil {
			return err
		}
	}
	for _, member := range cluster.Members() {
		if member.Running() {
			if err := member.Resume(); err != nil && member.Running() {
				return err
			}
		}
		if err := member.FreeDisk(); err != nil {
			return err
		}
		if cluster.Options.Clocks {
			if err := member.SetClock("+0"); err != nil {
				return err
			}
		}
	}
	if err := cluster.StartAll(); err != nil {
		return err
	}
	_, err := cluster.Leader()
	return err
}

// some is a random member.
func (s *Scene) some() *rig.Member {
	members := s.Cluster.Members()
	return members[s.Random.IntN(len(members))]
}

// minority is at least one member and less than half.
func (s *Scene) minority() []*rig.Member {
	members := slices.Clone(s.Cluster.Members())
	s.Random.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	return members[:1+s.Random.IntN(max(1, (len(members)-1)/2))]
}

// hold waits between two bounds.
func (s *Scene) hold(ctx context.Context, from, to time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(from + time.Duration(s.Random.Int64N(int64(to-from)))):
		return nil
	}
}
