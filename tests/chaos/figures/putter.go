// Package figures measures what a change of the leader and a member that comes back cost the clients of a cluster, for basalt and for
// genuine etcd alike: three members on the loopback, without TLS.
package figures

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/chaos/rig"
)

// Side is one of the two programs.
type Side struct {
	Name, Binary string
}

// Options of a measurement.
type Options struct {
	Sides  []Side
	Folder string
	Say    func(format string, args ...any)
}

func (o *Options) start(side Side) (*rig.Cluster, error) {
	cluster, err := rig.Start(rig.Options{Binary: side.Binary, Size: 3, Folder: o.Folder, Args: []string{"--quota-backend-bytes=8589934592"}})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", side.Name, err)
	}
	if _, err := cluster.Leader(); err != nil {
		cluster.Close()
		return nil, fmt.Errorf("%s: %w", side.Name, err)
	}
	return cluster, nil
}

// put is one call that was answered with success.
type put struct {
	member       *rig.Member
	call, answer time.Time
}

// putter sends puts to every member when they are due, whatever became of earlier ones.
type putter struct {
	cancel context.CancelFunc
	all    sync.WaitGroup

	mutex sync.Mutex
	puts  []put
}

// putInFlightMax bounds the calls under way at one member; what is due beyond it is not sent.
const putInFlightMax = 200

// startPutter sends one put per member and period.
func startPutter(cluster *rig.Cluster, period time.Duration, bytes int) *putter {
	ctx, cancel := context.WithCancel(context.Background())
	started := &putter{cancel: cancel}
	value := []byte(strings.Repeat("v", bytes))
	for _, member := range cluster.Members() {
		started.all.Add(1)
		go func() {
			defer started.all.Done()
			started.send(ctx, member, period, value)
		}()
	}
	return started
}

func (p *putter) send(ctx context.Context, member *rig.Member, period time.Duration, value []byte) {
	tick := time.NewTicker(period)
	defer tick.Stop()
	under := make(chan struct{}, putInFlightMax)
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case under <- struct{}{}:
		default:
			continue
		}
		p.all.Add(1)
		go func() {
			defer p.all.Done()
			defer func() { <-under }()
			once, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			call := time.Now()
			key := fmt.Appendf(nil, "probe/%s/%03d", member, n%500)
			if _, err := pb.NewKVClient(member.Conn()).Put(once, &pb.PutRequest{Key: key, Value: value}); err == nil {
				p.mutex.Lock()
				p.puts = append(p.puts, put{member, call, time.Now()})
				p.mutex.Unlock()
			}
		}()
	}
}

func (p *putter) stop() {
	p.cancel()
	p.all.Wait()
}

// of are the puts called within a time through one member.
func (p *putter) of(member *rig.Member, from, to time.Time) []put {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	var found []put
	for _, put := range p.puts {
		if put.member == member && !put.call.Before(from) && put.call.Before(to) {
			found = append(found, put)
		}
	}
	return found
}

// resumed is how long after `since` the last of these members answered its first put called after it; false if one has not.
func (p *putter) resumed(since time.Time, members []*rig.Member) (time.Duration, bool) {
	var last time.Duration
	for _, member := range members {
		puts := p.of(member, since, time.Now())
		if len(puts) == 0 {
			return 0, false
		}
		first := slices.MinFunc(puts, func(a, b put) int { return a.answer.Compare(b.answer) })
		last = max(last, first.answer.Sub(since))
	}
	return last, true
}

// gap is the longest time between two answers of one of these members, from `from` to `to`.
func (p *putter) gap(from, to time.Time, members []*rig.Member) time.Duration {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	var longest time.Duration
	for _, member := range members {
		times := []time.Time{from, to}
		for _, put := range p.puts {
			if put.member == member && put.answer.After(from) && put.answer.Before(to) {
				times = append(times, put.answer)
			}
		}
		slices.SortFunc(times, time.Time.Compare)
		for n := range times[1:] {
			longest = max(longest, times[n+1].Sub(times[n]))
		}
	}
	return longest
}

// latency is a percentile of the puts called within a time through these members.
func (p *putter) latency(percent int, from, to time.Time, members []*rig.Member) time.Duration {
	var all []time.Duration
	for _, member := range members {
		for _, put := range p.of(member, from, to) {
			all = append(all, put.answer.Sub(put.call))
		}
	}
	return Percentile(all, percent)
}

// Percentile by the nearest rank; 0 of none.
func Percentile(of []time.Duration, percent int) time.Duration {
	if len(of) == 0 {
		return 0
	}
	sorted := slices.Clone(of)
	slices.Sort(sorted)
	return sorted[(len(sorted)*percent+99)/100-1]
}

func milliseconds(length time.Duration) string {
	return fmt.Sprintf("%.0f ms", float64(length.Microseconds())/1000)
}
