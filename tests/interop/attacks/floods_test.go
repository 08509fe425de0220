package attacks

import (
	"testing"

	"golang.org/x/net/http2"
)

// framesPerSecond of a flood (faults.md, row 29).
const framesPerSecond = 10_000

// sentAway wants that the server has told somebody to calm down.
func sentAway(t *testing.T, s *scene) {
	t.Helper()
	if s.cuts.Load() == 0 {
		t.Errorf("nobody was sent away; %d connections ended", s.closes.Load())
	}
}

// TestFloods sends frames that carry no call, ten thousand a second, from clients that come back whenever they are sent away.
func TestFloods(t *testing.T) {
	openWatch := func(a *attacker) { a.open(watchPath, false) }
	runAttacks(t, []attack{
		{name: "rapid reset", after: sentAway, run: flood(framesPerSecond, nil, func(a *attacker) {
			stream := a.open(rangePath, false)
			_ = a.framer.WriteRSTStream(stream, http2.ErrCodeCancel)
		})},
		{name: "resets of nothing", after: sentAway, run: flood(framesPerSecond, openWatch, func(a *attacker) {
			_ = a.framer.WriteRSTStream(1, http2.ErrCodeCancel)
		})},
		{name: "continuations", after: sentAway, run: flood(framesPerSecond, func(a *attacker) {
			_ = a.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: a.head(rangePath)})
		}, func(a *attacker) { _ = a.framer.WriteContinuation(1, false, nil) })},
		{name: "continuations of many calls", after: sentAway, run: flood(framesPerSecond, nil, func(a *attacker) {
			block := a.head("/unknown/Method")
			_ = a.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: a.stream, BlockFragment: block[:1], EndStream: true})
			for range 4 {
				_ = a.framer.WriteContinuation(a.stream, false, nil)
			}
			_ = a.framer.WriteContinuation(a.stream, true, block[1:])
			a.stream += 2
		})},
		{name: "settings", after: sentAway, run: flood(framesPerSecond, nil, func(a *attacker) {
			_ = a.framer.WriteSettings()
		})},
		{name: "settings over many streams", after: sentAway, run: func(t *testing.T, s *scene) {
			floodOnce(t, s, framesPerSecond, func(a *attacker) {
				for range 5_000 {
					a.open(watchPath, false)
				}
			}, func(a *attacker) {
				_ = a.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1000 + a.stream%2})
				a.stream++
			})
			s.wait()
		}},
		{name: "pings", after: sentAway, run: flood(framesPerSecond, nil, func(a *attacker) {
			_ = a.framer.WritePing(false, [8]byte{1})
		})},
		{name: "pings over TLS", tls: true, after: sentAway, run: flood(framesPerSecond, nil, func(a *attacker) {
			_ = a.framer.WritePing(false, [8]byte{1})
		})},
		{name: "answers to no ping", after: sentAway, run: flood(framesPerSecond, nil, func(a *attacker) {
			_ = a.framer.WritePing(true, [8]byte{1})
		})},
		{name: "empty data", after: sentAway, run: flood(framesPerSecond, openWatch, func(a *attacker) {
			_ = a.framer.WriteData(1, false, nil)
		})},
		{name: "data of padding", after: sentAway, run: flood(framesPerSecond, openWatch, func(a *attacker) {
			_ = a.framer.WriteDataPadded(1, false, nil, make([]byte, 3))
		})},
		{name: "data in single bytes", after: sentAway, run: flood(framesPerSecond, func(a *attacker) {
			a.open(putPath, false)
			_ = a.framer.WriteData(1, false, message(make([]byte, mib))[:5])
		}, func(a *attacker) { _ = a.framer.WriteData(1, false, []byte{0}) })},
		{name: "window updates", after: sentAway, run: flood(framesPerSecond, nil, func(a *attacker) {
			_ = a.framer.WriteWindowUpdate(0, 1)
		})},
		{name: "priorities", after: sentAway, run: flood(framesPerSecond, nil, func(a *attacker) {
			_ = a.framer.WritePriority(a.stream, http2.PriorityParam{Weight: 1})
		})},
		{name: "frames of no kind", after: sentAway, run: flood(framesPerSecond, nil, func(a *attacker) {
			a.frame(77, 0, 0, []byte{1})
		})},
	})
}
