package harness

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
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
	// AuthorityKey signs further ones; empty where the authority is the one certificate itself.
	AuthorityKey string
	// NamelessCert is the client's too, for ClientKey, without a common name: etcd's proxy presents no other.
	NamelessCert string
}

// NewCertificates makes an authority and what it signed, valid for this test.
func NewCertificates(t testing.TB) *Certificates {
	t.Helper()
	return NewCertificatesOf(t, KeyKinds["P-256 in PKCS#8"])
}

// NewCertificatesOf makes the same with keys of one kind.
func NewCertificatesOf(t testing.TB, kind KeyKind) *Certificates {
	t.Helper()
	dir := t.TempDir()
	issuer := template("interop authority", 1)
	issuer.IsCA, issuer.BasicConstraintsValid = true, true
	issuer.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature
	issuerKey := kind.newKey(t)
	issuerDER := sign(t, issuer, issuer, issuerKey, issuerKey)

	server := serverTemplate("interop server", 2)
	serverKey := kind.newKey(t)

	client := template("interop client", 3)
	client.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	clientKey := kind.newKey(t)
	nameless := template("", 4)
	nameless.ExtKeyUsage = client.ExtKeyUsage

	return &Certificates{
		Authority:    writePEM(t, dir, "ca.crt", "CERTIFICATE", issuerDER),
		AuthorityKey: kind.write(t, dir, "ca.key", issuerKey),
		ServerCert:   writePEM(t, dir, "server.crt", "CERTIFICATE", sign(t, server, issuer, serverKey, issuerKey)),
		ServerKey:    kind.write(t, dir, "server.key", serverKey),
		ClientCert:   writePEM(t, dir, "client.crt", "CERTIFICATE", sign(t, client, issuer, clientKey, issuerKey)),
		ClientKey:    kind.write(t, dir, "client.key", clientKey),

		NamelessCert: writePEM(t, dir, "nameless.crt", "CERTIFICATE", sign(t, nameless, issuer, clientKey, issuerKey)),
	}
}

// NewSelfSigned makes one certificate for everything: it has signed itself, with CA:TRUE as etcd's --auto-tls does, is
// server's and client's, and is trusted as itself.
func NewSelfSigned(t testing.TB, kind KeyKind) *Certificates {
	t.Helper()
	dir := t.TempDir()
	own := serverTemplate("interop itself", 1)
	own.IsCA, own.BasicConstraintsValid = true, true
	own.KeyUsage |= x509.KeyUsageCertSign | x509.KeyUsageKeyEncipherment
	key := kind.newKey(t)
	cert := writePEM(t, dir, "own.crt", "CERTIFICATE", sign(t, own, own, key, key))
	keyFile := kind.write(t, dir, "own.key", key)
	return &Certificates{Authority: cert, ServerCert: cert, ServerKey: keyFile, ClientCert: cert, ClientKey: keyFile}
}

// MemberCertificate writes one more certificate of this authority, good for these addresses and names, with its key.
func (c *Certificates) MemberCertificate(t testing.TB, addresses []net.IP, names []string) (cert, key string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(c.Authority, c.AuthorityKey)
	if err != nil {
		t.Fatal(err)
	}
	issuer, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	member := template("interop member", 4)
	member.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	member.IPAddresses, member.DNSNames = addresses, names
	kind := KeyKinds["P-256 in PKCS#8"]
	memberKey, dir := kind.newKey(t), t.TempDir()
	der := sign(t, member, issuer, memberKey, pair.PrivateKey.(crypto.Signer))
	return writePEM(t, dir, "member.crt", "CERTIFICATE", der), kind.write(t, dir, "member.key", memberKey)
}

// KeyKind is an algorithm and the form in which its keys are written.
type KeyKind struct {
	make   func() (crypto.Signer, error)
	block  string
	encode func(crypto.Signer) ([]byte, error)
}

// KeyKinds are all that operators use (etcd-contract, section 5).
var KeyKinds = map[string]KeyKind{
	"RSA 2048 in PKCS#1": {rsaKey(2048), "RSA PRIVATE KEY", pkcs1},
	"RSA 2048 in PKCS#8": {rsaKey(2048), "PRIVATE KEY", pkcs8},
	"RSA 4096 in PKCS#1": {rsaKey(4096), "RSA PRIVATE KEY", pkcs1},
	"RSA 4096 in PKCS#8": {rsaKey(4096), "PRIVATE KEY", pkcs8},
	"P-256 in SEC1":      {ecKey(elliptic.P256()), "EC PRIVATE KEY", sec1},
	"P-256 in PKCS#8":    {ecKey(elliptic.P256()), "PRIVATE KEY", pkcs8},
	"P-384 in SEC1":      {ecKey(elliptic.P384()), "EC PRIVATE KEY", sec1},
	"P-384 in PKCS#8":    {ecKey(elliptic.P384()), "PRIVATE KEY", pkcs8},
	"P-521 in SEC1":      {ecKey(elliptic.P521()), "EC PRIVATE KEY", sec1},
	"P-521 in PKCS#8":    {ecKey(elliptic.P521()), "PRIVATE KEY", pkcs8},
}

func rsaKey(bits int) func() (crypto.Signer, error) {
	return func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, bits) }
}

func ecKey(curve elliptic.Curve) func() (crypto.Signer, error) {
	return func() (crypto.Signer, error) { return ecdsa.GenerateKey(curve, rand.Reader) }
}

func pkcs1(key crypto.Signer) ([]byte, error) {
	return x509.MarshalPKCS1PrivateKey(key.(*rsa.PrivateKey)), nil
}
func pkcs8(key crypto.Signer) ([]byte, error) { return x509.MarshalPKCS8PrivateKey(key) }
func sec1(key crypto.Signer) ([]byte, error) {
	return x509.MarshalECPrivateKey(key.(*ecdsa.PrivateKey))
}

func (k KeyKind) newKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := k.make()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (k KeyKind) write(t testing.TB, dir, name string, key crypto.Signer) string {
	t.Helper()
	der, err := k.encode(key)
	if err != nil {
		t.Fatal(err)
	}
	return writePEM(t, dir, name, k.block, der)
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

func serverTemplate(name string, serial int64) *x509.Certificate {
	server := template(name, serial)
	server.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	server.IPAddresses, server.DNSNames = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(127, 0, 0, 2)}, []string{"localhost"}
	return server
}

func sign(t testing.TB, subject, issuer *x509.Certificate, key, issuerKey crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, subject, issuer, key.Public(), issuerKey)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func writePEM(t testing.TB, dir, name, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
