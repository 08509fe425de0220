package interop

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/interop/harness"
)

// jsonCall is a request of the gateway.
type jsonCall struct{ method, path, body string }

func (c jsonCall) String() string { return c.method + " " + c.path + " " + c.body }

// gatewayCalls are done one after the other on both: what one changes the next may see.
var gatewayCalls = []jsonCall{
	{"POST", "/v3/kv/put", `{"key":"Zm9v","value":"YmFy"}`},
	{"POST", "/v3/kv/put", `{"key":"Zm9v","value":"YmFy","prev_kv":true}`},
	{"POST", "/v3/kv/range", `{"key":"Zm9v"}`},
	{"POST", "/v3beta/kv/range", `{"key":"Zm9v"}`},
	{"POST", "/v3/kv/range", `{"key":"Zm9v","keysOnly":true,"limit":"5","serializable":true}`},
	{"POST", "/v3/kv/range", `{"key":"Zm9v","sort_order":"DESCEND","sort_target":1,"limit":5}`},
	{"POST", "/v3/kv/range", `{"key":"AA==","range_end":"AA==","count_only":true}`},
	{"POST", "/v3/kv/range", `{"key":"Zm9v","nope":1,"sort_order":"UP"}`},
	{"POST", "/v3/kv/range", `{"key":"Zm9v"} x`},
	{"POST", "/v3/kv/range?limit=1", `{"key":"Zm9v"}`},
	{"POST", "/v3/kv/range", `{}`},
	{"POST", "/v3/kv/range", ``},
	{"POST", "/v3/kv/range", `{"key":"Zm9v","revision":"99"}`},
	{"POST", "/v3/kv/range", `{"key":`},
	{"GET", "/v3/kv/range", ``},
	{"PUT", "/v3/kv/range", `{}`},
	{"DELETE", "/v3/nope", ``},
	{"POST", "/v3/nope", `{}`},
	{"POST", "/v3/", `{}`},
	{"POST", "/v3/kv/range/", `{"key":"Zm9v"}`},
	{"POST", "/v3/kv/txn", `{"compare":[{"key":"Zm9v","target":"VERSION","version":"2"}],"success":[{"request_put":{"key":"Zm9v","value":"Yg=="}}],
		"failure":[{"requestRange":{"key":"Zm9v"}}]}`},
	{"POST", "/v3/kv/txn", `{"compare":[{"key":"Zm9v","result":"GREATER","target":"MOD","mod_revision":"90"}],
		"success":[],"failure":[{"request_range":{"key":"Zm9v"}},{"request_txn":{"success":[{"request_delete_range":{"key":"Zg=="}}]}}]}`},
	{"POST", "/v3/kv/compaction", `{"revision":"2"}`},
	{"POST", "/v3/kv/compaction", `{"revision":"100"}`},
	{"POST", "/v3/lease/grant", `{"TTL":1000,"ID":7}`},
	{"POST", "/v3/lease/grant", `{"TTL":1000,"ID":7}`},
	{"POST", "/v3/lease/keepalive", `{"ID":7}`},
	{"POST", "/v3/lease/keepalive", `{"ID":"7"}{"ID":99} {"ID":7}`},
	{"POST", "/v3/lease/keepalive", ``},
	{"POST", "/v3/kv/put", `{"key":"bGVhc2Vk","lease":"7"}`},
	{"POST", "/v3/lease/leases", `{}`},
	{"POST", "/v3/kv/lease/leases", ``},
	{"POST", "/v3/kv/lease/revoke", `{"ID":7}`},
	{"POST", "/v3/lease/revoke", `{"ID":7}`},
	{"POST", "/v3/lease/timetolive", `{"ID":7}`},
	{"POST", "/v3/kv/deleterange", `{"key":"Zm9v","prev_kv":true}`},
	{"POST", "/v3/cluster/member/list", `{"linearizable":true}`},
	{"POST", "/v3/cluster/member/remove", `{"ID":5}`},
	{"POST", "/v3/cluster/member/promote", `{"ID":5}`},
	{"POST", "/v3/maintenance/alarm", `{"action":"ACTIVATE","memberID":9,"alarm":"NOSPACE"}`},
	{"POST", "/v3/maintenance/alarm", `{"action":0}`},
	{"POST", "/v3/kv/put", `{"key":"Zm9v"}`},
	{"POST", "/v3/maintenance/alarm", `{"action":2,"memberID":9,"alarm":1}`},
	{"POST", "/v3/maintenance/defragment", `{}`},
	{"POST", "/v3/maintenance/hashkv", `{"revision":"3"}`},
	{"POST", "/v3/maintenance/transfer-leadership", `{"targetID":"3"}`},
	{"POST", "/v3/auth/status", `{}`},
	{"POST", "/v3/auth/enable", `{}`},
	{"POST", "/v3/auth/authenticate", `{"name":"a","password":"b"}`},
	{"POST", "/v3/auth/role/add", `{"name":"r"}`},
	{"POST", "/v3/auth/role/grant", `{"name":"r","perm":{"permType":"READWRITE","key":"YQ==","range_end":"Yg=="}}`},
	{"POST", "/v3/auth/role/get", `{"role":"r"}`},
	{"POST", "/v3/auth/role/revoke", `{"role":"r","key":"YQ=="}`},
	{"POST", "/v3/auth/role/list", `{}`},
	{"POST", "/v3/auth/user/add", `{"name":"u","password":"p"}`},
	{"POST", "/v3/auth/user/grant", `{"user":"u","role":"r"}`},
	{"POST", "/v3/auth/user/get", `{"name":"u"}`},
	{"POST", "/v3/auth/user/changepw", `{"name":"u","password":"q"}`},
	{"POST", "/v3/auth/user/revoke", `{"name":"u","role":"r"}`},
	{"POST", "/v3/auth/user/list", `{}`},
	{"POST", "/v3/auth/user/delete", `{"name":"u"}`},
	{"POST", "/v3/auth/role/delete", `{"role":"r"}`},
	{"POST", "/v3/auth/disable", `{}`},
	{"POST", "/v3/election/leader", `{"name":"ZQ=="}`},
	{"POST", "/v3/election/proclaim", `{}`},
	{"POST", "/v3/election/resign", `{"leader":{"name":"ZQ==","key":"ZS8x","rev":"3"}}`},
	{"POST", "/v3/lock/unlock", `{"key":"bm9uZQ=="}`},
	{"POST", "/v3/lock/unlock", `{}`},
	{"OPTIONS", "/v3/kv/range", ``},
}

// told is what of an answer must be equal: numbers of clusters, members and terms are each side's own.
func (c jsonCall) told(t *testing.T, client *http.Client, server *harness.Server) string {
	t.Helper()
	request := must(http.NewRequest(c.method, server.Endpoint()+c.path, strings.NewReader(c.body)))(t)
	response := must(client.Do(request))(t)
	defer response.Body.Close()
	told := fmt.Sprintln(response.StatusCode, response.Header.Get("Content-Type"), response.Header.Get("Access-Control-Allow-Origin"),
		response.Header.Get("Grpc-Metadata-Content-Type"))
	values := json.NewDecoder(response.Body)
	for {
		var value any
		err := values.Decode(&value)
		if err == io.EOF {
			return told
		}
		if err != nil {
			t.Fatalf("%v: %v after %s", c, err, told)
		}
		told += string(must(json.Marshal(withoutIdentities(value)))(t)) + "\n"
	}
}

func withoutIdentities(value any) any {
	switch value := value.(type) {
	case map[string]any:
		for name, inner := range value {
			switch name {
			case "cluster_id", "member_id", "raft_term", "peerURLs", "clientURLs":
				delete(value, name)
			case "ID":
				if text, ok := inner.(string); ok && len(text) > 10 {
					delete(value, name)
				}
			default:
				value[name] = withoutIdentities(inner)
			}
		}
	case []any:
		for n := range value {
			value[n] = withoutIdentities(value[n])
		}
	}
	return value
}

// TestGatewayAnswersAsEtcds asks both gateways the same (etcd-contract 2.3).
func TestGatewayAnswersAsEtcds(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("genuine etcd would be compared with itself")
	}
	etcd := harness.Start(t, harness.Options{Kind: harness.Etcd, Args: []string{"--bcrypt-cost=4"}})
	basalt := harness.Start(t, harness.Options{Args: []string{"--bcrypt-cost=4"}})
	client := newClient(nil, false)
	for _, call := range gatewayCalls {
		if left, right := call.told(t, client, etcd), call.told(t, client, basalt); left != right {
			t.Errorf("%v\n  etcd: %sbasalt: %s", call, left, right)
		}
	}
}

// TestGatewayStreams: a watch goes on when the request has ended, a snapshot is that of gRPC, an observer hears who leads.
func TestGatewayStreams(t *testing.T) {
	server := harness.StartUnderTest(t)
	s, ctx := servicesOf(server.Conn(t)), harness.Context(t, time.Minute)
	lines := func(path, body string) *bufio.Reader {
		request := must(http.NewRequestWithContext(ctx, "POST", server.Endpoint()+path, strings.NewReader(body)))(t)
		response := must(newClient(nil, false).Do(request))(t)
		t.Cleanup(func() { response.Body.Close() })
		if response.StatusCode != http.StatusOK {
			t.Fatalf("%s: %d", path, response.StatusCode)
		}
		return bufio.NewReader(response.Body)
	}
	next := func(reader *bufio.Reader) map[string]any {
		t.Helper()
		line := must(reader.ReadBytes('\n'))(t)
		return decode[map[string]map[string]any](t, string(line))["result"]
	}
	watch := lines("/v3/watch", `{"create_request":{"key":"Zm9v"}}`)
	if created := next(watch); created["created"] != true {
		t.Errorf("%v", created)
	}
	for n := range 3 {
		put := must(s.kv.Put(ctx, &pb.PutRequest{Key: []byte("foo"), Value: []byte{byte(n)}}))(t)
		events := next(watch)["events"].([]any)
		kv := events[0].(map[string]any)["kv"].(map[string]any)
		if len(events) != 1 || kv["mod_revision"] != fmt.Sprint(put.Header.Revision) {
			t.Errorf("%v", events)
		}
	}
	var snapshot []byte
	blobs := lines("/v3/maintenance/snapshot", `{}`)
	for {
		line, err := blobs.ReadBytes('\n')
		if err == io.EOF {
			break
		}
		piece := decode[struct{ Result struct{ Blob []byte } }](t, string(must(line, err)(t)))
		snapshot = append(snapshot, piece.Result.Blob...)
	}
	if len(snapshot)%512 != 32 || !bytes.Contains(snapshot, []byte("foo")) {
		t.Errorf("no snapshot in %d bytes", len(snapshot))
	}
	campaign := jsonCall{"POST", "/v3/election/campaign", `{"name":"ZQ==","value":"bWU="}`}
	campaign.told(t, newClient(nil, false), server)
	observer := lines("/v3/election/observe", `{"name":"ZQ=="}`)
	if kv := next(observer)["kv"].(map[string]any); kv["value"] != "bWU=" {
		t.Errorf("%v", kv)
	}
}

// TestWatchGoesOnBehindTheLastRequest: a client that sends no more is told on.
func TestWatchGoesOnBehindTheLastRequest(t *testing.T) {
	server := harness.StartUnderTest(t)
	s, ctx := servicesOf(server.Conn(t)), harness.Context(t, time.Minute)
	stream := must(s.watch.Watch(ctx))(t)
	create := &pb.WatchCreateRequest{Key: []byte("foo")}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	must(stream.Recv())(t)
	for range 3 {
		must(s.kv.Put(ctx, &pb.PutRequest{Key: []byte("foo")}))(t)
		if told := must(stream.Recv())(t); len(told.Events) != 1 {
			t.Errorf("%v", told)
		}
	}
}

// TestGatewayAsSomebody: a token stands in Authorization, and the name in a certificate is nobody (etcd-contract 49, 50).
func TestGatewayAsSomebody(t *testing.T) {
	server := harness.StartUnderTest(t)
	guard(t, server)
	client := newClient(nil, false)
	ask := func(token, path, body string) (int, string) {
		t.Helper()
		request := must(http.NewRequest("POST", server.Endpoint()+path, strings.NewReader(body)))(t)
		if token != "" {
			request.Header.Set("Authorization", token)
		}
		response := must(client.Do(request))(t)
		defer response.Body.Close()
		answer := decode[map[string]any](t, string(must(io.ReadAll(response.Body))(t)))
		message, _ := answer["message"].(string)
		if token, ok := answer["token"].(string); ok {
			message = token
		}
		return response.StatusCode, message
	}
	expect := func(name, token, body string, code int, message string) {
		t.Helper()
		if gotCode, got := ask(token, "/v3/kv/range", body); gotCode != code || got != message {
			t.Errorf("%s: %d %q, want %d %q", name, gotCode, got, code, message)
		}
	}
	_, token := ask("", "/v3/auth/authenticate", `{"name":"ann","password":"word"}`)
	expect("nobody", "", `{"key":"YTE="}`, 400, "etcdserver: user name is empty")
	expect("ann", token, `{"key":"YTE="}`, 200, "")
	expect("ann, as a bearer", "Bearer "+token, `{"key":"YTE="}`, 200, "")
	expect("ann, elsewhere", token, `{"key":"Yg=="}`, 403, "etcdserver: permission denied")
	expect("a stranger", "forged.1", `{"key":"YTE="}`, 401, "etcdserver: invalid auth token")

	certificates := harness.NewCertificates(t)
	secured := harness.Start(t, harness.Options{TLS: certificates})
	for _, args := range [][]string{{"user", "add", "interop client", "--no-password"}, {"user", "grant-role", "interop client", "root"},
		{"user", "add", "root:secret"}, {"user", "grant-role", "root", "root"}, {"auth", "enable"},
	} {
		secured.Etcdctl(args...)
	}
	secured.Etcdctl("put", "a1", "x")
	tls := newClient(certificates.ClientConfig(t), false)
	response := must(tls.Post(secured.Endpoint()+"/v3/kv/range", "application/json", strings.NewReader(`{"key":"YTE="}`)))(t)
	defer response.Body.Close()
	refused := string(must(io.ReadAll(response.Body))(t))
	if response.StatusCode != 400 || !strings.HasPrefix(refused, "CommonName of client sending a request against gateway will be ignored") {
		t.Errorf("by certificate: %d %q", response.StatusCode, refused)
	}
}
