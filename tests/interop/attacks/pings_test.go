package attacks

import (
	"fmt"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"google.golang.org/protobuf/proto"

	"basalt/tests/interop/harness"
)

// pingPause is longer than the least time between pings that the servers are given here.
const (
	pingPause = 300 * time.Millisecond
	pingMin   = "--grpc-keepalive-min-time=100ms"
)

func (a *attacker) ping(count int) {
	a.send(func() {
		for range count {
			_ = a.framer.WritePing(false, [8]byte{7})
		}
	})
}

func (a *attacker) pingSlowly(count int) {
	for range count {
		a.ping(1)
		time.Sleep(pingPause)
	}
}

// get is a call with its answer.
func (a *attacker) get(t *testing.T) {
	t.Helper()
	a.send(func() { a.call(rangePath, &pb.RangeRequest{Key: []byte("k")}) })
	a.await(t, a.answers)
}

// watch opens a call that stays open, and waits until the server has said so.
func (a *attacker) watch(t *testing.T) {
	t.Helper()
	create := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("k")}}}
	body, err := proto.Marshal(create)
	if err != nil {
		t.Fatal(err)
	}
	a.send(func() { _ = a.framer.WriteData(a.open(watchPath, false), false, message(body)) })
	a.await(t, a.data)
}

// TestPings asks both servers how often a client may ping (etcd-contract 55): genuine etcd and basalt send away the same.
func TestPings(t *testing.T) {
	httpURL := func(t *testing.T) string {
		return fmt.Sprintf("--listen-client-http-urls=https://127.0.0.1:%d", harness.FreePort(t))
	}
	for _, row := range []struct {
		name string
		args []string
		tls  bool
		// split gives the pages a port of their own.
		split bool
		pings func(t *testing.T, a *attacker)
		sent  bool
	}{
		{name: "three without a call", pings: func(_ *testing.T, a *attacker) { a.ping(3) }},
		{name: "four without a call", pings: func(_ *testing.T, a *attacker) { a.ping(4) }, sent: true},
		{name: "slowly without a call", pings: func(_ *testing.T, a *attacker) { a.pingSlowly(4) }, sent: true},
		{name: "slowly beside a call", pings: func(t *testing.T, a *attacker) {
			a.watch(t)
			a.pingSlowly(6)
		}},
		{name: "quickly beside a call", pings: func(t *testing.T, a *attacker) {
			a.watch(t)
			a.ping(4)
		}, sent: true},
		{name: "three beside a call", pings: func(t *testing.T, a *attacker) {
			a.watch(t)
			a.ping(3)
		}},
		{name: "after a call that has ended", pings: func(t *testing.T, a *attacker) {
			a.get(t)
			a.pingSlowly(4)
		}, sent: true},
		{name: "between calls", pings: func(t *testing.T, a *attacker) {
			for range 20 {
				a.ping(3)
				a.get(t)
			}
		}},
		{name: "0 is five minutes", args: []string{"--grpc-keepalive-min-time=0s"}, pings: func(t *testing.T, a *attacker) {
			a.watch(t)
			a.pingSlowly(4)
		}, sent: true},
		{name: "over TLS", tls: true, pings: func(_ *testing.T, a *attacker) { a.ping(20) }},
		{name: "over TLS without pages", tls: true, split: true, pings: func(_ *testing.T, a *attacker) { a.ping(4) }, sent: true},
	} {
		t.Run(row.name, func(t *testing.T) {
			args, s := append([]string{pingMin}, row.args...), &scene{}
			if row.tls {
				s.certs = harness.NewCertificates(t)
			}
			if row.split {
				args = append(args, httpURL(t))
			}
			s.server = harness.Start(t, harness.Options{Args: args, TLS: s.certs})
			a := newAttacker(t, s, http2.Setting{ID: http2.SettingEnablePush, Val: 0})
			row.pings(t, a)
			if !row.sent {
				a.get(t)
				return
			}
			a.awaitEnd(t)
			if !a.sentOff || a.code != http2.ErrCodeEnhanceYourCalm || a.text != "too_many_pings" {
				t.Errorf("GOAWAY %v: %v %q, want ENHANCE_YOUR_CALM too_many_pings", a.sentOff, a.code, a.text)
			}
		})
	}
}
