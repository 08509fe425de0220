package interop

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"basalt/tests/interop/harness"
)

// TestKubeadmStaticPod starts the command line that kubeadm writes (etcd-contract section 4): two client URLs, metrics on
// a port of their own, TLS towards clients and peers. It uses the store as kubeadm's API server does and asks what the
// kubelet's probes ask; then the pod is stopped and started again.
func TestKubeadmStaticPod(t *testing.T) {
	tls := harness.NewCertificates(t)
	port := func() int { return harness.FreePort(t) }
	client, peer, metrics := port(), port(), fmt.Sprintf("http://127.0.0.1:%d", port())
	address := func(host string, port int) string { return fmt.Sprintf("https://%s:%d", host, port) }
	local, advertised, peers := address("127.0.0.1", client), address("127.0.0.2", client), address("127.0.0.2", peer)
	server := harness.Start(t, harness.Options{TLS: tls, Endpoint: local, Line: []string{
		"--advertise-client-urls=" + advertised,
		"--cert-file=" + tls.ServerCert,
		"--client-cert-auth=true",
		"--data-dir=" + filepath.Join(t.TempDir(), "etcd"),
		"--feature-gates=InitialCorruptCheck=true",
		"--initial-advertise-peer-urls=" + peers,
		"--initial-cluster=control-plane=" + peers,
		"--key-file=" + tls.ServerKey,
		"--listen-client-urls=" + local + "," + advertised,
		"--listen-metrics-urls=" + metrics,
		"--listen-peer-urls=" + peers,
		"--name=control-plane",
		"--peer-cert-file=" + tls.ServerCert,
		"--peer-client-cert-auth=true",
		"--peer-key-file=" + tls.ServerKey,
		"--peer-trusted-ca-file=" + tls.Authority,
		"--snapshot-count=10000",
		"--trusted-ca-file=" + tls.Authority,
		"--watch-progress-notify-interval=5s",
	}})
	for life := range 2 {
		for _, probe := range []string{"/livez", "/readyz", "/health"} {
			response, body := httpGet(t, newClient(nil, false), metrics+probe)
			if response.StatusCode != http.StatusOK || probe != "/health" && body != "ok\n" {
				t.Errorf("%s on the metrics port: %d %q", probe, response.StatusCode, body)
			}
		}
		if response, body := httpGet(t, newClient(nil, false), metrics+"/metrics"); response.StatusCode != http.StatusOK ||
			!strings.Contains(body, "etcd_server_has_leader 1") {
			t.Errorf("/metrics on the metrics port: %d, %d bytes", response.StatusCode, len(body))
		}
		server.Etcdctl("put", fmt.Sprint("life", life), "x")
		expectText(t, "get", server.Etcdctl("get", "life0", "--print-value-only"), "x")
		if members := server.Etcdctl("member", "list"); !strings.Contains(members, "started, control-plane, "+peers+", "+advertised) {
			t.Errorf("member list: %s", members)
		}
		server.Stop()
		server.Restart()
	}
}

// TestBareStart starts the program with nothing at all, in an empty directory: etcd's ports and default.etcd.
func TestBareStart(t *testing.T) {
	for _, port := range []string{"2379", "2380"} {
		listener, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Skipf("port %s is taken on this machine, and it is what this test is about: %v", port, err)
		}
		listener.Close()
	}
	workDir := t.TempDir()
	server := harness.Start(t, harness.Options{Endpoint: "http://localhost:2379", WorkDir: workDir, Line: []string{}})
	server.Etcdctl("put", "a", "1")
	expectText(t, "get", server.Etcdctl("get", "a"), "a", "1")
	expectText(t, "member list", server.Etcdctl("member", "list"),
		"8e9e05c52164694d, started, default, http://localhost:2380, http://localhost:2379, false")
	left, err := os.ReadDir(workDir)
	if err != nil || len(left) != 1 || left[0].Name() != "default.etcd" {
		t.Errorf("the working directory holds %v, %v", left, err)
	}
	server.Stop()
	server.Restart()
	expectText(t, "get", server.Etcdctl("get", "a"), "a", "1")
}

// TestVersionLines: scripts read the first line; basalt adds one of its own behind etcd's four (etcd-contract section 4).
func TestVersionLines(t *testing.T) {
	output, err := exec.CommandContext(harness.Context(t, 30*time.Second), harness.Binary(t, harness.UnderTest(t)), "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"etcd Version: 3.7.3", "Git SHA: ", "Go Version: ", "Go OS/Arch: linux/"}
	if harness.UnderTest(t) == harness.Basalt {
		want = append(want, "basalt Version: ")
	}
	lines := strings.Split(strings.TrimSuffix(string(output), "\n"), "\n")
	if len(lines) != len(want) {
		t.Fatalf("--version prints %q", lines)
	}
	for n, prefix := range want {
		if rest, found := strings.CutPrefix(lines[n], prefix); !found || n > 0 && rest == "" {
			t.Errorf("line %d of --version is %q, want %q", n, lines[n], prefix)
		}
	}
}
