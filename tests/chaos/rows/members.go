package rows

import (
	"context"
	"fmt"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/status"

	"basalt/tests/chaos/rig"
)

// changesAmidPartition is row 22.
func changesAmidPartition(s *Stage) error {
	if err := s.begin(nil); err != nil {
		return err
	}
	if err := s.wait(6 * time.Second); err != nil { // members count as reached after five seconds
		return err
	}
	steps := []func(*Stage) error{refuseLossOfQuorum, changeFromMinority, replaceDead, replaceLeader}
	for _, step := range steps {
		if err := step(s); err != nil {
			return err
		}
		if err := s.wait(6 * time.Second); err != nil {
			return err
		}
	}
	return s.judge()
}

// idOf asks a member which id another has.
func idOf(s *Stage, through, member *rig.Member) (uint64, error) {
	ctx, cancel := context.WithTimeout(s, 10*time.Second)
	defer cancel()
	listed, err := pb.NewClusterClient(through.Conn()).MemberList(ctx, &pb.MemberListRequest{})
	if err != nil {
		return 0, err
	}
	at := slices.IndexFunc(listed.Members, func(known *pb.Member) bool { return known.Name == member.Name })
	if at < 0 {
		return 0, fmt.Errorf("%s does not know %s", through, member)
	}
	return listed.Members[at].ID, nil
}

// refuseLossOfQuorum asks for a removal that leaves one reachable of two.
func refuseLossOfQuorum(s *Stage) error {
	leader, err := s.cluster.Leader()
	if err != nil {
		return err
	}
	others := s.cluster.Others(leader)
	gone, id := others[0], uint64(0)
	if id, err = idOf(s, leader, others[1]); err != nil {
		return err
	}
	if err := s.cluster.Isolate(gone); err != nil {
		return err
	}
	if err := s.wait(6 * time.Second); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s, 10*time.Second)
	defer cancel()
	_, removed := pb.NewClusterClient(leader.Conn()).MemberRemove(ctx, &pb.MemberRemoveRequest{ID: id})
	_, added := pb.NewClusterClient(leader.Conn()).MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"https://10.213.0.1:2380"}})
	s.Did("with one of three cut off, a second one removed, a voter added")
	s.Require(removed != nil, "the removal: %q", status.Convert(removed).Message())
	s.Require(added != nil, "the addition: %q", status.Convert(added).Message())
	return s.cluster.HealNetwork()
}

// changeFromMinority asks a leader that was cut off for a change: it must not happen.
func changeFromMinority(s *Stage) error {
	leader, err := s.cluster.Leader()
	if err != nil {
		return err
	}
	others := s.cluster.Others(leader)
	id, err := idOf(s, leader, others[1])
	if err != nil {
		return err
	}
	if err := s.cluster.Isolate(leader); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s, 6*time.Second)
	_, removed := pb.NewClusterClient(leader.Conn()).MemberRemove(ctx, &pb.MemberRemoveRequest{ID: id})
	cancel()
	if err := s.cluster.HealNetwork(); err != nil {
		return err
	}
	if err := s.wait(3 * time.Second); err != nil {
		return err
	}
	if _, err := s.cluster.Leader(); err != nil {
		return err
	}
	still, err := idOf(s, others[0], others[1])
	s.Did("a leader asked for a removal while it is cut off")
	s.Require(removed != nil && err == nil && still == id, "the removal: %q, and it did not happen", status.Convert(removed).Message())
	return nil
}

// replaceDead replaces a killed member while the load goes on.
func replaceDead(s *Stage) error {
	leader, err := s.cluster.Leader()
	if err != nil {
		return err
	}
	gone := s.cluster.Others(leader)[0]
	if err := gone.Kill(); err != nil {
		return err
	}
	return replaced(s, gone, "a killed follower")
}

func replaceLeader(s *Stage) error {
	leader, err := s.cluster.Leader()
	if err != nil {
		return err
	}
	return replaced(s, leader, "the leader")
}

func replaced(s *Stage, gone *rig.Member, words string) error {
	ctx, cancel := context.WithTimeout(s, 90*time.Second)
	defer cancel()
	from, began := s.load.Now(), time.Now()
	others := s.cluster.Others(gone)
	came, err := s.cluster.Replace(ctx, gone)
	if err != nil {
		return err
	}
	longest := gap(s.load.Record(), from, s.load.Now(), others...)
	s.Did("%s removed and a new one brought in as a learner and promoted", words)
	s.RequireTime(longest <= 3*time.Second, "%s serves as a voter after %s; longest time without a write %s", came, rounded(time.Since(began)), rounded(longest))
	return nil
}
