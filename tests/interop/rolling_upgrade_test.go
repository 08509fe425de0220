package interop

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/interop/harness"
)

// load is what goes on while members are replaced: puts through each member, and a watch of all of them at another.
type load struct {
	stop  context.CancelFunc
	done  sync.WaitGroup
	mutex sync.Mutex
	acked map[string]int64
	seen  map[string]int64
}

// startLoad writes through each of the members, one after another's answer, and watches through all; a member that is away is
// tried again.
func startLoad(t *testing.T, members harness.Members) *load {
	ctx, stop := context.WithCancel(context.Background())
	l := &load{stop: stop, acked: map[string]int64{}, seen: map[string]int64{}}
	for n, member := range members {
		kv := pb.NewKVClient(member.Conn(t))
		l.done.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key := fmt.Sprintf("load/%d/%d", n, i)
				attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
				put, err := kv.Put(attempt, &pb.PutRequest{Key: []byte(key), Value: []byte("v")})
				cancel()
				if err == nil {
					l.mutex.Lock()
					l.acked[key] = put.Header.Revision
					l.mutex.Unlock()
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
	}
	watches := make([]pb.WatchClient, len(members))
	for n, member := range members {
		watches[n] = pb.NewWatchClient(member.Conn(t))
	}
	l.done.Go(func() { l.watch(ctx, t, watches) })
	return l
}

// watch goes on at the next member from the next revision whenever a stream ends.
func (l *load) watch(ctx context.Context, t *testing.T, watches []pb.WatchClient) {
	next := int64(1)
	for n := 0; ctx.Err() == nil; n++ {
		stream, err := watches[n%len(watches)].Watch(ctx)
		if err == nil {
			err = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
				Key: []byte("load/"), RangeEnd: []byte("load0"), StartRevision: next,
			}}})
		}
		for err == nil {
			var response *pb.WatchResponse
			if response, err = stream.Recv(); err != nil {
				break
			}
			l.mutex.Lock()
			for _, event := range response.Events {
				key := string(event.Kv.Key)
				if before, twice := l.seen[key]; twice || event.Kv.ModRevision < next {
					t.Errorf("watch: %s at %d, after %d and %d", key, event.Kv.ModRevision, before, next)
				}
				l.seen[key] = event.Kv.ModRevision
			}
			l.mutex.Unlock()
			if count := len(response.Events); count > 0 {
				next = response.Events[count-1].Kv.ModRevision + 1
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// end stops the load and compares what was acknowledged with what was seen and is there.
func (l *load) end(t *testing.T, member *harness.Server) {
	t.Helper()
	time.Sleep(500 * time.Millisecond)
	l.stop()
	l.done.Wait()
	there := map[string]int64{}
	got, err := pb.NewKVClient(member.Conn(t)).Range(harness.Context(t, 30*time.Second), &pb.RangeRequest{Key: []byte("load/"), RangeEnd: []byte("load0")})
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range got.Kvs {
		there[string(kv.Key)] = kv.ModRevision
	}
	missed := 0
	for key, revision := range l.acked {
		if there[key] != revision {
			t.Errorf("%s was acknowledged at %d, and is there at %d", key, revision, there[key])
		}
		if seen, found := l.seen[key]; !found {
			missed++
		} else if seen != revision {
			t.Errorf("%s was acknowledged at %d, and seen at %d", key, revision, seen)
		}
	}
	// The last few may have been on their way when the watch ended.
	if len(l.acked) == 0 || missed > 50 {
		t.Errorf("of %d acknowledged writes the watch missed %d", len(l.acked), missed)
	}
	t.Logf("%d acknowledged writes, %d seen", len(l.acked), len(l.seen))
}

// rules are those that a member says all apply by, and what they make of a put.
func rules(t *testing.T, member *harness.Server) (float64, string) {
	t.Helper()
	putUntilTaken(t, member, "basalt/rules/shown", "value")
	got, err := pb.NewKVClient(member.Conn(t)).Range(harness.Context(t, 10*time.Second), &pb.RangeRequest{Key: []byte("basalt/rules/shown")})
	if err != nil || len(got.Kvs) != 1 {
		t.Fatalf("%v %v", got, err)
	}
	samples, _ := parseMetrics(t, metricsOf(t, member))
	return samples["basalt_apply_version"], string(got.Kvs[0].Value)
}

func replaceProgram(t *testing.T, member *harness.Server, program string) {
	t.Helper()
	member.Stop()
	member.UseProgram(program)
	member.Restart()
}

// TestRollingUpgrade replaces one member after another by a build that knows newer rules, messages and files, under load. They
// count only when all members know them: until then any member may go back; from then on none.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("it runs a build of basalt with a version of its own")
	}
	next, old := harness.NextVersion(t), harness.Binary(t, harness.Basalt)
	members := harness.StartMembers(t, harness.Basalt, 3)
	going := startLoad(t, members)
	byOldRules := func(when string) {
		t.Helper()
		for _, member := range members {
			if version, value := rules(t, member); version != 1 || value != "value" {
				t.Errorf("%s: %s applies by rules %v, and makes %q of a put", when, member.Endpoint(), version, value)
			}
		}
	}
	replaceProgram(t, members[0], next)
	byOldRules("one of three is new")
	replaceProgram(t, members[1], next)
	byOldRules("two of three are new")
	replaceProgram(t, members[1], old)
	byOldRules("one went back")
	replaceProgram(t, members[1], next)
	replaceProgram(t, members[2], next)
	ctx := harness.Context(t, 60*time.Second)
	await(t, ctx, "all members to apply by the newer rules", func() bool {
		for _, member := range members {
			if version, value := rules(t, member); version != 2 || value != "by rules 2: value" {
				return false
			}
		}
		return true
	})
	// Streams between members, opened again, speak the newer form.
	for _, member := range members {
		replaceProgram(t, member, next)
		putUntilTaken(t, member, "basalt/after", "value")
	}
	going.end(t, members[0])
	sameEverywhere(t, members)

	// What is written now does not fit the older release, which says so and changes nothing.
	last := members[2]
	last.Stop()
	last.UseProgram(old)
	last.RestartLater()
	if code := last.AwaitExit(); code == 0 {
		t.Error("the older release ended as if all were well")
	}
	if !last.LogContains("which this release cannot read") && !last.LogContains("start the newer release") {
		t.Errorf("the older release does not say why it does not start: %s", last.LastLine())
	}
	last.UseProgram(next)
	last.RestartLater()
	last.AwaitReady()
	// Nor does it join.
	spare := harness.Spare(t, harness.Basalt, "spare")
	addMember(t, members[0], spare, true)
	spare.UseProgram(old)
	spare.JoinLater(members)
	if code := spare.AwaitExit(); code == 0 || !strings.Contains(spare.LastLine(), "start the release that the others run") {
		t.Errorf("an older member joins: exit code %d, %s", code, spare.LastLine())
	}
	sameEverywhere(t, members)
}
