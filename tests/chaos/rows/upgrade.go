package rows

import (
	"context"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/chaos/figures"
	"basalt/tests/chaos/rig"
)

// rolling is row 34: with a newer build, each time from a new cluster of the older one, for there is no way back.
func rolling(s *Stage) error {
	times := size(s, 1, 5, 20)
	var gaps []time.Duration
	for n := range times {
		if s.cluster == nil {
			if err := s.begin(nil); err != nil {
				return err
			}
		}
		for _, member := range s.cluster.Members() {
			longest, err := rolled(s, member)
			if err != nil {
				return err
			}
			gaps = append(gaps, longest)
		}
		if s.Options.Newer == "" && n < times-1 {
			continue
		}
		if err := s.wait(2 * time.Second); err != nil {
			return err
		}
		if err := s.judge(); err != nil {
			return err
		}
		if n < times-1 {
			s.close()
		}
	}
	words := "restarts of one build"
	if s.Options.Newer != "" {
		words = "upgrades to the newer build"
	}
	s.Did("%d rolling %s under load, with MoveLeader and SIGTERM", times, words)
	s.RequireTime(figures.Percentile(gaps, 100) <= 3*time.Second, "longest time without a write through the others: %s (p50), %s (max)",
		rounded(figures.Percentile(gaps, 50)), rounded(figures.Percentile(gaps, 100)))
	return nil
}

// rolled restarts one member, and returns the longest time without a write through the others.
func rolled(s *Stage, member *rig.Member) (time.Duration, error) {
	if err := s.wait(time.Second); err != nil {
		return 0, err
	}
	others, from := s.cluster.Others(member), s.load.Now()
	leader, err := s.cluster.Leader()
	if err != nil {
		return 0, err
	}
	if leader == member {
		to, err := others[0].Status(5 * time.Second)
		if err != nil {
			return 0, err
		}
		ctx, cancel := context.WithTimeout(s, 10*time.Second)
		_, err = pb.NewMaintenanceClient(member.Conn()).MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: to.Header.MemberId})
		cancel()
		if err != nil {
			return 0, fmt.Errorf("MoveLeader: %w", err)
		}
	}
	if err := member.Terminate(); err != nil {
		return 0, err
	}
	if s.Options.Newer != "" {
		member.Upgrade(s.Options.Newer)
	}
	if err := member.Start(); err != nil {
		return 0, err
	}
	if err := member.AwaitReady(); err != nil {
		return 0, err
	}
	return gap(s.load.Record(), from, s.load.Now(), others...), nil
}
