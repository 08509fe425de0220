package interop

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"basalt/tests/interop/harness"
)

// rpc writes over a connection of its own, whatever the certificate's names.
func rpc(t *testing.T, target string, security *tls.Config) error {
	t.Helper()
	transport := insecure.NewCredentials()
	if security != nil {
		transport = credentials.NewTLS(security)
	}
	conn := must(grpc.NewClient(target, grpc.WithTransportCredentials(transport), grpc.WithDisableRetry()))(t)
	defer conn.Close()
	_, err := pb.NewKVClient(conn).Put(harness.Context(t, 20*time.Second), &pb.PutRequest{Key: []byte("a")})
	return err
}

// page asks for a page over a connection to a URL of any kind, of which unix paths are relative to `dir`.
func page(t *testing.T, dir, url, path string, security *tls.Config) (*http.Response, error) {
	t.Helper()
	client := newClient(security, false)
	scheme, address, _ := strings.Cut(url, "://")
	if file := filepath.Join(dir, address); strings.HasPrefix(scheme, "unix") {
		client.Transport.(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", file)
		}
		scheme, address = map[string]string{"unix": "http", "unixs": "https"}[scheme], "localhost"
	}
	response, err := client.Get(scheme + "://" + address + path)
	if err == nil {
		response.Body.Close()
	}
	return response, err
}

// TestEveryListener serves each kind of port on each kind of URL, several of each.
func TestEveryListener(t *testing.T) {
	certificates, dir := harness.NewCertificates(t), t.TempDir()
	security := certificates.ClientConfig(t)
	tcp := func(scheme string) string { return fmt.Sprintf("%s://127.0.0.1:%d", scheme, harness.FreePort(t)) }
	main := []string{tcp("http"), tcp("http"), tcp("https"), tcp("https"), "unix://c:1", "unix://c:2", "unixs://c:3", "unixs://c:4"}
	pages := []string{tcp("http"), tcp("https"), "unix://h:1", "unix://h:2", "unixs://h:3"}
	probes := []string{tcp("http"), tcp("http"), tcp("https"), tcp("https")}
	if harness.UnderTest(t) == harness.Basalt {
		// etcd serves probes on such a path without TLS, whatever its scheme.
		probes = append(probes, "unix://p:1", "unixs://p:2")
	}
	for _, split := range []bool{false, true} {
		line := newLine(t)
		args := line.args("--data-dir="+filepath.Join(t.TempDir(), "data"), "--listen-client-urls="+strings.Join(main, ","),
			"--advertise-client-urls="+main[0], "--listen-metrics-urls="+strings.Join(probes, ","),
			"--cert-file="+certificates.ServerCert, "--key-file="+certificates.ServerKey,
			"--trusted-ca-file="+certificates.Authority, "--client-cert-auth")
		if split {
			args = append(args, "--listen-client-http-urls="+strings.Join(pages, ","))
		}
		server := harness.Start(t, harness.Options{Line: args, Endpoint: main[0], WorkDir: dir})
		for _, url := range main {
			scheme, address, _ := strings.Cut(url, "://")
			target, config := address, (*tls.Config)(nil)
			if strings.HasPrefix(scheme, "unix") {
				target = "unix:" + filepath.Join(dir, address)
			}
			if strings.HasSuffix(scheme, "s") {
				config = security.Clone()
				config.ServerName = "localhost"
			}
			if err := rpc(t, target, config); err != nil {
				t.Errorf("split %v: gRPC over %s: %v", split, url, err)
			}
		}
		served := map[string][]string{"/metrics": probes, "/version": main}
		if split {
			served["/version"] = pages
		}
		for path, urls := range served {
			for _, url := range urls {
				if response, err := page(t, dir, url, path, security); err != nil || response.StatusCode != http.StatusOK {
					t.Errorf("split %v: %s of %s: %v, %v", split, path, url, response, err)
				}
				if strings.HasPrefix(url, "https") || strings.HasPrefix(url, "unixs") {
					if _, err := page(t, dir, url, path, certificates.AnonymousConfig(t)); err == nil {
						t.Errorf("split %v: %s of %s without a certificate", split, path, url)
					}
				}
			}
		}
		server.Stop()
	}
}

// TestMembersOverUnixSockets: two members that speak over files alone.
func TestMembersOverUnixSockets(t *testing.T) {
	dir, lines := t.TempDir(), []line{newLine(t), newLine(t)}
	var members []*harness.Server
	for n, line := range lines {
		peer := fmt.Sprintf("unix://m%d:0", n)
		members = append(members, harness.StartLater(t, harness.Options{Endpoint: line.client, WorkDir: dir, Line: line.args(
			"--data-dir="+filepath.Join(t.TempDir(), "data"), fmt.Sprintf("--name=m%d", n), "--listen-peer-urls="+peer+",unix://second"+fmt.Sprint(n)+":0",
			"--initial-advertise-peer-urls="+peer, "--initial-cluster=m0=unix://m0:0,m1=unix://m1:0")}))
	}
	for _, member := range members {
		member.AwaitReady()
	}
	members[0].Etcdctl("put", "a", "1")
	expectText(t, "get", members[1].Etcdctl("get", "a"), "a", "1")
}

// securePorts are one of each kind that has TLS, with a way to be served there.
type securePort struct {
	name, address string
	served        func() bool
}

// startSecurePorts starts a server whose files lie in a folder where they can be replaced.
func startSecurePorts(t *testing.T, certificates *harness.Certificates, revoked string) []securePort {
	t.Helper()
	port := func() string { return fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t)) }
	main, pages, probes, peer := port(), port(), port(), port()
	line := newLine(t)
	harness.Start(t, harness.Options{Endpoint: "https://" + main, Line: line.args("--data-dir="+filepath.Join(t.TempDir(), "data"),
		"--listen-client-urls=https://"+main, "--advertise-client-urls=https://"+main, "--listen-client-http-urls=https://"+pages,
		"--listen-metrics-urls=https://"+probes, "--listen-peer-urls=https://"+peer, "--initial-advertise-peer-urls=https://"+peer,
		"--initial-cluster=default=https://"+peer, "--cert-file="+certificates.ServerCert, "--key-file="+certificates.ServerKey,
		"--trusted-ca-file="+certificates.Authority, "--client-cert-auth", "--client-crl-file="+revoked,
		"--peer-cert-file="+certificates.ServerCert, "--peer-key-file="+certificates.ServerKey,
		"--peer-trusted-ca-file="+certificates.Authority, "--peer-client-cert-auth", "--peer-crl-file="+revoked)})
	security := certificates.ClientConfig(t)
	asked := func(address, path string) func() bool {
		return func() bool {
			_, err := page(t, "", "https://"+address, path, security)
			return err == nil
		}
	}
	return []securePort{
		{"gRPC", main, func() bool { return rpc(t, main, security) == nil }},
		{"pages", pages, asked(pages, "/health")},
		{"probes", probes, asked(probes, "/health")},
		{"members", peer, func() bool { return isLetIn(t, peer, certificates, certificates.ClientCert, certificates.ClientKey) }},
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for ctx := harness.Context(t, time.Minute); !holds(); time.Sleep(100 * time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatal(what)
		}
	}
}

// TestFilesAreReadAgain: a new certificate and a new list of revoked ones count on each port, without a restart; a file that
// cannot be used changes nothing.
func TestFilesAreReadAgain(t *testing.T) {
	certificates, revoked := harness.NewCertificates(t), revoking(t, 99)
	ports := startSecurePorts(t, certificates, revoked)
	for _, port := range ports {
		if !port.served() {
			t.Errorf("%s: a good certificate is refused", port.name)
		}
	}
	newCert, newKey := certificates.MemberCertificate(t, []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	for from, to := range map[string]string{newKey: certificates.ServerKey, newCert: certificates.ServerCert} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	for _, port := range ports {
		eventually(t, port.name+" does not show its new certificate", func() bool {
			conn, err := tls.Dial("tcp", port.address, certificates.ClientConfig(t))
			if err != nil {
				return false
			}
			defer conn.Close()
			return conn.ConnectionState().PeerCertificates[0].Subject.CommonName == "interop member"
		})
	}
	if harness.UnderTest(t) == harness.Basalt {
		// etcd refuses everybody then.
		if err := os.WriteFile(certificates.ServerCert, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, port := range ports {
			eventually(t, port.name+" is closed by a bad file", port.served)
		}
		return
	}
	revokeOnEvery(t, ports, revoked)
}

// TestRevocationOnEveryPort: who is put on the list is let in nowhere any more.
func TestRevocationOnEveryPort(t *testing.T) {
	certificates, revoked := harness.NewCertificates(t), revoking(t, 99)
	revokeOnEvery(t, startSecurePorts(t, certificates, revoked), revoked)
}

func revokeOnEvery(t *testing.T, ports []securePort, revoked string) {
	t.Helper()
	for _, port := range ports {
		eventually(t, port.name+" refuses a good certificate", port.served)
	}
	writeRevoking(t, revoked, 3)
	for _, port := range ports {
		eventually(t, port.name+" serves a revoked certificate", func() bool { return !port.served() })
	}
}

// TestScrapersComeFromWhereTheirCertificatesSay: a certificate that names addresses or hosts is good for those alone where metrics
// are scraped, and for any where clients call.
func TestScrapersComeFromWhereTheirCertificatesSay(t *testing.T) {
	certificates := harness.NewCertificates(t)
	main, probes := fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t)), fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t))
	line := newLine(t)
	harness.Start(t, harness.Options{Endpoint: "https://" + main, Line: line.args("--data-dir="+filepath.Join(t.TempDir(), "data"),
		"--listen-client-urls=https://"+main, "--advertise-client-urls=https://"+main, "--listen-metrics-urls=https://"+probes,
		"--cert-file="+certificates.ServerCert, "--key-file="+certificates.ServerKey,
		"--trusted-ca-file="+certificates.Authority, "--client-cert-auth")})
	elsewhere, here := []net.IP{net.IPv4(127, 0, 0, 9)}, []net.IP{net.IPv4(127, 0, 0, 1)}
	for name, shown := range map[string]struct {
		addresses []net.IP
		names     []string
		good      bool
	}{
		"no address":          {nil, nil, true},
		"its address":         {here, nil, true},
		"another address":     {elsewhere, nil, false},
		"another with a name": {elsewhere, []string{"localhost"}, true},
		"a name of nobody":    {nil, []string{"nobody.invalid"}, false},
	} {
		cert, key := certificates.MemberCertificate(t, shown.addresses, shown.names)
		if got := isLetIn(t, probes, certificates, cert, key); got != shown.good {
			t.Errorf("%s scrapes: %v", name, got)
		}
		if !isLetIn(t, main, certificates, cert, key) {
			t.Errorf("%s is no client", name)
		}
	}
}
