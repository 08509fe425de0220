package rows

import (
	"context"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"basalt/tests/chaos/figures"
	"basalt/tests/chaos/history"
	"basalt/tests/chaos/load"
	"basalt/tests/chaos/nemesis"
	"basalt/tests/chaos/rig"
)

// fullOne is row 12: a follower's disk, then the leader's.
func fullOne(s *Stage) error {
	if err := s.begin(func(machines *rig.Options, clients *load.Options) {
		machines.Disk, machines.DiskMiB = rig.Loop, 1024
		clients.ValueBytes = 1024
	}); err != nil {
		return err
	}
	for _, leads := range []bool{false, true} {
		if err := s.wait(3 * time.Second); err != nil {
			return err
		}
		member, err := s.cluster.Leader()
		if err != nil {
			return err
		}
		words := "the leader's"
		if !leads {
			member, words = s.cluster.Others(member)[0], "a follower's"
		}
		from := s.load.Now()
		if err := member.FillDisk(0); err != nil {
			return err
		}
		others := s.cluster.Others(member)
		// More than the space that a log has set aside for itself.
		big, err := putBig(s, others, size(s, 100, 300, 300))
		if err != nil {
			return err
		}
		if err := s.wait(size(s, 6*time.Second, 15*time.Second, time.Minute)); err != nil {
			return err
		}
		to := s.load.Now()
		end := "it goes on"
		if !member.Running() {
			end = fmt.Sprintf("it stops with %d, %q", member.ExitCode(), clipped(member.LastLine()))
		}
		writes := written(s.load.Record(), to-5*time.Second, to-time.Second, others...)
		s.Did("%s disk filled for %v, amid %d puts of 512 KiB", words, (to - from).Round(time.Second), big)
		s.Measured("%s", end)
		s.Require(len(writes) > 0 && unanswered(writes) == 0, "at last %d of %d writes through the others acknowledged%s",
			len(writes)-unanswered(writes), len(writes), firstError(writes))
		if err := member.FreeDisk(); err != nil {
			return err
		}
		if err := nemesis.Heal(s.cluster); err != nil {
			return err
		}
		if err := nemesis.Disarm(s, s.cluster); err != nil {
			return err
		}
	}
	return s.judge()
}

// putBig writes values of 512 KiB through these members, as fast as they are acknowledged, and returns how many were.
func putBig(s *Stage, through []*rig.Member, count int) (acknowledged int, err error) {
	for n := range count {
		ctx, cancel := context.WithTimeout(s, 5*time.Second)
		change := history.Change{Key: fmt.Sprintf("big/%d", n%4), Value: s.load.Value(512 << 10)}
		if s.load.Write(ctx, through[n%len(through)], nil, change).Outcome == history.Acknowledged {
			acknowledged++
		}
		cancel()
		if err := s.wait(20 * time.Millisecond); err != nil {
			return acknowledged, err
		}
	}
	return acknowledged, nil
}

func clipped(text string) string { return text[:min(len(text), 160)] }

func firstError(writes []*history.Write) string {
	for _, write := range writes {
		if write.Error != "" {
			return ", else " + clipped(write.Error)
		}
	}
	return ""
}

// fullAll is row 13: the disks of pages, the log lies elsewhere.
func fullAll(s *Stage) error {
	if err := s.begin(func(machines *rig.Options, clients *load.Options) {
		machines.Disk, machines.DiskMiB, machines.LogApart = rig.Loop, 384, true
		clients.ValueBytes = 4096
	}); err != nil {
		return err
	}
	if err := s.wait(3 * time.Second); err != nil {
		return err
	}
	pids := map[string]int{}
	for _, member := range s.cluster.Members() {
		pids[member.Name] = member.Pid()
		if err := member.FillDisk(0); err != nil {
			return err
		}
	}
	through := s.cluster.Members()[0]
	refusedAfter, err := s.until("a refused put", 90*time.Second, func() bool {
		ctx, cancel := context.WithTimeout(s, 3*time.Second)
		defer cancel()
		write := s.load.Put(ctx, through, "k/hot-0")
		return write.Outcome == history.Refused
	})
	if err != nil {
		return err
	}
	s.Did("the disks of all members filled, the logs on another")
	ctx, cancel := context.WithTimeout(s, 30*time.Second)
	defer cancel()
	kv := pb.NewKVClient(through.Conn())
	_, putError := kv.Put(ctx, &pb.PutRequest{Key: []byte("more"), Value: []byte("more")})
	s.Require(status.Code(putError) == codes.ResourceExhausted, "puts refused after %s, with %v", rounded(refusedAfter), status.Convert(putError).Message())
	read, err := s.load.Read(ctx, through, "k/", "k0", false, 0)
	s.Require(err == nil, "a read: %v", status.Code(err))
	deleted := s.load.Write(ctx, through, nil, history.Change{Key: "k/hot-0", Delete: true})
	s.Require(deleted.Outcome == history.Acknowledged, "a delete: %s", outcome(deleted))
	if read != nil {
		err = s.load.Compact(ctx, through, read.Revision)
		s.Require(err == nil, "a compaction: %v", status.Code(err))
	}
	_, err = pb.NewMaintenanceClient(through.Conn()).Defragment(ctx, &pb.DefragmentRequest{})
	// There is nowhere to write it to: it may be refused, with the word for it.
	s.Require(err == nil || status.Code(err) == codes.ResourceExhausted, "a defragmentation: %v", status.Code(err))
	for _, member := range s.cluster.Members() {
		if err := member.FreeDisk(); err != nil {
			return err
		}
	}
	if err := nemesis.Disarm(s, s.cluster); err != nil {
		return err
	}
	again, err := s.until("a put", 30*time.Second, func() bool {
		ctx, cancel := context.WithTimeout(s, 3*time.Second)
		defer cancel()
		return s.load.Put(ctx, through, "k/hot-1").Outcome == history.Acknowledged
	})
	if err != nil {
		return err
	}
	same := 0
	for _, member := range s.cluster.Members() {
		if member.Running() && member.Pid() == pids[member.Name] {
			same++
		}
	}
	s.Require(same == len(pids), "%d of %d members were never restarted", same, len(pids))
	s.Measured("puts again %s after the alarm was disarmed", rounded(again))
	return s.judge()
}

func outcome(write *history.Write) string {
	if write.Outcome == history.Acknowledged {
		return "OK"
	}
	return clipped(write.Error)
}

// failedCall is rows 14 and 15: a system call of the log fails, at a follower, then at the leader.
func failedCall(injections ...string) func(*Stage) error {
	return func(s *Stage) error {
		if err := s.begin(nil); err != nil {
			return err
		}
		for _, injection := range injections {
			for _, leads := range []bool{false, true} {
				if err := s.wait(2 * time.Second); err != nil {
					return err
				}
				member, err := s.cluster.Leader()
				if err != nil {
					return err
				}
				words := "the leader"
				if !leads {
					member, words = s.cluster.Others(member)[0], "a follower"
				}
				stop, err := member.Inject(injection)
				if err != nil {
					return err
				}
				err = member.AwaitExit(20 * time.Second)
				stop()
				if err != nil {
					return fmt.Errorf("%s after %s: %w", member, injection, err)
				}
				s.Did("%s at %s", injection, words)
				s.Require(member.ExitCode() == 1, "it ends with %d, %q", member.ExitCode(), clipped(member.LastLine()))
				if err := member.Start(); err != nil {
					return err
				}
				if err := member.AwaitReady(); err != nil {
					return err
				}
			}
		}
		return s.judge()
	}
}

// slowDisk is row 21.
func slowDisk(s *Stage) error {
	if err := s.begin(nil); err != nil {
		return err
	}
	lengths := size(s, []time.Duration{200 * time.Millisecond, 5 * time.Second},
		[]time.Duration{200 * time.Millisecond, 5 * time.Second, 60 * time.Second},
		[]time.Duration{200 * time.Millisecond, 5 * time.Second, 60 * time.Second})
	for _, late := range lengths {
		if err := s.wait(3 * time.Second); err != nil {
			return err
		}
		leader, err := s.cluster.Leader()
		if err != nil {
			return err
		}
		seen, from := watchLeaderships(s.cluster), s.load.Now()
		stop, err := leader.Inject(fmt.Sprintf("fdatasync:delay_enter=%d", late.Microseconds()))
		if err != nil {
			return err
		}
		waited := s.wait(max(10*time.Second, 2*late))
		to := s.load.Now()
		stop()
		if waited != nil {
			return waited
		}
		leaders, _ := seen.changes()
		others := s.cluster.Others(leader)
		longest := gap(s.load.Record(), from, to, others...)
		writes := written(s.load.Record(), from, to-4*time.Second, others...)
		s.Did("every sync of the leader %v late for %v", late, (to - from).Round(time.Second))
		figures := fmt.Sprintf("%d leader changes; through the others %d of %d writes acknowledged, p99 %s, longest time without one %s", leaders,
			len(writes)-unanswered(writes), len(writes), rounded(figures.Percentile(latencies(writes), 99)), rounded(longest))
		// An election lasts a second, and three syncs of half of that are to be seen first.
		s.Require(late < time.Second || leaders >= 1, "%s", figures)
		s.RequireTime(late < time.Second || longest <= 10*time.Second, "one without a write ≤ 10 s")
		if now, err := s.cluster.Leader(); err != nil {
			return err
		} else if late >= time.Second && now == leader {
			s.Require(false, "the slow member leads again")
		}
	}
	// One follower as slow as that is nothing to the others.
	leader, err := s.cluster.Leader()
	if err != nil {
		return err
	}
	follower := s.cluster.Others(leader)[0]
	from := s.load.Now()
	stop, err := follower.Inject("fdatasync:delay_enter=5000000")
	if err != nil {
		return err
	}
	waited := s.wait(10 * time.Second)
	to := s.load.Now()
	stop()
	if waited != nil {
		return waited
	}
	s.Did("every sync of a follower 5s late for 10s")
	writes := written(s.load.Record(), from, to-4*time.Second, s.cluster.Others(follower)...)
	s.RequireTime(unanswered(writes) == 0, "through the others %d of %d writes acknowledged, p99 %s", len(writes)-unanswered(writes), len(writes),
		rounded(figures.Percentile(latencies(writes), 99)))
	return s.judge()
}
