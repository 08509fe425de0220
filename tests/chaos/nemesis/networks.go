package nemesis

import (
	"context"
	"time"

	"basalt/tests/chaos/rig"
)

// Networks are faults of what is between members. All end with the round.
var Networks = []Fault{
	{"the leader is cut off", func(ctx context.Context, s *Scene) error {
		leader, err := s.Cluster.Leader()
		if err != nil {
			return err
		}
		s.Say("  cut off: %s", leader)
		return s.last(ctx, s.Cluster.Isolate(leader))
	}, network},
	{"two parts", func(ctx context.Context, s *Scene) error {
		part := s.minority()
		s.Say("  cut off: %s", part)
		for _, one := range part {
			for _, other := range s.Cluster.Members() {
				if !contains(part, other) {
					if err := s.Cluster.CutBoth(one, other); err != nil {
						return err
					}
				}
			}
		}
		return s.last(ctx, nil)
	}, network},
	{"one-way cut of packets", func(ctx context.Context, s *Scene) error { return s.oneWay(ctx, rig.Everything) }, network},
	{"one-way cut of payload", func(ctx context.Context, s *Scene) error { return s.oneWay(ctx, rig.Payload) }, network},
	{"a bridge", func(ctx context.Context, s *Scene) error {
		// Of five, two on each side; whoever stands in the middle hears all.
		middle := s.some()
		sides := s.Cluster.Others(middle)
		s.Say("  only %s hears %s", middle, sides)
		for _, one := range sides[:len(sides)/2] {
			for _, other := range sides[len(sides)/2:] {
				if err := s.Cluster.CutBoth(one, other); err != nil {
					return err
				}
			}
		}
		return s.last(ctx, nil)
	}, network},
	{"a chain", func(ctx context.Context, s *Scene) error {
		members := s.Cluster.Members()
		s.Say("  each hears its neighbours alone: %s", members)
		for n, one := range members {
			for _, other := range members[min(n+2, len(members)):] {
				if err := s.Cluster.CutBoth(one, other); err != nil {
					return err
				}
			}
		}
		return s.last(ctx, nil)
	}, network},
	{"loss", func(ctx context.Context, s *Scene) error {
		percent := 2 + s.Random.IntN(29)
		s.Say("  %d %% of all packets", percent)
		for _, one := range s.Cluster.Members() {
			for _, other := range s.Cluster.Others(one) {
				if err := s.Cluster.Cut(one, other, rig.Loss(percent)); err != nil {
					return err
				}
			}
		}
		return s.last(ctx, nil)
	}, network},
	{"a narrow network", func(ctx context.Context, s *Scene) error {
		return s.last(ctx, s.Cluster.Narrow(1000))
	}, network},
	{"delay", func(ctx context.Context, s *Scene) error {
		return s.last(ctx, s.Cluster.Delay(100*time.Millisecond, 50*time.Millisecond))
	}, proxied},
	{"a flapping cut", func(ctx context.Context, s *Scene) error {
		for range 4 {
			if err := s.Cluster.Isolate(s.some()); err != nil {
				return err
			}
			if err := s.hold(ctx, 500*time.Millisecond, 2*time.Second); err != nil {
				return err
			}
			if err := s.Cluster.HealNetwork(); err != nil {
				return err
			}
			if err := s.hold(ctx, 200*time.Millisecond, time.Second); err != nil {
				return err
			}
		}
		return nil
	}, network},
}

// last lets a fault of the network last.
func (s *Scene) last(ctx context.Context, err error) error {
	if err != nil {
		return err
	}
	return s.hold(ctx, 3*time.Second, 12*time.Second)
}

func (s *Scene) oneWay(ctx context.Context, cut rig.Cut) error {
	leader, err := s.Cluster.Leader()
	if err != nil {
		return err
	}
	others := s.Cluster.Others(leader)
	from, to := leader, others[s.Random.IntN(len(others))]
	if s.Random.IntN(2) == 0 {
		from, to = to, from
	}
	s.Say("  nothing from %s reaches %s; %s leads", from, to, leader)
	return s.last(ctx, s.Cluster.Cut(from, to, cut))
}

func contains(members []*rig.Member, one *rig.Member) bool {
	for _, member := range members {
		if member == one {
			return true
		}
	}
	return false
}
