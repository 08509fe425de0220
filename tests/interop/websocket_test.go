package interop

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/interop/harness"
)

// webSocket is a call of the gateway by websocket.
type webSocket struct {
	*websocket.Conn
	t *testing.T
}

func openWebSocket(t *testing.T, server *harness.Server, path string, header http.Header) webSocket {
	t.Helper()
	socket, response, err := websocket.DefaultDialer.Dial(strings.Replace(server.Endpoint(), "http", "ws", 1)+path, header)
	if err != nil {
		t.Fatalf("%s: %v %v", path, err, response)
	}
	t.Cleanup(func() { socket.Close() })
	// A bound for what must come, no measure.
	if err := socket.SetReadDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	return webSocket{socket, t}
}

func (w webSocket) say(text string) {
	w.t.Helper()
	if err := w.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		w.t.Fatal(err)
	}
}

func (w webSocket) hear() map[string]any {
	w.t.Helper()
	kind, text, err := w.ReadMessage()
	if err != nil || kind != websocket.TextMessage {
		w.t.Fatalf("kind %d, %v", kind, err)
	}
	return decode[map[string]any](w.t, string(text))
}

// result is the next line of a stream that goes well.
func (w webSocket) result() map[string]any {
	w.t.Helper()
	line := w.hear()
	result, ok := line["result"].(map[string]any)
	if !ok {
		w.t.Fatalf("no result: %v", line)
	}
	return result
}

// ended is how the connection ended: a code that was told, or 1006 for none.
func (w webSocket) ended() int {
	w.t.Helper()
	for {
		_, _, err := w.ReadMessage()
		if closed := (*websocket.CloseError)(nil); errors.As(err, &closed) {
			return closed.Code
		}
		if errors.Is(err, io.EOF) || isReset(err) {
			return websocket.CloseAbnormalClosure
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

func isReset(err error) bool {
	operation := (*net.OpError)(nil)
	return errors.As(err, &operation) && !operation.Timeout()
}

func base64Of(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// TestWebsocketWatches: two watches on one socket see the puts of their keys, and no others once they are cancelled.
func TestWebsocketWatches(t *testing.T) {
	server := harness.StartUnderTest(t)
	s, ctx := servicesOf(server.Conn(t)), harness.Context(t, time.Minute)
	for _, path := range []string{"/v3/watch", "/v3beta/watch", "/v3/watch?method=GET"} {
		socket := openWebSocket(t, server, path, nil)
		for n, key := range []string{"a", "b"} {
			socket.say(fmt.Sprintf(`{"create_request":{"key":%q,"watch_id":"%d"}}`, base64Of(key), n+1))
			if created := socket.result(); created["created"] != true || created["watch_id"] != fmt.Sprint(n+1) {
				t.Errorf("%s: %v", path, created)
			}
		}
		for range 3 {
			for n, key := range []string{"a", "b"} {
				put := must(s.kv.Put(ctx, &pb.PutRequest{Key: []byte(key)}))(t)
				told := socket.result()
				kv := told["events"].([]any)[0].(map[string]any)["kv"].(map[string]any)
				if told["watch_id"] != fmt.Sprint(n+1) || kv["mod_revision"] != fmt.Sprint(put.Header.Revision) {
					t.Errorf("%s: %v", path, told)
				}
			}
		}
		// A message may hold several values, and be binary.
		both := []byte(`{"cancel_request":{"watch_id":"1"}} {"progress_request":{}}`)
		if err := socket.WriteMessage(websocket.BinaryMessage, both); err != nil {
			t.Fatal(err)
		}
		if told := socket.result(); told["canceled"] != true {
			t.Errorf("%s: %v", path, told)
		}
		if err := socket.WriteControl(websocket.PingMessage, []byte("x"), time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		ponged := false
		socket.SetPongHandler(func(text string) error {
			ponged = text == "x"
			return nil
		})
		farewell := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
		if err := socket.WriteControl(websocket.CloseMessage, farewell, time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if code := socket.ended(); code != websocket.CloseNormalClosure || !ponged {
			t.Errorf("%s: ended with %d, ping answered: %t", path, code, ponged)
		}
	}
}

// TestWebsocketStreams: keepalives one after the other on one socket, and how a stream fails that cannot be read.
func TestWebsocketStreams(t *testing.T) {
	server := harness.StartUnderTest(t)
	s, ctx := servicesOf(server.Conn(t)), harness.Context(t, time.Minute)
	must(s.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 7, TTL: 1000}))(t)
	socket := openWebSocket(t, server, "/v3/lease/keepalive", nil)
	for range 3 {
		socket.say(`{"ID":"7"}`)
		if kept := socket.result(); kept["ID"] != "7" || kept["TTL"] != "1000" {
			t.Errorf("%v", kept)
		}
	}
	socket.say(`{"ID":"8"}`)
	if kept := socket.result(); kept["ID"] != "8" || kept["TTL"] != nil {
		t.Errorf("of no lease: %v", kept)
	}
	unknown := openWebSocket(t, server, "/v3/nope", nil)
	if told := unknown.hear(); told["code"] != 5.0 || told["message"] != "Not Found" {
		t.Errorf("a path that is none: %v", told)
	}
	if code := unknown.ended(); code != websocket.CloseAbnormalClosure {
		t.Errorf("a path that is none ended with %d", code)
	}
}

// TestWebsocketUnary: a call with one request is answered when that has come. Genuine etcd reads on to the end of the websocket, and
// then there is nobody to answer.
func TestWebsocketUnary(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("etcd 3.7 answers none of these")
	}
	server := harness.StartUnderTest(t)
	s, ctx := servicesOf(server.Conn(t)), harness.Context(t, time.Minute)
	put := openWebSocket(t, server, "/v3/kv/put", nil)
	put.say(`{"key":"Zm9v","value":"YmFy"}`)
	if told := put.hear(); told["header"].(map[string]any)["revision"] != "2" {
		t.Errorf("%v", told)
	}
	if code := put.ended(); code != websocket.CloseAbnormalClosure {
		t.Errorf("ended with %d", code)
	}
	if kv := must(s.kv.Range(ctx, &pb.RangeRequest{Key: []byte("foo")}))(t).Kvs[0]; string(kv.Value) != "bar" {
		t.Errorf("%v", kv)
	}
	refused := openWebSocket(t, server, "/v3/kv/range", nil)
	refused.say(`{"key":"Zm9v","revision":"99"}`)
	if told := refused.hear(); told["code"] != 11.0 || told["message"] != "etcdserver: mvcc: required revision is a future revision" {
		t.Errorf("%v", told)
	}
	unread := openWebSocket(t, server, "/v3/kv/range", nil)
	unread.say(`x`)
	if told := unread.hear(); told["code"] != 3.0 {
		t.Errorf("%v", told)
	}
	snapshot := openWebSocket(t, server, "/v3/maintenance/snapshot", nil)
	snapshot.say(`{}`)
	var whole []byte
	for {
		_, line, err := snapshot.ReadMessage()
		if err != nil {
			break
		}
		whole = append(whole, decode[struct{ Result struct{ Blob []byte } }](t, string(line)).Result.Blob...)
	}
	if len(whole)%512 != 32 || !bytes.Contains(whole, []byte("foo")) {
		t.Errorf("no snapshot in %d bytes", len(whole))
	}
}

// TestWebsocketHandshakes: what is no handshake is told so, and plain HTTP stands beside it.
func TestWebsocketHandshakes(t *testing.T) {
	server := harness.StartUnderTest(t)
	asked := http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}, "Origin": {"https://elsewhere.example"},
	}
	for _, try := range []struct {
		name, method   string
		without, value string
		status         int
	}{
		{"all of it", "GET", "", "", http.StatusSwitchingProtocols},
		{"another method", "POST", "", "", http.StatusMethodNotAllowed},
		{"another version", "GET", "Sec-Websocket-Version", "8", http.StatusBadRequest},
		{"no key", "GET", "Sec-Websocket-Key", "", http.StatusBadRequest},
		{"a short key", "GET", "Sec-Websocket-Key", "YQ==", http.StatusBadRequest},
		{"no connection", "GET", "Connection", "", http.StatusNotImplemented},
		{"another protocol", "GET", "Upgrade", "h2c", http.StatusNotImplemented},
	} {
		request := must(http.NewRequest(try.method, server.Endpoint()+"/v3/watch", nil))(t)
		request.Header = asked.Clone()
		if try.without != "" {
			request.Header.Del(try.without)
			if try.value != "" {
				request.Header.Set(try.without, try.value)
			}
		}
		response := must(http.DefaultTransport.RoundTrip(request))(t)
		defer response.Body.Close()
		if response.StatusCode != try.status {
			t.Errorf("%s: %d, want %d", try.name, response.StatusCode, try.status)
		}
		accepted := response.Header.Get("Sec-Websocket-Accept")
		if try.status == http.StatusSwitchingProtocols && accepted != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
			t.Errorf("%s: accepted %q", try.name, accepted)
		}
	}
	plain := jsonCall{"POST", "/v3/kv/put", `{"key":"Zm9v"}`}
	if told := plain.told(t, newClient(nil, false), server); !strings.HasPrefix(told, "200 application/json") {
		t.Error(told)
	}
}

// TestWebsocketAsSomebody: a token stands in the protocol or in a cookie, and in no other header.
func TestWebsocketAsSomebody(t *testing.T) {
	server := harness.StartUnderTest(t)
	guard(t, server)
	login := jsonCall{"POST", "/v3/auth/authenticate", `{"name":"ann","password":"word"}`}
	_, answer, _ := strings.Cut(login.told(t, newClient(nil, false), server), "\n")
	token := decode[struct{ Token string }](t, answer).Token
	const refused = "etcdserver: permission denied"
	for _, try := range []struct {
		name, header, value string
		protocol, key       string
		reason              string
	}{
		{"nobody", "", "", "", "aa", "rpc error: code = InvalidArgument desc = etcdserver: user name is empty"},
		{"by protocol", "Sec-Websocket-Protocol", "Bearer, " + token, "Bearer", "aa", ""},
		{"by protocol without a space", "Sec-Websocket-Protocol", "Bearer," + token, "Bearer", "aa", ""},
		{"by cookie", "Cookie", "a=b; token=" + token, "", "aa", ""},
		{"by the header of plain HTTP", "Authorization", "Bearer " + token, "", "aa",
			"rpc error: code = InvalidArgument desc = etcdserver: user name is empty"},
		{"elsewhere", "Sec-Websocket-Protocol", "Bearer, " + token, "Bearer", "b", "rpc error: code = PermissionDenied desc = " + refused},
		{"with a token that is none", "Sec-Websocket-Protocol", "Bearer, x", "Bearer", "aa",
			"rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"},
	} {
		header := http.Header{}
		if try.header != "" {
			header.Set(try.header, try.value)
		}
		socket := openWebSocket(t, server, "/v3/watch", header)
		if socket.Subprotocol() != try.protocol {
			t.Errorf("%s: protocol %q", try.name, socket.Subprotocol())
		}
		socket.say(fmt.Sprintf(`{"create_request":{"key":%q}}`, base64Of(try.key)))
		told := socket.result()
		reason, _ := told["cancel_reason"].(string)
		if reason != try.reason {
			t.Errorf("%s: %v", try.name, told)
		}
	}
}

// TestWebsocketOverTLS: the name in a certificate is nobody's, and while authentication is on who shows one is refused.
func TestWebsocketOverTLS(t *testing.T) {
	certificates := harness.NewCertificates(t)
	server := harness.Start(t, harness.Options{Kind: harness.UnderTest(t), TLS: certificates, Args: []string{"--client-cert-auth"}})
	dialer := websocket.Dialer{TLSClientConfig: certificates.ClientConfig(t)}
	url := strings.Replace(server.Endpoint(), "https", "wss", 1) + "/v3/watch"
	conn, _, err := dialer.Dial(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	socket := webSocket{conn, t}
	socket.say(`{"create_request":{"key":"Zm9v"}}`)
	socket.result()
	guard(t, server)
	if _, response, err := dialer.Dial(url, nil); err == nil || response == nil || response.StatusCode != http.StatusBadRequest {
		t.Errorf("with a name, while authentication is on: %v %v", response, err)
	}
}

// TestWebsocketOfAStranger: where --cors names origins, the pages of others get no websocket; genuine etcd gives them one.
func TestWebsocketOfAStranger(t *testing.T) {
	kind := harness.UnderTest(t)
	server := harness.Start(t, harness.Options{Kind: kind, Args: []string{"--cors=https://ui.example:8443", "--host-whitelist=localhost,127.0.0.1"}})
	status := func(header, value string) int {
		request := must(http.NewRequest("GET", server.Endpoint()+"/v3/watch", nil))(t)
		request.Header = http.Header{
			"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
		}
		if header == "Host" {
			request.Host = value
		} else if header != "" {
			request.Header.Set(header, value)
		}
		response := must(http.DefaultTransport.RoundTrip(request))(t)
		response.Body.Close()
		return response.StatusCode
	}
	stranger := http.StatusForbidden
	if kind == harness.Etcd {
		stranger = http.StatusSwitchingProtocols
	}
	for _, try := range []struct {
		header, value string
		status        int
	}{
		{"", "", http.StatusSwitchingProtocols},
		{"Origin", "https://ui.example:8443", http.StatusSwitchingProtocols},
		{"Origin", server.Endpoint(), http.StatusSwitchingProtocols},
		{"Origin", "https://elsewhere.example", stranger},
		{"Origin", "null", stranger},
		{"Host", "rebound.example", http.StatusMisdirectedRequest},
	} {
		if got := status(try.header, try.value); got != try.status {
			t.Errorf("%s %s: %d, want %d", try.header, try.value, got, try.status)
		}
	}
}

// TestWebsocketThatIsNotRead: a client that asks and never reads holds nobody up, and the watch of another goes on. What it is told
// once it reads has no gaps; a server may have left it by then.
func TestWebsocketThatIsNotRead(t *testing.T) {
	server := harness.StartUnderTest(t)
	s, ctx := servicesOf(server.Conn(t)), harness.Context(t, 5*time.Minute)
	deaf, attentive := openWebSocket(t, server, "/v3/watch", nil), openWebSocket(t, server, "/v3/watch", nil)
	for _, socket := range []webSocket{deaf, attentive} {
		socket.say(`{"create_request":{"key":"Zm9v"}}`)
	}
	attentive.result()
	// More than sockets hold.
	const puts = 24
	value := bytes.Repeat([]byte("x"), 1<<20)
	var last int64
	for range puts {
		put := must(s.kv.Put(ctx, &pb.PutRequest{Key: []byte("foo"), Value: value}))(t)
		last = put.Header.Revision
		kv := attentive.result()["events"].([]any)[0].(map[string]any)["kv"].(map[string]any)
		if kv["mod_revision"] != fmt.Sprint(last) {
			t.Fatalf("%v", kv["mod_revision"])
		}
	}
	deaf.result()
	for next := last - puts + 1; next <= last; {
		_, text, err := deaf.ReadMessage()
		if err != nil {
			t.Logf("left before revision %d: %v", next, err)
			return
		}
		for _, event := range decode[struct {
			Result struct {
				Events []struct {
					Kv struct {
						ModRevision string `json:"mod_revision"`
					}
				}
			}
		}](t, string(text)).Result.Events {
			if event.Kv.ModRevision != fmt.Sprint(next) {
				t.Fatalf("revision %s, want %d", event.Kv.ModRevision, next)
			}
			next++
		}
	}
}

// TestWebsocketMessageTooLarge: a request above what gRPC takes fails in its words; one far above ends the websocket here before it
// has come, where genuine etcd reads on.
func TestWebsocketMessageTooLarge(t *testing.T) {
	server := harness.StartUnderTest(t)
	socket := openWebSocket(t, server, "/v3/watch", nil)
	socket.say(`{"create_request":{"key":"` + strings.Repeat("QUFB", 3<<20/4) + `"}}`)
	line := socket.hear()
	failure, _ := line["error"].(map[string]any)
	if message, _ := failure["message"].(string); failure["code"] != 8.0 || !strings.HasPrefix(message, "grpc: received message larger than max (") {
		t.Errorf("%v", line)
	}
	if harness.UnderTest(t) == harness.Etcd {
		return
	}
	huge := openWebSocket(t, server, "/v3/watch", nil)
	go huge.WriteMessage(websocket.TextMessage, bytes.Repeat([]byte(" "), 64<<20))
	if code := huge.ended(); code != websocket.CloseMessageTooBig && code != websocket.CloseAbnormalClosure {
		t.Errorf("ended with %d", code)
	}
}

// TestWebsocketsEndWithTheServer: a stop ends those that watch and those that never asked, and the process with them.
func TestWebsocketsEndWithTheServer(t *testing.T) {
	server := harness.StartUnderTest(t)
	watching, silent := openWebSocket(t, server, "/v3/watch", nil), openWebSocket(t, server, "/v3/watch", nil)
	watching.say(`{"create_request":{"key":"Zm9v"}}`)
	watching.result()
	server.Stop()
	for _, socket := range []webSocket{watching, silent} {
		socket.ended()
	}
}
