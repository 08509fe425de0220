package figures

import (
	"context"
	"fmt"
	"time"

	"basalt/tests/chaos/nemesis"
	"basalt/tests/chaos/rig"
)

// putPeriod is between two puts through a member: no figure is finer.
const putPeriod = 5 * time.Millisecond

// Failover kills the leader, moves it and stops it, so many times each, amid puts through every member.
func Failover(ctx context.Context, options Options, times int) error {
	fmt.Printf("| %-8s | %-34s | times | %9s | %9s | %9s |\n| --- | --- | --- | --- | --- | --- |\n", "", "the leader", "p50", "p99", "max")
	for _, side := range options.Sides {
		if err := failoverOf(ctx, options, side, times); err != nil {
			return fmt.Errorf("%s: %w", side.Name, err)
		}
	}
	return nil
}

func failoverOf(ctx context.Context, options Options, side Side, times int) error {
	cluster, err := options.start(side)
	if err != nil {
		return err
	}
	defer cluster.Close()
	puts := startPutter(cluster, putPeriod, 256)
	defer puts.stop()
	for _, event := range []struct {
		name string
		once func(context.Context, *rig.Cluster, *putter, *rig.Member) (time.Duration, error)
	}{{"kill -9: until others' puts succeed", killed}, {"MoveLeader: longest gap", moved}, {"SIGTERM: longest gap", terminated}} {
		var figures []time.Duration
		for range times {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(2 * time.Second):
			}
			leader, err := cluster.Leader()
			if err != nil {
				return err
			}
			figure, err := event.once(ctx, cluster, puts, leader)
			if err != nil {
				return fmt.Errorf("%s: %w", event.name, err)
			}
			figures = append(figures, figure)
			options.Say("%s, %s: %s", side.Name, event.name, milliseconds(figure))
		}
		fmt.Printf("| %-8s | %-34s | %5d | %9s | %9s | %9s |\n", side.Name, event.name, times,
			milliseconds(Percentile(figures, 50)), milliseconds(Percentile(figures, 99)), milliseconds(Percentile(figures, 100)))
	}
	return nil
}

// killed is how long the others take to answer a put that was called after the kill, the slower of them.
func killed(_ context.Context, cluster *rig.Cluster, puts *putter, leader *rig.Member) (time.Duration, error) {
	since := time.Now()
	if err := leader.Kill(); err != nil {
		return 0, err
	}
	for {
		if after, all := puts.resumed(since, cluster.Others(leader)); all {
			if err := leader.Start(); err != nil {
				return 0, err
			}
			return after, leader.AwaitReady()
		}
		if time.Since(since) > time.Minute {
			return 0, fmt.Errorf("no put succeeds through the others for a minute")
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// window is how long after a hand-over a gap is looked for.
const window = 3 * time.Second

// moved is the longest time without an answer of any member.
func moved(ctx context.Context, cluster *rig.Cluster, puts *putter, leader *rig.Member) (time.Duration, error) {
	from := time.Now()
	if err := nemesis.Move(ctx, leader, cluster.Others(leader)[0]); err != nil {
		return 0, err
	}
	time.Sleep(window)
	return puts.gap(from, time.Now(), cluster.Members()), nil
}

// terminated is the longest time without an answer of one of the others, while the leader stops and is gone.
func terminated(_ context.Context, cluster *rig.Cluster, puts *putter, leader *rig.Member) (time.Duration, error) {
	from := time.Now()
	if err := leader.Terminate(); err != nil {
		return 0, err
	}
	time.Sleep(window)
	longest := puts.gap(from, time.Now(), cluster.Others(leader))
	if err := leader.Start(); err != nil {
		return 0, err
	}
	return longest, leader.AwaitReady()
}
