package harness

import (
	"context"
	"crypto/tls"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// messageBytesMax lets clients receive what the server may send: etcd sets no bound of its own.
const messageBytesMax = 1 << 30

// Conn is a raw gRPC connection: no retries, no translation of errors.
func (s *Server) Conn(t testing.TB) *grpc.ClientConn {
	t.Helper()
	security := insecure.NewCredentials()
	if s.tls != nil {
		security = credentials.NewTLS(s.tls.ClientConfig(t))
	}
	conn, err := grpc.NewClient(s.Target(),
		grpc.WithTransportCredentials(security),
		grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(messageBytesMax), grpc.MaxCallSendMsgSize(messageBytesMax)))
	if err != nil {
		t.Fatalf("connect to %s: %v", s.Target(), err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// Client is etcd's own Go client.
func (s *Server) Client(t testing.TB) *clientv3.Client {
	t.Helper()
	return s.ClientAs(t, "", "")
}

// ClientAs is the same, logged in; without a user it is nobody.
func (s *Server) ClientAs(t testing.TB, user, password string) *clientv3.Client {
	t.Helper()
	config := clientv3.Config{
		Endpoints:   []string{s.Endpoint()},
		Username:    user,
		Password:    password,
		DialTimeout: 10 * time.Second,
		Logger:      zap.NewNop(),
	}
	if s.tls != nil {
		config.TLS = s.tls.ClientConfig(t)
	}
	client, err := clientv3.New(config)
	if err != nil {
		t.Fatalf("client of %s: %v", s.Endpoint(), err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// Context ends with the test, or after `limit`.
func Context(t testing.TB, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

// ClientTLS is how clients of this server secure a connection that they make by hand; nil where it has no TLS.
func (s *Server) ClientTLS() *tls.Config {
	s.t.Helper()
	if s.tls == nil {
		return nil
	}
	return s.tls.ClientConfig(s.t)
}
