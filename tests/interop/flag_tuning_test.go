package interop

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"basalt/tests/interop/harness"
)

func observeExtensiveMetrics(t *testing.T) {
	server := harness.StartUnderTest(t, "--metrics=extensive")
	server.Etcdctl("put", "a", "1")
	if !strings.Contains(metricsOf(t, server), "grpc_server_handling_seconds_bucket") {
		t.Error("no histograms of calls")
	}
}

// observeTraces exports a call to a collector; what is exported, the package traces compares.
func observeTraces(t *testing.T) {
	collector := harness.StartCollector(t, "127.0.0.1:0")
	server := harness.StartUnderTest(t, "--enable-distributed-tracing", "--distributed-tracing-address="+collector.Address,
		"--distributed-tracing-service-name=store", "--distributed-tracing-instance-id=one", "--distributed-tracing-sampling-rate=1000000")
	server.Etcdctl("put", "a", "1")
	server.Stop()
	if spans := collector.Spans(); len(spans) == 0 || spans[0].Resource != `service.instance.id="one" service.name="store"` {
		t.Errorf("exported: %v", spans)
	}
}

func observeMetricsURLs(t *testing.T) {
	url := fmt.Sprintf("http://127.0.0.1:%d", harness.FreePort(t))
	harness.StartUnderTest(t, "--listen-metrics-urls="+url)
	expectPage(t, url+"/metrics", http.StatusOK)
	expectPage(t, url+"/readyz", http.StatusOK)
}

func observeLogOutputs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	server := harness.StartUnderTest(t, "--log-outputs=stderr,"+path)
	// A line goes to one output after the other: all of them have it when the server has stopped.
	server.Stop()
	if log, err := os.ReadFile(path); err != nil || !strings.Contains(string(log), "ready to serve client requests") {
		t.Errorf("the file holds %d bytes, %v", len(log), err)
	}
}

func observeLogLevel(t *testing.T) {
	server := harness.StartUnderTest(t, "--log-level=debug")
	ctx := harness.Context(t, time.Minute)
	for !server.LogContains(`"level":"debug"`) {
		// Who connects and goes away without a word is told of at this level.
		conn, err := net.DialTimeout("tcp", server.Target(), 20*time.Second)
		if err != nil || ctx.Err() != nil {
			t.Fatalf("no line of level debug: %v", errors.Join(err, ctx.Err()))
		}
		conn.Close()
	}
}

func observeLogFormat(t *testing.T) {
	if server := harness.StartUnderTest(t, "--log-format=console"); server.LogContains(`"level":`) {
		t.Error("lines in JSON")
	}
}

// observeLine writes until the log has a line.
func observeLine(t *testing.T, server *harness.Server, text string) {
	t.Helper()
	s, ctx := servicesOf(server.Conn(t)), harness.Context(t, time.Minute)
	for !server.LogContains(text) {
		putValue(t, ctx, s, "a", "1")
	}
}

// lineWith is the first line of the log with a text, by its fields.
func lineWith(t *testing.T, server *harness.Server, text string) map[string]any {
	t.Helper()
	observeLine(t, server, text)
	fields := map[string]any{}
	if err := json.Unmarshal([]byte(server.LinesWith(text)[0]), &fields); err != nil {
		t.Fatal(err)
	}
	return fields
}

// observeSlowRequests: both tell the same, but here nothing of what a request holds.
func observeSlowRequests(t *testing.T) {
	server := harness.StartUnderTest(t, "--warning-unary-request-duration=1ns")
	line := lineWith(t, server, `"response type":"/etcdserverpb.KV/Put"`)
	for name, holds := range map[string]string{
		"msg": "request stats", "level": "warn", "start time": "T", "time spent": "s", "remote": "127.0.0.1:", "response type": "/Put",
	} {
		if text, ok := line[name].(string); !ok || !strings.Contains(text, holds) {
			t.Errorf("%s is %v", name, line[name])
		}
	}
	// A key and a value of one byte each; a header with four numbers.
	if request, response := line["request size"], line["response size"]; request != 6.0 || response.(float64) < 20 || response.(float64) > 40 {
		t.Errorf("a request of %v bytes and a response of %v", request, response)
	}
	if _, err := time.ParseDuration(line["time spent"].(string)); err != nil {
		t.Error(err)
	}
	if start, err := time.Parse("2006-01-02T15:04:05.000000Z", line["start time"].(string)); err != nil || time.Since(start) > time.Hour {
		t.Errorf("it began at %v, %v", start, err)
	}
}

func observeSlowApply(t *testing.T) {
	line := lineWith(t, harness.StartUnderTest(t, "--warning-apply-duration=1ns"), "apply request took too long")
	for _, name := range []string{"took", "expected-duration"} {
		if _, err := time.ParseDuration(line[name].(string)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if line["level"] != "warn" || line["request"] == nil {
		t.Errorf("the line is %v", line)
	}
}

// observeCompactionPace: with a pause of an hour between two steps a compaction ends only if it has one step; here each
// shard is at least one.
func observeCompactionPace(t *testing.T) {
	const keys = 300
	for batch, want := range map[int]codes.Code{1_000_000: codes.OK, 10: codes.DeadlineExceeded} {
		args := []string{"--compaction-sleep-interval=1h", fmt.Sprint("--compaction-batch-limit=", batch)}
		if harness.UnderTest(t) == harness.Basalt {
			args = append(args, "--basalt-initial-shards=main")
		}
		server := harness.StartUnderTest(t, args...)
		s, ctx := servicesOf(server.Conn(t)), harness.Context(t, time.Minute)
		for range 2 {
			for n := range keys {
				putValue(t, ctx, s, fmt.Sprintf("%03d", n), "1")
			}
		}
		limit := 30 * time.Second
		if want != codes.OK {
			limit = 2 * time.Second
		}
		short, cancel := context.WithTimeout(ctx, limit)
		_, err := s.kv.Compact(short, &pb.CompactionRequest{Revision: 2 * keys, Physical: true})
		cancel()
		if status.Code(err) != want {
			t.Errorf("%d a step: %v, want %v", batch, err, want)
		}
		server.Kill() // it would wait for the compaction
	}
}

func observeWatchProgress(t *testing.T) {
	s, ctx := servicesOf(harness.StartUnderTest(t, "--watch-progress-notify-interval=100ms").Conn(t)), harness.Context(t, time.Minute)
	stream := must(s.watch.Watch(ctx))(t)
	create := &pb.WatchCreateRequest{Key: []byte("a"), ProgressNotify: true}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		t.Fatal(err)
	}
	must(stream.Recv())(t)
	if progress := must(stream.Recv())(t); len(progress.Events) != 0 || progress.WatchId != 0 || progress.Header.Revision != 1 {
		t.Errorf("not progress: %v", progress)
	}
}

// observeInitialShards: it counts at birth, and is ignored with a warning later.
func observeInitialShards(t *testing.T) {
	line, data := newLine(t), filepath.Join(t.TempDir(), "data")
	for _, map_ := range []string{"main;own=/own/", "main"} {
		args := line.args("--data-dir="+data, "--basalt-initial-shards="+map_)
		server := harness.Start(t, harness.Options{Line: args, Endpoint: line.client})
		if !strings.Contains(metricsOf(t, server), `basalt_shard_keys{shard="own"}`) {
			t.Error("no metric of the shard")
		}
		if warned := server.LogContains("basalt-initial-shards is ignored"); warned != (map_ == "main") {
			t.Errorf("born with another map; a warning for %s: %v", map_, warned)
		}
		server.Stop()
	}
	expectRefusedFlag(t, 1, `the prefix "/own" is not`, "--basalt-initial-shards=main;own=/own")
}

// observeMemoryLimit: of 64 MiB watchers have a sixteenth; those that do not fit are cancelled with a reason.
func observeMemoryLimit(t *testing.T) {
	const watchers, keyBytes = 200, 50_000
	s := servicesOf(harness.StartUnderTest(t, "--basalt-memory-limit=67108864").Conn(t))
	stream := must(s.watch.Watch(harness.Context(t, time.Minute)))(t)
	for n := range watchers {
		create := &pb.WatchCreateRequest{Key: []byte(strings.Repeat(fmt.Sprint(n%10), keyBytes))}
		if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
			t.Fatal(err)
		}
		ack := must(stream.Recv())(t)
		if !ack.Canceled {
			continue
		}
		if ack.CancelReason == "" || n == 0 {
			t.Errorf("watcher %d is cancelled: %v", n, ack)
		}
		expectRefusedFlag(t, 1, "basalt-memory-limit", "--basalt-memory-limit=1000")
		return
	}
	t.Errorf("%d bytes of keys fit", watchers*keyBytes)
}
