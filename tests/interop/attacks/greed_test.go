package attacks

import (
	"fmt"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"basalt/tests/interop/harness"
)

// TestGreed makes honest calls, as many as one connection holds, one after the other without a pause: work that is served and
// costs what it costs. The good client has its turn all the same.
func TestGreed(t *testing.T) {
	const atOnce = 4_000
	get, put := &pb.RangeRequest{Key: []byte("greed")}, &pb.PutRequest{Key: []byte("greed"), Value: []byte("v")}
	calls := func(t *testing.T, s *scene, path string, request proto.Message) {
		a := newAttacker(t, s, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
		a.send(func() { _ = a.framer.WriteWindowUpdate(0, 1<<30) })
		for under := 0; s.lasts(); {
			for ; under < atOnce; under += 100 {
				a.send(func() {
					for range 100 {
						a.call(path, request)
					}
				})
			}
			for ; under > atOnce/2; under-- {
				a.await(t, a.answers)
			}
			a.openWindow()
		}
	}
	gets := func(t *testing.T, s *scene) { calls(t, s, rangePath, get) }
	puts := func(t *testing.T, s *scene) { calls(t, s, putPath, put) }
	// As many as one turn of a connection takes, each time at once.
	scrapes := func(t *testing.T, s *scene) {
		const atOnce = 240
		a := newAttacker(t, s, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
		a.send(func() { _ = a.framer.WriteWindowUpdate(0, 1<<30) })
		for s.lasts() {
			a.send(func() {
				for range atOnce {
					a.begin(a.headOf("GET", "/metrics"), true)
				}
			})
			for range atOnce {
				a.await(t, a.answers)
			}
			a.openWindow()
		}
	}
	honest := func(t *testing.T, s *scene) {
		if s.cuts.Load() > 0 {
			t.Error("honest calls were taken for a flood")
		}
	}
	runAttacks(t, []attack{
		{name: "scrapes in one burst", probes: true, cores: -1, run: scrapes, after: scrape},
		{name: "thousands of calls on one connection", cores: -1, run: gets, after: honest},
		// What was put waits in memory for a checkpoint.
		{name: "thousands of puts on one connection", cores: -1, memory: 4 * memoryMax, run: puts, after: honest},
	})
}

// TestStrangersMakeNoWork sends what is dear to carry out and refused in the end, while authentication is on: whoever shows no
// token may not cost more than reading what he sends.
func TestStrangersMakeNoWork(t *testing.T) {
	if !judged(t) {
		t.Skip("etcd is not judged")
	}
	const keys, perTxn, requests = 30_000, 100, 20
	server := harness.StartUnderTest(t)
	client, ctx := server.Client(t), harness.Context(t, 5*time.Minute)
	for n := 0; n < keys; n += perTxn {
		var puts []clientv3.Op
		for key := n; key < n+perTxn; key++ {
			puts = append(puts, clientv3.OpPut(fmt.Sprintf("key/%06d", key), "v"))
		}
		if _, err := client.Txn(ctx).Then(puts...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		second(client.UserAdd(ctx, "root", "root")), second(client.RoleAdd(ctx, "root")),
		second(client.UserGrantRole(ctx, "root", "root")), second(client.AuthEnable(ctx)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	compares := &pb.TxnRequest{Success: []*pb.RequestOp{put("a")}}
	for range 128 {
		compares.Compare = append(compares.Compare, &pb.Compare{Key: []byte{0}, RangeEnd: []byte{0},
			Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: []byte("v")}})
	}
	// Half of them delete, half of them put, and none is of the same key as another.
	operations := &pb.TxnRequest{Success: []*pb.RequestOp{
		wide(35, func(n int) *pb.RequestOp { return remove(fmt.Sprintf("d%06d", n)) }),
		wide(35, func(n int) *pb.RequestOp { return put(fmt.Sprintf("p%06d", n)) }),
	}}
	kv := pb.NewKVClient(server.Conn(t))
	for name, asked := range map[string]struct {
		txn   *pb.TxnRequest
		times int
		most  time.Duration
	}{
		"compares of all values":        {compares, requests, time.Second},
		"a hundred thousand operations": {operations, 2, 4 * time.Second},
	} {
		before := server.CPU()
		for range asked.times {
			if _, err := kv.Txn(ctx, asked.txn); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "user name is empty") {
				t.Fatalf("%s: %v", name, err)
			}
		}
		took := server.CPU() - before
		t.Logf("%s: %v of CPU time", name, took)
		if took > asked.most {
			t.Errorf("%s cost %v of CPU time, at most %v are allowed", name, took, asked.most)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func put(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key)}}}
}

func remove(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key)}}}
}

// wide is a transaction of three levels with width³ operations.
func wide(width int, operation func(n int) *pb.RequestOp) *pb.RequestOp {
	level := func(inner func(n int) *pb.RequestOp) func(n int) *pb.RequestOp {
		return func(n int) *pb.RequestOp {
			txn := &pb.TxnRequest{}
			for at := range width {
				txn.Success = append(txn.Success, inner(n*width+at))
			}
			return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: txn}}
		}
	}
	return level(level(level(operation)))(0)
}
