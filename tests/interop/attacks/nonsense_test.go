package attacks

import (
	"math/rand"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/protobuf/encoding/protowire"
)

// nested is a transaction within a transaction, `depth` times, as bytes: Txn.success = 2, RequestOp.request_txn = 4.
func nested(depth int) []byte {
	var txn []byte
	for range depth {
		op := protowire.AppendBytes(protowire.AppendTag(nil, 4, protowire.BytesType), txn)
		txn = protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), op)
	}
	return txn
}

var methods = []string{
	rangePath, putPath, "/etcdserverpb.KV/Txn", "/etcdserverpb.KV/DeleteRange", "/etcdserverpb.KV/Compact", watchPath,
	"/etcdserverpb.Lease/LeaseGrant", "/etcdserverpb.Lease/LeaseKeepAlive", "/etcdserverpb.Cluster/MemberAdd",
	"/etcdserverpb.Auth/Authenticate", "/etcdserverpb.Maintenance/HashKV", "/v3lockpb.Lock/Lock",
	"/v3electionpb.Election/Campaign", "/nobody/Knows",
}

// calls sends whole calls of any content, so many a second, on connections that end when they must.
func calls(perSecond int, body func(random *rand.Rand) (path string, message []byte)) func(*testing.T, *scene) {
	return func(t *testing.T, s *scene) {
		random := rand.New(rand.NewSource(1))
		for s.lasts() {
			a, began, sent := newAttacker(t, s), time.Now(), 0
			for !a.over() && s.lasts() {
				if int(time.Since(began).Seconds()*float64(perSecond)) <= sent {
					time.Sleep(time.Millisecond)
					continue
				}
				a.send(func() {
					path, message := body(random)
					stream := a.open(path, false)
					for len(message) > 16<<10 {
						_ = a.framer.WriteData(stream, false, message[:16<<10])
						message = message[16<<10:]
					}
					_ = a.framer.WriteData(stream, true, message)
				})
				sent++
			}
			a.conn.Close()
		}
	}
}

// TestNonsense sends what is no TLS, no HTTP/2, no gRPC and no protobuf.
func TestNonsense(t *testing.T) {
	deep, bytesOf := nested(20_000), func(random *rand.Rand, max int) []byte {
		bytes := make([]byte, random.Intn(max))
		random.Read(bytes)
		return bytes
	}
	runAttacks(t, []attack{
		{name: "malformed protobuf", run: calls(1_000, func(random *rand.Rand) (string, []byte) {
			return methods[random.Intn(len(methods))], message(bytesOf(random, 200))
		})},
		{name: "malformed messages", run: calls(1_000, func(random *rand.Rand) (string, []byte) {
			return methods[random.Intn(len(methods))], bytesOf(random, 50)
		})},
		{name: "nested deep", run: calls(50, func(*rand.Rand) (string, []byte) {
			return "/etcdserverpb.KV/Txn", message(deep)
		})},
		{name: "malformed frames", run: func(t *testing.T, s *scene) {
			random := rand.New(rand.NewSource(2))
			for s.lasts() {
				a := newAttacker(t, s)
				for frames := 0; frames < 100 && !a.over(); frames++ {
					a.send(func() {
						a.frame(http2.FrameType(random.Intn(11)), http2.Flags(random.Intn(256)), uint32(random.Intn(5)), bytesOf(random, 100))
					})
				}
				a.conn.Close()
				time.Sleep(time.Millisecond)
			}
		}},
		{name: "bytes behind the preface", run: func(t *testing.T, s *scene) {
			random := rand.New(rand.NewSource(3))
			for s.lasts() {
				conn, err := net.Dial("tcp", s.server.Target())
				if err != nil {
					t.Fatal(err)
				}
				_, _ = conn.Write(append([]byte(http2.ClientPreface), bytesOf(random, 10_000)...))
				conn.Close()
				time.Sleep(time.Millisecond)
			}
		}},
		{name: "bytes instead of TLS", tls: true, run: func(t *testing.T, s *scene) {
			random := rand.New(rand.NewSource(4))
			for s.lasts() {
				conn, err := net.Dial("tcp", s.server.Target())
				if err != nil {
					t.Fatal(err)
				}
				_, _ = conn.Write(append([]byte{22, 3, 1, 0, 200}, bytesOf(random, 1_000)...))
				conn.Close()
				time.Sleep(time.Millisecond)
			}
		}},
		{name: "handshakes", tls: true, cores: -1, run: func(t *testing.T, s *scene) {
			done := make(chan int)
			const callers = 8
			for range callers {
				go func() {
					count := 0
					for s.lasts() {
						if conn, err := s.dial(); err == nil {
							count++
							conn.Close()
						}
					}
					done <- count
				}()
			}
			count := 0
			for range callers {
				count += <-done
			}
			t.Logf("%d handshakes", count)
		}},
	})
}
