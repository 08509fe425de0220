package interop

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"basalt/tests/interop/harness"
)

// traceLine is what etcd logs of a call that took long, as far as its tools look at it.
type traceLine struct {
	Message   string `json:"msg"`
	Operation string `json:"operation"`
	Detail    string `json:"detail"`
	Steps     string `json:"steps"`
	StepCount int    `json:"step_count"`
}

// awaitTrace gives the line of an operation whose detail and steps hold these texts.
func awaitTrace(t *testing.T, server *harness.Server, operation string, texts ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("a trace of %s with %q", operation, texts), func() bool {
		for _, line := range server.LinesWith(`"msg":"trace"`) {
			var trace traceLine
			if json.Unmarshal([]byte(line), &trace) != nil || trace.Operation != operation || trace.StepCount == 0 {
				continue
			}
			missing := 0
			for _, text := range texts {
				if !strings.Contains(trace.Detail+trace.Steps, text) {
					missing++
				}
			}
			if missing == 0 {
				return true
			}
		}
		return false
	})
}

// figure is the sum of the series of a metric whose labels hold these texts.
func figure(t *testing.T, server *harness.Server, name string, labels ...string) (sum float64) {
	t.Helper()
	series := regexp.MustCompile(`(?m)^` + name + `(\{[^}]*\})? (\S+)$`)
	for _, match := range series.FindAllStringSubmatch(metricsOf(t, server), -1) {
		holds := true
		for _, label := range labels {
			holds = holds && strings.Contains(match[1], label)
		}
		value, err := strconv.ParseFloat(match[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		if holds {
			sum += value
		}
	}
	return sum
}

// TestSlowCallsAreTold holds up syncs of the log: the line of a slow call says which step took the time, the one of a call that
// its client gave up says so, and a call ends when its client said that it would wait no longer.
func TestSlowCallsAreTold(t *testing.T) {
	address := fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t))
	server := harness.StartLater(t, harness.Options{
		Kind: harness.Basalt, Program: harness.NextVersion(t), Wrapper: []string{"env", "GOFAIL_HTTP=" + address},
		Args: []string{"--warning-unary-request-duration=250ms"},
	})
	server.AwaitReady()
	points := pointed{server, t, "http://" + address + "/"}
	ctx := harness.Context(t, 2*time.Minute)
	s := servicesOf(server.Conn(t))
	putValue(t, ctx, s, "k", "v")

	points.set("walBeforeSync", `sleep("300ms")`)
	putValue(t, ctx, s, "k", "a value that is in no line")
	awaitTrace(t, server, "put", "key:k; ", "req_size:", "response_revision:3; ", "'process raft request' (duration: ")
	if _, err := s.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte("b")}); err != nil {
		t.Fatal(err)
	}
	awaitTrace(t, server, "delete_range", "key:a; range_end:b; ", "'process raft request' (duration: ")
	if _, err := s.kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("l")}}}}}); err != nil {
		t.Fatal(err)
	}
	awaitTrace(t, server, "transaction", "read_only:false; ", "'process raft request' (duration: ")
	if _, err := s.kv.Compact(ctx, &pb.CompactionRequest{Revision: 2}); err != nil {
		t.Fatal(err)
	}
	awaitTrace(t, server, "compact", "response_revision:", "'process raft request' (duration: ")
	if server.LogContains("a value that is in no line") {
		t.Error("a value stands in the log")
	}
	if len(server.LinesWith(`"msg":"request stats"`)) == 0 {
		t.Error("no line for a slow call")
	}

	// Who gives up by itself is told too. The reset and the deadline that the client named race, as in etcd.
	points.set("walBeforeSync", `sleep("1s")`)
	failed := figure(t, server, "etcd_server_proposals_failed_total")
	_, err := s.kv.Put(harness.Context(t, 400*time.Millisecond), &pb.PutRequest{Key: []byte("k")})
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("given up: %v", err)
	}
	ended := func() float64 {
		return figure(t, server, "grpc_server_handled_total", `grpc_method="Put"`, `grpc_code="Canceled"`) +
			figure(t, server, "grpc_server_handled_total", `grpc_method="Put"`, `grpc_code="Unavailable"`)
	}
	eventually(t, "the call that was given up is counted", func() bool {
		return ended() == 1 && figure(t, server, "etcd_server_proposals_failed_total") == failed+1
	})
	eventually(t, "the call that was given up is told", func() bool {
		return len(server.LinesWith(`"code":"Canceled","`))+len(server.LinesWith(`"code":"Canceled"}`))+
			len(server.LinesWith(`"code":"Unavailable"`)) > 0
	})

	// A client that only says how long it waits.
	body, err := proto.Marshal(&pb.PutRequest{Key: []byte("k")})
	if err != nil {
		t.Fatal(err)
	}
	late := rawCall{header: map[string]string{"grpc-timeout": "300m"}, body: whole(body)}.call(t, ctx, server)
	if want := *grpcError("14", rpctypes.ErrTimeout.Error()); late != want {
		t.Errorf("a call whose time was up: %+v, want %+v", late, want)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, server.Endpoint()+"/v3/kv/put", strings.NewReader(`{"key":"aw=="}`))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Grpc-Timeout", "300m")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("the same through the gateway: %s", response.Status)
	}
}

// TestSlowReadsAreTold has a read wait for a quorum: the line of one that is answered says so, and that of one that is refused.
func TestSlowReadsAreTold(t *testing.T) {
	if harness.UnderTest(t) == harness.Etcd {
		t.Skip("etcd writes the steps as a list")
	}
	members := harness.StartMembers(t, harness.Basalt, 3)
	leader := leaderOf(t, members)
	ctx := harness.Context(t, 2*time.Minute)
	s := servicesOf(leader.Conn(t))
	putValue(t, ctx, s, "k", "v")
	read := func(request func() error) {
		t.Helper()
		for _, other := range members.Without(leader) {
			other.Pause()
		}
		done := make(chan error, 1)
		go func() { done <- request() }()
		time.Sleep(300 * time.Millisecond)
		for _, other := range members.Without(leader) {
			other.Resume()
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	read(func() error {
		_, err := s.kv.Range(ctx, &pb.RangeRequest{Key: []byte("k")})
		return err
	})
	awaitTrace(t, leader, "range", "response_count:1; ", "'agreement among raft nodes before linearized reading' (duration: ")
	read(func() error {
		_, err := s.kv.Range(ctx, &pb.RangeRequest{Key: []byte("future"), Revision: 1 << 40})
		if status.Code(err) != codes.OutOfRange {
			return fmt.Errorf("a read of the future: %w", err)
		}
		return nil
	})
	awaitTrace(t, leader, "range", "future", "'agreement among raft nodes before linearized reading' (duration: ")
}
