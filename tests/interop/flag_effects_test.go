package interop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/pkg/v3/netutil"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"basalt/tests/interop/harness"
)

// line is a command line of its own on fresh ports, for flags that the harness sets itself.
type line struct{ client, peer string }

func newLine(t *testing.T) line {
	t.Helper()
	url := func() string { return fmt.Sprintf("http://127.0.0.1:%d", harness.FreePort(t)) }
	return line{url(), url()}
}

func (l line) args(extra ...string) []string {
	return append([]string{
		"--listen-client-urls=" + l.client, "--advertise-client-urls=" + l.client, "--listen-peer-urls=" + l.peer,
		"--initial-advertise-peer-urls=" + l.peer, "--initial-cluster=default=" + l.peer,
	}, extra...)
}

func (l line) start(t *testing.T, extra ...string) *harness.Server {
	t.Helper()
	data := "--data-dir=" + filepath.Join(t.TempDir(), "data")
	return harness.Start(t, harness.Options{Line: l.args(append([]string{data}, extra...)...), Endpoint: l.client})
}

func onlyMember(t *testing.T, server *harness.Server) (*pb.Member, *pb.ResponseHeader) {
	t.Helper()
	list, err := pb.NewClusterClient(server.Conn(t)).MemberList(harness.Context(t, 20*time.Second), &pb.MemberListRequest{})
	if err != nil || len(list.Members) != 1 {
		t.Fatalf("member list: %v, %v", list, err)
	}
	return list.Members[0], list.Header
}

func observeName(t *testing.T) {
	line := newLine(t)
	server := line.start(t, "--name=another", "--initial-cluster=another="+line.peer)
	if member, _ := onlyMember(t, server); member.Name != "another" {
		t.Errorf("the member is %v", member)
	}
}

func observeDataDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	harness.StartUnderTest(t, "--data-dir="+dir)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) == 0 {
		t.Errorf("the data directory holds %v, %v", entries, err)
	}
}

func observeWalDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "wal")
	server := harness.StartUnderTest(t, "--wal-dir="+dir)
	if entries, err := os.ReadDir(dir); err != nil || len(entries) == 0 {
		t.Errorf("the log's directory holds %v, %v", entries, err)
	}
	server.Etcdctl("put", "a", "1")
	server.Kill()
	server.Restart()
	expectText(t, "get", server.Etcdctl("get", "a"), "a", "1")
}

// observeElectionTimeout: a lease lives at least one and a half times as long (etcd-contract 33).
func observeElectionTimeout(t *testing.T) {
	s := servicesOf(harness.StartUnderTest(t, "--election-timeout=6000").Conn(t))
	granted := must(s.lease.LeaseGrant(harness.Context(t, 30*time.Second), &pb.LeaseGrantRequest{TTL: 1}))(t)
	if granted.TTL != 9 {
		t.Errorf("a lease of one second was granted for %d", granted.TTL)
	}
}

func observeListenClientURLs(t *testing.T) {
	line := newLine(t)
	second := fmt.Sprintf("http://127.0.0.1:%d", harness.FreePort(t))
	line.start(t, "--listen-client-urls="+line.client+","+second)
	for _, url := range []string{line.client, second} {
		expectPage(t, url+"/health", http.StatusOK)
	}
}

func expectPage(t *testing.T, url string, code int) {
	t.Helper()
	if response, body := httpGet(t, newClient(nil, false), url); response.StatusCode != code {
		t.Errorf("%s: %d %q, want %d", url, response.StatusCode, body, code)
	}
}

func observeListenClientHTTPURLs(t *testing.T) {
	pages := fmt.Sprintf("http://127.0.0.1:%d", harness.FreePort(t))
	server := harness.StartUnderTest(t, "--listen-client-http-urls="+pages)
	server.Etcdctl("put", "a", "1")
	expectPage(t, pages+"/health", http.StatusOK)
	if response, err := newClient(nil, false).Get(server.Endpoint() + "/health"); err == nil {
		response.Body.Close()
		if response.StatusCode == http.StatusOK {
			t.Error("the port for gRPC serves pages")
		}
	}
}

func observeQuota(t *testing.T) {
	for asked, shown := range map[int64]int64{123_456_789: 123_456_789, 0: 2 << 30, -1: -1, -5: -5} {
		server := harness.StartUnderTest(t, fmt.Sprintf("--quota-backend-bytes=%d", asked))
		server.Etcdctl("put", "a", "1")
		state := must(servicesOf(server.Conn(t)).maintenance.Status(harness.Context(t, 20*time.Second), &pb.StatusRequest{}))(t)
		samples, _ := parseMetrics(t, metricsOf(t, server))
		if metric := samples["etcd_server_quota_backend_bytes"]; state.DbSizeQuota != shown || metric != float64(shown) {
			t.Errorf("of %d status shows %d, the metric %v", asked, state.DbSizeQuota, metric)
		}
		server.Kill()
	}
}

func observeMaxTxnOps(t *testing.T) {
	s, ctx := servicesOf(harness.StartUnderTest(t, "--max-txn-ops=2").Conn(t)), harness.Context(t, 20*time.Second)
	expectTxnOps(t, ctx, s)
}

func expectTxnOps(t *testing.T, ctx context.Context, s services) {
	t.Helper()
	expectStatus(t, "two operations", txn(&pb.TxnRequest{Success: puts(2)})(ctx, s), codes.OK, "")
	expectStatus(t, "three operations", txn(&pb.TxnRequest{Success: puts(3)})(ctx, s), codes.InvalidArgument,
		"etcdserver: too many operations in txn request")
}

func observeMaxRequestBytes(t *testing.T) {
	s, ctx := servicesOf(harness.StartUnderTest(t, "--max-request-bytes=1000").Conn(t)), harness.Context(t, 20*time.Second)
	value := func(length int) *pb.PutRequest { return &pb.PutRequest{Key: []byte("a"), Value: make([]byte, length)} }
	expectStatus(t, "below", put(value(900))(ctx, s), codes.OK, "")
	expectStatus(t, "above", put(value(1100))(ctx, s), codes.InvalidArgument, "etcdserver: request is too large")
}

// framesOf opens an HTTP/2 connection by hand.
func framesOf(t *testing.T, server *harness.Server) *http2.Framer {
	t.Helper()
	conn, err := net.DialTimeout("tcp", server.Target(), 20*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return framer
}

func observeMaxConcurrentStreams(t *testing.T) {
	framer := framesOf(t, harness.StartUnderTest(t, "--max-concurrent-streams=7"))
	for {
		frame := must(framer.ReadFrame())(t)
		settings, ok := frame.(*http2.SettingsFrame)
		if !ok || settings.IsAck() {
			continue
		}
		if streams, ok := settings.Value(http2.SettingMaxConcurrentStreams); !ok || streams != 7 {
			t.Errorf("the server allows %d streams, %v", streams, ok)
		}
		return
	}
}

// observeKeepalive answers no ping: the server pings a quiet client, and hangs up.
func observeKeepalive(t *testing.T) {
	framer := framesOf(t, harness.StartUnderTest(t, "--grpc-keepalive-interval=1s", "--grpc-keepalive-timeout=1s"))
	pinged := false
	for {
		frame, err := framer.ReadFrame()
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			t.Fatalf("still connected after a minute, pinged: %v", pinged)
		}
		if err != nil {
			break
		}
		if ping, ok := frame.(*http2.PingFrame); ok && !ping.IsAck() {
			pinged = true
		}
	}
	if !pinged {
		t.Error("disconnected without a ping")
	}
}

// observeKeepaliveMinTime: beside an open call, pings further apart than the flag says are answered, and the fourth of others
// is one too many (etcd-contract 55; all of the rule is in attacks/pings_test.go).
func observeKeepaliveMinTime(t *testing.T) {
	for _, row := range []struct {
		min  string
		sent bool
	}{{"100ms", false}, {"1m", true}} {
		framer := framesOf(t, harness.StartUnderTest(t, "--grpc-keepalive-min-time="+row.min))
		if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headOf(putPath), EndHeaders: true}); err != nil {
			t.Fatal(err)
		}
		for range 4 {
			if err := framer.WritePing(false, [8]byte{1}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(200 * time.Millisecond)
		}
		sent := false
		for answers := 0; answers < 4 && !sent; {
			frame, err := framer.ReadFrame()
			if err != nil {
				t.Fatalf("%s: %v after %d answers", row.min, err, answers)
			}
			switch frame := frame.(type) {
			case *http2.GoAwayFrame:
				sent = frame.ErrCode == http2.ErrCodeEnhanceYourCalm && string(frame.DebugData()) == "too_many_pings"
			case *http2.PingFrame:
				answers++
			}
		}
		// The last ping may be answered before the client is sent away.
		if !sent && row.sent {
			frame, err := framer.ReadFrame()
			goAway, ok := frame.(*http2.GoAwayFrame)
			sent = err == nil && ok && string(goAway.DebugData()) == "too_many_pings"
		}
		if sent != row.sent {
			t.Errorf("%s: sent away %v, want %v", row.min, sent, row.sent)
		}
	}
}

// headOf is the header block of a call.
func headOf(path string) []byte {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", path}, {":authority", "a"},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		_ = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	return block.Bytes()
}

// observeReusePort: somebody else may listen there too.
func observeReusePort(t *testing.T) {
	const soReusePort = 0xf
	server := harness.StartUnderTest(t, "--socket-reuse-port=true")
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, soReusePort, 1)
		})
		return errors.Join(err, failed)
	}}
	second, err := config.Listen(harness.Context(t, 20*time.Second), "tcp", server.Target())
	if err != nil {
		t.Fatalf("nobody else may listen: %v", err)
	}
	second.Close()
}

// observeReuseAddress: Go sets it on every listener, so that it changes nothing; it is taken, and a killed server comes
// back on its port.
func observeReuseAddress(t *testing.T) {
	server := harness.StartUnderTest(t, "--socket-reuse-address=true")
	server.Etcdctl("put", "a", "1")
	server.Kill()
	server.Restart()
	expectText(t, "get", server.Etcdctl("get", "a"), "a", "1")
}

func observeNoGateway(t *testing.T) {
	server := harness.StartUnderTest(t, "--enable-grpc-gateway=false")
	response, err := newClient(nil, false).Post(server.Endpoint()+"/v3/kv/range", "application/json", strings.NewReader(`{"key":"YQ=="}`))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body := make([]byte, 100)
	n, _ := response.Body.Read(body)
	if response.StatusCode != http.StatusNotFound || string(body[:n]) != "404 page not found\n" {
		t.Errorf("%d %q", response.StatusCode, body[:n])
	}
}

func metricsOf(t *testing.T, server *harness.Server) string {
	t.Helper()
	_, body := httpGet(t, newClient(nil, false), server.Endpoint()+"/metrics")
	return body
}

func observeFeatureGates(t *testing.T) {
	metrics := metricsOf(t, harness.StartUnderTest(t, "--feature-gates=InitialCorruptCheck=true"))
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "etcd_server_feature_enabled") && strings.Contains(line, `"InitialCorruptCheck"`) {
			if !strings.HasSuffix(strings.TrimSpace(line), " 1") {
				t.Errorf("the gate is not open: %s", line)
			}
			expectRefusedFlag(t, 1, "enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint",
				"--feature-gates=LeaseCheckpointPersist=true")
			return
		}
	}
	t.Error("no metric of the gate")
}

func observeConfigFile(t *testing.T) {
	server := harness.Start(t, harness.Options{Config: "max-txn-ops: 2\n"})
	expectTxnOps(t, harness.Context(t, 20*time.Second), servicesOf(server.Conn(t)))
}

func observePeerURLs(t *testing.T) {
	line, second := newLine(t), "http://10.1.2.3:2380"
	server := line.start(t, "--initial-advertise-peer-urls="+line.peer+","+second,
		"--initial-cluster=default="+line.peer+",default="+second)
	member, _ := onlyMember(t, server)
	if urls := strings.Join(member.PeerURLs, " "); !strings.Contains(urls, line.peer) || !strings.Contains(urls, second) {
		t.Errorf("the member's peer URLs are %s", urls)
	}
	observeDefaultPeerHost(t)
	refused := newLine(t)
	expectRefusedFlag(t, 1, "--initial-cluster", refused.args("--initial-cluster=default=http://127.0.0.1:1")...)
}

// defaultHost is the address of the machine's default route, as etcd finds it; empty without one.
func defaultHost(t *testing.T) string {
	t.Helper()
	host, err := netutil.GetDefaultHost()
	if err != nil {
		t.Logf("localhost has to stay: %v", err)
	}
	return host
}

func portOf(url string) string { return url[strings.LastIndex(url, ":")+1:] }

// observeDefaultPeerHost: beside a listener on all addresses the default that is advertised becomes the machine's address, and
// with it the cluster of one that has a name; the cluster of one without a name stays, and names another URL then.
func observeDefaultPeerHost(t *testing.T) {
	host, line := defaultHost(t), newLine(t)
	args := []string{"--listen-client-urls=" + line.client, "--advertise-client-urls=" + line.client,
		"--listen-peer-urls=http://0.0.0.0:" + portOf(line.peer)}
	want := "http://localhost:2380"
	if host != "" {
		want = "http://" + host + ":" + portOf(line.peer)
		expectRefusedFlag(t, 1, "--initial-cluster has default=http://localhost:2380 but missing from --initial-advertise-peer-urls="+want, args...)
	}
	data := "--data-dir=" + filepath.Join(t.TempDir(), "data")
	server := harness.Start(t, harness.Options{Line: append(args, "--name=a", data), Endpoint: line.client})
	if member, _ := onlyMember(t, server); len(member.PeerURLs) != 1 || member.PeerURLs[0] != want {
		t.Errorf("the member's peer URLs are %v, want %s", member.PeerURLs, want)
	}
	if told := `"msg":"detected default host for advertise","host":"` + host + `"`; server.LogContains(told) != (host != "") {
		t.Errorf("the log says %s: %v", told, host == "")
	}
}

// observeInitialClusterState joins a cluster of nobody.
func observeInitialClusterState(t *testing.T) {
	end := harness.RunToEnd(t, harness.Launch{Args: newLine(t).args("--initial-cluster-state=existing")})
	expectRefused(t, end, 1, "cannot fetch cluster info from peer urls")
	expectRefusedFlag(t, 2, "-initial-cluster-state", "--initial-cluster-state=none")
}

// observeStrictReconfigCheck adds a member before the others count as reached.
func observeStrictReconfigCheck(t *testing.T) {
	request := &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:1"}, IsLearner: true}
	for _, strict := range []bool{true, false} {
		members := harness.StartMembers(t, harness.UnderTest(t), 3, fmt.Sprintf("--strict-reconfig-check=%v", strict))
		_, err := clusterOf(t, members[0]).MemberAdd(harness.Context(t, 10*time.Second), request)
		if strict {
			refusedWith(t, "an early addition", err, codes.Unavailable, "etcdserver: unhealthy cluster")
		} else if err != nil {
			t.Errorf("an early addition without the check: %v", err)
		}
	}
}

func observeMaxLearners(t *testing.T) {
	server := harness.StartUnderTest(t, "--max-learners=2")
	add := func(port int) error {
		request := &pb.MemberAddRequest{PeerURLs: []string{fmt.Sprintf("http://127.0.0.1:%d", port)}, IsLearner: true}
		_, err := clusterOf(t, server).MemberAdd(harness.Context(t, 10*time.Second), request)
		return err
	}
	for port := range 2 {
		if err := add(port + 1); err != nil {
			t.Fatal(err)
		}
	}
	refusedWith(t, "a third learner", add(3), codes.FailedPrecondition, "etcdserver: too many learner members in cluster")
}

func observeInitialClusterToken(t *testing.T) {
	line := newLine(t)
	ids := map[uint64]bool{}
	for _, token := range []string{"one", "two"} {
		server := line.start(t, "--initial-cluster-token="+token)
		_, header := onlyMember(t, server)
		ids[header.ClusterId] = true
		server.Kill()
	}
	if len(ids) != 2 {
		t.Errorf("two clusters have the ids %v", ids)
	}
}

func observeAdvertisedURLs(t *testing.T) {
	const url = "http://10.1.2.3:2379"
	member, _ := onlyMember(t, harness.StartUnderTest(t, "--advertise-client-urls="+url))
	if len(member.ClientURLs) != 1 || member.ClientURLs[0] != url {
		t.Errorf("the member's client URLs are %v", member.ClientURLs)
	}
	// The default, which names no listener on all addresses, becomes the machine's address; anything else stays.
	for asked, host := range map[string]string{"http://localhost:2379": defaultHost(t), "http://127.0.0.1:2379": ""} {
		line := newLine(t)
		server := line.start(t, "--listen-client-urls=http://0.0.0.0:"+portOf(line.client), "--advertise-client-urls="+asked)
		want := asked
		if host != "" {
			want = "http://" + host + ":" + portOf(line.client)
		}
		if member, _ := onlyMember(t, server); len(member.ClientURLs) != 1 || member.ClientURLs[0] != want {
			t.Errorf("for %s the member's client URLs are %v, want %s", asked, member.ClientURLs, want)
		}
		server.Kill()
	}
}

// observeNoPreVote: one member elects itself either way.
func observeNoPreVote(t *testing.T) {
	harness.StartUnderTest(t, "--pre-vote=false").Etcdctl("put", "a", "1")
}

// observeCatchupEntries looks how much of its log a leader keeps for members that lag behind.
func observeCatchupEntries(t *testing.T) {
	if harness.UnderTest(t) == harness.Etcd {
		harness.StartUnderTest(t, "--snapshot-catchup-entries=10")
		return
	}
	members := harness.StartMembers(t, harness.Basalt, 3, "--snapshot-catchup-entries=10")
	leader := leaderOf(t, members)
	for n := range 100 {
		putUntilTaken(t, leader, fmt.Sprint(n), "x")
	}
	kept := -1.0
	for deadline := time.Now().Add(30 * time.Second); kept != 10 && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		samples, _ := parseMetrics(t, metricsOf(t, leader))
		kept = samples["basalt_raft_log_entries"]
	}
	if kept != 10 {
		t.Errorf("%v entries are kept, want 10", kept)
	}
}

// observeAutoCompaction writes until the first revision is compacted.
func observeAutoCompaction(t *testing.T) {
	server := harness.StartUnderTest(t, "--auto-compaction-mode=periodic", "--auto-compaction-retention=1s")
	s, ctx := servicesOf(server.Conn(t)), harness.Context(t, time.Minute)
	for compacted := false; !compacted; {
		putValue(t, ctx, s, "a", "1")
		err := get(&pb.RangeRequest{Key: []byte("a"), Revision: 2})(ctx, s)
		compacted = status.Code(err) == codes.OutOfRange
	}
	expectRefusedFlag(t, 1, "auto-compaction-mode", "--auto-compaction-mode=weekly")
	expectRefusedFlag(t, 1, "in mode revision", "--auto-compaction-mode=revision", "--auto-compaction-retention=-5")
	// To etcd a duration is a number of revisions.
	args := []string{"--auto-compaction-mode=revision", "--auto-compaction-retention=1h"}
	for _, kind := range []harness.Kind{harness.Etcd, harness.Basalt} {
		harness.Start(t, harness.Options{Kind: kind, Args: args}).Stop()
	}
}
