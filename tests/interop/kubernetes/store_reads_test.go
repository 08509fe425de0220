package kubernetes

import (
	"bufio"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"basalt/tests/interop/harness"
)

// readsOfStore runs `lists` and fails unless at least as many reads as it returns have reached the store meanwhile.
func (l *life) readsOfStore(lists func() int) {
	l.t.Helper()
	before := rangeCalls(l.t, l.store)
	wanted := lists()
	if reads := rangeCalls(l.t, l.store) - before; reads < wanted {
		l.t.Errorf("%d lists, and %d reads of the store: the API server's cache has answered", wanted, reads)
	}
}

// rangeCalls counts the range calls that the store has answered, streamed ones among them.
func rangeCalls(t *testing.T, store *harness.Server) int {
	t.Helper()
	response, err := http.Get(store.Endpoint() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	calls := 0.0
	scanner := bufio.NewScanner(io.LimitReader(response.Body, 16<<20))
	for scanner.Scan() {
		series, value, _ := strings.Cut(scanner.Text(), "} ")
		if strings.HasPrefix(series, "grpc_server_handled_total{") && strings.Contains(series, `grpc_method="Range`) {
			count, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			calls += count
		}
	}
	return int(calls)
}
