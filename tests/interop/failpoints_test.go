package interop

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"

	"basalt/tests/interop/harness"
)

// pointed is a server with failpoints, and where they are set.
type pointed struct {
	*harness.Server
	t    *testing.T
	base string
}

// startPointed starts a build with failpoints; `points` are set from the start.
func startPointed(t *testing.T, points string) pointed {
	t.Helper()
	address := fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t))
	server := harness.StartLater(t, harness.Options{
		Kind: harness.Basalt, Program: harness.NextVersion(t),
		Wrapper: []string{"env", "GOFAIL_HTTP=" + address, "GOFAIL_FAILPOINTS=" + points},
	})
	return pointed{server, t, "http://" + address + "/"}
}

func (p pointed) ask(method, path, body string) (int, string) {
	p.t.Helper()
	request, err := http.NewRequestWithContext(harness.Context(p.t, 20*time.Second), method, p.base+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		p.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

func (p pointed) set(point, terms string) {
	p.t.Helper()
	if code, text := p.ask(http.MethodPut, point, terms); code != http.StatusNoContent {
		p.t.Fatalf("%s=%s: %d %s", point, terms, code, text)
	}
}

// TestFailpointProtocol speaks gofail's protocol as etcd's tests do (etcd-contract 5).
func TestFailpointProtocol(t *testing.T) {
	server := startPointed(t, `raftBeforeSave=sleep("1ms");nobodyHasThis=panic`)
	server.AwaitReady()
	code, list := server.ask(http.MethodGet, "", "")
	lines := strings.Split(strings.TrimSuffix(list, "\n"), "\n")
	if code != http.StatusOK || !slices.IsSorted(lines) || !slices.Contains(lines, "raftAfterSave=") ||
		!slices.Contains(lines, `raftBeforeSave=sleep("1ms")`) || strings.Contains(list, "nobodyHasThis") {
		t.Errorf("%d\n%s", code, list)
	}
	for _, ask := range []struct {
		method, path, body string
		code               int
		text               string
	}{
		{http.MethodGet, "raftBeforeSave", "", 200, "sleep(\"1ms\")\n"},
		{http.MethodPut, "raftAfterSave", "nonsense", 400, "fail to set failpoint: failpoint: could not parse terms\n"},
		{http.MethodPut, "nobodyHasThis", "panic", 400, "fail to set failpoint: failpoint: failpoint does not exist\n"},
		{http.MethodGet, "nobodyHasThis", "", 404, "failed to GET: failpoint: failpoint does not exist\n"},
		{http.MethodGet, "raftAfterSave/count", "", 500, "failed to GET: failpoint: failpoint is disabled\n"},
		{http.MethodDelete, "raftAfterSave", "", 400, "failed to delete failpoint failpoint: failpoint is disabled\n"},
		{http.MethodPost, "raftAfterSave", "", 405, "Method not allowed\n"},
		{http.MethodPut, "failpoints", `raftAfterSave=2*print;walBeforeSync=0.0%panic`, 204, ""},
		{http.MethodGet, "walBeforeSync", "", 200, "0.0%panic\n"},
		{http.MethodGet, "raftAfterSave/count", "", 200, "0"},
	} {
		if code, text := server.ask(ask.method, ask.path, ask.body); code != ask.code || text != ask.text {
			t.Errorf("%s %s: %d %q, want %d %q", ask.method, ask.path, code, text, ask.code, ask.text)
		}
	}
	ctx := harness.Context(t, time.Minute)
	for range 3 {
		putValue(t, ctx, servicesOf(server.Conn(t)), "k", "v")
	}
	if code, text := server.ask(http.MethodGet, "raftAfterSave/count", ""); code != 200 || text != "2" {
		t.Errorf("count of what is due twice: %d %s", code, text)
	}
	if code, _ := server.ask(http.MethodDelete, "raftAfterSave", ""); code != http.StatusNoContent {
		t.Errorf("delete: %d", code)
	}
}

// TestFailpointsWithoutTheirFeature: the program that ships does not know the variables.
func TestFailpointsWithoutTheirFeature(t *testing.T) {
	server := harness.StartLater(t, harness.Options{
		Kind: harness.Basalt, Wrapper: []string{"env", "GOFAIL_FAILPOINTS=raftBeforeSave=panic;beforePublishing=panic"},
	})
	server.AwaitReady()
	putValue(t, harness.Context(t, time.Minute), servicesOf(server.Conn(t)), "k", "v")
}

// panics are points that stop the process amid what `provoke` does; without it a put comes by them.
var panics = []struct {
	point   string
	provoke func(context.Context, services)
}{
	{"raftAfterWALRelease", leaveSegment},
	{"raftBeforeSave", nil}, {"raftAfterSave", nil}, {"walBeforeSync", nil}, {"walAfterSync", nil}, {"raftBeforeAdvance", nil},
	{"beforeApplyOneEntryNormal", nil},
	{"beforeCommit", compactNow}, {"afterCommit", compactNow}, {"raftBeforeSaveSnap", compactNow}, {"raftAfterSaveSnap", compactNow},
	{"compactBeforeCommitScheduledCompact", compactNow}, {"compactAfterCommitScheduledCompact", compactNow},
	{"compactBeforeCommitBatch", compactNow}, {"compactAfterCommitBatch", compactNow},
	{"compactBeforeSetFinishedCompact", compactNow}, {"compactAfterSetFinishedCompact", compactNow},
	{"beforeSyncWatchers", nil}, {"beforeSendWatchResponse", watchSomething}, {"beforeProgressIfSync", askForProgress},
	{"defragBeforeCopy", defragment}, {"defragOpenFileError", defragment},
	{"beforeLookupWhenLeaseTimeToLive", func(ctx context.Context, s services) {
		_, _ = s.lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: 1})
	}},
	{"beforeRangeStreamChunk", func(ctx context.Context, s services) {
		if stream, err := s.kv.RangeStream(ctx, &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")}); err == nil {
			_, _ = stream.Recv()
		}
	}},
	{"beforeApplyOneConfChange", func(ctx context.Context, s services) {
		_, _ = s.cluster.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:1"}, IsLearner: true})
	}},
}

// pointOfStarts is come by at every start, before anybody can set it.
const pointOfStarts = "beforePublishing"

// pointOfRemainders takes five minutes of a leader, or a snapshot in which they passed.
const pointOfRemainders = "beforeCheckpointInLeaseRenew"

// leaveSegment fills the log's first segment, which is a small one, and has a checkpoint taken that needs it no more.
func leaveSegment(ctx context.Context, s services) {
	for range 3 {
		_, _ = s.kv.Put(ctx, &pb.PutRequest{Key: []byte("large"), Value: make([]byte, 1<<20)})
	}
	compactNow(ctx, s)
}

func defragment(ctx context.Context, s services) {
	_, _ = s.maintenance.Defragment(ctx, &pb.DefragmentRequest{})
}

func compactNow(ctx context.Context, s services) {
	if head, err := s.kv.Range(ctx, &pb.RangeRequest{Key: []byte("k")}); err == nil {
		_, _ = s.kv.Compact(ctx, &pb.CompactionRequest{Revision: head.Header.Revision, Physical: true})
	}
}

func watchSomething(ctx context.Context, s services) {
	if stream, err := s.watch.Watch(ctx); err == nil {
		create := &pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l")}
		_ = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}})
		_, _ = stream.Recv()
	}
}

func askForProgress(ctx context.Context, s services) {
	if stream, err := s.watch.Watch(ctx); err == nil {
		_ = stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{}})
		_, _ = stream.Recv()
	}
}

// TestPanicAtEveryPoint stops the process at each point that etcd names and that has a place here, but for those of
// TestPanicAmongMembers, and loses nothing that was acknowledged.
func TestPanicAtEveryPoint(t *testing.T) {
	server := startPointed(t, "")
	server.AwaitReady()
	ctx := harness.Context(t, 4*time.Minute)
	acknowledged := 0
	for _, at := range panics {
		server.set(at.point, "panic")
		s, died := servicesOf(server.Conn(t)), make(chan int, 1)
		go func() { died <- server.AwaitExit() }()
		attempt, end := context.WithTimeout(ctx, 30*time.Second)
		for alive := true; alive; {
			if at.provoke != nil {
				at.provoke(attempt, s)
			}
			if _, err := s.kv.Put(attempt, &pb.PutRequest{Key: fmt.Appendf(nil, "k%06d", acknowledged), Value: []byte("v")}); err == nil {
				acknowledged++
			}
			select {
			case <-died:
				alive = false
			case <-attempt.Done():
				t.Fatalf("%s: the process goes on", at.point)
			default:
			}
		}
		end()
		server.keptAll(at.point, acknowledged)
	}
	server.Stop()
	server.Wrap([]string{"env", "GOFAIL_FAILPOINTS=" + pointOfStarts + "=panic"})
	server.RestartLater()
	server.AwaitExit()
	server.Wrap(nil)
	server.keptAll(pointOfStarts, acknowledged)
}

// keptAll begins the next life of a server that ended at a point, and looks for every key that was acknowledged.
func (p pointed) keptAll(point string, acknowledged int) {
	p.t.Helper()
	if !p.LogContains("failpoint panic: " + point) {
		p.t.Errorf("%s: it ended for another reason", point)
	}
	p.Restart()
	found := map[string]bool{}
	for _, kv := range everything(p.t, p.Server).Kvs {
		found[string(kv.Key)] = true
	}
	for n := range acknowledged {
		if key := fmt.Sprintf("k%06d", n); !found[key] {
			p.t.Fatalf("%s: %s was acknowledged and is gone", point, key)
		}
	}
}

// TestFailpointsThatFailOrWait: what returns fails, what sleeps is late and whole.
func TestFailpointsThatFailOrWait(t *testing.T) {
	server := startPointed(t, `beforePublishing=sleep(50)`)
	server.AwaitReady()
	s, ctx := servicesOf(server.Conn(t)), harness.Context(t, time.Minute)
	server.set("defragOpenFileError", `1*return("no file")`)
	_, err := s.maintenance.Defragment(ctx, &pb.DefragmentRequest{})
	expectStatus(t, "defragment", err, codes.Unknown, "failpoint: defragOpenFileError")
	must(s.maintenance.Defragment(ctx, &pb.DefragmentRequest{}))(t)
	server.set("raftBeforeSave", `sleep("100ms")`)
	server.set("beforeSendWatchResponse", "sleep(100)")
	watched := watchPrefix(t, server.Server, "w")
	for n := range 5 {
		putValue(t, ctx, s, fmt.Sprintf("w%d", n), "v")
	}
	for n := range 5 {
		if key := <-watched; key != fmt.Sprintf("w%d", n) {
			t.Errorf("the watch saw %s", key)
		}
	}
	if _, text := server.ask(http.MethodGet, "beforePublishing/count", ""); text != "1" {
		t.Errorf("published %s times", text)
	}
}
