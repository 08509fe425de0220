package attacks

import (
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
)

// TestGreed makes honest calls, as many as one connection holds, one after the other without a pause: work that is served and
// costs what it costs. The good client has its turn all the same.
func TestGreed(t *testing.T) {
	const atOnce = 4_000
	key := &pb.RangeRequest{Key: []byte("greed")}
	greedy := func(t *testing.T, s *scene) {
		a := newAttacker(t, s, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
		a.send(func() { _ = a.framer.WriteWindowUpdate(0, 1<<30) })
		for under := 0; s.lasts(); {
			for ; under < atOnce; under += 100 {
				a.send(func() {
					for range 100 {
						a.call(rangePath, key)
					}
				})
			}
			for ; under > atOnce/2; under-- {
				a.await(t, a.answers)
			}
		}
	}
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
		}
	}
	runAttacks(t, []attack{
		{name: "scrapes in one burst", probes: true, cores: -1, run: scrapes, after: scrape},
		{name: "thousands of calls on one connection", cores: -1, run: greedy, after: func(t *testing.T, s *scene) {
			if s.cuts.Load() > 0 {
				t.Error("honest calls were taken for a flood")
			}
		}},
	})
}
