package interop

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"basalt/tests/interop/harness"
)

// httpGet asks once, over the given protocol version.
func httpGet(t *testing.T, client *http.Client, url string) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(harness.Context(t, 20*time.Second), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response, string(body)
}

// newClient keeps no connections, so that none outlives the test.
func newClient(security *tls.Config, http2 bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: security, Protocols: protocols, DisableKeepAlives: true,
	}}
}

func expectHTTP(t *testing.T, server *harness.Server, path string, code int, body string) {
	t.Helper()
	response, got := httpGet(t, newClient(nil, false), server.Endpoint()+path)
	if response.StatusCode != code || got != body {
		t.Errorf("GET %s: %d %q, want %d %q", path, response.StatusCode, got, code, body)
	}
}

func TestHealthAndVersion(t *testing.T) {
	server := harness.StartUnderTest(t)
	for path, body := range map[string]string{
		"/health":                           `{"health":"true","reason":""}`,
		"/health?serializable=true":         `{"health":"true","reason":""}`,
		"/health?exclude=NOSPACE":           `{"health":"true","reason":""}`,
		"/livez":                            "ok\n",
		"/livez/serializable_read":          "ok\n",
		"/readyz":                           "ok\n",
		"/readyz?exclude=non_learner":       "ok\n",
		"/readyz/data_corruption":           "ok\n",
		"/readyz/serializable_read":         "ok\n",
		"/readyz/linearizable_read":         "ok\n",
		"/readyz/non_learner":               "ok\n",
		"/livez?verbose":                    "[+]serializable_read ok\nok\n",
		"/readyz/linearizable_read?verbose": "[+]linearizable_read ok\nok\n",
	} {
		expectHTTP(t, server, path, http.StatusOK, body)
	}
	if response, _ := httpGet(t, newClient(nil, false), server.Endpoint()+"/readyz/unknown"); response.StatusCode != http.StatusNotFound {
		t.Errorf("/readyz/unknown: %d", response.StatusCode)
	}
	_, verbose := httpGet(t, newClient(nil, false), server.Endpoint()+"/readyz?verbose")
	lines := strings.Split(strings.TrimSuffix(verbose, "\n"), "\n")
	if last := len(lines) - 1; last >= 0 {
		slices.Sort(lines[:last])
	}
	want := []string{"[+]data_corruption ok", "[+]linearizable_read ok", "[+]non_learner ok", "[+]serializable_read ok", "ok"}
	if !slices.Equal(lines, want) {
		t.Errorf("/readyz?verbose: %q", lines)
	}
	expectVersion(t, newClient(nil, false), server)

	answer, err := grpc_health_v1.NewHealthClient(server.Conn(t)).Check(harness.Context(t, 10*time.Second),
		&grpc_health_v1.HealthCheckRequest{})
	if err != nil || answer.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("grpc.health.v1: %v %v", answer, err)
	}
}

func expectVersion(t *testing.T, client *http.Client, server *harness.Server) {
	t.Helper()
	response, body := httpGet(t, client, server.Endpoint()+"/version")
	got := map[string]string{}
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatalf("/version: %v in %q", err, body)
	}
	if response.StatusCode != http.StatusOK || got["etcdserver"] != "3.7.3" || got["etcdcluster"] != "3.7.0" ||
		got["storage"] != "3.7.0" {
		t.Errorf("/version: %d %q", response.StatusCode, body)
	}
}

// TestGateway uses the JSON gateway as etcd's documentation does.
func TestGateway(t *testing.T) {
	server := harness.StartUnderTest(t)
	post := func(path, body string) (int, string) {
		t.Helper()
		response, err := newClient(nil, false).Post(server.Endpoint()+path, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return response.StatusCode, strings.TrimSpace(string(text))
	}
	type header struct{ Revision string }
	code, text := post("/v3/kv/put", `{"key":"Zm9v","value":"YmFy"}`)
	if put := decode[struct{ Header header }](t, text); code != 200 || put.Header.Revision != "2" {
		t.Errorf("put: %d %s", code, text)
	}
	// Numbers of 64 bits are strings, zero values are left out, names are those of the protocol.
	code, text = post("/v3/kv/range", `{"key":"Zm9v"}`)
	answer := decode[map[string]any](t, text)
	delete(answer, "header")
	want := decode[map[string]any](t, `{"count":"1","kvs":[
		{"key":"Zm9v","create_revision":"2","mod_revision":"2","version":"1","value":"YmFy"}]}`)
	if code != 200 || !reflect.DeepEqual(answer, want) {
		t.Errorf("range: %d %s", code, text)
	}
	type refused struct {
		Code    int
		Message string
	}
	code, text = post("/v3/kv/range", `{}`)
	if got := decode[refused](t, text); code != 400 || got != (refused{3, "etcdserver: key is not provided"}) {
		t.Errorf("range without a key: %d %s", code, text)
	}
	code, text = post("/v3/nope", `{}`)
	if got := decode[refused](t, text); code != 404 || got != (refused{5, "Not Found"}) {
		t.Errorf("unknown path: %d %s", code, text)
	}
}

// TestTLS needs a client certificate for everything, over HTTP/1.1, HTTP/2 and gRPC on one port.
func TestTLS(t *testing.T) {
	certificates := harness.NewCertificates(t)
	server := harness.Start(t, harness.Options{TLS: certificates})
	for _, http2 := range []bool{false, true} {
		client := newClient(certificates.ClientConfig(t), http2)
		response, body := httpGet(t, client, server.Endpoint()+"/health")
		if response.StatusCode != http.StatusOK || body != `{"health":"true","reason":""}` || (response.ProtoMajor == 2) != http2 {
			t.Errorf("health over %s: %d %q", response.Proto, response.StatusCode, body)
		}
		expectVersion(t, client, server)
	}
	expectText(t, "put", server.Etcdctl("put", "a", "1"), "OK")
	expectText(t, "get", server.Etcdctl("get", "a"), "a", "1")

	if _, err := newClient(certificates.AnonymousConfig(t), false).Get(server.Endpoint() + "/health"); err == nil {
		t.Error("served HTTP without a client certificate")
	}
	anonymous, err := grpc.NewClient(server.Target(), grpc.WithTransportCredentials(credentials.NewTLS(certificates.AnonymousConfig(t))))
	if err != nil {
		t.Fatal(err)
	}
	defer anonymous.Close()
	_, err = pb.NewKVClient(anonymous).Range(harness.Context(t, 20*time.Second), &pb.RangeRequest{Key: []byte("a")})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("gRPC without a client certificate: %v", err)
	}
	stranger := harness.NewCertificates(t).ClientConfig(t)
	stranger.RootCAs = certificates.AnonymousConfig(t).RootCAs
	if _, err := newClient(stranger, false).Get(server.Endpoint() + "/health"); err == nil {
		t.Error("served a certificate of another authority")
	}
}

// TestPlainHTTP2 is gRPC's protocol; on it, without TLS, etcd serves nothing else.
func TestPlainHTTP2(t *testing.T) {
	server := harness.StartUnderTest(t)
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	client := &http.Client{Transport: &http.Transport{Protocols: protocols, DisableKeepAlives: true}}
	response, _ := httpGet(t, client, server.Endpoint()+"/health")
	if response.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("plain HTTP/2 /health: %d, want 415", response.StatusCode)
	}
}

// TestMetricsListener serves metrics and health, and nothing else, on a listener of their own.
func TestMetricsListener(t *testing.T) {
	url := fmt.Sprintf("http://127.0.0.1:%d", harness.FreePort(t))
	server := harness.StartUnderTest(t, "--listen-metrics-urls="+url)
	for path, code := range map[string]int{"/metrics": 200, "/health": 200, "/readyz": 200, "/livez": 200, "/version": 404} {
		if response, _ := httpGet(t, newClient(nil, false), url+path); response.StatusCode != code {
			t.Errorf("%s of %s: %d, want %d", path, server.Kind, response.StatusCode, code)
		}
	}
}
