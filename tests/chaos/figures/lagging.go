package figures

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/chaos/rig"
)

// Away is what happens while a member is away.
type Away struct {
	Name string
	// Before is how many puts all members see first: what the same writes cost in memory while nobody is away.
	Before int
	Puts   int
	// Bytes of each value, random.
	Bytes int
}

// callers of the puts while a member is away.
const callers = 100

// calm is how long the load beside is measured before a member comes back.
const calm = 5 * time.Second

// Lagging kills a follower, writes, starts it again, and measures until it has everything.
func Lagging(ctx context.Context, options Options, aways []Away) error {
	fmt.Printf("| %-8s | %-34s | %8s | leader's memory here, away, catching up | p99 of puts calm, catching up |\n| --- | --- | --- | --- | --- |\n", "", "behind by", "back in")
	for _, away := range aways {
		for _, side := range options.Sides {
			if err := laggingOf(ctx, options, side, away); err != nil {
				return fmt.Errorf("%s, %s: %w", side.Name, away.Name, err)
			}
		}
	}
	return nil
}

func laggingOf(ctx context.Context, options Options, side Side, away Away) error {
	cluster, err := options.start(side)
	if err != nil {
		return err
	}
	defer cluster.Close()
	leader, err := cluster.Leader()
	if err != nil {
		return err
	}
	follower := cluster.Others(leader)[0]
	most := watchMemory(leader)
	if err := write(ctx, cluster.Others(follower), "here", away.Before, away.Bytes); err != nil {
		return err
	}
	time.Sleep(calm)
	before := most()
	if err := follower.Kill(); err != nil {
		return err
	}
	most = watchMemory(leader)
	began := time.Now()
	if err := write(ctx, cluster.Others(follower), "away", away.Puts, away.Bytes); err != nil {
		return err
	}
	options.Say("%s: %s written in %v", side.Name, away.Name, time.Since(began).Round(time.Second))
	puts := startPutter(cluster, 10*time.Millisecond, 256)
	defer puts.stop()
	quiet := time.Now()
	time.Sleep(calm)
	whileAway := most()
	most = watchMemory(leader)
	took, err := comeBack(leader, follower)
	after := most()
	if err != nil {
		return err
	}
	back := time.Now()
	others := cluster.Others(follower)
	fmt.Printf("| %-8s | %-34s | %7.2f s | %d, %d, %d MiB | %s, %s |\n", side.Name, away.Name, took.Seconds(), before>>20, whileAway>>20, after>>20,
		milliseconds(puts.latency(99, quiet, back.Add(-took), others)), milliseconds(puts.latency(99, back.Add(-took), back, others)))
	return nil
}

// comeBack starts a member and waits until it has applied what the leader has now.
func comeBack(leader, follower *rig.Member) (time.Duration, error) {
	target, err := leader.Status(10 * time.Second)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if err := follower.Start(); err != nil {
		return 0, err
	}
	for {
		now, err := follower.Status(time.Second)
		if err == nil && now.RaftAppliedIndex >= target.RaftAppliedIndex {
			return time.Since(began), nil
		}
		if !follower.Running() {
			return 0, fmt.Errorf("%s ended: %s", follower, follower.LastLine())
		}
		if time.Since(began) > 10*time.Minute {
			return 0, fmt.Errorf("%s has not caught up within ten minutes", follower)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// write puts so many keys through these members and returns when all are acknowledged.
func write(ctx context.Context, members []*rig.Member, prefix string, count, bytes int) error {
	var next atomic.Int64
	var all sync.WaitGroup
	failed := make(chan error, callers)
	for caller := range callers {
		all.Add(1)
		go func() {
			defer all.Done()
			random := rand.New(rand.NewPCG(uint64(caller), 1))
			kv := pb.NewKVClient(members[caller%len(members)].Conn())
			for {
				n := next.Add(1)
				if n > int64(count) || ctx.Err() != nil {
					return
				}
				value := make([]byte, bytes)
				for at := range value {
					value[at] = byte(random.Uint32())
				}
				once, cancel := context.WithTimeout(ctx, 30*time.Second)
				_, err := kv.Put(once, &pb.PutRequest{Key: fmt.Appendf(nil, "/registry/%s/%09d", prefix, n), Value: value})
				cancel()
				if err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	all.Wait()
	close(failed)
	if err := <-failed; err != nil {
		return err
	}
	return ctx.Err()
}

// watchMemory looks at a process until the function is called, which tells the most.
func watchMemory(member *rig.Member) func() int64 {
	stop, most := make(chan struct{}), make(chan int64)
	go func() {
		newest := int64(0)
		for {
			// A process that is gone fails elsewhere.
			if now, err := member.Memory(); err == nil {
				newest = max(newest, now)
			}
			select {
			case <-stop:
				most <- newest
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return func() int64 {
		close(stop)
		return <-most
	}
}
