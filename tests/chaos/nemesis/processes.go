package nemesis

import (
	"context"
	"time"

	"basalt/tests/chaos/rig"
)

// Processes are faults of processes.
var Processes = []Fault{
	{"kill -9 of the leader", func(ctx context.Context, s *Scene) error {
		leader, err := s.Cluster.Leader()
		if err != nil {
			return err
		}
		return s.kill(ctx, leader)
	}, anywhere},
	{"kill -9 of a minority", func(ctx context.Context, s *Scene) error { return s.kill(ctx, s.minority()...) }, anywhere},
	{"kill -9 of all", func(ctx context.Context, s *Scene) error { return s.kill(ctx, s.Cluster.Members()...) }, anywhere},
	{"kill -9 of each leader, three times", func(ctx context.Context, s *Scene) error {
		for range 3 {
			leader, err := s.Cluster.Leader()
			if err != nil {
				return err
			}
			if err := s.kill(ctx, leader); err != nil {
				return err
			}
			if err := leader.AwaitReady(); err != nil {
				return err
			}
		}
		return nil
	}, anywhere},
	{"SIGSTOP of the leader", func(ctx context.Context, s *Scene) error {
		leader, err := s.Cluster.Leader()
		if err != nil {
			return err
		}
		return s.pause(ctx, leader)
	}, anywhere},
	{"SIGSTOP of a minority", func(ctx context.Context, s *Scene) error { return s.pause(ctx, s.minority()...) }, anywhere},
	{"SIGSTOP of all", func(ctx context.Context, s *Scene) error { return s.pause(ctx, s.Cluster.Members()...) }, anywhere},
	{"SIGTERM of the leader", func(ctx context.Context, s *Scene) error {
		leader, err := s.Cluster.Leader()
		if err != nil {
			return err
		}
		return s.restart(ctx, leader)
	}, anywhere},
}

// kill kills, and starts again after a while.
func (s *Scene) kill(ctx context.Context, members ...*rig.Member) error {
	for _, member := range members {
		s.Say("  kill -9 %s", member)
		if err := member.Kill(); err != nil {
			return err
		}
	}
	if err := s.hold(ctx, 100*time.Millisecond, 6*time.Second); err != nil {
		return err
	}
	for _, member := range members {
		if err := member.Start(); err != nil {
			return err
		}
	}
	return s.hold(ctx, time.Second, 4*time.Second)
}

// pauses are how long members stand still; the longest ones are rare.
var pauses = []time.Duration{500 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second, 2 * time.Second, 2 * time.Second, 10 * time.Second}

func (s *Scene) pause(ctx context.Context, members ...*rig.Member) error {
	length := pauses[s.Random.IntN(len(pauses))]
	for _, member := range members {
		s.Say("  SIGSTOP %s for %v", member, length)
		if err := member.Pause(); err != nil {
			return err
		}
	}
	if err := s.hold(ctx, length, length+time.Millisecond); err != nil {
		return err
	}
	for _, member := range members {
		if err := member.Resume(); err != nil {
			return err
		}
	}
	return s.hold(ctx, time.Second, 3*time.Second)
}

func (s *Scene) restart(ctx context.Context, member *rig.Member) error {
	s.Say("  SIGTERM %s", member)
	if err := member.Terminate(); err != nil {
		return err
	}
	if err := s.hold(ctx, 100*time.Millisecond, time.Second); err != nil {
		return err
	}
	if err := member.Start(); err != nil {
		return err
	}
	return member.AwaitReady()
}
