package nemesis

import (
	"context"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/chaos/rig"
)

// Machines are faults of disks and clocks, and what operators do.
var Machines = []Fault{
	{"syncs of 200 ms at the leader", func(ctx context.Context, s *Scene) error {
		leader, err := s.Cluster.Leader()
		if err != nil {
			return err
		}
		return s.slow(ctx, leader, 200*time.Millisecond)
	}, anywhere},
	{"syncs of 200 ms at a member", func(ctx context.Context, s *Scene) error { return s.slow(ctx, s.some(), 200*time.Millisecond) }, anywhere},
	{"syncs of 5 s at a member", func(ctx context.Context, s *Scene) error { return s.slow(ctx, s.some(), 5*time.Second) }, anywhere},
	{"a full disk at a member", func(ctx context.Context, s *Scene) error {
		member := s.some()
		s.Say("  full: %s", member)
		if err := member.FillDisk(0); err != nil {
			return err
		}
		if err := s.hold(ctx, 5*time.Second, 15*time.Second); err != nil {
			return err
		}
		if err := member.FreeDisk(); err != nil {
			return err
		}
		return Disarm(ctx, s.Cluster)
	}, smallDisk},
	{"a failed sync", func(ctx context.Context, s *Scene) error {
		member := s.some()
		s.Say("  fdatasync of %s says EIO", member)
		stop, err := member.Inject("fdatasync:error=EIO:when=1")
		if err != nil {
			return err
		}
		defer stop()
		if err := member.AwaitExit(20 * time.Second); err != nil {
			return fmt.Errorf("%s after a failed sync: %w", member, err)
		}
		return s.hold(ctx, 100*time.Millisecond, 2*time.Second)
	}, anywhere},
	{"a wrong clock", func(ctx context.Context, s *Scene) error {
		offsets := []string{"+3600", "-3600", "+1800", "+0 x1.1", "+0 x0.9"}
		for _, member := range s.Cluster.Members() {
			offset := offsets[s.Random.IntN(len(offsets))]
			s.Say("  clock of %s: %s", member, offset)
			if err := member.SetClock(offset); err != nil {
				return err
			}
			if err := s.hold(ctx, 500*time.Millisecond, 3*time.Second); err != nil {
				return err
			}
		}
		return s.hold(ctx, time.Second, 4*time.Second)
	}, clocks},
	{"a rolling restart", func(ctx context.Context, s *Scene) error {
		for _, member := range s.Cluster.Members() {
			if err := s.restart(ctx, member); err != nil {
				return err
			}
			if _, err := s.Cluster.Leader(); err != nil {
				return err
			}
		}
		return nil
	}, anywhere},
	{"a member is replaced", func(ctx context.Context, s *Scene) error {
		gone := s.some()
		s.Say("  replaced: %s", gone)
		if s.Random.IntN(2) == 0 {
			if err := gone.Kill(); err != nil {
				return err
			}
		}
		limited, cancel := context.WithTimeout(ctx, 90*time.Second)
		defer cancel()
		// A member that was just lost or found makes a change unhealthy for some seconds.
		_, err := s.Cluster.Replace(limited, gone)
		return err
	}, unproxied},
	{"leadership moves five times", func(ctx context.Context, s *Scene) error {
		for range 5 {
			leader, err := s.Cluster.Leader()
			if err != nil {
				return err
			}
			others := s.Cluster.Others(leader)
			if err := Move(ctx, leader, others[s.Random.IntN(len(others))]); err != nil {
				s.Say("  %v", err) // it may have led no more
			}
			if err := s.hold(ctx, 200*time.Millisecond, time.Second); err != nil {
				return err
			}
		}
		return nil
	}, anywhere},
}

// slow makes every sync of a member late.
func (s *Scene) slow(ctx context.Context, member *rig.Member, late time.Duration) error {
	s.Say("  every sync of %s is %v late", member, late)
	stop, err := member.Inject(fmt.Sprintf("fdatasync:delay_enter=%d", late.Microseconds()))
	if err != nil {
		return err
	}
	defer stop()
	return s.hold(ctx, 5*time.Second, 15*time.Second)
}

// Move asks a leader to hand over.
func Move(ctx context.Context, leader, to *rig.Member) error {
	status, err := to.Status(2 * time.Second)
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err = pb.NewMaintenanceClient(leader.Conn()).MoveLeader(limited, &pb.MoveLeaderRequest{TargetID: status.Header.MemberId})
	return err
}

// Disarm takes all alarms back, once no disk is full.
func Disarm(ctx context.Context, cluster *rig.Cluster) error {
	for turn, deadline := 0, time.Now().Add(40*time.Second); ; turn++ {
		limited, cancel := context.WithTimeout(ctx, 5*time.Second)
		members := cluster.Members()
		client := pb.NewMaintenanceClient(members[turn%len(members)].Conn())
		listed, err := client.Alarm(limited, &pb.AlarmRequest{Action: pb.AlarmRequest_GET})
		if err == nil {
			for _, alarm := range listed.Alarms {
				_, err = client.Alarm(limited, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: alarm.MemberID, Alarm: alarm.Alarm})
			}
		}
		cancel()
		if err == nil && len(listed.Alarms) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("alarms that cannot be disarmed: %v %v", listed, err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
	}
}
