package interop

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"basalt/tests/interop/harness"
)

func observeTLS(t *testing.T) { expectServedWith(t, harness.NewCertificates(t)) }

// revoking writes a list with this serial number; a list is not verified.
func revoking(t *testing.T, serial int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "revoked.crl")
	writeRevoking(t, path, serial)
	return path
}

func writeRevoking(t *testing.T, path string, serial int64) {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	issuer := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCRLSign,
		SubjectKeyId: []byte{1},
	}
	revoked := []x509.RevocationListEntry{{SerialNumber: big.NewInt(serial), RevocationTime: time.Now()}}
	list := must(x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour), RevokedCertificateEntries: revoked,
	}, issuer, key))(t)
	// In one piece, for the file may be in use.
	if err := os.WriteFile(path+".new", list, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// observeRevokedCertificates: the list has the serial number of the harness's client.
func observeRevokedCertificates(t *testing.T) {
	certificates := harness.NewCertificates(t)
	server := harness.Start(t, harness.Options{TLS: certificates, Args: []string{"--client-crl-file=" + revoking(t, 3)}})
	if response, err := newClient(certificates.ClientConfig(t), false).Get(server.Endpoint() + "/health"); err == nil {
		response.Body.Close()
		t.Error("served a revoked certificate")
	}
	// The server's own has another number.
	certificates.ClientCert, certificates.ClientKey = certificates.ServerCert, certificates.ServerKey
	response, _ := httpGet(t, newClient(certificates.ClientConfig(t), false), server.Endpoint()+"/health")
	if response.StatusCode != http.StatusOK {
		t.Errorf("another certificate: %d", response.StatusCode)
	}
}

// observePeerFiles: the files are read at the start.
func observePeerFiles(t *testing.T) {
	good, missing := harness.NewCertificates(t), filepath.Join(t.TempDir(), "missing.pem")
	for _, files := range [][3]string{
		{missing, good.ServerKey, good.Authority}, {good.ServerCert, missing, good.Authority}, {good.ServerCert, good.ServerKey, missing},
	} {
		end := harness.RunToEnd(t, harness.Launch{Args: newLine(t).args("--peer-cert-file="+files[0], "--peer-key-file="+files[1],
			"--peer-trusted-ca-file="+files[2], "--listen-peer-urls=https://127.0.0.1:0")})
		expectRefused(t, end, 1, missing)
	}
}

// observePeerClientCertAuth starts as kubeadm does; there are no peers to refuse yet.
func observePeerClientCertAuth(t *testing.T) {
	certificates, line := harness.NewCertificates(t), newLine(t)
	peer := strings.Replace(line.peer, "http", "https", 1)
	server := line.start(t, "--peer-client-cert-auth=true", "--peer-cert-file="+certificates.ServerCert,
		"--peer-key-file="+certificates.ServerKey, "--peer-trusted-ca-file="+certificates.Authority,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer)
	server.Etcdctl("put", "a", "1")
	if harness.UnderTest(t) == harness.Basalt {
		// etcd believes what the system trusts.
		expectRefusedFlag(t, 1, "--peer-client-cert-auth needs certificates to trust", "--peer-client-cert-auth",
			"--peer-cert-file="+certificates.ServerCert, "--peer-key-file="+certificates.ServerKey)
	}
}

func startTLS(t *testing.T, args ...string) (*harness.Server, *tls.Config) {
	t.Helper()
	certificates := harness.NewCertificates(t)
	return harness.Start(t, harness.Options{TLS: certificates, Args: args}), certificates.ClientConfig(t)
}

// shakesHands says whether a handshake under `change` comes to an end.
func shakesHands(t *testing.T, server *harness.Server, config *tls.Config, change func(*tls.Config)) bool {
	t.Helper()
	config = config.Clone()
	change(config)
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", server.Target(), config)
	if err == nil {
		conn.Close()
	}
	return err == nil
}

func observeCipherSuites(t *testing.T) {
	server, config := startTLS(t, "--cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")
	for suite, want := range map[uint16]bool{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: true, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384: false,
	} {
		got := shakesHands(t, server, config, func(config *tls.Config) {
			config.MaxVersion, config.CipherSuites = tls.VersionTLS12, []uint16{suite}
		})
		if got != want {
			t.Errorf("%s: %v", tls.CipherSuiteName(suite), got)
		}
	}
	if server.Kind != harness.Basalt {
		return
	}
	// Those that are weak are left out; without them there must be one.
	server, _ = startTLS(t, "--cipher-suites=TLS_RSA_WITH_AES_128_CBC_SHA,TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")
	if !server.LogContains("TLS_RSA_WITH_AES_128_CBC_SHA is never offered") {
		t.Error("no warning of a suite that is left out")
	}
	expectRefusedFlag(t, 1, "names weak cipher suites only", "--cipher-suites=TLS_RSA_WITH_AES_128_CBC_SHA")
}

func observeTLSVersions(t *testing.T) {
	for flag, served := range map[string]uint16{
		"--tls-min-version=TLS1.3": tls.VersionTLS13, "--tls-max-version=TLS1.2": tls.VersionTLS12,
	} {
		server, config := startTLS(t, flag)
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			got := shakesHands(t, server, config, func(config *tls.Config) {
				config.MinVersion, config.MaxVersion = version, version
			})
			if got != (version == served) {
				t.Errorf("%s: %s served: %v", flag, tls.VersionName(version), got)
			}
		}
		// The same holds among members.
		certificates := harness.NewCertificates(t)
		_, target := startPeerTLS(t, certificates, flag)
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			config := certificates.ClientConfig(t)
			config.MinVersion, config.MaxVersion = version, version
			conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", target, config)
			if err == nil {
				conn.Close()
			}
			if (err == nil) != (version == served) {
				t.Errorf("%s: %s served to members: %v", flag, tls.VersionName(version), err)
			}
		}
	}
}

// pageAs asks for /version with other headers.
func pageAs(t *testing.T, server *harness.Server, change func(*http.Request)) *http.Response {
	t.Helper()
	request := must(http.NewRequestWithContext(harness.Context(t, 20*time.Second), http.MethodGet, server.Endpoint()+"/version", nil))(t)
	change(request)
	response := must(newClient(nil, false).Do(request))(t)
	response.Body.Close()
	return response
}

func observeCORS(t *testing.T) {
	server := harness.StartUnderTest(t, "--cors=http://good.example:80")
	for origin, want := range map[string]string{"http://good.example:80": "http://good.example:80", "http://bad.example:80": ""} {
		response := pageAs(t, server, func(request *http.Request) { request.Header.Set("Origin", origin) })
		if got := response.Header.Get("Access-Control-Allow-Origin"); got != want {
			t.Errorf("%s may read: %q", origin, got)
		}
	}
}

func observeHostWhitelist(t *testing.T) {
	server := harness.StartUnderTest(t, "--host-whitelist=good.example")
	for host, want := range map[string]int{"good.example": http.StatusOK, "bad.example": http.StatusMisdirectedRequest} {
		if response := pageAs(t, server, func(request *http.Request) { request.Host = host }); response.StatusCode != want {
			t.Errorf("%s: %d, want %d", host, response.StatusCode, want)
		}
	}
}
