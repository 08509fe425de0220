package rows

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/status"

	"basalt/tests/chaos/figures"
	"basalt/tests/chaos/history"
	"basalt/tests/chaos/load"
	"basalt/tests/chaos/rig"
)

// killFollower is row 1.
func killFollower(s *Stage) error {
	if err := s.begin(nil); err != nil {
		return err
	}
	leader, err := s.cluster.Leader()
	if err != nil {
		return err
	}
	follower := s.cluster.Others(leader)[0]
	length := size(s, 4*time.Second, 15*time.Second, 30*time.Second)
	if err := s.wait(2 * time.Second); err != nil { // the first writes make files
		return err
	}
	before := s.load.Now()
	if err := s.wait(length); err != nil {
		return err
	}
	killed := s.load.Now()
	if err := follower.Kill(); err != nil {
		return err
	}
	if err := s.wait(length); err != nil {
		return err
	}
	started, others := s.load.Now(), s.cluster.Others(follower)
	s.Did("a follower killed under load for %v", length)
	record := s.load.Record()
	calm, away := latencies(written(record, before, killed, others...)), written(record, killed, started, others...)
	s.RequireTime(unanswered(away) == 0, "%d of %d writes through the others failed", unanswered(away), len(away))
	p99, base := figures.Percentile(latencies(away), 99), figures.Percentile(calm, 99)
	s.RequireTime(p99 <= 2*base, "write p99 %s, before %s", rounded(p99), rounded(base))
	target, err := leader.Status(5 * time.Second)
	if err != nil {
		return err
	}
	if err := follower.Start(); err != nil {
		return err
	}
	caught, err := s.until("the follower's catching up", time.Minute, func() bool {
		now, err := follower.Status(time.Second)
		return err == nil && now.RaftAppliedIndex >= target.RaftIndex
	})
	if err != nil {
		return err
	}
	s.RequireTime(caught <= 5*time.Second, "caught up %s after its start", rounded(caught))
	if err := s.wait(time.Second); err != nil {
		return err
	}
	return s.judge()
}

// killLeader is row 2.
func killLeader(s *Stage) error {
	if err := s.begin(nil); err != nil {
		return err
	}
	times := size(s, 2, 20, 20)
	var resumptions []time.Duration
	for range times {
		if err := s.wait(2 * time.Second); err != nil {
			return err
		}
		leader, err := s.cluster.Leader()
		if err != nil {
			return err
		}
		killed := s.load.Now()
		if err := leader.Kill(); err != nil {
			return err
		}
		if _, err := s.until("a write through every other member", 30*time.Second, func() bool {
			_, all := resumed(s.load.Record(), killed, s.cluster.Others(leader)...)
			return all
		}); err != nil {
			return err
		}
		after, _ := resumed(s.load.Record(), killed, s.cluster.Others(leader)...)
		resumptions = append(resumptions, after)
		if err := leader.Start(); err != nil {
			return err
		}
		if err := leader.AwaitReady(); err != nil {
			return err
		}
	}
	s.Did("the leader killed %d times under load", times)
	p50, p99, most := figures.Percentile(resumptions, 50), figures.Percentile(resumptions, 99), figures.Percentile(resumptions, 100)
	s.RequireTime(p99 <= 3*time.Second && most <= 5*time.Second,
		"writes through both others resume after %s (p50), %s (p99), %s (max)", rounded(p50), rounded(p99), rounded(most))
	return s.judge()
}

// killAll is row 3.
func killAll(s *Stage) error {
	loops := size(s, 2, 20, 100)
	var ready []time.Duration
	for done := 0; done < loops; {
		// The history is judged now and then, so that it does not fill the memory.
		if s.cluster == nil {
			if err := s.begin(nil); err != nil {
				return err
			}
		} else {
			clients := s.Options.Load
			clients.Seed += uint64(done)
			var err error
			if s.load, err = load.Start(s.cluster, clients); err != nil {
				return err
			}
		}
		for range min(10, loops-done) {
			if err := s.wait(1500 * time.Millisecond); err != nil {
				return err
			}
			for _, member := range s.cluster.Members() {
				if err := member.Kill(); err != nil {
					return err
				}
			}
			began := time.Now()
			if err := s.cluster.StartAll(); err != nil {
				return err
			}
			ready = append(ready, time.Since(began))
			done++
		}
		if err := s.judge(); err != nil {
			return err
		}
	}
	s.Did("all members killed %d times under load", loops)
	s.RequireTime(figures.Percentile(ready, 100) <= 5*time.Second, "all serve again after %s (p50), %s (max); 1 GiB: bench/restart",
		rounded(figures.Percentile(ready, 50)), rounded(figures.Percentile(ready, 100)))
	return nil
}

// pauseLeader is row 5.
func pauseLeader(s *Stage) error {
	if err := s.begin(nil); err != nil {
		return err
	}
	lengths := size(s, []time.Duration{500 * time.Millisecond, 2 * time.Second},
		[]time.Duration{500 * time.Millisecond, 2 * time.Second, 10 * time.Second, 60 * time.Second},
		[]time.Duration{500 * time.Millisecond, 2 * time.Second, 10 * time.Second, 60 * time.Second})
	for _, length := range lengths {
		if err := s.wait(2 * time.Second); err != nil {
			return err
		}
		leader, err := s.cluster.Leader()
		if err != nil {
			return err
		}
		if err := leader.Pause(); err != nil {
			return err
		}
		ended := pending(s, leader, length+30*time.Second)
		if err := s.wait(length); err != nil {
			return err
		}
		resumed := time.Now()
		if err := leader.Resume(); err != nil {
			return err
		}
		codes := ended()
		s.Did("SIGSTOP of the leader for %v", length)
		s.RequireTime(time.Since(resumed) < 15*time.Second, "20 calls that waited for it ended within %s: %s", rounded(time.Since(resumed)), codes)
	}
	return s.judge()
}

// pending sends ten puts and ten linearizable reads to a member that stands still; the function waits for them and tells their codes.
func pending(s *Stage, member *rig.Member, limit time.Duration) func() string {
	var all sync.WaitGroup
	var mutex sync.Mutex
	counts := map[string]int{}
	for n := range 20 {
		all.Add(1)
		go func() {
			defer all.Done()
			ctx, cancel := context.WithTimeout(s, limit)
			defer cancel()
			code := "OK"
			if n%2 == 0 {
				if write := s.load.Put(ctx, member, fmt.Sprintf("k/hot-%d", n/2)); write.Outcome != history.Acknowledged {
					code = codeOf(write.Error)
				}
			} else if _, err := s.load.Read(ctx, member, fmt.Sprintf("k/hot-%d", n/2), "", false, 0); err != nil {
				code = status.Code(err).String()
			}
			mutex.Lock()
			counts[code]++
			mutex.Unlock()
		}()
	}
	return func() string {
		all.Wait()
		var texts []string
		for code, count := range counts {
			texts = append(texts, fmt.Sprintf("%d %s", count, code))
		}
		return strings.Join(texts, ", ")
	}
}

// codeOf cuts the code out of "rpc error: code = Unavailable desc = ...".
func codeOf(text string) string {
	_, code, _ := strings.Cut(text, "code = ")
	code, _, _ = strings.Cut(code, " ")
	return code
}

// pauseFollower is row 6.
func pauseFollower(s *Stage) error {
	if err := s.begin(func(machines *rig.Options, clients *load.Options) {
		// Far more than a log keeps, so that the follower needs the whole state.
		machines.Args = append(machines.Args, "--snapshot-count=1000", "--snapshot-catchup-entries=200")
		clients.ValueBytes, clients.Rate = 2048, clients.Rate*2
	}); err != nil {
		return err
	}
	leader, err := s.cluster.Leader()
	if err != nil {
		return err
	}
	follower := s.cluster.Others(leader)[0]
	if err := s.wait(size(s, 3*time.Second, 15*time.Second, 15*time.Second)); err != nil {
		return err
	}
	before, err := leader.Memory()
	if err != nil {
		return err
	}
	from, most := s.load.Now(), before
	if err := follower.Pause(); err != nil {
		return err
	}
	length := size(s, 6*time.Second, 40*time.Second, 5*time.Minute)
	for end := time.Now().Add(length); time.Now().Before(end); {
		if err := s.wait(100 * time.Millisecond); err != nil {
			return err
		}
		now, err := leader.Memory()
		if err != nil {
			return err
		}
		most = max(most, now)
	}
	to := s.load.Now()
	if err := follower.Resume(); err != nil {
		return err
	}
	s.Did("SIGSTOP of a follower for %v amid %d calls a second with values of 2 KiB", length, s.Options.Load.Rate*2)
	s.Require(most-before <= 96<<20, "resident memory of the leader %d MiB before, at most %d MiB", mebibytes(before), mebibytes(most))
	longest := gap(s.load.Record(), from, to, s.cluster.Others(follower)...)
	s.RequireTime(longest <= time.Second, "longest time without a write %s", rounded(longest))
	target, err := leader.Status(5 * time.Second)
	if err != nil {
		return err
	}
	caught, err := s.until("the follower's catching up", 2*time.Minute, func() bool {
		now, err := follower.Status(time.Second)
		return err == nil && now.RaftAppliedIndex >= target.RaftIndex
	})
	if err != nil {
		return err
	}
	how := "by entries"
	if follower.Said("applied snapshot") {
		how = "by a whole state"
	}
	s.Measured("caught up in %s %s", rounded(caught), how)
	return s.judge()
}
