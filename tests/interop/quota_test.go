package interop

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"basalt/tests/interop/harness"
)

const noSpace = "etcdserver: mvcc: database space exceeded"

// TestNoSpace fills a small quota, sees what is refused and what goes on (etcd-contract 42), makes room and disarms.
func TestNoSpace(t *testing.T) {
	server := harness.StartUnderTest(t, "--quota-backend-bytes=4194304")
	s, ctx := servicesOf(server.Conn(t)), harness.Context(t, 2*time.Minute)
	fill(t, ctx, s)

	alarm := server.Etcdctl("alarm", "list")
	if !strings.Contains(alarm, "alarm:NOSPACE") {
		t.Fatalf("alarm list: %q", alarm)
	}
	expectRefusals(t, ctx, s, []refusal{
		{"put", codes.ResourceExhausted, noSpace, put(&pb.PutRequest{Key: []byte("small")})},
		{"grant", codes.ResourceExhausted, noSpace, grant(0, 100)},
		{"put in the branch not taken", codes.ResourceExhausted, noSpace,
			txn(&pb.TxnRequest{Failure: []*pb.RequestOp{opPut("small")}})},
	})
	for name, call := range map[string]func(context.Context, services) error{
		"range":   get(&pb.RangeRequest{Key: []byte("fill/0")}),
		"compact": compact(2),
		"txn that deletes": txn(&pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestDeleteRange{
			RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("fill/0")},
		}}}}),
		"delete": func(ctx context.Context, s services) error {
			_, err := s.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("fill/"), RangeEnd: []byte("fill0")})
			return err
		},
	} {
		if err := call(ctx, s); err != nil {
			t.Errorf("%s under NOSPACE: %v", name, err)
		}
	}
	expectHTTP(t, server, "/health", http.StatusServiceUnavailable, `{"health":"false","reason":"ALARM NOSPACE"}`+"\n")
	expectHTTP(t, server, "/health?exclude=NOSPACE", http.StatusOK, `{"health":"true","reason":""}`)
	expectHTTP(t, server, "/readyz", http.StatusOK, "ok\n")

	state, err := s.maintenance.Status(ctx, &pb.StatusRequest{})
	if err != nil || len(state.Errors) != 1 || !strings.Contains(state.Errors[0], "alarm:NOSPACE") {
		t.Errorf("status under NOSPACE: %v, %v", state, err)
	}
	head := everything(t, server).Header.Revision
	server.Etcdctl("compaction", fmt.Sprint(head), "--physical")
	server.Etcdctl("defrag")
	expectStatus(t, "put before the disarm", put(&pb.PutRequest{Key: []byte("small")})(ctx, s), codes.ResourceExhausted, noSpace)
	if text := server.Etcdctl("alarm", "disarm"); !strings.Contains(text, "alarm:NOSPACE") {
		t.Errorf("alarm disarm: %q", text)
	}
	expectText(t, "alarm list", server.Etcdctl("alarm", "list"), "")
	expectStatus(t, "put after the disarm", put(&pb.PutRequest{Key: []byte("small")})(ctx, s), codes.OK, "")
	expectHTTP(t, server, "/health", http.StatusOK, `{"health":"true","reason":""}`)
}

// TestQuotaComesFirst: what is wrong with a request that would store something is not looked at where there is no space.
func TestQuotaComesFirst(t *testing.T) {
	server := harness.StartUnderTest(t, "--quota-backend-bytes=1")
	s, ctx := servicesOf(server.Conn(t)), harness.Context(t, time.Minute)
	expectRefusals(t, ctx, s, []refusal{
		{"txn that stores nothing", codes.InvalidArgument, "etcdserver: key is not provided",
			txn(&pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{}}}}})},
		{"put without a key", codes.ResourceExhausted, noSpace, put(&pb.PutRequest{})},
	})
	if alarm := server.Etcdctl("alarm", "list"); !strings.Contains(alarm, "alarm:NOSPACE") {
		t.Errorf("alarm list: %q", alarm)
	}
	expectRefusals(t, ctx, s, []refusal{
		{"txn without a key", codes.ResourceExhausted, noSpace, txn(&pb.TxnRequest{Success: []*pb.RequestOp{opPut("")}})},
		{"txn of one key twice", codes.ResourceExhausted, noSpace, txn(&pb.TxnRequest{Success: []*pb.RequestOp{opPut("a"), opPut("a")}})},
		{"txn of too many operations", codes.ResourceExhausted, noSpace, txn(&pb.TxnRequest{Success: puts(129)})},
		{"endless lease", codes.ResourceExhausted, noSpace, grant(0, math.MaxInt64)},
	})
}

// fill puts until the quota refuses.
func fill(t *testing.T, ctx context.Context, s services) {
	t.Helper()
	value := bytes.Repeat([]byte{'f'}, 100_000)
	for n := range 200 {
		err := put(&pb.PutRequest{Key: fmt.Appendf(nil, "fill/%d", n), Value: value})(ctx, s)
		if err == nil {
			continue
		}
		if got := status.Convert(err); got.Code() != codes.ResourceExhausted || got.Message() != noSpace {
			t.Fatalf("the %dth put: %v", n, err)
		}
		return
	}
	t.Fatal("20 MB fit into a quota of 4 MiB")
}

// TestQuotaFreed fills the quota, deletes nine tenths and goes the way out that etcd's documentation names: puts work again
// without a restart, and what status says of the size falls in proportion.
func TestQuotaFreed(t *testing.T) {
	server := harness.StartUnderTest(t, "--quota-backend-bytes=33554432")
	s, ctx := servicesOf(server.Conn(t)), harness.Context(t, 2*time.Minute)
	value, keys := bytes.Repeat([]byte{'q'}, 16_000), 0
	for ; ; keys++ {
		err := put(&pb.PutRequest{Key: fmt.Appendf(nil, "quota/%05d", keys), Value: value})(ctx, s)
		if err == nil {
			continue
		}
		expectStatus(t, "a put above the quota", err, codes.ResourceExhausted, noSpace)
		break
	}
	server.Etcdctl("defrag")
	full, err := s.maintenance.Status(ctx, &pb.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for n := range keys {
		if n%10 != 0 {
			if _, err := s.kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: fmt.Appendf(nil, "quota/%05d", n)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	server.Etcdctl("compaction", fmt.Sprint(everything(t, server).Header.Revision), "--physical")
	server.Etcdctl("defrag")
	server.Etcdctl("alarm", "disarm")
	freed, err := s.maintenance.Status(ctx, &pb.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d keys: size %d, in use %d; a tenth of them: size %d, in use %d",
		keys, full.DbSize, full.DbSizeInUse, freed.DbSize, freed.DbSizeInUse)
	// A tenth is left, and what a store of any size has: a page file of 1 MiB or more for each shard.
	if freed.DbSizeInUse > full.DbSizeInUse/5 || freed.DbSize > full.DbSize/4 {
		t.Errorf("nine tenths were deleted: size %d, in use %d, now %d, in use %d",
			full.DbSize, full.DbSizeInUse, freed.DbSize, freed.DbSizeInUse)
	}
	for n := range keys / 2 {
		if err := put(&pb.PutRequest{Key: fmt.Appendf(nil, "again/%05d", n), Value: value})(ctx, s); err != nil {
			t.Fatalf("put %d after the disarm: %v", n, err)
		}
	}
}
