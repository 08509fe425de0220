package traces

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"basalt/tests/interop/harness"
)

// flagsFor are those that make a server export everything to a sink.
func flagsFor(s *harness.Collector, rate int) []string {
	return []string{
		"--enable-distributed-tracing=true", "--distributed-tracing-address=" + s.Address,
		"--distributed-tracing-service-name=store", "--distributed-tracing-instance-id=one",
		fmt.Sprintf("--distributed-tracing-sampling-rate=%d", rate),
	}
}

// traced is a client that says with each call to which trace it belongs.
type traced struct {
	t     *testing.T
	conn  *grpc.ClientConn
	calls uint64
}

// next is the context of the next call: its trace is numbered, and to be kept or not.
func (c *traced) next(sampled bool) context.Context {
	c.calls++
	flags := "00"
	if sampled {
		flags = "01"
	}
	parent := fmt.Sprintf("00-%032x-%016x-%s", c.calls, 0xabc, flags)
	return metadata.AppendToOutgoingContext(harness.Context(c.t, 30*time.Second), "traceparent", parent)
}

func (c *traced) call(method string, request proto.Message) {
	// How it ends is seen in the trace.
	_ = c.conn.Invoke(c.next(true), "/etcdserverpb."+method, request, &emptypb.Empty{})
}

// stream opens a stream, sends one request, waits for an answer, and leaves.
func (c *traced) stream(method string, request proto.Message, answers int) {
	c.t.Helper()
	ctx, cancel := context.WithCancel(c.next(true))
	defer cancel()
	stream, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/etcdserverpb."+method)
	if err == nil {
		err = stream.SendMsg(request)
	}
	if answers > 1 {
		// A call with one request begins when that is known.
		err = errors.Join(err, stream.CloseSend())
	}
	for range answers {
		if errors.Is(err, io.EOF) {
			return
		}
		if err == nil {
			err = stream.RecvMsg(&emptypb.Empty{})
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		c.t.Fatalf("%s: %v", method, err)
	}
}

func key(text string) []byte { return []byte(text) }

// work calls what etcd has spans for, well and badly.
func (c *traced) work() {
	c.call("KV/Put", &pb.PutRequest{Key: key("a"), Value: key("1")})
	c.call("KV/Put", &pb.PutRequest{Key: key("a"), Lease: 999})
	c.call("KV/Put", &pb.PutRequest{})
	c.call("KV/Range", &pb.RangeRequest{Key: key("a")})
	c.call("KV/Range", &pb.RangeRequest{Key: key("a"), RangeEnd: key("b"), Limit: 3, Revision: 1, KeysOnly: true})
	c.call("KV/Range", &pb.RangeRequest{Key: key("a"), Revision: 999, CountOnly: true})
	c.call("KV/DeleteRange", &pb.DeleteRangeRequest{Key: key("a"), RangeEnd: key("b")})
	put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key("t"), Value: key("1")}}}
	get := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key("t")}}}
	is := &pb.Compare{Key: key("c"), Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: 0}}
	c.call("KV/Txn", &pb.TxnRequest{Compare: []*pb.Compare{is}, Success: []*pb.RequestOp{put, get}, Failure: []*pb.RequestOp{get}})
	c.call("KV/Txn", &pb.TxnRequest{Success: []*pb.RequestOp{get}})
	c.call("KV/Txn", &pb.TxnRequest{})
	c.call("KV/Compact", &pb.CompactionRequest{Revision: 2, Physical: true})
	c.call("KV/Compact", &pb.CompactionRequest{Revision: 999})
	c.call("Lease/LeaseGrant", &pb.LeaseGrantRequest{ID: 5, TTL: 100})
	c.stream("Lease/LeaseKeepAlive", &pb.LeaseKeepAliveRequest{ID: 5}, 1)
	c.call("Lease/LeaseTimeToLive", &pb.LeaseTimeToLiveRequest{ID: 5})
	c.call("Lease/LeaseRevoke", &pb.LeaseRevokeRequest{ID: 5})
	c.call("Lease/LeaseRevoke", &pb.LeaseRevokeRequest{ID: 6})
	create := &pb.WatchCreateRequest{Key: key("w"), RangeEnd: key("x"), StartRevision: 3, PrevKv: true, ProgressNotify: true, Fragment: true}
	c.stream("Watch/Watch", &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}, 1)
	c.stream("KV/RangeStream", &pb.RangeRequest{Key: key("a"), RangeEnd: key("z"), Limit: 7}, 99)
	c.call("Cluster/MemberList", &pb.MemberListRequest{})
	c.call("Maintenance/Status", &pb.StatusRequest{})
	// Not to be kept, by the client's word.
	_ = c.conn.Invoke(c.next(false), "/etcdserverpb.KV/Put", &pb.PutRequest{Key: key("unseen")}, &emptypb.Empty{})
}

// exported does the work on a server, and gives the spans of each call's trace as lines.
func exported(t *testing.T, kind harness.Kind) []string {
	t.Helper()
	s := harness.StartCollector(t, "127.0.0.1:0")
	server := harness.Start(t, harness.Options{Kind: kind, Args: flagsFor(s, 0)})
	c := &traced{t: t, conn: server.Conn(t)}
	c.work()
	// What waits is exported before the end.
	server.Stop()
	return lines(s.Spans())
}

// lines describes spans, trace by trace, children by their parent's name.
func lines(spans []harness.Span) []string {
	names := map[string]string{hex.EncodeToString(binary.BigEndian.AppendUint64(nil, 0xabc)): "client"}
	for _, one := range spans {
		names[hex.EncodeToString(one.SpanId)] = one.Name
	}
	var all []string
	for _, one := range spans {
		var events []string
		for _, event := range one.Events {
			events = append(events, event.Name)
		}
		parent, ok := names[hex.EncodeToString(one.ParentSpanId)]
		if !ok {
			parent = "nobody"
		}
		all = append(all, fmt.Sprintf("%x %s below %s, %v, at %s: %s; %v %q; [%s]", one.TraceId, one.Name, parent,
			one.Kind, one.Resource, harness.AttributesOf(one.Attributes), one.Status.GetCode(), one.Status.GetMessage(), strings.Join(events, ", ")))
	}
	slices.Sort(all)
	return all
}

// TestTracesAreThoseOfEtcd compares the spans of the same calls.
func TestTracesAreThoseOfEtcd(t *testing.T) {
	etcd, ours := exported(t, harness.Etcd), exported(t, harness.UnderTest(t))
	if testing.Verbose() {
		t.Log(strings.Join(etcd, "\n"))
	}
	for _, line := range etcd {
		if !slices.Contains(ours, line) {
			t.Errorf("not exported: %s", line)
		}
	}
	for _, line := range ours {
		if !slices.Contains(etcd, line) {
			t.Errorf("etcd does not export: %s", line)
		}
	}
	if len(etcd) < 30 {
		t.Errorf("etcd exports only %d spans", len(etcd))
	}
}

// TestGatewayCallsAreTraced compares the spans of calls through the JSON gateway: those whose client names a trace.
func TestGatewayCallsAreTraced(t *testing.T) {
	spans := map[harness.Kind][]string{}
	for _, kind := range []harness.Kind{harness.Etcd, harness.UnderTest(t)} {
		s := harness.StartCollector(t, "127.0.0.1:0")
		server := harness.Start(t, harness.Options{Kind: kind, Args: flagsFor(s, 0)})
		for number, body := range []string{`{"key":"YQ==","value":"MQ=="}`, `{}`} {
			request, err := http.NewRequestWithContext(harness.Context(t, 20*time.Second), http.MethodPost, server.Endpoint()+"/v3/kv/put", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Grpc-Metadata-Traceparent", fmt.Sprintf("00-%032x-%016x-01", number+1, 0xabc))
			response, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Fatal(err)
			}
			_ = response.Body.Close()
		}
		server.Stop()
		spans[kind] = lines(s.Spans())
	}
	if etcd, ours := spans[harness.Etcd], spans[harness.UnderTest(t)]; len(etcd) < 3 || !slices.Equal(etcd, ours) {
		t.Errorf("etcd exports\n%s\nwe\n%s", strings.Join(etcd, "\n"), strings.Join(ours, "\n"))
	}
}

// TestSamplingRate keeps all, none, and what the client asks to keep whatever the rate is.
func TestSamplingRate(t *testing.T) {
	for rate, own := range map[int]int{0: 0, 1_000_000: 5} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			s := harness.StartCollector(t, "127.0.0.1:0")
			server := harness.Start(t, harness.Options{Args: flagsFor(s, rate)})
			conn := server.Conn(t)
			for range 5 {
				// Of no trace.
				if err := conn.Invoke(harness.Context(t, 20*time.Second), "/etcdserverpb.Maintenance/Status", &pb.StatusRequest{}, &emptypb.Empty{}); err != nil {
					t.Fatal(err)
				}
			}
			c := &traced{t: t, conn: conn}
			c.call("Maintenance/Status", &pb.StatusRequest{})
			server.Stop()
			spans := s.Spans()
			if len(spans) != own+1 {
				t.Errorf("%d spans, want %d", len(spans), own+1)
			}
			traces := map[string]bool{}
			for _, one := range spans {
				traces[hex.EncodeToString(one.TraceId)] = true
				if len(one.TraceId) != 16 || len(one.SpanId) != 8 || one.EndTimeUnixNano < one.StartTimeUnixNano {
					t.Errorf("span %v", one)
				}
			}
			if len(traces) != len(spans) {
				t.Errorf("%d spans of %d traces", len(spans), len(traces))
			}
		})
	}
}

// pageOf gives the metrics of a server.
func pageOf(t *testing.T, server *harness.Server) string {
	t.Helper()
	response, err := http.Get(server.Endpoint() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestRefusedFlags: what etcd refuses is refused in its words; an address that cannot be one is refused here alone.
func TestRefusedFlags(t *testing.T) {
	refused := map[string]string{
		"--distributed-tracing-sampling-rate=-1":      "tracing sampling rate must be positive",
		"--distributed-tracing-sampling-rate=1000001": "tracing sampling rate must be less than 1000000",
	}
	if harness.UnderTest(t) == harness.Basalt {
		for _, address := range []string{"", "localhost", ":4317", "http://localhost:4317", "user@localhost:4317"} {
			refused["--distributed-tracing-address="+address] = "is no host and port"
		}
	}
	for flag, text := range refused {
		end := harness.RunToEnd(t, harness.Launch{Args: []string{"--enable-distributed-tracing", flag}})
		if end.Code != 1 || !strings.Contains(end.Stderr+end.Stdout, text) {
			t.Errorf("%s: exit code %d, %q", flag, end.Code, end.Stderr)
		}
	}
}

// TestCollectorComesLate has a server trace to nobody, for longer than its queue holds, and then to a collector.
func TestCollectorComesLate(t *testing.T) {
	address := fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t))
	server := harness.Start(t, harness.Options{Args: flagsFor(&harness.Collector{Address: address}, 1_000_000)})
	conn := server.Conn(t)
	status := func() {
		t.Helper()
		if err := conn.Invoke(harness.Context(t, 20*time.Second), "/etcdserverpb.Maintenance/Status", &pb.StatusRequest{}, &emptypb.Empty{}); err != nil {
			t.Fatal(err)
		}
	}
	for range 3000 {
		status()
	}
	if server.Kind == harness.Basalt {
		// What did not fit is dropped, and that is told; nothing was lost to clients.
		if page := pageOf(t, server); !regexp.MustCompile(`(?m)^basalt_traces_spans_dropped_total [1-9]`).MatchString(page) {
			t.Error("no span was dropped")
		}
	}
	s := harness.StartCollector(t, address)
	deadline := time.Now().Add(60 * time.Second)
	for len(s.Spans()) == 0 {
		if time.Now().After(deadline) {
			t.Fatal("nothing is exported to a collector that came late")
		}
		status()
		time.Sleep(50 * time.Millisecond)
	}
	server.Stop()
}
