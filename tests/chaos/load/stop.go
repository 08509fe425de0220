package load

import (
	"context"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/chaos/checks"
	"basalt/tests/chaos/history"
	"basalt/tests/chaos/rig"
)

// settleTimeout is how long a healthy cluster may take to do and tell all that is left. It is wide: the machine may be busy.
const settleTimeout = 60 * time.Second

// Stop ends the clients of a cluster that is healthy again, waits until every member has everything, every watcher was told and every
// lease has ended, and judges it all. The error is about what did not come to an end, the violations about what came.
func (l *Load) Stop() (*history.Record, []checks.Violation, error) {
	defer l.Abandon()
	l.stopAsk()
	l.calls.Wait()
	if err := l.settle(); err != nil {
		l.mutex.Lock()
		defer l.mutex.Unlock()
		l.gatherWatches(false)
		return l.record, nil, err
	}
	l.stopAll()
	l.watchers.Wait()
	l.gatherWatches(true)
	final, err := l.last()
	if err != nil {
		return l.record, nil, err
	}
	return l.record, append(checks.All(l.record), checks.LeasesEnded(l.record, final)...), nil
}

// Abandon ends everything without a judgement.
func (l *Load) Abandon() {
	l.stopAsk()
	l.stopAll()
	l.calls.Wait()
	l.watchers.Wait()
}

// Skipped is how many calls were not sent since too many were under way at their member.
func (l *Load) Skipped() int64 { return l.skipped.Load() }

// settle waits for leases, writes the last key, and waits until every watcher has heard of it.
func (l *Load) settle() error {
	deadline := time.Now().Add(settleTimeout)
	if err := l.awaitLeases(deadline); err != nil {
		return err
	}
	for turn := 0; ; turn++ {
		member := l.cluster.Members()[turn%len(l.cluster.Members())]
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		write := l.Put(ctx, member, "last")
		cancel()
		if write.Outcome == history.Acknowledged {
			l.record.Last = write.Revision
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the healed cluster takes no write: %s", write.Error)
		}
	}
	for _, watcher := range append(l.everyone, l.recorder) {
		for watcher.bound.Load() < l.record.Last {
			if time.Now().After(deadline) {
				return fmt.Errorf("the watch %s of member %d was told up to %d within %v, the store is at %d",
					watcher.watch.Name, watcher.member, watcher.bound.Load(), settleTimeout, l.record.Last)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}

// awaitLeases waits until no key of a lease is left. A lease lives some seconds.
func (l *Load) awaitLeases(deadline time.Time) error {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		member := l.cluster.Members()[int(time.Now().Unix())%len(l.cluster.Members())]
		left, err := l.Read(ctx, member, "l/", "l0", false, 0)
		cancel()
		if err == nil && left.Count == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			if err != nil {
				return fmt.Errorf("the healed cluster answers no read: %w", err)
			}
			return fmt.Errorf("%d leases have not ended within %v: %+v", left.Count, settleTimeout, left.KVs)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func (l *Load) gatherWatches(awaited bool) {
	for _, watcher := range l.everyone {
		watcher.watch.Awaited = awaited
		l.record.Watches = append(l.record.Watches, watcher.watch)
	}
}

// last asks each member for its hash, its whole store and all its history.
func (l *Load) last() (history.State, error) {
	final := history.State{}
	for _, member := range l.cluster.Members() {
		if err := l.lastOf(member); err != nil {
			return nil, fmt.Errorf("at the end, %s: %w", member, err)
		}
	}
	for _, kv := range l.record.Reads[len(l.record.Reads)-1].KVs {
		final[kv.Key] = kv
	}
	return final, nil
}

func (l *Load) lastOf(member *rig.Member) error {
	deadline := time.Now().Add(settleTimeout)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		hash, err := pb.NewMaintenanceClient(member.Conn()).HashKV(ctx, &pb.HashKVRequest{Revision: l.record.Last})
		if err == nil {
			l.record.Hashes[member.Name] = hash.Hash
			_, err = l.Read(ctx, member, "\x00", "\x00", true, 0)
		}
		cancel()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
	return l.watchAgain(member)
}

// watchAgain asks a member for the whole history that is left.
func (l *Load) watchAgain(member *rig.Member) error {
	start := l.record.First + 1
	for _, compaction := range l.record.Compacted {
		start = max(start, compaction.Revision+1)
	}
	if start > l.record.Last {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	again := &Load{options: l.options, cluster: l.cluster, began: l.began, ctx: ctx, stopAll: cancel, stopAsk: func() {}, record: &history.Record{First: start - 1}}
	watcher := again.watch("again through "+member.Name, member.Number, "\x00", "\x00", true)
	defer again.Abandon()
	for deadline := time.Now().Add(settleTimeout); watcher.bound.Load() < l.record.Last; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("a watch from %d was told up to %d within %v, the store is at %d", start, watcher.bound.Load(), settleTimeout, l.record.Last)
		}
	}
	again.Abandon()
	watcher.watch.Awaited = true
	l.record.Watches = append(l.record.Watches, watcher.watch)
	return nil
}
