package interop

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/interop/harness"
)

const profilesPath = "/debug/pprof/"

// busy puts until the test ends, so that a profile has something to show; each put that is acknowledged is counted by its key.
func busy(t *testing.T, server *harness.Server) (stop func() int) {
	t.Helper()
	s := servicesOf(server.Conn(t))
	ctx, cancel := context.WithCancel(harness.Context(t, 5*time.Minute))
	done := make(chan int)
	go func() {
		acknowledged := 0
		for ctx.Err() == nil {
			if _, err := s.kv.Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "busy%07d", acknowledged), Value: make([]byte, 512)}); err == nil {
				acknowledged++
			}
		}
		done <- acknowledged
	}()
	stopped, count := false, 0
	stop = func() int {
		cancel()
		if !stopped {
			stopped, count = true, <-done
		}
		return count
	}
	t.Cleanup(func() { stop() })
	return stop
}

// pprofTop is what the genuine `go tool pprof -top` prints of an address or a file.
func pprofTop(t *testing.T, source string) string {
	t.Helper()
	command := exec.CommandContext(harness.Context(t, 3*time.Minute), "go", "tool", "pprof", "-top", "-nodefraction=0", source)
	command.Env = append(os.Environ(), "PPROF_TMPDIR="+t.TempDir())
	var errors bytes.Buffer
	command.Stderr = &errors
	top, err := command.Output()
	if err != nil {
		t.Fatalf("go tool pprof %s: %v\n%s%s", source, err, top, errors.Bytes())
	}
	return string(top)
}

// observeProfiles has the genuine pprof take a profile of a server that is at work, and name its functions.
func observeProfiles(t *testing.T) {
	server := harness.StartUnderTest(t, "--enable-pprof")
	busy(t, server)
	module := map[harness.Kind]string{harness.Basalt: "basalt_s", harness.Etcd: "go.etcd.io/etcd"}[server.Kind]
	top := pprofTop(t, server.Endpoint()+profilesPath+"profile?seconds=2")
	if !strings.Contains(top, module) || !strings.Contains(top, "Type: cpu") {
		t.Errorf("no function of %s:\n%s", module, top)
	}
	threads := pprofTop(t, server.Endpoint()+profilesPath+"goroutine")
	if server.Kind == harness.Basalt && !strings.Contains(threads, "basalt-apply") {
		t.Errorf("no thread of basalt:\n%s", threads)
	}
}

// TestProfilePages: status and headers of each page, as etcd has them.
func TestProfilePages(t *testing.T) {
	server := harness.StartUnderTest(t, "--enable-pprof")
	own := server.Kind == harness.Basalt
	client := newClient(nil, false)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for _, page := range []struct {
		path        string
		code        int
		contentType string
		file, text  string
		// ours says that etcd answers with a profile of Go's.
		ours bool
	}{
		{path: "", code: 200, contentType: "text/html; charset=utf-8", text: "<title>/debug/pprof/</title>"},
		{path: "cmdline", code: 200, contentType: "text/plain; charset=utf-8", text: "\x00--enable-pprof"},
		{path: "symbol", code: 200, contentType: "text/plain; charset=utf-8", text: "num_symbols: "},
		{path: "profile?seconds=1", code: 200, contentType: "application/octet-stream", file: "profile"},
		{path: "goroutine", code: 200, contentType: "application/octet-stream", file: "goroutine"},
		{path: "goroutine?debug=1", code: 200, contentType: "text/plain; charset=utf-8"},
		{path: "heap?debug=1", code: 200, contentType: "text/plain; charset=utf-8"},
		{path: "nothing", code: 404, contentType: "text/plain; charset=utf-8", text: "Unknown profile\n"},
		{path: "profile/", code: 404, contentType: "text/plain; charset=utf-8", text: "Unknown profile\n"},
		{path: "profile?seconds=301", code: 400, contentType: "text/plain; charset=utf-8", text: "exceeds 300 seconds", ours: true},
		{path: "block", code: 404, contentType: "text/plain; charset=utf-8", text: "no block profile", ours: true},
		{path: "mutex", code: 404, contentType: "text/plain; charset=utf-8", text: "no mutex profile", ours: true},
		{path: "threadcreate", code: 404, contentType: "text/plain; charset=utf-8", text: "no profile", ours: true},
		{path: "allocs", code: 404, contentType: "text/plain; charset=utf-8", text: "no profile", ours: true},
		{path: "trace", code: 404, contentType: "text/plain; charset=utf-8", text: "no execution trace", ours: true},
		{path: "heap", code: 404, contentType: "text/plain; charset=utf-8", text: "heap-profiles", ours: true},
	} {
		if page.ours && !own {
			continue
		}
		response, body := httpGet(t, client, server.Endpoint()+profilesPath+page.path)
		disposition := ""
		if page.file != "" {
			disposition = `attachment; filename="` + page.file + `"`
			if _, err := gzip.NewReader(strings.NewReader(body)); err != nil {
				t.Errorf("%s: %v", page.path, err)
			}
		}
		ofGo := ""
		if page.code >= 400 {
			ofGo = "1"
		}
		for name, want := range map[string]string{
			"Content-Type": page.contentType, "Content-Disposition": disposition, "X-Go-Pprof": ofGo,
			"X-Content-Type-Options": "nosniff", "Access-Control-Allow-Origin": "*",
		} {
			if got := response.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", page.path, name, got, want)
			}
		}
		if response.StatusCode != page.code || !strings.Contains(body, page.text) {
			t.Errorf("%s: %d %q", page.path, response.StatusCode, body)
		}
	}
	response, body := httpGet(t, client, server.Endpoint()+"/debug/pprof")
	if response.StatusCode != 307 || response.Header.Get("Location") != profilesPath || body != "<a href=\"/debug/pprof/\">Temporary Redirect</a>.\n\n" {
		t.Errorf("without its slash: %d %q %q", response.StatusCode, response.Header.Get("Location"), body)
	}
}

// TestWhoSeesProfiles: nobody without the flag or on the port for metrics, no stranger's name, whoever else reaches a client port.
func TestWhoSeesProfiles(t *testing.T) {
	closed := harness.StartUnderTest(t)
	expectHTTP(t, closed, profilesPath, http.StatusNotFound, "404 page not found\n")
	expectHTTP(t, closed, profilesPath+"profile?seconds=1", http.StatusNotFound, "404 page not found\n")

	metrics := fmt.Sprintf("http://127.0.0.1:%d", harness.FreePort(t))
	server := harness.StartUnderTest(t, "--enable-pprof", "--host-whitelist=127.0.0.1", "--listen-metrics-urls="+metrics)
	populate(t, harness.Context(t, time.Minute), servicesOf(server.Conn(t)))
	if response, _ := httpGet(t, newClient(nil, false), metrics+profilesPath+"cmdline"); response.StatusCode != http.StatusNotFound {
		t.Errorf("on the port for metrics: %d", response.StatusCode)
	}
	// As in etcd no user is asked for, also while authentication is on.
	if response, _ := httpGet(t, newClient(nil, false), server.Endpoint()+profilesPath+"cmdline"); response.StatusCode != http.StatusOK {
		t.Errorf("with authentication: %d", response.StatusCode)
	}
	request := must(http.NewRequestWithContext(harness.Context(t, 20*time.Second), http.MethodGet, server.Endpoint()+profilesPath+"cmdline", nil))(t)
	request.Host = "stranger.example"
	response := must(newClient(nil, false).Do(request))(t)
	response.Body.Close()
	if response.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("by a stranger's name: %d", response.StatusCode)
	}

	certificates := harness.NewCertificates(t)
	secure := harness.Start(t, harness.Options{TLS: certificates, Args: []string{"--enable-pprof"}})
	for _, http2 := range []bool{false, true} {
		url := secure.Endpoint() + profilesPath + "cmdline"
		if response, _ := httpGet(t, newClient(certificates.ClientConfig(t), http2), url); response.StatusCode != http.StatusOK {
			t.Errorf("with a certificate, HTTP/2 %v: %d", http2, response.StatusCode)
		}
		request := must(http.NewRequestWithContext(harness.Context(t, 20*time.Second), http.MethodGet, url, nil))(t)
		if response, err := newClient(certificates.AnonymousConfig(t), http2).Do(request); err == nil {
			response.Body.Close()
			t.Errorf("without a certificate, HTTP/2 %v: %d", http2, response.StatusCode)
		}
	}
}

// beginProfile asks for a profile of five minutes; what came of it comes when the request has ended. It returns once
// another profile is refused.
func beginProfile(t *testing.T, server *harness.Server) (goAway func(), ended <-chan error) {
	t.Helper()
	ctx, cancel := context.WithCancel(harness.Context(t, 4*time.Minute))
	request := must(http.NewRequestWithContext(ctx, http.MethodGet, server.Endpoint()+profilesPath+"profile?seconds=300", nil))(t)
	end := make(chan error, 1)
	go func() {
		response, err := newClient(nil, false).Do(request)
		if err == nil {
			var body []byte
			body, err = io.ReadAll(response.Body)
			response.Body.Close()
			if err == nil {
				err = fmt.Errorf("%d %s", response.StatusCode, body)
			}
		}
		end <- err
	}()
	for {
		select {
		case err := <-end:
			// A profile of somebody else's of a second was still being taken.
			if !strings.Contains(err.Error(), "already in use") {
				t.Fatal(err)
			}
			cancel()
			return beginProfile(t, server)
		default:
		}
		response, body := httpGet(t, newClient(nil, false), server.Endpoint()+profilesPath+"profile?seconds=1")
		if response.StatusCode == http.StatusInternalServerError {
			if body != "Could not enable CPU profiling: cpu profiling already in use\n" || response.Header.Get("Content-Disposition") != "" {
				t.Errorf("a second at the same time: %q", body)
			}
			return cancel, end
		}
	}
}

// TestProfileUnderWay: one at a time; a client that goes away frees it; a stop ends it; a kill loses nothing.
func TestProfileUnderWay(t *testing.T) {
	server := harness.StartUnderTest(t, "--enable-pprof")
	stop := busy(t, server)
	goAway, ended := beginProfile(t, server)
	goAway()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it went away: %v", err)
	}
	for ctx := harness.Context(t, time.Minute); ; {
		response, body := httpGet(t, newClient(nil, false), server.Endpoint()+profilesPath+"profile?seconds=1")
		if response.StatusCode == http.StatusOK {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("not free again: %d %s", response.StatusCode, body)
		}
	}
	_, ended = beginProfile(t, server)
	server.Kill()
	<-ended
	acknowledged := stop()
	server.Restart()
	found := everything(t, server).Count
	if found < int64(acknowledged) || acknowledged == 0 {
		t.Errorf("%d keys of %d acknowledged", found, acknowledged)
	}
	if server.Kind == harness.Etcd {
		// There a stop waits for the profile's end.
		return
	}
	_, ended = beginProfile(t, server)
	server.Stop()
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "the server stops") {
		t.Errorf("amid a stop: %v", err)
	}
}
