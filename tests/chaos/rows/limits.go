package rows

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
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

// quotaBytes of row 24, in place of 2 GiB: what counts is what is beyond it.
const quotaBytes = 16 << 20

// quota is row 24.
func quota(s *Stage) error {
	if err := s.begin(func(machines *rig.Options, clients *load.Options) {
		machines.Args = append(machines.Args, fmt.Sprintf("--quota-backend-bytes=%d", quotaBytes))
		clients.Rate = max(clients.Rate/4, 20)
	}); err != nil {
		return err
	}
	members := s.cluster.Members()
	ctx, cancel := context.WithTimeout(s, 3*time.Minute)
	defer cancel()
	var refused *history.Write
	written := 0
	for ; written < 500 && refused == nil; written++ {
		big := s.load.Value(512 << 10)
		write := s.load.Write(ctx, members[written%len(members)], nil, history.Change{Key: fmt.Sprintf("big/%03d", written), Value: big})
		if write.Outcome == history.Refused {
			refused = write
		}
	}
	s.Did("values of 512 KiB written through all members, with a quota of %d MiB", quotaBytes>>20)
	s.Require(refused != nil, "put %d is refused: %s", written, outcomeOf(refused))
	for _, member := range members {
		_, err := pb.NewKVClient(member.Conn()).Put(ctx, &pb.PutRequest{Key: []byte("more"), Value: []byte("more")})
		s.Require(status.Code(err) == codes.ResourceExhausted, "a put through %s: %v", member, status.Convert(err).Message())
	}
	read, err := s.load.Read(ctx, members[1], "k/", "k0", false, 0)
	s.Require(err == nil, "a read: %v", status.Code(err))
	auth := pb.NewAuthClient(members[0].Conn())
	_, err = auth.UserAdd(ctx, &pb.AuthUserAddRequest{Name: "root", Password: "root"})
	s.Require(err == nil, "a user added: %v", status.Code(err))
	_, err = pb.NewAuthClient(members[1].Conn()).UserDelete(ctx, &pb.AuthUserDeleteRequest{Name: "root"})
	s.Require(err == nil, "and deleted through another member: %v", status.Code(err))
	deleted := 0
	for n := range written {
		write := s.load.Write(ctx, members[n%len(members)], nil, history.Change{Key: fmt.Sprintf("big/%03d", n), Delete: true})
		if write.Outcome == history.Acknowledged {
			deleted++
		}
	}
	s.Require(deleted == written, "%d of %d deletes", deleted, written)
	if read != nil {
		if _, err := s.until("the watcher of everything", 30*time.Second, func() bool { return s.load.Heard() >= s.load.Told() }); err != nil {
			return err
		}
		err := s.load.Compact(ctx, members[2], s.load.Heard())
		s.Require(err == nil, "a compaction: %v", status.Code(err))
	}
	for _, member := range members {
		_, err := pb.NewMaintenanceClient(member.Conn()).Defragment(ctx, &pb.DefragmentRequest{})
		s.Require(err == nil, "a defragmentation of %s: %v", member, status.Code(err))
	}
	if err := nemesis.Disarm(ctx, s.cluster); err != nil {
		return err
	}
	again := s.load.Put(ctx, members[0], "k/hot-0")
	s.Require(again.Outcome == history.Acknowledged, "after the alarm is disarmed a put: %s", outcomeOf(again))
	return s.judge()
}

func outcomeOf(write *history.Write) string {
	if write == nil {
		return "none"
	}
	return outcome(write)
}

// slowWatchers is row 31.
func slowWatchers(s *Stage) error {
	if err := s.begin(func(_ *rig.Options, clients *load.Options) { clients.ValueBytes = 4096 }); err != nil {
		return err
	}
	member := s.cluster.Members()[0]
	length := size(s, 5*time.Second, 30*time.Second, time.Hour)
	if err := s.wait(min(length, 15*time.Second)); err != nil {
		return err
	}
	base, before := s.load.Now(), int64(0)
	calm := eventDelays(s.load.Record(), 0, base)
	before, err := member.Memory()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(s)
	defer cancel()
	const streams = 20
	for range streams {
		conn, err := member.Dial()
		if err != nil {
			return err
		}
		defer conn.Close()
		stream, err := pb.NewWatchClient(conn).Watch(ctx)
		if err != nil {
			return err
		}
		// Nobody ever reads: what is on its way stays below the window of HTTP/2.
		create := &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: true}
		if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
			return err
		}
	}
	most := before
	for end := time.Now().Add(length); time.Now().Before(end); {
		if err := s.wait(100 * time.Millisecond); err != nil {
			return err
		}
		now, err := member.Memory()
		if err != nil {
			return err
		}
		most = max(most, now)
	}
	slow := eventDelays(s.load.Record(), base, s.load.Now()-time.Second)
	s.Did("%d watches of everything at one member that nobody reads, for %v", streams, length)
	s.Require(most-before <= 128<<20, "resident memory %d MiB before, at most %d MiB", mebibytes(before), mebibytes(most))
	p99, calmP99 := figures.Percentile(slow, 99), figures.Percentile(calm, 99)
	s.RequireTime(p99 <= 2*calmP99, "from put to event elsewhere p99 %s, before %s", rounded(p99), rounded(calmP99))
	cancel()
	return s.judge()
}

// eventDelays are from the call of each write to the news of it at the watcher of everything.
func eventDelays(record history.Record, from, to time.Duration) []time.Duration {
	heard := map[int64]time.Duration{}
	for _, event := range record.Events {
		heard[event.KV.Mod] = event.At
	}
	var delays []time.Duration
	for _, write := range record.Writes {
		if at, is := heard[write.Revision]; is && write.Changed() && write.Call >= from && write.Call < to {
			delays = append(delays, at-write.Call)
		}
	}
	return delays
}

// leasesTogether is row 32.
func leasesTogether(s *Stage) error {
	count := size(s, 2_000, 100_000, 100_000)
	if err := s.begin(nil); err != nil {
		return err
	}
	// All are to end at one time: whoever is granted later lives shorter.
	life := time.Duration(20+count/1000) * time.Second
	ends := time.Now().Add(life)
	if err := grantMany(s, count, ends); err != nil {
		return err
	}
	if time.Until(ends) < 10*time.Second {
		return fmt.Errorf("the machine is too slow: %d leases took %v to be granted, and live %v", count, life-time.Until(ends), life)
	}
	granted := life - time.Until(ends)
	if err := s.wait(time.Until(ends.Add(-8 * time.Second))); err != nil {
		return err
	}
	s.Measured("%d granted in %s", count, rounded(granted))
	seen, calmFrom := watchLeaderships(s.cluster), s.load.Now()
	if err := s.wait(time.Until(ends.Add(-2 * time.Second))); err != nil {
		return err
	}
	calmTo := s.load.Now()
	gone, err := s.until("the end of all leases", 3*time.Minute, func() bool {
		ctx, cancel := context.WithTimeout(s, 10*time.Second)
		defer cancel()
		left, err := pb.NewKVClient(s.cluster.Members()[1].Conn()).Range(ctx, &pb.RangeRequest{Key: []byte("m/"), RangeEnd: []byte("m0"), CountOnly: true})
		return err == nil && left.Count == 0
	})
	if err != nil {
		return err
	}
	gone -= 2 * time.Second // it began two seconds before their time
	to := s.load.Now()
	leaders, _ := seen.changes()
	members := s.cluster.Members()
	calm := figures.Percentile(latencies(written(s.load.Record(), calmFrom, calmTo, members...)), 99)
	amid := figures.Percentile(latencies(written(s.load.Record(), calmTo, to, members...)), 99)
	s.Did("%d leases with a key each that end within two seconds", count)
	s.RequireTime(gone <= 20*time.Second, "all gone after %s", rounded(gone))
	s.Require(leaders == 0, "%d leader changes", leaders)
	s.RequireTime(amid <= 3*calm, "write p99 %s, before %s; 20,000 keepalives a second: bench/cluster", rounded(amid), rounded(calm))
	return s.judge()
}

func grantMany(s *Stage, count int, ends time.Time) error {
	var next, failed atomic.Int64
	var all sync.WaitGroup
	var last atomic.Value
	members := s.cluster.Members()
	for worker := range 64 {
		all.Add(1)
		go func() {
			defer all.Done()
			member := members[worker%len(members)]
			for {
				n := next.Add(1)
				if n > int64(count) {
					return
				}
				if err := s.load.Lease(s, member, n, int64(time.Until(ends).Seconds())); err != nil {
					failed.Add(1)
					last.Store(err.Error())
				}
			}
		}()
	}
	all.Wait()
	if failed.Load() > 0 {
		return fmt.Errorf("%d of %d grants failed, the last with %v", failed.Load(), count, last.Load())
	}
	return nil
}
