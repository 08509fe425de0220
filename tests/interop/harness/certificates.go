package harness

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Certificates are the PEM files of one authority with a server's and a client's certificate.
type Certificates struct {
	Authority, ServerCert, ServerKey, ClientCert, ClientKey string
}

// NewCertificates makes an authority and what it signed, valid for this test.
func NewCertificates(t testing.TB) *Certificates {
	t.Helper()
	dir := t.TempDir()
	issuer := template("interop authority", 1)
	issuer.IsCA, issuer.BasicConstraintsValid = true, true
	issuer.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	issuerKey := newKey(t)
	issuerDER := sign(t, issuer, issuer, issuerKey, issuerKey)

	server := template("interop server", 2)
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	server.IPAddresses, server.DNSNames = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(127, 0, 0, 2)}, []string{"localhost"}
	serverKey := newKey(t)

	client := template("interop client", 3)
	client.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	clientKey := newKey(t)

	return &Certificates{
		Authority:  writePEM(t, dir, "ca.crt", "CERTIFICATE", issuerDER),
		ServerCert: writePEM(t, dir, "server.crt", "CERTIFICATE", sign(t, server, issuer, serverKey, issuerKey)),
		ServerKey:  writeKey(t, dir, "server.key", serverKey),
		ClientCert: writePEM(t, dir, "client.crt", "CERTIFICATE", sign(t, client, issuer, clientKey, issuerKey)),
		ClientKey:  writeKey(t, dir, "client.key", clientKey),
	}
}

// ClientConfig presents the client's certificate.
func (c *Certificates) ClientConfig(t testing.TB) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(c.ClientCert, c.ClientKey)
	if err != nil {
		t.Fatal(err)
	}
	config := c.AnonymousConfig(t)
	config.Certificates = []tls.Certificate{pair}
	return config
}

// AnonymousConfig trusts the authority and presents no certificate.
func (c *Certificates) AnonymousConfig(t testing.TB) *tls.Config {
	t.Helper()
	authority, err := os.ReadFile(c.Authority)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
}

func template(name string, serial int64) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t testing.TB, subject, issuer *x509.Certificate, key, issuerKey *ecdsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, subject, issuer, &key.PublicKey, issuerKey)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func writeKey(t testing.TB, dir, name string, key *ecdsa.PrivateKey) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return writePEM(t, dir, name, "PRIVATE KEY", der)
}

func writePEM(t testing.TB, dir, name, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
