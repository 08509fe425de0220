package attacks

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"basalt/tests/interop/harness"
)

// wait lets the rest of the attack's time pass.
func (s *scene) wait() {
	for s.lasts() {
		time.Sleep(10 * time.Millisecond)
	}
}

// awaitEnd waits until the server has ended the connection; one that need not end it is waited for until time is up.
func (s *scene) awaitEnd(t *testing.T, a *attacker) {
	t.Helper()
	if s.wantsCut {
		a.awaitEnd(t)
	}
	for !a.over() && s.lasts() {
		time.Sleep(time.Millisecond)
	}
	a.conn.Close()
}

// fill writes `count` keys of a megabyte each, and starts the server anew, so that they are on disk alone.
func fill(count int) func(t *testing.T, s *scene) {
	return func(t *testing.T, s *scene) {
		client, value := s.server.Client(t), strings.Repeat("v", mib)
		for n := range count {
			if _, err := client.Put(harness.Context(t, time.Minute), fmt.Sprintf("large/%03d", n), value); err != nil {
				t.Fatal(err)
			}
		}
		s.server.Stop()
		s.server.Restart()
	}
}

// byteByByte takes a byte a second of each of some lists, until the server has ended all of them: by itself it does not, for something
// is taken. So it lasts longer than its time, a minute with basalt.
func byteByByte(t *testing.T, s *scene) {
	const lists = 8
	a := newAttacker(t, s, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	all := &pb.RangeRequest{Key: []byte("large/"), RangeEnd: []byte("large0")}
	streams := make([]uint32, lists)
	a.send(func() {
		for n := range streams {
			streams[n] = a.call(rangePath, all)
		}
	})
	for ended, turns := 0, 0; judged(t) && ended < lists && turns < 150; turns++ {
		for second := time.After(time.Second); second != nil; {
			select {
			case <-a.answers:
				ended++
			case <-a.resets:
				ended++
			case <-second:
				second = nil
			}
		}
		a.send(func() {
			for _, stream := range streams {
				_ = a.framer.WriteWindowUpdate(stream, 1)
			}
		})
	}
	s.wait()
}

// scrape gets the page of all figures, as Prometheus would.
func scrape(t *testing.T, s *scene) {
	t.Helper()
	response, err := http.Get("http://" + s.probes + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	page, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK || !bytes.Contains(page, []byte("etcd_server_has_leader 1")) {
		t.Errorf("a scrape: %d, %d bytes, %v", response.StatusCode, len(page), err)
	}
}

// idle says that the server does nothing for those who are gone: two snapshots may be under way, a whole queue of them may not.
func idle(t *testing.T, s *scene) {
	t.Helper()
	time.Sleep(time.Second)
	const most = 300 * time.Millisecond
	before := s.server.CPU()
	time.Sleep(time.Second)
	if took := s.server.CPU() - before; took > most {
		t.Errorf("the server works for nobody: %v of CPU time in a second, at most %v are allowed", took, most)
	}
}

// TestHoards makes the server keep things: calls that never come to an end, answers that nobody takes, headers.
func TestHoards(t *testing.T) {
	one := &pb.RangeRequest{Key: []byte("large/000")}
	all := &pb.RangeRequest{Key: []byte("large/"), RangeEnd: []byte("large0")}
	noWindow := http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}
	// Half of a thirty-second of it is for messages of one connection that are not whole.
	const memoryLimit = "--basalt-memory-limit=2147483648"
	// A quarter of it is for answers and a quarter for pages, and the four lists under way may each have 20 MiB more.
	const smallMemory, answersMemory = "--basalt-memory-limit=134217728", (32 + 32 + 80) * mib
	runAttacks(t, []attack{
		{name: "calls without a message", run: func(t *testing.T, s *scene) {
			a := newAttacker(t, s)
			for n := 0; n < 20_000 && !a.over(); n += 100 {
				a.send(func() {
					for range 100 {
						a.open(putPath, false)
					}
				})
			}
			s.wait()
		}},
		{name: "watches without a request", cores: -1, memory: 160 * mib, run: func(t *testing.T, s *scene) {
			a := newAttacker(t, s)
			for n := 0; n < 20_000 && !a.over(); n += 100 {
				a.send(func() {
					for range 100 {
						a.open(watchPath, false)
					}
				})
			}
			s.wait()
		}},
		{name: "watch requests without a window", cores: -1, run: func(t *testing.T, s *scene) {
			// Each is refused at once, with an answer that nobody takes. A call asks for as much as its window holds.
			create := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
				CreateRequest: &pb.WatchCreateRequest{Key: []byte("a"), StartRevision: -1},
			}}
			body, err := proto.Marshal(create)
			if err != nil {
				t.Fatal(err)
			}
			asked := bytes.Repeat(message(body), 15_000/len(message(body)))
			a := newAttacker(t, s, noWindow)
			for n := 0; n < 300 && !a.over(); n++ {
				a.send(func() {
					stream := a.open(watchPath, false)
					for range 4 {
						_ = a.framer.WriteData(stream, false, asked)
					}
				})
				time.Sleep(5 * time.Millisecond)
			}
			s.wait()
		}},
		{name: "halves of messages", cores: -1, args: []string{memoryLimit}, run: func(t *testing.T, s *scene) {
			a, body := newAttacker(t, s), message(make([]byte, 3*mib/2))
			for n := 0; n < 300 && !a.over(); n++ {
				a.send(func() {
					stream := a.open(putPath, false)
					for rest := body[:len(body)-1]; len(rest) > 0; {
						part := rest[:min(16<<10, len(rest))]
						_, rest = a.framer.WriteData(stream, false, part), rest[len(part):]
					}
				})
			}
			s.wait()
		}},
		{name: "large requests of calls that wait", cores: -1, args: []string{memoryLimit}, run: func(t *testing.T, s *scene) {
			// A name, and a field that nobody knows.
			name := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), make([]byte, 3*mib/2))
			unknown := protowire.AppendBytes(protowire.AppendTag(nil, 99, protowire.BytesType), make([]byte, 3*mib/2))
			a := newAttacker(t, s)
			for n := 0; n < 300 && !a.over(); n++ {
				path, body := observePath, message(name)
				if n%2 == 0 {
					path, body = healthPath, message(unknown)
				}
				a.send(func() { a.pour(path, body) })
			}
			s.wait()
		}},
		{name: "logins with long words", cores: -1, args: []string{memoryLimit}, prepare: guarded, run: func(t *testing.T, s *scene) {
			// As many as may wait for a core to hash on, and more.
			long := strings.Repeat("n", 3*mib/4)
			body, err := proto.Marshal(&pb.AuthenticateRequest{Name: long, Password: long})
			if err != nil {
				t.Fatal(err)
			}
			a := newAttacker(t, s)
			for n := 0; n < 300 && !a.over(); n++ {
				a.send(func() { a.pour(loginPath, message(body)) })
			}
			s.wait()
		}},
		{name: "snapshots that are reset", cores: -1, memory: 2 * memoryMax, prepare: fill(20), run: func(t *testing.T, s *scene) {
			a := newAttacker(t, s)
			for n := 0; n < 500 && !a.over(); n += 10 {
				var streams []uint32
				a.send(func() {
					for range 10 {
						streams = append(streams, a.call(snapshotPath, &pb.SnapshotRequest{}))
					}
				})
				time.Sleep(5 * time.Millisecond)
				a.send(func() {
					for _, stream := range streams {
						_ = a.framer.WriteRSTStream(stream, http2.ErrCodeCancel)
					}
				})
			}
			s.wait()
		}, after: idle},
		{name: "values without a window", memory: answersMemory, args: []string{smallMemory}, prepare: fill(1), run: func(t *testing.T, s *scene) {
			a := newAttacker(t, s, noWindow)
			for n := 0; n < 1_000 && !a.over(); n++ {
				a.send(func() { a.call(rangePath, one) })
			}
			s.wait()
		}},
		{name: "lists without a window", cores: -1, memory: answersMemory, args: []string{smallMemory}, prepare: fill(20), run: func(t *testing.T, s *scene) {
			a := newAttacker(t, s, noWindow)
			for n := 0; n < 100 && !a.over(); n++ {
				a.send(func() { a.call(rangePath, all) })
			}
			s.wait()
		}},
		{name: "compares of a long list", cores: -1, memory: 2 * answersMemory, args: []string{smallMemory}, prepare: fill(20), run: func(t *testing.T, s *scene) {
			compare := &pb.Compare{Key: all.Key, RangeEnd: all.RangeEnd, Target: pb.Compare_VALUE, Result: pb.Compare_NOT_EQUAL}
			a := newAttacker(t, s)
			for n := 0; n < 10 && !a.over(); n++ {
				a.send(func() { a.call(txnPath, &pb.TxnRequest{Compare: slices.Repeat([]*pb.Compare{compare}, 100)}) })
			}
			s.wait()
		}},
		{name: "answers on a full socket", cores: -1, memory: answersMemory, prepare: fill(1),
			args: []string{smallMemory, "--grpc-keepalive-timeout=1s", "--grpc-keepalive-interval=1s"},
			run: func(t *testing.T, s *scene) {
				a := newAttacker(t, s, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
				close(a.deaf)
				for n := 0; n < 1_000 && s.lasts(); n++ {
					_ = a.conn.SetWriteDeadline(s.start.Add(s.length))
					a.send(func() {
						_ = a.framer.WriteWindowUpdate(0, 1<<20)
						a.call(rangePath, one)
					})
				}
				s.wait()
			}},
		{name: "pages without a window", probes: true, cores: -1, run: func(t *testing.T, s *scene) {
			newAttacker(t, s, noWindow).beginMany(10_000, "GET", "/metrics", true)
			s.wait()
		}, after: scrape},
		// No more than the 4 KiB that a place among the open calls is reckoned at.
		{name: "JSON calls without a body", tls: true, cores: -1, memory: 30_000 * 4 << 10, run: func(t *testing.T, s *scene) {
			for range 3 {
				newAttacker(t, s).beginMany(10_000, "POST", jsonPath, false)
			}
			s.wait()
		}},
		{name: "JSON of many small values", cores: -1, run: func(t *testing.T, s *scene) {
			// Eleven bytes for each, of which much more would be made.
			many := `{"compare":[` + strings.Repeat(`{"key":""},`, 350_000) + `{}]}`
			for n := 0; n < 4 || s.lasts(); n++ {
				answer, err := http.Post(s.server.Endpoint()+"/v3/kv/txn", "application/json", strings.NewReader(many))
				if err != nil {
					t.Fatal(err)
				}
				answer.Body.Close()
				if answer.StatusCode != http.StatusBadRequest {
					t.Errorf("more comparisons than there may be: %d", answer.StatusCode)
				}
			}
		}},
		{name: "lists taken byte by byte", cores: -1, memory: answersMemory, args: []string{smallMemory}, prepare: fill(20), run: byteByByte,
			after: func(t *testing.T, s *scene) {
				list, err := s.server.Client(t).Get(harness.Context(t, time.Minute), "large/", clientv3.WithPrefix())
				if err != nil || len(list.Kvs) != 20 {
					t.Errorf("a list behind the attack: %v", err)
				}
			}},
		{name: "headers of a megabyte", run: func(t *testing.T, s *scene) {
			for s.lasts() {
				a := newAttacker(t, s)
				block := a.head(rangePath, hpack.HeaderField{Name: "x", Value: strings.Repeat("h", mib)})
				a.send(func() {
					_ = a.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block[:16<<10]})
					for rest := block[16<<10:]; len(rest) > 0; {
						part := rest[:min(16<<10, len(rest))]
						rest = rest[len(part):]
						_ = a.framer.WriteContinuation(1, len(rest) == 0, part)
					}
				})
				s.awaitEnd(t, a)
			}
		}},
		{name: "headers that unfold", run: func(t *testing.T, s *scene) {
			for s.lasts() {
				a := newAttacker(t, s)
				large := hpack.HeaderField{Name: "x", Value: strings.Repeat("h", 3_000)}
				first := a.head(rangePath, large)
				second := a.head(rangePath, large)
				// Every further byte is the large header again, from the table.
				second = append(second, bytes.Repeat([]byte{second[len(second)-1]}, 10_000)...)
				a.send(func() {
					_ = a.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndHeaders: true})
					_ = a.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: second, EndHeaders: true})
				})
				s.awaitEnd(t, a)
			}
		}, after: sentAway},
	})
}
