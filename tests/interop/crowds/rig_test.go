package crowds

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"basalt/tests/interop/harness"
)

// size is the small or the full size of something, by CROWDS.
func size(small, full int) int {
	if os.Getenv("CROWDS") == "full" {
		return full
	}
	return small
}

// metric reads one sample of the server's metrics; the sum of those that differ in labels.
func metric(t *testing.T, server *harness.Server, name string) float64 {
	t.Helper()
	answer, err := http.Get(server.Endpoint() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	sum, found := 0.0, false
	for line := range strings.Lines(string(text)) {
		sample, number, _ := strings.Cut(strings.TrimSpace(line), " ")
		if family, _, _ := strings.Cut(sample, "{"); family == name {
			value, err := strconv.ParseFloat(number, 64)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			sum, found = sum+value, true
		}
	}
	if !found {
		t.Fatalf("no metric %s", name)
	}
	return sum
}

// parallel calls `work` with 0 to count-1 from several callers and fails the test at the first error.
func parallel(t *testing.T, callers, count int, work func(i int) error) {
	t.Helper()
	var group sync.WaitGroup
	errs := make(chan error, callers)
	for caller := range callers {
		group.Go(func() {
			for i := caller; i < count; i += callers {
				if err := work(i); err != nil {
					errs <- fmt.Errorf("call %d: %w", i, err)
					return
				}
			}
		})
	}
	group.Wait()
	close(errs)
	for err := range errs {
		t.Fatal(err)
	}
}

// put writes one key.
func put(ctx context.Context, conn *grpc.ClientConn, key string, value []byte) error {
	_, err := pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: []byte(key), Value: value})
	return err
}

// connections are that many raw connections.
func connections(t *testing.T, server *harness.Server, count int) []*grpc.ClientConn {
	t.Helper()
	conns := make([]*grpc.ClientConn, count)
	for i := range conns {
		conns[i] = server.Conn(t)
	}
	return conns
}
