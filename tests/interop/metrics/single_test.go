package metrics

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"basalt/tests/interop/harness"
)

// valueOf a family without labels, or how often a histogram was observed.
func (w *worker) valueOf(family string) float64 {
	w.t.Helper()
	return scrape(w.t, w.server, nil)[family].series[""].value
}

// TestSlowAppliesAreCounted makes every entry a slow one.
func TestSlowAppliesAreCounted(t *testing.T) {
	w := newWorker(t, harness.StartUnderTest(t, "--warning-apply-duration=1ns"))
	before := w.valueOf("etcd_server_slow_apply_total")
	w.call("KV/Put", putOf("a", "1"), nil)
	w.await("a slow apply", func() bool { return w.valueOf("etcd_server_slow_apply_total") > before })
}

// TestWatchProgressIsCounted has a quiet watch that is told how far it is.
func TestWatchProgressIsCounted(t *testing.T) {
	w := newWorker(t, harness.StartUnderTest(t, "--watch-progress-notify-interval=100ms"))
	stream, err := pb.NewWatchClient(w.conn).Watch(w.streams)
	if err != nil {
		t.Fatal(err)
	}
	create := &pb.WatchCreateRequest{Key: []byte("a"), ProgressNotify: true}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		t.Fatal(err)
	}
	w.await("progress", func() bool {
		return w.valueOf("etcd_debugging_server_watch_send_loop_progress_duration_seconds") > 0
	})
}

// TestBrokenStreamsAreCounted sends what is no message on each kind of stream.
func TestBrokenStreamsAreCounted(t *testing.T) {
	w := newWorker(t, harness.StartUnderTest(t))
	for method, labels := range map[string]string{
		"Watch/Watch":          `API="watch",Type="receive"`,
		"Lease/LeaseKeepAlive": `API="lease-keepalive",Type="receive"`,
	} {
		description := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
		stream, err := w.conn.NewStream(w.ctx, description, "/etcdserverpb."+method, grpc.ForceCodec(rawCodec{}))
		if err == nil {
			err = stream.SendMsg([]byte{0xff})
		}
		if err == nil {
			var answer []byte
			err = stream.RecvMsg(&answer)
		}
		if status.Code(err) != codes.Internal {
			t.Errorf("%s ended with %v", method, err)
		}
		if w.server.Kind == harness.Etcd {
			// It counts only where it sees the failure before the end of the stream, which is a race.
			continue
		}
		w.await("a failure of "+method, func() bool {
			return scrape(t, w.server, nil)["etcd_network_server_stream_failures_total"].series[labels].value == 1
		})
	}
}

// rawCodec sends bytes as they are.
type rawCodec struct{}

func (rawCodec) Name() string                        { return "proto" }
func (rawCodec) Marshal(message any) ([]byte, error) { return message.([]byte), nil }
func (rawCodec) Unmarshal(data []byte, message any) error {
	*message.(*[]byte) = data
	return nil
}
