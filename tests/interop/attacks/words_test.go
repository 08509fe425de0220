package attacks

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/interop/harness"
)

// guarded has the server ask everybody who he is, and the good client come as root.
func guarded(t *testing.T, s *scene) {
	t.Helper()
	ctx, client := harness.Context(t, time.Minute), s.server.Client(t)
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(client.UserAdd(ctx, "root", "secret"))
	must(client.RoleAdd(ctx, "root"))
	must(client.UserGrantRole(ctx, "root", "root"))
	must(client.AuthEnable(ctx))
	s.user, s.password = "root", "secret"
}

// requests sends so many of them, twenty on each connection.
func requests(once func() string) func(*testing.T, *scene) {
	return func(t *testing.T, s *scene) {
		for s.lasts() {
			conn, err := net.DialTimeout("tcp", s.server.Target(), awaitMax)
			if err != nil {
				t.Fatal(err)
			}
			go discard(conn)
			for range 20 {
				if _, err := conn.Write([]byte(once())); err != nil {
					break
				}
			}
			time.Sleep(5 * time.Millisecond)
			conn.Close()
		}
	}
}

// TestWords has the server log what a stranger says, as long and as often as he likes.
func TestWords(t *testing.T) {
	// A control character takes six bytes in a line of JSON.
	name, host := strings.Repeat("\x01", 3*mib/2), strings.Repeat("h", 60_000)
	runAttacks(t, []attack{
		// A wrong password takes CPU time that nobody is asked to save.
		{name: "logins with long names", args: []string{"--bcrypt-cost=4"}, prepare: guarded, cores: -1,
			run: func(t *testing.T, s *scene) {
				auth := pb.NewAuthClient(s.server.Conn(t))
				var group sync.WaitGroup
				for range 4 {
					group.Go(func() {
						for s.lasts() {
							ctx, cancel := context.WithTimeout(context.Background(), awaitMax)
							_, err := auth.Authenticate(ctx, &pb.AuthenticateRequest{Name: name, Password: "guess"})
							cancel()
							if err == nil {
								t.Error("a stranger has logged in")
								return
							}
						}
					})
				}
				group.Wait()
			}, after: func(t *testing.T, s *scene) {
				if len(s.server.LinesWith("invalid authentication was requested")) == 0 {
					t.Error("wrong logins are not told of")
				}
			}},
		{name: "hosts that are strangers", args: []string{"--host-whitelist=good.example.org"}, cores: -1, run: requests(func() string {
			return "GET /health HTTP/1.1\r\nhost: " + host + "\r\n\r\n"
		}), after: func(t *testing.T, s *scene) {
			if len(s.server.LinesWith("DNS rebinding")) == 0 {
				t.Error("strange hosts are not told of")
			}
		}},
	})
}
