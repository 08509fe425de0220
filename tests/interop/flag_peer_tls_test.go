package interop

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"basalt/tests/interop/harness"
)

// startPeerTLS starts one member whose port for others asks them for certificates.
func startPeerTLS(t *testing.T, certificates *harness.Certificates, args ...string) (*harness.Server, string) {
	t.Helper()
	line := newLine(t)
	peer := strings.Replace(line.peer, "http", "https", 1)
	server := line.start(t, append([]string{"--peer-client-cert-auth=true", "--peer-cert-file=" + certificates.ServerCert,
		"--peer-key-file=" + certificates.ServerKey, "--peer-trusted-ca-file=" + certificates.Authority,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=default=" + peer}, args...)...)
	return server, strings.TrimPrefix(peer, "https://")
}

// isLetIn says whether a member that shows this certificate comes in.
func isLetIn(t *testing.T, target string, certificates *harness.Certificates, cert, key string) bool {
	t.Helper()
	config := certificates.AnonymousConfig(t)
	config.Certificates = []tls.Certificate{must(tls.LoadX509KeyPair(cert, key))(t)}
	// Under TLS 1.3 a client hears too late that it is refused.
	config.MaxVersion = tls.VersionTLS12
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", target, config)
	if err != nil {
		return false
	}
	defer conn.Close()
	// What is refused for its name or its number, etcd refuses only after the handshake: an answer of any kind is asked for.
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Write([]byte("GET /members HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")); err != nil {
		return false
	}
	answer := make([]byte, 5)
	_, err = io.ReadFull(conn, answer)
	return err == nil && string(answer) == "HTTP/"
}

// expectLetIn says which of the certificates of the harness's client (serial number 3, without hosts) and server are let in.
func expectLetIn(t *testing.T, client, server bool, args ...string) {
	t.Helper()
	certificates := harness.NewCertificates(t)
	_, target := startPeerTLS(t, certificates, args...)
	if isLetIn(t, target, certificates, certificates.ClientCert, certificates.ClientKey) != client {
		t.Errorf("with %v the client's certificate is let in: %v", args, !client)
	}
	if isLetIn(t, target, certificates, certificates.ServerCert, certificates.ServerKey) != server {
		t.Errorf("with %v the server's certificate is let in: %v", args, !server)
	}
}

func observePeerCrlFile(t *testing.T) {
	expectLetIn(t, true, true)
	expectLetIn(t, false, true, "--peer-crl-file="+revoking(t, 3))
	if harness.UnderTest(t) != harness.Basalt {
		return
	}
	// etcd speaks to whom it would not let in.
	for serial, revoked := range map[int64]bool{99: false, 2: true} {
		_, err := playMember(t, harness.NewCertificates(t), "--peer-crl-file="+revoking(t, serial))
		if (err != nil) != revoked {
			t.Errorf("a member speaks to one whose number is 2, with %d revoked: %v", serial, err)
		}
	}
}

func observePeerCertAllowedCN(t *testing.T) {
	expectLetIn(t, true, false, "--peer-cert-allowed-cn=somebody,interop client")
	end := harness.RunToEnd(t, harness.Launch{Args: newLine(t).args("--peer-cert-allowed-cn=a", "--peer-cert-allowed-hostname=b",
		"--peer-cert-file="+harness.NewCertificates(t).ServerCert, "--peer-key-file="+harness.NewCertificates(t).ServerKey)})
	if harness.UnderTest(t) == harness.Basalt {
		expectRefused(t, end, 1, "mutually exclusive")
	}
}

func observePeerCertAllowedHostname(t *testing.T) {
	expectLetIn(t, false, true, "--peer-cert-allowed-hostname=localhost")
	expectLetIn(t, false, false, "--peer-cert-allowed-hostname=example.org")
}

// observePeerClientCertFile looks at what a member shows to another one.
func observePeerClientCertFile(t *testing.T) {
	certificates := harness.NewCertificates(t)
	shown, err := playMember(t, certificates, "--peer-client-cert-file="+certificates.ClientCert, "--peer-client-key-file="+certificates.ClientKey)
	if err != nil || shown != "interop client" {
		t.Errorf("a member shows the certificate of %q, %v", shown, err)
	}
}

// playMember is the other member of a cluster of two, with the harness's server's certificate: who comes to it, and whether he
// takes it for a member.
func playMember(t *testing.T, certificates *harness.Certificates, args ...string) (string, error) {
	t.Helper()
	pair := must(tls.LoadX509KeyPair(certificates.ServerCert, certificates.ServerKey))(t)
	listener := must(tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert}))(t)
	t.Cleanup(func() { listener.Close() })
	type visit struct {
		name string
		err  error
	}
	visits := make(chan visit, 1)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			secured := conn.(*tls.Conn)
			_ = secured.SetDeadline(time.Now().Add(20 * time.Second))
			made := visit{err: secured.Handshake()}
			if made.err == nil {
				made.name = secured.ConnectionState().PeerCertificates[0].Subject.CommonName
			}
			select {
			case visits <- made:
			default:
			}
			conn.Close()
		}
	}()
	line := newLine(t)
	peer := strings.Replace(line.peer, "http", "https", 1)
	process := harness.StartLater(t, harness.Options{Endpoint: line.client, Line: line.args(append([]string{
		"--data-dir=" + t.TempDir() + "/data", "--name=default",
		"--peer-cert-file=" + certificates.ServerCert, "--peer-key-file=" + certificates.ServerKey,
		"--peer-trusted-ca-file=" + certificates.Authority,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer,
		fmt.Sprintf("--initial-cluster=default=%s,other=https://%s", peer, listener.Addr()),
	}, args...)...)})
	defer process.Kill()
	select {
	case made := <-visits:
		return made.name, made.err
	case <-time.After(30 * time.Second):
		t.Fatal("a member does not connect to another")
		return "", nil
	}
}
