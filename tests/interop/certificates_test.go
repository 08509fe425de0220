package interop

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/interop/harness"
)

// TestEveryKindOfCertificate serves gRPC and HTTPS, over HTTP/1.1 and HTTP/2 and both versions of TLS, with every kind of
// key (etcd-contract, section 5): signed by an authority of that kind, and self-signed with CA:TRUE, trusted as itself.
// Clients present certificates of the same kind; who has none, or another's, is not served.
func TestEveryKindOfCertificate(t *testing.T) {
	t.Parallel()
	for name, kind := range harness.KeyKinds {
		for form, create := range map[string]func(testing.TB, harness.KeyKind) *harness.Certificates{
			"signed": harness.NewCertificatesOf, "self-signed": harness.NewSelfSigned,
		} {
			t.Run(name+" "+form, func(t *testing.T) {
				t.Parallel()
				expectServedWith(t, create(t, kind))
			})
		}
	}
}

// TestMembersWithEveryKindOfCertificate: two members that ask each other for certificates, of each kind as above.
func TestMembersWithEveryKindOfCertificate(t *testing.T) {
	t.Parallel()
	for name, kind := range harness.KeyKinds {
		for form, create := range map[string]func(testing.TB, harness.KeyKind) *harness.Certificates{
			"signed": harness.NewCertificatesOf, "self-signed": harness.NewSelfSigned,
		} {
			t.Run(name+" "+form, func(t *testing.T) {
				t.Parallel()
				certificates := create(t, kind)
				members := startSecureMembers(t, func(int) []string {
					return []string{"--peer-client-cert-auth", "--peer-cert-file=" + certificates.ServerCert,
						"--peer-key-file=" + certificates.ServerKey, "--peer-trusted-ca-file=" + certificates.Authority}
				})
				members[0].Etcdctl("put", "a", "1")
				expectText(t, "get", members[1].Etcdctl("get", "a"), "a", "1")
			})
		}
	}
}

// startSecureMembers starts two members that speak TLS with each other.
func startSecureMembers(t *testing.T, args func(int) []string) []*harness.Server {
	t.Helper()
	lines := []line{newLine(t), newLine(t)}
	var peers, initial []string
	for n, line := range lines {
		peers = append(peers, strings.Replace(line.peer, "http", "https", 1))
		initial = append(initial, fmt.Sprintf("m%d=%s", n, peers[n]))
	}
	var members []*harness.Server
	for n, line := range lines {
		data := filepath.Join(t.TempDir(), "data")
		own := []string{"--data-dir=" + data, fmt.Sprintf("--name=m%d", n), "--listen-peer-urls=" + peers[n],
			"--initial-advertise-peer-urls=" + peers[n], "--initial-cluster=" + strings.Join(initial, ",")}
		members = append(members, harness.StartLater(t, harness.Options{
			DataDir: data, Endpoint: line.client, Line: line.args(slices.Concat(own, args(n))...)}))
	}
	for _, member := range members {
		member.AwaitReady()
	}
	return members
}

func expectServedWith(t *testing.T, certificates *harness.Certificates) {
	t.Helper()
	server := harness.Start(t, harness.Options{TLS: certificates})
	kv := pb.NewKVClient(server.Conn(t))
	if _, err := kv.Put(harness.Context(t, 20*time.Second), &pb.PutRequest{Key: []byte("a")}); err != nil {
		t.Errorf("gRPC: %v", err)
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, http2 := range []bool{false, true} {
			config := certificates.ClientConfig(t)
			config.MinVersion, config.MaxVersion = version, version
			response, body := httpGet(t, newClient(config, http2), server.Endpoint()+"/health")
			if response.StatusCode != http.StatusOK || body != `{"health":"true","reason":""}` || (response.ProtoMajor == 2) != http2 {
				t.Errorf("health over %s and %s: %d %q", response.Proto, tls.VersionName(version), response.StatusCode, body)
			}
		}
	}
	expectText(t, "get", server.Etcdctl("get", "a", "--keys-only"), "a")

	stranger := harness.NewCertificates(t).ClientConfig(t)
	stranger.RootCAs = certificates.AnonymousConfig(t).RootCAs
	for name, config := range map[string]*tls.Config{"no": certificates.AnonymousConfig(t), "a stranger's": stranger} {
		if response, err := newClient(config, false).Get(server.Endpoint() + "/health"); err == nil {
			response.Body.Close()
			t.Errorf("served with %s certificate", name)
		}
	}
}
