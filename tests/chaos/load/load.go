// Package load is the clients of a cluster: each belongs to one member and stays with it as long as that is there, and writes down what
// it asked and was told. Calls are sent when they are due, whatever became of earlier ones, and are never tried again.
package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/chaos/history"
	"basalt/tests/chaos/rig"
)

// Options of a load.
type Options struct {
	Seed uint64
	// Rate is how many calls for keys a second all clients make together.
	Rate int
	// Watches is how many watchers there are, besides one that hears everything.
	Watches int
	// Leases is how many owners of leases there are.
	Leases int
	// ValueBytes is how long values are at least.
	ValueBytes int
	// CallTimeout bounds each call.
	CallTimeout time.Duration
	// CompactEvery is how often old revisions are dropped, at least `kept` behind; 0 is never.
	CompactEvery time.Duration
}

// Default is a load that a debug build on a busy machine carries.
func Default(seed uint64) Options {
	return Options{Seed: seed, Rate: 200, Watches: 20, Leases: 6, CallTimeout: 3 * time.Second}
}

const (
	// hotKeys are written all the time, coldKeys now and then.
	hotKeys, coldKeys = 10, 200
	// inFlightMax bounds the calls under way at one member; what is due beyond it is not sent.
	inFlightMax = 100
	// kept revisions are never compacted, so that the watcher of everything keeps up.
	kept = 2000
)

// Load is running clients.
type Load struct {
	options Options
	cluster *rig.Cluster
	began   time.Time
	id      string // in every value, so that none comes twice in a cluster's life

	mutex  sync.Mutex
	record *history.Record
	newest map[string]int64 // revision of keys as last seen, for conditions

	told    atomic.Int64 // newest revision that any client knows
	heard   atomic.Int64 // newest revision that the watcher of everything knows
	values  atomic.Int64
	skipped atomic.Int64
	moving  atomic.Int64 // names of watchers

	ctx      context.Context
	stopAll  context.CancelFunc
	calls    sync.WaitGroup // clients that ask
	stopAsk  context.CancelFunc
	watchers sync.WaitGroup
	everyone []*watcher
	recorder *watcher
}

// Start begins with what the store holds now.
func Start(cluster *rig.Cluster, options Options) (*Load, error) {
	load := &Load{
		options: options, cluster: cluster, began: time.Now(), newest: map[string]int64{},
		id:     fmt.Sprintf("%x", time.Now().UnixNano()),
		record: &history.Record{Seed: options.Seed, Base: history.State{}, Hashes: map[string]uint32{}},
	}
	base, err := load.whole(cluster.Members()[0], false, 30*time.Second)
	if err != nil {
		return nil, fmt.Errorf("what the store holds at first: %w", err)
	}
	load.record.First = base.Revision
	for _, kv := range base.KVs {
		load.record.Base[kv.Key] = kv
		load.newest[kv.Key] = kv.Mod
	}
	load.told.Store(base.Revision)
	load.heard.Store(base.Revision)
	load.ctx, load.stopAll = context.WithCancel(context.Background())
	var asking context.Context
	asking, load.stopAsk = context.WithCancel(load.ctx)
	load.recorder = load.watch("everything", -1, "\x00", "\x00", true)
	for n := range options.Watches {
		load.addWatch(n)
	}
	for n := range cluster.Members() {
		load.ask(asking, n, rand.New(rand.NewPCG(options.Seed, uint64(n))))
	}
	for n := range options.Leases {
		load.own(asking, rand.New(rand.NewPCG(options.Seed, uint64(1000+n))))
	}
	if options.CompactEvery > 0 {
		load.calls.Add(1)
		go load.compact(asking)
	}
	return load, nil
}

// addWatch spreads watchers over members: every tenth hears all keys of the load, the others one hot key.
func (l *Load) addWatch(n int) {
	member := l.cluster.Members()[n%len(l.cluster.Members())].Number
	if n%10 < 2 && n < 30 {
		l.everyone = append(l.everyone, l.watch(fmt.Sprintf("prefix-%d", n), member, "k/", "k0", n%2 == 0))
		return
	}
	l.everyone = append(l.everyone, l.watch(fmt.Sprintf("key-%d", n), member, hotKey(n%hotKeys), "", n%3 == 0))
}

func hotKey(n int) string { return fmt.Sprintf("k/hot-%d", n) }

// Now is the time of the record.
func (l *Load) Now() time.Duration { return time.Since(l.began) }

// Began is when the record's time is zero.
func (l *Load) Began() time.Time { return l.began }

// Told is the newest revision that any client knows.
func (l *Load) Told() int64 { return l.told.Load() }

// Heard is the revision up to which the watcher of everything was told.
func (l *Load) Heard() int64 { return l.heard.Load() }

// Record is what has been written down so far; the slices grow meanwhile, what they hold does not change.
func (l *Load) Record() history.Record {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return *l.record
}

// member of a number; nil if it is gone.
func (l *Load) member(number int) *rig.Member {
	for _, member := range l.cluster.Members() {
		if member.Number == number {
			return member
		}
	}
	return nil
}

func (l *Load) know(revision int64) { raise(&l.told, revision) }

func raise(known *atomic.Int64, value int64) {
	for {
		old := known.Load()
		if value <= old || known.CompareAndSwap(old, value) {
			return
		}
	}
}

// ask sends calls to the member in one place at its share of the rate until the context ends.
func (l *Load) ask(ctx context.Context, place int, random *rand.Rand) {
	l.calls.Add(1)
	go func() {
		defer l.calls.Done()
		tick := time.NewTicker(time.Second * time.Duration(len(l.cluster.Members())) / time.Duration(max(1, l.options.Rate)))
		defer tick.Stop()
		under := make(chan struct{}, inFlightMax)
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			members := l.cluster.Members()
			member, call := members[place%len(members)], l.draw(random)
			select {
			case under <- struct{}{}:
			default:
				l.skipped.Add(1)
				continue
			}
			l.calls.Add(1)
			go func() {
				defer l.calls.Done()
				defer func() { <-under }()
				// A call is not given up when the load stops: its outcome would be unknown.
				once, cancel := context.WithTimeout(context.Background(), l.options.CallTimeout)
				defer cancel()
				call(once, member)
			}()
		}
	}()
}

// compact drops old revisions now and then.
func (l *Load) compact(ctx context.Context) {
	defer l.calls.Done()
	for tick := time.NewTicker(l.options.CompactEvery); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		revision := l.heard.Load() - kept
		if revision <= l.record.First {
			continue
		}
		members := l.cluster.Members()
		once, cancel := context.WithTimeout(ctx, l.options.CallTimeout)
		// It may fail: the next one drops more.
		_ = l.Compact(once, members[int(revision)%len(members)], revision)
		cancel()
	}
}

// Compact drops what is older than a revision, and writes down that it was asked for. The watcher of everything must have come so far.
func (l *Load) Compact(ctx context.Context, through *rig.Member, revision int64) error {
	if heard := l.heard.Load(); revision > heard {
		return fmt.Errorf("events up to %d are heard, a compaction at %d would lose some", heard, revision)
	}
	l.mutex.Lock()
	l.record.Compacted = append(l.record.Compacted, history.Compaction{Call: l.Now(), Revision: revision})
	l.mutex.Unlock()
	_, err := pb.NewKVClient(through.Conn()).Compact(ctx, &pb.CompactionRequest{Revision: revision})
	return err
}
