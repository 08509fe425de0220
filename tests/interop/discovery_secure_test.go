package interop

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"basalt/tests/interop/harness"
)

// secureService is a genuine etcd as discovery service that asks for client certificates and users; `one` has one place.
func secureService(t *testing.T, certificates *harness.Certificates) *harness.Server {
	t.Helper()
	service := harness.Start(t, harness.Options{Kind: harness.Etcd, TLS: certificates})
	service.Etcdctl("put", "/_etcd/registry/one/_config/size", "1")
	service.Etcdctl("user", "add", "root:secret")
	service.Etcdctl("user", "grant-role", "root", "root")
	service.Etcdctl("auth", "enable")
	return service
}

// secureFlags reach it.
func secureFlags(service *harness.Server, certificates *harness.Certificates) []string {
	return []string{
		"--discovery-token=one", "--discovery-endpoints=" + service.Target(), "--discovery-insecure-transport=false",
		"--discovery-cacert=" + certificates.Authority, "--discovery-cert=" + certificates.ClientCert,
		"--discovery-key=" + certificates.ClientKey, "--discovery-user=root", "--discovery-password=secret",
	}
}

// founded starts one member, which must come to be alone by these flags.
func founded(t *testing.T, flags ...string) *harness.Server {
	t.Helper()
	server := newFounders(t, "127.0.0.1")[0].startLater(t, harness.UnderTest(t), nil, flags...)
	server.AwaitReady()
	server.Etcdctl("put", "a", "1")
	return server
}

// observeSecureDiscovery: certificates and password are needed, and they are shown.
func observeSecureDiscovery(t *testing.T) {
	certificates := harness.NewCertificates(t)
	service := secureService(t, certificates)
	flags := secureFlags(service, certificates)
	wrong := append(flags, "--discovery-password=wrong")
	args := newFounders(t, "127.0.0.1")[0].args(filepath.Join(t.TempDir(), "data"), wrong...)
	end := harness.RunToEnd(t, harness.Launch{Args: args})
	if said := end.Stdout + end.Stderr; end.Code != 1 || !strings.Contains(said, "authentication failed, invalid user ID or password") {
		t.Errorf("a wrong password: exit %d\n%s", end.Code, said)
	}
	founded(t, flags...)
}

// observeDiscoveryConfig: the same settings in a file.
func observeDiscoveryConfig(t *testing.T) {
	certificates := harness.NewCertificates(t)
	service := secureService(t, certificates)
	founder := newFounders(t, "127.0.0.1")[0]
	path, data := filepath.Join(t.TempDir(), "config.yaml"), filepath.Join(t.TempDir(), "data")
	text := fmt.Sprintf(`name: f0
data-dir: %s
listen-client-urls: %s
advertise-client-urls: %s
listen-peer-urls: %s
initial-advertise-peer-urls: %s
discovery-config:
  token: one
  client:
    endpoints: [%q]
    dial-timeout: 3000000000
    request-timeout: 4000000000
    keepalive-time: 5000000000
    keepalive-timeout: 6000000000
    secure: {insecure-transport: false, cacert: %s, cert: %s, key: %s}
    auth: {username: root, password: secret}
`, data, founder.client, founder.client, founder.peer, founder.peer, service.Target(),
		certificates.Authority, certificates.ClientCert, certificates.ClientKey)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	server := harness.Start(t, harness.Options{Line: []string{"--config-file=" + path}, Endpoint: founder.client})
	server.Etcdctl("put", "a", "1")
}

func TestDiscoveryInConfigFile(t *testing.T) { observeDiscoveryConfig(t) }

// observeDiscoverySkipVerify: with the flag a certificate that nobody trusts will do, without it none.
func observeDiscoverySkipVerify(t *testing.T) {
	certificates := harness.NewCertificates(t)
	service := harness.Start(t, harness.Options{Kind: harness.Etcd, TLS: certificates})
	service.Etcdctl("put", "/_etcd/registry/one/_config/size", "1")
	flags := []string{
		"--discovery-token=one", "--discovery-endpoints=https://" + service.Target(),
		"--discovery-cert=" + certificates.ClientCert, "--discovery-key=" + certificates.ClientKey,
	}
	server := newFounders(t, "127.0.0.1")[0].startLater(t, harness.UnderTest(t), nil, flags...)
	awaitLine(t, server, "failed to get cluster size from discovery service")
	server.Kill()
	founded(t, append(flags, "--discovery-insecure-skip-tls-verify")...)
}

// observeDiscoveryTimeouts: a service that takes connections and says nothing is asked again, and again.
func observeDiscoveryTimeouts(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	for _, secure := range []bool{false, true} {
		flags := []string{
			"--discovery-token=one", "--discovery-endpoints=" + silent.Addr().String(),
			"--discovery-dial-timeout=70ms", "--discovery-request-timeout=90ms",
			"--discovery-keepalive-time=1h", "--discovery-keepalive-timeout=1h",
		}
		says := "no answer within 90ms"
		if secure {
			flags, says = append(flags, "--discovery-insecure-transport=false", "--discovery-insecure-skip-tls-verify"), "no connection within 70ms"
		}
		server := newFounders(t, "127.0.0.1")[0].startLater(t, harness.UnderTest(t), nil, flags...)
		awaitLine(t, server, "failed to get cluster size from discovery service")
		if server.Kind == harness.Basalt {
			awaitLine(t, server, says)
		}
		// A stop while it waits is clean.
		if server.Kind == harness.Basalt {
			server.Stop()
		} else {
			server.Kill()
		}
	}
}

// observeDiscoveryKeepalive: a service that falls silent amid the wait for others is noticed by its pings.
func observeDiscoveryKeepalive(t *testing.T) {
	service := harness.Start(t, harness.Options{Kind: harness.Etcd})
	service.Etcdctl("put", "/_etcd/registry/two/_config/size", "2")
	flags := []string{
		"--discovery-token=two", "--discovery-endpoints=" + service.Target(),
		"--discovery-keepalive-time=100ms", "--discovery-keepalive-timeout=100ms",
	}
	founders := newFounders(t, "127.0.0.1", "127.0.0.1")
	first := founders[0].startLater(t, harness.UnderTest(t), nil, flags...)
	awaitLine(t, first, "waiting for peers from discovery service")
	if first.Kind == harness.Basalt {
		service.Pause()
		awaitLine(t, first, "retry connecting to discovery service")
		service.Resume()
	}
	second := founders[1].startLater(t, harness.UnderTest(t), nil, flags...)
	first.AwaitReady()
	second.AwaitReady()
}

func awaitLine(t *testing.T, server *harness.Server, text string) {
	t.Helper()
	await(t, harness.Context(t, time.Minute), fmt.Sprintf("%s says %q", server.Kind, text), func() bool {
		return server.LogContains(text)
	})
}
