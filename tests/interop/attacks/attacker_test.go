package attacks

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
)

const (
	rangePath    = "/etcdserverpb.KV/Range"
	jsonPath     = "/v3/kv/range"
	putPath      = "/etcdserverpb.KV/Put"
	txnPath      = "/etcdserverpb.KV/Txn"
	watchPath    = "/etcdserverpb.Watch/Watch"
	observePath  = "/v3electionpb.Election/Observe"
	healthPath   = "/grpc.health.v1.Health/Watch"
	loginPath    = "/etcdserverpb.Auth/Authenticate"
	snapshotPath = "/etcdserverpb.Maintenance/Snapshot"
	// awaitMax bounds every wait for something that must come.
	awaitMax = 30 * time.Second
)

// attacker is one connection of HTTP/2, made frame by frame.
type attacker struct {
	s       *scene
	conn    net.Conn
	mutex   sync.Mutex
	writer  *bufio.Writer
	framer  *http2.Framer
	headers bytes.Buffer
	encoder *hpack.Encoder
	stream  uint32
	// goodbye is closed when the server has ended the connection; then the rest says how.
	goodbye chan struct{}
	code    http2.ErrCode
	text    string
	sentOff bool
	// answers has a word for each call that the server ended, data one for each frame of data, resets one for each reset; words that nobody awaits are lost.
	answers, data, resets chan struct{}
	// taken counts the bytes of data since the connection's window was last opened again.
	taken atomic.Uint32
	// deaf stops reading, as of a client that takes nothing.
	deaf chan struct{}
}

// newAttacker connects and says hello with these settings.
func newAttacker(t *testing.T, s *scene, settings ...http2.Setting) *attacker {
	t.Helper()
	conn, err := s.dial()
	if err != nil {
		t.Fatal(err)
	}
	a := &attacker{s: s, conn: conn, writer: bufio.NewWriterSize(conn, 64<<10), stream: 1, goodbye: make(chan struct{}),
		deaf: make(chan struct{}), answers: make(chan struct{}, 10_000), data: make(chan struct{}, 100),
		resets: make(chan struct{}, 100)}
	t.Cleanup(func() { conn.Close() })
	a.framer = http2.NewFramer(a.writer, conn)
	a.framer.AllowIllegalWrites, a.framer.AllowIllegalReads = true, true
	a.framer.SetMaxReadFrameSize(1 << 20)
	a.encoder = hpack.NewEncoder(&a.headers)
	a.send(func() {
		_, _ = a.writer.WriteString(http2.ClientPreface)
		_ = a.framer.WriteSettings(settings...)
	})
	go a.listen()
	return a
}

// dial opens a connection, with TLS where the server has it.
func (s *scene) dial() (net.Conn, error) {
	target := s.server.Target()
	if s.probes != "" {
		target = s.probes
	}
	conn, err := net.DialTimeout("tcp", target, awaitMax)
	if err != nil || s.certs == nil {
		return conn, err
	}
	config := s.server.ClientTLS()
	config.NextProtos, config.ServerName = []string{"h2"}, "127.0.0.1"
	secure := tls.Client(conn, config)
	if err := secure.Handshake(); err != nil {
		conn.Close()
		return nil, err
	}
	return secure, nil
}

// send writes frames, all of them at once; errors show as the end of the connection.
func (a *attacker) send(frames func()) {
	a.mutex.Lock()
	defer a.mutex.Unlock()
	frames()
	_ = a.writer.Flush()
}

// listen reads until the server ends the connection.
func (a *attacker) listen() {
	defer func() {
		a.s.closes.Add(1)
		if a.sentOff {
			a.s.cuts.Add(1)
		}
		close(a.goodbye)
	}()
	for {
		select {
		case <-a.deaf:
			return
		default:
		}
		frame, err := a.framer.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				// Beside a flood it may never be sent, and whoever floods does not care.
				go a.send(func() { _ = a.framer.WriteSettingsAck() })
			}
		case *http2.GoAwayFrame:
			a.code, a.text, a.sentOff = frame.ErrCode, string(frame.DebugData()), true
		case *http2.HeadersFrame:
			if frame.StreamEnded() {
				tell(a.answers)
			}
		case *http2.DataFrame:
			tell(a.data)
			a.taken.Add(frame.Length)
			if frame.StreamEnded() {
				tell(a.answers)
			}
		case *http2.RSTStreamFrame:
			tell(a.resets)
		}
	}
}

// openWindow gives the connection back what was taken of its window.
func (a *attacker) openWindow() {
	if taken := a.taken.Swap(0); taken > 0 {
		a.send(func() { _ = a.framer.WriteWindowUpdate(0, taken) })
	}
}

func tell(about chan<- struct{}) {
	select {
	case about <- struct{}{}:
	default:
	}
}

// await waits for a word of the server.
func (a *attacker) await(t *testing.T, word <-chan struct{}) {
	t.Helper()
	select {
	case <-word:
	case <-a.goodbye:
		t.Fatalf("the server has ended the connection: %v %q", a.code, a.text)
	case <-time.After(awaitMax):
		t.Fatalf("the server has not answered within %v", awaitMax)
	}
}

// over says whether the server has ended the connection.
func (a *attacker) over() bool {
	select {
	case <-a.goodbye:
		return true
	default:
		return false
	}
}

// awaitEnd waits until the server has ended the connection.
func (a *attacker) awaitEnd(t *testing.T) {
	t.Helper()
	select {
	case <-a.goodbye:
	case <-time.After(awaitMax):
		t.Errorf("the server has not ended the connection within %v", awaitMax)
	}
}

// head is the header block of a call.
func (a *attacker) head(path string, more ...hpack.HeaderField) []byte {
	grpc := []hpack.HeaderField{{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"}}
	return a.headOf("POST", path, append(grpc, more...)...)
}

// headOf is the header block of any request.
func (a *attacker) headOf(method, path string, more ...hpack.HeaderField) []byte {
	a.headers.Reset()
	fields := []hpack.HeaderField{
		{Name: ":method", Value: method}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: path},
		{Name: ":authority", Value: "a"},
	}
	for _, field := range append(fields, more...) {
		_ = a.encoder.WriteField(field)
	}
	return bytes.Clone(a.headers.Bytes())
}

// open writes the head of a call, within send, and gives its stream.
func (a *attacker) open(path string, ends bool) uint32 { return a.begin(a.head(path), ends) }

// begin writes the head of a request, within send, and gives its stream.
func (a *attacker) begin(head []byte, ends bool) uint32 {
	stream := a.stream
	a.stream += 2
	_ = a.framer.WriteHeaders(http2.HeadersFrameParam{
		StreamID: stream, BlockFragment: head, EndHeaders: true, EndStream: ends,
	})
	return stream
}

// beginMany writes so many requests of one kind, a hundred at a time.
func (a *attacker) beginMany(count int, method, path string, ends bool) {
	for n := 0; n < count && !a.over(); n += 100 {
		a.send(func() {
			for range min(100, count-n) {
				a.begin(a.headOf(method, path), ends)
			}
		})
	}
}

// call writes a whole call, within send.
func (a *attacker) call(path string, request proto.Message) uint32 {
	body, err := proto.Marshal(request)
	if err != nil {
		panic(err)
	}
	stream := a.open(path, false)
	_ = a.framer.WriteData(stream, true, message(body))
	return stream
}

// pour writes a whole call whose message takes many frames, within send.
func (a *attacker) pour(path string, message []byte) uint32 {
	stream := a.open(path, false)
	for rest := message; len(rest) > 0; {
		part := rest[:min(16<<10, len(rest))]
		_, rest = a.framer.WriteData(stream, len(rest) == len(part), part), rest[len(part):]
	}
	return stream
}

// message is a whole message of gRPC.
func message(body []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(body))), body...)
}

// frame is a frame of any kind, without check.
func (a *attacker) frame(kind http2.FrameType, flags http2.Flags, stream uint32, payload []byte) {
	_ = a.framer.WriteRawFrame(kind, flags, stream, payload)
}

// flood sends `frames` at a rate until the server ends the connection, connects again, and so on as long as the attack
// lasts. What is late is made up for, so that a busy machine makes it no tamer.
func flood(perSecond int, hello func(*attacker), frames func(*attacker)) func(*testing.T, *scene) {
	return func(t *testing.T, s *scene) {
		for sent := 0; s.lasts() || (s.wantsCut && s.cuts.Load() == 0 && sent < 20*perSecond); {
			sent += floodOnce(t, s, perSecond, hello, frames)
		}
	}
}

// floodOnce is the same with one connection; it gives how many it sent.
func floodOnce(t *testing.T, s *scene, perSecond int, hello func(*attacker), frames func(*attacker)) int {
	a := newAttacker(t, s)
	if hello != nil {
		a.send(func() { hello(a) })
	}
	began, sent := time.Now(), 0
	for !a.over() && (s.lasts() || (s.wantsCut && s.cuts.Load() == 0)) && sent < 10*perSecond {
		due := int(time.Since(began).Seconds()*float64(perSecond)) - sent
		if due <= 0 {
			time.Sleep(time.Millisecond)
			continue
		}
		due = min(due, 1000)
		a.send(func() {
			for range due {
				frames(a)
			}
		})
		sent += due
	}
	a.conn.Close()
	<-a.goodbye
	return sent
}

// discard reads what a connection says until it ends.
func discard(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }
