package rows

import (
	"context"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"basalt/tests/chaos/figures"
	"basalt/tests/chaos/load"
	"basalt/tests/chaos/rig"
)

// isolateLeader is row 7.
func isolateLeader(s *Stage) error {
	if err := s.begin(nil); err != nil {
		return err
	}
	if err := s.wait(2 * time.Second); err != nil {
		return err
	}
	old, err := s.cluster.Leader()
	if err != nil {
		return err
	}
	others := s.cluster.Others(old)
	ended := watchThatNeedsALeader(s, old)
	cut := s.load.Now()
	if err := s.cluster.Isolate(old); err != nil {
		return err
	}
	resumedAfter := make(chan time.Duration, 1)
	go func() {
		for {
			if after, all := resumed(s.load.Record(), cut, others...); all {
				resumedAfter <- after
				return
			}
			if s.wait(10*time.Millisecond) != nil {
				return
			}
		}
	}()
	steppedDown, err := s.until("the old leader's stepping down", 20*time.Second, func() bool {
		now, err := old.Status(time.Second)
		return err == nil && now.Leader != now.Header.MemberId
	})
	if err != nil {
		return err
	}
	s.Did("all packets between the leader and the others dropped")
	s.RequireTime(steppedDown <= 2200*time.Millisecond, "the old leader steps down after %s", rounded(steppedDown))
	select {
	case after := <-resumedAfter:
		s.RequireTime(after <= 3*time.Second, "writes through the others resume after %s", rounded(after))
	case <-time.After(20 * time.Second):
		return fmt.Errorf("no write through the others within 20 s")
	}
	select {
	case text := <-ended:
		s.Require(text == "etcdserver: no leader", "a require-leader watch at the old one ends with %q", text)
	case <-time.After(15 * time.Second):
		s.Require(false, "a require-leader watch at the old one goes on")
	}
	ctx, cancel := context.WithTimeout(s, 3*time.Second)
	defer cancel()
	_, err = s.load.Read(ctx, old, "k/", "k0", true, 0)
	s.Require(err == nil, "a serializable read at the old one: %v", status.Code(err))
	if err := s.wait(2 * time.Second); err != nil {
		return err
	}
	return s.judge()
}

// watchThatNeedsALeader tells with which words it ends.
func watchThatNeedsALeader(s *Stage, member *rig.Member) <-chan string {
	ended := make(chan string, 1)
	go func() {
		ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(s, "hasleader", "true"))
		defer cancel()
		stream, err := pb.NewWatchClient(member.Conn()).Watch(ctx)
		if err == nil {
			err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("none")}}})
		}
		for err == nil {
			var answer *pb.WatchResponse
			if answer, err = stream.Recv(); err == nil && answer.Canceled {
				ended <- answer.CancelReason
				return
			}
		}
		ended <- status.Convert(err).Message()
	}()
	return ended
}

// oneWay is row 8.
func oneWay(s *Stage) error {
	if err := s.begin(nil); err != nil {
		return err
	}
	length := size(s, 5*time.Second, 15*time.Second, 60*time.Second)
	for _, toFollower := range []bool{true, false} {
		for _, cut := range []rig.Cut{rig.Everything, rig.Payload} {
			leader, err := s.cluster.Leader()
			if err != nil {
				return err
			}
			from, to, words := leader, s.cluster.Others(leader)[0], "leader to follower"
			if !toFollower {
				from, to, words = to, from, "follower to leader"
			}
			if cut == rig.Payload {
				words += ", payload alone"
			}
			seen, began := watchLeaderships(s.cluster), s.load.Now()
			if err := s.cluster.Cut(from, to, cut); err != nil {
				return err
			}
			if err := s.wait(length); err != nil {
				return err
			}
			if err := s.cluster.HealNetwork(); err != nil {
				return err
			}
			if err := s.wait(3 * time.Second); err != nil {
				return err
			}
			leaders, terms := seen.changes()
			longest := gap(s.load.Record(), began, began+length, s.cluster.Members()...)
			s.Did("%s cut for %v", words, length)
			s.Require(leaders <= 1 && terms <= 2, "%d leader changes, %d terms", leaders, terms)
			s.RequireTime(longest <= 3*time.Second, "longest time without a write %s", rounded(longest))
		}
	}
	return s.judge()
}

// bridge is row 9.
func bridge(s *Stage) error {
	if err := s.begin(nil); err != nil {
		return err
	}
	length := size(s, 10*time.Second, 60*time.Second, 5*time.Minute)
	for _, inTheMiddle := range []bool{true, false} {
		leader, err := s.cluster.Leader()
		if err != nil {
			return err
		}
		others := s.cluster.Others(leader)
		one, other, words := others[0], others[1], "the leader in the middle"
		if !inTheMiddle {
			one, words = leader, "the leader at an end"
		}
		seen, began := watchLeaderships(s.cluster), s.load.Now()
		if err := s.cluster.CutBoth(one, other); err != nil {
			return err
		}
		if err := s.wait(min(10*time.Second, length/2)); err != nil {
			return err
		}
		early, _ := seen.changes()
		seen = watchLeaderships(s.cluster)
		if err := s.wait(length - min(10*time.Second, length/2)); err != nil {
			return err
		}
		late, _ := seen.changes()
		longest := gap(s.load.Record(), began, s.load.Now(), s.cluster.Members()...)
		if err := s.cluster.HealNetwork(); err != nil {
			return err
		}
		if err := s.wait(3 * time.Second); err != nil {
			return err
		}
		s.Did("two members that do not hear each other for %v, %s", length, words)
		s.Require(late == 0 && early <= 2, "%d leader changes at first, %d later; longest time without a write %s", early, late, rounded(longest))
	}
	return s.judge()
}

// poorNetwork is row 10.
func poorNetwork(s *Stage) error {
	if err := s.begin(func(machines *rig.Options, _ *load.Options) { machines.Proxied = true }); err != nil {
		return err
	}
	length := size(s, 6*time.Second, 20*time.Second, 2*time.Minute)
	poor := []struct {
		name string
		make func() error
	}{
		{"30 % of packets lost", func() error {
			for _, one := range s.cluster.Members() {
				for _, other := range s.cluster.Others(one) {
					if err := s.cluster.Cut(one, other, rig.Loss(30)); err != nil {
						return err
					}
				}
			}
			return nil
		}},
		{"100 ± 50 ms late", func() error { return s.cluster.Delay(100*time.Millisecond, 50*time.Millisecond) }},
		{"1 Mbit/s", func() error { return s.cluster.Narrow(1000) }},
	}
	for _, network := range poor {
		seen, from := watchLeaderships(s.cluster), s.load.Now()
		if err := network.make(); err != nil {
			return err
		}
		if err := s.wait(length); err != nil {
			return err
		}
		to := s.load.Now()
		if err := s.cluster.HealNetwork(); err != nil {
			return err
		}
		if err := s.wait(3 * time.Second); err != nil {
			return err
		}
		leaders, _ := seen.changes()
		writes := written(s.load.Record(), from, to, s.cluster.Members()...)
		s.Did("%s for %v", network.name, length)
		s.Measured("%d of %d writes acknowledged, p99 %s, %d leader changes", len(writes)-unanswered(writes), len(writes),
			rounded(figures.Percentile(latencies(writes), 99)), leaders)
	}
	return s.judge()
}
