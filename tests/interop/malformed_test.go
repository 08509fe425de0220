package interop

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"

	"basalt/tests/interop/harness"
)

const putPath = "/etcdserverpb.KV/Put"

// message is a length-prefixed message of gRPC, with any flag and any length.
func message(flag byte, length uint32, body []byte) []byte {
	return slices.Concat([]byte{flag}, binary.BigEndian.AppendUint32(nil, length), body)
}

func zipped(body []byte) []byte {
	var buffer bytes.Buffer
	writer := gzip.NewWriter(&buffer)
	_, _ = writer.Write(body)
	_ = writer.Close()
	return buffer.Bytes()
}

func whole(body []byte) []byte { return message(0, uint32(len(body)), body) }

// rawCall is a call that no client library would make.
type rawCall struct {
	name   string
	method string
	path   string
	header map[string]string
	body   []byte
	// text says that the words too must be etcd's; else only the code.
	text bool
	// basalt answers this, a named difference (see README.md); without words any will do.
	basalt *rawAnswer
}

// rawAnswer is what came back: as HTTP, and as gRPC if it is that.
type rawAnswer struct {
	http          int
	contentType   string
	code, message string
	messages      int
	failure       string
}

// grpcError is an answer of gRPC without a message.
func grpcError(code, message string) *rawAnswer {
	return &rawAnswer{http: http.StatusOK, contentType: "application/grpc", code: code, message: message}
}

// served is a good answer to a put, or an empty page that is none.
var (
	served  = rawAnswer{http: http.StatusOK, contentType: "application/grpc", code: "0", messages: 1}
	notGRPC = rawAnswer{http: http.StatusUnsupportedMediaType}
)

// malformedCalls, each around a good put.
func malformedCalls(good []byte) []rawCall {
	length := uint32(len(good))
	header := func(name, value string) map[string]string { return map[string]string{name: value} }
	return []rawCall{
		{name: "a good call", body: whole(good), text: true},
		{name: "no protobuf", body: whole([]byte{0xff, 0xff, 0xff, 0xff})},
		{name: "a field cut off", body: whole(good[:len(good)-1])},
		{name: "a length beyond the message", body: whole([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x07})},
		{name: "a length that overflows", body: whole([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})},
		{name: "field number 0", body: whole([]byte{0x02, 0x01, 'k'})},
		{name: "an open group", body: whole([]byte{0x0b})},
		{name: "a field of another wire type", body: whole([]byte{0x08, 0x01}), basalt: grpcError("13",
			"grpc: error unmarshalling request: failed to decode Protobuf message: PutRequest.key: invalid wire type: "+
				"Varint (expected LengthDelimited)")},
		{name: "unknown fields", body: whole(slices.Concat(good, []byte{0xfa, 0x7f, 0x01, 'x'})), text: true},
		{name: "an empty message", body: whole(nil), text: true},

		{name: "compressed without an encoding", body: message(1, length, good), text: true},
		{name: "compressed as identity", body: message(1, length, good), header: header("grpc-encoding", "identity"), text: true},
		{name: "an unknown encoding", body: message(1, length, good), header: header("grpc-encoding", "zebra"), text: true},
		{name: "an unknown encoding, not used", body: whole(good), header: header("grpc-encoding", "zebra"), text: true},
		{name: "gzip", body: message(1, uint32(len(zipped(good))), zipped(good)), header: header("grpc-encoding", "gzip"),
			basalt: grpcError("12", `grpc: Decompressor is not installed for grpc-encoding "gzip"`)},
		{name: "a flag that is none", body: message(7, length, good), text: true},

		{name: "no message", body: nil, basalt: grpcError("13", "a call without a request")}, // etcd never answers
		{name: "half a prefix", body: []byte{0, 0, 0}, basalt: grpcError("13", "")},
		{name: "a message cut off", body: message(0, length, good[:3]), basalt: grpcError("13", "")},
		{name: "a huge length", body: message(0, 0xffff_ffff, good), text: true},
		{name: "a length above the limit", body: message(0, 2<<20+1, good), text: true},
		{name: "two messages", body: slices.Concat(whole(good), whole(good))},
		{name: "bytes behind the message", body: slices.Concat(whole(good), []byte{1, 2})},

		{name: "an unknown method", path: "/etcdserverpb.KV/Nothing", body: whole(good)},
		{name: "an unknown service", path: "/etcdserverpb.Nothing/Put", body: whole(good), text: true},
		{name: "a path without a method", path: "/etcdserverpb.KV", body: whole(good)},
		{name: "a path of one slash", path: "/", body: whole(good)},
		{name: "a path with too many parts", path: "/etcdserverpb.KV/Put/more", body: whole(good)},
		{name: "an escaped path", path: "/etcdserverpb.KV%2FPut", body: whole(good)},
		{name: "a path in other letters", path: "/etcdserverpb.kv/put", body: whole(good), text: true},

		{name: "GET", method: http.MethodGet, body: whole(good), text: true},
		{name: "GET without a body", method: http.MethodGet, text: true},
		{name: "grpc with a subtype", header: header("content-type", "application/grpc+proto"), body: whole(good), basalt: &served},
		{name: "no trailers wanted", header: header("te", ""), body: whole(good)},
		{name: "another content type", header: header("content-type", "text/plain"), body: whole(good), basalt: &notGRPC},
		{name: "no content type", header: header("content-type", ""), body: whole(good), basalt: &notGRPC},
		{name: "a timeout that is none", header: header("grpc-timeout", "soon"), body: whole(good), text: true},
		{name: "no time at all", header: header("grpc-timeout", "0n"), body: whole(good)},
		{name: "a client version that is no text", header: header("client-api-version", "3.\xff"), body: whole(good), text: true},
		{name: "a client version beyond ASCII", header: header("client-api-version", "3.é"), body: whole(good), text: true},
		{name: "binary metadata that is none", header: header("x-bin", "!!!"), body: whole(good), basalt: &served},
	}
}

// call sends one request over HTTP/2 without TLS.
func (c rawCall) call(t *testing.T, ctx context.Context, server *harness.Server) rawAnswer {
	t.Helper()
	transport := &http2.Transport{AllowHTTP: true, DisableCompression: true,
		DialTLSContext: func(ctx context.Context, network, address string, _ *tls.Config) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}}
	defer transport.CloseIdleConnections()
	method, path := c.method, c.path
	if method == "" {
		method = http.MethodPost
	}
	if path == "" {
		path = putPath
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+server.Target(), bytes.NewReader(c.body))
	if err != nil {
		t.Fatal(err)
	}
	request.URL.Opaque = "//" + server.Target() + path
	if !strings.HasPrefix(path, "/") {
		request.URL.Opaque = path
	}
	request.Header.Set("content-type", "application/grpc")
	request.Header.Set("te", "trailers")
	for name, value := range c.header {
		if value == "" {
			request.Header.Del(name)
		} else {
			request.Header.Set(name, value)
		}
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return rawAnswer{failure: streamFailure(err)}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	answer := rawAnswer{http: response.StatusCode, contentType: response.Header.Get("content-type")}
	if err != nil {
		answer.failure = streamFailure(err)
	}
	for _, place := range []http.Header{response.Header, response.Trailer} {
		if code := place.Get("grpc-status"); code != "" {
			answer.code, answer.message = code, place.Get("grpc-message")
		}
	}
	for len(body) >= 5 && answer.code != "" {
		body = body[min(len(body), 5+int(binary.BigEndian.Uint32(body[1:]))):]
		answer.messages++
	}
	return answer
}

// streamFailure keeps what the two sides can agree on.
func streamFailure(err error) string {
	text := err.Error()
	if at := strings.Index(text, "stream error:"); at >= 0 {
		if _, code, found := strings.Cut(text[at:], "; "); found {
			return code
		}
	}
	return text
}

// TestMalformedCalls sends the same nonsense to the server under test and to genuine etcd: the answers are of one kind,
// and both go on serving.
func TestMalformedCalls(t *testing.T) {
	server, etcd := harness.StartUnderTest(t), harness.Start(t, harness.Options{Kind: harness.Etcd})
	good, err := proto.Marshal(&pb.PutRequest{Key: []byte("k"), Value: []byte("v")})
	if err != nil {
		t.Fatal(err)
	}
	for _, call := range malformedCalls(good) {
		t.Run(call.name, func(t *testing.T) {
			if call.basalt != nil && server.Kind != harness.Basalt {
				t.Skip("a named difference of basalt's")
			}
			got := call.call(t, harness.Context(t, 30*time.Second), server)
			if call.basalt != nil {
				want := *call.basalt
				if want.message == "" {
					got.message = ""
				}
				if got != want {
					t.Errorf("basalt answers %+v, want %+v", got, want)
				}
				return
			}
			want := call.call(t, harness.Context(t, 30*time.Second), etcd)
			if !call.text {
				got.message, want.message = "", ""
			}
			if got != want {
				t.Errorf("%s answers %+v, genuine etcd %+v", server.Kind, got, want)
			}
		})
	}
	server.Etcdctl("put", "still", "there")
	expectText(t, "get", server.Etcdctl("get", "still"), "still", "there")
}

// TestMalformedConnections writes bytes that are no HTTP, or HTTP/2 against its rules: each costs its own connection
// only.
func TestMalformedConnections(t *testing.T) {
	server := harness.StartUnderTest(t)
	frames := func(write func(*http2.Framer) error) []byte {
		var buffer bytes.Buffer
		buffer.WriteString(http2.ClientPreface)
		framer := http2.NewFramer(&buffer, nil)
		framer.AllowIllegalWrites = true
		if err := framer.WriteSettings(); err != nil {
			t.Fatal(err)
		}
		if err := write(framer); err != nil {
			t.Fatal(err)
		}
		return buffer.Bytes()
	}
	for name, sent := range map[string][]byte{
		"zeros":           make([]byte, 4096),
		"a TLS handshake": {0x16, 0x03, 0x01, 0x00, 0x05, 1, 0, 0, 1, 0},
		"a long line":     bytes.Repeat([]byte{'A'}, 1<<20),
		"half a preface":  []byte(http2.ClientPreface[:10]),
		"headers without end": []byte("POST /v3/kv/range HTTP/1.1\r\nHost: x\r\n" +
			strings.Repeat("x-header: "+strings.Repeat("y", 1000)+"\r\n", 3000)),
		"a length that is none":     []byte("POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"),
		"two lengths":               []byte("POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
		"data on stream 0":          frames(func(f *http2.Framer) error { return f.WriteData(0, true, []byte("x")) }),
		"data on an idle stream":    frames(func(f *http2.Framer) error { return f.WriteData(7, true, []byte("x")) }),
		"headers on an even stream": frames(func(f *http2.Framer) error { return f.WriteRawFrame(http2.FrameHeaders, 4, 2, []byte{0x82}) }),
		"headers that do not decode": frames(func(f *http2.Framer) error {
			return f.WriteRawFrame(http2.FrameHeaders, 4, 1, []byte{0xff, 0xff, 0xff, 0xff, 0xff})
		}),
		"a window of nothing":       frames(func(f *http2.Framer) error { return f.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, []byte{0, 0, 0, 0}) }),
		"settings of a wrong size":  frames(func(f *http2.Framer) error { return f.WriteRawFrame(http2.FrameSettings, 0, 0, []byte{1, 2, 3}) }),
		"a ping of a wrong size":    frames(func(f *http2.Framer) error { return f.WriteRawFrame(http2.FramePing, 0, 0, []byte{1}) }),
		"a continuation of nothing": frames(func(f *http2.Framer) error { return f.WriteRawFrame(http2.FrameContinuation, 4, 1, nil) }),
		"an unknown frame, then the end": frames(func(f *http2.Framer) error {
			return f.WriteRawFrame(http2.FrameType(0xee), 0xff, 9, make([]byte, 100))
		}),
	} {
		t.Run(name, func(t *testing.T) {
			conn := dialRaw(t, server)
			// The server may hang up before all is written, and then there is nothing to read: both are its right.
			_, _ = conn.Write(sent)
			if half, ok := conn.(*net.TCPConn); ok {
				_ = half.CloseWrite()
			}
			_, _ = io.Copy(io.Discard, conn)
		})
	}
	if !server.Running() {
		t.Fatal("the server has ended")
	}
	server.Etcdctl("put", "still", "there")
	expectText(t, "get", server.Etcdctl("get", "still"), "still", "there")
	if server.LogContains("panic") {
		t.Error("a panic in the log")
	}
}

// TestPathWithoutASlash calls a method by its name without the slash before it, which a server of Go once served past the rules
// that its paths have (CVE-2026-33186): nobody is served so.
func TestPathWithoutASlash(t *testing.T) {
	server := harness.StartUnderTest(t, "--bcrypt-cost=4")
	ctx := harness.Context(t, time.Minute)
	s := servicesOf(server.Conn(t))
	tokens := populate(t, ctx, s)
	put, err := proto.Marshal(&pb.PutRequest{Key: []byte("k/sneaked"), Value: []byte("v")})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{strings.TrimPrefix(putPath, "/"), "/" + putPath, putPath} {
		if status := callByPath(t, server, path, tokens["covering"], put); (status == "0") != (path == putPath) {
			t.Errorf("%s ends with status %q", path, status)
		}
		if status := callByPath(t, server, path, "", put); status == "0" {
			t.Errorf("%s is served to nobody", path)
		}
	}
}

// dialRaw opens a connection on which nothing takes longer than 20 s; it closes with the test.
func dialRaw(t *testing.T, server *harness.Server) net.Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", server.Target(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// callByPath makes a call frame by frame and gives its status, none if it has none.
func callByPath(t *testing.T, server *harness.Server, path, token string, message []byte) (status string) {
	t.Helper()
	conn := dialRaw(t, server)
	var headers bytes.Buffer
	encoder := hpack.NewEncoder(&headers)
	for _, field := range [][2]string{
		{":method", http.MethodPost}, {":scheme", "http"}, {":path", path}, {":authority", server.Target()},
		{"content-type", "application/grpc"}, {"te", "trailers"}, {"token", token},
	} {
		if field[1] != "" {
			_ = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
		}
	}
	_, err := io.WriteString(conn, http2.ClientPreface)
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := errors.Join(err, framer.WriteSettings(),
		framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headers.Bytes(), EndHeaders: true}),
		framer.WriteData(1, true, whole(message))); err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return status
		}
		if found, ok := frame.(*http2.MetaHeadersFrame); ok {
			for _, field := range found.Fields {
				if field.Name == "grpc-status" {
					status = field.Value
				}
			}
			if found.StreamEnded() {
				return status
			}
		}
		if reset, ok := frame.(*http2.RSTStreamFrame); ok && reset.StreamID == 1 {
			return status
		}
	}
}
