package interop

import (
	"net/http"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/interop/harness"
)

// TestHealthWhileTheLogHangs lets one sync of the log take longer than a request may: the node is not well meanwhile, says
// so, still serves reads, and is well again by itself.
func TestHealthWhileTheLogHangs(t *testing.T) {
	t.Parallel()
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("it counts the syncs of basalt")
	}
	// Counted by thread: no other one has as many. A request may take 5 s and two election timeouts.
	trace := harness.NewStrace(t, "fdatasync", "-e", "inject=fdatasync:delay_enter=12s:when=80")
	server := harness.Start(t, harness.Options{
		Wrapper: trace.Wrapper, Args: []string{"--heartbeat-interval=20", "--election-timeout=200"},
	})
	kv, ctx := pb.NewKVClient(server.Conn(t)), harness.Context(t, 90*time.Second)
	expectHTTP(t, server, "/health", http.StatusOK, `{"health":"true","reason":""}`)
	done := make(chan int)
	go func() {
		failed := 0
		// One after the other, so that each is a batch.
		for range 150 {
			if _, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("a"), Value: []byte("1")}); err != nil {
				failed++
			}
		}
		done <- failed
	}()
	client := newClient(nil, false)
	status := func(page string) (int, string) {
		response, text := httpGet(t, client, server.Endpoint()+page)
		return response.StatusCode, text
	}
	await(t, ctx, "/health to fail", func() bool {
		code, text := status("/health")
		return code == http.StatusServiceUnavailable && strings.Contains(text, `"health":"false"`)
	})
	if code, text := status("/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("/readyz while the log hangs: %d %s", code, text)
	}
	if code, text := status("/livez"); code != http.StatusOK {
		t.Errorf("/livez while the log hangs: %d %s", code, text)
	}
	if _, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("a")}); err != nil {
		t.Errorf("a read while the log hangs: %v", err)
	}
	if failed := <-done; failed == 0 {
		t.Error("the put that waited longest was not told so")
	}
	await(t, ctx, "/health to be well again", func() bool {
		code, _ := status("/health")
		return code == http.StatusOK
	})
	expectHTTP(t, server, "/readyz", http.StatusOK, "ok\n")
	if _, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("a"), Value: []byte("2")}); err != nil {
		t.Errorf("a put after it: %v", err)
	}
	server.Stop()
}
