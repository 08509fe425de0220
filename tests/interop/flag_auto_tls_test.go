package interop

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"basalt/tests/interop/harness"
)

// generatedIn reads what a server generated, and fails unless it is what etcd generates.
func generatedIn(t *testing.T, folder string, years int) (*x509.Certificate, []byte) {
	t.Helper()
	certPEM, keyPEM := must(os.ReadFile(filepath.Join(folder, "cert.pem")))(t), must(os.ReadFile(filepath.Join(folder, "key.pem")))(t)
	pair := must(tls.X509KeyPair(certPEM, keyPEM))(t)
	cert := must(x509.ParseCertificate(pair.Certificate[0]))(t)
	if key, ok := pair.PrivateKey.(*ecdsa.PrivateKey); !ok || key.Curve != elliptic.P521() {
		t.Errorf("the key is a %T", pair.PrivateKey)
	}
	usage := x509.KeyUsageKeyEncipherment | x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign
	if !cert.IsCA || cert.MaxPathLen != -1 || cert.KeyUsage != usage || cert.SignatureAlgorithm != x509.ECDSAWithSHA512 {
		t.Errorf("CA %v, path %d, usage %b, signed by %v", cert.IsCA, cert.MaxPathLen, cert.KeyUsage, cert.SignatureAlgorithm)
	}
	if !slices.Equal(cert.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}) || cert.Subject.String() != "O=etcd" {
		t.Errorf("purpose %v of %v", cert.ExtKeyUsage, cert.Subject)
	}
	if life := cert.NotAfter.Sub(cert.NotBefore); life != time.Duration(years)*365*24*time.Hour {
		t.Errorf("it lives %v", life)
	}
	if !strings.HasPrefix(string(keyPEM), "-----BEGIN EC PRIVATE KEY-----") || len(cert.SerialNumber.Bytes()) > 16 {
		t.Errorf("the key begins %.40q, the serial number is %v", keyPEM, cert.SerialNumber)
	}
	return cert, slices.Concat(certPEM, keyPEM)
}

// observeAutoTLS: made at the first start with the fields of etcd's, trusted as itself, the same after a restart.
func observeAutoTLS(t *testing.T) {
	line, data := newLine(t), filepath.Join(t.TempDir(), "data")
	secure := strings.Replace(line.client, "http", "https", 1)
	second := fmt.Sprintf("https://localhost:%d", harness.FreePort(t))
	server := harness.Start(t, harness.Options{Endpoint: secure, Line: line.args("--data-dir="+data, "--auto-tls",
		"--self-signed-cert-validity=2", "--listen-client-urls="+secure+","+second, "--advertise-client-urls="+secure)})
	folder := filepath.Join(data, "fixtures", "client")
	cert, files := generatedIn(t, folder, 2)
	if !slices.Equal(cert.DNSNames, []string{"localhost"}) || len(cert.IPAddresses) != 1 || !cert.IPAddresses[0].Equal(net.IPv4(127, 0, 0, 1)) {
		t.Errorf("it is good for %v and %v", cert.DNSNames, cert.IPAddresses)
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	for range 2 {
		for _, url := range []string{secure, second} {
			response, _ := httpGet(t, newClient(&tls.Config{RootCAs: roots}, true), url+"/health")
			if response.StatusCode != http.StatusOK || !response.TLS.PeerCertificates[0].Equal(cert) {
				t.Errorf("%s: %d with another certificate", url, response.StatusCode)
			}
		}
		server.Stop()
		if _, again := generatedIn(t, folder, 2); !slices.Equal(again, files) {
			t.Error("the files have changed")
		}
		if server.Kind == harness.Basalt {
			if result := harness.Basaltctl(t, "check", data); result.Code != 0 || strings.Contains(result.Stdout, "fixtures") {
				t.Errorf("basaltctl check: exit %d %s%s", result.Code, result.Stdout, result.Stderr)
			}
		}
		server.Restart()
	}
	observeAutoTLSIgnored(t)
}

// observeAutoTLSIgnored: a certificate that is given counts.
func observeAutoTLSIgnored(t *testing.T) {
	t.Helper()
	server := harness.Start(t, harness.Options{TLS: harness.NewCertificates(t), Args: []string{"--auto-tls"}})
	server.Etcdctl("put", "a", "1")
	if _, err := os.Stat(filepath.Join(server.DataDir, "fixtures")); !os.IsNotExist(err) {
		t.Errorf("generated beside a certificate that is given: %v", err)
	}
}

// TestAutoTLSKeepsClientsOut is a named difference: with --auto-tls etcd forgets who may come in.
func TestAutoTLSKeepsClientsOut(t *testing.T) {
	if harness.UnderTest(t) != harness.Basalt {
		t.Skip("a named difference of basalt's")
	}
	certificates, line := harness.NewCertificates(t), newLine(t)
	secure := strings.Replace(line.client, "http", "https", 1)
	line.start(t, "--auto-tls", "--client-cert-auth", "--trusted-ca-file="+certificates.Authority,
		"--listen-client-urls="+secure, "--advertise-client-urls="+secure)
	known := certificates.ClientConfig(t)
	known.InsecureSkipVerify = true
	if response, _ := httpGet(t, newClient(known, false), secure+"/health"); response.StatusCode != http.StatusOK {
		t.Errorf("who has a certificate: %d", response.StatusCode)
	}
	if response, err := newClient(&tls.Config{InsecureSkipVerify: true}, false).Get(secure + "/health"); err == nil {
		response.Body.Close()
		t.Error("served who has none")
	}
}

// observePeerAutoTLS: members whose certificates nobody signed are one cluster.
func observePeerAutoTLS(t *testing.T) {
	members := startSecureMembers(t, func(int) []string { return []string{"--peer-auto-tls", "--self-signed-cert-validity=3"} })
	for _, member := range members {
		generatedIn(t, filepath.Join(member.DataDir, "fixtures", "peer"), 3)
	}
	members[0].Etcdctl("put", "a", "1")
	expectText(t, "get", members[1].Etcdctl("get", "a"), "a", "1")
	if harness.UnderTest(t) == harness.Basalt {
		certificates := harness.NewCertificates(t)
		expectRefusedFlag(t, 1, "--peer-client-cert-auth cannot be kept with --peer-auto-tls", "--peer-auto-tls", "--peer-client-cert-auth",
			"--peer-trusted-ca-file="+certificates.Authority)
	}
}

// observeSelfSignedValidity: observeAutoTLS sees two years, observePeerAutoTLS three.
func observeSelfSignedValidity(t *testing.T) {
	secure := fmt.Sprintf("https://127.0.0.1:%d", harness.FreePort(t))
	args := newLine(t).args("--auto-tls", "--self-signed-cert-validity=0", "--listen-client-urls="+secure)
	expectRefused(t, harness.RunToEnd(t, harness.Launch{Args: args}), 1, "it should be greater than 0")
}

// startAllowing starts a server with a config file, which alone knows allowed-cn in etcd.
func startAllowing(t *testing.T, certificates *harness.Certificates, block string) string {
	t.Helper()
	secure, peer := fmt.Sprintf("https://127.0.0.1:%d", harness.FreePort(t)), fmt.Sprintf("http://127.0.0.1:%d", harness.FreePort(t))
	path := filepath.Join(t.TempDir(), "etcd.yml")
	text := fmt.Sprintf("name: default\ndata-dir: %q\nlisten-client-urls: %[2]s\nadvertise-client-urls: %[2]s\n"+
		"listen-peer-urls: %[3]s\ninitial-advertise-peer-urls: %[3]s\ninitial-cluster: default=%[3]s\n"+
		"client-transport-security:\n  cert-file: %[4]q\n  key-file: %[5]q\n  trusted-ca-file: %[6]q\n  client-cert-auth: true\n  %[7]s\n",
		filepath.Join(t.TempDir(), "data"), secure, peer, certificates.ServerCert, certificates.ServerKey, certificates.Authority, block)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	harness.Start(t, harness.Options{Line: []string{"--config-file=" + path}, Endpoint: secure})
	return secure
}

// expectClientsLetIn says which of the harness's client (without hosts) and server are let in as clients.
func expectClientsLetIn(t *testing.T, certificates *harness.Certificates, endpoint string, client, server bool) {
	t.Helper()
	asServer := *certificates
	asServer.ClientCert, asServer.ClientKey = certificates.ServerCert, certificates.ServerKey
	for shown, want := range map[*harness.Certificates]bool{certificates: client, &asServer: server} {
		for _, http2 := range []bool{false, true} {
			response, err := newClient(shown.ClientConfig(t), http2).Get(endpoint + "/health")
			if err == nil {
				response.Body.Close()
			}
			if (err == nil) != want {
				t.Errorf("%s is let in: %v", filepath.Base(shown.ClientCert), err)
			}
		}
	}
}

func observeClientCertAllowedHostname(t *testing.T) {
	for host, server := range map[string]bool{"localhost": true, "127.0.0.2": true, "example.org": false} {
		certificates := harness.NewCertificates(t)
		under := harness.Start(t, harness.Options{TLS: certificates, Args: []string{"--client-cert-allowed-hostname=" + host}})
		expectClientsLetIn(t, certificates, under.Endpoint(), false, server)
	}
	certificates := harness.NewCertificates(t)
	endpoint := startAllowing(t, certificates, "allowed-hostname: [nobody, localhost]")
	expectClientsLetIn(t, certificates, endpoint, false, true)
}

func observeClientCertAllowedCN(t *testing.T) {
	certificates := harness.NewCertificates(t)
	expectClientsLetIn(t, certificates, startAllowing(t, certificates, "allowed-cn: [nobody, interop client]"), true, false)
	if harness.UnderTest(t) == harness.Basalt {
		under := harness.Start(t, harness.Options{TLS: certificates, Args: []string{"--client-cert-allowed-cn=interop server"}})
		expectClientsLetIn(t, certificates, under.Endpoint(), false, true)
		expectRefusedFlag(t, 1, "no certificate is asked for", newLine(t).args("--client-cert-allowed-cn=a",
			"--cert-file="+certificates.ServerCert, "--key-file="+certificates.ServerKey)...)
	}
}

// observeClientCertFile: the pair has to be in order, and the gateway answers.
func observeClientCertFile(t *testing.T) {
	certificates, other := harness.NewCertificates(t), harness.NewCertificates(t)
	server := harness.Start(t, harness.Options{TLS: certificates, Args: []string{
		"--client-cert-file=" + certificates.ClientCert, "--client-key-file=" + certificates.ClientKey}})
	request := must(http.NewRequestWithContext(harness.Context(t, 20*time.Second), http.MethodPost, server.Endpoint()+"/v3/kv/range",
		strings.NewReader(`{"key":"YQ=="}`)))(t)
	response := must(newClient(certificates.ClientConfig(t), false).Do(request))(t)
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("the gateway answers %d", response.StatusCode)
	}
	missing := filepath.Join(t.TempDir(), "missing.pem")
	secure := fmt.Sprintf("https://127.0.0.1:%d", harness.FreePort(t))
	for says, pair := range map[string][2]string{
		missing: {missing, certificates.ClientKey}, "--client-key-file": {certificates.ClientCert, ""},
		"check that certificate and key belong together": {certificates.ClientCert, other.ClientKey},
	} {
		end := harness.RunToEnd(t, harness.Launch{Args: newLine(t).args("--listen-client-urls="+secure, "--advertise-client-urls="+secure,
			"--cert-file="+certificates.ServerCert, "--key-file="+certificates.ServerKey,
			"--client-cert-file="+pair[0], "--client-key-file="+pair[1])})
		expectRefused(t, end, 1, says)
	}
}

// observeSkipClientSANVerification: a member comes from where its certificate says, or nobody looks.
func observeSkipClientSANVerification(t *testing.T) {
	certificates := harness.NewCertificates(t)
	elsewhere, here := []net.IP{net.IPv4(127, 0, 0, 9)}, []net.IP{net.IPv4(127, 0, 0, 1)}
	for _, skip := range []bool{false, true} {
		_, target := startPeerTLS(t, certificates, fmt.Sprintf("--peer-skip-client-san-verification=%v", skip))
		for name, shown := range map[string]struct {
			addresses []net.IP
			names     []string
			good      bool
		}{
			"no address":          {nil, nil, true},
			"its address":         {here, nil, true},
			"another address":     {elsewhere, nil, false},
			"another with a name": {elsewhere, []string{"localhost"}, true},
			"its name":            {nil, []string{"localhost"}, true},
			"a name of nobody":    {nil, []string{"nobody.invalid"}, false},
		} {
			cert, key := certificates.MemberCertificate(t, shown.addresses, shown.names)
			if got := isLetIn(t, target, certificates, cert, key); got != (shown.good || skip) {
				t.Errorf("skip %v: %s is let in: %v", skip, name, got)
			}
		}
	}
}
