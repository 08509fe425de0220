package attacks

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"basalt/tests/interop/harness"
)

// fewDescriptors leaves the server so many that half of them are for clients.
func fewDescriptors() []string { return []string{"sh", "-c", `ulimit -n 600 && exec "$0" "$@"`} }

// TestSilence opens connections that say little or nothing.
func TestSilence(t *testing.T) {
	runAttacks(t, []attack{
		{name: "more connections than descriptors", wrapper: fewDescriptors(), cores: 0.1, run: func(t *testing.T, s *scene) {
			var group sync.WaitGroup
			for range 20 {
				group.Go(func() {
					for range 50 {
						conn, err := net.Dial("tcp", s.server.Target())
						if err != nil {
							break
						}
						defer conn.Close()
					}
					s.wait()
				})
			}
			group.Wait()
		}, after: func(t *testing.T, s *scene) {
			// Files could be opened all the while, and places return.
			client := s.server.Client(t)
			if _, err := client.Put(harness.Context(t, time.Minute), "after", "1"); err != nil {
				t.Error(err)
			}
			if lines := s.server.LinesWith("os error 24"); len(lines) > 0 {
				t.Errorf("it ran out of descriptors: %s", lines[0])
			}
			if lines := s.server.LinesWith("closing connections"); len(lines) == 0 || len(lines) > 3 {
				t.Errorf("it said %d times that it closes connections, once in ten seconds is right", len(lines))
			}
		}},
		{name: "idle clients", run: func(t *testing.T, s *scene) {
			before := s.server.Memory()
			const clients = 1_000
			for range clients {
				newAttacker(t, s, http2.Setting{ID: http2.SettingEnablePush, Val: 0})
			}
			s.wait()
			t.Logf("%d bytes for each of %d idle clients", (s.server.Memory()-before)/clients, clients)
		}},
	})
}

// TestProbesComeThroughACrowd fills the client port and probes on --listen-metrics-urls: a member that is sound must not look dead.
func TestProbesComeThroughACrowd(t *testing.T) {
	if !judged(t) {
		t.Skip("etcd has descriptors or has none")
	}
	probes := fmt.Sprintf("http://127.0.0.1:%d", harness.FreePort(t))
	server := harness.Start(t, harness.Options{Args: []string{"--listen-metrics-urls=" + probes}, Wrapper: fewDescriptors()})
	for range 600 {
		conn, err := net.Dial("tcp", server.Target())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	closed := "closing connections"
	for began := time.Now(); len(server.LinesWith(closed)) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > awaitMax {
			t.Fatal("the port is not full")
		}
	}
	get(t, probes+"/livez")
}

// TestNewcomersComeThroughASilentCrowd fills the client port with connections that say nothing: who does say something has a place
// at once, and not when their time is over.
func TestNewcomersComeThroughASilentCrowd(t *testing.T) {
	if !judged(t) {
		t.Skip("etcd has descriptors or has none")
	}
	probes := fmt.Sprintf("http://127.0.0.1:%d", harness.FreePort(t))
	server := harness.Start(t, harness.Options{Args: []string{"--listen-metrics-urls=" + probes}, Wrapper: fewDescriptors()})
	heard := server.Client(t)
	if _, err := heard.Put(harness.Context(t, time.Minute), "before", "1"); err != nil {
		t.Fatal(err)
	}
	// Again and again, that there are silent ones all the while.
	crowd, stop := new(sync.WaitGroup), make(chan struct{})
	defer crowd.Wait()
	defer close(stop)
	for range 600 {
		crowd.Go(func() {
			for {
				conn, err := net.Dial("tcp", server.Target())
				if err != nil {
					return
				}
				ended := make(chan struct{})
				go func() {
					discard(conn)
					close(ended)
				}()
				select {
				case <-ended:
					conn.Close()
				case <-stop:
					conn.Close()
					return
				}
			}
		})
	}
	for began := time.Now(); len(server.LinesWith("closing connections")) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > awaitMax {
			t.Fatal("the port is not full")
		}
	}
	for n := range 5 {
		client := server.Client(t)
		if _, err := client.Put(harness.Context(t, time.Minute), "amid", fmt.Sprint(n)); err != nil {
			t.Fatal(err)
		}
	}
	if page := get(t, probes+"/metrics"); strings.Contains(page, `basalt_listen_cut_total{reason="late"}`) {
		t.Error("places came free only because the silent ones were late")
	}
	if _, err := heard.Put(harness.Context(t, time.Minute), "after", "1"); err != nil {
		t.Errorf("who was heard lost its place: %v", err)
	}
}

// get is a page, as text.
func get(t *testing.T, url string) string {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s answers %s: %v", url, response.Status, err)
	}
	return string(body)
}

// TestSilentAndSlowClientsAreCut waits until the server has had enough of clients that do not come to the point (row 30).
func TestSilentAndSlowClientsAreCut(t *testing.T) {
	if !judged(t) {
		t.Skip("etcd waits for ever")
	}
	certs := harness.NewCertificates(t)
	plain := harness.StartUnderTest(t)
	secure := harness.Start(t, harness.Options{TLS: certs})
	for _, client := range []struct {
		name   string
		server *harness.Server
		// at once, then byte by byte.
		first, then string
	}{
		{"nothing", plain, "", ""},
		{"half a preface", plain, http2.ClientPreface[:10], ""},
		{"a preface in single bytes", plain, "", http2.ClientPreface[:23]},
		{"a request in single bytes", plain, "", "GET /health HTTP/1.1\r\nhost: a\r\n"},
		{"nothing instead of TLS", secure, "", ""},
		{"TLS in single bytes", secure, "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "0123456789012345678901234567890123456789"},
	} {
		t.Run(client.name, func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", client.server.Target())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			ended := make(chan struct{})
			go func() {
				discard(conn)
				close(ended)
			}()
			_, _ = conn.Write([]byte(client.first))
			tick, limit := time.NewTicker(time.Second), time.After(60*time.Second)
			defer tick.Stop()
			for rest := client.then; ; {
				select {
				case <-ended:
					return
				case <-limit:
					t.Fatal("the server still waits after a minute")
				case <-tick.C:
					if len(rest) > 0 {
						_, _ = conn.Write([]byte(rest[:1]))
						rest = rest[1:]
					}
				}
			}
		})
	}
}
