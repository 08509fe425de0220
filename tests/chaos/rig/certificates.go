package rig

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
	"time"
)

// validity is on both sides of now: members whose clock is set wrong must still believe each other.
const validity = 72 * time.Hour

// certificates of one authority: one pair for every member, as server and as peer, and one for clients.
type certificates struct {
	authority, memberCert, memberKey string
	client                           *tls.Config
}

// newCertificates writes them into a folder; members may have these addresses.
func newCertificates(folder string, addresses []net.IP) (*certificates, error) {
	authority, authorityKey, err := certificate("chaos authority", 1, nil, nil, nil)
	if err != nil {
		return nil, err
	}
	member, memberKey, err := certificate("chaos member", 2, addresses, authority, authorityKey)
	if err != nil {
		return nil, err
	}
	client, clientKey, err := certificate("chaos client", 3, nil, authority, authorityKey)
	if err != nil {
		return nil, err
	}
	made := &certificates{
		authority:  filepath.Join(folder, "authority.crt"),
		memberCert: filepath.Join(folder, "member.crt"),
		memberKey:  filepath.Join(folder, "member.key"),
	}
	keyBytes, err := x509.MarshalPKCS8PrivateKey(memberKey)
	if err != nil {
		return nil, err
	}
	for path, block := range map[string]*pem.Block{
		made.authority:  {Type: "CERTIFICATE", Bytes: authority.Raw},
		made.memberCert: {Type: "CERTIFICATE", Bytes: member.Raw},
		made.memberKey:  {Type: "PRIVATE KEY", Bytes: keyBytes},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			return nil, err
		}
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority)
	made.client = &tls.Config{
		RootCAs: roots, MinVersion: tls.VersionTLS12,
		Certificates: []tls.Certificate{{Certificate: [][]byte{client.Raw}, PrivateKey: clientKey}},
	}
	return made, nil
}

// certificate makes and signs one; without an issuer it is an authority that signs itself.
func certificate(name string, serial int64, addresses []net.IP, issuer *x509.Certificate, issuerKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	subject := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-validity), NotAfter: time.Now().Add(validity),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: addresses,
	}
	if issuer == nil {
		subject.IsCA, subject.BasicConstraintsValid, subject.ExtKeyUsage = true, true, nil
		subject.KeyUsage |= x509.KeyUsageCertSign
		issuer, issuerKey = subject, key
	}
	signed, err := x509.CreateCertificate(rand.Reader, subject, issuer, key.Public(), issuerKey)
	if err != nil {
		return nil, nil, err
	}
	parsed, err := x509.ParseCertificate(signed)
	return parsed, key, err
}
